//! The line with a real store and small limits: what takes too long or is too much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::PROTOCOL;
use sluice_proto::frame::{AgentStatus, Hello, Numbered, Taken};
use sluice_proto::ids::{JobId, PoolId};
use sluice_proto::job::{Attempt, Identity, Kind};
use sluice_proto::report::{Body, Origin, Report, RuntimeUse};

use crate::gateway::line::{Cancelled, Created, Ended, Limits, Line, NewJob, Outbox};
use crate::gateway::secrets::JobTokens;
use crate::shutdown::{Shutdown, Tasks};
use crate::store::Store;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    line: Arc<Line>,
    store: Store,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(&dir.path().join("s.db")).await.expect("opened");
        let tasks = Tasks::new("test", Shutdown::new());
        tasks.spawn("store", writer.run());
        let tokens = JobTokens::load(&dir.path().join("secret")).expect("made");
        let (steps, _) = async_std::channel::unbounded();
        let line = Line::rebuild(&store, tokens, limits, steps)
            .await
            .expect("rebuilt");
        Self {
            line,
            store,
            tasks,
            _dir: dir,
        }
    }

    async fn stop(self) {
        self.store.close();
        self.tasks.join().await;
    }

    fn create(&self, project: &str) -> Result<Created, String> {
        let new = NewJob {
            pool: "pool".to_owned(),
            project: project.to_owned(),
            kind: Kind::Evaluate,
            high: false,
            identity: Identity::Flow {
                flow: "f".to_owned(),
            },
            block: None,
            timeout_ms: 1,
            expires_ms: None,
            payload: b"{}".to_vec(),
        };
        self.line.create(new, true).map_err(|full| full.0)
    }

    fn join(&self, agent: &str) -> async_std::channel::Receiver<Outbox> {
        let hello = Hello {
            protocol: PROTOCOL,
            version: "1".to_owned(),
            pool: PoolId::from("pool"),
            agent: agent.to_owned(),
            host: "h".to_owned(),
            started_ms: 1,
            status: AgentStatus::default(),
        };
        let outbox = self
            .line
            .join("pool", agent, &hello)
            .expect("let in")
            .outbox;
        self.line.window("pool", agent, 10, None);
        outbox
    }

    fn accept(&self, agent: &str, id: &str) {
        let taken = Taken {
            job: JobId::from(id),
            dispatch: 1,
        };
        self.line.accepted("pool", agent, &[taken]);
    }
}

impl Bench {
    async fn start_job(&self, agent: &str, id: &str) {
        let report = Report {
            job: JobId::from(id),
            attempt: Attempt {
                dispatch: 1,
                delivery: 1,
            },
            worker: "w".into(),
            at_us: 1,
            body: Body::Started {
                runtime: RuntimeUse {
                    container: "c".into(),
                    origin: Origin::Warm,
                },
            },
        };
        let items = vec![Numbered { number: 1, report }];
        let committed = self.line.reports("pool", agent, items);
        committed.expect("a session").await.expect("committed");
    }
}

async fn end_of(ended: Option<Ended>) -> serde_json::Value {
    let ended = ended.expect("asked for");
    let text = async_std::future::timeout(PATIENCE, ended)
        .await
        .expect("in time")
        .expect("told");
    serde_json::from_slice(&text).expect("JSON")
}

async fn next(outbox: &async_std::channel::Receiver<Outbox>) -> Outbox {
    async_std::future::timeout(PATIENCE, outbox.recv())
        .await
        .expect("in time")
        .expect("open")
}

#[async_std::test]
async fn a_project_and_a_pool_can_be_full() {
    let bench = Bench::start(Limits {
        project_queued_max: 2,
        pool_queued_max: 3,
        ..Limits::default()
    })
    .await;
    bench.create("one").expect("room");
    let second = bench.create("one").expect("room");
    let sentence = bench.create("one").err().expect("the project is full");
    assert!(sentence.contains("project"), "{sentence}");
    bench.create("two").expect("room");
    let sentence = bench.create("two").err().expect("the pool is full");
    assert!(sentence.contains("pool"), "{sentence}");
    assert_eq!(bench.line.cancel(&second.id, "x"), Cancelled::AtOnce);
    bench.create("one").expect("a place has come free");
    bench.stop().await;
}

