//! Whether a link lives: one flag that only ever falls, and the watchdogs that lower it.
//!
//! ```text
//!  alive ──connection error, silence, ended consumer, close──▶ dead (with the first cause)
//! ```

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_std::channel;
use async_std::task;
use futures::future::{Either, select};
use futures::{FutureExt, StreamExt, select_biased};
use lapin::{Connection, Event};

use crate::queue::{Error, within};
use crate::shutdown;

/// How often a connection's own state is looked at, beside its events.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a connection stays open behind its last acknowledgement. A channel
/// of the broker passes 32 of them on to a quorum queue at a time
/// (`quorum_commands_soft_limit`), keeps others until those are written, and
/// forgets the others if it ends before: their jobs would come again. Nothing
/// in AMQP says that they are through; a write takes some milliseconds.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

pub(super) struct Health {
    cause: OnceLock<Error>,
    // Closing a channel wakes every waiter at once and for ever.
    gone: (channel::Sender<()>, channel::Receiver<()>),
    blocked: Mutex<Option<String>>,
    /// When a delivery was last settled.
    settled: Mutex<Option<Instant>>,
}

// === impl Health ===

impl Health {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            cause: OnceLock::new(),
            gone: channel::bounded(1),
            blocked: Mutex::new(None),
            settled: Mutex::new(None),
        })
    }

    /// The first cause stays; a repeat changes nothing.
    pub(super) fn kill(&self, cause: Error) {
        let _ = self.cause.set(cause);
        self.gone.0.close();
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(cause.clone()),
        }
    }

    pub(super) async fn failed(&self) -> Error {
        let _ = self.gone.1.recv().await;
        self.cause.get().cloned().unwrap_or(Error::Closed)
    }

    /// Bounds one request on a link: by time, and by the link's own end, as
    /// lapin does not answer every request that its connection took along.
    pub(super) async fn within<T>(
        &self,
        what: &'static str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Error> {
        self.check()?;
        let bounded = std::pin::pin!(within(what, request));
        let gone = std::pin::pin!(self.failed());
        // The request first: an answer that is there counts, whatever came after it.
        match select(bounded, gone).await {
            Either::Left((answer, _)) => answer,
            Either::Right((cause, _)) => Err(cause),
        }
    }

    /// Why the broker takes no publishes at present, if so.
    pub(super) fn blocked(&self) -> Option<String> {
        self.blocked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Something was settled just now.
    pub(super) fn note_settled(&self) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long it takes until the broker has surely put down what was settled last.
    pub(super) fn settling(&self) -> Duration {
        let last = *self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Duration::ZERO, |last| {
            SETTLED_AFTER.saturating_sub(last.elapsed())
        })
    }

    fn set_blocked(&self, reason: Option<String>) {
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Watches one connection until it or the link ends. lapin answers missed
    /// heartbeats (10 s) with an error event; the look at its state is for the
    /// case that it ends without one.
    pub(super) fn watch(self: &Arc<Self>, connection: &Connection) {
        let health = self.clone();
        let mut events = Box::pin(connection.events_listener().fuse());
        let status = connection.status().clone();
        shutdown::spawn_detached(async move {
            loop {
                // Nothing is missed: events wait in their stream, and `gone` stays closed.
                let event = select_biased! {
                    event = events.next() => event,
                    _ = health.gone.1.recv().fuse() => return,
                    () = task::sleep(LOOK_EVERY).fuse() => {
                        if status.connected() {
                            continue;
                        }
                        Some(Event::Error(lapin::ErrorKind::MissingHeartbeatError.into()))
                    }
                };
                match event {
                    Some(Event::ConnectionBlocked(reason)) => health.set_blocked(Some(reason)),
                    Some(Event::ConnectionUnblocked) => health.set_blocked(None),
                    // The end of one channel; whoever uses it gets the error, and judges.
                    Some(Event::Error(error)) if error.is_amqp_soft_error() => {}
                    Some(Event::Error(error)) => return health.kill(error.into()),
                    None => return health.kill(Error::Lost("its events ended".into())),
                    Some(_) => {}
                }
            }
        });
    }
}
