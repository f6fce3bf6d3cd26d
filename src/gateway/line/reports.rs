//! What agents say about jobs: each report is applied, its facts are stored,
//! and only after the commit the bridge is told that it was received.
//!
//! A report that is refused is received too: it must leave the queue it waits in.

use std::sync::Arc;

use futures::channel::oneshot;
use serde::de::IgnoredAny;
use sluice_proto::codec::RESULT_BYTES_MAX;
use sluice_proto::frame::Numbered;
use sluice_proto::job::Attempt;
use sluice_proto::report::{
    Body, Cause, Failure, Finished, LOG_JOB_BYTES_MAX, LOG_LINE_BYTES_MAX, Level, LogLine, Outcome,
    Report, RuntimeUse,
};

use crate::gateway::lifecycle::{Applied, Denial, End, Event};
use crate::gateway::line::state::{Inner, Live};
use crate::gateway::line::{Line, Outbox, Plan, view};
use crate::store::jobs::{self, Ending, JobWrite, Tried};
use crate::telemetry::now_us;

/// Names longer than this are cut: they come from outside and are kept and shown.
const NAME_CHARS_MAX: usize = 200;

/// Why whoever begins a job that has ended is to let go of it.
const ENDED: &str = "the job has ended already";

// === impl Line ===

impl Line {
    /// Takes reports of one session in and answers each by its number. What it
    /// gives back resolves after the commit.
    pub fn reports(
        self: &Arc<Self>,
        pool: &str,
        session: &str,
        items: Vec<Numbered>,
    ) -> Option<oneshot::Receiver<()>> {
        let mut inner = self.lock();
        let slot = inner.pool(pool).slot(session)?;
        slot.idle_since_ms = None;
        let (outbox, agent) = (slot.outbox.clone(), slot.agent.clone());
        let mut plan = Plan::default();
        let mut numbers = Vec::with_capacity(items.len());
        for Numbered { number, report } in items {
            numbers.push(number);
            let started = matches!(report.body, Body::Started { .. }).then(|| report.job.clone());
            self.report(&mut inner, pool, &agent, report, &mut plan);
            if let Some(job) = started.filter(|job| inner.has_ended(job.as_str())) {
                // Its worker never heard of the end, and would run it for nothing.
                let reason = Arc::from(ENDED);
                plan.frames
                    .push((outbox.clone(), Outbox::Cancel { job, reason }));
            }
        }
        // The store commits in order: a repeat of what is not committed yet is answered after it.
        plan.frames.push((outbox, Outbox::Received(numbers)));
        let (told, committed) = oneshot::channel();
        self.commit(plan, move || {
            // A session that has ended need not be told.
            let _ = told.send(());
        });
        Some(committed)
    }

    /// An attempt has called something; says whether it may, and raises the fence.
    pub fn called(&self, id: &str, attempt: Attempt, calls_max: u32) -> Result<Called, Denial> {
        let mut inner = self.lock();
        match inner.apply(id, Event::Seen { attempt }) {
            None => Err(Denial::Ended),
            Some(Applied::Denied(denial)) => {
                inner.deny(denial.as_str());
                Err(denial)
            }
            Some(Applied::Changed(_) | Applied::Unchanged) => {
                let live = inner.live.get_mut(id).ok_or(Denial::Ended)?;
                if live.state.phase.is_final() {
                    return Err(Denial::Ended);
                }
                live.calls = live.calls.saturating_add(1);
                Ok(Called {
                    record: live.calls <= calls_max,
                    count: live.calls,
                })
            }
        }
    }

    fn report(
        &self,
        inner: &mut Inner,
        pool: &str,
        agent: &Arc<str>,
        report: Report,
        plan: &mut Plan,
    ) {
        let id = report.job.0.as_str();
        let Some(live) = inner.live.get(id) else {
            // It has ended and been forgotten, or never was: there is nothing to change.
            inner.deny("not_live");
            return;
        };
        if live.spec.pool != pool {
            tracing::warn!(
                job.id = id,
                pool.id = pool,
                "A report for another pool's job is refused"
            );
            inner.deny("foreign_pool");
            return;
        }
        let attempt = report.attempt;
        let event = match &report.body {
            Body::Started { .. } => Event::Started { attempt },
            Body::Log { .. } => Event::Seen { attempt },
            Body::Finished(finished) => Event::Finished {
                attempt,
                end: end_of(&finished.outcome),
            },
        };
        let changed = match inner.apply(id, event) {
            Some(Applied::Changed(_)) => true,
            Some(Applied::Unchanged) => false,
            Some(Applied::Denied(denial)) => {
                tracing::info!(job.id = id, %attempt, worker = report.worker, reason = denial.as_str(), "A report is refused");
                inner.deny(denial.as_str());
                return;
            }
            None => return,
        };
        let Some(live) = inner.live.get_mut(id) else {
            return;
        };
        live.progress.agent.get_or_insert_with(|| agent.clone());
        match report.body {
            Body::Started { runtime } if changed => {
                live.leave(attempt, plan);
                live.note_runtime(&report.worker, Some(&runtime));
                live.progress.started_us = Some(report.at_us);
                live.touch(plan);
            }
            Body::Log { lines } => {
                if changed {
                    live.touch(plan);
                }
                live.log(attempt, lines, plan);
            }
            Body::Finished(finished) if changed => {
                live.leave(attempt, plan);
                live.note_runtime(&report.worker, finished.runtime.as_ref());
                live.finish(attempt, *finished, plan);
                plan.ended.push(live.spec.id.clone());
            }
            Body::Started { .. } | Body::Finished(_) => {}
        }
    }
}

