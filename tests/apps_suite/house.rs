//! One house for all tests of this binary: a gateway, and an agent of the
//! default pool with its own broker, workers and containers. The first test that
//! enters starts it, the last one that leaves ends it and fails if a container
//! is left.
//!
//! It stands in a network of its own (`compose/alone.sh`) in which `MIRROR` is
//! an address that leads to the loopback and is not the host's: what a test
//! serves, and the gateway itself, can be reached by apps.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_std::sync::Mutex;
use async_std::task;
use serde_json::{Value, json};
use sluice::api_client::ApiClient;
use sluice::config::EgressConfig;
use url::Url;

use crate::support::process::{PATIENCE, Process};
use crate::support::{env, repository};
use crate::web::request;

/// Ports are free: the network is the test's own.
const HTTP_PORT: u16 = 8080;
const AGENTS_PORT: u16 = 8081;
/// What apps reach: the gateway, and a database.
const REACHED_PORTS: [u16; 2] = [HTTP_PORT, 5432];

/// Names of installations differ within a project.
static INSTALLED: AtomicU32 = AtomicU32::new(0);
static HOUSE: Mutex<Weak<House>> = Mutex::new(Weak::new());

pub struct House {
    gateway: Process,
    /// There from the end of the start on.
    agent: Option<Process>,
    api: ApiClient,
    key: String,
    pub project: String,
    // Last, because the others keep their files in it.
    dir: tempfile::TempDir,
}

/// An app that is installed.
pub struct App {
    pub house: Arc<House>,
    pub id: String,
    /// Where outsiders reach it.
    pub url: String,
}

// === impl House ===

impl House {
    /// The house, started if nobody is in it.
    pub async fn enter() -> Arc<Self> {
        let mut slot = HOUSE.lock().await;
        if let Some(house) = slot.upgrade() {
            return house;
        }
        let house = Arc::new(Self::start().await);
        *slot = Arc::downgrade(&house);
        house
    }

