//! No hand-off loses a job: each is cut just before and just after the message
//! that passes custody on, once by cutting the connection and once by SIGKILL
//! of the process that holds the job. Real broker, real containers.

mod support;

use std::time::{Duration, Instant};

use async_std::net::TcpStream;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use support::chaos::{Chaos, Direction, Trigger, When};
use support::house::House;
use support::process::PATIENCE;

/// Jobs per case, at least: enough that some are at every hop when the cut comes.
const JOBS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Websocket,
    BridgeAmqp,
    WorkerAmqp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Kill,
}

/// Every message that moves custody, or says that it has moved.
const HAND_OFFS: &[(Wire, Direction, &str)] = &[
    (Wire::Websocket, Direction::Down, "dispatch"),
    (Wire::BridgeAmqp, Direction::Up, "publish:"),
    (Wire::BridgeAmqp, Direction::Down, "ack"),
    (Wire::Websocket, Direction::Up, "accepted"),
    (Wire::WorkerAmqp, Direction::Down, "deliver:"),
    (Wire::WorkerAmqp, Direction::Up, "reports"),
    (Wire::WorkerAmqp, Direction::Down, "ack"),
    (Wire::WorkerAmqp, Direction::Up, "ack"),
    (Wire::BridgeAmqp, Direction::Down, "reports"),
    (Wire::Websocket, Direction::Up, "reports"),
    (Wire::Websocket, Direction::Down, "received"),
    (Wire::BridgeAmqp, Direction::Up, "ack"),
];

