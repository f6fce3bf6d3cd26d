//! Pools on the fake engine: everything but containers is real.

use std::future::{pending, ready};
use std::time::Duration;

use async_std::task::sleep;
use sluice_proto::harness::Answer;
use sluice_proto::ids::Digest;
use sluice_proto::job::Kind;
use sluice_proto::report::Cause;

use super::*;
use crate::config::RUNTIME_IMAGE_DEFAULT;
use crate::runtime::fake::Fake;
use crate::runtime::invocation::{Ended, Said};

const SOON: Duration = Duration::from_secs(10);

struct House {
    fake: Fake,
    pool: Pool,
    tasks: Tasks,
    dir: tempfile::TempDir,
}

impl House {
    async fn start(runtimes_max: u32, stems: u32) -> Self {
        let fake = Fake::default();
        Self::start_on(fake, runtimes_max, stems).await
    }

    async fn start_on(fake: Fake, runtimes_max: u32, stems: u32) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        Self::start_in(dir, fake, runtimes_max, stems).await
    }

    async fn start_in(dir: tempfile::TempDir, fake: Fake, runtimes_max: u32, stems: u32) -> Self {
        let config = RuntimeConfig {
            image: RUNTIME_IMAGE_DEFAULT.into(),
            podman_url: "unix:///nowhere".into(),
            mounts_dir: dir.path().join("a".repeat(100)),
            runtimes_max,
            stems,
            memory_bytes: 256 << 20,
            cpus: 1,
            pids: 64,
            idle: Duration::from_secs(600),
            pause: Duration::from_secs(600),
            age: Duration::from_secs(3_600),
            sandbox: crate::config::Sandbox::Container,
            network: crate::config::Network::None,
            reach: crate::config::Reach::default(),
            egress: crate::config::EgressConfig::default(),
        };
        let shutdown = Shutdown::new();
        let tasks = Tasks::new("test", shutdown.clone());
        let owner = Owner {
            agent: "agent".into(),
            worker: 0,
        };
        let pool = Pool::start_with(fake.clone(), config, owner, &shutdown, &tasks)
            .await
            .expect("a pool");
        Self {
            fake,
            pool,
            tasks,
            dir,
        }
    }

    async fn claim(&self, name: &str) -> Result<Lease, Failure> {
        let bundle = if name == "syntax" { "syntax" } else { "good" };
        self.pool
            .claim(&app(name), ready(Ok(bundle.as_bytes().to_vec())))
            .await
    }

    async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) {
        let start = Instant::now();
        while !is(&self.pool.status()) {
            assert!(start.elapsed() < SOON, "never {what}: {:?}", self.pool);
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn stop(self) {
        self.pool.shutdown().await;
        self.tasks.join().await;
        assert_eq!(self.fake.running(), 0, "no container is left");
        let mounts = std::fs::read_dir(self.dir.path().join("a".repeat(100)));
        assert_eq!(
            mounts.expect("it exists").count(),
            1,
            "only the harness is left"
        );
    }
}

fn app(name: &str) -> Identity {
    Identity::App {
        installation: name.into(),
        bundle: Digest::from("b".repeat(64)),
    }
}

async fn start(lease: &Lease, word: &str, timeout_ms: u64) -> Running {
    lease
        .invoke(Invocation {
            kind: Kind::Event,
            payload: word.into(),
            timeout: Duration::from_millis(timeout_ms),
            log_bytes_max: 1_000,
        })
        .await
        .expect("it is sent")
}

async fn end(mut running: Running) -> Ended {
    loop {
        match running.next().await {
            Said::Ended(ended) => return ended,
            Said::Call { call, .. } => running.answer(call, Answer::Value { json: b"1".into() }),
            Said::Log { .. } => {}
        }
    }
}

fn cause(ended: &Ended) -> Cause {
    ended.result.as_ref().expect_err("it failed").cause
}

#[async_std::test]
async fn concurrent_claims_of_one_identity_share_one_load() {
    let house = House::start(4, 0).await;
    let leases = futures::future::join_all((0..20).map(|_| house.claim("one"))).await;
    let leases: Vec<_> = leases
        .into_iter()
        .map(|lease| lease.expect("a runtime"))
        .collect();
    assert!(
        leases
            .iter()
            .all(|lease| lease.container() == leases[0].container())
    );
    assert_eq!(house.fake.counts().0, 1);
    assert_eq!(leases[0].origin(), Origin::Cold);
    assert_eq!(
        house.claim("one").await.expect("warm").origin(),
        Origin::Warm
    );
    drop(leases);
    house
        .until("idle", |status| status.idle == 1 && status.busy == 0)
        .await;
    house.stop().await;
}

#[async_std::test]
async fn a_leader_that_gives_up_hands_the_turn_to_the_next() {
    let house = House::start(4, 1).await;
    house.until("a stem", |status| status.stems == 1).await;
    let one = app("one");
    let mut leader = Box::pin(house.pool.claim(&one, pending()));
    assert!(futures::poll!(&mut leader).is_pending());
    let mut follower = Box::pin(house.claim("one"));
    assert!(futures::poll!(&mut follower).is_pending());
    drop(leader);
    let lease = follower.await.expect("the follower leads now");
    assert_eq!(lease.origin(), Origin::Stem);
    drop(lease);
    // A failed fetch costs nobody a runtime.
    let failure = Failure::new(Cause::BundleUnavailable, "as the test wants");
    let failed = house
        .pool
        .claim(&app("two"), ready(Err(failure.clone())))
        .await;
    assert_eq!(failed.expect_err("no bundle"), failure);
    house
        .until("all given back", |status| {
            status.loading == 0 && status.waiting == 0
        })
        .await;
    house.stop().await;
}

#[async_std::test]
async fn a_load_that_is_given_up_leaves_no_runtime_with_its_code() {
    let house = House::start(4, 1).await;
    house.until("a stem", |status| status.stems == 1).await;
    let bundle = ready(Ok(b"never".to_vec()));
    let identity = app("one");
    let claim = house.pool.claim(&identity, bundle);
    let given_up = async_std::future::timeout(Duration::from_millis(50), claim).await;
    assert!(given_up.is_err(), "it never loads");
    let stem = house.claim("two").await.expect("a runtime");
    house
        .until("it is gone", |status| {
            status.loading == 0 && status.going == 0
        })
        .await;
    assert_eq!(house.pool.status().busy, 1, "{:?}", house.pool);
    drop(stem);
    house.stop().await;
}

#[async_std::test]
async fn a_bundle_that_does_not_load_fails_all_who_wait_and_drops_its_runtime() {
    let house = House::start(4, 0).await;
    let claims = futures::future::join_all((0..3).map(|_| house.claim("syntax"))).await;
    for claim in claims {
        assert_eq!(claim.expect_err("it does not load").cause, Cause::Syntax);
    }
    house
        .until("nothing is left of it", |status| status.total() == 0)
        .await;
    assert_eq!(house.fake.counts().0, 1);
    house.stop().await;
}

#[async_std::test]
async fn calls_and_logs_reach_their_invocation_and_the_answer_goes_back() {
    let house = House::start(4, 0).await;
    let lease = house.claim("one").await.expect("a runtime");
    let mut logging = start(&lease, "log", 5_000).await;
    assert!(matches!(logging.next().await, Said::Log { text, .. } if text == "a line"));
    let mut calling = start(&lease, "call", 5_000).await;
    let said = calling.next().await;
    assert!(
        matches!(&said, Said::Call { call: 1, method, .. } if method == "kv.app.get"),
        "{said:?}"
    );
    calling.answer(7, Answer::Value { json: b"1".into() });
    calling.answer(1, Answer::Value { json: b"1".into() });
    assert_eq!(end(calling).await.result, Ok(b"\"answered\"".to_vec()));
    drop((lease, logging));
    house.stop().await;
}

#[async_std::test]
async fn each_death_names_the_guilty_where_it_is_known() {
    let house = House::start(4, 0).await;
    let lease = house.claim("timeout").await.expect("a runtime");
    assert_eq!(
        cause(&end(start(&lease, "hang", 20).await).await),
        Cause::Timeout
    );
    let again = house.claim("timeout").await.expect("a runtime");
    assert_ne!(
        again.container(),
        lease.container(),
        "one in doubt is not used again"
    );

    let lease = house.claim("exit").await.expect("a runtime");
    let ended = end(start(&lease, "exit", 5_000).await).await;
    assert_eq!((cause(&ended), ended.collateral), (Cause::Crashed, false));
    // Who comes late with a lease on the dead one is told to try again.
    assert!(end(start(&lease, "echo", 5_000).await).await.collateral);

    let lease = house.claim("block").await.expect("a runtime");
    let beside = start(&lease, "hang", 60_000).await;
    let blocked = start(&lease, "block", 20).await;
    assert_eq!(cause(&end(blocked).await), Cause::EventLoopBlocked);
    let ended = end(beside).await;
    assert_eq!((cause(&ended), ended.collateral), (Cause::Collateral, true));

    let lease = house.claim("abort").await.expect("a runtime");
    let running = start(&lease, "hang", 60_000).await;
    running.abort();
    running.abort();
    assert!(end(running).await.aborted);
    drop((lease, again));
    house.stop().await;
}

#[async_std::test]
async fn forged_messages_end_their_runtime_and_no_other() {
    let house = House::start(4, 0).await;
    let bystander = house.claim("bystander").await.expect("a runtime");
    let beside = start(&bystander, "hang", 60_000).await;
    for word in ["forge", "twice"] {
        let lease = house.claim(word).await.expect("a runtime");
        let hanging = start(&lease, "hang", 60_000).await;
        let forging = start(&lease, word, 60_000).await;
        let ended = end(hanging).await;
        assert!(ended.collateral, "{word}: {ended:?}");
        drop(end(forging).await);
        let next = house.claim(word).await.expect("a new runtime");
        assert_ne!(next.container(), lease.container());
    }
    assert_eq!(
        end(start(&bystander, "echo", 5_000).await).await.result,
        Ok(b"\"echo\"".to_vec())
    );
    drop((beside, bystander));
    house.stop().await;
}

#[async_std::test]
async fn a_runtime_that_is_not_sealed_is_never_used() {
    let fake = Fake::default();
    fake.leak_capabilities(0x40);
    let house = House::start_on(fake, 4, 0).await;
    let failure = house.claim("one").await.expect_err("it has a capability");
    assert_eq!(failure.cause, Cause::RuntimeUnavailable);
    assert!(failure.message.contains("0x40"), "{failure:?}");
    assert_eq!(house.fake.running(), 0);
    assert!(house.pool.refusing().is_some());
    house.fake.leak_capabilities(0);
    house
        .until("sealed again", |_| house.pool.refusing().is_none())
        .await;
    assert!(house.claim("one").await.is_ok());
    house.stop().await;
}

#[async_std::test]
async fn an_engine_that_is_away_is_said_and_healed_and_leftovers_are_swept_first() {
    let fake = Fake::default();
    fake.away(Some("it is off"));
    fake.leave("leftover");
    let house = House::start_on(fake, 4, 0).await;
    let failure = house.claim("one").await.expect_err("it is away");
    assert!(failure.message.contains("it is off"), "{failure:?}");
    assert_eq!(house.pool.refusing(), Some(failure.message));
    house.fake.away(None);
    house
        .until("it is back", |_| house.pool.refusing().is_none())
        .await;
    assert_eq!(house.fake.running(), 0, "the leftover is gone");
    assert!(house.claim("one").await.is_ok());
    house.stop().await;
}

#[async_std::test]
async fn a_worker_after_a_killed_one_does_not_wait_until_podman_is_through_with_the_leftovers() {
    let fake = Fake::default();
    fake.leave("leftover");
    let dir = tempfile::tempdir().expect("a directory");
    let house = House::start_in(dir, fake.clone(), 4, 0).await;
    assert_eq!(fake.running(), 0, "the first one waits, and sweeps");
    // As after a SIGKILL: nobody tidies up.
    house.tasks.abort().await;
    fake.leave("leftover");
    fake.list_again(false);
    let house = House::start_in(house.dir, fake, 4, 0).await;
    assert!(house.claim("one").await.is_ok());
    house.fake.list_again(true);
    house
        .until("the leftover is removed beside it", |_| {
            house.fake.running() == 1
        })
        .await;
    house.stop().await;
}

#[async_std::test]
async fn the_limit_holds_while_more_identities_than_runtimes_take_turns() {
    let house = House::start(3, 0).await;
    let jobs = (0..200).map(|number| {
        let house = &house;
        async move {
            let lease = house
                .claim(&format!("app {}", number % 20))
                .await
                .expect("a turn");
            let ended = end(start(&lease, "echo", 5_000).await).await;
            assert_eq!(ended.result, Ok(b"\"echo\"".to_vec()));
        }
    });
    futures::future::join_all(jobs).await;
    let (started, most) = house.fake.counts();
    assert!(most <= 3, "{most} at once");
    assert!(started >= 20, "{started} started");
    house.stop().await;
}

#[async_std::test]
async fn one_that_floods_gives_way_to_one_that_waits() {
    let house = House::start(1, 0).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let flood = async {
        let one = async || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let lease = house.claim("flood").await.expect("a turn");
                end(start(&lease, "echo", 5_000).await).await;
                sleep(Duration::from_millis(1)).await;
            }
        };
        futures::join!(one(), one(), one());
    };
    let patient = async {
        house
            .until("the flood runs", |status| status.busy == 1)
            .await;
        let lease = async_std::future::timeout(SOON, house.claim("patient")).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(lease.expect("within the limit").is_ok());
    };
    futures::join!(flood, patient);
    house.stop().await;
}

