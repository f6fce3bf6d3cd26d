//! A gateway in this process, a bare HTTP client, and a bridge that does what a test says.

use std::path::Path;
use std::time::Duration;

use async_std::channel;
use async_std::future::timeout;
use async_std::io::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use serde_json::{Value, json};
use sluice::config::{EgressConfig, GatewayConfig};
use sluice::shutdown::{Shutdown, spawn_detached};
use sluice::wire::{self, Receiver, Sender};
use sluice_proto::PROTOCOL;
use sluice_proto::frame::{AgentStatus, FromBridge, FromGateway, Hello, Numbered, Taken};
use sluice_proto::ids::{JobId, PoolId};
use sluice_proto::job::{Attempt, Job};
use sluice_proto::report::{Body, Finished, Hops, Origin, Outcome, Report, RuntimeUse};
use url::Url;

/// How long anything may take before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Fixture {
    dir: tempfile::TempDir,
    shutdown: Shutdown,
    ended: channel::Receiver<i32>,
    pub http: String,
    pub agents: Url,
    pub key: String,
    pub project: String,
    pub pool: String,
    pub token: String,
}

/// One keep-alive connection.
pub struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

pub struct Bridge {
    pub sender: Sender<FromBridge>,
    pub receiver: Receiver<FromGateway>,
    number: u64,
}

// === impl Fixture ===

impl Fixture {
    pub async fn start() -> Self {
        Self::start_at(None).await
    }

    /// With an endpoint domain.
    pub async fn start_at(domain: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut fixture = Self::over(dir, domain).await;
        let project = fixture
            .post("/api/v1/projects", &json!({"name": "p"}))
            .await;
        let pool = fixture.post("/api/v1/pools", &json!({"name": "p"})).await;
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        fixture.project = text(&project["id"]);
        (fixture.pool, fixture.token) = (text(&pool["id"]), text(&pool["token"]));
        let path = format!(
            "/api/v1/pools/{}/projects/{}",
            fixture.pool, fixture.project
        );
        assert_eq!(fixture.call("PUT", &path, None).await.0, 200);
        fixture
    }

    async fn over(dir: tempfile::TempDir, domain: Option<&str>) -> Self {
        let shutdown = Shutdown::new();
        let config = GatewayConfig {
            data_dir: dir.path().to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            agent_listen: "127.0.0.1:0".to_owned(),
            public_url: None,
            endpoint_domain: domain.map(str::to_owned),
            disk_free_bytes_min: 0,
            registry_poll: Duration::from_secs(3_600),
            egress: EgressConfig::default(),
            drain: Duration::from_secs(10),
        };
        let (tell, ended) = channel::bounded(1);
        let wish = shutdown.clone();
        spawn_detached(async move {
            let code = sluice::gateway::run(config, wish).await;
            let _ = tell.send(code).await;
        });
        let listen = until("the gateway listens", async || {
            let text = std::fs::read(dir.path().join("gateway/listen.json")).ok()?;
            serde_json::from_slice::<Value>(&text).ok()
        })
        .await;
        let key = std::fs::read_to_string(dir.path().join("gateway/admin.key")).expect("a key");
        let text = |name: &str| listen[name].as_str().expect("an address").to_owned();
        Self {
            shutdown,
            ended,
            http: text("http").trim_start_matches("http://").to_owned(),
            agents: Url::parse(&text("agents")).expect("an address"),
            key: key.trim().to_owned(),
            project: String::new(),
            pool: String::new(),
            token: String::new(),
            dir,
        }
    }

    /// Drains the gateway; answers with its exit code.
    pub async fn stop(&self) -> i32 {
        self.shutdown.drain();
        timeout(PATIENCE, self.ended.recv())
            .await
            .expect("the gateway ends")
            .expect("it says its exit code")
    }

