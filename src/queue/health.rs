//! Whether a link lives: one flag that only ever falls, and the watchdogs that lower it.
//!
//! ```text
//!  alive ──connection error, silence, ended consumer, close──▶ dead (with the first cause)
//! ```

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_std::channel;
use async_std::task;
use futures::{FutureExt, StreamExt, select_biased};
use lapin::{Connection, Event};

use crate::queue::Error;
use crate::shutdown;

/// How often a connection's own state is looked at, beside its events.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Health {
    cause: OnceLock<Error>,
    // Closing a channel wakes every waiter at once and for ever.
    gone: (channel::Sender<()>, channel::Receiver<()>),
    blocked: Mutex<Option<String>>,
}

// === impl Health ===

impl Health {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            cause: OnceLock::new(),
            gone: channel::bounded(1),
            blocked: Mutex::new(None),
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

    /// Why the broker takes no publishes at present, if so.
    pub(super) fn blocked(&self) -> Option<String> {
        self.blocked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
                    Some(Event::Error(error)) => return health.kill(error.into()),
                    None => return health.kill(Error::Lost("its events ended".into())),
                    Some(_) => {}
                }
            }
        });
    }
}