    async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sluice-t-")
            .tempdir()
            .expect("a scratch directory");
        let http = format!("http://127.0.0.1:{HTTP_PORT}");
        let settings = [
            ("SLUICE_GATEWAY_LISTEN", format!("127.0.0.1:{HTTP_PORT}")),
            (
                "SLUICE_GATEWAY_AGENT_LISTEN",
                format!("127.0.0.1:{AGENTS_PORT}"),
            ),
            (
                "SLUICE_PUBLIC_URL",
                format!("http://{}:{HTTP_PORT}", mirror()),
            ),
        ];
        let mut gateway = Process::spawn(dir.path(), "gateway", "gateway", &settings);
        crate::support::process::until("the gateway listens", || {
            gateway.assert_alive();
            dir.path()
                .join("gateway/listen.json")
                .exists()
                .then_some(())
        })
        .await;
        let url = Url::parse(&http).expect("an address");
        let key = std::fs::read_to_string(dir.path().join("gateway/admin.key"));
        let mut house = Self {
            api: ApiClient::new(&url, &EgressConfig::default()).expect("an HTTP client"),
            key: key.expect("an admin key").trim().to_owned(),
            project: String::new(),
            agent: None,
            gateway,
            dir,
        };
        house.project = id(&house
            .post("/api/v1/projects", &json!({"name": "apps"}))
            .await);
        house.begin_agent(&http).await;
        house
    }

    /// An agent of the default pool, which runs apps and expressions alike.
    async fn begin_agent(&mut self, http: &str) {
        let pools = self.get("/api/v1/pools").await;
        let mut pools = pools.as_array().expect("a list").iter();
        let pool = id(pools
            .find(|pool| pool["default"] == true)
            .expect("a default pool"));
        let path = format!("/api/v1/pools/{pool}/rotate");
        let token = self.post(&path, &json!({"overlap_s": 0})).await;
        let token = token["token"].as_str().expect("a token").to_owned();
        let agent = self
            .agent
            .insert(Self::agent(self.dir.path(), http, &pool, &token));
        agent.assert_alive();
        let path = format!("/api/v1/pools/{pool}");
        let start = Instant::now();
        while self.get(&path).await["agents"][0]["workers"] != 2 {
            assert!(start.elapsed() < PATIENCE, "no agent:\n{}", self.logs());
            task::sleep(Duration::from_millis(50)).await;
        }
    }

    fn agent(dir: &Path, http: &str, pool: &str, token: &str) -> Process {
        let reached = REACHED_PORTS.map(|port| format!("{}/32:{port}", mirror()));
        let settings = [
            (
                "FLOWS_GATEWAY_ENDPOINT",
                format!("ws://127.0.0.1:{AGENTS_PORT}"),
            ),
            ("FLOWS_ENDPOINT", http.to_owned()),
            ("FLOWS_AGENT_POOL_ID", pool.to_owned()),
            ("FLOWS_AGENT_POOL_TOKEN", token.to_owned()),
            ("FLOWS_POOL_SIZE", "2".to_owned()),
            ("SLUICE_WORKERS", "2".to_owned()),
            ("SLUICE_RUNTIME_NETWORK", "private".to_owned()),
            ("SLUICE_RUNTIME_NETWORK_ALLOW", reached.join(",")),
        ];
        Process::spawn(dir, "agent", "agent", &settings)
    }

    // === Its API ===

    pub async fn get(&self, path: &str) -> Value {
        self.good("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.good("POST", path, Some(body)).await
    }

    async fn good(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, mut reply) = self.call(method, path, body).await;
        let logs = || self.logs();
        assert!(
            status < 400,
            "{method} {path}: {status} {reply}\n{}",
            logs()
        );
        reply["data"].take()
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let asked = self.api.request(method, path, Some(&self.key), body);
        asked.await.expect("the gateway answers")
    }

    /// Gives the project a secret.
    pub async fn secret(&self, key: &str, value: &str) {
        let path = format!("/api/v1/projects/{}/secrets/{key}", self.project);
        let (status, reply) = self
            .call("PUT", &path, Some(&json!({"value": value})))
            .await;
        assert_eq!(status, 200, "{reply}");
    }

    // === Apps ===

    /// Installs an app of `tests/apps` with a config (field → JavaScript source),
    /// confirms it, and waits until it is ready.
    pub async fn install(self: &Arc<Self>, name: &str, config: Value) -> App {
        let number = INSTALLED.fetch_add(1, Ordering::Relaxed);
        let app = self.draft(name, &format!("{name} {number}"), config).await;
        app.confirm().await;
        app.status("ready").await;
        app
    }

    /// The same for the app that wants its user to log in first.
    pub async fn install_logged_in(self: &Arc<Self>, name: &str) -> App {
        let number = INSTALLED.fetch_add(1, Ordering::Relaxed);
        let app = self
            .draft(name, &format!("{name} {number}"), json!({}))
            .await;
        app.confirm().await;
        self.until("the app asks for its user", async || {
            app.shown().await["prompts"].get("login").map(|_| ())
        })
        .await;
        let headers = [("content-type", "application/json")];
        let body = br#"{"user": "ada"}"#;
        request("POST", &format!("{}/login", app.url), &headers, body).await;
        app.status("ready").await;
        app
    }

    /// Installs an app under a name of its own, and no more.
    pub async fn draft(self: &Arc<Self>, bundle: &str, name: &str, config: Value) -> App {
        let version = self.publish(bundle).await;
        let installation = json!({
            "project": self.project, "name": name, "version": version, "config": config,
        });
        let installation = self.post("/api/v1/installations", &installation).await;
        App {
            house: self.clone(),
            id: id(&installation),
            url: installation["url"].as_str().expect("an address").to_owned(),
        }
    }

    async fn publish(&self, bundle: &str) -> String {
        let path = repository().join(format!("target/apps/{bundle}.mjs"));
        let code = std::fs::read_to_string(&path);
        let code = code.unwrap_or_else(|error| {
            panic!(
                "{}: {error}: run `make test`, which builds it",
                path.display()
            )
        });
        let app = json!({"project": self.project, "name": bundle});
        let app = id(&self.post("/api/v1/apps", &app).await);
        let version = json!({"version": "1.0.0", "code": code});
        id(&self
            .post(&format!("/api/v1/apps/{app}/versions"), &version)
            .await)
    }

    /// The last words of every process, for a failing assertion.
    pub fn logs(&self) -> String {
        let processes = self.agent.iter().chain([&self.gateway]);
        processes.map(Process::log_tail).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.end();
        }
        self.gateway.end();
        if std::thread::panicking() {
            return;
        }
        let agent = std::fs::read_to_string(self.dir.path().join("agent/id")).unwrap_or_default();
        let filter = format!("label=io.sluice.agent={}", agent.trim());
        let listed = Command::new("podman")
            .args(["ps", "--all", "--quiet", "--filter", &filter])
            .output()
            .expect("podman lists containers");
        let left = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(left.is_empty(), "containers are left: {left}");
    }
}

