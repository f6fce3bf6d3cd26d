//! A job: one requested invocation, and what a worker needs to carry it out.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, JobId, PoolId, ProjectId};

/// One requested invocation of user code.
///
/// Written by the gateway, unchanged until the worker reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub kind: Kind,
    #[serde(default)]
    pub priority: Priority,
    pub pool: PoolId,
    pub project: ProjectId,
    /// Which runtime may run it. Two jobs share a runtime only when these are equal.
    pub identity: Identity,
    /// Which dispatch of this job it is, from 1. Raised, durably, before the
    /// gateway hands the job out once more; see [`Attempt`].
    pub dispatch: u32,
    /// Microseconds since the Unix epoch when the gateway accepted the job.
    pub created_us: u64,
    /// How long the invocation may take, in milliseconds, counted from its start in the runtime.
    pub timeout_ms: u32,
    /// Milliseconds since the Unix epoch after which the job is no longer worth
    /// starting. A worker that finds it later reports [`crate::report::Cause::Expired`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// The block it is for, as a person would name it. For queue views only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// Opens the gateway's agent API for this job alone (`Authorization: Bearer`).
    /// Secret: never logged, never shown by a queue view, never given to a runtime.
    pub token: String,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// JSON, at most [`crate::codec::PAYLOAD_BYTES_MAX`]; its shape by kind is in README.md.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Load a bundle and report its schema.
    Describe,
    /// Evaluate expressions of a flow.
    Evaluate,
    /// `onSync` of an app or a block.
    Sync,
    /// `onDrain` of an app or a block.
    Drain,
    /// `onEvent` of a block's input.
    Event,
    /// `onTimer`.
    Timer,
    /// `onInternalMessage`.
    Message,
    /// `http.onRequest`.
    Http,
    /// `schedules.*.onTrigger`.
    Schedule,
    /// `suggestValues` of a configuration field.
    Suggest,
}

/// Which of the two work queues a job waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    #[default]
    Normal,
    /// Taken before every normal job that has not started.
    High,
}

/// Whose code a runtime runs. A runtime never serves two identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// The code of an app, for one installation of it.
    App {
        installation: String,
        bundle: Digest,
    },
    /// The expressions of one flow.
    Flow { flow: String },
}

/// One try at a job. Later tries compare greater.
///
/// The gateway counts dispatches, durably, before it sends one; a worker adds
/// which delivery of that dispatch it holds. A report of a smaller attempt than
/// the greatest one seen is refused (fencing).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Attempt {
    /// From 1.
    pub dispatch: u32,
    /// From 1.
    pub delivery: u32,
}

// === impl Kind ===

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Describe,
        Self::Evaluate,
        Self::Sync,
        Self::Drain,
        Self::Event,
        Self::Timer,
        Self::Message,
        Self::Http,
        Self::Schedule,
        Self::Suggest,
    ];

    /// The word used on every wire and in every view.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Evaluate => "evaluate",
            Self::Sync => "sync",
            Self::Drain => "drain",
            Self::Event => "event",
            Self::Timer => "timer",
            Self::Message => "message",
            Self::Http => "http",
            Self::Schedule => "schedule",
            Self::Suggest => "suggest",
        }
    }

    /// The kind that [`Kind::as_str`] names so, if any.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Identity ===

impl Identity {
    /// The bundle this identity runs, if it is an app's.
    pub fn bundle(&self) -> Option<&Digest> {
        match self {
            Self::App { bundle, .. } => Some(bundle),
            Self::Flow { .. } => None,
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::App {
                installation,
                bundle,
            } => {
                let short = bundle.as_str().get(..12).unwrap_or(bundle.as_str());
                write!(f, "app:{installation}@{short}")
            }
            Self::Flow { flow } => write!(f, "flow:{flow}"),
        }
    }
}

// === impl Attempt ===

impl std::fmt::Display for Attempt {
    /// `2.1`: the first delivery of the second dispatch.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.dispatch, self.delivery)
    }
}
