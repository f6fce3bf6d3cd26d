//! What a worker remembers of jobs that it does not hold: bounded, pure.
//!
//! [`Finished`] lets a job that is delivered again after its end be settled
//! without running once more; [`Cancels`] lets a job be cancelled that has not
//! come yet. Both may forget: then the job runs again, which is always allowed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::ids::JobId;
use sluice_proto::report::{self, LogLine, Outcome};

/// Jobs remembered as finished: some seconds of full load, which is how long a
/// connection to the broker is away.
const FINISHED_MAX: usize = 8_192;

/// What the remembered ends may take, in bytes.
const FINISHED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An end larger than this is remembered as such, without its content, in bytes.
const FINISHED_ONE_BYTES_MAX: usize = 16 * 1024;

/// What an entry costs beside its content, in bytes.
const ENTRY_BYTES: usize = 192;

/// Cancelled jobs remembered before they came.
const CANCELS_MAX: usize = 10_000;

/// How long such a job may be on its way: it lies in the queue, so this is
/// generous, and the bridge repeats a cancel that still matters.
const CANCEL_KEPT: Duration = Duration::from_secs(600);

/// Jobs whose end was reported, and the report confirmed.
#[derive(Debug, Default)]
pub struct Finished {
    entries: HashMap<JobId, Entry>,
    /// Oldest first.
    order: VecDeque<JobId>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    dispatch: u32,
    /// Missing where it was too large to keep.
    end: Option<Arc<report::Finished>>,
    bytes: usize,
}

/// What is known of a job that was delivered again.
#[derive(Debug, Clone, PartialEq)]
pub enum Recalled {
    /// This dispatch or a later one was reported, and the report confirmed.
    Reported,
    /// An earlier dispatch was: the same end is reported for this one.
    Again(Arc<report::Finished>),
    Nothing,
}

/// Jobs to be cancelled when they come.
#[derive(Debug, Default)]
pub struct Cancels {
    entries: HashMap<JobId, (String, Instant)>,
    order: VecDeque<(JobId, Instant)>,
}

// === impl Finished ===

impl Finished {
    pub fn remember(&mut self, job: JobId, dispatch: u32, end: Arc<report::Finished>) {
        let size = size_of_end(&end);
        let kept = (size <= FINISHED_ONE_BYTES_MAX).then_some(end);
        let bytes = ENTRY_BYTES + kept.as_ref().map_or(0, |_| size);
        let entry = Entry {
            dispatch,
            end: kept,
            bytes,
        };
        self.bytes += bytes;
        match self.entries.insert(job.clone(), entry) {
            // It keeps its place in the order: a repeat does not make it younger by much.
            Some(older) => self.bytes -= older.bytes,
            None => self.order.push_back(job),
        }
        while self.order.len() > FINISHED_MAX || self.bytes > FINISHED_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.bytes;
            }
        }
    }

    pub fn recall(&self, job: &JobId, dispatch: u32) -> Recalled {
        match self.entries.get(job) {
            None => Recalled::Nothing,
            Some(entry) if entry.dispatch >= dispatch => Recalled::Reported,
            Some(entry) => entry.end.clone().map_or(Recalled::Nothing, Recalled::Again),
        }
    }

    pub fn contains(&self, job: &JobId) -> bool {
        self.entries.contains_key(job)
    }
}

/// Roughly what an end takes in memory, in bytes.
fn size_of_end(end: &report::Finished) -> usize {
    let outcome = match &end.outcome {
        Outcome::Succeeded { result } => result.len(),
        Outcome::Failed(failure) => {
            failure.message.len() + failure.stack.as_ref().map_or(0, String::len)
        }
        Outcome::Cancelled { reason } => reason.len(),
    };
    let line = |line: &LogLine| line.text.len() + std::mem::size_of::<LogLine>();
    outcome + end.log.iter().map(line).sum::<usize>() + std::mem::size_of::<report::Finished>()
}

// === impl Cancels ===

impl Cancels {
    /// Remembers a wish; the first reason stays.
    pub fn remember(&mut self, job: JobId, reason: &str, now: Instant) {
        self.forget_old(now);
        if self.entries.contains_key(&job) {
            return;
        }
        if self.order.len() >= CANCELS_MAX
            && let Some((oldest, _)) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back((job.clone(), now));
        self.entries.insert(job, (reason.to_owned(), now));
    }

    pub fn recall(&self, job: &JobId, now: Instant) -> Option<String> {
        if self.entries.is_empty() {
            return None;
        }
        let (reason, since) = self.entries.get(job)?;
        (now.duration_since(*since) < CANCEL_KEPT).then(|| reason.clone())
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((job, since)) = self.order.front()
            && now.duration_since(*since) >= CANCEL_KEPT
        {
            self.entries.remove(job);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(bytes: usize) -> Arc<report::Finished> {
        let outcome = Outcome::Succeeded {
            result: vec![b'1'; bytes],
        };
        Arc::new(report::Finished {
            outcome,
            runtime: None,
            hops: report::Hops::default(),
            log: Vec::new(),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        })
    }

    fn job(n: usize) -> JobId {
        JobId(format!("job-{n}"))
    }

    #[test]
    fn the_same_dispatch_is_known_and_a_later_one_is_reported_again() {
        let mut finished = Finished::default();
        let end = end_of(10);
        finished.remember(job(1), 2, Arc::clone(&end));
        assert_eq!(finished.recall(&job(1), 1), Recalled::Reported);
        assert_eq!(finished.recall(&job(1), 2), Recalled::Reported);
        assert_eq!(finished.recall(&job(1), 3), Recalled::Again(end));
        assert_eq!(finished.recall(&job(2), 1), Recalled::Nothing);
    }

    #[test]
    fn a_large_end_is_not_kept_so_a_later_dispatch_runs_again() {
        let mut finished = Finished::default();
        finished.remember(job(1), 1, end_of(FINISHED_ONE_BYTES_MAX));
        assert_eq!(finished.recall(&job(1), 1), Recalled::Reported);
        assert_eq!(finished.recall(&job(1), 2), Recalled::Nothing);
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_bytes_and_forgets_the_oldest() {
        let mut finished = Finished::default();
        for n in 0..=FINISHED_MAX {
            finished.remember(job(n), 1, end_of(1));
        }
        assert!(!finished.contains(&job(0)) && finished.contains(&job(1)));
        for n in 0..1_000 {
            finished.remember(job(100_000 + n), 1, end_of(FINISHED_ONE_BYTES_MAX - 512));
        }
        assert!(finished.bytes <= FINISHED_BYTES_MAX, "{}", finished.bytes);
        assert_eq!(finished.entries.len(), finished.order.len());
        let sum: usize = finished.entries.values().map(|entry| entry.bytes).sum();
        assert_eq!(finished.bytes, sum);
    }

    #[test]
    fn a_cancel_is_remembered_for_a_while_and_the_number_is_bounded() {
        let (mut cancels, now) = (Cancels::default(), Instant::now());
        cancels.remember(job(0), "changed my mind", now);
        cancels.remember(job(0), "again", now);
        assert_eq!(
            cancels.recall(&job(0), now).as_deref(),
            Some("changed my mind")
        );
        assert_eq!(cancels.recall(&job(0), now + CANCEL_KEPT), None);
        for n in 1..=CANCELS_MAX {
            cancels.remember(job(n), "x", now);
        }
        assert_eq!(cancels.recall(&job(0), now), None);
        assert_eq!(cancels.entries.len(), CANCELS_MAX);
        cancels.remember(job(CANCELS_MAX + 1), "x", now + CANCEL_KEPT);
        assert_eq!(cancels.entries.len(), 1);
    }
}
