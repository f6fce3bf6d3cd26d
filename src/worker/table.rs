//! Which jobs a worker holds, and what one more delivery of a job means.
//!
//! ```text
//!           arrive                 start                    settle
//! (nobody) ────────▶ Waiting ──────────────▶ Held by a slot ───────▶ finished, remembered
//!                       │ link lost, drained        │ release: retry, requeue, bury
//!                       ▼                           ▼
//!                   the broker's again          the broker's again
//! ```
//!
//! A delivery of a job that is here already is *adopted*: the job is not
//! started twice, its attempt rises, and the new delivery is the one that will
//! be settled. That is also how a long job survives a lost connection, or the
//! broker closing the channel of a consumer that takes longer than its
//! `consumer_timeout` (30 minutes by default).
//!
//! Pure: no broker, no clock. `D` is a delivery; whoever is handed one settles it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::channel::oneshot;

use sluice_proto::ids::JobId;
use sluice_proto::job::Attempt;
use sluice_proto::report;

use crate::worker::memory::{Cancels, Finished, Recalled};

/// The jobs of one worker.
#[derive(Debug)]
pub struct Table<D> {
    held: HashMap<JobId, Held<D>>,
    finished: Finished,
    cancels: Cancels,
}

#[derive(Debug)]
struct Held<D> {
    attempt: Attempt,
    /// Waiting: what will be started. In a slot: a delivery adopted since, the
    /// older ones being with the slot.
    delivery: Option<D>,
    in_slot: bool,
    cancelled: Option<String>,
    /// Ends the invocation; gone once used.
    abort: Option<oneshot::Sender<()>>,
}

/// What became of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<D> {
    /// It waits for a slot.
    Waiting,
    /// The job is here already. The delivery it replaced, if the table had
    /// that, is to be acked if its link still lives: it stands for the same job.
    Adopted { replaced: Option<D> },
    /// A later dispatch of the job is here: to be acked, as nobody waits for this one.
    Superseded(D),
}

/// What a slot is to do with a job that waited.
#[derive(Debug)]
pub struct Start<D> {
    pub delivery: D,
    pub attempt: Attempt,
    pub how: How,
}

#[derive(Debug)]
pub enum How {
    /// Run it; `abort` resolves when it is to end.
    Run { abort: oneshot::Receiver<()> },
    /// Report it as cancelled, without running it.
    Cancelled { reason: String },
    /// Its end was reported already: ack.
    Reported,
    /// Its end is known from an earlier dispatch: report that.
    Again(Arc<report::Finished>),
}

/// Whether an end that was reported for one attempt settles the job.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<D> {
    /// It does; a delivery adopted meanwhile is to be acked too.
    Done { adopted: Option<D> },
    /// A later dispatch was adopted meanwhile: the end is to be reported for that.
    Raised {
        attempt: Attempt,
        end: Box<report::Finished>,
    },
}

// === impl Table ===

impl<D> Default for Table<D> {
    fn default() -> Self {
        Self {
            held: HashMap::new(),
            finished: Finished::default(),
            cancels: Cancels::default(),
        }
    }
}

impl<D> Table<D> {
    /// Takes a delivery in.
    pub fn arrive(
        &mut self,
        job: &JobId,
        attempt: Attempt,
        delivery: D,
        now: Instant,
    ) -> Arrival<D> {
        let Some(held) = self.held.get_mut(job) else {
            let held = Held {
                attempt,
                delivery: Some(delivery),
                in_slot: false,
                cancelled: self.cancels.recall(job, now),
                abort: None,
            };
            self.held.insert(job.clone(), held);
            return Arrival::Waiting;
        };
        if attempt.dispatch < held.attempt.dispatch {
            return Arrival::Superseded(delivery);
        }
        held.attempt = held.attempt.max(attempt);
        Arrival::Adopted {
            replaced: held.delivery.replace(delivery),
        }
    }

    /// Gives a waiting job to a slot. `None` if it no longer waits: its link was
    /// lost, or another slot has it.
    pub fn start(&mut self, job: &JobId) -> Option<Start<D>> {
        let held = self.held.get_mut(job).filter(|held| !held.in_slot)?;
        let delivery = held.delivery.take()?;
        held.in_slot = true;
        let how = match self.finished.recall(job, held.attempt.dispatch) {
            Recalled::Reported => How::Reported,
            Recalled::Again(end) => How::Again(end),
            Recalled::Nothing => match held.cancelled.clone() {
                Some(reason) => How::Cancelled { reason },
                None => {
                    let (sender, abort) = oneshot::channel();
                    held.abort = Some(sender);
                    How::Run { abort }
                }
            },
        };
        Some(Start {
            delivery,
            attempt: held.attempt,
            how,
        })
    }

    /// The attempt that reports of this job carry now.
    pub fn attempt(&self, job: &JobId) -> Option<Attempt> {
        self.held.get(job).map(|held| held.attempt)
    }

