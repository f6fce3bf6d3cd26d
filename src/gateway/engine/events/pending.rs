//! Pending events: visible places for events to come.
//!
//! ```text
//!  createPending ─▶ OPEN ──completePending / emit{complete}──▶ COMPLETED
//!                    │ ▲ updatePending
//!                    └─┴──cancelPending───────────────────────▶ CANCELLED
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Emission, Emitter, Fingerprint, options, output, parents, text, within_count, within_size,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Open,
    Completed,
    Cancelled,
}

/// Stored as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub phase: Phase,
    pub output: String,
    pub body: Value,
    pub primary: Option<String>,
    pub secondary: Vec<String>,
    pub echo: bool,
    /// Shown to people.
    pub status: Option<String>,
    /// Why it was cancelled.
    pub reason: Option<String>,
}

/// What may happen to one.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Update {
        status: Option<String>,
        body: Option<Value>,
    },
    /// `completePending`: its own body is emitted.
    Complete,
    /// An emission with `complete` takes its place.
    Replaced,
    Cancel {
        reason: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// `emission` is what has to be emitted with the change.
    Changed {
        pending: Pending,
        emission: Option<Box<Emission>>,
    },
    /// Already so.
    Unchanged,
    Denied(String),
}

/// Reads the argument of `events.createPending(options)`.
///
/// # Errors
///
/// A sentence for the app.
pub fn create(args: &[Value], from: &Emitter<'_>) -> Result<(Pending, Fingerprint), String> {
    within_count(from)?;
    let mut options = options(args.first())?;
    let body = options.remove("event").unwrap_or_default();
    within_size(&body)?;
    let output = output(&options, from.outputs)?;
    let (primary, secondary) = parents(&options, from.handled)?;
    let fingerprint = Fingerprint::of("createPending", &output, &body, &options);
    let pending = Pending {
        phase: Phase::Open,
        output,
        body,
        primary,
        secondary,
        echo: super::flag(&options, "echo")?,
        status: text(&options, "statusDescription")?,
        reason: None,
    };
    Ok((pending, fingerprint))
}

/// Reads `events.updatePending(id, options)`: the id, and what changes.
///
/// # Errors
///
/// A sentence for the app.
pub fn update(args: &[Value]) -> Result<(String, Change), String> {
    let mut options: Map<String, Value> = options(args.get(1))?;
    let body = options.remove("event").filter(|body| !body.is_null());
    body.as_ref().map_or(Ok(()), within_size)?;
    let status = text(&options, "statusDescription")?;
    Ok((id(args)?, Change::Update { status, body }))
}

/// Reads `events.completePending(id)`.
///
/// # Errors
///
/// A sentence for the app.
pub fn complete(args: &[Value]) -> Result<(String, Change), String> {
    Ok((id(args)?, Change::Complete))
}

/// Reads `events.cancelPending(id, reason)`.
///
/// # Errors
///
/// A sentence for the app.
pub fn cancel(args: &[Value]) -> Result<(String, Change), String> {
    let reason = args.get(1).and_then(Value::as_str);
    let reason = reason.map(|reason| reason.chars().take(super::OPTION_BYTES_MAX).collect());
    Ok((id(args)?, Change::Cancel { reason }))
}

/// The one transition function. News about a pending event that has ended the
/// same way, or about its status, changes nothing: an app's clean-up must not
/// fail because a timer was faster.
pub fn apply(pending: &Pending, change: Change) -> Outcome {
    match (pending.phase, change) {
        (Phase::Open, Change::Update { status, body }) => {
            let mut next = pending.clone();
            next.status = status.or(next.status);
            next.body = body.unwrap_or(next.body);
            if next == *pending {
                return Outcome::Unchanged;
            }
            Outcome::Changed {
                pending: next,
                emission: None,
            }
        }
        (Phase::Open, Change::Complete) => Outcome::Changed {
            emission: Some(Box::new(pending.emission())),
            pending: pending.ended(Phase::Completed, None),
        },
        (Phase::Open, Change::Replaced) => Outcome::Changed {
            pending: pending.ended(Phase::Completed, None),
            emission: None,
        },
        (Phase::Open, Change::Cancel { reason }) => Outcome::Changed {
            pending: pending.ended(Phase::Cancelled, reason),
            emission: None,
        },
        (Phase::Cancelled, Change::Complete | Change::Replaced) => {
            Outcome::Denied("the pending event was cancelled".to_owned())
        }
        (Phase::Completed, Change::Replaced) => {
            Outcome::Denied("the pending event was completed before".to_owned())
        }
        (Phase::Completed | Phase::Cancelled, _) => Outcome::Unchanged,
    }
}

// === impl Pending ===

impl Pending {
    /// An emission that completes this one and names no parent has its parents.
    pub fn lend_parents(&self, emission: &mut Emission) {
        if emission.primary.is_none() && emission.secondary.is_empty() {
            emission.primary.clone_from(&self.primary);
            emission.secondary.clone_from(&self.secondary);
        }
    }

    fn emission(&self) -> Emission {
        Emission {
            output: self.output.clone(),
            body: self.body.clone(),
            primary: self.primary.clone(),
            secondary: self.secondary.clone(),
            echo: self.echo,
            completes: None,
            fingerprint: Fingerprint::of("completed", &self.output, &self.body, &Map::new()),
        }
    }

    fn ended(&self, phase: Phase, reason: Option<String>) -> Self {
        Self {
            phase,
            reason,
            ..self.clone()
        }
    }
}

fn id(args: &[Value]) -> Result<String, String> {
    match args.first() {
        Some(Value::String(id)) if !id.is_empty() && id.len() <= super::OPTION_BYTES_MAX => {
            Ok(id.clone())
        }
        _ => Err("the id of a pending event is missing".to_owned()),
    }
}
