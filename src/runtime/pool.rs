//! What a worker holds of the runtimes: claim one, invoke in it.
//!
//! The warm path is two short locks and no task: the ledger gives the
//! conversation out, the conversation takes the frame. A claim that must wait
//! has a channel of its own, and a guard that gives its place back however it ends.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_std::channel;

use sluice_proto::job::Identity;
use sluice_proto::report::{Failure, Origin};

use crate::config::RuntimeConfig;
use crate::runtime::clock;
use crate::runtime::harness::Conversation;
use crate::runtime::invocation::{Invocation, Mailbox, Running};
use crate::runtime::keeper::{Event, Keeper};
use crate::runtime::ledger::{Claim, Ledger, Limits, Number, Step, Ticket};
use crate::runtime::podman::Podman;
use crate::runtime::pool::turn::{Loading, Place, Turn};
use crate::runtime::{Error, Owner, Runtime, directory, node};
use crate::shutdown::{Shutdown, Tasks};

/// The runtimes of one worker. Clones share them.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// A claim on a runtime: it holds until the lease and every [`Running`] of it are dropped.
#[derive(Debug)]
pub struct Lease {
    conversation: Arc<Conversation>,
    origin: Origin,
    hold: Arc<Hold>,
}

/// How many runtimes there are, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    pub starting: u32,
    pub stems: u32,
    pub loading: u32,
    /// With an identity and nothing to do.
    pub idle: u32,
    /// The same for a while, and stopped for it.
    pub paused: u32,
    /// With an identity and at least one claim on it.
    pub busy: u32,
    pub going: u32,
    /// Identities that wait for a runtime.
    pub waiting: u32,
}

/// What one runtime uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub container: String,
    /// Its own memory, without what it shares with others.
    pub memory_bytes: u64,
    /// CPU time used so far, in microseconds.
    pub cpu_us: u64,
}

/// A conversation with where its bundle goes.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) conversation: Arc<Conversation>,
    pub(super) run_dir: Arc<std::path::Path>,
}

/// What pool, keeper and leases share. The locks are never held across an
/// await; `waiting` may be taken inside `ledger`, never the other way round.
pub(super) struct Shared {
    ledger: Mutex<Ledger<Handle>>,
    waiting: Mutex<HashMap<Ticket, channel::Sender<Turn>>>,
    pub(super) events: channel::Sender<Event>,
    stopped: (channel::Sender<()>, channel::Receiver<()>),
}

/// One use of a runtime.
pub(super) struct Hold {
    shared: Arc<Shared>,
    number: Number,
}

