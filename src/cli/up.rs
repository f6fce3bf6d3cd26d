//! `sluice up`: a gateway and the default pool's agent on this machine.
//!
//! ```text
//!  gateway listens ▶ pool and its token ▶ project ▶ agent connected ▶ … ▶ agent ends ▶ gateway ends
//! ```
//!
//! Owns the two processes and `DATA/up` (the pool's token, 0600). A later start
//! finds everything where it was: ports, pool, token, queue, jobs.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_std::channel;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::agent::files::Files;
use crate::agent::supervise::{Environment, Fatal, Group, Lifeline, Policy, Recipe};
use crate::cli::admin::{Admin, Failure};
use crate::cli::{LookUp, print, role};
use crate::config::{AgentConfig, EXIT_REFUSED, EXIT_USAGE, EgressConfig, GatewayConfig, SETTINGS};
use crate::shutdown::Shutdown;

/// How long the gateway may take to listen.
const GATEWAY_START_MAX: Duration = Duration::from_secs(30);
/// How long the agent may take to be connected; a first start of RabbitMQ takes most of it.
const AGENT_START_MAX: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much longer than its own drain limit a child may take: the agent's steps after its workers.
const DRAIN_MARGIN: Duration = Duration::from_secs(120);
/// The first project, made so that a first job has a place.
const PROJECT: &str = "default";
/// Where the gateway listens when nothing is said and the port is free.
const PORTS: [u16; 2] = [8080, 8081];

/// Run a gateway and an agent on this machine, and keep them running.
///
/// State is kept in the data directory (SLUICE_DATA_DIR); a later start goes on
/// with it. Ends in order on SIGTERM or Ctrl-C.
///
/// Example: sluice up
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Print one JSON object once everything runs.
    #[arg(long)]
    json: bool,
}

/// What the agent of this machine connects with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Access {
    pool: String,
    token: String,
}

struct Site {
    gateway: GatewayConfig,
    agent: AgentConfig,
    shutdown: Shutdown,
    files: Files,
    exe: PathBuf,
    fatal: (channel::Sender<Fatal>, channel::Receiver<Fatal>),
    json: bool,
}

/// Both children, in the order in which they end.
struct Running {
    agent: Option<Group>,
    gateway: Option<Group>,
}

/// Where the gateway listens, as it says itself.
struct Listening {
    http: Url,
    agents: String,
}

// === impl Up ===

impl Up {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        // What `up` decides itself is filled in, so that the agent's other settings are checked now.
        let filled = |name: &str| match name {
            "FLOWS_GATEWAY_ENDPOINT" | "FLOWS_ENDPOINT" => Some("http://127.0.0.1".to_owned()),
            "FLOWS_AGENT_POOL_ID" | "FLOWS_AGENT_POOL_TOKEN" => Some("up".to_owned()),
            _ => look_up(name),
        };
        let ((gateway, agent), shutdown) =
            role(&filled, |reader| (reader.gateway(), reader.agent()))?;
        let root = nix::unistd::Uid::effective().is_root();
        crate::agent::refuse_root(&agent, root)
            .map_err(|sentence| Failure::Usage(sentence.to_owned()))?;
        let files = Files::open(&gateway.data_dir, "up")?;
        files.end_stale().await?;
        let site = Site {
            exe: std::env::current_exe().context("find this program's own file")?,
            fatal: channel::bounded(1),
            gateway,
            agent,
            shutdown,
            files,
            json: self.json,
        };
        site.run().await
    }
}

// === impl Site ===

impl Site {
    async fn run(self) -> Result<i32, Failure> {
        let mut running = Running {
            agent: None,
            gateway: None,
        };
        let result = {
            let life = self.live(&mut running).fuse();
            let draining = self.shutdown.draining().fuse();
            futures::pin_mut!(life, draining);
            // Whatever was started is in `running` when either of them ends.
            futures::select_biased! {
                () = draining => Ok(0),
                result = life => result,
            }
        };
        if let Some(agent) = running.agent {
            agent.stop(&self.shutdown).await;
        }
        if let Some(gateway) = running.gateway {
            gateway.stop(&self.shutdown).await;
        }
        result
    }

