//! A claim that waits: what it hears, and what it gives back however it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::channel;
use async_std::future::timeout;
use futures::FutureExt;

use sluice_proto::harness::RUN_DIR;
use sluice_proto::job::Identity;
use sluice_proto::report::{Cause, Failure, Origin};

use crate::runtime::directory::{self, BUNDLE_NAME};
use crate::runtime::ledger::{Number, Ticket};
use crate::runtime::pool::{Handle, Lease, Shared};

/// How long a bundle may take to load. What it does at its top level is user
/// code and may never end.
const LOAD_MAX: Duration = Duration::from_secs(15);

/// What a waiting claim hears.
pub(super) enum Turn {
    Lead,
    Assign(Loading, Origin),
    Share(Lease),
    Fail(Failure),
}

/// A runtime given to a leader. Dropped, it goes back: as the stem it is, or,
/// once it was told to load, to be destroyed.
pub(super) struct Loading {
    pub(super) shared: Arc<Shared>,
    pub(super) number: Number,
    pub(super) handle: Handle,
    pub(super) touched: bool,
    pub(super) done: bool,
}

/// A place among the waiting claims.
pub(super) struct Place<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) identity: &'a Identity,
    pub(super) ticket: Ticket,
    pub(super) turns: channel::Receiver<Turn>,
}

// === impl Place ===

impl Place<'_> {
    pub(super) async fn follow(
        self,
        fetch: impl Future<Output = Result<Vec<u8>, Failure>> + Send,
    ) -> Result<Lease, Failure> {
        match self.turn().await? {
            Turn::Lead => self.lead(fetch).await,
            Turn::Share(lease) => Ok(lease),
            Turn::Fail(failure) => Err(failure),
            Turn::Assign(loading, origin) => self.load(loading, origin, fetch).await,
        }
    }

    /// Fetches while a runtime is found or started.
    pub(super) async fn lead(
        self,
        fetch: impl Future<Output = Result<Vec<u8>, Failure>> + Send,
    ) -> Result<Lease, Failure> {
        if self.identity.bundle().is_none() {
            let (loading, origin) = self.assignment().await?;
            return loading.load(None, origin).await;
        }
        let fetched = fetch.fuse();
        let assigned = self.assignment().fuse();
        futures::pin_mut!(fetched, assigned);
        // Whichever comes first is kept; a failure of either drops the other,
        // whose guard gives back what it has.
        let (bundle, (loading, origin)) = futures::try_join!(fetched, assigned)?;
        loading.load(Some(bundle), origin).await
    }

    async fn load(
        self,
        loading: Loading,
        origin: Origin,
        fetch: impl Future<Output = Result<Vec<u8>, Failure>> + Send,
    ) -> Result<Lease, Failure> {
        let bundle = match self.identity.bundle() {
            Some(_) => Some(fetch.await?),
            None => None,
        };
        loading.load(bundle, origin).await
    }

    async fn assignment(&self) -> Result<(Loading, Origin), Failure> {
        loop {
            match self.turn().await? {
                Turn::Assign(loading, origin) => return Ok((loading, origin)),
                Turn::Fail(failure) => return Err(failure),
                Turn::Lead | Turn::Share(_) => {}
            }
        }
    }

    async fn turn(&self) -> Result<Turn, Failure> {
        self.turns
            .recv()
            .await
            .map_err(|_| Failure::new(Cause::RuntimeUnavailable, "the worker is ending"))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.ticket);
        self.turns.close();
        // What came and was not taken gives itself back first.
        while let Ok(turn) = self.turns.try_recv() {
            drop(turn);
        }
        let (identity, ticket) = (self.identity, self.ticket);
        self.shared
            .change(|ledger| ledger.withdraw(identity, ticket));
    }
}

// === impl Loading ===

impl Loading {
    async fn load(mut self, bundle: Option<Vec<u8>>, origin: Origin) -> Result<Lease, Failure> {
        // From here on somebody's code may be in its directory, even if this is dropped.
        self.touched = true;
        let path = match bundle {
            Some(bundle) => {
                directory::write_bundle(&self.handle.run_dir, bundle)
                    .await
                    .map_err(|error| Failure::new(Cause::RuntimeUnavailable, error.to_string()))?;
                Some(format!("{RUN_DIR}/{BUNDLE_NAME}"))
            }
            None => None,
        };
        let begun = Instant::now();
        let loaded = timeout(LOAD_MAX, self.handle.conversation.load(path)).await;
        let outcome = loaded.unwrap_or_else(|_| {
            Err(Failure::new(
                Cause::Timeout,
                format!("the bundle did not load within {} s", LOAD_MAX.as_secs()),
            ))
        });
        self.done = true;
        let number = self.number;
        match outcome {
            Ok(()) => {
                let load_us = begun.elapsed().as_micros() as u64;
                tracing::debug!(
                    container = self.handle.conversation.container(),
                    load_us,
                    "A runtime has its identity"
                );
                let lease = self.shared.lease(number, self.handle.clone(), origin);
                self.shared
                    .change(|ledger| ledger.loaded(number, Instant::now()));
                Ok(lease)
            }
            Err(failure) => {
                self.shared
                    .change(|ledger| ledger.load_failed(number, &failure));
                Err(failure)
            }
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (number, touched) = (self.number, self.touched);
        self.shared.change(|ledger| {
            if touched {
                ledger.load_abandoned(number)
            } else {
                ledger.load_untouched(number)
            }
        });
    }
}
