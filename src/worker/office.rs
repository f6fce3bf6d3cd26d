//! One job from its delivery to its settlement: the slots' work.
//!
//! ```text
//!  start ──▶ run ──▶ verdict ──┬─ Report ─────▶ confirmed ──▶ ack
//!                              ├─ ReportAndBury ▶ confirmed ─▶ dead, ack
//!                              ├─ Retry ──────▶ retry queue, ack
//!                              ├─ Requeue ────▶ nack
//!                              └─ Forget ─────▶ ack; a later dispatch: nack
//! ```
//!
//! Promise: the ack of a delivery stands behind the confirm of what came of it.
//! A delivery whose link is gone is void: the broker has the job again, and if
//! it comes here once more the table knows what to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_std::channel::Receiver;
use futures::FutureExt;
use futures::future::BoxFuture;

use sluice_proto::ids::JobId;
use sluice_proto::job::{Attempt, Job};
use sluice_proto::report::{Body, Cause, Failure, Finished, Hops, Outcome, Report, RuntimeUse};

use crate::queue::Delivery;
use crate::telemetry::now_us;
use crate::worker::asking::{Look, Papers};
use crate::worker::job_runner::{Desk, End, JobRunner, Ran};
use crate::worker::links::{Links, Unpublished};
use crate::worker::sights::Sights;
use crate::worker::table::{How, Settled, Start, Table};
use crate::worker::verdict::{self, Verdict};
use crate::worker::watch::Watch;

/// What all slots of a worker share.
pub struct Office {
    /// `host/pid/number`.
    pub name: String,
    pub links: Links,
    pub runner: JobRunner,
    /// How often somebody asked what is held here.
    pub asked: Watch<u64>,
    table: Mutex<Table<Hold>>,
    sights: Mutex<Sights>,
}

/// A delivery and the link it came by, outside of which it is void.
pub struct Hold {
    pub delivery: Delivery<Job>,
    pub link: u64,
}

/// One job's place in the office.
struct Place {
    office: Arc<Office>,
    job: JobId,
}

// === impl Office ===

impl Office {
    pub fn new(name: String, runner: JobRunner) -> Self {
        Self {
            name,
            links: Links::new(),
            runner,
            asked: Watch::new(0),
            table: Mutex::new(Table::default()),
            sights: Mutex::default(),
        }
    }

    /// Held for look-ups alone, never over an await.
    pub fn table(&self) -> MutexGuard<'_, Table<Hold>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for look-ups alone, never over an await, and never beside the table.
    pub fn sights(&self) -> MutexGuard<'_, Sights> {
        self.sights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one slot: one job after the other, until no more can come or
    /// `open` says that none is to be started.
    pub async fn slot(self: Arc<Self>, waiting: Receiver<JobId>, open: impl Fn() -> bool) {
        while let Ok(job) = waiting.recv().await {
            if !open() {
                // It stays in the table, from where it is given back.
                continue;
            }
            let start = self.table().start(&job);
            if let Some(start) = start {
                // Boxed: what a job needs is held while there is one, and not by every idle slot.
                Box::pin(self.serve(&job, start)).await;
            }
        }
    }

    async fn serve(self: &Arc<Self>, job: &JobId, start: Start<Hold>) {
        let Start {
            delivery: hold,
            attempt,
            how,
        } = start;
        let hops = Hops {
            received_us: hold.delivery.received_us,
            published_us: hold.delivery.published_us,
            delivered_us: hold.delivery.delivered_us,
            ..Hops::default()
        };
        match how {
            How::Run { abort } => {
                if let Some(verdict) = verdict::before(hold.delivery.delivery) {
                    let ran = Ran::without_runtime(End::Aborted, hops);
                    return self.carry_out(job, hold, verdict, ran).await;
                }
                let place = Place {
                    office: Arc::clone(self),
                    job: job.clone(),
                };
                let begun = Instant::now();
                self.sights().began(&hold.delivery.item, hops.delivered_us);
                let mut ran = self
                    .runner
                    .run(&hold.delivery.item, hops, &place, abort)
                    .await;
                self.sights().left(job);
                self.note(job, &ran, begun);
                let cancelled = self.table().cancelled(job);
                let end = std::mem::replace(&mut ran.end, End::Aborted);
                let verdict = verdict::after(end, cancelled, hold.delivery.delivery);
                self.carry_out(job, hold, verdict, ran).await;
            }
            How::Cancelled { reason } => {
                let ran = Ran::without_runtime(End::Aborted, hops);
                let verdict = Verdict::Report(Outcome::Cancelled { reason });
                self.carry_out(job, hold, verdict, ran).await;
            }
            How::Reported => {
                tracing::debug!(job.id = %job, %attempt, "A job that was reported finished came again; it is acked");
                let adopted = self.table().release(job, Instant::now());
                self.ack_all([Some(hold), adopted]).await;
            }
            How::Again(end) => {
                tracing::info!(job.id = %job, %attempt, "A finished job was dispatched again; the same end is reported");
                let end = Box::new(Finished::clone(&end));
                if let Some(adopted) = self.report_end(job, end).await {
                    self.ack_all([Some(hold), adopted]).await;
                }
            }
        }
    }

