//! The agent: what a pool's operator runs on a host.
//!
//! ```text
//!  agent ─┬─ rabbitmq   unless AMQP_URL is set, with its epmd
//!         ├─ podman     unless one is there that works
//!         ├─ bridge     one
//!         └─ worker-N   several
//!
//!  start  files ▶ leftovers ▶ rabbitmq ready ▶ podman ready ▶ bridge, workers
//!  drain  workers ▶ bridge ▶ containers ▶ podman ▶ rabbitmq ▶ files
//! ```
//!
//! Owns processes and `DATA/agent`. It moves no job: that is its children's work.
//! For whoever looks it serves a local API, which only looks (`inspect`). A bridge that is refused, or a child that calls its
//! settings wrong, ends the agent with the child's exit code.

pub mod children;
pub mod files;
pub mod inspect;
mod local_api;
pub mod podman;
pub mod rabbitmq;
pub mod supervise;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use async_std::channel;
use futures::FutureExt;
use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;

use crate::agent::children::Services;
use crate::agent::files::Files;
use crate::agent::local_api::LocalApi;
use crate::agent::podman::{Oci, Plan};
use crate::agent::rabbitmq::first_start;
use crate::agent::supervise::{Fatal, Group, Policy};
use crate::agent_id;
use crate::config::{AgentConfig, EXIT_REFUSED, EXIT_USAGE, Sandbox};
use crate::shutdown::{Shutdown, Stage, Tasks};

/// How much longer than its own drain limit a child may take before it is cancelled from outside.
const DRAIN_MARGIN: Duration = Duration::from_secs(10);
/// How long a bridge may flush reports once the workers are gone.
const BRIDGE_DRAIN: Duration = Duration::from_secs(30);
/// How long the services may take from SIGTERM to their end.
const SERVICE_DRAIN: Duration = Duration::from_secs(20);
/// How long workers may finish jobs whose reports nobody will take.
const FATAL_DRAIN: Duration = Duration::from_secs(5);

/// Everything that runs, in the order in which it ends.
struct House {
    workers: Group,
    bridge: Group,
    podman: Option<Group>,
    rabbitmq: Option<Group>,
    pings: Option<Tasks>,
    api: Option<LocalApi>,
}

/// Runs an agent until it is drained; answers with the exit code.
pub async fn run(config: AgentConfig, shutdown: Shutdown) -> i32 {
    if let Err(sentence) = refuse_root(&config, nix::unistd::Uid::effective().is_root()) {
        tracing::error!("{sentence}");
        return EXIT_USAGE;
    }
    match Agent::open(config, shutdown).await {
        Ok(agent) => agent.run().await,
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "The agent cannot start: {error:#}"
            );
            1
        }
    }
}

/// Rootless Podman needs an ordinary user, and RabbitMQ deserves one.
pub fn refuse_root(config: &AgentConfig, root: bool) -> Result<(), &'static str> {
    if root && (config.podman_url.is_none() || config.amqp_url.is_none()) {
        return Err(
            "This is root, and runtimes are rootless: run the agent as an ordinary user \
             (`runuser -u sluice -- sluice agent`), or set both CONTAINER_HOST and AMQP_URL",
        );
    }
    Ok(())
}

struct Agent {
    config: AgentConfig,
    shutdown: Shutdown,
    files: Files,
    id: String,
    exe: PathBuf,
    fatal: (channel::Sender<Fatal>, channel::Receiver<Fatal>),
}

// === impl Agent ===

impl Agent {
    async fn open(config: AgentConfig, shutdown: Shutdown) -> anyhow::Result<Self> {
        let files = Files::open(&config.data_dir, "agent")?;
        files.end_stale().await?;
        files.write("pool-id", &config.pool_id)?;
        Ok(Self {
            id: agent_id::read_or_create(&config.data_dir).context("keep the agent's id")?,
            exe: std::env::current_exe().context("find this program's own file")?,
            fatal: channel::bounded(1),
            files,
            config,
            shutdown,
        })
    }

