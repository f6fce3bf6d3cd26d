//! Those who follow and those who count: the TCP listener, `tail`, `drain`, and
//! `check` on a queue from which a job was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sluice::queue::Link;
use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;

use crate::support::house::{API_TOKEN, House};
use crate::support::process::PATIENCE;
use crate::{parsed, queue, queue_command, seen, wait_for};

#[async_std::test]
async fn a_lost_job_is_named_although_others_wait_and_followers_see_what_happens() {
    let mut house = House::start(1).await;
    house.evaluate("1").await;
    the_tcp_listener_asks_for_its_token(&house);
    a_follower_sees_a_job_come_and_go(&house).await;
    a_drain_ends_when_the_queue_is_done(&house).await;
    a_lost_job_is_named(&mut house).await;
}

fn the_tcp_listener_asks_for_its_token(house: &House) {
    let log = house.agent_log();
    let address = log
        .split("address=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("no address: {log}"));
    let ask = |credential: &str| {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        write!(
            stream,
            "GET /v1/queues HTTP/1.1\r\nhost: agent\r\n{credential}connection: close\r\n\r\n"
        )
        .expect("written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an answer");
        reply
    };
    for wrong in ["", "authorization: Bearer not-the-house-s-token\r\n"] {
        let reply = ask(wrong);
        assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
        assert!(!reply.contains("jobs.high"), "{reply}");
    }
    let reply = ask(&format!("authorization: Bearer {API_TOKEN}\r\n"));
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains("jobs.high"), "{reply}");
}

async fn a_follower_sees_a_job_come_and_go(house: &House) {
    let mut tail = queue_command(house, Some(&house.pool), &["tail", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let output = tail.stdout.take().expect("piped");
    let (said, events) = async_std::channel::unbounded();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).expect("JSON");
            drop(said.try_send(event));
        }
    });
    // It follows from when it has begun, so jobs are made until one is seen whole.
    let mut states = BTreeMap::<String, BTreeSet<String>>::new();
    let whole = BTreeSet::from(["queued", "accepted", "succeeded"].map(str::to_owned));
    let begun = std::time::Instant::now();
    while !states.values().any(|states| states.is_superset(&whole)) {
        assert!(begun.elapsed() < PATIENCE, "{states:?}\n{}", house.logs());
        house.evaluate("1").await;
        while let Ok(event) = events.try_recv() {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            states.entry(text("job")).or_default().insert(text("state"));
        }
    }
    tail.kill().expect("it runs");
    tail.wait().expect("ended");
    reader.join().expect("every line was an event");
}

async fn a_drain_ends_when_the_queue_is_done(house: &House) {
    let slow = json!({
        "kind": "evaluate", "timeout_ms": 30_000,
        "expressions": {"value": "new Promise(r => setTimeout(() => r(1), 2000))"},
    });
    let job = house.submit(&slow).await;
    house.started(&job).await;
    let output = queue(house, &["drain", "--reason", "a test"]);
    assert!(output.status.success(), "{output:?}");
    let job = house.get(&format!("/api/v1/jobs/{job}")).await;
    assert_eq!(job["state"], "succeeded", "the drain waited for it: {job}");
    assert!(queue(house, &["resume"]).status.success());
    let job = house.evaluate("2").await;
    assert_eq!(job["state"], "succeeded", "{job}");
}

async fn a_lost_job_is_named(house: &mut House) {
    // A killed worker still counts for a moment: its bridge takes jobs, and nobody runs them.
    nix::sys::signal::kill(house.workers[0].pid(), Signal::SIGKILL).expect("it runs");
    let mut jobs = Vec::new();
    for n in 0..5 {
        let expression = json!({"kind": "evaluate", "expressions": {"value": n.to_string()}});
        jobs.push(house.submit(&expression).await);
    }
    let names = Names::of(&PoolId::from(house.pool.as_str()));
    let link = Link::connect(house.amqp_url().as_str(), "test", &names)
        .await
        .expect("a link");
    let ready = async || link.depth().await.expect("the broker answers").jobs == 5;
    wait_for(house, "all are in the queue", ready).await;
    let whole = seen(house, &["check"]);
    assert_eq!(
        (&whole["ok"], &whole["ready"], &whole["read"]),
        (&json!(true), &json!(5), &json!(5)),
        "{whole}"
    );
    let mut deliveries = link.jobs(1).await.expect("a consumer");
    let delivery = async_std::future::timeout(PATIENCE, deliveries.next()).await;
    let delivery = delivery.expect("in time").expect("a delivery");
    let lost = delivery.item.id.to_string();
    delivery.ack().await.expect("gone");
    link.close().await;

    let output = queue(house, &["check", "--json"]);
    let check = parsed(house, &["check"], &output);
    let named: Vec<_> = check["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|finding| (finding["job"].as_str(), finding["reason"].as_str()))
        .collect();
    assert_eq!(named, [(Some(lost.as_str()), Some("missing"))], "{check}");
    assert_eq!(
        (&check["ready"], &check["missing"], output.status.code()),
        (&json!(4), &json!(1), Some(1)),
        "{check}"
    );
    house.start_worker(0);
    let mut again = 0;
    for job in jobs.iter().filter(|job| **job != lost) {
        again += u32::from(house.wait(job).await["attempt"] != "1.1");
    }
    assert!(
        again <= 1,
        "looks are no deliveries; the thief had one more: {again}"
    );
}