    /// Another gateway over the same data.
    pub async fn restart(self) -> Self {
        assert_eq!(self.stop().await, 0);
        let (project, pool, token) = (self.project, self.pool, self.token);
        let mut next = Self::over(self.dir, None).await;
        (next.project, next.pool, next.token) = (project, pool, token);
        next
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.http).await
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.call_as(&self.key, method, path, body.as_bytes()).await
    }

    pub async fn call_as(&self, key: &str, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let mut client = self.client().await;
        let answer = client.request(method, path, key, body).await;
        let value = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&answer.body)));
        (answer.status, value)
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, mut reply) = self.call("GET", path, None).await;
        assert!(status < 300, "GET {path}: {status} {reply}");
        reply["data"].take()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, mut reply) = self.call("POST", path, Some(body)).await;
        assert!(status < 300, "POST {path}: {status} {reply}");
        reply["data"].take()
    }

    pub fn job(&self, expression: &str) -> Value {
        json!({
            "project": self.project, "pool": self.pool, "kind": "evaluate",
            "expressions": {"value": expression},
        })
    }

    pub async fn submit(&self, expression: &str) -> String {
        let job = self.post("/api/v1/jobs", &self.job(expression)).await;
        job["id"].as_str().expect("an id").to_owned()
    }

    pub async fn look(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{id}")).await
    }

    pub async fn wait(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{id}?wait=20")).await
    }

    /// A bridge that is let in, with credit.
    pub async fn bridge(&self, agent: &str, window: u32) -> Bridge {
        let mut bridge = Bridge::dial(self, &self.token).await.expect("a session");
        bridge.hello(&self.pool, agent, PROTOCOL).await;
        let welcome = bridge.next().await;
        assert!(
            matches!(
                welcome,
                FromGateway::Welcome {
                    protocol: PROTOCOL,
                    ..
                }
            ),
            "{welcome:?}"
        );
        bridge.window(window, None).await;
        bridge
    }

    /// Waits until the pool has so many agents.
    pub async fn connected(&self, agents: u64) {
        until("the agents are counted", async || {
            let pool = self.get(&format!("/api/v1/pools/{}", self.pool)).await;
            (pool["connected_agents"] == agents).then_some(())
        })
        .await;
    }
}

// === impl Client ===

impl Client {
    pub async fn connect(http: &str) -> Self {
        let stream = TcpStream::connect(http).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    pub async fn request(&mut self, method: &str, path: &str, key: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        // A refusal may come before the body is read; what is left unsent is no error then.
        let _ = self.stream.write_all(&request).await;
        timeout(Duration::from_secs(60), self.answer())
            .await
            .expect("an answer")
    }

    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> Answer {
        self.stream
            .write_all(bytes)
            .await
            .expect("the connection lives");
        timeout(PATIENCE, self.answer()).await.expect("an answer")
    }

    async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            self.more().await;
        };
        let head = String::from_utf8_lossy(&self.bytes[..end]).to_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |text| text.trim().parse().expect("a length"));
        while self.bytes.len() < end + 4 + length {
            self.more().await;
        }
        let body = self.bytes[end + 4..end + 4 + length].to_vec();
        self.bytes.drain(..end + 4 + length);
        let status = head
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a number");
        Answer { status, head, body }
    }

    async fn more(&mut self) {
        let mut chunk = vec![0; 64 * 1024];
        let read = self
            .stream
            .read(&mut chunk)
            .await
            .expect("the connection lives");
        assert!(
            read > 0,
            "closed after {}",
            String::from_utf8_lossy(&self.bytes)
        );
        self.bytes.extend_from_slice(&chunk[..read]);
    }
}

// === impl Bridge ===

impl Bridge {
    pub async fn dial(fixture: &Fixture, token: &str) -> Result<Self, wire::Error> {
        Self::dial_pool(fixture, &fixture.pool, token).await
    }