enum Claimed<'a> {
    Lease(Lease),
    Paused(Lease),
    Refused(Failure),
    Lead(Place<'a>),
    Follow(Place<'a>),
}

// === impl Pool ===

impl Pool {
    /// Sweeps what an earlier process of `owner` left, then keeps runtimes ready
    /// until [`Pool::shutdown`], which must be called: two of `tasks` wait for it.
    ///
    /// Podman being away is no error: [`Pool::refusing`] says so until it is back.
    pub async fn start(
        config: RuntimeConfig,
        owner: Owner,
        shutdown: &Shutdown,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let runtime = Podman::new(&config)?;
        Self::start_with(runtime, config, owner, shutdown, tasks).await
    }

    /// The same on an engine of the caller's.
    pub async fn start_with<R: Runtime>(
        runtime: R,
        config: RuntimeConfig,
        owner: Owner,
        shutdown: &Shutdown,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let roots = &config.egress.additional_root_cas;
        let harness_dir =
            directory::write_harness(&config.mounts_dir, node::files(), roots).await?;
        let watch = clock::Watch {
            memory_bytes_max: config.memory_bytes,
            sandbox: config.sandbox,
            pause: config.pause,
        };
        let (events, inbox) = channel::unbounded();
        let ledger = Ledger::new(
            Limits::of(&config),
            "Podman has not answered yet".to_owned(),
        );
        let shared = Arc::new(Shared {
            ledger: Mutex::new(ledger),
            waiting: Mutex::default(),
            events,
            stopped: channel::bounded(1),
        });
        let mut keeper = Keeper::new(
            runtime,
            config,
            owner,
            harness_dir,
            Arc::clone(&shared),
            inbox,
        );
        // Before the first claim: nothing of an earlier life may be left or in the way.
        keeper.heal().await;
        tasks.spawn("runtime keeper", keeper.run(shutdown.clone()));
        tasks.spawn("runtime clock", clock::clock(Arc::clone(&shared), watch));
        Ok(Self { shared })
    }

    /// Waits for a runtime of `identity`: a live one, else a stem, else a new
    /// one. `fetch` gives the bundle's text and is polled only if this claim
    /// loads it (never for a flow). Dropping the claim gives its turn to the next.
    pub async fn claim(
        &self,
        identity: &Identity,
        fetch: impl Future<Output = Result<Vec<u8>, Failure>> + Send,
    ) -> Result<Lease, Failure> {
        let claimed = loop {
            match self.shared.claim(identity) {
                // One that does not wake is retired, and the next claim gets another.
                Claimed::Paused(lease) if !Box::pin(lease.conversation.wake()).await => {
                    tracing::info!(
                        container = lease.container(),
                        "A paused runtime does not wake"
                    );
                    lease.conversation.retire();
                }
                claimed => break claimed,
            }
        };
        match claimed {
            Claimed::Lease(lease) | Claimed::Paused(lease) => Ok(lease),
            Claimed::Refused(failure) => Err(failure),
            Claimed::Lead(place) => {
                // Planned only now that the turn can be taken.
                self.shared.change(|_| Vec::new());
                // Boxed, as is the next: large, and a warm claim needs neither.
                Box::pin(place.lead(fetch)).await
            }
            Claimed::Follow(place) => Box::pin(place.follow(fetch)).await,
        }
    }

    pub fn status(&self) -> Status {
        self.shared.ledger().status()
    }

    /// What each runtime uses that has something to do now. One whose process
    /// this one cannot see is left out.
    pub fn uses(&self) -> Vec<Use> {
        let talking = self.shared.ledger().talking();
        talking
            .iter()
            .filter_map(|handle| clock::usage(&handle.conversation))
            .collect()
    }

    /// Why no new runtime can be had at present, if so.
    pub fn refusing(&self) -> Option<String> {
        self.shared.ledger().refusing().map(str::to_owned)
    }

    /// Kills and removes every container and directory of this pool. A repeat
    /// waits for the same end.
    pub async fn shutdown(&self) {
        let _ = self.shared.events.send(Event::Stop).await;
        // Closed by the keeper when it is through.
        let _ = self.shared.stopped.1.recv().await;
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({:?})", self.status())
    }
}

// === impl Lease ===

impl Lease {
    /// The container's name.
    pub fn container(&self) -> &str {
        self.conversation.container()
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Starts an invocation. A runtime that died meanwhile gives one that has
    /// ended already, as collateral.
    pub async fn invoke(&self, invocation: Invocation) -> Result<Running, Failure> {
        let mailbox = Arc::new(Mailbox::default());
        let number = self.conversation.invoke(invocation, &mailbox).await?;
        let conversation = Arc::clone(&self.conversation);
        let hold = Arc::clone(&self.hold);
        Ok(Running::new(mailbox, conversation, number, hold))
    }
}

// === impl Status ===

impl Status {
    /// Containers held.
    pub fn total(&self) -> u32 {
        self.starting + self.stems + self.loading + self.idle + self.paused + self.busy + self.going
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger<Handle>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the ledger, plans anew and does what follows from both.
    pub(super) fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Ledger<Handle>) -> Vec<Step<Handle>>,
    ) {
        let steps = {
            let mut ledger = self.ledger();
            let mut steps = change(&mut ledger);
            steps.extend(ledger.plan(Instant::now()));
            steps
        };
        // Outside the lock: dropping a turn that nobody takes changes the ledger again.
        for step in steps {
            self.perform(step);
        }
    }

    pub(super) fn stopped(&self) {
        self.stopped.0.close();
    }

    pub(super) fn stop_receiver(&self) -> channel::Receiver<()> {
        self.stopped.1.clone()
    }

    fn perform(self: &Arc<Self>, step: Step<Handle>) {
        match step {
            Step::Start(number, network) => self.tell_keeper(Event::Start(number, network)),
            Step::Destroy(number) => self.tell_keeper(Event::Destroy(number)),
            Step::Lead(ticket) => self.give(ticket, Turn::Lead),
            Step::Assign(ticket, number, handle, origin) => {
                let loading = Loading {
                    shared: Arc::clone(self),
                    number,
                    handle,
                    touched: false,
                    done: false,
                };
                self.give(ticket, Turn::Assign(loading, origin));
            }
            Step::Share(ticket, number, handle, origin) => {
                let lease = self.lease(number, handle, origin);
                self.give(ticket, Turn::Share(lease));
            }
            Step::Fail(ticket, failure) => self.give(ticket, Turn::Fail(failure)),
        }
    }

    fn tell_keeper(&self, event: Event) {
        // Unbounded, but each runtime gives a handful of events; closed only when all is over.
        let _ = self.events.try_send(event);
    }

    fn give(&self, ticket: Ticket, turn: Turn) {
        let sender = self.waiting().get(&ticket).cloned();
        // A claim that is gone drops the turn, and the turn gives back what it holds.
        if let Some(sender) = sender {
            let _ = sender.try_send(turn);
        }
    }

    fn claim<'a>(self: &'a Arc<Self>, identity: &'a Identity) -> Claimed<'a> {
        let place = |ticket| {
            // At most Lead, Assign and one end.
            let (sender, turns) = channel::bounded(4);
            self.waiting().insert(ticket, sender);
            Place {
                shared: self,
                identity,
                ticket,
                turns,
            }
        };
        // The place is made under the ledger's lock, or its turn could come before it is there.
        let mut ledger = self.ledger();
        match ledger.claim(identity, Instant::now()) {
            Claim::Warm(number, handle) => Claimed::Lease(self.lease(number, handle, Origin::Warm)),
            Claim::Paused(number, handle) => {
                Claimed::Paused(self.lease(number, handle, Origin::Warm))
            }
            Claim::Refused(failure) => Claimed::Refused(failure),
            Claim::Lead(ticket) => Claimed::Lead(place(ticket)),
            Claim::Follow(ticket) => Claimed::Follow(place(ticket)),
        }
    }

    fn lease(self: &Arc<Self>, number: Number, handle: Handle, origin: Origin) -> Lease {
        Lease {
            conversation: handle.conversation,
            origin,
            hold: Arc::new(Hold {
                shared: Arc::clone(self),
                number,
            }),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Ticket, channel::Sender<Turn>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Hold ===

impl Drop for Hold {
    fn drop(&mut self) {
        let number = self.number;
        self.shared
            .change(|ledger| ledger.released(number, Instant::now()));
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hold({})", self.number)
    }
}

mod turn;

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
