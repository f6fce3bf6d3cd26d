//! The one task that starts and ends containers. It owns the engine, the
//! names and the directories; the ledger says what is to be done.
//!
//! ```text
//! Start ──▶ directory, socket, create, start, Hello, routes ──▶ started | start_failed
//! Over ───▶ post-mortem (exit code, log) ──▶ invocations end ──▶ dead
//! Destroy ▶ kill and remove, delete the directory ──▶ destroyed
//! every RECONCILE: Podman's list against ours; while refusing: is it back?
//! Stop ───▶ everything of ours goes, by Podman's own list
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::channel;
use async_std::future::timeout;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use sluice_proto::report::{Cause, Failure};

use crate::backoff::Backoff;
use crate::config::{Network, RuntimeConfig};
use crate::runtime::death::{Exit, LOG_TAIL_BYTES_MAX, Verdict, classify, is_from_outside};
use crate::runtime::directory;
use crate::runtime::harness::{Conversation, Greeted, Signals};
use crate::runtime::ledger::{NETWORKS, Number};
use crate::runtime::pool::{Handle, Shared};
use crate::runtime::processors::Processors;
use crate::runtime::reaper::{self, REMOVALS_MAX};
use crate::runtime::sandbox::{Host, Spec};
use crate::runtime::{Error, Owner, Runtime, launch};
use crate::shutdown::{Shutdown, Stage};

/// How long the exit code of a runtime that hung up is waited for.
const EXAMINE_MAX: Duration = Duration::from_secs(5);

/// How often Podman's list is compared with ours. It also notices that Podman is away.
const RECONCILE: Duration = Duration::from_secs(10);

/// Between looks at an engine that is away: it must be used again within 5 s,
/// and a look at a socket where nobody listens costs nothing.
const AWAY: Duration = Duration::from_millis(250);

/// Before one more try where the engine answers and runtimes do not start: each is a container.
const HEAL: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));

/// How long an end waits for creations under way, so that none comes after the sweep.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How long a start waits for the first look at the engine and the sweep.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(10);

/// How long a worker that follows a killed one waits for Podman to remove that
/// one's containers, which have ended, before it starts its own beside that.
const SWEEP_MAX: Duration = Duration::from_secs(1);

const TICK: Duration = Duration::from_millis(100);

/// What the keeper is told.
#[derive(Debug)]
pub(super) enum Event {
    Start(Number, Network),
    Destroy(Number),
    /// A conversation is over: `None` by itself, else we ended it.
    Over(Number, Option<Verdict>),
    Stop,
}

/// What it set going has come to an end.
enum Done {
    Started(Number, Result<(Greeted, Option<i32>), Error>),
    Examined(Number, Exit),
    Destroyed(Number),
    Healed(Result<(Host, Sweep), Error>),
    Listed(Result<Vec<String>, Error>),
    Swept,
}

/// How far the first look's sweep has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    Whole,
    /// Processes, directories and sockets are gone; the records go with the next list.
    Begun,
}

pub(super) struct Keeper<R> {
    runtime: Arc<R>,
    config: RuntimeConfig,
    owner: Owner,
    owner_dir: PathBuf,
    harness_dir: PathBuf,
    shared: Arc<Shared>,
    inbox: channel::Receiver<Event>,
    host: Host,
    processors: Processors,
    held: HashMap<Number, Held>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    removals: VecDeque<Number>,
    removing: usize,
    /// Whether what an earlier process left is gone.
    swept: bool,
    /// Networks whose last start failed: one is tried before others are promised.
    suspects: HashSet<Network>,
    heal_at: Instant,
    heal_attempt: u32,
    healing: bool,
    reconcile_at: Instant,
}

struct Held {
    name: String,
    path: PathBuf,
    run: Arc<std::path::Path>,
    log: PathBuf,
    network: Network,
    conversation: Option<Arc<Conversation>>,
    /// Its end is known and dealt with.
    over: bool,
}

// === impl Keeper ===

impl<R: Runtime> Keeper<R> {
    pub(super) fn new(
        runtime: R,
        config: RuntimeConfig,
        owner: Owner,
        harness_dir: PathBuf,
        shared: Arc<Shared>,
        inbox: channel::Receiver<Event>,
    ) -> Self {
        let now = Instant::now();
        Self {
            runtime: Arc::new(runtime),
            owner_dir: directory::of_owner(&config.mounts_dir, &owner),
            processors: Processors::new(config.cpus, owner.worker),
            config,
            owner,
            harness_dir,
            shared,
            inbox,
            host: Host::default(),
            held: HashMap::new(),
            work: FuturesUnordered::new(),
            removals: VecDeque::new(),
            removing: 0,
            swept: false,
            suspects: HashSet::new(),
            heal_at: now,
            heal_attempt: 0,
            healing: false,
            reconcile_at: now + RECONCILE,
        }
    }