#[async_std::test]
async fn a_payload_that_memory_has_no_room_for_comes_from_the_store() {
    let bench = Bench::start(Limits {
        payload_bytes_held_max: 0,
        ..Limits::default()
    })
    .await;
    bench.create("one").expect("room");
    let outbox = bench.join("a");
    let Outbox::Dispatch(handed) = next(&outbox).await else {
        panic!("no job");
    };
    assert!(handed.payload.is_none());
    let stored = bench.store.payload(handed.seq).await.expect("read");
    assert_eq!(stored.as_deref(), Some(b"{}".as_slice()));
    bench.stop().await;
}

#[async_std::test]
async fn a_cancelled_job_whose_agent_stays_silent_ends_all_the_same() {
    let bench = Bench::start(Limits {
        cancel_overdue: Duration::ZERO,
        ..Limits::default()
    })
    .await;
    let outbox = bench.join("a");
    let created = bench.create("one").expect("room");
    assert!(matches!(next(&outbox).await, Outbox::Dispatch(_)));
    bench.accept("a", &created.id);
    assert_eq!(bench.line.cancel(&created.id, "enough"), Cancelled::Asked);
    assert_eq!(bench.line.cancel(&created.id, "again"), Cancelled::Asked);
    bench.line.tick();
    let job = end_of(created.ended).await;
    assert_eq!(
        (&job["state"], &job["outcome"]["reason"]),
        (&"cancelled".into(), &"enough".into())
    );
    assert_eq!(bench.line.cancel(&created.id, "late"), Cancelled::NotLive);
    bench.stop().await;
}

#[async_std::test]
async fn jobs_spread_over_agents_by_what_each_still_holds() {
    let bench = Bench::start(Limits::default()).await;
    let outboxes = [bench.join("a"), bench.join("b")];
    let mut got = [0, 0];
    for _ in 0..10 {
        let created = bench.create("one").expect("room");
        created.committed.await.expect("committed");
        let at = usize::from(outboxes[0].is_empty());
        let Outbox::Dispatch(handed) = next(&outboxes[at]).await else {
            panic!("no job");
        };
        got[at] += 1;
        // Accepted at once, so that only what the agent holds tells the two apart.
        bench.accept(["a", "b"][at], handed.job.id.as_str());
    }
    assert_eq!(got, [5, 5]);
    bench.stop().await;
}

#[async_std::test]
async fn a_job_whose_payload_is_gone_fails_instead_of_waiting_for_ever() {
    let bench = Bench::start(Limits::default()).await;
    let _outbox = bench.join("a");
    let created = bench.create("one").expect("room");
    bench.line.give_up(&created.id, 1, "its payload is gone");
    let job = end_of(created.ended).await;
    assert_eq!(job["outcome"]["cause"], "unacceptable", "{job}");
    bench.stop().await;
}

#[async_std::test]
async fn the_jobs_of_an_agent_that_does_not_come_back_are_lost() {
    let bench = Bench::start(Limits {
        agent_away_max: Duration::from_millis(30),
        ..Limits::default()
    })
    .await;
    let outbox = bench.join("a");
    let created = bench.create("one").expect("room");
    assert!(matches!(next(&outbox).await, Outbox::Dispatch(_)));
    bench.accept("a", &created.id);
    bench.line.tick();
    assert!(bench.line.look(&created.id).is_some(), "its agent is there");
    bench.line.leave("pool", "a");
    let started = Instant::now();
    while bench.line.look(&created.id).is_some() {
        assert!(started.elapsed() < PATIENCE, "it is never lost");
        async_std::task::sleep(Duration::from_millis(5)).await;
        bench.line.tick();
    }
    assert!(
        started.elapsed() >= Duration::from_millis(30),
        "not before its time"
    );
    assert_eq!(end_of(created.ended).await["outcome"]["cause"], "lost");
    bench.stop().await;
}

/// An agent with a worker that takes work and has nothing to do.
fn idle() -> AgentStatus {
    AgentStatus {
        workers: 1,
        ..AgentStatus::default()
    }
}

