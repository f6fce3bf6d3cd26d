//! The test house: every process of an installation, real, with a chaos proxy
//! on each wire, in a scratch directory.
//!
//! ```text
//!  gateway ◀─ws─▶ [chaos] ◀─▶ bridge ◀─▶ [chaos] ◀─▶ RabbitMQ ◀─▶ [chaos] ◀─▶ worker ─▶ Podman
//! ```
//!
//! Broker and Podman service are lent by an agent of the house's own. Dropping
//! the house fails the test if a container is left.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use async_std::task;
use serde_json::{Value, json};
use sluice::api_client::ApiClient;
use sluice::config::EgressConfig;
use url::Url;

use crate::support::chaos::{Chaos, Wire};
use crate::support::process::{PATIENCE, Process, until};

/// What the lending agent's local API asks for over TCP.
pub const API_TOKEN: &str = "a-token-for-the-house";

pub struct House {
    dir: tempfile::TempDir,
    control: Control,
    pub gateway: Process,
    pub agent: Process,
    pub lender: Vec<(&'static str, String)>,
    pub bridge: Option<Process>,
    pub workers: Vec<Process>,
    pub websocket: Chaos,
    pub bridge_amqp: Chaos,
    pub worker_amqp: Chaos,
    pub project: String,
    pub pool: String,
    pub token: String,
    amqp: Url,
    podman: String,
}

/// The gateway as its admin sees it.
struct Control {
    api: ApiClient,
    key: String,
    http: String,
    agents: String,
}

// === impl Control ===

impl Control {
    /// Starts a gateway in `dir`.
    async fn start(dir: &Path) -> (Process, Self) {
        let settings = gateway_settings("127.0.0.1:0", "127.0.0.1:0");
        let mut gateway = Process::spawn(dir, "gateway", "gateway", &settings);
        let listen = dir.join("gateway/listen.json");
        let listen: Value = until("the gateway listens", || {
            gateway.assert_alive();
            std::fs::read(&listen)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
        })
        .await;
        let http = text(&listen["http"]);
        let url = Url::parse(&http).expect("an address");
        let key = std::fs::read_to_string(dir.join("gateway/admin.key")).expect("an admin key");
        let control = Self {
            api: ApiClient::new(&url, &EgressConfig::default()).expect("an HTTP client"),
            key: key.trim().to_owned(),
            http,
            agents: text(&listen["agents"]),
        };
        (gateway, control)
    }

    /// Starts an agent of a pool of its own, for its broker and its Podman service.
    async fn lend(&self, dir: &Path) -> (Process, Vec<(&'static str, String)>) {
        let lender = self.post("/api/v1/pools", json!({"name": "lender"})).await;
        let settings = vec![
            ("FLOWS_GATEWAY_ENDPOINT", self.agents.clone()),
            ("FLOWS_ENDPOINT", self.http.clone()),
            ("FLOWS_AGENT_POOL_ID", text(&lender["id"])),
            ("FLOWS_AGENT_POOL_TOKEN", text(&lender["token"])),
            ("FLOWS_POOL_SIZE", "0".into()),
            ("SLUICE_WORKERS", "1".into()),
            ("SLUICE_AGENT_API_LISTEN", "127.0.0.1:0".into()),
            ("SLUICE_AGENT_API_TOKEN", API_TOKEN.into()),
        ];
        let mut agent = Process::spawn(dir, "agent", "agent", &settings);
        let path = format!("/api/v1/pools/{}", text(&lender["id"]));
        let start = Instant::now();
        while self.call("GET", &path, Value::Null).await["agents"][0]["workers"] != 1 {
            agent.assert_alive();
            assert!(
                start.elapsed() < PATIENCE,
                "the lending agent does not come up:\n{}",
                agent.log_tail()
            );
            task::sleep(Duration::from_millis(50)).await;
        }
        (agent, settings)
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", path, body).await
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, mut reply) = self
            .api
            .request(method, path, Some(&self.key), Some(&body))
            .await
            .expect("the gateway answers");
        assert!(status < 400, "{method} {path}: {reply}");
        reply["data"].take()
    }
}

// === impl House ===

impl House {
    /// Gateway, broker and Podman; no bridge and no worker yet.
    pub async fn build() -> Self {
        Self::build_on(None).await
    }

