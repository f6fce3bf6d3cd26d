//! Worker ⇄ Node harness: over one unix socket per runtime, worker listening,
//! Node connecting. Each message is a four-byte big-endian length and that many
//! bytes of msgpack. End of file is the death of the runtime.
//!
//! ```text
//! Node                          worker
//!  │ Hello{posture} ─────────────▶ │  sealed? else the runtime is destroyed
//!  │ ◀──────────────────────  Load │  once, when the runtime gets its identity
//!  │ Loaded or LoadFailed ───────▶ │
//!  │ ◀───────────────────── Invoke │  any number at once, numbered
//!  │ Log*, Call* ────────────────▶ │
//!  │ ◀───────────────────── Called │  the answer to one Call
//!  │ Done or Failed ─────────────▶ │  after every Call of the invocation was answered
//!  │ ◀─────────────── Abort │ Ping │
//! ```

use serde::{Deserialize, Serialize};

use crate::job::Kind;
use crate::report::{Failure, Level};

/// Where the harness is mounted inside the container, read-only.
pub const HARNESS_DIR: &str = "/sluice";

/// Where the runtime's own directory is mounted, read-only: socket and bundle.
pub const RUN_DIR: &str = "/sluice/run";

/// The socket's name in the runtime's directory.
pub const SOCKET_NAME: &str = "harness.sock";

/// Most SDK calls one invocation may have unanswered.
pub const CALLS_IN_FLIGHT_MAX: usize = 1_000;

/// To the harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRuntime {
    /// Gives the runtime its identity. `bundle` is a path inside the container,
    /// missing for a flow.
    Load {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<String>,
    },
    Invoke {
        /// Unique within the runtime.
        invocation: u32,
        kind: Kind,
        /// How much log this invocation may send, in bytes.
        log_bytes_max: u32,
        #[serde(with = "serde_bytes")]
        payload: Vec<u8>,
    },
    /// End an invocation: pending SDK calls reject, and `Failed` follows at once.
    Abort { invocation: u32 },
    /// The answer to one [`FromRuntime::Call`].
    Called {
        invocation: u32,
        call: u32,
        answer: Answer,
    },
    /// To be echoed at once; a late echo is a blocked event loop.
    Ping { number: u32 },
}

/// How an SDK call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// JSON.
    Value {
        #[serde(with = "serde_bytes")]
        json: Vec<u8>,
    },
    /// Becomes a rejected promise with this message.
    Error { message: String },
}

/// From the harness. Everything in it may be forged by user code: a worker
/// trusts none of it across identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRuntime {
    Hello {
        protocol: u16,
        /// `process.version`.
        node: String,
        posture: Posture,
    },
    Loaded,
    LoadFailed {
        failure: Failure,
    },
    Done {
        invocation: u32,
        /// Bytes of log over the limit.
        log_bytes_dropped: u64,
        #[serde(with = "serde_bytes")]
        result: Vec<u8>,
    },
    Failed {
        invocation: u32,
        log_bytes_dropped: u64,
        failure: Failure,
    },
    /// An SDK call; `args` is a JSON array.
    Call {
        invocation: u32,
        /// Unique within the invocation.
        call: u32,
        /// `events.emit`, `kv.block.get`, …
        method: String,
        #[serde(with = "serde_bytes")]
        args: Vec<u8>,
    },
    Log {
        invocation: u32,
        level: Level,
        text: String,
    },
    Pong {
        number: u32,
    },
}

/// What the harness finds inside its container, from `/proc/self/status`,
/// before any user code is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    pub uid: u32,
    /// `NoNewPrivs: 1`.
    pub no_new_privileges: bool,
    /// `CapEff`, `CapPrm` and `CapBnd`, all or-ed.
    pub capabilities: u64,
    /// `Seccomp`: 2 is a filter.
    pub seccomp: u8,
    /// Whether `/` could be written.
    pub root_writable: bool,
    /// The kernel it sees is gVisor's. That one reports neither a filter nor
    /// `NoNewPrivs`: both are kept outside of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gvisor: bool,
}
