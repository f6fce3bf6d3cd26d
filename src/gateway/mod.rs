//! The gateway: the control plane's API, and the agents' sessions.
//!
//! ```text
//!              ┌── http ── api, agent_api ──┐
//!  people  ────┘                            ├── line ── store
//!  agents  ────── session ──────────────────┘
//! ```
//!
//! `build` opens the store and binds, `serve` starts the tasks, `drain` ends
//! them: no more connections, requests in flight finish, sessions get a
//! goodbye, the store commits what waits. A second signal cancels that too:
//! nothing is lost, as whatever was not answered is not promised.
//!
//! Owns custody of a job from its creation to the agent's acceptance, and the
//! truth about it for ever. All of it can be rebuilt from the store.

mod addresses;
pub mod agent_api;
mod api;
mod auth;
pub mod bundles;
mod clients;
mod directory;
mod disk;
pub mod dispatch;
pub mod engine;
mod error;
mod http;
mod json;
pub mod lifecycle;
mod line;
mod oauth;
mod pool_api;
mod registries;
mod scopes;
mod sealing;
mod secrets;
mod semver;
mod session;

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_std::channel;
use async_std::future::timeout;
use futures::future::{Either, select};
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;

use crate::config::GatewayConfig;
use crate::gateway::addresses::Addresses;
use crate::gateway::bundles::Bundles;
use crate::gateway::directory::{Directory, Grant};
use crate::gateway::disk::Disk;
use crate::gateway::engine::run::{Engine, REQUEST_BUNDLE};
use crate::gateway::http::Server;
use crate::gateway::line::{Limits, Line};
use crate::gateway::registries::Registries;
use crate::gateway::sealing::Sealing;
use crate::gateway::secrets::JobTokens;
use crate::shutdown::{Shutdown, Stage, Tasks, unblock};
use crate::store::apps::Version;
use crate::store::{self, Store, Writer, retention};
use crate::telemetry::{now_ms, now_us};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often what is too old is looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How often it is looked which registries are to be asked.
const FOLLOW: Duration = Duration::from_secs(15);
/// How long sessions may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// Versions kept in memory, so that a job does not cost a read.
const VERSIONS_HELD: usize = 1_000;
/// What is kept of finished jobs: a week, 200,000 jobs, and as many of these as fit 8 GiB.
const RETENTION: retention::Limits = retention::Limits {
    age_us: 7 * 24 * 3_600 * 1_000_000,
    jobs_max: 200_000,
    bytes_max: 8 * 1024 * 1024 * 1024,
};

/// How long events are kept, in milliseconds: 30 days. Chains that sleep longer
/// go on without the outputs of their first blocks.
const EVENTS_KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Events removed in one change, so that live jobs never wait long behind it.
const EVENTS_SWEPT_AT_ONCE: u32 = 200;

/// Everything a handler or a session may touch.
pub struct Gateway {
    pub(crate) store: Store,
    directory: Arc<Directory>,
    engine: Arc<Engine>,
    /// Held by each stream of events, to count them.
    followers: Arc<()>,
    line: Arc<Line>,
    bundles: Bundles,
    disk: Arc<Disk>,
    registries: Registries,
    tokens: JobTokens,
    /// Codes of logins that are under way.
    codes: oauth::Codes,
    /// Where clients find this gateway and its endpoints.
    addresses: Addresses,
    shutdown: Shutdown,
    // Published versions never change, so an entry is never wrong.
    versions: Mutex<HashMap<String, Version>>,
}

/// Bound, and nothing running yet.
struct Built {
    gateway: Arc<Gateway>,
    http: std::net::TcpListener,
    agents: std::net::TcpListener,
    dir: PathBuf,
    // Held for as long as the process lives: two gateways on one store would each
    // hand out the other's jobs.
    _lock: Flock<std::fs::File>,
}

/// Runs a gateway until `shutdown` says otherwise; answers with the exit code.
pub async fn run(config: GatewayConfig, shutdown: Shutdown) -> i32 {
    let drain = config.drain;
    match serve(config, shutdown, drain).await {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "The gateway ends");
            1
        }
    }
}

