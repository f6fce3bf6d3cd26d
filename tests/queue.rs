//! The queue door against a real broker: custody, counting, limits, and the
//! death of the broker's connection.

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_std::future::timeout;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde::de::DeserializeOwned;
use sluice::queue::graves::{Fate, Graves};
use sluice::queue::{Deliveries, Delivery, Depths, Error, Link, inspect, two_hop};
use sluice_proto::ids::{JobId, PoolId, ProjectId};
use sluice_proto::job::{Attempt, Identity, Job, Kind, Priority};
use sluice_proto::queue::{BROKER_DELIVERY_LIMIT, Control, Names, Presence, WorkerState, header};
use sluice_proto::report::{Body, Cause, Level, LogLine, Outcome, Report};

use crate::support::chaos::{Chaos, Wire};
use crate::support::house::House;

/// How long a message may take through an idle broker before it counts as lost.
const SOON: Duration = Duration::from_secs(15);

#[async_std::test]
async fn the_queue_door_keeps_its_promises() {
    let house = House::build().await;
    let url = house.amqp_url().to_string();
    a_job_and_its_report_cross_with_all_they_carry(&url).await;
    every_delivery_counts_one_more(&url).await;
    a_retried_job_comes_back_later_with_its_count(&url).await;
    a_buried_job_stays_to_look_at(&url).await;
    removals_of_others_do_not_end_a_dead_letter(&url).await;
    an_unreadable_job_is_buried_and_reported(&url).await;
    what_the_broker_gives_up_on_is_told_and_kept(&url).await;
    a_cancelled_consumer_gives_back_what_it_did_not_hand_out(&url).await;
    urgent_work_and_signals_reach_their_listeners(&url).await;
    one_bridge_at_a_time_holds_the_lock(&url).await;
    a_look_tells_depths_and_makes_nothing(&url).await;
    wrong_credentials_are_refused_for_good(&url).await;
    a_cut_connection_is_noticed_by_everyone_who_waits(&url).await;
    a_silent_connection_is_noticed(&url).await;
    two_bare_hops_are_measured(&url).await;
}

async fn a_job_and_its_report_cross_with_all_they_carry(url: &str) {
    let (link, _) = fresh(url).await;
    let sent = job(Priority::Normal);
    link.publish_job(&sent, 77).await.expect("confirmed");
    let mut jobs = link.jobs(10).await.expect("consuming");
    let got = next(&mut jobs).await;
    assert_eq!(got.item, sent);
    assert_eq!((got.received_us, got.delivery), (77, 1));
    assert!(got.delivered_us > 0 && got.published_us > 0);
    let said = [log(&sent.id, 0), log(&sent.id, 1)];
    for report in &said {
        link.publish_report(report).await.expect("confirmed");
    }
    got.ack().await.expect("written");
    let mut reports = link.reports(10).await.expect("consuming");
    let (first, second) = (next(&mut reports).await, next(&mut reports).await);
    assert_eq!([&first.item, &second.item], [&said[0], &said[1]]);
    second.ack_through().await.expect("written");
    drop(first);
    nothing_is_left(link, url).await;
}

async fn every_delivery_counts_one_more(url: &str) {
    let (first, names) = fresh(url).await;
    first
        .publish_job(&job(Priority::Normal), 0)
        .await
        .expect("confirmed");
    let mut jobs = first.jobs(1).await.expect("consuming");
    let got = next(&mut jobs).await;
    assert_eq!(got.delivery, 1);
    got.requeue().await.expect("written");
    let got = next(&mut jobs).await;
    assert_eq!(got.delivery, 2, "after a requeue");
    drop(got);
    first.close().await;
    let second = connect(url, &names).await;
    let mut jobs = second.jobs(1).await.expect("consuming");
    let got = next(&mut jobs).await;
    assert_eq!(got.delivery, 3, "after the death of whoever held it");
    got.ack().await.expect("written");
    nothing_is_left(second, url).await;
}

async fn a_retried_job_comes_back_later_with_its_count(url: &str) {
    let (link, _) = fresh(url).await;
    let sent = job(Priority::Normal);
    link.publish_job(&sent, 5).await.expect("confirmed");
    let mut jobs = link.jobs(1).await.expect("consuming");
    let started = Instant::now();
    next(&mut jobs).await.retry(&link).await.expect("put back");
    let got = next(&mut jobs).await;
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "it came at once"
    );
    assert_eq!((got.delivery, got.received_us), (2, 5));
    assert_eq!(got.item, sent);
    let again = Instant::now();
    got.retry(&link).await.expect("put back");
    let got = next(&mut jobs).await;
    assert!(
        again.elapsed() >= Duration::from_millis(1_900),
        "each wait is longer than the one before"
    );
    assert_eq!(got.delivery, 3, "the count outlives the broker's own");
    got.ack().await.expect("written");
    nothing_is_left(link, url).await;
}

