//! What a worker holds of the runtimes.

use std::future::Future;

use sluice_proto::job::Identity;
use sluice_proto::report::{Cause, Failure, Origin};

use crate::config::RuntimeConfig;
use crate::runtime::invocation::{Invocation, Running};
use crate::runtime::{Error, Owner};
use crate::shutdown::{Shutdown, Tasks};

/// The runtimes of one worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Pool {}

/// A claim on a runtime: it stays until the lease and every [`Running`] of it are dropped.
#[derive(Debug)]
pub struct Lease {}

/// How many runtimes there are, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    pub starting: u32,
    pub stems: u32,
    pub loading: u32,
    /// With an identity and nothing to do.
    pub idle: u32,
    /// With an identity and at least one claim on it.
    pub busy: u32,
    pub going: u32,
    /// Identities that wait for a runtime.
    pub waiting: u32,
}

// === impl Pool ===

impl Pool {
    /// Sweeps what an earlier process of `owner` left, then keeps runtimes ready
    /// until [`Pool::shutdown`], which must be called: a task of `tasks` waits for it.
    ///
    /// Podman being away is no error: [`Pool::refusing`] says so until it is back.
    pub async fn start(
        _config: RuntimeConfig,
        _owner: Owner,
        _shutdown: &Shutdown,
        _tasks: &Tasks,
    ) -> Result<Self, Error> {
        Err(Error::Settings("not built yet".into()))
    }

    /// Waits for a runtime of `identity`: a live one, else a stem, else a new
    /// one. `fetch` gives the bundle's text and is polled only if this claim
    /// loads it (never for a flow). Dropping the claim gives its turn to the next.
    pub async fn claim(
        &self,
        _identity: &Identity,
        _fetch: impl Future<Output = Result<Vec<u8>, Failure>> + Send,
    ) -> Result<Lease, Failure> {
        Err(Failure::new(Cause::RuntimeUnavailable, "not built yet"))
    }

    pub fn status(&self) -> Status {
        Status::default()
    }

    /// Why no new runtime can be had at present, if so.
    pub fn refusing(&self) -> Option<String> {
        None
    }

    /// Kills and removes every container and directory of this pool.
    pub async fn shutdown(&self) {}
}

// === impl Lease ===

impl Lease {
    /// The container's name.
    pub fn container(&self) -> &str {
        ""
    }

    pub fn origin(&self) -> Origin {
        Origin::Cold
    }

    /// Starts an invocation. A runtime that died meanwhile gives one that has
    /// ended already, as collateral.
    pub async fn invoke(&self, _invocation: Invocation) -> Result<Running, Failure> {
        Err(Failure::new(Cause::RuntimeUnavailable, "not built yet"))
    }
}

// === impl Status ===

impl Status {
    /// Containers held.
    pub fn total(&self) -> u32 {
        self.starting + self.stems + self.loading + self.idle + self.busy + self.going
    }
}