    /// The newest delivery of a running job, if it came again.
    pub fn adopted(&self, job: &JobId) -> Option<&D> {
        self.held.get(job)?.delivery.as_ref()
    }

    /// Why somebody wants this job to end, if so.
    pub fn cancelled(&self, job: &JobId) -> Option<String> {
        self.held.get(job)?.cancelled.clone()
    }

    /// Ends a job wherever it is: a running one is aborted, a waiting one will not
    /// be started, one that is not here is remembered. A repeat changes nothing.
    pub fn cancel(&mut self, job: &JobId, reason: &str, now: Instant) {
        match self.held.get_mut(job) {
            Some(held) => {
                held.cancelled.get_or_insert_with(|| reason.to_owned());
                if let Some(abort) = held.abort.take() {
                    // The invocation may have ended on its own: then there is nothing to abort.
                    let _ = abort.send(());
                }
            }
            None if self.finished.contains(job) => {}
            None => self.cancels.remember(job.clone(), reason, now),
        }
    }

    /// Aborts every running invocation.
    pub fn abort_all(&mut self) {
        for held in self.held.values_mut() {
            if let Some(abort) = held.abort.take() {
                let _ = abort.send(());
            }
        }
    }

    /// The end of `job` was reported for `reported`, and the report confirmed.
    pub fn settle(
        &mut self,
        job: &JobId,
        reported: Attempt,
        end: Box<report::Finished>,
    ) -> Settled<D> {
        // A mere redelivery of the reported dispatch needs no second report.
        if let Some(attempt) = self.attempt(job)
            && attempt.dispatch > reported.dispatch
        {
            return Settled::Raised { attempt, end };
        }
        let dispatch = reported.dispatch;
        self.finished
            .remember(job.clone(), dispatch, Arc::from(end));
        let held = self.held.remove(job);
        Settled::Done {
            adopted: held.and_then(|held| held.delivery),
        }
    }

    /// Forgets a job that goes on elsewhere, or later. A delivery that was
    /// adopted meanwhile is handed out, to be settled in the same way.
    pub fn release(&mut self, job: &JobId, now: Instant) -> Option<D> {
        let held = self.held.remove(job)?;
        // Whoever wanted it to end wants that still when it comes back.
        if let Some(reason) = &held.cancelled {
            self.cancels.remember(job.clone(), reason, now);
        }
        held.delivery
    }

    /// The link is gone, and every delivery of it with it: the broker has the
    /// waiting jobs again, and gives them out once more. Running ones go on.
    pub fn lose_link(&mut self) {
        self.held.retain(|_, held| held.in_slot);
        for held in self.held.values_mut() {
            held.delivery = None;
        }
    }

    /// Hands out what waits, to be given back.
    pub fn give_back_waiting(&mut self, now: Instant) -> Vec<D> {
        let waiting: Vec<JobId> = self
            .held
            .iter()
            .filter(|(_, held)| !held.in_slot)
            .map(|(job, _)| job.clone())
            .collect();
        waiting
            .iter()
            .filter_map(|job| self.release(job, now))
            .collect()
    }

    /// Every job that is here, with its attempt and whether a slot has it.
    pub fn held(&self) -> impl Iterator<Item = (&JobId, Attempt, bool)> {
        self.held
            .iter()
            .map(|(job, held)| (job, held.attempt, held.in_slot))
    }

