//! The line: every job that has not ended, and the sessions that take them.
//!
//! ```text
//!  create ─┐                       ┌─ after the commit: frames to sessions,
//!  report ─┼─▶ lock: apply, plan ──┤   answers to whoever waits
//!  cancel ─┘     └─ writes to the store, in order
//! ```
//!
//! Owns the live jobs, the ready queues, the sessions' credit and the callers
//! that wait for an end. Everything of it can be rebuilt from the store. What
//! is seen from outside (a frame, an answer) leaves only after the commit of
//! what it says.
//!
//! One lock guards it all. It is held for as long as an event takes to be
//! applied and its writes to be put in the store's channel, so that the store
//! sees the writes in the order of the events; never across an await.

mod endings;
mod events;
mod lease;
mod looks;
mod reports;
mod sessions;
mod slot;
mod state;
mod steps;
pub mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_std::channel;
use futures::channel::oneshot;
use sluice_proto::ids::JobId;
use sluice_proto::job::{Identity, Job, Kind};
use sluice_proto::report::Failure;

use crate::gateway::lifecycle::JobState;
use crate::gateway::secrets::JobTokens;
use crate::store::Store;
use crate::store::jobs::{JobWrite, Progress, Spec};
use crate::telemetry::now_us;

pub use crate::gateway::line::endings::Cancelled;
pub use crate::gateway::line::looks::Wanted;
pub use crate::gateway::line::sessions::Peer;
use crate::gateway::line::state::{Inner, Live};
pub use crate::gateway::line::steps::Adopted;

/// How much the line takes. Above it new jobs are refused with 429.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Jobs of one project that wait: about 1 KiB of memory each.
    pub project_queued_max: usize,
    /// Jobs of one pool that wait.
    pub pool_queued_max: usize,
    /// Payloads of waiting jobs kept in memory, in bytes; the rest is read from the store when its turn comes.
    pub payload_bytes_held_max: usize,
    /// How long a cancelled job's agent may stay silent.
    pub cancel_overdue: Duration,
    /// How long an agent may be away before the jobs it holds count as lost, beside their time-out.
    pub agent_away_max: Duration,
    /// How long a connected agent may have nothing to do before a job it holds counts as vanished.
    pub idle_max: Duration,
}

/// The line, shared by API and sessions.
pub struct Line {
    store: Store,
    tokens: JobTokens,
    limits: Limits,
    /// Hears of the ends of jobs with a purpose, after their commit.
    steps: channel::Sender<steps::Ended>,
    // See the module's comment: one lock, never held across an await.
    inner: Mutex<Inner>,
}

/// A job as the API wants it made.
pub struct NewJob {
    pub pool: String,
    pub project: String,
    pub kind: Kind,
    pub high: bool,
    pub identity: Identity,
    pub block: Option<String>,
    pub timeout_ms: u32,
    pub expires_ms: Option<u64>,
    pub payload: Vec<u8>,
}

/// A job that was taken.
pub struct Created {
    pub id: String,
    /// Resolves after the commit.
    pub committed: oneshot::Receiver<()>,
    /// Resolves with the job object once the job has ended; only if asked for.
    pub ended: Option<Ended>,
}

/// Resolves with the job object, as JSON, after the commit of its end.
pub type Ended = oneshot::Receiver<Arc<Vec<u8>>>;

/// Too many jobs wait: one sentence.
#[derive(Debug)]
pub struct Full(pub String);

/// What a session's writer is told.
#[derive(Debug)]
pub enum Outbox {
    Dispatch(Box<Handed>),
    Received(Vec<u64>),
    Cancel {
        job: JobId,
        reason: Arc<str>,
    },
    /// Say goodbye and close.
    Close(String),
}

/// A job on its way to a session.
#[derive(Debug)]
pub struct Handed {
    pub seq: i64,
    /// Without its payload.
    pub job: Job,
    /// `None`: it lies in the store.
    pub payload: Option<Arc<Vec<u8>>>,
}

/// What one event leads to, gathered under the lock.
#[derive(Default)]
struct Plan {
    writes: Vec<JobWrite>,
    frames: Vec<(channel::Sender<Outbox>, Outbox)>,
    ended: Vec<String>,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            project_queued_max: 1_000_000,
            pool_queued_max: 1_000_000,
            payload_bytes_held_max: 32 * 1024 * 1024,
            cancel_overdue: Duration::from_secs(30),
            agent_away_max: Duration::from_secs(3_600),
            // A worker that stands still holds its jobs until the broker misses its
            // heartbeats, which takes half a minute; a foreign broker may take two.
            idle_max: Duration::from_secs(180),
        }
    }
}

// === impl Line ===