    /// Looks at the engine now, and takes its answer if it comes soon.
    pub(super) async fn heal(&mut self) {
        self.healing = true;
        let look = self.look().boxed();
        self.work.push(look);
        // A pull may take minutes; then the look goes on beside the rest.
        if let Ok(Some(done)) = timeout(FIRST_LOOK_MAX, self.work.next()).await {
            self.done(done).await;
        }
    }

    pub(super) async fn run(mut self, shutdown: Shutdown) {
        let mut tick = Box::pin(async_std::task::sleep(TICK).fuse());
        let inbox = self.inbox.clone();
        loop {
            // Nothing is lost by the select: a channel keeps what is not
            // received, and the work stays in its set.
            let mut next = Box::pin(inbox.recv().fuse());
            let event = futures::select! {
                event = next => Some(event.unwrap_or(Event::Stop)),
                done = self.work.select_next_some() => {
                    self.done(done).await;
                    None
                }
                () = tick => {
                    tick.set(async_std::task::sleep(TICK).fuse());
                    self.tick(&shutdown);
                    None
                }
            };
            match event {
                Some(Event::Stop) => break,
                Some(event) => self.on(event).await,
                None => {}
            }
        }
        self.stop().await;
        self.shared.stopped();
    }

    async fn on(&mut self, event: Event) {
        match event {
            Event::Start(number, network) => self.start(number, network).await,
            Event::Destroy(number) => {
                self.removals.push_back(number);
                self.remove_next();
            }
            Event::Over(number, verdict) => self.over(number, verdict),
            Event::Stop => {}
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Started(number, outcome) => self.started(number, outcome),
            Done::Examined(number, exit) => self.examined(number, &exit),
            Done::Destroyed(number) => {
                self.held.remove(&number);
                self.removing -= 1;
                self.remove_next();
                self.shared.change(|ledger| {
                    ledger.destroyed(number);
                    Vec::new()
                });
            }
            Done::Healed(outcome) => self.healed(outcome),
            Done::Listed(Ok(names)) => self.reconcile(&names),
            Done::Listed(Err(error)) => self.engine_failed(&error),
            Done::Swept => {}
        }
    }

    fn tick(&mut self, shutdown: &Shutdown) {
        let now = Instant::now();
        if shutdown.stage() != Stage::Running {
            self.shared.ledger().drain();
        }
        let (refusing, starting) = {
            let ledger = self.shared.ledger();
            (ledger.refusing().is_some(), ledger.status().starting)
        };
        // One that starts at present will say more than a look.
        if refusing && starting == 0 && !self.healing && now >= self.heal_at {
            self.healing = true;
            let look = self.look().boxed();
            self.work.push(look);
        }
        if !refusing && now >= self.reconcile_at {
            self.reconcile_at = now + RECONCILE;
            let (runtime, owner) = (Arc::clone(&self.runtime), self.owner.clone());
            let work = async move { Done::Listed(runtime.list(&owner).await) };
            self.work.push(work.boxed());
        }
    }

    // --- start

    async fn start(&mut self, number: Number, network: Network) {
        let random = launch::random_name();
        let name = format!(
            "sluice-{}-{}-{random}",
            self.owner.agent_short(),
            self.owner.worker
        );
        let (directory, listener) = match directory::create(&self.owner_dir, &random).await {
            Ok(made) => made,
            Err(error) => return self.start_failed(number, network, &error),
        };
        let harness_dir = self.harness_dir.clone();
        let spec = Spec::new(
            &self.config,
            &self.owner,
            name.clone(),
            network,
            harness_dir,
            &directory,
        );
        let held = Held {
            name,
            path: directory.path.clone(),
            run: directory.run.clone().into(),
            log: directory.log.clone(),
            network,
            conversation: None,
            over: false,
        };
        self.held.insert(number, held);
        let (runtime, host) = (Arc::clone(&self.runtime), self.host.clone());
        let processors = (!host.can("cpu")).then(|| self.processors.next()).flatten();
        let work = async move {
            let launched =
                launch::launch(&*runtime, &spec, &host, &listener, &directory, processors);
            let outcome = launched.await;
            if outcome.is_err() {
                launch::discard(&*runtime, &spec.name, &directory.path).await;
            }
            Done::Started(number, outcome)
        };
        self.work.push(work.boxed());
    }