async fn serve(config: GatewayConfig, shutdown: Shutdown, grace: Duration) -> anyhow::Result<()> {
    let tasks = Tasks::new("gateway", shutdown.clone());
    let built = build(&config, shutdown.clone(), &tasks).await?;
    let Built {
        gateway,
        http,
        agents,
        dir,
        _lock,
    } = built;
    let addresses = json!({
        "http": format!("http://{}", http.local_addr()?),
        "agents": format!("ws://{}", agents.local_addr()?),
    });
    let server = http::serve(gateway.clone(), http);
    let (open, ended) = channel::bounded(1);
    tasks.spawn(
        "accept",
        session::accept(gateway.clone(), agents.into(), open),
    );
    tasks.spawn("tick", tick(gateway.clone()));
    tasks.spawn("sweep", sweep(gateway.clone()));
    tasks.spawn("registries", follow(gateway.clone()));
    let listen = dir.join("listen.json");
    secrets::write_private(&listen, &addresses.to_string())?;
    tracing::info!(http = %addresses["http"], agents = %addresses["agents"], "The gateway listens");

    shutdown.draining().await;
    // An address that nobody answers at misleads; whoever looks for it later must find none.
    drop(std::fs::remove_file(&listen));
    let work = drain(&gateway, server, &tasks, grace, ended);
    // A drain that is dropped half-way leaves what the store has not committed unpromised.
    match select(Box::pin(work), Box::pin(shutdown.cancelling())).await {
        Either::Left(_) => tracing::info!("The gateway has drained"),
        Either::Right(_) => tracing::info!("The gateway was cancelled while it drained"),
    }
    Ok(())
}

/// Opens the store, reads what is needed of it, and binds both listeners.
async fn build(config: &GatewayConfig, shutdown: Shutdown, tasks: &Tasks) -> anyhow::Result<Built> {
    let dir = config.data_dir.join("gateway");
    private_dir(&dir)?;
    let lock = lock(&dir)?;
    drop(std::fs::remove_file(dir.join("listen.json")));
    let (store, mut writer) = Store::open(&dir.join("sluice.db"))
        .await
        .context("open the store")?;
    let sealing = seal_secrets(&dir, &mut writer).await?;
    tasks.spawn("store", writer.run());
    let directory = Arc::new(Directory::load(&store).await?);
    first_admin_key(&directory, &dir.join("admin.key")).await?;
    let tokens = JobTokens::load(&dir.join("secret"))?;
    // Unbounded: an end must never wait for the engine, and jobs on the line bound it.
    let (steps, ended) = channel::unbounded();
    let line = Line::rebuild(&store, tokens.clone(), Limits::default(), steps).await?;
    let bundles = Bundles::open(&dir.join("bundles"))?;
    let disk = Arc::new(Disk::new(&dir, config.disk_free_bytes_min));
    disk.look().await;
    let http = bind(&config.listen, "SLUICE_GATEWAY_LISTEN").await?;
    let agents = bind(&config.agent_listen, "SLUICE_GATEWAY_AGENT_LISTEN").await?;
    tracing::info!(organization = directory.organization(), store = %dir.display(), "The gateway's store is open");
    let request_digest = bundles.put(REQUEST_BUNDLE.as_bytes().to_vec()).await?;
    let base_url = match &config.public_url {
        Some(url) => url.clone(),
        None => format!("http://{}", http.local_addr()?),
    };
    let addresses = Addresses::new(base_url, config.endpoint_domain.as_deref());
    let engine = Engine::new(
        store.clone(),
        sealing,
        line.clone(),
        directory.clone(),
        ended,
        addresses.clone(),
        request_digest,
    );
    tasks.spawn("engine", engine.clone().settle());
    tasks.spawn("clock", engine.clone().keep_time());
    let registries = Registries::new(
        store.clone(),
        bundles.clone(),
        disk.clone(),
        config.egress.clone(),
        config.registry_poll,
    );
    let gateway = Arc::new(Gateway {
        store,
        directory,
        engine,
        followers: Arc::default(),
        line,
        bundles,
        disk,
        registries,
        tokens,
        codes: oauth::Codes::default(),
        addresses,
        shutdown,
        versions: Mutex::default(),
    });
    Ok(Built {
        gateway,
        http,
        agents,
        dir,
        _lock: lock,
    })
}

/// Reads the keys of the secrets and sees to it that the first one seals them all.
async fn seal_secrets(dir: &Path, writer: &mut Writer) -> anyhow::Result<Sealing> {
    let sealing = Sealing::load(&dir.join("secrets.key"))?;
    let sealed = writer
        .renew_secrets(|project, key, kept| sealing.renew(project, key, kept))
        .await
        .context("open the secrets")?;
    if sealed > 0 {
        tracing::info!(sealed, "Secrets were sealed with the first of their keys");
    }
    Ok(sealing)
}