    fn note(&self, job: &JobId, ran: &Ran, begun: Instant) {
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let container = ran.runtime.as_ref().map_or("", |used| &used.container);
        match &ran.end {
            End::Succeeded(_) => {
                tracing::debug!(job.id = %job, worker = %self.name, container, duration_ms, "A job succeeded");
            }
            End::Failed { failure, again } => {
                tracing::info!(job.id = %job, worker = %self.name, container, duration_ms, cause = %failure.cause, ?again, "A job failed");
            }
            End::Aborted | End::Superseded => {
                tracing::info!(job.id = %job, worker = %self.name, container, duration_ms, "A job was ended early");
            }
        }
    }

    async fn carry_out(self: &Arc<Self>, job: &JobId, hold: Hold, verdict: Verdict, ran: Ran) {
        match verdict {
            Verdict::Report(outcome) => {
                self.tally(&hold, &outcome);
                if let Some(adopted) = self.report_end(job, finished(ran, outcome)).await {
                    self.ack_all([Some(hold), adopted]).await;
                }
            }
            Verdict::ReportAndBury(failure) => {
                tracing::warn!(job.id = %job, cause = %failure.cause, "A job is given up; it goes to the dead letters");
                let (cause, reason) = (failure.cause, failure.message.clone());
                let outcome = Outcome::Failed(failure);
                self.tally(&hold, &outcome);
                let end = finished(ran, outcome);
                if let Some(adopted) = self.report_end(job, end).await {
                    let hold = self.newest(hold, adopted).await;
                    self.bury(job, hold, cause, &reason).await;
                }
            }
            Verdict::Retry(failure) => {
                tracing::info!(job.id = %job, cause = %failure.cause, "A job is tried again in a moment");
                let adopted = self.table().release(job, Instant::now());
                let hold = self.newest(hold, adopted).await;
                let Some(link) = self.links.if_still(hold.link) else {
                    return;
                };
                let attempt = Attempt {
                    dispatch: hold.delivery.item.dispatch,
                    delivery: hold.delivery.delivery,
                };
                if let Err(error) = Box::pin(hold.delivery.retry(&link)).await {
                    tracing::warn!(job.id = %job, %error, "A job could not be put into the retry queue; the broker delivers it again");
                } else {
                    self.sights().retried(job, attempt, failure.cause, now_us());
                }
            }
            Verdict::Forget => {
                tracing::info!(job.id = %job, "A job was handed out again while it ran; this try of it counts for nothing");
                let adopted = self.table().release(job, Instant::now());
                self.ack_all([Some(hold), None]).await;
                // It came after all, and is begun anew.
                if let Some(adopted) = adopted {
                    self.requeue(adopted).await;
                }
            }
            Verdict::Requeue => {
                let adopted = self.table().release(job, Instant::now());
                for hold in [Some(hold), adopted].into_iter().flatten() {
                    self.requeue(hold).await;
                }
            }
        }
    }

    fn tally(&self, hold: &Hold, outcome: &Outcome) {
        let took_us = now_us().saturating_sub(hold.delivery.delivered_us);
        let kind = hold.delivery.item.kind;
        self.sights().ended(kind, outcome, took_us);
    }

