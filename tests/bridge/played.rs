//! A bridge in this process, and the peers it talks to, played by the test: a
//! gateway that hears and says frames, and a worker on the real broker.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::net::TcpListener;
use async_std::task;
use sluice::bridge;
use sluice::config::{BridgeConfig, EgressConfig};
use sluice::queue::Link;
use sluice::shutdown::Shutdown;
use sluice::telemetry::now_us;
use sluice::wire::{self, Pending};
use sluice_proto::PROTOCOL;
use sluice_proto::frame::{AgentStatus, FromBridge, FromGateway, Hello, Numbered, Taken};
use sluice_proto::ids::{JobId, PoolId, ProjectId, SessionId};
use sluice_proto::job::{Attempt, Identity, Job, Kind, Priority};
use sluice_proto::queue::{Names, Presence, WorkerState};
use sluice_proto::report::{Body, Finished, Hops, Outcome, Report};
use url::Url;

use crate::support::chaos::{Chaos, Wire};

/// How long anything may take before it counts as never.
pub const SOON: Duration = Duration::from_secs(15);

/// A bridge, its broker behind a chaos proxy, and the two peers it talks to.
pub struct Rig {
    url: String,
    pub pool: PoolId,
    pub chaos: Chaos,
    listener: TcpListener,
    pub worker: Link,
    config: BridgeConfig,
    pub shutdown: Shutdown,
    pub bridge: Option<task::JoinHandle<i32>>,
    _dir: tempfile::TempDir,
    alive: Option<task::JoinHandle<()>>,
}

/// The gateway's end of one session.
pub struct Session {
    sender: wire::Sender<FromGateway>,
    pub receiver: wire::Receiver<FromBridge>,
    pub hello: Hello,
}

// === impl Rig ===

impl Rig {
    pub async fn start(url: &str) -> Self {
        let mut rig = Self::start_without_worker(url).await;
        rig.present(None).await;
        rig
    }

    /// From now on a worker says how it is, over and over.
    pub async fn present(&mut self, refusing: Option<&'static str>) {
        self.silent().await;
        let worker = self.worker.clone();
        self.alive = Some(spawn(async move {
            while worker.publish_presence(&presence(refusing)).await.is_ok() {
                task::sleep(Duration::from_millis(300)).await;
            }
        }));
    }

    /// From now on no worker says anything.
    pub async fn silent(&mut self) {
        if let Some(alive) = self.alive.take() {
            alive.cancel().await;
        }
    }

    pub async fn start_without_worker(url: &str) -> Self {
        let pool = PoolId(format!("test-{}", uuid::Uuid::now_v7()));
        let mut through = Url::parse(url).expect("an address");
        let broker = SocketAddr::from(([127, 0, 0, 1], through.port().expect("a port")));
        let chaos = Chaos::start(Wire::Amqp, broker).await;
        through
            .set_ip_host(chaos.addr.ip())
            .expect("an address with a host");
        through
            .set_port(Some(chaos.addr.port()))
            .expect("an address with a port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let gateway = listener.local_addr().expect("bound");
        let dir = tempfile::tempdir().expect("a directory");
        let config = BridgeConfig {
            gateway: Url::parse(&format!("ws://{gateway}")).expect("an address"),
            pool_id: pool.to_string(),
            pool_token: "t".into(),
            amqp_url: through.to_string(),
            data_dir: dir.path().to_owned(),
            egress: EgressConfig::default(),
            disk_free_bytes_min: 1,
            drain: Duration::from_secs(30),
        };
        let names = Names::of(&pool);
        let mut rig = Self {
            url: url.to_owned(),
            pool,
            chaos,
            listener,
            worker: Link::connect(url, "host/1/0", &names)
                .await
                .expect("a link"),
            config,
            shutdown: Shutdown::new(),
            bridge: None,
            _dir: dir,
            alive: None,
        };
        let (shutdown, bridge) = rig.bridge();
        rig.shutdown = shutdown;
        rig.bridge = Some(bridge);
        rig
    }

    /// One more bridge with the same settings.
    pub fn bridge(&self) -> (Shutdown, task::JoinHandle<i32>) {
        let (config, shutdown) = (self.config.clone(), Shutdown::new());
        let running = bridge::run(config, shutdown.clone());
        (shutdown, spawn(running))
    }

    pub async fn link(&self) -> Link {
        let names = Names::of(&self.pool);
        Link::connect(&self.url, "host/2/0", &names)
            .await
            .expect("a link")
    }

    pub async fn pending(&self) -> Pending {
        let accepting = timeout(SOON, self.listener.accept()).await;
        let (stream, _) = accepting.expect("in time").expect("a connection");
        wire::accept(stream).await.expect("a request")
    }

    pub async fn session(&self) -> Session {
        let pending = self.pending().await;
        assert_eq!(
            (pending.pool.as_str(), pending.token.as_str()),
            (self.pool.as_str(), "t")
        );
        let (mut sender, mut receiver) = pending.accept().await.expect("open");
        let hello = match receiver.next().await.expect("a frame") {
            Some(FromBridge::Hello(hello)) => hello,
            other => panic!("no hello: {other:?}"),
        };
        let welcome = FromGateway::Welcome {
            protocol: PROTOCOL,
            session: SessionId::from("s"),
            version: "test".into(),
        };
        sender.send(&welcome).await.expect("written");
        Session {
            sender,
            receiver,
            hello,
        }
    }

    pub async fn stop(&mut self) {
        self.shutdown.drain();
        let bridge = self.bridge.take().expect("it runs");
        assert_eq!(timeout(SOON, bridge).await.expect("in time"), 0);
        self.silent().await;
    }

    pub async fn nothing_is_left(&self) {
        let start = Instant::now();
        loop {
            let depths = self.worker.depth().await.expect("a look");
            if depths.jobs + depths.reports + depths.retry + depths.dead == 0 {
                return;
            }
            assert!(start.elapsed() < SOON, "{depths:?}");
            task::sleep(Duration::from_millis(20)).await;
        }
    }
}

// === impl Session ===

impl Session {
    pub async fn heard(&mut self) -> Option<FromBridge> {
        let frame = timeout(SOON, self.receiver.next()).await;
        frame.expect("a frame in time").ok().flatten()
    }

