//! The bridge between a real broker and a gateway and workers played by the
//! test: custody on both sides, windows, refusals, cancellations and the drain.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::net::TcpListener;
use async_std::task;
use sluice::bridge;
use sluice::config::{BridgeConfig, EXIT_REFUSED, EgressConfig};
use sluice::queue::Link;
use sluice::shutdown::Shutdown;
use sluice::telemetry::now_us;
use sluice::wire::{self, Pending};
use sluice_proto::PROTOCOL;
use sluice_proto::frame::{FromBridge, FromGateway, Hello, Numbered, Taken};
use sluice_proto::ids::{JobId, PoolId, ProjectId, SessionId};
use sluice_proto::job::{Attempt, Identity, Job, Kind, Priority};
use sluice_proto::queue::{BROKER_DELIVERY_LIMIT, Control, Names, Presence, WorkerState};
use sluice_proto::report::{Body, Cause, Finished, Hops, Outcome, Report};
use url::Url;

use crate::support::chaos::{Chaos, Wire};
use crate::support::house::House;

/// How long anything may take before it counts as never.
const SOON: Duration = Duration::from_secs(15);

#[async_std::test]
async fn the_bridge_keeps_its_promises() {
    let house = House::build().await;
    let url = house.amqp_url().to_string();
    a_job_and_its_report_cross_and_each_is_acknowledged_behind_custody(&url).await;
    reports_not_received_are_sent_again_in_the_next_session(&url).await;
    work_flows_only_while_somebody_takes_it(&url).await;
    a_cancellation_is_said_until_the_job_ends(&url).await;
    what_the_broker_gives_up_on_is_reported_as_poison(&url).await;
    a_lost_broker_stops_the_window_and_loses_nothing(&url).await;
    a_second_bridge_waits_for_the_first(&url).await;
    refused_credentials_end_the_bridge(&url).await;
    a_drain_answers_for_everything_and_says_goodbye(&url).await;
    thousands_of_jobs_flow_and_none_is_lost(&url).await;
}

async fn a_job_and_its_report_cross_and_each_is_acknowledged_behind_custody(url: &str) {
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    assert_eq!(session.hello.pool, rig.pool);
    assert_eq!(session.hello.protocol, PROTOCOL);
    session.window_open().await;
    let job = job(&rig.pool, 3);
    session.dispatch(vec![job.clone()]).await;
    assert_eq!(session.accepted(1).await, [taken(&job)]);
    let mut jobs = rig.worker.jobs(1).await.expect("consuming");
    let held = jobs.next().await.expect("the job");
    assert_eq!(held.item, job);
    assert!(held.received_us > 0);
    rig.worker
        .publish_report(&end(&job))
        .await
        .expect("confirmed");
    held.ack().await.expect("written");
    let items = session.reports(1).await;
    let Body::Finished(finished) = &items[0].report.body else {
        panic!("no end: {items:?}")
    };
    assert!(
        finished.hops.relayed_us > 0,
        "the bridge notes when it had it"
    );
    // Not received yet, so it is still the broker's: a dead bridge would give it back.
    session.received(&items).await;
    rig.stop().await;
    rig.nothing_is_left().await;
}

async fn reports_not_received_are_sent_again_in_the_next_session(url: &str) {
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    let ends: Vec<_> = (0..3).map(|_| end(&job(&rig.pool, 1))).collect();
    for report in &ends {
        rig.worker.publish_report(report).await.expect("confirmed");
    }
    let first = session.reports(3).await;
    session.received(&first[1..2]).await;
    drop(session);
    let mut session = rig.session().await;
    let again = session.reports(3).await;
    let jobs: Vec<_> = again.iter().map(|item| &item.report.job).collect();
    assert_eq!(jobs, ends.iter().map(|end| &end.job).collect::<Vec<_>>());
    assert_eq!(again[0].number, 1, "numbers begin anew");
    session.received(&again).await;
    rig.stop().await;
    rig.nothing_is_left().await;
}

async fn work_flows_only_while_somebody_takes_it(url: &str) {
    let mut rig = Rig::start_without_worker(url).await;
    let mut session = rig.session().await;
    let why = session.window_shut().await;
    assert_eq!(why, "No worker is alive.");
    rig.present(None).await;
    session.window_open().await;
    rig.present(Some("Podman does not answer.")).await;
    let why = session.window_shut().await;
    assert!(why.contains("Podman does not answer."), "{why}");
    let status = session.status_with(|status| status.workers == 1).await;
    assert!(status.refusing.is_some_and(|why| why.contains("Podman")));
    rig.silent().await;
    let status = session.status_with(|status| status.workers == 0).await;
    assert_eq!(status.in_flight, 0, "a silent worker is not counted");
    rig.stop().await;
}

