//! Ends that no agent reports: cancelled while queued, expired, lost, silent.

use std::cmp::Reverse;
use std::sync::Arc;

use sluice_proto::ids::JobId;
use sluice_proto::report::{Cause, Failure, Outcome};

use crate::gateway::lifecycle::{Applied, Event};
use crate::gateway::line::state::{Deadline, Inner, Live};
use crate::gateway::line::{Line, Outbox, Plan, failure, view};
use crate::store::jobs::{Ending, State};
use crate::telemetry::{now_ms, now_us};

/// What came of the wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was queued, and has ended.
    AtOnce,
    /// Its agent is asked to end it.
    Asked,
    /// It has ended, or is not known.
    NotLive,
}

// === impl Line ===

impl Line {
    /// Asks for a job's end. A repeat asks its agent again.
    pub fn cancel(self: &Arc<Self>, id: &str, reason: &str) -> Cancelled {
        let mut inner = self.lock();
        let applied = inner.apply(id, Event::CancelAsked);
        let Some(live) = inner.live.get_mut(id) else {
            return Cancelled::NotLive;
        };
        let mut plan = Plan::default();
        let answer = match applied {
            None | Some(Applied::Denied(_)) => return Cancelled::NotLive,
            Some(Applied::Changed(next)) if next.phase == State::Cancelled => {
                live.progress.cancel_reason = Some(Arc::from(reason));
                self.end_cancelled(&mut inner, id, &mut plan);
                Cancelled::AtOnce
            }
            Some(Applied::Changed(_)) => {
                live.progress.cancel_reason = Some(Arc::from(reason));
                live.progress.cancel_us = Some(now_us());
                live.touch(&mut plan);
                let overdue =
                    u64::try_from(self.limits.cancel_overdue.as_millis()).unwrap_or(u64::MAX);
                let deadline = Deadline::CancelOverdue(id.to_owned());
                inner
                    .deadlines
                    .push(Reverse((now_ms() + overdue, deadline)));
                Cancelled::Asked
            }
            Some(Applied::Unchanged) => Cancelled::Asked,
        };
        if answer == Cancelled::Asked {
            inner.send_cancel(id, &mut plan);
        }
        self.commit(plan, || ());
        answer
    }

    /// Does what the time has come for; to be called about once a second.
    pub fn tick(self: &Arc<Self>) {
        let now = now_ms();
        let mut inner = self.lock();
        let mut plan = Plan::default();
        let mut ready_pools = Vec::new();
        while let Some(Reverse((at, _))) = inner.deadlines.peek()
            && *at <= now
        {
            let Some(Reverse((_, deadline))) = inner.deadlines.pop() else {
                break;
            };
            match deadline {
                Deadline::Expires(id) => self.expire(&mut inner, &id, &mut plan),
                Deadline::CancelOverdue(id) => self.cancel_overdue(&mut inner, &id, &mut plan),
                Deadline::Ready(id) => ready_pools.extend(inner.make_ready(&id)),
            }
        }
        for pool in ready_pools {
            self.hand_out(&mut inner, &pool, &mut plan);
        }
        self.lose(&mut inner, now, &mut plan);
        self.reclaim(&mut inner, now, &mut plan);
        self.commit_if_any(plan);
    }

    pub(super) fn expire(&self, inner: &mut Inner, id: &str, plan: &mut Plan) {
        let sentence = "the job was not handed to an agent before its time was over";
        self.fail(
            inner,
            id,
            Event::Expired,
            failure(Cause::Expired, sentence),
            plan,
        );
    }

    /// Ends a job as failed, if the event may end it.
    pub(super) fn fail(
        &self,
        inner: &mut Inner,
        id: &str,
        event: Event,
        failure: Failure,
        plan: &mut Plan,
    ) {
        if !matches!(inner.apply(id, event), Some(Applied::Changed(_))) {
            return;
        }
        let Some(live) = inner.live.get_mut(id) else {
            return;
        };
        tracing::warn!(
            job.id = id,
            cause = failure.cause.as_str(),
            "A job ended without its agent: {}",
            failure.message
        );
        live.end(bare_ending(&Outcome::Failed(failure)), plan);
        plan.ended.push(id.to_owned());
    }

