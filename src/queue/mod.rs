//! The broker: its topology, confirmed publishes, deliveries, and a look inside.
//!
//! ```text
//!  publish_job ──▶ jobs, jobs.high ──deliver──▶ worker ──publish_report──▶ reports ──▶ bridge
//!                      ▲      │ over the broker's limit
//!        after a while │      ▼
//!  retry() ─────▶ retry    dead-letters ──▶ dead        (to look at)
//!                                       └─▶ given-up    (bridge: reports the job as poison)
//!  bury() ───▶ burials ──▶ dead               dead-letters and burials are written to
//!                      └─▶ dead-log           dead-log too: to read without taking
//! ```
//!
//! Owns everything AMQP; no other module names lapin. A [`Link`] is one
//! generation of connections and never heals itself: after any failure it is
//! dead, [`Link::failed`] says so, and the role makes a new one.
//!
//! Promises: a publish that returned `Ok` is on disk in a queue; a [`Delivery`]
//! is unsettled as long as somebody holds it, and settling consumes it; a
//! message that cannot be read is never handed out, it is buried with its reason.

mod consumer;
mod executor;
pub mod graves;
mod health;
pub mod inspect;
mod link;
mod message;
mod publisher;
mod settling;
mod topology;
pub mod two_hop;
mod unread;

use std::future::Future;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::limit;

pub use consumer::{Deliveries, Delivery};
pub use link::{Depths, Link};
pub use topology::{quorum_queues, retry_wait};
pub use unread::failed;

/// How long one request to the broker may take. A broker under full load
/// answers within a second; one that does not in ten is taken for lost.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What went wrong between this process and the broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the broker's address is not usable: {0}")]
    Address(String),
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    #[error("the broker refuses this user or virtual host: {0}")]
    Denied(String),
    /// A queue or exchange of ours exists with other arguments.
    #[error("`{what}` exists on the broker, declared differently: {reason}")]
    Mismatch { what: String, reason: String },
    #[error("there is no `{0}` on the broker")]
    Missing(String),
    #[error("another bridge of this pool holds the lock on this broker")]
    LockHeld,
    /// The broker said no to this one message; the link lives on.
    #[error("the broker does not take the message: {0}")]
    Refused(String),
    #[error("the message fits no queue: {0}")]
    Unroutable(String),
    /// The message itself cannot be written, whoever tries.
    #[error("{0}")]
    Unwritable(String),
    #[error("the broker did not answer in time to {0}")]
    TimedOut(&'static str),
    #[error("the connection to the broker is lost: {0}")]
    Lost(String),
    /// This side closed the link, or cancelled the consumer.
    #[error("closed")]
    Closed,
}

// === impl Error ===

impl Error {
    /// Whether trying again later, with a new link, can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address(_) | Self::Denied(_) | Self::Mismatch { .. } | Self::Unwritable(_) => {
                false
            }
            Self::Unreachable(_)
            | Self::Missing(_)
            | Self::LockHeld
            | Self::Refused(_)
            | Self::Unroutable(_)
            | Self::TimedOut(_)
            | Self::Lost(_)
            | Self::Closed => true,
        }
    }

    /// Whether the link this came from still works.
    pub fn leaves_link_alive(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Unwritable(_) | Self::LockHeld
        )
    }

    fn soft(error: &lapin::Error) -> Option<AMQPSoftError> {
        match error.kind() {
            ErrorKind::ProtocolError(amqp) => match amqp.kind() {
                AMQPErrorKind::Soft(soft) => Some(soft.clone()),
                AMQPErrorKind::Hard(_) => None,
            },
            _ => None,
        }
    }
}

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        if let ErrorKind::ProtocolError(amqp) = error.kind() {
            let denied = matches!(
                amqp.kind(),
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                    | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
            );
            if denied {
                return Self::Denied(amqp.get_message().to_string());
            }
        }
        Self::Lost(error.to_string())
    }
}

/// Bounds one request to the broker.
async fn within<T>(
    what: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match limit::timeout(ANSWER_MAX, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::TimedOut(what)),
    }
}
