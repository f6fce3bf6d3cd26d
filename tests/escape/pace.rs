//! Somebody else at work beside the hostile, who must not notice.

use std::time::{Duration, Instant};

use crate::runtimes::{House, value};

/// How many jobs make a measurement.
const JOBS: usize = 60;

/// Slower than this times what it was is not normal any more.
const RATIO_MAX: u32 = 3;

/// How often it is measured before it is said to be slow.
const TRIES: usize = 10;

/// Below this a difference is the machine's, not the neighbour's.
const FLOOR: Duration = Duration::from_millis(3);

/// How fast another identity was before anything happened.
pub struct Pace {
    before: Duration,
}

// === impl Pace ===

impl Pace {
    pub async fn take(house: &House) -> Self {
        measure(house).await;
        Self {
            before: measure(house).await,
        }
    }

    /// The next jobs of another identity run at normal speed. A busy machine is
    /// slow for a moment; what goes on in a runtime would be so for longer.
    pub async fn check(&self, house: &House, after: &str) {
        let most = (self.before * RATIO_MAX).max(FLOOR);
        let mut took = Vec::new();
        for _ in 0..TRIES {
            let now = measure(house).await;
            if now <= most {
                return;
            }
            took.push(now);
        }
        let before = self.before;
        panic!("after {after} another identity takes {took:?} for a job, before it was {before:?}");
    }
}

async fn measure(house: &House) -> Duration {
    let mut times = Vec::with_capacity(JOBS);
    for _ in 0..JOBS {
        let begun = Instant::now();
        let ended = house.evaluate("another identity", "6 * 7", 10_000).await;
        times.push(begun.elapsed());
        assert_eq!(value(&ended), 42);
    }
    times.sort();
    times[JOBS / 2]
}