// === impl App ===

impl App {
    fn path(&self) -> String {
        format!("/api/v1/installations/{}", self.id)
    }

    pub async fn shown(&self) -> Value {
        self.house.get(&self.path()).await
    }

    pub async fn confirm(&self) -> Value {
        let path = format!("{}/confirm", self.path());
        self.house.post(&path, &json!({})).await
    }

    pub async fn sync(&self) {
        let path = format!("{}/sync", self.path());
        self.house.post(&path, &json!({})).await;
    }

    pub async fn configure(&self, config: Value) {
        let path = format!("{}/config", self.path());
        let body = json!({"config": config});
        let (status, reply) = self.house.call("PATCH", &path, Some(&body)).await;
        assert_eq!(status, 200, "{reply}");
    }

    pub async fn delete(&self) {
        let (status, reply) = self.house.call("DELETE", &self.path(), None).await;
        assert_eq!(status, 200, "{reply}");
    }

    pub async fn is_gone(&self) {
        self.house
            .until("the installation is gone", async || {
                let (status, _) = self.house.call("GET", &self.path(), None).await;
                (status == 404).then_some(())
            })
            .await;
    }

    /// Waits for a status; answers what is shown then.
    pub async fn status(&self, wanted: &str) -> Value {
        let what = format!("the app is {wanted}");
        let shown = async || {
            let shown = self.shown().await;
            (shown["status"] == wanted).then_some(shown)
        };
        self.house.until(&what, shown).await
    }

    /// The values that it keeps, by key, in the order of the API.
    pub async fn kv(&self, prefix: &str) -> Vec<(String, Value)> {
        pairs(&self.house, &format!("{}/kv?prefix={prefix}", self.path())).await
    }

    /// The lines that its own handlers wrote.
    pub async fn log(&self) -> Vec<String> {
        let lines = self.house.get(&format!("{}/log", self.path())).await;
        texts(&lines)
    }
}

/// Values of a key-value store with their keys.
pub async fn pairs(house: &House, path: &str) -> Vec<(String, Value)> {
    let page = house.get(path).await;
    let pairs = page["pairs"].as_array().expect("a list").iter();
    let text = |pair: &Value| pair["key"].as_str().expect("a key").to_owned();
    pairs
        .map(|pair| (text(pair), pair["value"].clone()))
        .collect()
}

/// The texts of log lines.
pub fn texts(lines: &Value) -> Vec<String> {
    let lines = lines.as_array().expect("a list").iter();
    lines
        .map(|line| line["text"].as_str().expect("a text").to_owned())
        .collect()
}

pub fn id(shown: &Value) -> String {
    shown["id"].as_str().expect("an id").to_owned()
}

/// An address that leads to the loopback and is not the host's own.
pub fn mirror() -> String {
    env("TEST_MIRROR").expect("TEST_MIRROR: run `make test ARGS=apps`, which makes the network")
}

// === Waiting ===

impl House {
    /// Looks until there is something to see.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            let waited = start.elapsed();
            assert!(waited < PATIENCE, "not in time: {what}\n{}", self.logs());
            task::sleep(Duration::from_millis(30)).await;
        }
    }
}
