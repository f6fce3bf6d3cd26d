//! The bridge between a real broker and a gateway and workers played by the
//! test: custody on both sides, windows, refusals, cancellations and the drain.

#[path = "bridge/played.rs"]
mod played;
mod support;

use std::time::{Duration, Instant};

use async_std::future::timeout;
use sluice::config::EXIT_REFUSED;
use sluice_proto::PROTOCOL;
use sluice_proto::frame::{FromBridge, FromGateway};
use sluice_proto::queue::{BROKER_DELIVERY_LIMIT, Control};
use sluice_proto::report::{Body, Cause, Outcome};

use crate::played::{Rig, SOON, end, job, spawn, taken};
use crate::support::house::House;

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
    large_reports_wait_in_the_broker(&url).await;
    large_jobs_wait_in_the_gateway_while_the_broker_is_slow(&url).await;
}

/// What a bridge may hold of payloads or results: 64 reports of 4 MiB.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;
const LARGE: usize = 3 * 1024 * 1024;

async fn large_reports_wait_in_the_broker(url: &str) {
    const REPORTS: usize = 100;
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    let mut ends = Vec::new();
    for _ in 0..REPORTS {
        let mut end = end(&job(&rig.pool, 1));
        if let Body::Finished(finished) = &mut end.body {
            let result = vec![b' '; LARGE];
            finished.outcome = Outcome::Succeeded { result };
        }
        rig.worker.publish_report(&end).await.expect("confirmed");
        ends.push(end.job);
    }
    // The gateway stores nothing yet: it reads what comes, and says nothing.
    let mut items = session.reports(HELD_BYTES_MAX / (4 * 1024 * 1024)).await;
    let waiting = rig.worker.depth().await.expect("a look").reports as usize;
    let held = (REPORTS - waiting) * LARGE;
    assert!(
        held <= HELD_BYTES_MAX,
        "{held} bytes are held, {waiting} reports wait"
    );
    assert!(waiting > 0, "the rest waits in the broker");
    session.received(&items).await;
    while items.len() < REPORTS {
        let more = session.reports(1).await;
        session.received(&more).await;
        items.extend(more);
    }
    let jobs: Vec<_> = items.iter().map(|item| item.report.job.clone()).collect();
    assert_eq!(jobs, ends, "all of them, in their order");
    rig.stop().await;
    rig.nothing_is_left().await;
}

async fn large_jobs_wait_in_the_gateway_while_the_broker_is_slow(url: &str) {
    const JOBS: usize = 40;
    let mut rig = Rig::start(url).await;
    let mut session = rig.session().await;
    session.window_open().await;
    rig.chaos.stall(true);
    let all: Vec<_> = (0..JOBS)
        .map(|_| {
            let mut job = job(&rig.pool, 1);
            job.payload = vec![b' '; LARGE];
            job
        })
        .collect();
    let sent = std::sync::atomic::AtomicUsize::new(0);
    {
        let sending = async {
            for job in &all {
                session.dispatch(vec![job.clone()]).await;
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        };
        let mut sending = Box::pin(sending);
        let early = timeout(Duration::from_secs(3), sending.as_mut()).await;
        let taken = sent.load(std::sync::atomic::Ordering::Relaxed) * LARGE;
        assert!(
            early.is_err(),
            "the bridge has swallowed all of {taken} bytes"
        );
        // Its own limit, a frame and what the sockets between the two hold.
        assert!(taken < 80 * 1024 * 1024, "{taken} bytes are taken");
        rig.chaos.stall(false);
        timeout(SOON, sending).await.expect("it goes on by itself");
    }
    assert_eq!(session.accepted(JOBS).await.len(), JOBS);
    let mut jobs = rig.worker.jobs(8).await.expect("consuming");
    for _ in 0..JOBS {
        let delivery = jobs.next().await.expect("a job");
        delivery.ack().await.expect("written");
    }
    rig.stop().await;
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
        let mut settled = Vec::with_capacity(JOBS);
        for _ in 0..JOBS {
            let held = jobs.next().await.expect("a job");
            let (worker, report) = (worker.clone(), end(&held.item));
            settled.push(spawn(async move {
                worker.publish_report(&report).await.expect("confirmed");
                held.ack().await.expect("written");
            }));
        }
        for one in settled {
            one.await;
        }
        // An ack is confirmed by nobody: only a goodbye says that all were read.
        worker.close().await;
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
        if let FromBridge::Reports { items } = session.heard().await.expect("it goes on") {
            ended += items.len();
            session.received(&items).await;
        }
    }
    let rate = JOBS as f64 / started.elapsed().as_secs_f64();
    eprintln!("through bridge and broker: {rate:.0} jobs/s");
    echo.await;
    rig.stop().await;
    rig.nothing_is_left().await;
}