    async fn run(self) -> i32 {
        let mut house = House {
            workers: self.group(),
            bridge: self.group(),
            podman: None,
            rabbitmq: None,
            pings: None,
            api: None,
        };
        let started = {
            let start = self.start(&mut house).fuse();
            let draining = self.shutdown.draining().fuse();
            futures::pin_mut!(start, draining);
            // Whichever comes first ends the start; what was started is in `house`.
            futures::select! {
                started = start => started,
                () = draining => Ok(()),
            }
        };
        let code = match started {
            Ok(()) => self.serve().await,
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "The agent cannot start: {error:#}"
                );
                1
            }
        };
        self.end(house, code != 0).await;
        code
    }

    fn group(&self) -> Group {
        Group::new(self.files.path("pids"), self.fatal.0.clone())
    }

    async fn start(&self, house: &mut House) -> anyhow::Result<()> {
        let services = Services {
            amqp_url: self.broker(house).await?,
            podman_url: self.podman(house).await?,
        };
        self.files.write("amqp-url", &services.amqp_url)?;
        self.files.write("podman-url", &services.podman_url)?;
        let api = LocalApi::start(&self.config, &self.files, &self.id, &services.amqp_url)?;
        let api = house.api.insert(api);
        let policy = Policy {
            fatal_codes: &[EXIT_USAGE, EXIT_REFUSED],
            drain: self.config.drain + DRAIN_MARGIN,
        };
        let bridge = Policy {
            drain: BRIDGE_DRAIN,
            ..policy
        };
        house
            .bridge
            .start(children::bridge(&self.exe, &self.config, &services), bridge);
        for number in 0..self.config.workers {
            let recipe = children::worker(&self.exe, &self.config, &services, number);
            house.workers.start(recipe, policy);
        }
        api.enter("running");
        tracing::info!(
            pool.id = %self.config.pool_id, workers = self.config.workers, agent = %self.id,
            "The agent runs: one bridge and {} workers", self.config.workers
        );
        Ok(())
    }

    /// The broker's address; a private node is started and has answered by then.
    async fn broker(&self, house: &mut House) -> anyhow::Result<String> {
        if let Some(url) = &self.config.amqp_url {
            return Ok(url.clone());
        }
        let server = rabbitmq::find_server().context(
            "AMQP_URL is not set and RabbitMQ is not installed: `apt-get install rabbitmq-server`, or set AMQP_URL",
        )?;
        let dir = std::path::absolute(self.files.path("rabbitmq"))?;
        let node = rabbitmq::Node::prepare(&dir)?;
        first_start::begin(&dir)?;
        let limits = rabbitmq::Limits {
            disk_free_bytes_min: self.config.disk_free_bytes_min,
            memory_bytes: self.config.broker_memory_bytes,
        };
        let group = house.rabbitmq.insert(self.group());
        for recipe in node.recipes(&server, &dir, limits, self.set("PATH"))? {
            group.start(recipe, service());
        }
        let started = std::time::Instant::now();
        rabbitmq::ready(node.amqp_port, &dir).await?;
        if first_start::is_under_way(&dir) {
            let names = Names::of(&PoolId::from(self.config.pool_id.as_str()));
            first_start::finish(&dir, node.name(), &node.url(), &names).await?;
        }
        tracing::info!(
            port = node.amqp_port,
            duration_ms = started.elapsed().as_millis(),
            "RabbitMQ is ready: a private node on 127.0.0.1:{}",
            node.amqp_port
        );
        Ok(node.url())
    }

    /// The Podman service's address; an own one is started and has answered by then.
    async fn podman(&self, house: &mut House) -> anyhow::Result<String> {
        let given = self.config.podman_url.as_deref();
        let oci = match given {
            Some(_) => Oci::Default,
            None => {
                podman::entry::mend(&self.config.user_runtime_dir).await?;
                self.oci().await?
            }
        };
        let users = format!(
            "unix://{}/podman/podman.sock",
            self.config.user_runtime_dir.display()
        );
        let answers = given.is_none() && podman::ping(&users).await.is_ok();
        match podman::plan(given, oci, answers.then_some(&users)) {
            Plan::Use(url) => {
                tracing::info!(url, "Podman is there already");
                Ok(url)
            }
            Plan::Serve(oci) => self.serve_podman(house, &oci).await,
        }
    }

    async fn serve_podman(&self, house: &mut House, oci: &Oci) -> anyhow::Result<String> {
        let dir = std::path::absolute(self.files.dir())?;
        let socket = podman::socket(&dir, &self.config.user_runtime_dir, &self.id)?;
        remove_socket(&socket);
        let url = format!("unix://{}", socket.display());
        let group = house.podman.insert(self.group());
        group.start(podman::recipe(oci, &socket), service());
        podman::ready(&url).await?;
        tracing::info!(url, %oci, "A Podman service is ready, with {oci}");
        let pings = Tasks::new("agent", self.shutdown.clone());
        let record = self.files.path("pids").join(podman::SERVICE);
        pings.spawn(
            "podman watch",
            podman::watch::keep(
                url.clone(),
                socket,
                record,
                self.config.user_runtime_dir.clone(),
            ),
        );
        house.pings = Some(pings);
        Ok(url)
    }

    /// The OCI runtime to use: as told, as found out earlier, or found out now.
    async fn oci(&self) -> anyhow::Result<Oci> {
        if self.config.sandbox == Sandbox::Gvisor {
            let dir = std::path::absolute(self.files.dir())?;
            return podman::gvisor(&dir, self.set("PATH"));
        }
        if let Some(name) = &self.config.oci {
            return Ok(Oci::Named(name.clone()));
        }
        let image = &self.config.image;
        let circumstances = podman::circumstances(image).await?;
        if let Some(oci) = podman::Verdict::recall(&self.files.path("oci"), &circumstances) {
            return Ok(oci);
        }
        let Some(oci) = podman::try_runtimes(image).await? else {
            tracing::warn!(
                image,
                "The runtime image is not there, so the OCI runtime could not be tried"
            );
            return Ok(Oci::Default);
        };
        tracing::info!(%oci, "A trial container ran with {oci}");
        self.files
            .write("oci", &podman::Verdict::text(&circumstances, &oci)?)?;
        Ok(oci)
    }

    /// Waits for the wish to end, or for a child whose end is the agent's.
    async fn serve(&self) -> i32 {
        let draining = self.shutdown.draining().fuse();
        let fatal = self.fatal.1.recv().fuse();
        futures::pin_mut!(draining, fatal);
        // An order to drain comes first: what ends after it ends by it.
        futures::select_biased! {
            () = draining => 0,
            fatal = fatal => match fatal {
                Ok(fatal) => {
                    let why = if fatal.code == EXIT_REFUSED {
                        "the gateway refuses this pool's id or token"
                    } else {
                        "its settings are wrong"
                    };
                    tracing::error!(
                        pool.id = %self.config.pool_id, code = fatal.code,
                        "The agent ends, as `{}` cannot work: {why}", fatal.name
                    );
                    fatal.code
                }
                // The sender is this agent's own, so it is not closed while this waits.
                Err(_) => 1,
            },
        }
    }

    /// Ends everything in its order; a second signal is passed on to whatever ends at that time.
    async fn end(&self, house: House, hurry: bool) {
        let grace = Tasks::new("agent", self.shutdown.clone());
        if hurry {
            let shutdown = self.shutdown.clone();
            grace.spawn("grace", async move {
                async_std::task::sleep(FATAL_DRAIN).await;
                shutdown.cancel();
            });
        }
        if let Some(api) = &house.api {
            api.enter("draining");
        }
        house.workers.stop(&self.shutdown).await;
        grace.abort().await;
        house.bridge.stop(&self.shutdown).await;
        let given = self.config.podman_url.as_deref();
        match podman::remove_containers(given, &self.id).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::warn!(count, "Containers were left by workers and are removed now")
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "It is unknown whether containers are left"
            ),
        }
        if let Some(pings) = house.pings {
            pings.abort().await;
        }
        if let Some(api) = house.api {
            api.stop().await;
        }
        // Services have nothing to drain, so a wish to hurry is none of theirs.
        let patient = Shutdown::new();
        if let Some(podman) = house.podman {
            podman.stop(&patient).await;
            if let Ok(socket) = podman::socket(
                &std::path::absolute(self.files.dir()).unwrap_or_default(),
                &self.config.user_runtime_dir,
                &self.id,
            ) {
                remove_socket(&socket);
            }
        }
        if let Some(rabbitmq) = house.rabbitmq {
            rabbitmq.stop(&patient).await;
        }
        self.files.remove("amqp-url");
        self.files.remove("podman-url");
        if self.shutdown.stage() != Stage::Running {
            tracing::info!("The agent has ended");
        }
    }

    fn set(&self, name: &str) -> &str {
        let found = self.config.set.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Services come back whatever they ended with.
fn service() -> Policy {
    Policy {
        fatal_codes: &[],
        drain: SERVICE_DRAIN,
    }
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "The socket {} cannot be removed", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Reader;

    #[test]
    fn root_is_refused_unless_nothing_of_the_agent_would_run_as_root() {
        let config = |set: &'static [(&str, &str)]| {
            let look_up = |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Reader::new(&look_up).agent()
        };
        let bare = config(&[]);
        assert!(refuse_root(&bare, false).is_ok());
        assert!(refuse_root(&bare, true).is_err_and(|why| why.contains("runuser")));
        let one = config(&[("AMQP_URL", "amqp://b")]);
        assert!(refuse_root(&one, true).is_err());
        let both = config(&[("AMQP_URL", "amqp://b"), ("CONTAINER_HOST", "unix:///p")]);
        assert!(refuse_root(&both, true).is_ok());
    }
}