async fn drain(
    gateway: &Arc<Gateway>,
    server: Server,
    tasks: &Tasks,
    grace: Duration,
    ended: channel::Receiver<()>,
) {
    if !server.drain(grace).await {
        tracing::warn!("Some requests were still in flight at the end of the grace");
    }
    gateway.line.close_all("the gateway is stopping");
    // Nothing is ever sent: the channel closes with the last session.
    if timeout(GOODBYE_MAX, ended.recv()).await.is_err() {
        tracing::warn!("Some sessions did not say goodbye in time");
    }
    gateway.engine.stop();
    gateway.store.close();
    tasks.join().await;
}

async fn tick(gateway: Arc<Gateway>) {
    while pause(&gateway, TICK).await {
        gateway.line.tick();
        gateway.disk.look().await;
    }
}

async fn sweep(gateway: Arc<Gateway>) {
    while pause(&gateway, SWEEP).await {
        if let Err(error) = sweep_once(&gateway).await {
            tracing::warn!(%error, "What is kept long enough could not be removed");
        }
    }
}

/// Asks registries by their clocks; what is under way when the gateway drains is dropped.
async fn follow(gateway: Arc<Gateway>) {
    while pause(&gateway, FOLLOW).await {
        let asked = Box::pin(gateway.registries.refresh_due());
        drop(select(asked, Box::pin(gateway.shutdown.draining())).await);
    }
}

async fn sweep_once(gateway: &Gateway) -> Result<(), store::Error> {
    let mut jobs = 0;
    // A round is bounded, so that it does not hold the writer; a busy gateway needs several.
    while let round @ 1.. = gateway.store.sweep_jobs(RETENTION, now_us()).await? {
        jobs += round;
        if gateway.is_draining() {
            break;
        }
    }
    if jobs > 0 {
        tracing::info!(jobs, "Removed finished jobs that were kept long enough");
    }
    gateway.store.sweep_kv(now_ms()).await?;
    gateway.store.sweep_logins(now_ms()).await?;
    let before_ms = i64::try_from(now_ms().saturating_sub(EVENTS_KEPT_MS)).unwrap_or(0);
    while gateway
        .store
        .sweep_events(before_ms, EVENTS_SWEPT_AT_ONCE)
        .await?
        > 0
    {
        if gateway.is_draining() {
            break;
        }
    }
    Ok(())
}

/// Waits; false once the gateway drains.
async fn pause(gateway: &Gateway, how_long: Duration) -> bool {
    timeout(how_long, gateway.shutdown.draining())
        .await
        .is_err()
}

/// Makes a directory that only its owner can enter; one that exists becomes so.
fn private_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make {}", dir.display()))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("close {} to others", dir.display()))
}

fn lock(dir: &Path) -> anyhow::Result<Flock<std::fs::File>> {
    let file = std::fs::File::create(dir.join("lock")).context("make the lock file")?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| format!("another gateway uses {}", dir.display()))
}

async fn bind(address: &str, setting: &str) -> anyhow::Result<std::net::TcpListener> {
    let bound = address.to_owned();
    // A name may have to be looked up, which blocks.
    unblock(move || std::net::TcpListener::bind(bound))
        .await
        .with_context(|| format!("{setting}: listen on {address}"))
}

/// The key everything begins with: made when there is none, and never shown but in its file.
async fn first_admin_key(directory: &Directory, path: &Path) -> anyhow::Result<()> {
    if !directory.keys().is_empty() {
        return Ok(());
    }
    // The file comes first: a key that nobody can read would open nothing for ever.
    let credential = secrets::api_key()?;
    secrets::write_private(path, &format!("{credential}\n"))?;
    directory
        .add_known_key("first admin key", Grant::default(), &credential)
        .await?;
    tracing::info!(path = %path.display(), "The first admin key is in this file");
    Ok(())
}

// === impl Gateway ===

impl Gateway {
    fn is_draining(&self) -> bool {
        self.shutdown.stage() != Stage::Running
    }

    /// A version; a published one is kept in memory.
    async fn version(&self, id: &str) -> Result<Option<Version>, store::Error> {
        let held = self.held_versions(|versions| versions.get(id).cloned());
        if held.is_some() {
            return Ok(held);
        }
        let found = self.store.version(id).await?;
        if let Some(version) = found.as_ref().filter(|version| !version.draft) {
            self.held_versions(|versions| {
                if versions.len() >= VERSIONS_HELD {
                    versions.clear();
                }
                versions.insert(id.to_owned(), version.clone());
            });
        }
        Ok(found)
    }

    fn held_versions<T>(&self, with: impl FnOnce(&mut HashMap<String, Version>) -> T) -> T {
        with(&mut self.versions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
