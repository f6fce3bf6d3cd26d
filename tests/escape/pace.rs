//! Somebody else at work beside the hostile, who must not notice.

use std::time::{Duration, Instant};

use crate::runtimes::{House, end, start, value};

/// How many jobs make a measurement.
const JOBS: usize = 60;

/// Slower than this times what it was is not normal any more.
const RATIO_MAX: u32 = 3;

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

    /// The next jobs of another identity run at normal speed.
    pub async fn check(&self, house: &House, after: &str) {
        let now = measure(house).await;
        let most = (self.before * RATIO_MAX).max(FLOOR);
        assert!(
            now <= most,
            "after {after} another identity takes {now:?} for a job, before it was {:?}",
            self.before
        );
    }
}

async fn measure(house: &House) -> Duration {
    let mut times = Vec::with_capacity(JOBS);
    for _ in 0..JOBS {
        let begun = Instant::now();
        let lease = house.flow("another identity").await;
        let ended = end(start(&lease, "6 * 7", 10_000).await).await;
        times.push(begun.elapsed());
        assert_eq!(value(&ended), 42);
    }
    times.sort();
    times[JOBS / 2]
}