    /// Starts both, and goes on until one of them ends for good.
    async fn live(&self, running: &mut Running) -> Result<i32, Failure> {
        let gateway = running.gateway.insert(self.group());
        let listening = self.start_gateway(gateway).await?;
        let admin = self.admin(&listening)?;
        let mut access = self.access(&admin, false).await?;
        self.first_project(&admin, &access.pool).await?;
        for last_try in [false, true] {
            let agent = running.agent.insert(self.group());
            agent.start(self.agent(&listening, &access), self.policy());
            match self.connected(&admin, &access.pool).await {
                Ok(workers) => {
                    self.tell(&listening, workers);
                    break;
                }
                // A token that was replaced elsewhere is no reason to give up: this is the admin's machine.
                Err(Failure::Refused(_)) if !last_try => {
                    access = self.access(&admin, true).await?;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(self.ended().await.code)
    }

    fn group(&self) -> Group {
        Group::new(self.files.path("pids"), self.fatal.0.clone())
    }

    fn policy(&self) -> Policy {
        Policy {
            // An agent that says 1 has said why it cannot start, and trying again would say it again.
            fatal_codes: &[1, EXIT_USAGE, EXIT_REFUSED],
            drain: self.gateway.drain + DRAIN_MARGIN,
        }
    }

    async fn start_gateway(&self, group: &Group) -> Result<Listening, Failure> {
        let file = self.gateway.data_dir.join("gateway/listen.json");
        let before = std::fs::read(&file).unwrap_or_default();
        let before: Value = serde_json::from_slice(&before).unwrap_or_default();
        // An old file would be taken for the new gateway's.
        let _ = std::fs::remove_file(&file);
        let listen = |setting: &str, key: &str, port: u16| {
            let set = self.agent.set.iter().find(|(name, _)| name == setting);
            set.map_or_else(
                || free_address(&before[key], port),
                |(_, value)| value.clone(),
            )
        };
        let settings = vec![
            (
                "SLUICE_GATEWAY_LISTEN",
                listen("SLUICE_GATEWAY_LISTEN", "http", PORTS[0]),
            ),
            (
                "SLUICE_GATEWAY_AGENT_LISTEN",
                listen("SLUICE_GATEWAY_AGENT_LISTEN", "agents", PORTS[1]),
            ),
        ];
        let wanted = settings.iter().map(|(_, address)| address.as_str());
        let wanted = wanted.collect::<Vec<_>>().join(" and ");
        group.start(self.child("gateway", settings), self.policy());
        let until = Instant::now() + GATEWAY_START_MAX;
        loop {
            if let Some(listening) = Listening::read(&file) {
                return Ok(listening);
            }
            if let Ok(fatal) = self.fatal.1.try_recv() {
                return Err(
                    anyhow::anyhow!("the gateway ended with exit code {}", fatal.code).into(),
                );
            }
            if Instant::now() > until {
                let limit = GATEWAY_START_MAX.as_secs();
                return Err(anyhow::anyhow!(
                    "the gateway does not listen on {wanted} after {limit} s"
                )
                .into());
            }
            async_std::task::sleep(LOOK_EVERY).await;
        }
    }

    fn admin(&self, listening: &Listening) -> Result<Admin, Failure> {
        let file = self.gateway.data_dir.join("gateway/admin.key");
        let key = std::fs::read_to_string(&file)
            .with_context(|| format!("read the admin key {}", file.display()))?;
        Admin::new(&listening.http, key.trim(), &EgressConfig::default())
    }

    /// The default pool with a token for it: the kept one, or a new one.
    async fn access(&self, admin: &Admin, renew: bool) -> Result<Access, Failure> {
        let pools = admin.get("/api/v1/pools").await?;
        let pools = pools.as_array().map(Vec::as_slice).unwrap_or_default();
        let default = pools.iter().find(|pool| pool["default"] == true);
        let kept = std::fs::read(self.files.path("pool.json")).unwrap_or_default();
        if let Ok(kept) = serde_json::from_slice::<Access>(&kept)
            && default.is_some_and(|pool| pool["id"] == kept.pool.as_str())
            && !renew
        {
            return Ok(kept);
        }
        let (pool, reply) = match default.and_then(|pool| pool["id"].as_str()) {
            Some(id) => {
                let path = format!("/api/v1/pools/{id}/rotate");
                (id.to_owned(), admin.post(&path, &json!({})).await?)
            }
            None => {
                let pool = admin
                    .post("/api/v1/pools", &json!({"name": "default"}))
                    .await?;
                (pool["id"].as_str().unwrap_or_default().to_owned(), pool)
            }
        };
        let token = reply["token"]
            .as_str()
            .context("the gateway gave no token")?;
        let access = Access {
            pool,
            token: token.to_owned(),
        };
        let text = serde_json::to_string(&access).context("write the pool's token")?;
        self.files.write("pool.json", &text)?;
        Ok(access)
    }

    /// A place for a first job; nothing is changed once there is any project.
    async fn first_project(&self, admin: &Admin, pool: &str) -> Result<(), Failure> {
        let projects = admin.get("/api/v1/projects").await?;
        if projects
            .as_array()
            .is_some_and(|projects| !projects.is_empty())
        {
            return Ok(());
        }
        let project = admin
            .post("/api/v1/projects", &json!({"name": PROJECT}))
            .await?;
        let id = project["id"].as_str().context("a project without id")?;
        let path = format!("/api/v1/pools/{pool}/projects/{id}");
        admin.call("PUT", &path, None).await.map(drop)
    }

    fn agent(&self, listening: &Listening, access: &Access) -> Recipe {
        let settings = vec![
            ("FLOWS_GATEWAY_ENDPOINT", listening.agents.clone()),
            ("FLOWS_ENDPOINT", listening.http.to_string()),
            ("FLOWS_AGENT_POOL_ID", access.pool.clone()),
            ("FLOWS_AGENT_POOL_TOKEN", access.token.clone()),
        ];
        self.child("agent", settings)
    }

    /// This program in another role, with what is set for it and what `up` decides.
    fn child(&self, role: &str, decided: Vec<(&str, String)>) -> Recipe {
        let mut pairs = self.agent.set.clone();
        let data_dir = self.gateway.data_dir.display().to_string();
        let common = [
            ("SLUICE_DATA_DIR", data_dir),
            ("SLUICE_PARENT_PIPE", "1".into()),
        ];
        for (name, value) in decided.into_iter().chain(common) {
            pairs.retain(|(key, _)| key != name);
            pairs.push((name.to_owned(), value));
        }
        if role == "gateway" {
            // It runs no jobs, so it is told neither the pool's token nor the broker.
            pairs.retain(|(name, _)| {
                !SETTINGS
                    .iter()
                    .any(|setting| setting.secret && setting.name == name)
            });
        }
        Recipe {
            name: role.to_owned(),
            program: self.exe.clone(),
            arguments: vec![role.into()],
            environment: Environment::Exactly(pairs),
            lifeline: Lifeline::Pipe,
            output: None,
            dir: None,
        }
    }

    /// Waits until the pool has an agent with a worker; answers with how many workers.
    async fn connected(&self, admin: &Admin, pool: &str) -> Result<u64, Failure> {
        let until = Instant::now() + AGENT_START_MAX;
        let path = format!("/api/v1/pools/{pool}");
        loop {
            let pool = admin.get(&path).await?;
            let workers = pool["agents"][0]["workers"].as_u64().unwrap_or(0);
            if workers >= u64::from(self.agent.workers) {
                return Ok(workers);
            }
            match self.fatal.1.try_recv() {
                Ok(fatal) if fatal.code == EXIT_REFUSED => {
                    return Err(Failure::Refused(
                        "the gateway refuses the kept token".into(),
                    ));
                }
                Ok(fatal) => {
                    let what = format!("the {} ended with exit code {}", fatal.name, fatal.code);
                    return Err(anyhow::anyhow!(what).into());
                }
                Err(_) if Instant::now() > until => {
                    let limit = AGENT_START_MAX.as_secs();
                    return Err(
                        anyhow::anyhow!("the agent is not connected after {limit} s").into(),
                    );
                }
                Err(_) => async_std::task::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn tell(&self, listening: &Listening, workers: u64) {
        let dir = self.gateway.data_dir.display();
        let key = self.gateway.data_dir.join("gateway/admin.key");
        let told = json!({
            "ok": true,
            "http": listening.http.as_str().trim_end_matches('/'),
            "agents": listening.agents,
            "admin_key_file": key.display().to_string(),
            "data_dir": dir.to_string(),
            "workers": workers,
            "try": format!("SLUICE_DATA_DIR={dir} sluice job run --project {PROJECT} --expression '1 + 1'"),
        });
        let fields = [
            ("Gateway", "/http"),
            ("Agents", "/agents"),
            ("Admin key", "/admin_key_file"),
            ("Data", "/data_dir"),
            ("Workers", "/workers"),
            ("Try", "/try"),
        ];
        print::record(self.json, &told, &fields);
    }

    async fn ended(&self) -> Fatal {
        let fatal = self.fatal.1.recv().await;
        // The sender is this site's own, so it is not closed while this waits.
        fatal.unwrap_or_else(|_| Fatal {
            name: "up".into(),
            code: 1,
        })
    }
}

// === impl Listening ===

impl Listening {
    fn read(file: &Path) -> Option<Self> {
        let listen: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        Some(Self {
            http: Url::parse(listen["http"].as_str()?).ok()?,
            agents: listen["agents"].as_str()?.to_owned(),
        })
    }
}

/// The address used before if its port is free, else the usual one, else any.
fn free_address(before: &Value, usual: u16) -> String {
    let before = before.as_str().and_then(|url| Url::parse(url).ok()?.port());
    let port = before
        .into_iter()
        .chain([usual])
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", port.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_left_alone() {
        let free = TcpListener::bind("127.0.0.1:0").expect("any port");
        let port = free.local_addr().expect("an address").port();
        let before = json!(format!("http://127.0.0.1:{port}"));
        assert_ne!(
            free_address(&before, port),
            format!("127.0.0.1:{port}"),
            "it is taken"
        );
        assert_eq!(free_address(&Value::Null, port), "127.0.0.1:0");
        drop(free);
        assert_eq!(free_address(&before, 1), format!("127.0.0.1:{port}"));
    }
}
