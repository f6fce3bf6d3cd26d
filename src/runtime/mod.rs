//! Containers, and the conversation with the Node process inside each.
//!
//! Owns: starting, sealing, claiming, watching, ending and sweeping runtimes.
//! Does not own: jobs, tokens, broker, HTTP. Nothing of ours that is secret
//! enters a container: an identity's code and an invocation's payload do.
//!
//! ```text
//!            create, start, Hello, sealed?           Load, Loaded
//! Starting ───────────────────────────────▶ Stem ─────────▶ Loading ──▶ Live ⟲ invocations
//!    │                                        │                │          │
//!    │ not sealed, no Hello, Podman says no   │ evicted        │ failed   │ idle, evicted, yielded,
//!    ▼                                        ▼                ▼          ▼ dead, or any doubt
//! Going (killed, removed, its directory deleted) ◀─────────────────────────
//! ```
//!
//! | file | is |
//! |---|---|
//! | `pool` | what a worker holds: claim a runtime, invoke in it |
//! | `invocation` | one invocation as its caller sees it |
//! | `ledger` | the policy, pure: who gets which runtime, who is evicted |
//! | `keeper` | the one task that starts and ends containers |
//! | `launch` | one container from nothing to a sealed Hello |
//! | `clock` | deadlines and memory of those that are in use |
//! | `harness` | the socket: handshake, framing, one reader and one writer per runtime |
//! | `table` | the open invocations of one runtime, and what a message does to them |
//! | `death` | why a runtime died, pure |
//! | `sandbox` | the container's specification, pure |
//! | `podman` | the engine behind [`Runtime`] |
//! | `processors` | which of them a runtime may use, where no cgroup says so |
//! | `directory`, `network`, `reaper` | files, routes and leftovers |
//! | `fake` | an engine without containers, for tests |

use std::future::Future;

use crate::runtime::death::Exit;
use crate::runtime::sandbox::{Host, Spec};

mod clock;
pub mod death;
mod directory;
mod harness;
pub mod invocation;
mod keeper;
mod launch;
mod ledger;
mod network;
pub mod node;
pub mod podman;
pub mod pool;
mod processors;
mod reaper;
pub mod sandbox;
mod table;

#[cfg(test)]
pub mod fake;

/// What starts and ends containers. Two are real: Podman, and the fake that
/// tests without containers use.
///
/// Each call has a time-out of its own. A repeat of `remove` is no error.
pub trait Runtime: Send + Sync + 'static {
    /// Whether the engine answers and the image is here; pulls it if it may.
    fn ready(&self, image: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// What the engine's host can enforce.
    fn host(&self) -> impl Future<Output = Result<Host, Error>> + Send;

    /// Creates and starts a container.
    fn start(&self, spec: &Spec, host: &Host) -> impl Future<Output = Result<(), Error>> + Send;

    /// The id of a container's first process as this host sees it, where it does.
    fn process(&self, name: &str) -> impl Future<Output = Result<Option<i32>, Error>> + Send;

    /// Waits for the end of a container and says how it was. The log's tail is the caller's.
    fn wait(&self, name: &str) -> impl Future<Output = Result<Exit, Error>> + Send;

    /// Kills and removes a container.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// The names of the containers, running or not, that carry the owner's labels.
    fn list(&self, owner: &Owner) -> impl Future<Output = Result<Vec<String>, Error>> + Send;
}

/// Whose runtimes these are. Leftovers are found by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The agent's id, stable for its data directory.
    pub agent: String,
    /// The number of the worker on its host, from 0.
    pub worker: u32,
}

/// Why a runtime could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that no time will mend.
    #[error("{0}")]
    Settings(String),
    /// The engine refused, or could not be reached.
    #[error("Podman could not {what}: {message}")]
    Engine {
        what: &'static str,
        message: String,
        transient: bool,
    },
    /// Nobody listens there at present, or whoever did went away over the call.
    #[error("Podman could not {what}: {message}")]
    Away { what: &'static str, message: String },
    /// The image is not here, with what to do about it.
    #[error("{0}")]
    ImageMissing(String),
    #[error("{what}: {source}")]
    Files {
        what: String,
        source: std::io::Error,
    },
    /// The harness did not answer as it should.
    #[error("the runtime was not usable: {0}")]
    Handshake(String),
    /// The container is not as tight as promised; it was destroyed unused.
    #[error("the runtime is not sealed: {0}")]
    NotSealed(String),
}

// === impl Owner ===

impl Owner {
    /// Enough of the agent's id for a person to tell two apart.
    fn agent_short(&self) -> String {
        self.agent
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .rev()
            .take(8)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    }
}

// === impl Error ===

impl Error {
    /// Whether trying again soon may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Engine { transient, .. } => *transient,
            Self::Away { .. } | Self::Files { .. } | Self::Handshake(_) => true,
            Self::Settings(_) | Self::ImageMissing(_) | Self::NotSealed(_) => false,
        }
    }
}