    /// The same on a broker with settings of its own: an Erlang term, `advanced.config`.
    pub async fn build_on(broker: Option<&str>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sluice-t-")
            .tempdir()
            .expect("a scratch directory");
        let (gateway, control) = Control::start(dir.path()).await;
        let project = text(
            &control
                .post("/api/v1/projects", json!({"name": "house"}))
                .await["id"],
        );
        let pool = control
            .post("/api/v1/pools", json!({"name": "house"}))
            .await;
        let (pool, token) = (text(&pool["id"]), text(&pool["token"]));
        let exposure = format!("/api/v1/pools/{pool}/projects/{project}");
        control.call("PUT", &exposure, json!({})).await;
        if let Some(settings) = broker {
            let node = dir.path().join("agent/rabbitmq");
            std::fs::create_dir_all(&node).expect("the node's directory");
            std::fs::write(node.join("advanced.config"), settings).expect("written");
        }
        let (agent, lender) = control.lend(dir.path()).await;
        let file = |name: &str| {
            std::fs::read_to_string(dir.path().join("agent").join(name))
                .expect(name)
                .trim()
                .to_owned()
        };
        let amqp = Url::parse(&file("amqp-url")).expect("the broker's address");
        let podman = file("podman-url");
        let broker = SocketAddr::from(([127, 0, 0, 1], amqp.port().expect("a port")));
        Self {
            websocket: Chaos::start(Wire::Websocket, socket_addr(&control.agents)).await,
            bridge_amqp: Chaos::start(Wire::Amqp, broker).await,
            worker_amqp: Chaos::start(Wire::Amqp, broker).await,
            bridge: None,
            workers: Vec::new(),
            dir,
            control,
            gateway,
            agent,
            lender,
            project,
            pool,
            token,
            amqp,
            podman,
        }
    }

    /// A whole house: bridge and `workers` workers, connected.
    pub async fn start(workers: u32) -> Self {
        let mut house = Self::build().await;
        house.start_bridge();
        for number in 0..workers {
            house.start_worker(number);
        }
        house.connected(workers).await;
        house
    }

    /// Starts or restarts the bridge, through the chaos proxies.
    pub fn start_bridge(&mut self) {
        let settings = self.bridge_settings();
        self.bridge = None;
        self.bridge = Some(Process::spawn(
            self.dir.path(),
            "bridge",
            "bridge",
            &settings,
        ));
    }

