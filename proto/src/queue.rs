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
    /// On dead letters: the [`crate::report::Cause`].
    pub const CAUSE: &str = "x-sluice-cause";
    /// On dead letters: one sentence.
    pub const REASON: &str = "x-sluice-reason";
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
    /// Held by the one bridge of this pool on this broker: an exclusive queue.
    pub bridge_lock: String,
}

/// From bridge to every worker of the pool. Not persistent: whoever is not
/// there has nothing to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    Cancel { jobs: Vec<JobId>, reason: String },
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
}

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
            dead: name("dead"),
            dead_letters: name("dead-letters"),
            given_up: name("given-up"),
            control: name("control"),
            presence: name("presence"),
            bridge_lock: name("bridge-lock"),
        }
    }
}