async fn a_cancellation_is_said_until_the_job_ends(url: &str) {
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    let mut controls = rig.worker.controls().await.expect("listening");
    let job = job(&rig.pool, 1);
    session
        .say(&FromGateway::Cancel {
            jobs: vec![job.id.clone()],
            reason: "by hand".into(),
        })
        .await;
    let wanted = Control::Cancel {
        jobs: vec![job.id.clone()],
        reason: "by hand".into(),
    };
    for _ in 0..2 {
        let said = timeout(SOON, controls.next()).await.expect("in time");
        assert_eq!(said.expect("a control").split().0, wanted);
    }
    rig.worker
        .publish_report(&end(&job))
        .await
        .expect("confirmed");
    let items = session.reports(1).await;
    session.received(&items).await;
    // The next repeats would come 4 and 8 s after the last.
    let quiet = timeout(Duration::from_secs(5), controls.next()).await;
    assert!(quiet.is_err(), "it is still said after the end");
    rig.stop().await;
}

async fn what_the_broker_gives_up_on_is_reported_as_poison(url: &str) {
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    session.window_open().await;
    let job = job(&rig.pool, 2);
    session.dispatch(vec![job.clone()]).await;
    session.accepted(1).await;
    for _ in 0..=BROKER_DELIVERY_LIMIT {
        // A worker that dies with the job in its hands.
        let worker = rig.link().await;
        let mut jobs = worker.jobs(1).await.expect("consuming");
        let held = timeout(SOON, jobs.next()).await.expect("in time");
        drop(held.expect("the job"));
        worker.close().await;
    }
    let items = session.reports(1).await;
    let report = &items[0].report;
    assert_eq!(report.job, job.id);
    assert_eq!(report.attempt.dispatch, 2);
    assert!(report.attempt.delivery > BROKER_DELIVERY_LIMIT);
    let Body::Finished(finished) = &report.body else {
        panic!("no end: {report:?}")
    };
    let Outcome::Failed(failure) = &finished.outcome else {
        panic!("no failure: {finished:?}")
    };
    assert_eq!(failure.cause, Cause::Poison);
    session.received(&items).await;
    rig.stop().await;
    assert_eq!(
        rig.worker.depth().await.expect("a look").dead,
        1,
        "kept to look at"
    );
}

async fn a_lost_broker_stops_the_window_and_loses_nothing(url: &str) {
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    let report = end(&job(&rig.pool, 1));
    rig.worker.publish_report(&report).await.expect("confirmed");
    let before = session.reports(1).await;
    rig.chaos.refuse(true);
    rig.chaos.cut();
    let why = session.window_shut().await;
    assert!(why.contains("no broker"), "{why}");
    let refused = job(&rig.pool, 1);
    session.dispatch(vec![refused.clone()]).await;
    let (back, reason) = session.rejected().await;
    assert_eq!(back, taken(&refused));
    assert!(reason.contains("no broker"), "{reason}");
    rig.chaos.refuse(false);
    let started = Instant::now();
    let (mut open, mut after) = (false, Vec::new());
    session
        .until(|frame| {
            match frame {
                FromBridge::Window { jobs, .. } => open = jobs > 0,
                FromBridge::Reports { items } => after = items,
                _ => {}
            }
            (open && !after.is_empty()).then_some(())
        })
        .await;
    assert!(started.elapsed() < Duration::from_secs(5), "back too late");
    assert_eq!(
        after[0].report.job, before[0].report.job,
        "it was delivered again"
    );
    assert!(after[0].number > before[0].number);
    session.received(&before).await;
    session.received(&after).await;
    rig.stop().await;
    rig.nothing_is_left().await;
}

async fn a_second_bridge_waits_for_the_first(url: &str) {
    let mut rig = Rig::start(url).await;
    let mut first = rig.session().await;
    first.window_open().await;
    let (second_shutdown, second) = rig.bridge();
    let mut other = rig.session().await;
    let why = other.window_shut().await;
    assert!(why.contains("another bridge"), "{why}");
    rig.shutdown.drain();
    first.goodbye().await;
    let code = timeout(SOON, rig.bridge.take().expect("it runs")).await;
    assert_eq!(code.expect("in time"), 0);
    other.window_open().await;
    second_shutdown.drain();
    assert_eq!(timeout(SOON, second).await.expect("in time"), 0);
}