#[async_std::test]
async fn of_a_hundred_identities_on_twelve_runtimes_none_waits_three_times_its_share() {
    const IDENTITIES: usize = 100;
    const JOBS: usize = 20;
    let house = House::start(12, 0).await;
    let begun = Instant::now();
    // Job by job, not identity by identity: the worst order there is.
    let jobs = (0..IDENTITIES * JOBS).map(|job| {
        let (house, who) = (&house, job % IDENTITIES);
        async move {
            let lease = house.claim(&format!("app-{who}")).await.expect("a runtime");
            let waited = begun.elapsed();
            let mut running = start(&lease, "echo", 10_000).await;
            while !matches!(running.next().await, Said::Ended(_)) {}
            (who, waited)
        }
    });
    let ended = async_std::future::timeout(SOON * 6, futures::future::join_all(jobs)).await;
    let ended = ended.expect("all finish");
    let mut waits = [Duration::ZERO; IDENTITIES];
    for (who, waited) in ended {
        waits[who] += waited / JOBS as u32;
    }
    let share = waits.iter().sum::<Duration>() / IDENTITIES as u32;
    let longest = waits.iter().max().expect("there are some");
    assert!(
        *longest <= share * 3,
        "{longest:?} is more than three times {share:?}"
    );
    let (started, most) = house.fake.counts();
    assert!(most <= 12, "{most} at once");
    assert!(
        started <= IDENTITIES * 2,
        "{started} runtimes for {IDENTITIES} identities"
    );
    house.stop().await;
}