    pub fn bridge_settings(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "FLOWS_GATEWAY_ENDPOINT",
                format!("ws://{}", self.websocket.addr),
            ),
            ("FLOWS_AGENT_POOL_ID", self.pool.clone()),
            ("FLOWS_AGENT_POOL_TOKEN", self.token.clone()),
            ("AMQP_URL", self.amqp_through(&self.bridge_amqp)),
        ]
    }

    /// Starts or restarts one worker, through its chaos proxy.
    pub fn start_worker(&mut self, number: u32) {
        self.start_worker_with(number, &[]);
    }

    /// The same with other settings on top.
    pub fn start_worker_with(&mut self, number: u32, more: &[(&'static str, String)]) {
        let mut settings = vec![
            ("FLOWS_ENDPOINT", self.control.http.clone()),
            ("FLOWS_AGENT_POOL_ID", self.pool.clone()),
            ("FLOWS_POOL_SIZE", "1".to_owned()),
            ("AMQP_URL", self.amqp_through(&self.worker_amqp)),
            ("CONTAINER_HOST", self.podman.clone()),
            ("SLUICE_WORKER_NUMBER", (number + 10).to_string()),
        ];
        settings.extend_from_slice(more);
        let name = format!("worker-{number}");
        self.workers.retain(|worker| worker.role != name);
        self.workers
            .push(Process::spawn(self.dir.path(), &name, "worker", &settings));
    }

    /// Ends every worker in order.
    pub fn end_workers(&mut self) {
        for mut worker in std::mem::take(&mut self.workers) {
            worker.end();
        }
    }

    /// Waits until the gateway sees the bridge with so many workers.
    pub async fn connected(&mut self, workers: u32) {
        let start = Instant::now();
        loop {
            let pool = self.get(&format!("/api/v1/pools/{}", self.pool)).await;
            if pool["agents"][0]["workers"] == workers && pool["connected_agents"] == 1 {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not connected: {pool}\n{}",
                self.logs()
            );
            task::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Brings back whatever has died.
    pub fn revive(&mut self) {
        if self.bridge.as_mut().is_none_or(|bridge| !bridge.alive()) {
            self.start_bridge();
        }
        let dead: Vec<_> = self
            .workers
            .iter_mut()
            .filter_map(|worker| (!worker.alive()).then(|| worker.role.clone()))
            .collect();
        for role in dead {
            self.start_worker(
                role.trim_start_matches("worker-")
                    .parse()
                    .expect("a number"),
            );
        }
    }

    /// Starts the lending agent again, which has ended.
    pub fn start_agent_again(&mut self) {
        self.agent = Process::spawn(self.dir.path(), "agent", "agent", &self.lender);
    }

    pub async fn restart_gateway(&mut self) {
        let (http, agents) = (
            socket_addr(&self.control.http),
            socket_addr(&self.control.agents),
        );
        self.gateway.kill();
        self.gateway = Process::spawn(
            self.dir.path(),
            "gateway",
            "gateway",
            &gateway_settings(&http.to_string(), &agents.to_string()),
        );
    }

    /// Submits a job and answers with its id.
    pub async fn submit(&self, what: &Value) -> String {
        let job = self.post("/api/v1/jobs", &self.job(what)).await;
        job["id"].as_str().expect("a job has an id").to_owned()
    }

    /// Submits a job; `None` when the gateway is not there to take it.
    pub async fn try_submit(&self, what: &Value) -> Option<String> {
        let (api, key) = (&self.control.api, &self.control.key);
        let job = self.job(what);
        let asked = api.request("POST", "/api/v1/jobs", Some(key), Some(&job));
        match asked.await {
            Ok((200..=299, reply)) => Some(text(&reply["data"]["id"])),
            _ => None,
        }
    }

    /// Submits a job and waits for its end.
    pub async fn run(&self, what: &Value) -> Value {
        self.post("/api/v1/jobs?wait=60", &self.job(what)).await
    }

    pub async fn evaluate(&self, expression: &str) -> Value {
        self.run(&json!({"kind": "evaluate", "expressions": {"value": expression}}))
            .await
    }

    pub async fn wait(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{id}?wait=60")).await
    }

    /// Waits until a job is known to run.
    pub async fn started(&self, id: &str) {
        let start = Instant::now();
        while self.get(&format!("/api/v1/jobs/{id}")).await["state"] != "started" {
            assert!(
                start.elapsed() < PATIENCE,
                "job {id} does not start\n{}",
                self.logs()
            );
            task::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Like [`House::wait`], while the gateway may still be on its way up.
    pub async fn wait_after_restart(&self, id: &str) -> Value {
        let start = Instant::now();
        let path = format!("/api/v1/jobs/{id}?wait=60");
        loop {
            match self
                .control
                .api
                .request("GET", &path, Some(&self.control.key), None)
                .await
            {
                Ok((200, mut reply)) => return reply["data"].take(),
                other => assert!(start.elapsed() < PATIENCE, "{other:?}\n{}", self.logs()),
            }
            task::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Uploads a bundle as a new app; answers with the version's id.
    pub async fn upload(&self, code: &str) -> String {
        let app = self
            .post(
                "/api/v1/apps",
                &json!({"project": self.project, "name": "app"}),
            )
            .await;
        let path = format!(
            "/api/v1/apps/{}/versions",
            app["id"].as_str().expect("an id")
        );
        let version = self
            .post(&path, &json!({"version": "0.1.0", "code": code}))
            .await;
        version["id"].as_str().expect("an id").to_owned()
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, mut reply) = self.call("GET", path, None).await;
        assert!(status < 400, "GET {path}: {status} {reply}");
        reply["data"].take()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, mut reply) = self.call("POST", path, Some(body)).await;
        assert!(
            status < 400,
            "POST {path}: {status} {reply}\n{}",
            self.logs()
        );
        reply["data"].take()
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.control
            .api
            .request(method, path, Some(&self.control.key), body)
            .await
            .expect("the gateway answers")
    }

    /// The gateway's HTTP address.
    pub fn http(&self) -> &str {
        &self.control.http
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn amqp_url(&self) -> &Url {
        &self.amqp
    }

    /// What the lending agent has logged.
    pub fn agent_log(&self) -> String {
        self.agent.log()
    }

    /// The last words of every process, for a failing assertion.
    pub fn logs(&self) -> String {
        let processes = [&self.gateway, &self.agent]
            .into_iter()
            .chain(&self.bridge)
            .chain(&self.workers);
        processes
            .map(Process::log_tail)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn job(&self, what: &Value) -> Value {
        let mut job = what.clone();
        job["project"] = json!(self.project);
        job["pool"] = json!(self.pool);
        job
    }

    fn amqp_through(&self, chaos: &Chaos) -> String {
        let mut url = self.amqp.clone();
        url.set_port(Some(chaos.addr.port()))
            .expect("an address with a port");
        url.set_ip_host(chaos.addr.ip())
            .expect("an address with a host");
        url.to_string()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for process in self.workers.iter_mut().chain(&mut self.bridge) {
            process.end();
        }
        self.agent.end();
        self.gateway.end();
        if std::thread::panicking() {
            return;
        }
        let listed = Command::new("podman")
            .args(["ps", "--all", "--format", "{{.Names}} {{.Labels}}"])
            .output()
            .expect("podman lists containers");
        let agent = std::fs::read_to_string(self.dir.path().join("agent/id")).unwrap_or_default();
        let left: Vec<_> = String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter(|line| !agent.trim().is_empty() && line.contains(agent.trim()))
            .map(str::to_owned)
            .collect();
        assert!(left.is_empty(), "containers are left: {left:?}");
    }
}

fn gateway_settings(http: &str, agents: &str) -> [(&'static str, String); 2] {
    [
        ("SLUICE_GATEWAY_LISTEN", http.to_owned()),
        ("SLUICE_GATEWAY_AGENT_LISTEN", agents.to_owned()),
    ]
}

fn socket_addr(url: &str) -> SocketAddr {
    let url = Url::parse(url).expect("an address");
    *url.socket_addrs(|| None)
        .expect("a port")
        .first()
        .expect("an address")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