    /// Writes the end of a job that is cancelled already.
    pub(super) fn end_cancelled(&self, inner: &mut Inner, id: &str, plan: &mut Plan) {
        let Some(live) = inner.live.get_mut(id) else {
            return;
        };
        let reason = live.cancel_reason().to_string();
        live.end(bare_ending(&Outcome::Cancelled { reason }), plan);
        plan.ended.push(id.to_owned());
    }

    fn cancel_overdue(&self, inner: &mut Inner, id: &str, plan: &mut Plan) {
        if matches!(
            inner.apply(id, Event::CancelOverdue),
            Some(Applied::Changed(_))
        ) {
            tracing::warn!(
                job.id = id,
                "A cancelled job's agent stayed silent; the job counts as cancelled"
            );
            self.end_cancelled(inner, id, plan);
        }
    }

    /// Ends the jobs of agents that have been away for too long.
    fn lose(&self, inner: &mut Inner, now: u64, plan: &mut Plan) {
        let away_max = u64::try_from(self.limits.agent_away_max.as_millis()).unwrap_or(u64::MAX);
        let long_gone: Vec<_> = inner
            .away
            .iter()
            .filter(|(_, since)| since.saturating_add(away_max) <= now)
            .map(|(who, since)| (who.clone(), *since))
            .collect();
        for ((pool, agent), since) in long_gone {
            let held: Vec<(String, bool)> = inner
                .live
                .values()
                .filter(|live| live.is_held_by(&pool, &agent))
                .map(|live| {
                    let until = since
                        .saturating_add(away_max)
                        .saturating_add(live.spec.timeout_ms.into());
                    (live.spec.id.clone(), until <= now)
                })
                .collect();
            if held.is_empty() {
                inner.away.remove(&(pool.clone(), agent.clone()));
            }
            for (id, _) in held.into_iter().filter(|(_, over)| *over) {
                let sentence = format!(
                    "agent {agent}, which holds the job, has not come back; the job may have run"
                );
                self.fail(
                    inner,
                    &id,
                    Event::Lost,
                    failure(Cause::Lost, sentence),
                    plan,
                );
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Asks every session of the job's pool to end it: whoever does not hold it ignores that.
    fn send_cancel(&mut self, id: &str, plan: &mut Plan) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        let (pool, reason) = (live.spec.pool.clone(), live.cancel_reason());
        for slot in &self.pool(&pool).sessions {
            let frame = Outbox::Cancel {
                job: JobId::from(id),
                reason: reason.clone(),
            };
            plan.frames.push((slot.outbox.clone(), frame));
        }
    }

    /// Whether nothing is left to do of a job; also of one that never was.
    pub(super) fn has_ended(&self, id: &str) -> bool {
        let live = self.live.get(id);
        live.is_none_or(|live| live.state.phase.is_final())
    }

    /// Puts a job that waited a moment back among the ready ones; says in which pool.
    fn make_ready(&mut self, id: &str) -> Option<String> {
        let live = self.live.get(id)?;
        if live.state.phase != State::Queued {
            return None;
        }
        let (pool, high) = (live.spec.pool.clone(), live.spec.high);
        self.pool(&pool).push_front(id.to_owned(), high);
        Some(pool)
    }
}

// === impl Live ===

impl Live {
    pub(super) fn cancel_reason(&self) -> Arc<str> {
        self.progress
            .cancel_reason
            .clone()
            .unwrap_or_else(|| Arc::from("cancelled"))
    }

    pub(super) fn is_held_by(&self, pool: &str, agent: &Arc<str>) -> bool {
        self.spec.pool == pool
            && self.progress.agent.as_ref() == Some(agent)
            && matches!(self.state.phase, State::Accepted | State::Started)
    }
}

fn bare_ending(outcome: &Outcome) -> Ending {
    Ending {
        outcome: Arc::new(view::outcome(outcome)),
        hops: "{}".to_owned(),
        log_bytes_dropped: 0,
        sdk_calls: 0,
    }
}
