//! Sessions of a line: who is connected, what credit each has, who gets what.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use async_std::channel;
use serde_json::{Value, json};
use sluice_proto::frame::{AgentStatus, Hello, Taken};
use sluice_proto::ids::{JobId, PoolId, ProjectId};
use sluice_proto::job::{Job, Priority};
use sluice_proto::report::Cause;

use crate::gateway::dispatch::{Backlog, Room, Waiting, choose, waiting};
use crate::gateway::lifecycle::{Applied, Event};
use crate::gateway::line::slot::Slot;
use crate::gateway::line::state::{Deadline, Inner, Live};
use crate::gateway::line::{Handed, Line, Outbox, Plan, failure};
use crate::store::jobs::State;
use crate::telemetry::{now_ms, now_us};

/// Sessions of one pool; each costs a socket, two tasks and its credit.
const POOL_SESSIONS_MAX: usize = 256;
/// The most credit one session is given, whatever its window says: what may be
/// lost with it and must be handed out again.
const WINDOW_MAX: u32 = 4_096;
/// How long a job that could not be placed waits before it is handed out again, in milliseconds.
const REJECTED_WAIT_MS: u64 = 1_000;
/// How often one job may be refused by bridges before it counts as one that cannot be placed.
pub(super) const REJECTIONS_MAX: u32 = 20;

/// Who is at the other end of a session, for people.
#[derive(Debug, Clone)]
pub struct Peer {
    pub host: String,
    pub version: String,
    pub started_ms: u64,
}

/// A session that was let in.
pub struct Joined {
    pub outbox: channel::Receiver<Outbox>,
}

/// A pool's agents, for its detail page.
pub struct PoolView {
    pub agents: Vec<Value>,
    pub queued: usize,
}

// === impl Line ===

impl Line {
    /// Lets a session in. An older session of the same agent is closed: a
    /// bridge is alone in its pool's broker, so the older one is half-open.
    pub fn join(
        self: &Arc<Self>,
        pool: &str,
        session: &str,
        hello: &Hello,
    ) -> Result<Joined, String> {
        // Bounded by credit, and by the reports a session may have unanswered.
        let (outbox, receiver) = channel::unbounded();
        let agent: Arc<str> = Arc::from(hello.agent.as_str());
        let mut inner = self.lock();
        let line = inner.pool(pool);
        if line.sessions.len() >= POOL_SESSIONS_MAX {
            return Err(format!(
                "agent pool {pool} has {POOL_SESSIONS_MAX} agents connected, which is the limit"
            ));
        }
        for old in line.sessions.iter().filter(|old| old.agent == agent) {
            let reason = "a newer session of the same agent has replaced this one".to_owned();
            drop(old.outbox.try_send(Outbox::Close(reason)));
        }
        line.sessions.push(Slot {
            id: session.to_owned(),
            agent: agent.clone(),
            outbox: outbox.clone(),
            window: 0,
            reason: Some("the agent has not said yet how much it takes".to_owned()),
            unanswered: HashSet::new(),
            status: hello.status.clone(),
            peer: Peer {
                host: hello.host.clone(),
                version: hello.version.clone(),
                started_ms: hello.started_ms,
            },
            since_ms: now_ms(),
            idle_since_ms: None,
        });
        let cancelling: Vec<String> = line.cancelling.iter().cloned().collect();
        inner.away.remove(&(pool.to_owned(), agent));
        // The frame that asked for the end may have been lost with an earlier session.
        for id in cancelling {
            let Some(live) = inner.live.get(&id) else {
                continue;
            };
            let reason = live.cancel_reason();
            drop(outbox.try_send(Outbox::Cancel {
                job: JobId(id),
                reason,
            }));
        }
        Ok(Joined { outbox: receiver })
    }

