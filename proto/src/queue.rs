//! Bridge ⇄ worker: AMQP names, properties and headers.
//!
//! The body of a work message is a msgpack [`crate::job::Job`], that of a
//! report a [`crate::report::Report`], that of a control message a [`Control`],
//! that of a presence message a [`Presence`]. What a person or a broker's own
//! page needs stands in properties and headers:
//!
//! | property | work | report |
//! |---|---|---|
//! | `message_id` | job id | job id |
//! | `type` | kind | `started`, `log` or `finished` |
//! | `timestamp` | seconds, when published | the same |
//! | `content_type` | [`CONTENT_TYPE`] | the same |
//! | `delivery_mode` | 2 (persistent) | 2 |

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, PoolId};
use crate::job::Attempt;
use crate::report::{Cause, RuntimeUse};

pub const CONTENT_TYPE: &str = "application/vnd.sluice+msgpack";

/// Headers of a work message.
pub mod header {
    /// [`crate::PROTOCOL`] of the writer, a short-short-unsigned or larger integer.
    pub const PROTOCOL: &str = "x-sluice-protocol";
    pub const POOL: &str = "x-sluice-pool";
    pub const PROJECT: &str = "x-sluice-project";
    /// What [`crate::job::Identity`] prints.
    pub const IDENTITY: &str = "x-sluice-identity";
    pub const BLOCK: &str = "x-sluice-block";
    /// [`crate::job::Attempt::dispatch`].
    pub const DISPATCH: &str = "x-sluice-dispatch";
    /// Deliveries spent before this publish; the broker's `x-delivery-count` comes on top.
    pub const DELIVERIES: &str = "x-sluice-deliveries";
    /// Microseconds since the Unix epoch when the bridge read the frame.
    pub const RECEIVED_US: &str = "x-sluice-received-us";
    /// Microseconds since the Unix epoch when it was given to the broker.
    pub const PUBLISHED_US: &str = "x-sluice-published-us";
    /// On dead letters: the [`crate::report::Cause`].
    pub const CAUSE: &str = "x-sluice-cause";
    /// On dead letters: one sentence.
    pub const REASON: &str = "x-sluice-reason";
    /// In the log of dead letters, on a note of what became of one: who did it.
    /// Such a note has no body, and its `type` is `dropped` or `replayed`.
    pub const BY: &str = "x-sluice-by";
    pub const TRACEPARENT: &str = "traceparent";
    /// Set by quorum queues: how often the message was returned to the queue
    /// (before RabbitMQ 4.3), or how many deliveries of it failed (from then on).
    pub const BROKER_DELIVERY_COUNT: &str = "x-delivery-count";
    /// Set by quorum queues of later RabbitMQ 4 releases: how often a consumer was
    /// given the message before, failed or not. A reader takes the larger of the two.
    pub const BROKER_ACQUIRED_COUNT: &str = "x-acquired-count";
}

/// How often a job is delivered to a worker before it is taken for poison.
pub const DELIVERIES_MAX: u32 = 5;

/// The broker's own limit: a last resort for messages that kill a worker
/// before it can count, so it stands above [`DELIVERIES_MAX`].
pub const BROKER_DELIVERY_LIMIT: u32 = 8;

/// The names of everything a pool uses on a broker. All begin with the
/// prefix, so that pools can share a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Work: a quorum queue.
    pub jobs: String,
    /// Work that goes first: a quorum queue.
    pub jobs_high: String,
    /// Reports on their way to the bridge: a quorum queue.
    pub reports: String,
    /// Work that waits a moment before it is tried again; dead-letters into `jobs`.
    pub retry: String,
    /// The same for urgent jobs, which go back to `jobs_high`.
    pub retry_high: String,
    /// What could not be done, with its cause: a quorum queue.
    pub dead: String,
    /// Where `jobs` and `jobs_high` send what the broker itself gives up on: a
    /// fanout exchange bound to `dead` and `given_up`.
    pub dead_letters: String,
    /// A copy of what the broker gave up on, for the bridge, which reports it
    /// and leaves the one in `dead` to look at: a quorum queue.
    pub given_up: String,
    /// Bridge to all workers: a fanout exchange.
    pub control: String,
    /// Workers to the bridge and whoever looks: a fanout exchange.
    pub presence: String,
    /// A log of all dead letters and of what became of them: a stream, so that
    /// reading it takes nothing out and marks nothing.
    pub dead_log: String,
    /// The way into `dead` and `dead_log`: a fanout exchange.
    pub burials: String,
    /// Held by the one bridge of this pool on this broker: an exclusive queue.
    pub bridge_lock: String,
}

