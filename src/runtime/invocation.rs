//! One invocation, as its caller sees it.

use std::time::Duration;

use sluice_proto::harness::Answer;
use sluice_proto::job::Kind;
use sluice_proto::report::{Failure, Level};

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub kind: Kind,
    /// JSON, at most [`sluice_proto::codec::PAYLOAD_BYTES_MAX`].
    pub payload: Vec<u8>,
    /// How long it may take from now on.
    pub timeout: Duration,
    /// How much log it may send, in bytes.
    pub log_bytes_max: u32,
}

/// What an invocation says. `Ended` comes exactly once and last; after it
/// `next` answers the same end again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Log {
        at_us: u64,
        level: Level,
        text: String,
    },
    /// An SDK call, to be answered with [`Running::answer`]. `args` is a JSON array.
    Call {
        call: u32,
        method: String,
        args: Vec<u8>,
    },
    Ended(Ended),
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// JSON, at most [`sluice_proto::codec::RESULT_BYTES_MAX`].
    pub result: Result<Vec<u8>, Failure>,
    pub log_bytes_dropped: u64,
    /// The runtime went down because of another invocation, or nobody knows
    /// which: worth another try.
    pub collateral: bool,
    /// It was ended by [`Running::abort`].
    pub aborted: bool,
}

/// An invocation under way. Dropping it aborts it.
#[derive(Debug)]
pub struct Running {}

// === impl Running ===

impl Running {
    /// The next thing it says.
    pub async fn next(&mut self) -> Said {
        std::future::pending().await
    }

    /// Answers one call. An answer nobody waits for any more is dropped.
    pub fn answer(&self, _call: u32, _answer: Answer) {}

    /// Asks for the end of it; a repeat changes nothing.
    pub fn abort(&self) {}
}
