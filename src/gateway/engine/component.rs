//! The life of an installation or a block: which run is due, which state is shown.
//!
//! ```text
//!            Confirmed / autoconfirm          onSync: ready│failed│drifted
//!   DRAFT ─────────────────────────▶ IN_PROGRESS ◀────────────▶ READY │ FAILED │ DRIFTED
//!     │                                   ▲  │ a change, a wish, a due time: onSync again
//!     │                                   └──┘ onSync: in_progress, nothing, or not yet
//!     │ Delete                            │
//!     │ (never ran)                       ▼ Delete, from every confirmed state
//!     │                               DRAINING ──onDrain: drained──▶ DRAINED ─▶ removed
//!     │                                ▲  │ draining: again when it is due
//!     └──────────────────▶ removed     │  ▼ threw, draining_failed, failed
//!                                   DRAINING_FAILED ── Delete again
//! ```
//!
//! At most one run (an `onSync` or an `onDrain`) is under way. A change while
//! it runs is remembered and leads to exactly one more run after it, however
//! many changes there were: the last sync always starts after the last change.
//! Runs are numbered; what an older run reports is `Unchanged`, so a repeated
//! report does nothing.
//!
//! Owns these decisions and nothing else: the caller stores the state and
//! carries out the effects in the same transaction.

mod transition;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::gateway::engine::schema::{Handlers, OutputUpdates};

/// Shortest `nextScheduleDelay`, in milliseconds: below it a block would keep
/// its pool busy by itself.
pub const SCHEDULE_DELAY_MS_MIN: i64 = 1_000;

/// Longest `nextScheduleDelay`, in milliseconds: a year is "never" for a poller.
pub const SCHEDULE_DELAY_MS_MAX: i64 = 366 * 24 * 60 * 60 * 1_000;

/// Longest status text that is kept, in characters: it is one line on a canvas.
pub const STATUS_TEXT_CHARS_MAX: usize = 2_000;

/// What the API shows; the names are the contract with its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Draft,
    InProgress,
    Ready,
    Failed,
    Drifted,
    Draining,
    Drained,
    DrainingFailed,
}

/// Whose life it is; only the words of a refusal differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Installation,
    Block,
}

/// The handlers that decide about a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Abilities {
    pub sync: bool,
    pub drain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Sync,
    Drain,
}

/// A run under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub number: u64,
    pub phase: Phase,
}

/// Everything a life remembers. Stored as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub owner: Owner,
    pub status: Status,
    /// `customStatusDescription` of the last run that gave a status.
    pub description: Option<String>,
    /// Why the last run failed; gone with the next one that does not.
    pub error: Option<String>,
    pub abilities: Abilities,
    pub run: Option<Run>,
    /// How many runs there were; the number of the last one.
    pub runs: u64,
    /// Something changed since the run under way started.
    pub dirty: bool,
    /// To be removed: no sync starts any more.
    pub deleting: bool,
    /// When a run is due by itself, in milliseconds since 1970.
    pub due_ms: Option<i64>,
    /// The status to return to when a run names none.
    settled: Status,
    /// The pool that has no agent for the run under way.
    pub waiting_for_pool: Option<String>,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Confirmed,
    ConfigChanged,
    /// Another version of the code, with these handlers.
    CodeChanged(Abilities),
    /// A signal that the config refers to has another value.
    SignalChanged,
    /// A person, or `lifecycle.sync()`.
    SyncRequested,
    /// Run `run` ended with a result.
    RunFinished {
        run: u64,
        result: RunResult,
    },
    /// Run `run` threw, timed out or was lost for good.
    RunFailed {
        run: u64,
        reason: String,
    },
    Delete,
    /// The time that an earlier [`Effect::ScheduleAt`] named has come.
    Due {
        at_ms: i64,
    },
    PoolHasNoAgent {
        pool: String,
    },
    AgentArrived,
}

/// What `onSync` and `onDrain` return. Unknown keys are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunResult {
    pub new_status: Option<Status>,
    pub custom_status_description: Option<String>,
    pub signal_updates: Option<Map<String, Value>>,
    pub output_updates: Option<OutputUpdates>,
    /// Seconds.
    pub next_schedule_delay: Option<f64>,
}

/// What the caller has to do, in this order, in one transaction with the state.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    RunSync {
        run: u64,
    },
    RunDrain {
        run: u64,
    },
    /// Send [`Event::Due`] with this time when it comes; replaces an earlier one.
    ScheduleAt {
        at_ms: i64,
    },
    Unschedule,
    /// Merge into the signals; `null` clears one.
    MergeSignals(Map<String, Value>),
    MergeOutputs(OutputUpdates),
    /// Nothing is left to run: remove it.
    Remove,
}

/// What an event did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Changed {
        state: State,
        effects: Vec<Effect>,
    },
    /// Already so, or news of something that is over.
    Unchanged,
    /// Not allowed, and why, for the caller.
    Denied(String),
}

// === impl Abilities ===

impl From<Handlers> for Abilities {
    fn from(handlers: Handlers) -> Self {
        Self {
            sync: handlers.has_on_sync,
            drain: handlers.has_on_drain,
        }
    }
}