#[async_std::test]
async fn a_job_that_vanished_from_a_connected_agent_is_handed_out_again() {
    let bench = Bench::start(Limits {
        idle_max: Duration::ZERO,
        ..Limits::default()
    })
    .await;
    let outbox = bench.join("a");
    let created = bench.create("one").expect("room");
    assert!(matches!(next(&outbox).await, Outbox::Dispatch(_)));
    bench.accept("a", &created.id);
    let busy = [
        AgentStatus {
            queued: 1,
            ..idle()
        },
        AgentStatus {
            in_flight: 1,
            ..idle()
        },
        AgentStatus {
            refusing: Some("The agent has no broker.".into()),
            ..idle()
        },
        AgentStatus::default(),
    ];
    for status in busy {
        bench.line.status("pool", "a", status.clone());
        bench.line.tick();
        assert!(outbox.is_empty(), "{status:?} may still have it");
    }
    bench.line.status("pool", "a", idle());
    bench.line.tick();
    let Outbox::Dispatch(handed) = next(&outbox).await else {
        panic!("it is not handed out again");
    };
    assert_eq!(
        (handed.job.id.as_str(), handed.job.dispatch),
        (created.id.as_str(), 2)
    );
    bench.stop().await;
}

#[async_std::test]
async fn a_job_that_vanished_while_it_ran_is_lost_and_not_run_twice() {
    let bench = Bench::start(Limits {
        idle_max: Duration::ZERO,
        ..Limits::default()
    })
    .await;
    let outbox = bench.join("a");
    let created = bench.create("one").expect("room");
    assert!(matches!(next(&outbox).await, Outbox::Dispatch(_)));
    bench.accept("a", &created.id);
    bench.start_job("a", &created.id).await;
    assert!(matches!(next(&outbox).await, Outbox::Received(_)));
    bench.line.status("pool", "a", idle());
    async_std::task::sleep(Duration::from_millis(5)).await;
    bench.line.tick();
    let job = end_of(created.ended).await;
    assert_eq!(job["outcome"]["cause"], "lost", "{job}");
    assert!(outbox.is_empty(), "it may have run");
    // Whoever begins it all the same is told to let go of it.
    bench.start_job("a", &created.id).await;
    let Outbox::Cancel { job, .. } = next(&outbox).await else {
        panic!("nothing is said to the one who runs it");
    };
    assert_eq!(job.as_str(), created.id);
    bench.stop().await;
}

#[async_std::test]
async fn a_job_that_no_bridge_can_place_fails_after_so_many_tries() {
    let bench = Bench::start(Limits::default()).await;
    let created = bench.create("one").expect("room");
    let mut dispatches = 0;
    let ended = created.ended.expect("asked for");
    let mut ended = std::pin::pin!(ended);
    let job = loop {
        let agent = format!("a{dispatches}");
        let outbox = bench.join(&agent);
        let frame = futures::future::select(Box::pin(next(&outbox)), ended.as_mut()).await;
        match frame {
            futures::future::Either::Left((Outbox::Dispatch(handed), _)) => {
                dispatches += 1;
                assert_eq!(handed.job.dispatch, dispatches);
                let reason = "too large for the broker".to_owned();
                bench
                    .line
                    .rejected("pool", &agent, &created.id, dispatches, reason);
            }
            futures::future::Either::Left((other, _)) => panic!("{other:?}"),
            futures::future::Either::Right((text, _)) => break text.expect("told"),
        }
        bench.line.leave("pool", &agent);
        bench.line.ready_now();
    };
    let job: serde_json::Value = serde_json::from_slice(&job).expect("JSON");
    assert_eq!(job["outcome"]["cause"], "unacceptable");
    assert!(
        job["outcome"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("too large")),
        "{job}"
    );
    assert_eq!(dispatches, 20);
    bench.stop().await;
}

impl Line {
    /// Lets the time of every deadline come.
    fn ready_now(self: &Arc<Self>) {
        let mut inner = self.lock();
        let all = std::mem::take(&mut inner.deadlines).into_vec();
        for std::cmp::Reverse((_, deadline)) in all {
            inner.deadlines.push(std::cmp::Reverse((0, deadline)));
        }
        drop(inner);
        self.tick();
    }
}