/// From bridge to every worker of the pool. Not persistent: whoever is not
/// there has nothing to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    Cancel {
        jobs: Vec<JobId>,
        reason: String,
    },
    /// Every worker says at once how it is, with [`Presence::holds`].
    Tell,
}

/// How one worker is, said every [`PRESENCE_MS`] and on every change of state. Not persistent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// `host/pid/number`.
    pub worker: String,
    pub state: WorkerState,
    pub slots: u32,
    pub in_flight: u32,
    /// Containers it holds.
    pub runtimes: u32,
    /// Why it takes no work, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusing: Option<String>,
    pub at_us: u64,
    /// Which link to the broker this worker is on, from 1: each further one was a reconnect.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub link: u64,
    /// What it holds, in answer to [`Control::Tell`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Box<Holds>>,
}

/// What a worker holds and has done, for whoever looks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Holds {
    /// Running jobs first, then those that wait for a slot; at most [`HELD_JOBS_MAX`].
    pub jobs: Vec<HeldJob>,
    /// How many it holds in all.
    pub jobs_total: u32,
    /// Jobs put into the retry queue lately, each with when and why.
    pub retried: Vec<RetriedJob>,
    /// Jobs ended since the worker started.
    pub tallies: Vec<Tally>,
    /// Runtimes by state.
    pub runtimes: Vec<(String, u32)>,
    /// Containers that run jobs now, with what they use.
    pub containers: Vec<ContainerUse>,
}

/// One job in a worker's hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldJob {
    pub job: JobId,
    pub attempt: Attempt,
    /// [`crate::job::Kind::as_str`]; empty when it is not known, as of a job that waits.
    pub kind: String,
    /// What [`crate::job::Identity`] prints; empty likewise.
    pub identity: String,
    pub running: bool,
    /// Microseconds since the Unix epoch when its delivery came; 0 if it waits.
    pub since_us: u64,
    pub timeout_ms: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeUse>,
    /// The last line it logged, cut to [`HELD_LINE_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_line: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetriedJob {
    pub job: JobId,
    pub attempt: Attempt,
    pub cause: Cause,
    pub at_us: u64,
}

/// Jobs of one kind that ended one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// [`crate::job::Kind::as_str`].
    pub kind: String,
    /// `succeeded`, `cancelled`, or a [`Cause`].
    pub outcome: String,
    pub jobs: u64,
    /// Microseconds from delivery to end, of all of them.
    pub took_us: u64,
    /// Jobs that took at most so long, by [`TALLY_BUCKETS_MS`]; not cumulative.
    pub buckets: Vec<u64>,
}

/// One container in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUse {
    pub container: String,
    pub memory_bytes: u64,
    /// CPU time used so far, in microseconds.
    pub cpu_us: u64,
}

/// Jobs one presence lists; a worker holds fewer unless it has the most slots there may be.
pub const HELD_JOBS_MAX: usize = 2_000;

/// How much of a job's last line is said, in bytes.
pub const HELD_LINE_BYTES_MAX: usize = 200;

/// Upper borders of a [`Tally`]'s buckets, in milliseconds; one more bucket is for what took longer.
pub const TALLY_BUCKETS_MS: [u64; 12] =
    [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000, 300_000];

/// How often a worker says how it is, in milliseconds.
pub const PRESENCE_MS: u64 = 1_000;

/// How long a silent worker is still counted, in milliseconds.
pub const PRESENCE_MS_MAX: u64 = 3_500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    Starting,
    Running,
    Draining,
    Stopped,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

// === impl Names ===

impl Names {
    /// The names for one pool.
    pub fn of(pool: &PoolId) -> Self {
        let name = |what: &str| format!("sluice.{pool}.{what}");
        Self {
            jobs: name("jobs"),
            jobs_high: name("jobs.high"),
            reports: name("reports"),
            retry: name("retry"),
            retry_high: name("retry.high"),
            dead: name("dead"),
            dead_letters: name("dead-letters"),
            given_up: name("given-up"),
            control: name("control"),
            presence: name("presence"),
            dead_log: name("dead-log"),
            burials: name("burials"),
            bridge_lock: name("bridge-lock"),
        }
    }
}