// === impl RunResult ===

impl RunResult {
    /// Reads what a handler returned; a handler that returns nothing says nothing.
    ///
    /// # Errors
    ///
    /// A sentence for the log of the block: which part does not fit.
    pub fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self::default()),
            Value::Object(_) => {
                serde_json::from_value(value).map_err(|error| format!("the result: {error}"))
            }
            _ => Err("the result of a life-cycle handler is an object".to_owned()),
        }
    }
}

// === impl State ===

impl State {
    /// A new life. With `autoconfirm` it is confirmed at once.
    pub fn created(owner: Owner, abilities: Abilities, autoconfirm: bool) -> (Self, Vec<Effect>) {
        let mut state = Self {
            owner,
            status: Status::Draft,
            description: None,
            error: None,
            abilities,
            run: None,
            runs: 0,
            dirty: false,
            deleting: false,
            due_ms: None,
            settled: Status::Draft,
            waiting_for_pool: None,
        };
        let mut effects = Vec::new();
        if autoconfirm {
            state.confirm(&mut effects);
        }
        (state, effects)
    }

    /// The line under the name: what the app says, else what it waits for, else
    /// what went wrong.
    pub fn status_text(&self) -> Option<String> {
        if let Some(pool) = &self.waiting_for_pool {
            return Some(format!("Waiting for an agent of the pool {pool}"));
        }
        self.error.clone().or_else(|| self.description.clone())
    }

    /// Whether the life has ended and nothing will happen any more.
    pub fn is_over(&self) -> bool {
        self.status == Status::Drained
    }

    /// Whether handlers of events, timers, messages and requests may run.
    pub fn takes_events(&self) -> bool {
        !self.deleting && self.status != Status::Draft
    }

    fn confirm(&mut self, effects: &mut Vec<Effect>) {
        self.settle(Status::InProgress);
        self.sync_or_be_ready(effects);
    }

    fn sync_or_be_ready(&mut self, effects: &mut Vec<Effect>) {
        if self.abilities.sync {
            self.start(Phase::Sync, effects);
        } else {
            self.error = None;
            self.settle(Status::Ready);
        }
    }

    fn start(&mut self, phase: Phase, effects: &mut Vec<Effect>) {
        if self.due_ms.take().is_some() {
            effects.push(Effect::Unschedule);
        }
        self.runs += 1;
        self.dirty = false;
        self.waiting_for_pool = None;
        let run = self.runs;
        self.run = Some(Run { number: run, phase });
        effects.push(match phase {
            Phase::Sync => Effect::RunSync { run },
            Phase::Drain => Effect::RunDrain { run },
        });
    }

    fn drain_or_remove(&mut self, effects: &mut Vec<Effect>) {
        if self.abilities.drain {
            self.settle(Status::Draining);
            self.start(Phase::Drain, effects);
        } else {
            self.end(effects);
        }
    }

    fn end(&mut self, effects: &mut Vec<Effect>) {
        if self.due_ms.take().is_some() {
            effects.push(Effect::Unschedule);
        }
        self.settle(Status::Drained);
        self.run = None;
        self.dirty = false;
        self.waiting_for_pool = None;
        effects.push(Effect::Remove);
    }

    fn settle(&mut self, status: Status) {
        self.status = status;
        self.settled = status;
    }

    fn schedule(&mut self, seconds: Option<f64>, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) else {
            return;
        };
        let delay_ms =
            ((seconds * 1_000.0) as i64).clamp(SCHEDULE_DELAY_MS_MIN, SCHEDULE_DELAY_MS_MAX);
        let at_ms = now_ms.saturating_add(delay_ms);
        self.due_ms = Some(at_ms);
        effects.push(Effect::ScheduleAt { at_ms });
    }

    fn is(&self, run: u64) -> Option<Run> {
        self.run.filter(|under_way| under_way.number == run)
    }
}

// === Transitions ===

/// The one transition function. `now_ms` is used for `nextScheduleDelay` alone.
pub fn apply(state: &State, event: Event, now_ms: i64) -> Outcome {
    match event {
        Event::Confirmed => transition::confirmed(state),
        Event::ConfigChanged | Event::SignalChanged => transition::changed(state),
        Event::CodeChanged(abilities) => transition::code_changed(state, abilities),
        Event::SyncRequested => transition::sync_requested(state),
        Event::RunFinished { run, result } => match state.is(run) {
            Some(Run { phase, .. }) => transition::finished(state, phase, result, now_ms),
            None => Outcome::Unchanged,
        },
        Event::RunFailed { run, reason } => match state.is(run) {
            Some(Run { phase, .. }) => transition::failed(state, phase, &reason),
            None => Outcome::Unchanged,
        },
        Event::Delete => transition::deleted(state),
        Event::Due { at_ms } => transition::due(state, at_ms),
        Event::PoolHasNoAgent { pool } => transition::waiting(state, Some(pool)),
        Event::AgentArrived => transition::waiting(state, None),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(STATUS_TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
