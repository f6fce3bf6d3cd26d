//! What a worker can tell of its jobs to whoever looks: what each one is doing,
//! which were put back to be tried again, and how those that ended went.
//!
//! Pure bookkeeping, and nothing depends on it: what is lost here costs a line
//! in somebody's view.

use std::collections::{BTreeMap, HashMap, VecDeque};

use sluice_proto::ids::JobId;
use sluice_proto::job::{Attempt, Job, Kind};
use sluice_proto::queue::{HELD_LINE_BYTES_MAX, HeldJob, RetriedJob, TALLY_BUCKETS_MS, Tally};
use sluice_proto::report::{Cause, Outcome, RuntimeUse};

use crate::queue::retry_wait;

/// Retried jobs remembered.
const RETRIED_MAX: usize = 100;
/// How much longer than it waits in the retry queue a retried job is told of, in
/// microseconds: a look may come a moment later.
const RETRIED_SPARE_US: u64 = 2_000_000;

#[derive(Debug, Default)]
pub struct Sights {
    running: HashMap<JobId, Sight>,
    retried: VecDeque<RetriedJob>,
    tallies: BTreeMap<(&'static str, &'static str), Count>,
}

#[derive(Debug)]
struct Sight {
    kind: Kind,
    identity: String,
    since_us: u64,
    timeout_ms: u32,
    runtime: Option<RuntimeUse>,
    last_line: Option<String>,
}

#[derive(Debug, Default)]
struct Count {
    jobs: u64,
    took_us: u64,
    buckets: [u64; TALLY_BUCKETS_MS.len() + 1],
}

// === impl Sights ===

impl Sights {
    pub fn began(&mut self, job: &Job, since_us: u64) {
        let sight = Sight {
            kind: job.kind,
            identity: job.identity.to_string(),
            since_us,
            timeout_ms: job.timeout_ms,
            runtime: None,
            last_line: None,
        };
        self.running.insert(job.id.clone(), sight);
    }

    pub fn claimed(&mut self, job: &JobId, runtime: &RuntimeUse) {
        if let Some(sight) = self.running.get_mut(job) {
            sight.runtime = Some(runtime.clone());
        }
    }

    pub fn logged(&mut self, job: &JobId, text: &str) {
        if let Some(sight) = self.running.get_mut(job) {
            let end = text.floor_char_boundary(HELD_LINE_BYTES_MAX);
            sight.last_line = Some(text[..end].to_owned());
        }
    }

    pub fn left(&mut self, job: &JobId) {
        self.running.remove(job);
    }

    pub fn retried(&mut self, job: &JobId, attempt: Attempt, cause: Cause, at_us: u64) {
        if self.retried.len() >= RETRIED_MAX {
            self.retried.pop_front();
        }
        self.retried.push_back(RetriedJob {
            job: job.clone(),
            attempt,
            cause,
            at_us,
        });
    }

    pub fn ended(&mut self, kind: Kind, outcome: &Outcome, took_us: u64) {
        let word = match outcome {
            Outcome::Succeeded { .. } => "succeeded",
            Outcome::Cancelled { .. } => "cancelled",
            Outcome::Failed(failure) => failure.cause.as_str(),
        };
        let count = self.tallies.entry((kind.as_str(), word)).or_default();
        count.jobs += 1;
        count.took_us = count.took_us.saturating_add(took_us);
        let bucket = TALLY_BUCKETS_MS
            .iter()
            .position(|border_ms| took_us <= border_ms * 1_000)
            .unwrap_or(TALLY_BUCKETS_MS.len());
        count.buckets[bucket] += 1;
    }

    /// What is known of a held job.
    pub fn held(&self, job: &JobId, attempt: Attempt, running: bool) -> HeldJob {
        let mut held = HeldJob {
            job: job.clone(),
            attempt,
            kind: String::new(),
            identity: String::new(),
            running,
            since_us: 0,
            timeout_ms: 0,
            runtime: None,
            last_line: None,
        };
        if let Some(sight) = self.running.get(job) {
            held.kind = sight.kind.as_str().to_owned();
            held.identity.clone_from(&sight.identity);
            held.since_us = sight.since_us;
            held.timeout_ms = sight.timeout_ms;
            held.runtime.clone_from(&sight.runtime);
            held.last_line.clone_from(&sight.last_line);
        }
        held
    }

    /// Jobs that went to the retry queue a moment ago.
    pub fn lately_retried(&self, now_us: u64) -> Vec<RetriedJob> {
        let recent =
            |job: &&RetriedJob| now_us.saturating_sub(job.at_us) <= told_us(job.attempt.delivery);
        self.retried.iter().filter(recent).cloned().collect()
    }

    pub fn tallies(&self) -> Vec<Tally> {
        self.tallies
            .iter()
            .map(|((kind, outcome), count)| Tally {
                kind: (*kind).to_owned(),
                outcome: (*outcome).to_owned(),
                jobs: count.jobs,
                took_us: count.took_us,
                buckets: count.buckets.to_vec(),
            })
            .collect()
    }
}

/// How long after it was put back a job of so many deliveries is told of.
fn told_us(deliveries: u32) -> u64 {
    retry_wait(deliveries).as_micros() as u64 + RETRIED_SPARE_US
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::report::Failure;

    #[test]
    fn ends_are_counted_by_kind_and_outcome_and_by_how_long_they_took() {
        let mut sights = Sights::default();
        let succeeded = Outcome::Succeeded { result: Vec::new() };
        sights.ended(Kind::Event, &succeeded, 900);
        sights.ended(Kind::Event, &succeeded, 2_000);
        let threw = Outcome::Failed(Failure::new(Cause::Threw, "x"));
        sights.ended(Kind::Event, &threw, 999_000_000_000);
        let tallies = sights.tallies();
        assert_eq!(tallies.len(), 2);
        let good = &tallies[0];
        assert_eq!(
            (good.outcome.as_str(), good.jobs, good.took_us),
            ("succeeded", 2, 2_900)
        );
        assert_eq!(good.buckets[..2], [1, 1]);
        assert_eq!(tallies[1].buckets.last(), Some(&1));
    }

    #[test]
    fn a_last_line_is_cut_and_a_retry_is_forgotten() {
        let mut sights = Sights::default();
        let job = JobId::from("j");
        sights.logged(&job, "nobody");
        assert_eq!(sights.held(&job, Attempt::default(), false).last_line, None);
        let third = Attempt {
            dispatch: 1,
            delivery: 3,
        };
        sights.retried(&job, third, Cause::Collateral, 10);
        assert_eq!(sights.lately_retried(6_000_010).len(), 1);
        assert_eq!(sights.lately_retried(6_000_011).len(), 0);
    }
}