async fn refused_credentials_end_the_bridge(url: &str) {
    let rig = Rig::start(url).await;
    let started = Instant::now();
    rig.pending()
        .await
        .refuse(401, "The token is unknown.")
        .await;
    let code = timeout(SOON, rig.bridge.expect("it runs")).await;
    assert_eq!(code.expect("in time"), EXIT_REFUSED);
    assert!(started.elapsed() < Duration::from_secs(10), "told too late");

    let mut rig = Rig::start(url).await;
    drop(rig.session().await);
    let mut refusals = 0;
    let bridge = rig.bridge.take().expect("it runs");
    let refusing = async {
        loop {
            rig.pending()
                .await
                .refuse(401, "The token is unknown.")
                .await;
            refusals += 1;
        }
    };
    let ended = futures::future::select(Box::pin(bridge), Box::pin(refusing));
    let code = match timeout(SOON * 2, ended).await.expect("in time") {
        futures::future::Either::Left((code, _)) => code,
        futures::future::Either::Right(((), _)) => unreachable!("it refuses for ever"),
    };
    assert_eq!(code, EXIT_REFUSED);
    assert!(refusals > 2, "a rotation needs a few tries, not {refusals}");
}

async fn a_drain_answers_for_everything_and_says_goodbye(url: &str) {
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    session.window_open().await;
    let last = job(&rig.pool, 1);
    rig.worker
        .publish_report(&end(&last))
        .await
        .expect("confirmed");
    let items = session.reports(1).await;
    session.dispatch(vec![last.clone()]).await;
    rig.shutdown.drain();
    let why = session.window_shut().await;
    assert!(why.contains("draining"), "{why}");
    session.accepted(1).await;
    session.received(&items).await;
    session.goodbye().await;
    let code = timeout(SOON, rig.bridge.take().expect("it runs")).await;
    assert_eq!(code.expect("in time"), 0);
    let depths = rig.worker.depth().await.expect("a look");
    assert_eq!((depths.reports, depths.jobs), (0, 1), "accepted, and kept");
}

async fn thousands_of_jobs_flow_and_none_is_lost(url: &str) {
    const JOBS: usize = 4_000;
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    session.window_open().await;
    let worker = rig.link().await;
    let echo = spawn(async move {
        let mut jobs = worker.jobs(256).await.expect("consuming");
        for _ in 0..JOBS {
            let held = jobs.next().await.expect("a job");
            let (worker, report) = (worker.clone(), end(&held.item));
            drop(spawn(async move {
                worker.publish_report(&report).await.expect("confirmed");
                held.ack().await.expect("written");
            }));
        }
        worker
    });
    let started = Instant::now();
    let (mut sent, mut ended) = (0, 0);
    while ended < JOBS {
        if sent < JOBS && sent - ended < 512 {
            let some = (JOBS - sent).min(64);
            session
                .dispatch((0..some).map(|_| job(&rig.pool, 1)).collect())
                .await;
            sent += some;
        }
        if let Some(FromBridge::Reports { items }) = session.heard().await {
            ended += items.len();
            session.received(&items).await;
        }
    }
    let rate = JOBS as f64 / started.elapsed().as_secs_f64();
    eprintln!("through bridge and broker: {rate:.0} jobs/s");
    let worker = echo.await;
    rig.stop().await;
    drop(worker);
    rig.nothing_is_left().await;
}

/// A bridge, its broker behind a chaos proxy, and the two peers it talks to.
struct Rig {
    url: String,
    pool: PoolId,
    chaos: Chaos,
    listener: TcpListener,
    worker: Link,
    config: BridgeConfig,
    shutdown: Shutdown,
    bridge: Option<task::JoinHandle<i32>>,
    _dir: tempfile::TempDir,
    alive: Option<task::JoinHandle<()>>,
}

/// The gateway's end of one session.
struct Session {
    sender: wire::Sender<FromGateway>,
    receiver: wire::Receiver<FromBridge>,
    hello: Hello,
}

// === impl Rig ===

impl Rig {
    async fn start(url: &str) -> Self {
        let mut rig = Self::start_without_worker(url).await;
        rig.present(None).await;
        rig
    }

