//! The runner on an engine without containers, and against a loopback gateway.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_std::channel;
use async_std::net::TcpListener;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use url::Url;

use sluice_proto::job::{Attempt, Identity, Job, Kind, Priority};
use sluice_proto::report::{Body, Cause, Hops, LOG_REPORT_BYTES_MAX, LogLine};

use crate::api_client::ApiClient;
use crate::config::{EgressConfig, Network, Reach, RuntimeConfig, Sandbox};
use crate::runtime::Owner;
use crate::runtime::fake::Fake;
use crate::runtime::pool::Pool;
use crate::shutdown::{Shutdown, Tasks, spawn, spawn_detached};
use crate::worker::asking::{Look, Papers};
use crate::worker::job_runner::{Again, Desk, End, JobRunner, Ran};

/// What the runner wanted said.
#[derive(Clone)]
struct Notes {
    said: channel::Sender<Body>,
    /// While closed, a report is on its way for ever.
    way: Arc<Mutex<Option<channel::Receiver<()>>>>,
}

struct House {
    fake: Fake,
    pool: Pool,
    runner: JobRunner,
    notes: Notes,
    said: channel::Receiver<Body>,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

// === impl Notes ===

impl Desk for Notes {
    fn attempt(&self) -> Attempt {
        Attempt {
            dispatch: 3,
            delivery: 2,
        }
    }

    fn papers(&self) -> Look {
        let attempt = self.attempt();
        Arc::new(move || Papers {
            attempt,
            token: None,
        })
    }

    fn claimed(&self, _: &sluice_proto::report::RuntimeUse) {}

    fn logged(&self, _: &str) {}

    fn report(&self, body: Body) -> BoxFuture<'static, ()> {
        self.said.try_send(body).expect("somebody listens");
        let way = self.way.lock().expect("not poisoned").clone();
        async move {
            if let Some(way) = way {
                let _ = way.recv().await;
            }
        }
        .boxed()
    }
}

// === impl House ===

impl House {
    async fn build(gateway: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let tasks = Tasks::new("test", Shutdown::new());
        let fake = Fake::default();
        let owner = Owner {
            agent: "a".into(),
            worker: 0,
        };
        let config = runtime_config(dir.path());
        let pool = Pool::start_with(fake.clone(), config, owner, &Shutdown::new(), &tasks)
            .await
            .expect("a pool");
        let url = Url::parse(gateway).expect("an address");
        let api = ApiClient::new(&url, &EgressConfig::default()).expect("a client");
        let (sender, said) = channel::unbounded();
        let notes = Notes {
            said: sender,
            way: Arc::default(),
        };
        Self {
            runner: JobRunner::new(pool.clone(), api),
            fake,
            pool,
            notes,
            said,
            tasks,
            _dir: dir,
        }
    }

    /// Runs a job beside the test; what ends it early, and its end.
    fn begin(&self, job: Job) -> (oneshot::Sender<()>, async_std::task::JoinHandle<Ran>) {
        let (runner, notes) = (self.runner.clone(), self.notes.clone());
        let (abort, aborted) = oneshot::channel();
        let running =
            spawn(async move { runner.run(&job, Hops::default(), &notes, aborted).await });
        (abort, running)
    }

    async fn run(&self, job: Job) -> Ran {
        // Kept: an abort that nobody can ask for any more must not end the job.
        let (_abort, running) = self.begin(job);
        running.await
    }

    /// Nothing was said that the test did not look at, and nothing is left.
    async fn close(self) {
        assert!(self.said.try_recv().is_err(), "one report more");
        self.pool.shutdown().await;
        self.tasks.join().await;
        assert_eq!(self.fake.running(), 0);
    }
}

fn runtime_config(dir: &Path) -> RuntimeConfig {
    RuntimeConfig {
        image: "image".into(),
        podman_url: "unix:///nowhere".into(),
        mounts_dir: dir.to_owned(),
        runtimes_max: 1,
        stems: 0,
        memory_bytes: 1 << 30,
        cpus: 1,
        pids: 16,
        idle: Duration::from_secs(600),
        pause: Duration::from_secs(600),
        age: Duration::from_secs(3_600),
        sandbox: Sandbox::Container,
        network: Network::None,
        reach: Reach::default(),
        egress: EgressConfig::default(),
    }
}

fn job(flow: &str, order: &str) -> Job {
    Job {
        id: "job".into(),
        kind: Kind::Evaluate,
        priority: Priority::Normal,
        pool: "pool".into(),
        project: "project".into(),
        identity: Identity::Flow { flow: flow.into() },
        dispatch: 3,
        created_us: 0,
        timeout_ms: 60_000,
        expires_ms: None,
        block: None,
        token: "the-token".into(),
        traceparent: None,
        payload: order.as_bytes().to_vec(),
    }
}

