//! Gateway ⇄ bridge: one frame per binary websocket message.
//!
//! ```text
//! bridge                                   gateway
//!   │ GET /agent/v1/session                    │   headers: authorization, x-sluice-pool
//!   │ ───────────────────────────────────────▶ │   401 or 403 with one JSON sentence: refused for good
//!   │ Hello ─────────────────────────────────▶ │
//!   │ ◀──────────────────── Welcome or Refused │
//!   │ Window{jobs} ──────────────────────────▶ │   level-triggered: the last one holds
//!   │ ◀────────────────────────────── Dispatch │   at most `jobs` unanswered at a time
//!   │ Accepted or Rejected ──────────────────▶ │   after the broker confirmed
//!   │ Reports ───────────────────────────────▶ │
//!   │ ◀────────────────────────────── Received │   after the store committed
//!   │ Heartbeat ◀────────────────────────────▶ │   each side, every HEARTBEAT_MS
//! ```
//!
//! A frame either side cannot read closes the session with a websocket close
//! code and one sentence; nothing is lost, as whatever was not answered is sent again.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolId, SessionId};
use crate::job::Job;
use crate::report::Report;

/// The path of the session endpoint below the gateway's agent listener.
pub const SESSION_PATH: &str = "/agent/v1/session";

/// Names the pool in the handshake; its token travels as `authorization: Bearer …`.
pub const POOL_HEADER: &str = "x-sluice-pool";

/// How often each side says it is alive, in milliseconds.
pub const HEARTBEAT_MS: u64 = 8_000;

/// How long silence may last before the session is taken for dead, in
/// milliseconds: three heartbeats and a bit, and below the promised 30 s.
pub const SILENCE_MS_MAX: u64 = 25_000;

/// Most jobs in one `Dispatch`, most reports in one `Reports`.
pub const BATCH_MAX: usize = 256;

/// From the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromBridge {
    /// The first frame of a session.
    Hello(Hello),
    /// How many dispatched jobs may be unanswered at once from now on; 0 stops
    /// the flow, and then `reason` says why.
    Window {
        jobs: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The broker has custody of these.
    Accepted { jobs: Vec<Taken> },
    /// The bridge could not place the job; it is the gateway's again.
    Rejected {
        job: JobId,
        dispatch: u32,
        reason: String,
    },
    /// What workers said, in the order the queue gave it.
    Reports { items: Vec<Numbered> },
    /// Alive, and how the agent is.
    Heartbeat(AgentStatus),
    /// The bridge is about to close in good order.
    Goodbye { reason: String },
}

/// From the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGateway {
    Welcome {
        protocol: u16,
        session: SessionId,
        version: String,
    },
    /// The session cannot be; the bridge says so loudly and does not try again
    /// unless `retry` is set.
    Refused {
        reason: String,
        #[serde(default)]
        retry: bool,
    },
    Dispatch {
        jobs: Vec<Job>,
    },
    /// The gateway has custody of the reports with these numbers.
    Received {
        numbers: Vec<u64>,
    },
    /// End these jobs, wherever they are. Repeats are harmless.
    Cancel {
        jobs: Vec<JobId>,
        reason: String,
    },
    Heartbeat,
    Goodbye {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the bridge speaks; see [`crate::check_protocol`].
    pub protocol: u16,
    /// The product version, for people.
    pub version: String,
    pub pool: PoolId,
    /// Stable for one agent installation (its data directory).
    pub agent: String,
    pub host: String,
    /// Milliseconds since the Unix epoch when the bridge started.
    pub started_ms: u64,
    pub status: AgentStatus,
}

/// How the agent behind a session is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    /// Workers seen alive by the bridge.
    pub workers: u32,
    /// Jobs in workers' slots.
    pub in_flight: u32,
    /// Jobs waiting in the agent's queue.
    pub queued: u64,
    /// Why no work is taken at present, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusing: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub job: JobId,
    pub dispatch: u32,
}

/// A report with a number that is unique within its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u64,
    pub report: Report,
}