#[async_std::test]
async fn no_hand_off_loses_a_job() {
    let mut house = House::start(1).await;
    house.evaluate("1").await;
    let mut failures = Vec::new();
    for (wire, direction, what) in HAND_OFFS {
        for when in [When::Before, When::After] {
            for fault in [Fault::Cut, Fault::Kill] {
                let case = format!("{wire:?} {direction:?} {what} {when:?} {fault:?}");
                if let Err(why) = play(&mut house, (*wire, *direction, what), when, fault).await {
                    failures.push(format!("{case}: {why}"));
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{}\n{}",
        failures.join("\n"),
        house.logs()
    );
}

async fn play(
    house: &mut House,
    (wire, direction, what): (Wire, Direction, &str),
    when: When,
    fault: Fault,
) -> Result<(), String> {
    let victim = match wire {
        Wire::WorkerAmqp => house.workers[0].pid(),
        Wire::Websocket | Wire::BridgeAmqp => house.bridge.as_ref().expect("started").pid(),
    };
    let chaos: &Chaos = match wire {
        Wire::Websocket => &house.websocket,
        Wire::BridgeAmqp => &house.bridge_amqp,
        Wire::WorkerAmqp => &house.worker_amqp,
    };
    chaos.arm(Trigger {
        direction,
        what: what.to_owned(),
        when,
        skip: 1,
        mischief: Box::new(move || {
            if fault == Fault::Kill {
                kill(victim, Signal::SIGKILL).expect("the victim lives");
            }
        }),
    });
    let mut jobs = Vec::new();
    let start = Instant::now();
    // One message may stand for several jobs, so more come until it has passed.
    while jobs.len() < JOBS || !chaos.fired() {
        if start.elapsed() > PATIENCE {
            return Err("the message that is to be cut has not passed".into());
        }
        let value = format!("{} * 2", jobs.len());
        let what = json!({"kind": "evaluate", "expressions": {"value": value}});
        jobs.push(house.submit(&what).await);
        if jobs.len() >= JOBS {
            async_std::task::sleep(Duration::from_millis(20)).await;
        }
    }
    // A process that was killed a moment ago may still look alive.
    while fault == Fault::Kill && alive(house, wire) {
        async_std::task::sleep(Duration::from_millis(5)).await;
    }
    house.revive();
    for (number, id) in jobs.iter().enumerate() {
        let job = house.wait(id).await;
        if job["outcome"]["result"]["value"] != number * 2 {
            return Err(format!(
                "job {number} is {} with {}",
                job["state"], job["outcome"]
            ));
        }
    }
    house.connected(1).await;
    Ok(())
}

/// Whether the process at this end of the wire still runs.
fn alive(house: &mut House, wire: Wire) -> bool {
    match wire {
        Wire::WorkerAmqp => house.workers[0].alive(),
        Wire::Websocket | Wire::BridgeAmqp => house.bridge.as_mut().expect("started").alive(),
    }
}

/// Events that go through a chain, and its blocks.
const EVENTS: usize = 60;
const BLOCKS: usize = 5;

/// An app whose one block emits for each event it gets, and keeps books.
const CHAIN: &str = r#"
import { defineApp, events, kv } from "@slflows/sdk/v1";
const step = {
  inputs: { default: { onEvent: async ({ event }) => {
    await kv.block.set({ key: event.id, value: true });
    await events.emit({ after: event.id });
  } } },
  outputs: { default: { possiblePrimaryParents: ["default"] } },
};
export const app = defineApp({ name: "Chain", autoconfirm: true, blocks: { step } });
"#;

/// Installs the app and links its blocks; answers the flow's id.
async fn chain(house: &House) -> String {
    let version = house.upload(CHAIN).await;
    let installation = json!({
        "project": house.project, "name": "chain", "version": version, "pool": house.pool,
    });
    let installation = house.post("/api/v1/installations", &installation).await;
    let id = installation["id"].as_str().expect("an id");
    let path = format!("/api/v1/installations/{id}");
    let start = Instant::now();
    while house.get(&path).await["status"] != "ready" {
        assert!(start.elapsed() < PATIENCE, "{}", house.logs());
        async_std::task::sleep(Duration::from_millis(20)).await;
    }
    let mut text = format!("appInstallations: {{chain: {{id: {id}}}}}\nblocks:\n");
    for at in 0..BLOCKS {
        text += &format!(
            "- name: Step {at}\n  type: {{appBlock: {{block: step, appInstallation: chain}}}}\n"
        );
        if at > 0 {
            let link = format!("{{block: Step {}, output: default}}", at - 1);
            text += &format!("  inputs: {{default: {{links: [{link}]}}}}\n");
        }
    }
    let flow = json!({"project": house.project, "name": "chain"});
    let flow = house.post("/api/v1/flows", &flow).await;
    let flow = flow["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/flows/{flow}/apply");
    house.post(&path, &json!({"definition": text})).await;
    flow
}

/// Every event of the flow is delivered once wherever it goes.
async fn assert_whole(house: &House, flow: &str) {
    let path = format!("/api/v1/flows/{flow}/events?after=0&limit=500");
    let events = house.get(&path).await;
    let events = events.as_array().expect("a list");
    assert_eq!(events.len(), EVENTS * (BLOCKS + 1), "events");
    for event in events {
        let deliveries = event["deliveries"].as_array().expect("a list");
        let after = events.iter().filter(|it| it["parent"] == event["id"]);
        let after: Vec<&Value> = after.collect();
        if deliveries.is_empty() {
            assert!(after.is_empty(), "the last has none: {event}");
            continue;
        }
        assert_eq!(deliveries.len(), 1, "{event}");
        assert_eq!(deliveries[0]["state"], "done", "{event}");
        assert_eq!(after.len(), 1, "{event}: {after:?}");
        assert_eq!(after[0]["body"]["after"], event["id"]);
    }
}

#[async_std::test]
async fn a_flow_goes_on_when_the_gateway_is_killed() {
    let mut house = House::start(2).await;
    let flow = chain(&house).await;
    let path = format!("/api/v1/flows/{flow}/blocks/Step%200/inputs/default/events");
    for n in 0..EVENTS {
        house.post(&path, &json!({"n": n})).await;
    }
    // What it has handed out it does not know to be taken, and hands it out again
    // while the first one runs.
    let victim = house.gateway.pid();
    house.websocket.arm(Trigger {
        direction: Direction::Up,
        what: "accepted".to_owned(),
        when: When::Before,
        skip: 0,
        mischief: Box::new(move || kill(victim, Signal::SIGKILL).expect("it lives")),
    });
    let start = Instant::now();
    while !house.websocket.fired() {
        assert!(start.elapsed() < PATIENCE, "nothing is accepted");
        async_std::task::sleep(Duration::from_millis(1)).await;
    }
    house.restart_gateway().await;
    let address = house.http().trim_start_matches("http://").to_owned();
    let start = Instant::now();
    while TcpStream::connect(&address).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "{}", house.logs());
        async_std::task::sleep(Duration::from_millis(20)).await;
    }
    let path = format!("/api/v1/flows/{flow}");
    let start = Instant::now();
    loop {
        let shown = house.get(&path).await;
        if shown["open"] == 0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{shown}\n{}", house.logs());
        async_std::task::sleep(Duration::from_millis(50)).await;
    }
    assert_whole(&house, &flow).await;
}
