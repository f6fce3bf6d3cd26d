//! How long to wait before trying again: a validated value and a pure function.
//!
//! Owns the arithmetic. Does not sleep and draws no random number: both are the caller's.

use std::time::Duration;

/// Exponential back-off with full jitter between a floor and a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// # Panics
    ///
    /// When `min` is zero or larger than `max`: both are constants of the caller.
    pub const fn new(min: Duration, max: Duration) -> Self {
        assert!(!min.is_zero(), "a back-off needs a floor");
        assert!(
            min.as_nanos() <= max.as_nanos(),
            "the floor of a back-off is above its ceiling"
        );
        Self { min, max }
    }

    /// The wait before try number `attempt` (from 0). `jitter` is uniform in
    /// 0..=1 and chooses a point between the floor and `min · 2^attempt`, capped
    /// by the ceiling, so that many peers that lost the same thing at the same
    /// moment do not come back at the same moment.
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let doubled = self
            .min
            .saturating_mul(1u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX));
        let ceiling = doubled.min(self.max);
        let spread = ceiling.saturating_sub(self.min);
        self.min + spread.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// A uniform number in 0..1 from the system's random source.
pub fn jitter() -> f64 {
    let mut bytes = [0u8; 4];
    // Without a random source the middle is as good a guess as any: the wait is still bounded.
    if getrandom::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

    #[test]
    fn the_first_wait_is_the_floor_and_no_wait_is_over_the_ceiling() {
        assert_eq!(BACKOFF.delay(0, 1.0), Duration::from_millis(100));
        assert_eq!(BACKOFF.delay(40, 1.0), Duration::from_secs(5));
        assert_eq!(BACKOFF.delay(u32::MAX, 0.0), Duration::from_millis(100));
    }

    #[test]
    fn jitter_spreads_between_floor_and_doubling() {
        assert_eq!(BACKOFF.delay(3, 0.5), Duration::from_millis(450));
    }
}