fn failed(ran: &Ran) -> (Cause, Again) {
    match &ran.end {
        End::Failed { failure, again } => (failure.cause, *again),
        other => panic!("it should have failed: {other:?}"),
    }
}

/// Answers every request with `status` and `body`; gives the requests out.
async fn gateway(status: &'static str, body: &'static str) -> (String, channel::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (sender, requests) = channel::unbounded();
    spawn_detached(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                text.push_str(&String::from_utf8_lossy(&chunk[..read]));
                if text.ends_with('}') || (text.starts_with("GET") && text.ends_with("\r\n\r\n")) {
                    break;
                }
            }
            let _ = sender.try_send(text);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (format!("http://{addr}/"), requests)
}

const NOWHERE: &str = "http://127.0.0.1:1/";

#[async_std::test]
async fn a_short_job_needs_one_message_and_notes_its_hops() {
    let house = House::build(NOWHERE).await;
    let ran = house.run(job("f", "word")).await;
    assert_eq!(ran.end, End::Succeeded(b"\"word\"".to_vec()));
    let hops = [
        ran.hops.claimed_us,
        ran.hops.started_us,
        ran.hops.finished_us,
    ];
    assert!(hops[0] > 0 && hops.is_sorted(), "{hops:?}");
    assert!(ran.runtime.is_some());
    house.close().await;
}

#[async_std::test]
async fn what_a_job_needs_in_memory_is_small_while_nothing_is_fetched() {
    let house = House::build("http://127.0.0.1:1").await;
    let (_abort, aborted) = oneshot::channel();
    let job = job("f", "word");
    let running = house
        .runner
        .run(&job, Hops::default(), &house.notes, aborted);
    // It is moved into place for each job, and several times a slot's worth for a burst.
    let bytes = std::mem::size_of_val(&running);
    assert!(bytes <= 8 * 1024, "{bytes} bytes");
    drop(running);
    house.close().await;
}

#[async_std::test]
async fn an_expired_job_is_not_started() {
    let house = House::build(NOWHERE).await;
    let mut job = job("f", "word");
    job.expires_ms = Some(1);
    let ran = house.run(job).await;
    assert_eq!(failed(&ran), (Cause::Expired, Again::No));
    assert_eq!((ran.runtime, house.fake.counts().0), (None, 0));
    house.close().await;
}

#[async_std::test]
async fn a_job_that_lasts_is_said_to_have_started_and_ends_when_told_to() {
    let house = House::build(NOWHERE).await;
    let (abort, running) = house.begin(job("f", "hang"));
    let said = house.said.recv().await.expect("a report");
    let Body::Started { runtime } = said else {
        panic!("it should have started: {said:?}");
    };
    abort.send(()).expect("it runs");
    let ran = running.await;
    assert_eq!(ran.end, End::Aborted);
    assert_eq!(ran.runtime, Some(runtime));
    house.close().await;
}

#[async_std::test]
async fn a_job_that_waits_for_a_runtime_ends_when_told_to_and_leaves_the_other_alone() {
    let house = House::build(NOWHERE).await;
    let (abort_first, first) = house.begin(job("f", "hang"));
    house.said.recv().await.expect("it has started");
    let (abort, waiting) = house.begin(job("g", "word"));
    while house.pool.status().waiting == 0 {
        async_std::task::yield_now().await;
    }
    abort.send(()).expect("it waits");
    let ran = waiting.await;
    assert_eq!((ran.end, ran.runtime), (End::Aborted, None));
    assert_eq!(house.pool.status().busy, 1);
    abort_first.send(()).expect("it runs");
    assert_eq!(first.await.end, End::Aborted);
    house.close().await;
}

#[async_std::test]
async fn a_runtime_that_dies_takes_others_with_it_who_may_try_again() {
    let house = House::build(NOWHERE).await;
    let (_abort, other) = house.begin(job("f", "hang"));
    house.said.recv().await.expect("it has started");
    let (_abort_culprit, culprit) = house.begin(job("f", "exit"));
    let (ran, _) = (other.await, culprit.await);
    let (_, again) = failed(&ran);
    assert_eq!(again, Again::Maybe, "{:?}", ran.end);
    let alone = house.run(job("f", "exit")).await;
    assert_eq!(failed(&alone), (Cause::Crashed, Again::No));
    house.close().await;
}

