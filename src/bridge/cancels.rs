//! Cancellations that are to be repeated until their job has ended. Pure.
//!
//! A worker hears of a cancellation only if it listens at that moment, and a job
//! may lie in the queue for long, so it is said again and again, ever more rarely.

use std::collections::HashMap;

use sluice_proto::ids::JobId;

/// Most cancellations remembered. The gateway knows all of them, and says them
/// again as a session begins.
const CANCELS_MAX: usize = 10_000;
/// The wait before the first repeat, in milliseconds; it doubles each time.
const REPEAT_MS_MIN: u64 = 1_000;
const REPEAT_MS_MAX: u64 = 30_000;
/// How long a cancellation is repeated, in milliseconds, if its job never reports an end.
const KEEP_MS: u64 = 3_600_000;

#[derive(Debug, Default)]
pub struct Cancels {
    entries: HashMap<JobId, Entry>,
}

#[derive(Debug)]
struct Entry {
    reason: String,
    since_ms: u64,
    due_ms: u64,
    wait_ms: u64,
}

// === impl Cancels ===

impl Cancels {
    /// Remembers what is to be cancelled; it is due at once, also if it was known.
    pub fn add(&mut self, jobs: Vec<JobId>, reason: &str, now_ms: u64) {
        for job in jobs {
            if self.entries.len() >= CANCELS_MAX && !self.entries.contains_key(&job) {
                continue;
            }
            let entry = Entry {
                reason: reason.to_owned(),
                since_ms: now_ms,
                due_ms: now_ms,
                wait_ms: REPEAT_MS_MIN,
            };
            self.entries.insert(job, entry);
        }
    }

    /// Somebody new listens: all of them are due at once.
    pub fn say_again(&mut self, now_ms: u64) {
        for entry in self.entries.values_mut() {
            entry.due_ms = now_ms;
        }
    }

    /// The job has ended: there is nothing left to cancel.
    pub fn ended(&mut self, job: &JobId) {
        self.entries.remove(job);
    }

    /// What is to be said now, by reason.
    pub fn due(&mut self, now_ms: u64) -> Vec<(String, Vec<JobId>)> {
        self.entries
            .retain(|_, entry| now_ms.saturating_sub(entry.since_ms) <= KEEP_MS);
        let mut due: HashMap<&str, Vec<JobId>> = HashMap::new();
        for (job, entry) in &mut self.entries {
            if entry.due_ms <= now_ms {
                entry.due_ms = now_ms + entry.wait_ms;
                entry.wait_ms = (entry.wait_ms * 2).min(REPEAT_MS_MAX);
                due.entry(&entry.reason).or_default().push(job.clone());
            }
        }
        due.into_iter()
            .map(|(reason, jobs)| (reason.to_owned(), jobs))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(names: &[&str]) -> Vec<JobId> {
        names.iter().map(|name| JobId::from(*name)).collect()
    }

    #[test]
    fn a_cancellation_is_repeated_ever_more_rarely_until_its_job_ends() {
        let mut cancels = Cancels::default();
        cancels.add(jobs(&["a"]), "by hand", 0);
        assert_eq!(cancels.due(0), [("by hand".into(), jobs(&["a"]))]);
        assert!(cancels.due(999).is_empty());
        assert_eq!(cancels.due(1_000).len(), 1);
        assert!(cancels.due(2_999).is_empty());
        assert_eq!(cancels.due(3_000).len(), 1);
        cancels.say_again(3_500);
        assert_eq!(cancels.due(3_500).len(), 1, "somebody new is there");
        cancels.ended(&JobId::from("a"));
        assert!(cancels.due(KEEP_MS).is_empty());
    }

    #[test]
    fn a_repeated_request_is_due_at_once_and_an_old_one_never() {
        let mut cancels = Cancels::default();
        cancels.add(jobs(&["a"]), "r", 0);
        cancels.due(0);
        cancels.add(jobs(&["a"]), "r", 10);
        assert_eq!(cancels.due(10).len(), 1);
        assert!(cancels.due(10 + KEEP_MS + 1).is_empty());
    }

    #[test]
    fn there_is_a_limit_and_known_jobs_still_count() {
        let mut cancels = Cancels::default();
        let many = (0..CANCELS_MAX + 5).map(|n| JobId(n.to_string())).collect();
        cancels.add(many, "r", 0);
        let said: usize = cancels.due(0).iter().map(|(_, jobs)| jobs.len()).sum();
        assert_eq!(said, CANCELS_MAX);
    }
}