impl Line {
    /// Rebuilds the line from the store: jobs that no agent had accepted wait
    /// again, the others are with their agents, which have yet to come back.
    pub async fn rebuild(
        store: &Store,
        tokens: JobTokens,
        limits: Limits,
        steps: channel::Sender<steps::Ended>,
    ) -> anyhow::Result<Arc<Self>> {
        let next_seq = store.next_seq().await?;
        let mut inner = Inner::new(next_seq);
        let mut plan = Plan::default();
        let jobs = store.live_jobs().await?;
        let found = jobs.len();
        for (spec, progress) in jobs {
            let id = spec.id.clone();
            match Live::from_store(spec, progress) {
                Ok(live) => inner.restore(live, &mut plan, &limits),
                Err(error) => {
                    tracing::error!(
                        job.id = id,
                        error,
                        "A stored job cannot be read and is left alone"
                    );
                }
            }
        }
        let line = Arc::new(Self {
            store: store.clone(),
            tokens,
            limits,
            steps,
            inner: Mutex::new(inner),
        });
        line.commit(plan, || ());
        tracing::info!(jobs = found, "Rebuilt the line from the store");
        Ok(line)
    }

    /// Takes a job. If a session has room it is handed out in the same commit.
    pub fn create(self: &Arc<Self>, new: NewJob, wait: bool) -> Result<Created, Full> {
        self.create_as(new, wait, None)
    }

    /// The same for a job that repeats an earlier one.
    pub fn create_as(
        self: &Arc<Self>,
        new: NewJob,
        wait: bool,
        replay_of: Option<String>,
    ) -> Result<Created, Full> {
        let id = crate::gateway::directory::new_id();
        let payload = Arc::new(new.payload);
        let (told, committed) = oneshot::channel();
        let mut inner = self.lock();
        inner.check_room(&new.project, &new.pool, &self.limits)?;
        let spec = Arc::new(Spec {
            seq: inner.take_seq(),
            id: id.clone(),
            pool: new.pool,
            project: new.project,
            kind: new.kind.as_str().to_owned(),
            high: new.high,
            identity: serde_json::to_string(&new.identity).unwrap_or_default(),
            block: new.block,
            timeout_ms: new.timeout_ms,
            expires_ms: new.expires_ms,
            created_us: now_us(),
            purpose: None,
            replay_of,
        });
        let mut plan = Plan::default();
        plan.writes.push(JobWrite::Create {
            spec: spec.clone(),
            progress: Progress::queued(),
            payload: payload.clone(),
        });
        let mut live = Live::new(spec.clone(), new.kind, new.identity);
        let ended = wait.then(|| live.wait());
        inner.hold_payload(&mut live, payload, &self.limits);
        inner.add(live);
        self.hand_out(&mut inner, &spec.pool, &mut plan);
        self.commit(plan, move || {
            // A caller that is gone need not be told.
            let _ = told.send(());
        });
        drop(inner);
        Ok(Created {
            id,
            committed,
            ended,
        })
    }

    /// Registers for a job's end; `None` when it is not (or no longer) live.
    pub fn wait(&self, id: &str) -> Option<Ended> {
        Some(self.lock().live.get_mut(id)?.wait())
    }

    /// The spec and progress of a job that has not ended.
    pub fn look(&self, id: &str) -> Option<(Arc<Spec>, Progress, JobState)> {
        let inner = self.lock();
        let live = inner.live.get(id)?;
        // An end that is not committed has not happened yet; whoever must know waits for it.
        (!live.state.phase.is_final()).then(|| (live.spec.clone(), live.snapshot(), live.state))
    }

    /// Puts a plan's writes in the store's channel; must be called under the lock.
    fn commit(self: &Arc<Self>, plan: Plan, then: impl FnOnce() + Send + 'static) {
        let line = self.clone();
        let Plan {
            writes,
            frames,
            ended,
        } = plan;
        self.store.apply(writes, move || {
            for (outbox, frame) in frames {
                // A session that is gone has put its jobs back itself.
                drop(outbox.try_send(frame));
            }
            line.settle(&ended);
            then();
        });
    }

    /// Forgets jobs whose end is committed and tells whoever waits.
    fn settle(&self, ended: &[String]) {
        if ended.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let settled: Vec<Live> = ended.iter().filter_map(|id| inner.forget(id)).collect();
        drop(inner);
        for live in settled {
            self.tell_engine(&live);
            live.tell();
        }
    }

    /// What an agent API request may touch: the job of its token, while that dispatch is current.
    pub fn authorize(&self, id: &str, dispatch: u32) -> Option<Holder> {
        let inner = self.lock();
        let live = inner.live.get(id)?;
        let current = !live.state.phase.is_final() && live.state.attempt.dispatch == dispatch;
        current.then(|| Holder {
            spec: live.spec.clone(),
            identity: live.identity.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Proof that a job is held by an agent, and what it may see.
#[derive(Debug, Clone)]
pub struct Holder {
    pub spec: Arc<Spec>,
    pub identity: Identity,
}

fn failure(cause: sluice_proto::report::Cause, sentence: impl Into<String>) -> Failure {
    Failure::new(cause, sentence)
}

#[cfg(test)]
mod tests;
