//! A whole installation in a scratch directory, for `demo` and `bench`: a
//! gateway and an agent as real child processes, and an admin client of the API.
//!
//! Owns the scratch directory and the two processes. Knows nothing of what is
//! done with them. Everything is gone after [`Rig::stop`]; a dropped rig kills
//! its processes, which take their own children along.

pub mod harm;
mod look;
mod pools;
mod sample;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_process::{Child, Command};
use futures::FutureExt;
use serde_json::Value;

use crate::api_client::ApiClient;
use crate::config::{EgressConfig, RUNTIME_IMAGE_DEFAULT, SETTINGS};
use crate::shutdown::Shutdown;

pub use crate::cli::rig::sample::Sample;

/// How long the gateway may take to listen.
const GATEWAY_START_MAX: Duration = Duration::from_secs(30);
/// How long an agent may take to be connected with all workers; a first start
/// of RabbitMQ on a busy machine takes most of it.
const AGENT_START_MAX: Duration = Duration::from_secs(120);
/// How long an agent may take to drain and clean up.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How often something is looked at that says nothing by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How much of a child's log is quoted when it failed.
const LOG_TAIL_LINES: usize = 15;

/// What the children are told beside what the rig itself decides.
pub struct RigOptions {
    pub workers: u32,
    /// Settings passed on from this process: `PATH`, `FLOWS_RUNTIME_IMAGE`, …
    pub settings: Vec<(String, String)>,
}

pub struct Rig {
    dir: tempfile::TempDir,
    options: RigOptions,
    exe: PathBuf,
    gateway: Child,
    agent: Option<Child>,
    pub gateway_http: String,
    gateway_agents: String,
    api: ApiClient,
    key: String,
}

/// A pool made for the rig.
pub struct PoolAccess {
    pub id: String,
    pub token: String,
}

/// Workers without a bridge.
pub struct BareWorkers {
    children: Vec<Child>,
}

// === impl BareWorkers ===

impl BareWorkers {
    /// Their process ids.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.children.iter().map(Child::id)
    }

    pub async fn stop(self) {
        for child in self.children {
            end(child, "worker").await;
        }
    }
}

// === impl Rig ===