async fn a_buried_job_stays_to_look_at(url: &str) {
    let (link, _) = fresh(url).await;
    link.publish_job(&job(Priority::Normal), 0)
        .await
        .expect("confirmed");
    let mut jobs = link.jobs(1).await.expect("consuming");
    let got = next(&mut jobs).await;
    got.bury(&link, Cause::Poison, "delivered too often")
        .await
        .expect("buried");
    let depths = settled(&link, |depths| depths.dead == 1).await;
    assert_eq!((depths.jobs, depths.given_up), (0, 0));
}

async fn removals_of_others_do_not_end_a_dead_letter(url: &str) {
    let (link, _) = fresh(url).await;
    let mut jobs = link.jobs(1).await.expect("consuming");
    let mut bury = async || {
        let sent = job(Priority::Normal);
        link.publish_job(&sent, 0).await.expect("confirmed");
        let got = next(&mut jobs).await;
        let buried = got.bury(&link, Cause::Collateral, "others").await;
        buried.expect("buried");
        HashSet::from([sent.id.to_string()])
    };
    let stays = bury().await;
    // Far beyond any limit of a job's own, and the broker counts each of them for it.
    for _ in 0..100 {
        let goes = bury().await;
        let removed = link.remove_dead(&goes, Fate::Dropped, "a test").await;
        assert_eq!(removed.expect("removed"), goes);
    }
    settled(&link, |depths| depths.dead == 1 && depths.given_up == 0).await;
    let (mut log, mut graves) = (link.dead_log().await.expect("a log"), Graves::default());
    for _ in 0..201 {
        let entry = timeout(SOON, log.next()).await.expect("in time");
        graves.note(entry.expect("an entry"));
    }
    let left: HashSet<_> = graves.iter().map(|grave| grave.job.clone()).collect();
    assert_eq!(left, stays);
    let removed = link.remove_dead(&stays, Fate::Replayed, "a test").await;
    assert_eq!(removed.expect("removed"), stays);
    settled(&link, |depths| depths.dead == 0).await;
}

async fn an_unreadable_job_is_buried_and_reported(url: &str) {
    let (link, names) = fresh(url).await;
    publish_unreadable(url, &names.jobs, "the-bad-one").await;
    link.publish_job(&job(Priority::Normal), 0)
        .await
        .expect("confirmed");
    let mut jobs = link.jobs(10).await.expect("consuming");
    next(&mut jobs).await.ack().await.expect("written");
    let mut reports = link.reports(10).await.expect("consuming");
    let said = next(&mut reports).await;
    assert_eq!(said.item.job.as_str(), "the-bad-one");
    assert_eq!(
        said.item.attempt,
        Attempt {
            dispatch: 4,
            delivery: 1
        }
    );
    let Body::Finished(end) = &said.item.body else {
        panic!("no end: {:?}", said.item)
    };
    let Outcome::Failed(failure) = &end.outcome else {
        panic!("no failure: {end:?}")
    };
    assert_eq!(failure.cause, Cause::Unacceptable);
    said.ack().await.expect("written");
    settled(&link, |depths| depths.dead == 1).await;
}

async fn what_the_broker_gives_up_on_is_told_and_kept(url: &str) {
    let (mut link, names) = fresh(url).await;
    let sent = job(Priority::Normal);
    link.publish_job(&sent, 0).await.expect("confirmed");
    // Each round a worker dies with the job in its hands.
    for round in 1..=BROKER_DELIVERY_LIMIT + 1 {
        let mut jobs = link.jobs(1).await.expect("consuming");
        let got = next(&mut jobs).await;
        assert_eq!(got.delivery, round);
        drop(got);
        link.close().await;
        link = connect(url, &names).await;
    }
    let mut given_up = link.given_up(1).await.expect("consuming");
    let got = next(&mut given_up).await;
    assert_eq!(got.item, sent);
    got.ack().await.expect("written");
    settled(&link, |depths| depths.dead == 1 && depths.jobs == 0).await;
}