    /// Puts back what the session had not accepted.
    pub fn leave(self: &Arc<Self>, pool: &str, session: &str) {
        let mut inner = self.lock();
        let line = inner.pool(pool);
        let Some(at) = line.sessions.iter().position(|slot| slot.id == session) else {
            return;
        };
        let slot = line.sessions.swap_remove(at);
        if !line.sessions.iter().any(|other| other.agent == slot.agent) {
            inner.away.insert((pool.to_owned(), slot.agent), now_ms());
        }
        let mut back: Vec<(i64, String)> = slot
            .unanswered
            .into_iter()
            .filter_map(|id| Some((inner.live.get(&id)?.spec.seq, id)))
            .collect();
        // Newest first, as each goes to the front.
        back.sort_by_key(|(seq, _)| Reverse(*seq));
        let mut plan = Plan::default();
        for (_, id) in back {
            self.put_back(&mut inner, session, &id, &mut plan);
        }
        self.hand_out(&mut inner, pool, &mut plan);
        self.commit(plan, || ());
    }

    /// Closes every session of a pool.
    pub fn close_pool(&self, pool: &str, reason: &str) {
        for slot in &self.lock().pool(pool).sessions {
            drop(slot.outbox.try_send(Outbox::Close(reason.to_owned())));
        }
    }

    /// Closes every session there is.
    pub fn close_all(&self, reason: &str) {
        for pool in self.lock().pools.values() {
            for slot in &pool.sessions {
                drop(slot.outbox.try_send(Outbox::Close(reason.to_owned())));
            }
        }
    }

    pub fn window(self: &Arc<Self>, pool: &str, session: &str, jobs: u32, reason: Option<String>) {
        self.with_slot(pool, session, |slot| {
            slot.window = jobs.min(WINDOW_MAX);
            slot.reason = reason;
        });
    }

    pub fn status(&self, pool: &str, session: &str, status: AgentStatus) {
        if let Some(slot) = self.lock().pool(pool).slot(session) {
            slot.note_idleness(&status, now_ms());
            slot.status = status;
        }
    }

    /// The agent's broker has custody of these.
    pub fn accepted(self: &Arc<Self>, pool: &str, session: &str, jobs: &[Taken]) {
        let now = now_us();
        let mut inner = self.lock();
        let Some(slot) = inner.pool(pool).slot(session) else {
            return;
        };
        slot.idle_since_ms = None;
        for taken in jobs {
            slot.unanswered.remove(taken.job.as_str());
        }
        let agent = slot.agent.clone();
        for taken in jobs {
            let (id, dispatch) = (taken.job.as_str(), taken.dispatch);
            if inner.live.get(id).is_none_or(|live| live.spec.pool != pool) {
                continue;
            }
            match inner.apply(id, Event::Accepted { dispatch }) {
                Some(Applied::Changed(_)) => {
                    let Some(live) = inner.live.get_mut(id) else {
                        continue;
                    };
                    live.progress.accepted_us = Some(now);
                    live.progress.agent.get_or_insert_with(|| agent.clone());
                    live.session = None;
                    // Nobody is promised that this is known: forgotten, the job is handed out
                    // once more and the older attempt is fenced. So it need not cost a commit.
                    self.store.apply_lazily(live.spec.seq, live.snapshot());
                }
                Some(Applied::Denied(denial)) => inner.deny(denial.as_str()),
                Some(Applied::Unchanged) => {
                    if let Some(live) = inner.live.get_mut(id) {
                        live.progress.accepted_us.get_or_insert(now);
                    }
                }
                None => {}
            }
        }
        let mut plan = Plan::default();
        self.hand_out(&mut inner, pool, &mut plan);
        self.commit_if_any(plan);
    }