    pub async fn dial_pool(
        fixture: &Fixture,
        pool: &str,
        token: &str,
    ) -> Result<Self, wire::Error> {
        let egress = EgressConfig::default();
        let (sender, receiver) = wire::dial(&fixture.agents, pool, token, &egress).await?;
        Ok(Self {
            sender,
            receiver,
            number: 0,
        })
    }

    pub async fn hello(&mut self, pool: &str, agent: &str, protocol: u16) {
        let hello = FromBridge::Hello(Hello {
            protocol,
            version: "0.0.1-test".to_owned(),
            pool: PoolId::from(pool),
            agent: agent.to_owned(),
            host: "testhost".to_owned(),
            started_ms: 1,
            status: AgentStatus {
                workers: 2,
                ..AgentStatus::default()
            },
        });
        self.send(&hello).await;
    }

    pub async fn window(&mut self, jobs: u32, reason: Option<&str>) {
        let reason = reason.map(str::to_owned);
        self.send(&FromBridge::Window { jobs, reason }).await;
    }

    pub async fn send(&mut self, frame: &FromBridge) {
        self.sender.send(frame).await.expect("the session lives");
    }

    pub async fn next(&mut self) -> FromGateway {
        self.maybe().await.expect("the session lives")
    }

    /// The next frame, or nothing once the gateway has closed.
    pub async fn maybe(&mut self) -> Option<FromGateway> {
        let next = timeout(PATIENCE, self.receiver.next()).await;
        next.expect("a frame in time").ok().flatten()
    }

    /// The next dispatched job.
    pub async fn job(&mut self) -> Job {
        loop {
            match self.next().await {
                FromGateway::Dispatch { mut jobs } => {
                    assert_eq!(jobs.len(), 1, "the test submits one at a time");
                    return jobs.remove(0);
                }
                FromGateway::Heartbeat | FromGateway::Received { .. } => {}
                other => panic!("{other:?} instead of a job"),
            }
        }
    }

    pub async fn accept(&mut self, job: &Job) {
        let taken = Taken {
            job: job.id.clone(),
            dispatch: job.dispatch,
        };
        self.send(&FromBridge::Accepted { jobs: vec![taken] }).await;
    }

    /// Sends a report and waits until it is received.
    pub async fn report(&mut self, report: Report) {
        self.number += 1;
        let number = self.number;
        let items = vec![Numbered { number, report }];
        self.send(&FromBridge::Reports { items }).await;
        loop {
            match self.next().await {
                FromGateway::Received { numbers } if numbers.contains(&number) => return,
                FromGateway::Heartbeat => {}
                other => panic!("{other:?} instead of Received"),
            }
        }
    }

    /// Accepts a job and reports its success.
    pub async fn finish(&mut self, job: &Job, delivery: u32, result: &str) {
        self.accept(job).await;
        self.report(finished(&job.id, job.dispatch, delivery, succeeded(result)))
            .await;
    }
}

pub fn succeeded(result: &str) -> Outcome {
    Outcome::Succeeded {
        result: result.as_bytes().to_vec(),
    }
}

pub fn finished(job: &JobId, dispatch: u32, delivery: u32, outcome: Outcome) -> Report {
    report(
        job,
        dispatch,
        delivery,
        Body::Finished(Box::new(Finished {
            outcome,
            runtime: Some(RuntimeUse {
                container: "sluice-test".to_owned(),
                origin: Origin::Warm,
            }),
            hops: Hops {
                received_us: 1,
                published_us: 1,
                delivered_us: 2,
                claimed_us: 3,
                started_us: 4,
                finished_us: 5,
                relayed_us: 6,
            },
            log: Vec::new(),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        })),
    )
}

pub fn report(job: &JobId, dispatch: u32, delivery: u32, body: Body) -> Report {
    Report {
        job: job.clone(),
        attempt: Attempt { dispatch, delivery },
        worker: format!("testhost/1/{delivery}"),
        at_us: 7,
        body,
    }
}

/// Looks until there is something to see.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        async_std::task::sleep(Duration::from_millis(5)).await;
    }
}