    /// Jobs in slots.
    pub fn in_slots(&self) -> usize {
        self.held.values().filter(|held| held.in_slot).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::report::{Hops, Outcome};

    fn attempt(dispatch: u32, delivery: u32) -> Attempt {
        Attempt { dispatch, delivery }
    }

    fn end() -> Box<report::Finished> {
        Box::new(report::Finished {
            outcome: Outcome::Succeeded {
                result: b"1".to_vec(),
            },
            runtime: None,
            hops: Hops::default(),
            log: Vec::new(),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        })
    }

    /// A table in which job `j` runs as attempt 1.1 with delivery 1.
    fn running() -> (Table<u32>, JobId, oneshot::Receiver<()>) {
        let (mut table, job) = (Table::default(), JobId::from("j"));
        let arrival = table.arrive(&job, attempt(1, 1), 1, Instant::now());
        assert_eq!(arrival, Arrival::Waiting);
        let start = table.start(&job).expect("it waits");
        let How::Run { abort } = start.how else {
            panic!("nothing speaks against running it: {:?}", start.how);
        };
        (table, job, abort)
    }

    #[test]
    fn a_redelivery_of_a_running_job_is_adopted_and_not_started() {
        let (mut table, job, _abort) = running();
        table.lose_link();
        let now = Instant::now();
        let arrival = table.arrive(&job, attempt(1, 2), 2, now);
        assert_eq!(arrival, Arrival::Adopted { replaced: None });
        assert!(table.start(&job).is_none());
        assert_eq!(table.attempt(&job), Some(attempt(1, 2)));
        let arrival = table.arrive(&job, attempt(2, 1), 3, now);
        assert_eq!(arrival, Arrival::Adopted { replaced: Some(2) });
        let settled = table.settle(&job, attempt(2, 1), end());
        assert_eq!(settled, Settled::Done { adopted: Some(3) });
        assert_eq!(table.in_slots(), 0);
    }

    #[test]
    fn an_older_dispatch_is_not_adopted() {
        let (mut table, job, _abort) = running();
        table.arrive(&job, attempt(3, 1), 2, Instant::now());
        let arrival = table.arrive(&job, attempt(2, 4), 3, Instant::now());
        assert_eq!(arrival, Arrival::Superseded(3));
        assert_eq!(table.attempt(&job), Some(attempt(3, 1)));
    }

    #[test]
    fn an_end_reported_for_an_older_dispatch_is_reported_again_before_it_settles() {
        let (mut table, job, _abort) = running();
        table.arrive(&job, attempt(2, 1), 2, Instant::now());
        let settled = table.settle(&job, attempt(1, 1), end());
        let raised = Settled::Raised {
            attempt: attempt(2, 1),
            end: end(),
        };
        assert_eq!(settled, raised);
        let settled = table.settle(&job, attempt(2, 1), end());
        assert_eq!(settled, Settled::Done { adopted: Some(2) });
    }

    #[test]
    fn a_finished_job_that_comes_again_is_acked_and_a_later_dispatch_reported_again() {
        let (mut table, job, _abort) = running();
        table.settle(&job, attempt(1, 1), end());
        table.arrive(&job, attempt(1, 2), 2, Instant::now());
        let start = table.start(&job).expect("it waits");
        assert!(matches!(start.how, How::Reported), "{:?}", start.how);
        table.release(&job, Instant::now());
        table.arrive(&job, attempt(2, 1), 3, Instant::now());
        let start = table.start(&job).expect("it waits");
        assert!(matches!(start.how, How::Again(_)), "{:?}", start.how);
    }

    #[test]
    fn a_waiting_job_is_the_brokers_again_when_the_link_is_lost() {
        let (mut table, job) = (Table::default(), JobId::from("j"));
        table.arrive(&job, attempt(1, 1), 1, Instant::now());
        table.lose_link();
        assert!(table.start(&job).is_none());
        let arrival = table.arrive(&job, attempt(1, 2), 2, Instant::now());
        assert_eq!(arrival, Arrival::Waiting);
        assert_eq!(table.start(&job).map(|start| start.delivery), Some(2));
    }

    #[test]
    fn what_waits_is_given_back_and_what_runs_is_kept() {
        let (mut table, job, _abort) = running();
        table.arrive(&JobId::from("k"), attempt(1, 1), 7, Instant::now());
        assert_eq!(table.give_back_waiting(Instant::now()), [7]);
        assert_eq!(table.in_slots(), 1);
        assert_eq!(table.attempt(&job), Some(attempt(1, 1)));
    }

    #[test]
    fn a_running_job_is_aborted_by_a_cancel_and_a_repeat_changes_nothing() {
        let (mut table, job, mut abort) = running();
        assert_eq!(abort.try_recv(), Ok(None));
        table.cancel(&job, "enough", Instant::now());
        table.cancel(&job, "more", Instant::now());
        assert_eq!(abort.try_recv(), Ok(Some(())));
        assert_eq!(table.cancelled(&job).as_deref(), Some("enough"));
    }

    #[test]
    fn a_cancel_that_comes_first_meets_the_job_when_it_comes() {
        let (mut table, job) = (Table::default(), JobId::from("j"));
        table.cancel(&job, "never mind", Instant::now());
        table.arrive(&job, attempt(1, 1), 1, Instant::now());
        let start = table.start(&job).expect("it waits");
        assert!(
            matches!(&start.how, How::Cancelled { reason } if reason == "never mind"),
            "{:?}",
            start.how
        );
    }

    #[test]
    fn a_cancelled_job_that_goes_back_is_cancelled_when_it_returns() {
        let (mut table, job, _abort) = running();
        let now = Instant::now();
        table.cancel(&job, "stop", now);
        assert_eq!(table.release(&job, now), None);
        table.arrive(&job, attempt(1, 2), 2, now);
        let start = table.start(&job).expect("it waits");
        assert!(
            matches!(start.how, How::Cancelled { .. }),
            "{:?}",
            start.how
        );
    }

    #[test]
    fn a_cancel_meets_a_waiting_job() {
        let (mut table, job) = (Table::default(), JobId::from("j"));
        table.arrive(&job, attempt(1, 1), 1, Instant::now());
        table.cancel(&job, "stop", Instant::now());
        let start = table.start(&job).expect("it waits");
        assert!(
            matches!(start.how, How::Cancelled { .. }),
            "{:?}",
            start.how
        );
    }

    #[test]
    fn aborting_all_is_no_cancel() {
        let (mut table, job, mut abort) = running();
        table.abort_all();
        assert_eq!(abort.try_recv(), Ok(Some(())));
        assert_eq!(table.cancelled(&job), None);
    }
}