#[async_std::test]
async fn without_an_engine_there_is_no_runtime_and_that_may_pass() {
    let house = House::build(NOWHERE).await;
    house.fake.away(Some("gone"));
    let ran = house.run(job("f", "word")).await;
    assert_eq!(failed(&ran), (Cause::RuntimeUnavailable, Again::Maybe));
    house.fake.away(None);
    house.close().await;
}

#[async_std::test]
async fn a_call_goes_out_with_the_jobs_token_and_attempt_and_is_answered() {
    let (url, requests) = gateway("200 OK", r#"{"data":{"value":7}}"#).await;
    let house = House::build(&url).await;
    let ran = house.run(job("f", "call")).await;
    assert_eq!(ran.end, End::Succeeded(b"\"answered\"".to_vec()));
    assert_eq!(ran.sdk_calls, 1);
    let request = requests.recv().await.expect("one request");
    assert!(request.starts_with("POST /agent/v1/calls "), "{request}");
    assert!(
        request.to_lowercase().contains("bearer the-token"),
        "{request}"
    );
    let (_, body) = request.split_once("\r\n\r\n").expect("a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let expected = serde_json::json!({
        "job": "job", "attempt": {"dispatch": 3, "delivery": 2},
        "began": {"dispatch": 3, "delivery": 2}, "number": 1,
        "method": "kv.app.get", "args": ["key"],
    });
    assert_eq!(body, expected);
    house.close().await;
}

#[async_std::test]
async fn a_bundle_that_is_refused_fails_the_job_and_one_that_is_late_may_come() {
    for (status, again) in [("404 Gone", Again::No), ("500 Broken", Again::Maybe)] {
        let (url, _requests) = gateway(status, r#"{"error":"not now"}"#).await;
        let house = House::build(&url).await;
        let mut job = job("f", "word");
        job.identity = Identity::App {
            installation: "i".into(),
            bundle: "0".repeat(64).into(),
        };
        let ran = house.run(job).await;
        assert_eq!(failed(&ran), (Cause::BundleUnavailable, again), "{status}");
        let End::Failed { failure, .. } = ran.end else {
            unreachable!("it failed");
        };
        assert!(failure.message.contains("not now"), "{}", failure.message);
        house.close().await;
    }
}

#[async_std::test]
async fn a_few_lines_travel_with_the_end() {
    let house = House::build(NOWHERE).await;
    let ran = house.run(job("f", "log")).await;
    let lines: Vec<_> = ran
        .log
        .iter()
        .map(|line| (line.seq, line.text.as_str()))
        .collect();
    assert_eq!(lines, [(0, "a line")]);
    house.close().await;
}

#[async_std::test]
async fn a_long_log_is_reported_in_order_behind_the_start() {
    let house = House::build(NOWHERE).await;
    let ran = house.run(job("f", "chatter")).await;
    let mut lines: Vec<LogLine> = Vec::new();
    let mut starts = 0;
    while let Ok(said) = house.said.try_recv() {
        match said {
            Body::Started { .. } => {
                assert!(lines.is_empty(), "the start comes first");
                starts += 1;
            }
            Body::Log { lines: more } => {
                let bytes: usize = more.iter().map(|line| line.text.len()).sum();
                assert!(bytes <= LOG_REPORT_BYTES_MAX);
                lines.extend(more);
            }
            Body::Finished(_) => panic!("the end is the caller's to say"),
        }
    }
    assert_eq!(starts, 1);
    assert!(!lines.is_empty(), "more than fits into the end");
    lines.extend(ran.log);
    let seqs: Vec<_> = lines.iter().map(|line| line.seq).collect();
    assert_eq!(seqs, (0..300).collect::<Vec<_>>());
    assert_eq!(ran.log_bytes_dropped, 0);
    house.close().await;
}

#[async_std::test]
async fn a_broker_that_takes_no_report_does_not_hold_the_invocation_up() {
    let (url, requests) = gateway("200 OK", r#"{"data":1}"#).await;
    let house = House::build(&url).await;
    let (release, way) = channel::bounded(1);
    *house.notes.way.lock().expect("not poisoned") = Some(way);
    let (_abort, running) = house.begin(job("f", "chatter and call"));
    let said = house.said.recv().await.expect("a report");
    assert!(matches!(said, Body::Started { .. }), "{said:?}");
    // The report hangs, and yet the invocation is heard and answered.
    requests.recv().await.expect("its call");
    *house.notes.way.lock().expect("not poisoned") = None;
    release.close();
    let ran = running.await;
    assert_eq!(ran.end, End::Succeeded(b"\"answered\"".to_vec()));
    while house.said.try_recv().is_ok() {}
    house.close().await;
}
