//! Jobs that a connected agent holds no more: its broker lost them, or somebody
//! emptied a queue by hand.
//!
//! ```text
//!  heartbeat: nothing queued, nothing in flight, taking work ──▶ idle since
//!  a job taken, a report ──▶ not idle
//!  idle for longer than the limit, and a job is held ──▶ started?  no: handed out again
//!                                                                 yes, and its time is over: lost
//! ```
//!
//! A lease without a message of its own: whoever has a job has something to
//! say or something to do. What still runs somewhere although its agent says
//! otherwise is fenced, as its dispatch is an older one.

use std::sync::Arc;

use sluice_proto::frame::AgentStatus;
use sluice_proto::report::Cause;

use crate::gateway::lifecycle::{Applied, Event};
use crate::gateway::line::sessions::REJECTIONS_MAX;
use crate::gateway::line::slot::Slot;
use crate::gateway::line::state::Inner;
use crate::gateway::line::{Line, Plan, failure};
use crate::store::jobs::State;

// === impl Slot ===

impl Slot {
    /// Notes whether the agent has anything to do. One that takes no work, or
    /// cannot look into its queue, is not idle: nobody knows what it holds.
    pub(super) fn note_idleness(&mut self, status: &AgentStatus, now_ms: u64) {
        let idle = status.workers > 0
            && status.in_flight == 0
            && status.queued == 0
            && status.refusing.is_none();
        self.idle_since_ms = match self.idle_since_ms {
            _ if !idle => None,
            Some(since) => Some(since),
            None => Some(now_ms),
        };
    }
}

// === impl Line ===

impl Line {
    /// Takes back what idle agents hold no more.
    pub(super) fn reclaim(&self, inner: &mut Inner, now_ms: u64, plan: &mut Plan) {
        let idle_max = u64::try_from(self.limits.idle_max.as_millis()).unwrap_or(u64::MAX);
        let mut idle: Vec<(String, Arc<str>, u64)> = Vec::new();
        for (pool, line) in &inner.pools {
            for slot in &line.sessions {
                let long = slot
                    .idle_since_ms
                    .filter(|since| since.saturating_add(idle_max) <= now_ms);
                idle.extend(long.map(|since| (pool.clone(), slot.agent.clone(), since)));
            }
        }
        for (pool, agent, since) in idle {
            if inner.held_by(&pool, &agent) == 0 {
                continue;
            }
            let held: Vec<(String, State, u64)> = inner
                .live
                .values()
                .filter(|live| live.is_held_by(&pool, &agent))
                .map(|live| {
                    let allowed = u64::from(live.spec.timeout_ms);
                    let over = since.saturating_add(idle_max).saturating_add(allowed);
                    (live.spec.id.clone(), live.state.phase, over)
                })
                .collect();
            for (id, phase, over) in held {
                if phase == State::Accepted {
                    self.hand_out_again(inner, &id, &agent, plan);
                } else if over <= now_ms {
                    let sentence = format!(
                        "agent {agent} was running the job and has it no more; it may have run"
                    );
                    let failure = failure(Cause::Lost, sentence);
                    self.fail(inner, &id, Event::Lost, failure, plan);
                }
            }
            self.hand_out(inner, &pool, plan);
        }
    }

    fn hand_out_again(&self, inner: &mut Inner, id: &str, agent: &Arc<str>, plan: &mut Plan) {
        let Some(Applied::Changed(next)) = inner.apply(id, Event::Vanished) else {
            return;
        };
        if next.phase.is_final() {
            return self.end_cancelled(inner, id, plan);
        }
        let Some(live) = inner.live.get_mut(id) else {
            return;
        };
        let reason = format!(
            "agent {agent} had accepted the job and has it no more: it was lost with its broker, or taken out of the queue"
        );
        tracing::warn!(job.id = id, agent = %agent, "An agent no longer has a job that it accepted; it is handed out again");
        live.rejections += 1;
        live.rejected = Some(reason.clone());
        live.touch(plan);
        let (often, pool, high) = (
            live.rejections >= REJECTIONS_MAX,
            live.spec.pool.clone(),
            live.spec.high,
        );
        if often {
            let sentence = format!("the job vanished {REJECTIONS_MAX} times: {reason}");
            let failure = failure(Cause::Lost, sentence);
            // Queued again, it ends as a queued job does.
            self.fail(inner, id, Event::Expired, failure, plan);
        } else {
            inner.pool(&pool).push_front(id.to_owned(), high);
        }
    }
}