    /// Reports the end of a job until it is confirmed for the latest dispatch
    /// that is here. Hands out a delivery adopted meanwhile; `None` when the
    /// worker ends before that, and nothing is to be settled.
    async fn report_end(&self, job: &JobId, end: Box<Finished>) -> Option<Option<Hold>> {
        let attempt = self.table().attempt(job)?;
        let mut report = self.report(job, attempt, Body::Finished(end));
        loop {
            // Boxed, as all ways to settle a job pass here, and each would hold its own.
            match Box::pin(self.links.publish(&report)).await {
                Ok(()) => {}
                Err(Unpublished::Over) => return None,
                Err(Unpublished::Unwritable(why)) => {
                    // Only its size can be the reason, and without result and log it has none.
                    report.body = Body::Finished(Box::new(without_content(&why)));
                    continue;
                }
            }
            let Body::Finished(end) = report.body else {
                return None;
            };
            let settled = self.table().settle(job, report.attempt, end);
            match settled {
                Settled::Done { adopted } => return Some(adopted),
                Settled::Raised { attempt, end } => {
                    report = self.report(job, attempt, Body::Finished(end));
                }
            }
        }
    }

    fn report(&self, job: &JobId, attempt: Attempt, body: Body) -> Report {
        Report {
            job: job.clone(),
            attempt,
            worker: self.name.clone(),
            at_us: now_us(),
            body,
        }
    }

    /// Of two deliveries of one job the later one, with the earlier one acked.
    async fn newest(&self, hold: Hold, adopted: Option<Hold>) -> Hold {
        match adopted {
            None => hold,
            Some(adopted) => {
                self.ack_all([Some(hold), None]).await;
                adopted
            }
        }
    }

    pub async fn ack_all(&self, holds: [Option<Hold>; 2]) {
        for hold in holds.into_iter().flatten() {
            if self.links.if_still(hold.link).is_none() {
                continue;
            }
            // Lost with its link, and then the job comes again and is known.
            if let Err(error) = hold.delivery.ack().await {
                tracing::debug!(%error, "An acknowledgement was lost with its link");
            }
        }
    }

    pub async fn requeue(&self, hold: Hold) {
        if self.links.if_still(hold.link).is_none() {
            return;
        }
        if let Err(error) = hold.delivery.requeue().await {
            tracing::debug!(%error, "A requeue was lost with its link, which does the same");
        }
    }

    async fn bury(&self, job: &JobId, hold: Hold, cause: Cause, reason: &str) {
        let Some(link) = self.links.if_still(hold.link) else {
            return;
        };
        if let Err(error) = Box::pin(hold.delivery.bury(&link, cause, reason)).await {
            tracing::warn!(job.id = %job, %error, "A dead letter could not be written; the broker delivers the job again");
        }
    }
}

fn finished(ran: Ran, outcome: Outcome) -> Box<Finished> {
    Box::new(Finished {
        outcome,
        runtime: ran.runtime,
        hops: ran.hops,
        log: ran.log,
        log_bytes_dropped: ran.log_bytes_dropped,
        sdk_calls: ran.sdk_calls,
    })
}

fn without_content(why: &str) -> Finished {
    let message = format!("The end of the job does not fit into a message: {why}.");
    let outcome = Outcome::Failed(Failure::new(Cause::ResultTooLarge, message));
    *finished(Ran::without_runtime(End::Aborted, Hops::default()), outcome)
}

// === impl Place ===

impl Desk for Place {
    fn attempt(&self) -> Attempt {
        self.office.table().attempt(&self.job).unwrap_or_default()
    }

    fn papers(&self) -> Look {
        let (office, job) = (Arc::clone(&self.office), self.job.clone());
        Arc::new(move || {
            let table = office.table();
            let adopted = table.adopted(&job);
            Papers {
                attempt: table.attempt(&job).unwrap_or_default(),
                token: adopted.map(|hold| hold.delivery.item.token.clone()),
            }
        })
    }

    fn claimed(&self, runtime: &RuntimeUse) {
        self.office.sights().claimed(&self.job, runtime);
    }

    fn logged(&self, text: &str) {
        self.office.sights().logged(&self.job, text);
    }

    fn report(&self, body: Body) -> BoxFuture<'static, ()> {
        let (office, job) = (Arc::clone(&self.office), self.job.clone());
        let report = office.report(&job, self.attempt(), body);
        async move {
            match office.links.publish(&report).await {
                Ok(()) | Err(Unpublished::Over) => {}
                Err(Unpublished::Unwritable(error)) => {
                    tracing::error!(job.id = %job, error, "A report fits no message; it is left out");
                }
            }
        }
        .boxed()
    }
}
