//! To the gateway: the one writer of a session's frames.
//!
//! ```text
//!  each turn:  window, if it changed ─▶ heartbeat, if due ─▶ answers ─▶ reports ─▶ wait for a bell
//! ```
//!
//! The window goes first: a job is never given back while the gateway may
//! still think that there is room for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_proto::frame::{AgentStatus, BATCH_MAX, FromBridge, HEARTBEAT_MS};

use crate::bridge::policy::{self, End};
use crate::bridge::state::Shared;
use crate::limit;
use crate::shutdown::Stage;
use crate::wire::{Error, Sender};

/// How often things are looked at that ring no bell.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const HEARTBEAT_EVERY: Duration = Duration::from_millis(HEARTBEAT_MS);
/// How soon a change of numbers alone is told; a change of workers or of a refusal is told at once.
const NUMBERS_EVERY: Duration = Duration::from_secs(1);
/// How long a drain waits for reports still in the queue. They are safe there.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Writes frames until the session is over or drained.
pub async fn run(shared: &Shared, sender: &mut Sender<FromBridge>, busy: &AtomicUsize) -> End {
    match write(shared, sender, busy).await {
        Ok(()) => End::Drained,
        Err(error) => End::Lost(error.to_string()),
    }
}

async fn write(
    shared: &Shared,
    sender: &mut Sender<FromBridge>,
    busy: &AtomicUsize,
) -> Result<(), Error> {
    let mut window = None;
    let mut told = Told::never();
    let mut drain_until = None;
    loop {
        let facts = shared.facts();
        let now = policy::window(&facts);
        if window.as_ref() != Some(&now) {
            let (jobs, reason) = now.clone();
            tell_window(window.as_ref(), jobs, reason.as_deref());
            sender.send(&FromBridge::Window { jobs, reason }).await?;
            window = Some(now);
        }
        let status = policy::status(&facts);
        if told.is_due(&status) {
            sender.send(&FromBridge::Heartbeat(status.clone())).await?;
            told = Told::now(status);
        }
        answers(shared, sender).await?;
        let batch = shared.outbox().batch();
        if let Some(reports) = batch {
            sender.send(&reports).await?;
            continue;
        }
        if facts.stage != Stage::Running {
            let until = *drain_until
                .get_or_insert_with(|| Instant::now() + shared.config.drain.min(DRAIN_MAX));
            let idle = busy.load(Ordering::Relaxed) == 0 && shared.is_idle();
            if idle || facts.stage == Stage::Cancelling || Instant::now() >= until {
                let reason = "the agent is stopping".to_owned();
                sender.send(&FromBridge::Goodbye { reason }).await?;
                sender.close("the agent is stopping").await;
                return Ok(());
            }
        }
        // A bell that rang since the look above is kept.
        let _ = limit::timeout(LOOK_EVERY, shared.frames.rung()).await;
    }
}

async fn answers(shared: &Shared, sender: &mut Sender<FromBridge>) -> Result<(), Error> {
    let mut answers = shared.take_answers();
    while !answers.accepted.is_empty() {
        let rest = answers
            .accepted
            .split_off(answers.accepted.len().min(BATCH_MAX));
        let jobs = std::mem::replace(&mut answers.accepted, rest);
        sender.send(&FromBridge::Accepted { jobs }).await?;
    }
    for (taken, reason) in answers.rejected {
        let rejected = FromBridge::Rejected {
            job: taken.job,
            dispatch: taken.dispatch,
            reason,
        };
        sender.send(&rejected).await?;
    }
    Ok(())
}

/// Logs that the flow of work stops or starts, with its reason.
fn tell_window(before: Option<&(u32, Option<String>)>, jobs: u32, reason: Option<&str>) {
    let flowed = before.is_some_and(|(jobs, _)| *jobs > 0);
    match reason {
        Some(reason) => tracing::warn!(reason, "No work is taken"),
        None if !flowed => tracing::info!(window = jobs, "Work is taken"),
        None => {}
    }
}

/// The status the gateway heard last, and when.
struct Told {
    status: AgentStatus,
    at: Option<Instant>,
}

// === impl Told ===

impl Told {
    fn never() -> Self {
        Self {
            status: AgentStatus::default(),
            at: None,
        }
    }

    fn now(status: AgentStatus) -> Self {
        Self {
            status,
            at: Some(Instant::now()),
        }
    }

    fn is_due(&self, status: &AgentStatus) -> bool {
        let Some(at) = self.at else { return true };
        at.elapsed() >= HEARTBEAT_EVERY
            || status.workers != self.status.workers
            || status.refusing != self.status.refusing
            || status != &self.status && at.elapsed() >= NUMBERS_EVERY
    }
}