    /// The bridge could not place a job: it is ours again, and waits a moment.
    pub fn rejected(
        self: &Arc<Self>,
        pool: &str,
        session: &str,
        job: &str,
        dispatch: u32,
        reason: String,
    ) {
        let mut inner = self.lock();
        let Some(slot) = inner.pool(pool).slot(session) else {
            return;
        };
        slot.unanswered.remove(job);
        let ours = inner.live.get(job).is_some_and(|live| {
            live.session.as_deref() == Some(session) && live.state.attempt.dispatch == dispatch
        });
        if !ours {
            return;
        }
        tracing::warn!(
            job.id = job,
            pool.id = pool,
            reason,
            "A bridge could not place a job; it will be handed out again"
        );
        let mut plan = Plan::default();
        if matches!(
            inner.apply(job, Event::Unplaced { dispatch }),
            Some(Applied::Changed(_))
        ) && let Some(live) = inner.live.get_mut(job)
        {
            live.session = None;
            live.rejections += 1;
            live.rejected = Some(reason.clone());
            live.touch(&mut plan);
            let (ended, often) = (
                live.state.phase.is_final(),
                live.rejections >= REJECTIONS_MAX,
            );
            if ended {
                self.end_cancelled(&mut inner, job, &mut plan);
            } else if often {
                let sentence =
                    format!("no bridge could place the job in {REJECTIONS_MAX} tries: {reason}");
                self.fail(
                    &mut inner,
                    job,
                    Event::Expired,
                    failure(Cause::Unacceptable, sentence),
                    &mut plan,
                );
            } else {
                let at = now_ms() + REJECTED_WAIT_MS;
                inner
                    .deadlines
                    .push(Reverse((at, Deadline::Ready(job.to_owned()))));
            }
        }
        self.hand_out(&mut inner, pool, &mut plan);
        self.commit(plan, || ());
    }

    /// Hands ready jobs to sessions with room, until one of the two runs out.
    pub(super) fn hand_out(&self, inner: &mut Inner, pool: &str, plan: &mut Plan) {
        let now = now_us();
        while inner.pool(pool).has_ready() {
            let rooms = inner.rooms(pool);
            let Some(at) = choose(&rooms) else { return };
            let Some(id) = inner.pool(pool).pop() else {
                return;
            };
            let Some(live) = inner.live.get(&id) else {
                continue;
            };
            if live.state.phase != State::Queued {
                continue;
            }
            if live.spec.expires_ms.is_some_and(|at| at <= now / 1_000) {
                self.expire(inner, &id, plan);
                continue;
            }
            if !matches!(
                inner.apply(&id, Event::Dispatched),
                Some(Applied::Changed(_))
            ) {
                continue;
            }
            let slot = &mut inner.pool(pool).sessions[at];
            slot.unanswered.insert(id.clone());
            let (session, agent, outbox) =
                (slot.id.clone(), slot.agent.clone(), slot.outbox.clone());
            let Some(live) = inner.live.get_mut(&id) else {
                continue;
            };
            live.session = Some(session);
            live.progress.agent = Some(agent);
            live.progress.dispatched_us = Some(now);
            live.touch(plan);
            let handed = live.handed(&self.tokens.issue(&id, live.state.attempt.dispatch));
            plan.frames
                .push((outbox, Outbox::Dispatch(Box::new(handed))));
        }
    }

    /// Why a queued job waits.
    pub fn waiting(&self, pool: &str, job: &str, revoked: bool) -> Waiting {
        let mut inner = self.lock();
        let rejected = inner.live.get(job).and_then(|live| live.rejected.clone());
        let sessions = &inner.pool(pool).sessions;
        waiting(&Backlog {
            revoked,
            sessions: sessions.len(),
            room: sessions.iter().any(|slot| slot.room(0).left() > 0),
            refusals: sessions
                .iter()
                .filter(|slot| slot.window == 0)
                .filter_map(|slot| slot.reason.clone().or_else(|| slot.status.refusing.clone()))
                .collect(),
            rejected,
        })
    }

    /// The agents of a pool and its queue.
    pub fn pool_view(&self, pool: &str) -> PoolView {
        let mut inner = self.lock();
        let line = inner.pool(pool);
        let mut sessions: Vec<&Slot> = line.sessions.iter().collect();
        sessions.sort_by_key(|slot| slot.since_ms);
        PoolView {
            agents: sessions.into_iter().map(Slot::view).collect(),
            queued: line.queued,
        }
    }

