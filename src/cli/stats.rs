//! Percentiles of durations, for `demo` and `bench`.

use std::time::Duration;

use serde_json::{Value, json};

/// Durations in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    ms: Vec<f64>,
}

// === impl Samples ===

impl Samples {
    pub fn add(&mut self, duration: Duration) {
        self.ms.push(duration.as_secs_f64() * 1_000.0);
    }

    pub fn len(&self) -> usize {
        self.ms.len()
    }

    pub fn p50(&self) -> f64 {
        self.percentile(0.50)
    }

    pub fn p99(&self) -> f64 {
        self.percentile(0.99)
    }

    /// The smallest sample that `share` of all samples do not exceed, rounded
    /// to a microsecond; 0 without samples.
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.ms.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        let value = sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0);
        (value * 1_000.0).round() / 1_000.0
    }

    pub fn to_json(&self) -> Value {
        json!({"p50": self.p50(), "p99": self.p99()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let mut samples = Samples::default();
        for ms in 1..=100 {
            samples.add(Duration::from_millis(ms));
        }
        assert_eq!((samples.p50(), samples.p99()), (50.0, 99.0));
        assert_eq!(Samples::default().p99(), 0.0);
    }
}