    fn started(&mut self, number: Number, outcome: Result<(Greeted, Option<i32>), Error>) {
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        let (greeted, pid) = match outcome {
            Ok(started) => started,
            Err(error) => {
                let network = held.network;
                self.held.remove(&number);
                return self.start_failed(number, network, &error);
            }
        };
        self.suspects.remove(&held.network);
        self.heal_attempt = 0;
        tracing::debug!(container = %held.name, node = %greeted.node, "A runtime is ready");
        let conversation = Conversation::start(
            greeted,
            held.name.clone(),
            pid,
            signals(&self.shared, number),
        );
        held.conversation = Some(Arc::clone(&conversation));
        let handle = Handle {
            conversation,
            run_dir: Arc::clone(&held.run),
        };
        self.shared.change(|ledger| {
            ledger.started(number, handle);
            Vec::new()
        });
    }

    fn start_failed(&mut self, number: Number, network: Network, error: &Error) {
        tracing::warn!(%error, "A runtime could not be started");
        let reason = error.to_string();
        self.shared
            .change(|ledger| ledger.start_failed(number, &reason));
        if matches!(error, Error::Away { .. }) {
            // The engine's fault and not the network's: once it is back all is as before.
            return self.engine_failed(error);
        }
        self.suspects.insert(network);
        self.heal_later();
    }

    // --- end

    fn over(&mut self, number: Number, verdict: Option<Verdict>) {
        let Some(held) = self.held.get_mut(&number).filter(|held| !held.over) else {
            return;
        };
        held.over = true;
        if let Some(verdict) = verdict {
            let cause = verdict.failure().message;
            tracing::warn!(container = %held.name, error = %cause, "A runtime is ended");
            return self.shared.change(|ledger| ledger.dead(number));
        }
        let runtime = Arc::clone(&self.runtime);
        let (name, log) = (held.name.clone(), held.log.clone());
        let work = async move {
            // A socket that was closed by a process that lives on has no exit to wait for.
            let exit = timeout(EXAMINE_MAX, runtime.wait(&name)).await;
            let mut exit = exit.ok().and_then(Result::ok).unwrap_or_default();
            exit.log_tail = directory::tail(&log, LOG_TAIL_BYTES_MAX).await;
            Done::Examined(number, exit)
        };
        self.work.push(work.boxed());
        // No new claims from now on; who holds it hears the cause after the post-mortem.
        self.shared.change(|ledger| ledger.retire(number));
    }

    fn examined(&mut self, number: Number, exit: &Exit) {
        let failure = classify(exit, self.config.memory_bytes);
        if let Some(held) = self.held.get(&number)
            && let Some(conversation) = &held.conversation
        {
            tracing::info!(container = %held.name, error = %failure.message, "A runtime died");
            if is_from_outside(exit) {
                conversation.bury_blameless(failure);
            } else {
                conversation.bury(failure);
            }
        }
        self.shared.change(|ledger| ledger.dead(number));
    }

    fn remove_next(&mut self) {
        while self.removing < REMOVALS_MAX {
            let Some(number) = self.removals.pop_front() else {
                return;
            };
            self.removing += 1;
            let gone = self.held.get_mut(&number).map(|held| {
                held.over = true;
                if let Some(conversation) = held.conversation.take() {
                    conversation.bury(ended());
                }
                (held.name.clone(), held.path.clone())
            });
            let runtime = Arc::clone(&self.runtime);
            let work = async move {
                if let Some((name, path)) = gone {
                    launch::discard(&*runtime, &name, &path).await;
                }
                Done::Destroyed(number)
            };
            self.work.push(work.boxed());
        }
    }

    async fn stop(&mut self) {
        self.shared.change(|ledger| {
            ledger.drain();
            let reason = "the worker is ending";
            let refused = NETWORKS.map(|network| ledger.refuse(network, reason));
            refused.into_iter().flatten().collect()
        });
        for held in self.held.values_mut() {
            if let Some(conversation) = held.conversation.take() {
                conversation.bury(ended());
            }
        }
        let work = std::mem::take(&mut self.work);
        let _ = timeout(STOP_MAX, work.for_each(|_| async {})).await;
        let swept = reaper::sweep_all(&*self.runtime, &self.owner, &self.owner_dir);
        match timeout(STOP_MAX, swept).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "Runtimes are left behind; the next worker of this number removes them");
            }
            Err(_) => tracing::error!(
                "Runtimes are left behind, Podman takes too long; the next worker of this number removes them"
            ),
        }
    }
}

fn signals(shared: &Arc<Shared>, number: Number) -> Signals {
    let (for_doubt, for_over) = (Arc::clone(shared), Arc::clone(shared));
    Signals {
        doubt: Box::new(move || for_doubt.change(|ledger| ledger.retire(number))),
        over: Box::new(move |verdict| {
            // Unbounded; closed only after everything has stopped.
            let _ = for_over.events.try_send(Event::Over(number, verdict));
        }),
    }
}

fn ended() -> Failure {
    Failure::new(
        Cause::RuntimeUnavailable,
        "the runtime was ended by its worker",
    )
}

mod health;