/// A call that may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// False when the job has recorded enough.
    pub record: bool,
    /// How many calls the job has made, this one included.
    pub count: u32,
}

fn end_of(outcome: &Outcome) -> End {
    match outcome {
        Outcome::Succeeded { result } if refusal_of(result).is_none() => End::Succeeded,
        Outcome::Succeeded { .. } | Outcome::Failed(_) => End::Failed,
        Outcome::Cancelled { .. } => End::Cancelled,
    }
}

/// Why a result cannot be passed on. What a worker says is what user code may
/// have forged, and one that is no JSON would break every answer it is put in.
fn refusal_of(result: &[u8]) -> Option<Failure> {
    if result.len() > RESULT_BYTES_MAX {
        let sentence = format!(
            "the result has {} bytes and the limit is {RESULT_BYTES_MAX}",
            result.len()
        );
        return Some(Failure::new(Cause::ResultTooLarge, sentence));
    }
    let error = serde_json::from_slice::<IgnoredAny>(result).err()?;
    let sentence = format!("the agent reported a result that is not JSON: {error}");
    Some(Failure::new(Cause::ResultNotJson, sentence))
}

// === impl Live ===

impl Live {
    fn note_runtime(&mut self, worker: &str, runtime: Option<&RuntimeUse>) {
        self.progress.worker = Some(short(worker));
        if let Some(runtime) = runtime {
            self.progress.container = Some(short(&runtime.container));
            self.progress.origin = Some(runtime.origin.as_str());
        }
    }

    /// Before an attempt's start is noted: an earlier one that had started is kept.
    fn leave(&mut self, attempt: Attempt, plan: &mut Plan) {
        let earlier = self.started_as.replace(attempt);
        if let Some(earlier) = earlier.filter(|earlier| *earlier < attempt)
            && let Some(started_us) = self.progress.started_us
        {
            plan.writes.push(JobWrite::Tried(Tried {
                job: self.spec.seq,
                dispatch: earlier.dispatch,
                delivery: earlier.delivery,
                started_us,
                worker: self.progress.worker.clone(),
                container: self.progress.container.clone(),
                origin: self.progress.origin,
            }));
        }
    }

    fn log(&mut self, attempt: Attempt, lines: Vec<LogLine>, plan: &mut Plan) {
        let mut kept = Vec::with_capacity(lines.len());
        for line in lines {
            if self.log_bytes + line.text.len() > LOG_JOB_BYTES_MAX {
                self.log_bytes_dropped += line.text.len() as u64;
                continue;
            }
            self.log_bytes += line.text.len();
            kept.push(jobs::LogLine {
                job: self.spec.seq,
                dispatch: attempt.dispatch,
                delivery: attempt.delivery,
                line: line.seq,
                at_us: line.at_us,
                level: level(line.level).to_owned(),
                text: cut(line.text),
            });
        }
        if !kept.is_empty() {
            plan.writes.push(JobWrite::Log(kept));
        }
    }

    fn finish(&mut self, attempt: Attempt, finished: Finished, plan: &mut Plan) {
        let Finished {
            outcome,
            hops,
            log,
            log_bytes_dropped,
            sdk_calls,
            ..
        } = finished;
        self.log(attempt, log, plan);
        let outcome = match &outcome {
            Outcome::Succeeded { result } => match refusal_of(result) {
                Some(failure) => view::outcome(&Outcome::Failed(failure)),
                None => view::outcome(&outcome),
            },
            _ => view::outcome(&outcome),
        };
        if hops.started_us > 0 {
            self.progress.started_us = Some(hops.started_us);
        }
        let ending = Ending {
            outcome: Arc::new(outcome),
            hops: view::hops(&hops),
            log_bytes_dropped: log_bytes_dropped + self.log_bytes_dropped,
            sdk_calls: sdk_calls.max(self.calls),
        };
        self.end(ending, plan);
    }

    /// Plans the write of the job's end; its state is final already.
    pub(super) fn end(&mut self, ending: Ending, plan: &mut Plan) {
        self.progress.finished_us = Some(now_us());
        self.ending = Some(ending.clone());
        plan.writes.push(JobWrite::End {
            seq: self.spec.seq,
            progress: self.snapshot(),
            ending,
        });
    }
}

fn short(name: &str) -> Arc<str> {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        None => Arc::from(name),
        Some((at, _)) => Arc::from(&name[..at]),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LOG_LINE_BYTES_MAX {
        let at = (0..=LOG_LINE_BYTES_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(at);
    }
    text
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