    /// Reports refused since the start, by reason.
    pub fn denied(&self) -> Value {
        json!(self.lock().denied)
    }

    /// Ends a job that cannot even be sent.
    pub fn give_up(self: &Arc<Self>, id: &str, dispatch: u32, sentence: &str) {
        let mut inner = self.lock();
        let mut plan = Plan::default();
        if matches!(
            inner.apply(id, Event::Unplaced { dispatch }),
            Some(Applied::Changed(_))
        ) {
            let failure = failure(Cause::Unacceptable, sentence);
            self.fail(&mut inner, id, Event::Expired, failure, &mut plan);
        }
        self.commit_if_any(plan);
    }

    fn put_back(&self, inner: &mut Inner, session: &str, id: &str, plan: &mut Plan) {
        let Some(live) = inner.live.get_mut(id) else {
            return;
        };
        if live.session.as_deref() != Some(session) {
            return;
        }
        live.session = None;
        let (dispatch, high, pool) = (
            live.state.attempt.dispatch,
            live.spec.high,
            live.spec.pool.clone(),
        );
        if !matches!(
            inner.apply(id, Event::Unplaced { dispatch }),
            Some(Applied::Changed(_))
        ) {
            return;
        }
        let Some(live) = inner.live.get(id) else {
            return;
        };
        if live.state.phase.is_final() {
            self.end_cancelled(inner, id, plan);
        } else {
            live.touch(plan);
            inner.pool(&pool).push_front(id.to_owned(), high);
        }
    }

    fn with_slot(self: &Arc<Self>, pool: &str, session: &str, change: impl FnOnce(&mut Slot)) {
        let mut inner = self.lock();
        if let Some(slot) = inner.pool(pool).slot(session) {
            change(slot);
            let mut plan = Plan::default();
            self.hand_out(&mut inner, pool, &mut plan);
            self.commit_if_any(plan);
        }
    }

    pub(super) fn commit_if_any(self: &Arc<Self>, plan: Plan) {
        if !plan.writes.is_empty() || !plan.frames.is_empty() {
            self.commit(plan, || ());
        }
    }
}

// === impl Inner ===

impl Inner {
    /// What each session of a pool could take, in their order.
    fn rooms(&mut self, pool: &str) -> Vec<Room> {
        let Some(line) = self.pools.get(pool) else {
            return Vec::new();
        };
        // One session has nobody to be compared with.
        let alone = line.sessions.len() == 1;
        let held = |slot: &Slot| {
            if alone {
                0
            } else {
                self.held_by(pool, &slot.agent)
            }
        };
        line.sessions
            .iter()
            .map(|slot| slot.room(held(slot)))
            .collect()
    }
}

// === impl PoolLine ===

impl crate::gateway::line::state::PoolLine {
    pub(super) fn slot(&mut self, session: &str) -> Option<&mut Slot> {
        self.sessions.iter_mut().find(|slot| slot.id == session)
    }
}

// === impl Live ===

impl Live {
    fn handed(&self, token: &str) -> Handed {
        let spec = &self.spec;
        Handed {
            seq: spec.seq,
            payload: self.payload.clone(),
            job: Job {
                id: JobId(spec.id.clone()),
                kind: self.kind,
                priority: if spec.high {
                    Priority::High
                } else {
                    Priority::Normal
                },
                pool: PoolId(spec.pool.clone()),
                project: ProjectId(spec.project.clone()),
                identity: self.identity.clone(),
                dispatch: self.state.attempt.dispatch,
                created_us: spec.created_us,
                timeout_ms: spec.timeout_ms,
                expires_ms: spec.expires_ms,
                block: spec.block.clone(),
                token: token.to_owned(),
                traceparent: None,
                payload: Vec::new(),
            },
        }
    }
}