impl Rig {
    /// Makes the scratch directory and starts the gateway.
    pub async fn start(options: RigOptions) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("sluice-")
            .tempdir()
            .context("make a scratch directory")?;
        let exe = std::env::current_exe().context("find this program's own file")?;
        let gateway = child(
            &exe,
            dir.path(),
            "gateway",
            &options.settings,
            &[
                ("SLUICE_GATEWAY_LISTEN".into(), "127.0.0.1:0".into()),
                ("SLUICE_GATEWAY_AGENT_LISTEN".into(), "127.0.0.1:0".into()),
            ],
        )?;
        let mut gateway = gateway;
        let listen = dir.path().join("gateway/listen.json");
        let until = Instant::now() + GATEWAY_START_MAX;
        let listen: Value = loop {
            if let Ok(text) = std::fs::read(&listen)
                && let Ok(value) = serde_json::from_slice(&text)
            {
                break value;
            }
            if let Ok(Some(status)) = gateway.try_status() {
                bail!(
                    "the gateway ended with {status}:\n{}",
                    log_tail(dir.path(), "gateway")
                );
            }
            if Instant::now() > until {
                bail!(
                    "the gateway does not listen after {} s",
                    GATEWAY_START_MAX.as_secs()
                );
            }
            async_std::task::sleep(LOOK_EVERY).await;
        };
        let address = |name: &str| listen[name].as_str().unwrap_or_default().to_owned();
        let gateway_http = address("http");
        let key = std::fs::read_to_string(dir.path().join("gateway/admin.key"))
            .context("read the first admin key")?;
        let url = url::Url::parse(&gateway_http).context("the gateway's own address")?;
        Ok(Self {
            api: ApiClient::new(&url, &EgressConfig::default())?,
            key: key.trim().to_owned(),
            gateway_agents: address("agents"),
            gateway_http,
            dir,
            options,
            exe,
            gateway,
            agent: None,
        })
    }

    /// Starts an agent for `pool` and waits until it is connected with all its workers.
    pub async fn start_agent(&mut self, pool: &PoolAccess) -> anyhow::Result<()> {
        let settings = [
            ("FLOWS_GATEWAY_ENDPOINT".into(), self.gateway_agents.clone()),
            ("FLOWS_ENDPOINT".into(), self.gateway_http.clone()),
            ("FLOWS_AGENT_POOL_ID".into(), pool.id.clone()),
            ("FLOWS_AGENT_POOL_TOKEN".into(), pool.token.clone()),
            ("SLUICE_WORKERS".into(), self.options.workers.to_string()),
        ];
        // Kept before anything is waited for, so that `stop` ends it in every case.
        self.agent = Some(child(
            &self.exe,
            self.dir.path(),
            "agent",
            &self.options.settings,
            &settings,
        )?);
        let until = Instant::now() + AGENT_START_MAX;
        loop {
            if let Some(Ok(Some(status))) = self.agent.as_mut().map(Child::try_status) {
                bail!(
                    "the agent ended with {status}:\n{}",
                    log_tail(self.dir.path(), "agent")
                );
            }
            let pool = self.get(&format!("/api/v1/pools/{}", pool.id)).await?;
            let workers = pool["agents"][0]["workers"].as_u64().unwrap_or(0);
            if workers >= u64::from(self.options.workers) {
                break;
            }
            if Instant::now() > until {
                bail!(
                    "the agent is not connected with {} workers after {} s:\n{}",
                    self.options.workers,
                    AGENT_START_MAX.as_secs(),
                    log_tail(self.dir.path(), "agent")
                );
            }
            async_std::task::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call("POST", path, Some(body)).await
    }

    /// One call of the admin API; a refusal becomes an error with its sentence.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let (status, mut reply) = self
            .api
            .request(method, path, Some(&self.key), body)
            .await
            .with_context(|| format!("{method} {path}"))?;
        if status >= 400 {
            bail!(
                "{method} {path}: {status}: {}",
                reply["error"].as_str().unwrap_or("no reason given")
            );
        }
        Ok(reply["data"].take())
    }

    /// The admin client and its key, for callers that outlive a borrow of the rig.
    pub fn api(&self) -> (ApiClient, String) {
        (self.api.clone(), self.key.clone())
    }

    /// The data directory of gateway and agent.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a child of the rig has logged last.
    pub fn log_tail(&self, name: &str) -> String {
        log_tail(self.dir.path(), name)
    }

    /// Starts workers for a pool that has no bridge; their jobs and reports are the caller's.
    /// `more` are settings on top.
    pub fn start_bare_workers(
        &self,
        pool: &str,
        amqp_url: &str,
        more: &[(String, String)],
    ) -> anyhow::Result<BareWorkers> {
        let mut children = Vec::new();
        for number in 0..self.options.workers {
            let dir = self.dir.path().join(format!("{pool}-{number}"));
            std::fs::create_dir_all(&dir)?;
            let mut settings = vec![
                ("FLOWS_ENDPOINT".into(), self.gateway_http.clone()),
                ("FLOWS_AGENT_POOL_ID".into(), pool.to_owned()),
                ("AMQP_URL".into(), amqp_url.to_owned()),
                ("CONTAINER_HOST".into(), self.podman_url()?),
                ("SLUICE_WORKER_NUMBER".into(), number.to_string()),
            ];
            settings.extend_from_slice(more);
            children.push(child(
                &self.exe,
                &dir,
                "worker",
                &self.options.settings,
                &settings,
            )?);
        }
        Ok(BareWorkers { children })
    }

    /// How many workers an agent of this rig has.
    pub fn workers(&self) -> u32 {
        self.options.workers
    }

    /// What the workers without a bridge of this pool have logged so far.
    pub fn logs_of_bare_workers(&self, pool: &str) -> String {
        let dirs = (0..self.options.workers).map(|n| self.dir.path().join(format!("{pool}-{n}")));
        dirs.filter_map(|dir| std::fs::read_to_string(dir.join("worker.log")).ok())
            .collect()
    }

    /// The Podman service the agent uses, which it keeps beside the broker's address.
    pub fn podman_url(&self) -> anyhow::Result<String> {
        let path = self.dir.path().join("agent/podman-url");
        Ok(std::fs::read_to_string(path)
            .context("read the agent's Podman address")?
            .trim()
            .to_owned())
    }

    /// The image that the runtimes use.
    pub fn image(&self) -> String {
        let set = self.options.settings.iter();
        set.rev()
            .find(|(name, _)| name == "FLOWS_RUNTIME_IMAGE")
            .map_or_else(
                || RUNTIME_IMAGE_DEFAULT.to_owned(),
                |(_, image)| image.clone(),
            )
    }

    /// The broker's address, which the agent keeps for whoever may read its files.
    pub fn amqp_url(&self) -> anyhow::Result<String> {
        let path = self.dir.path().join("agent/amqp-url");
        Ok(std::fs::read_to_string(path)
            .context("read the agent's broker address")?
            .trim()
            .to_owned())
    }

    /// Drains and ends both processes and removes the scratch directory;
    /// answers with what was left behind, which should be nothing.
    pub async fn stop(mut self) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        let owners = owners(self.dir.path());
        if let Some(agent) = self.agent.take() {
            left.extend(end(agent, "agent").await);
        }
        for owner in &owners {
            left.extend(containers_of(owner).await);
        }
        left.extend(processes_below(self.dir.path(), self.gateway.id()));
        let path = self.dir.path().to_owned();
        left.extend(end(self.gateway, "gateway").await);
        let dir = self.dir;
        crate::shutdown::unblock(move || dir.close())
            .await
            .context("remove the scratch directory")?;
        if path.exists() {
            left.push(format!("file {}", path.display()));
        }
        Ok(left)
    }
}