    /// Hears frames until one is what is wanted.
    pub async fn until<T>(&mut self, mut wanted: impl FnMut(FromBridge) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < SOON * 2, "it is never said");
            let frame = self.heard().await.expect("the session goes on");
            if let Some(found) = wanted(frame) {
                return found;
            }
        }
    }

    pub async fn say(&mut self, frame: &FromGateway) {
        self.sender.send(frame).await.expect("written");
    }

    pub async fn dispatch(&mut self, jobs: Vec<Job>) {
        self.say(&FromGateway::Dispatch { jobs }).await;
    }

    pub async fn accepted(&mut self, count: usize) -> Vec<Taken> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(
                self.until(|frame| match frame {
                    FromBridge::Accepted { jobs } => Some(jobs),
                    FromBridge::Rejected { reason, .. } => panic!("rejected: {reason}"),
                    _ => None,
                })
                .await,
            );
        }
        all
    }

    pub async fn rejected(&mut self) -> (Taken, String) {
        self.until(|frame| match frame {
            FromBridge::Rejected {
                job,
                dispatch,
                reason,
            } => Some((Taken { job, dispatch }, reason)),
            _ => None,
        })
        .await
    }

    pub async fn reports(&mut self, count: usize) -> Vec<Numbered> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(
                self.until(|frame| match frame {
                    FromBridge::Reports { items } => Some(items),
                    _ => None,
                })
                .await,
            );
        }
        all
    }

    pub async fn received(&mut self, items: &[Numbered]) {
        let numbers = items.iter().map(|item| item.number).collect();
        self.say(&FromGateway::Received { numbers }).await;
    }

    pub async fn window_open(&mut self) {
        self.until(|frame| matches!(frame, FromBridge::Window { jobs: 1.., .. }).then_some(()))
            .await;
    }

    pub async fn window_shut(&mut self) -> String {
        self.until(|frame| match frame {
            // The first link to the broker takes a moment; that is another test's matter.
            FromBridge::Window { jobs: 0, reason } => {
                reason.filter(|why| !why.contains("being connected"))
            }
            _ => None,
        })
        .await
    }

    pub async fn status_with(&mut self, wanted: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
        self.until(|frame| match frame {
            FromBridge::Heartbeat(status) if wanted(&status) => Some(status),
            _ => None,
        })
        .await
    }

    pub async fn goodbye(&mut self) {
        self.until(|frame| matches!(frame, FromBridge::Goodbye { .. }).then_some(()))
            .await;
        assert!(self.heard().await.is_none(), "nothing follows a goodbye");
    }
}

pub fn presence(refusing: Option<&str>) -> Presence {
    Presence {
        worker: "host/1/0".into(),
        state: WorkerState::Running,
        slots: 4,
        in_flight: 1,
        runtimes: 0,
        refusing: refusing.map(str::to_owned),
        at_us: now_us(),
        link: 1,
        holds: None,
    }
}

pub fn job(pool: &PoolId, dispatch: u32) -> Job {
    Job {
        id: JobId(uuid::Uuid::now_v7().to_string()),
        kind: Kind::Evaluate,
        priority: Priority::Normal,
        pool: pool.clone(),
        project: ProjectId::from("q"),
        identity: Identity::Flow { flow: "f".into() },
        dispatch,
        created_us: now_us(),
        timeout_ms: 1_000,
        expires_ms: None,
        block: None,
        token: "secret".into(),
        traceparent: None,
        payload: b"{}".to_vec(),
    }
}

pub fn taken(job: &Job) -> Taken {
    Taken {
        job: job.id.clone(),
        dispatch: job.dispatch,
    }
}

pub fn end(job: &Job) -> Report {
    Report {
        job: job.id.clone(),
        attempt: Attempt {
            dispatch: job.dispatch,
            delivery: 1,
        },
        worker: "host/1/0".into(),
        at_us: now_us(),
        body: Body::Finished(Box::new(Finished {
            outcome: Outcome::Succeeded {
                result: b"{}".to_vec(),
            },
            runtime: None,
            hops: Hops::default(),
            log: Vec::new(),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        })),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests own their tasks by awaiting them or ending"
)]
pub fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> task::JoinHandle<T> {
    task::spawn(future)
}