async fn a_cancelled_consumer_gives_back_what_it_did_not_hand_out(url: &str) {
    let (link, _) = fresh(url).await;
    for _ in 0..5 {
        link.publish_job(&job(Priority::Normal), 0)
            .await
            .expect("confirmed");
    }
    let mut jobs = link.jobs(5).await.expect("consuming");
    let held = next(&mut jobs).await;
    settled(&link, |depths| depths.jobs == 0).await;
    jobs.cancel().await.expect("cancelled");
    settled(&link, |depths| depths.jobs == 4).await;
    held.ack().await.expect("still valid");
    assert_eq!(jobs.next().await.err(), Some(Error::Closed));
    settled(&link, |depths| depths.jobs == 4 && depths.consumers == 0).await;
}

async fn urgent_work_and_signals_reach_their_listeners(url: &str) {
    let (link, _) = fresh(url).await;
    let mut controls = link.controls().await.expect("listening");
    let mut presences = link.presences().await.expect("listening");
    let mut urgent = link.jobs_high(1).await.expect("consuming");
    let sent = job(Priority::High);
    link.publish_job(&sent, 0).await.expect("confirmed");
    let control = Control::Cancel {
        jobs: vec![sent.id.clone()],
        reason: "a test".into(),
    };
    let presence = Presence {
        worker: "host/1/0".into(),
        state: WorkerState::Running,
        slots: 4,
        in_flight: 1,
        runtimes: 0,
        refusing: None,
        at_us: 1,
        link: 0,
        holds: None,
    };
    link.publish_control(&control).await.expect("said");
    link.publish_presence(&presence).await.expect("said");
    let got = next(&mut urgent).await;
    assert_eq!(got.item, sent);
    got.ack().await.expect("written");
    assert_eq!(next(&mut controls).await.split().0, control);
    let heard = next(&mut presences).await;
    assert_eq!(heard.item, presence);
    heard.ack().await.expect("nothing to settle");
    assert!(link.depth().await.is_ok(), "the link has survived it all");
}

async fn one_bridge_at_a_time_holds_the_lock(url: &str) {
    let (first, names) = fresh(url).await;
    first.hold_bridge_lock().await.expect("free");
    let second = connect(url, &names).await;
    assert_eq!(second.hold_bridge_lock().await, Err(Error::LockHeld));
    assert!(
        second.depth().await.is_ok(),
        "a refused lock leaves the link alive"
    );
    first.close().await;
    let start = Instant::now();
    while second.hold_bridge_lock().await == Err(Error::LockHeld) {
        assert!(start.elapsed() < SOON, "the lock outlives its holder");
    }
}

async fn a_look_tells_depths_and_makes_nothing(url: &str) {
    let names = names();
    let views = inspect::ls(url, &names).await.expect("a look");
    assert!(
        views
            .iter()
            .all(|view| view.depth.is_none() && view.unknown.is_some())
    );
    let link = connect(url, &names).await;
    link.publish_job(&job(Priority::Normal), 0)
        .await
        .expect("confirmed");
    settled(&link, |depths| depths.jobs == 1).await;
    let views = inspect::ls(url, &names).await.expect("a look");
    assert_eq!(views[0].role, "jobs");
    assert_eq!((views[0].depth, views[0].consumers), (Some(1), Some(0)));
    assert_eq!(views[0].queue, names.jobs);
}

async fn wrong_credentials_are_refused_for_good(url: &str) {
    let mut wrong = url::Url::parse(url).expect("an address");
    wrong
        .set_password(Some("not-the-password"))
        .expect("an address with a host");
    let error = Link::connect(wrong.as_str(), "a test", &names())
        .await
        .err();
    assert!(matches!(error, Some(Error::Denied(_))), "{error:?}");
    assert!(!error.expect("just seen").is_transient());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = taken.local_addr().expect("bound").port();
    drop(taken);
    wrong
        .set_port(Some(closed))
        .expect("an address with a port");
    let error = Link::connect(wrong.as_str(), "a test", &names())
        .await
        .err();
    assert!(matches!(error, Some(Error::Unreachable(_))), "{error:?}");
}

async fn a_cut_connection_is_noticed_by_everyone_who_waits(url: &str) {
    let (chaos, through) = proxied(url).await;
    let (link, _) = fresh(&through).await;
    link.publish_job(&job(Priority::Normal), 0)
        .await
        .expect("confirmed");
    let mut jobs = link.jobs(1).await.expect("consuming");
    let held = next(&mut jobs).await;
    chaos.cut();
    let started = Instant::now();
    timeout(SOON, link.failed())
        .await
        .expect("the watchdog sees it");
    assert!(
        timeout(SOON, jobs.next())
            .await
            .expect("an answer")
            .is_err()
    );
    assert!(link.publish_job(&job(Priority::Normal), 0).await.is_err());
    assert!(held.ack().await.is_err(), "its channel is gone");
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "a cut is seen at once"
    );
}