/// Does one part of a command's work; Ctrl-C or SIGTERM ends it with an error,
/// so that what was started is stopped on the usual way out.
pub async fn until_interrupted<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let work = work.fuse();
    let draining = shutdown.draining().fuse();
    futures::pin_mut!(work, draining);
    futures::select! {
        result = work => result,
        () = draining => bail!("interrupted"),
    }
}

/// Starts an installation, does `work` with it and stops it, whatever came of
/// the work; answers with what was left behind beside what the work gave.
pub async fn on_a_rig<T>(
    options: RigOptions,
    shutdown: &Shutdown,
    work: impl AsyncFnOnce(&mut Rig) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<String>)> {
    eprintln!("Starting gateway and agent");
    let mut rig = until_interrupted(shutdown, Rig::start(options)).await?;
    let result = until_interrupted(shutdown, work(&mut rig)).await;
    if result.is_err() {
        eprintln!(
            "--- the last words of the agent\n{}\n--- and of the gateway\n{}",
            rig.log_tail("agent"),
            rig.log_tail("gateway")
        );
    }
    let left = rig.stop().await?;
    Ok((result?, left))
}

/// Spawns this program in another role, logging to a file of the scratch directory.
fn child(
    exe: &Path,
    dir: &Path,
    role: &str,
    passed_on: &[(String, String)],
    settings: &[(String, String)],
) -> anyhow::Result<Child> {
    // A gateway that is started again goes on with its log.
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("{role}.log")))?;
    let pairs = passed_on
        .iter()
        .chain(settings)
        .map(|(name, value)| (name, value));
    let mut command = std::process::Command::new(exe);
    // What is no setting of ours is the operator's business, and Podman may need it.
    for setting in SETTINGS {
        command.env_remove(setting.name);
        setting.aliases.iter().for_each(|name| {
            command.env_remove(name);
        });
    }
    command
        .arg(role)
        .envs(pairs)
        .env("SLUICE_DATA_DIR", dir)
        .env("SLUICE_PARENT_PIPE", "1")
        // A terminal's Ctrl-C is the rig's to pass on, in order.
        .process_group(0);
    // Streams are set after this step, which forgets any that were set before.
    Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start `sluice {role}`"))
}

async fn end(mut child: Child, role: &str) -> Option<String> {
    // `status` would close it, and the child would take that for this process's end.
    let _lifeline = child.stdin.take();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    // An error means that it has ended already, which the wait below sees.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    match async_std::future::timeout(STOP_MAX, child.status()).await {
        Ok(_) => None,
        Err(_) => {
            let _ = child.kill();
            Some(format!(
                "process {role} {pid}, which did not drain in {} s",
                STOP_MAX.as_secs()
            ))
        }
    }
}

/// The ids of every agent that had a data directory here.
pub fn owners(dir: &Path) -> Vec<String> {
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten();
    std::iter::once(dir.to_owned())
        .chain(below.map(|entry| entry.path()))
        .filter_map(|dir| std::fs::read_to_string(dir.join("agent/id")).ok())
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
        .collect()
}

pub async fn containers_of(owner: &str) -> Vec<String> {
    let listed = Command::new("podman")
        .args([
            "ps",
            "--all",
            "--quiet",
            "--filter",
            &format!("label=io.sluice.agent={owner}"),
        ])
        .output()
        .await;
    match listed {
        Ok(output) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|id| format!("container {id}"))
            .collect(),
        Err(error) => vec![format!("unknown containers: podman ps: {error}")],
    }
}

/// Processes that still name the scratch directory on their command line.
fn processes_below(dir: &Path, except: u32) -> Vec<String> {
    let needle = dir.display().to_string();
    process_ids()
        .filter(|pid| *pid != except && *pid != std::process::id())
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&needle)
                .then(|| format!("process {pid}: {line}"))
        })
        .collect()
}

fn process_ids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn log_tail(dir: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