    /// From now on a worker says how it is, over and over.
    async fn present(&mut self, refusing: Option<&'static str>) {
        self.silent().await;
        let worker = self.worker.clone();
        self.alive = Some(spawn(async move {
            while worker.publish_presence(&presence(refusing)).await.is_ok() {
                task::sleep(Duration::from_millis(300)).await;
            }
        }));
    }

    /// From now on no worker says anything.
    async fn silent(&mut self) {
        if let Some(alive) = self.alive.take() {
            alive.cancel().await;
        }
    }

    async fn start_without_worker(url: &str) -> Self {
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
    fn bridge(&self) -> (Shutdown, task::JoinHandle<i32>) {
        let (config, shutdown) = (self.config.clone(), Shutdown::new());
        let running = bridge::run(config, shutdown.clone());
        (shutdown, spawn(running))
    }

    async fn link(&self) -> Link {
        let names = Names::of(&self.pool);
        Link::connect(&self.url, "host/2/0", &names)
            .await
            .expect("a link")
    }

    async fn pending(&self) -> Pending {
        let accepting = timeout(SOON, self.listener.accept()).await;
        let (stream, _) = accepting.expect("in time").expect("a connection");
        wire::accept(stream).await.expect("a request")
    }

    async fn session(&self) -> Session {
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

    async fn stop(&mut self) {
        self.shutdown.drain();
        let bridge = self.bridge.take().expect("it runs");
        assert_eq!(timeout(SOON, bridge).await.expect("in time"), 0);
        self.silent().await;
    }

    async fn nothing_is_left(&self) {
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
    async fn heard(&mut self) -> Option<FromBridge> {
        let frame = timeout(SOON, self.receiver.next()).await;
        frame.expect("a frame in time").ok().flatten()
    }

    /// Hears frames until one is what is wanted.
    async fn until<T>(&mut self, mut wanted: impl FnMut(FromBridge) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < SOON * 2, "it is never said");
            let frame = self.heard().await.expect("the session goes on");
            if let Some(found) = wanted(frame) {
                return found;
            }
        }
    }

    async fn say(&mut self, frame: &FromGateway) {
        self.sender.send(frame).await.expect("written");
    }

    async fn dispatch(&mut self, jobs: Vec<Job>) {
        self.say(&FromGateway::Dispatch { jobs }).await;
    }

    async fn accepted(&mut self, count: usize) -> Vec<Taken> {
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

    async fn rejected(&mut self) -> (Taken, String) {
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

    async fn reports(&mut self, count: usize) -> Vec<Numbered> {
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

    async fn received(&mut self, items: &[Numbered]) {
        let numbers = items.iter().map(|item| item.number).collect();
        self.say(&FromGateway::Received { numbers }).await;
    }

    async fn window_open(&mut self) {
        self.until(|frame| matches!(frame, FromBridge::Window { jobs: 1.., .. }).then_some(()))
            .await;
    }

    async fn window_shut(&mut self) -> String {
        self.until(|frame| match frame {
            // The first link to the broker takes a moment; that is another test's matter.
            FromBridge::Window { jobs: 0, reason } => {
                reason.filter(|why| !why.contains("being connected"))
            }
            _ => None,
        })
        .await
    }

    async fn status_with(
        &mut self,
        wanted: impl Fn(&sluice_proto::frame::AgentStatus) -> bool,
    ) -> sluice_proto::frame::AgentStatus {
        self.until(|frame| match frame {
            FromBridge::Heartbeat(status) if wanted(&status) => Some(status),
            _ => None,
        })
        .await
    }

    async fn goodbye(&mut self) {
        self.until(|frame| matches!(frame, FromBridge::Goodbye { .. }).then_some(()))
            .await;
        assert!(self.heard().await.is_none(), "nothing follows a goodbye");
    }
}

fn presence(refusing: Option<&str>) -> Presence {
    Presence {
        worker: "host/1/0".into(),
        state: WorkerState::Running,
        slots: 4,
        in_flight: 1,
        runtimes: 0,
        refusing: refusing.map(str::to_owned),
        at_us: now_us(),
        link: 0,
        holds: None,
    }
}

fn job(pool: &PoolId, dispatch: u32) -> Job {
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

fn taken(job: &Job) -> Taken {
    Taken {
        job: job.id.clone(),
        dispatch: job.dispatch,
    }
}

fn end(job: &Job) -> Report {
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
fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> task::JoinHandle<T> {
    task::spawn(future)
}