async fn a_silent_connection_is_noticed(url: &str) {
    let (chaos, through) = proxied(url).await;
    let (link, _) = fresh(&format!("{through}?heartbeat=2")).await;
    chaos.stall(true);
    let sent = job(Priority::Normal);
    let lost = link.publish_job(&sent, 0);
    let lost = timeout(Duration::from_secs(30), lost)
        .await
        .expect("an answer");
    assert!(lost.is_err(), "nothing was confirmed");
    timeout(SOON, link.failed())
        .await
        .expect("the watchdog sees it");
    chaos.stall(false);
}

async fn two_bare_hops_are_measured(url: &str) {
    let rate = two_hop::measure(url, 2_000, 256).await.expect("measured");
    eprintln!("two bare hops: {rate:.0} messages/s");
    assert!(rate > 100.0, "{rate}");
}

/// Waits until the queues are as expected.
async fn settled(link: &Link, expected: impl Fn(&Depths) -> bool) -> Depths {
    let start = Instant::now();
    loop {
        let depths = link.depth().await.expect("a look");
        if expected(&depths) {
            return depths;
        }
        assert!(start.elapsed() < SOON, "{depths:?}");
        async_std::task::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the link, so that whatever was unsettled is back in its queue, and looks.
async fn nothing_is_left(link: Link, url: &str) {
    let names = link.names().clone();
    link.close().await;
    let link = connect(url, &names).await;
    settled(&link, |depths| *depths == Depths::default()).await;
}

async fn next<T: DeserializeOwned>(deliveries: &mut Deliveries<T>) -> Delivery<T> {
    timeout(SOON, deliveries.next())
        .await
        .expect("a delivery in time")
        .expect("a live link")
}

async fn fresh(url: &str) -> (Link, Names) {
    let names = names();
    (connect(url, &names).await, names)
}

async fn connect(url: &str, names: &Names) -> Link {
    Link::connect(url, "a test", names).await.expect("a link")
}

async fn proxied(url: &str) -> (Chaos, String) {
    let mut through = url::Url::parse(url).expect("an address");
    let broker = SocketAddr::from(([127, 0, 0, 1], through.port().expect("a port")));
    let chaos = Chaos::start(Wire::Amqp, broker).await;
    through
        .set_ip_host(chaos.addr.ip())
        .expect("an address with a host");
    through
        .set_port(Some(chaos.addr.port()))
        .expect("an address with a port");
    (chaos, through.to_string())
}

/// A pool nobody else uses.
fn names() -> Names {
    Names::of(&PoolId(format!("test-{}", uuid::Uuid::now_v7())))
}

fn job(priority: Priority) -> Job {
    Job {
        id: JobId(uuid::Uuid::now_v7().to_string()),
        kind: Kind::Evaluate,
        priority,
        pool: PoolId::from("p"),
        project: ProjectId::from("q"),
        identity: Identity::Flow { flow: "f".into() },
        dispatch: 1,
        created_us: 1,
        timeout_ms: 1_000,
        expires_ms: None,
        block: Some("block".into()),
        token: "secret".into(),
        traceparent: None,
        payload: b"{}".to_vec(),
    }
}

fn log(job: &JobId, seq: u32) -> Report {
    let line = LogLine {
        seq,
        at_us: 1,
        level: Level::Info,
        text: "said".into(),
    };
    Report {
        job: job.clone(),
        attempt: Attempt {
            dispatch: 1,
            delivery: 1,
        },
        worker: "host/1/0".into(),
        at_us: 1,
        body: Body::Log { lines: vec![line] },
    }
}

/// What a faulty or foreign peer might write, past the door.
async fn publish_unreadable(url: &str, queue: &str, id: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let mut headers = FieldTable::default();
    headers.insert(header::PROTOCOL.into(), AMQPValue::ShortUInt(1));
    headers.insert(header::DISPATCH.into(), AMQPValue::LongUInt(4));
    let properties = BasicProperties::default()
        .with_message_id(id.into())
        .with_headers(headers);
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    channel
        .basic_publish(
            "".into(),
            queue.into(),
            options,
            b"\xc1not msgpack",
            properties,
        )
        .await
        .expect("written");
    connection.close(200, "done".into()).await.expect("closed");
}
