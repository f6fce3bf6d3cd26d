//! A report: what a worker says about a job on the way back.

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::job::Attempt;

/// The longest single log line kept, in bytes of UTF-8; a longer one is cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 8 * 1024;

/// How much log one job may leave, in bytes; what follows is counted, not kept.
pub const LOG_JOB_BYTES_MAX: usize = 1024 * 1024;

/// How much log one report may carry, in bytes.
pub const LOG_REPORT_BYTES_MAX: usize = 64 * 1024;

/// How much of an error's message and stack is kept, in bytes each.
pub const ERROR_TEXT_BYTES_MAX: usize = 16 * 1024;

/// What happened to a job, said by the worker that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub job: JobId,
    pub attempt: Attempt,
    /// The worker's name: `host/pid/number`.
    pub worker: String,
    /// Microseconds since the Unix epoch, by the worker's clock.
    pub at_us: u64,
    pub body: Body,
}

/// What a report says. The reports of one attempt arrive in this order:
/// at most one `Started`, any number of `Log`, exactly one `Finished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The invocation runs. Left out when it ended before it was worth a
    /// message of its own; `Finished` carries the same facts.
    Started { runtime: RuntimeUse },
    /// Lines the invocation wrote, in order.
    Log { lines: Vec<LogLine> },
    /// The end. Nothing follows for this attempt.
    Finished(Box<Finished>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    pub outcome: Outcome,
    /// Missing when the job never reached a runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeUse>,
    #[serde(default)]
    pub hops: Hops,
    /// Lines not yet sent when the job ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// Bytes of log that were over a limit and are not kept.
    #[serde(default)]
    pub log_bytes_dropped: u64,
    /// How many SDK calls the invocation made.
    #[serde(default)]
    pub sdk_calls: u32,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// JSON, at most [`crate::codec::RESULT_BYTES_MAX`].
    Succeeded {
        #[serde(with = "serde_bytes")]
        result: Vec<u8>,
    },
    Failed(Failure),
    /// Ended because somebody asked for it.
    Cancelled {
        reason: String,
    },
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub cause: Cause,
    /// One sentence for a person.
    pub message: String,
    /// The JavaScript stack, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The key of the expression that failed, for `evaluate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The closed list of causes. Clients branch on these words: a cause is never
/// renamed, and a new one is added only when no client could act rightly on an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The bundle or the expression does not parse.
    Syntax,
    /// User code threw, or its promise was rejected.
    Threw,
    /// The time allowed passed while the invocation was waiting for something.
    Timeout,
    /// The time allowed passed while JavaScript never yielded (`while (true) {}`).
    EventLoopBlocked,
    /// The runtime went over its memory limit.
    OutOfMemory,
    /// The runtime's process died for another reason; the message names exit code or signal.
    Crashed,
    /// Another invocation in the same runtime brought it down, more often than this job is retried for.
    Collateral,
    /// The result is something JSON cannot carry.
    ResultNotJson,
    /// The result is over its limit.
    ResultTooLarge,
    /// The bundle exports no such app, block, input or handler.
    NoSuchHandler,
    /// The bundle could not be fetched, or its digest does not match.
    BundleUnavailable,
    /// No runtime could be started; the message says what the host lacks.
    RuntimeUnavailable,
    /// The job waited longer than it was worth.
    Expired,
    /// Delivered more often than the limit without an end.
    Poison,
    /// The job itself cannot be carried out as written: malformed, or of an unknown kind or version.
    Unacceptable,
    /// No agent reported its end in time; it may have run.
    Lost,
}

/// Which runtime an invocation used, and how it came by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeUse {
    /// The container's name.
    pub container: String,
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Started for this job.
    Cold,
    /// Was running without an identity.
    Stem,
    /// Had served this identity before.
    Warm,
}

/// When a job passed each hop, in microseconds since the Unix epoch; 0 where
/// it did not, or nobody noted it. Bridge and worker stand on one host and share its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hops {
    /// The bridge read the dispatch frame.
    pub received_us: u64,
    /// It was given to the broker, by the bridge or for another try.
    pub published_us: u64,
    /// The worker holds the delivery.
    pub delivered_us: u64,
    /// A runtime was claimed for it.
    pub claimed_us: u64,
    /// The invocation was written to the runtime.
    pub started_us: u64,
    /// The runtime answered.
    pub finished_us: u64,
    /// The bridge took the report off the queue.
    pub relayed_us: u64,
}

/// One line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Position within the attempt, from 0; a gap means lines over a limit.
    pub seq: u32,
    pub at_us: u64,
    pub level: Level,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

// === impl Cause ===

impl Cause {
    /// The word used on every wire and in every view.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Threw => "threw",
            Self::Timeout => "timeout",
            Self::EventLoopBlocked => "event_loop_blocked",
            Self::OutOfMemory => "out_of_memory",
            Self::Crashed => "crashed",
            Self::Collateral => "collateral",
            Self::ResultNotJson => "result_not_json",
            Self::ResultTooLarge => "result_too_large",
            Self::NoSuchHandler => "no_such_handler",
            Self::BundleUnavailable => "bundle_unavailable",
            Self::RuntimeUnavailable => "runtime_unavailable",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::Unacceptable => "unacceptable",
            Self::Lost => "lost",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Failure ===

impl Failure {
    /// A failure with a sentence and nothing else.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
            stack: None,
            key: None,
        }
    }
}

// === impl Origin ===

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Stem => "stem",
            Self::Warm => "warm",
        }
    }
}
