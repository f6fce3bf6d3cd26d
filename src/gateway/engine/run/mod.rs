//! The engine at work: what the pure rules decide is stored, and jobs follow.
//!
//! ```text
//!  API, SDK calls, ended jobs, due times
//!        │
//!        ▼
//!  Step: one transaction ── reads rows ─▶ pure rules ─▶ rows, jobs ── commit ─▶ line, open requests
//! ```
//!
//! Owns the steps. A job with a [`Purpose`] belongs to the step that made it,
//! and its end is taken in by one more step, which marks it as settled in the
//! same transaction: whenever the gateway dies, what was committed is whole, and
//! the next start goes on with the ends that are not settled and the times that
//! are due. Nothing is remembered in memory alone but open HTTP requests, whose
//! connections die with the process.

mod calls;
mod canvas;
mod cores;
mod deliveries;
mod emitting;
mod endpoints;
mod flows;
mod inputs;
mod installations;
mod lives;
mod purpose;
mod redact;
mod requests;
mod schedules;
mod scopes;
mod secrets;
mod sensitive;
mod settling;
mod signals;
mod step;
mod suggesting;
mod telling;
mod timers;
mod versions;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_std::channel;
use futures::future::BoxFuture;

use crate::gateway::addresses::Addresses;
use crate::gateway::directory::Directory;
use crate::gateway::engine::run::canvas::Canvas;
use crate::gateway::engine::run::endpoints::OpenRequests;
use crate::gateway::engine::schema;
use crate::gateway::error::ApiError;
use crate::gateway::line::Line;
use crate::gateway::sealing::Sealing;
use crate::store::engine::steps::Ended;
use crate::store::{self, Store, Then};
use crate::telemetry::now_ms;

pub use crate::gateway::engine::run::calls::Call;
pub use crate::gateway::engine::run::flows::{Applied, Mapping};
pub use crate::gateway::engine::run::installations::{ConfigChange, Install};
pub use crate::gateway::engine::run::purpose::Purpose;
pub use crate::gateway::engine::run::requests::BUNDLE as REQUEST_BUNDLE;
pub use crate::gateway::engine::run::secrets::{SECRET_BYTES_MAX, Writing};
pub use crate::gateway::engine::run::sensitive::MASK;
use crate::gateway::engine::run::step::Step;
pub use crate::gateway::engine::run::suggesting::Ask;
pub use crate::gateway::engine::run::versions::VersionChange;

/// Graphs of flows kept in memory; one of 5,000 blocks has some MiB.
const CANVASES_HELD: usize = 1_000;
/// Schemas of apps kept in memory.
const SCHEMAS_HELD: usize = 500;

/// The engine, shared by everything in the gateway.
pub struct Engine {
    store: Store,
    sealing: Sealing,
    line: Arc<Line>,
    directory: Arc<Directory>,
    open: OpenRequests,
    /// Tells the clock that something is due earlier than it thinks.
    wake: (channel::Sender<()>, channel::Receiver<()>),
    /// Of the code that makes requests for HTTP request blocks.
    request_digest: String,
    /// Ends of jobs that are to be taken in.
    ended: channel::Receiver<Ended>,
    /// Where the endpoints of apps and flows are.
    addresses: Addresses,
    // Both hold what can be read again; locked for a look-up, never across an await.
    canvases: Mutex<HashMap<String, Arc<Canvas>>>,
    schemas: Mutex<HashMap<String, Arc<schema::App>>>,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It does not fit; one sentence.
    #[error("{0}")]
    Bad(String),
    #[error("{0} not found")]
    Missing(String),
    /// It fits, but not now.
    #[error("{0}")]
    Conflict(String),
    /// An app installation has not said yet what is in it; it may any moment.
    #[error("{0}")]
    Undescribed(String),
    #[error(transparent)]
    Store(#[from] store::Error),
}

// === impl Fault ===

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Bad(sentence) => Self::bad(sentence),
            Fault::Missing(what) => Self::not_found(what),
            Fault::Conflict(sentence) | Fault::Undescribed(sentence) => Self::conflict(sentence),
            Fault::Store(error) => error.into(),
        }
    }
}

// === impl Engine ===

impl Engine {
    pub fn new(
        store: Store,
        sealing: Sealing,
        line: Arc<Line>,
        directory: Arc<Directory>,
        ended: channel::Receiver<Ended>,
        addresses: Addresses,
        request_digest: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            sealing,
            line,
            directory,
            open: OpenRequests::default(),
            wake: channel::bounded(1),
            request_digest,
            ended,
            addresses,
            canvases: Mutex::default(),
            schemas: Mutex::default(),
        })
    }

    /// Takes the ends of jobs in, those of before the start first, until it is stopped.
    pub async fn settle(self: Arc<Self>) {
        settling::run(&self).await;
    }

    /// Takes nothing in any more; the next start goes on from the store.
    pub fn stop(&self) {
        self.ended.close();
        self.wake.0.close();
    }

    /// One step: a transaction with its own fate. What follows from it (jobs,
    /// answers) leaves after the commit.
    async fn step<T, F>(self: &Arc<Self>, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: for<'s, 'c> FnOnce(&'s mut Step<'c>) -> BoxFuture<'s, Result<T, Fault>> + Send + 'static,
    {
        let engine = self.clone();
        self.store
            .transact(move |tx| {
                Box::pin(async move {
                    let mut step = Step::new(tx, engine.clone(), now_ms());
                    let value = work(&mut step).await?;
                    step.finish().await?;
                    let after = step.after();
                    let then: Then = Box::new(move || engine.follow(after));
                    Ok((value, then))
                })
            })
            .await
    }

    /// What a committed step leads to.
    fn follow(&self, after: step::After) {
        if !after.jobs.is_empty() {
            self.line.adopt(after.jobs);
        }
        for (request, response) in after.replies {
            self.open.answer(&request, response);
        }
        if after.wakes_clock {
            // A wish that is there already is as good as two.
            let _ = self.wake.0.try_send(());
        }
    }

    fn held_canvas(&self, flow: &str) -> Option<Arc<Canvas>> {
        let held = self.canvases.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(flow).cloned()
    }

    fn hold_canvas(&self, canvas: Arc<Canvas>) {
        let mut held = self.canvases.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= CANVASES_HELD {
            held.clear();
        }
        held.insert(canvas.id.clone(), canvas);
    }

    fn held_schema(&self, digest: &str) -> Option<Arc<schema::App>> {
        let held = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(digest).cloned()
    }

    fn hold_schema(&self, digest: &str, schema: Arc<schema::App>) {
        let mut held = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= SCHEMAS_HELD {
            held.clear();
        }
        held.insert(digest.to_owned(), schema);
    }
}
