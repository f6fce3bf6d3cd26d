//! No hand-off loses a job: each is cut just before and just after the message
//! that passes custody on, once by cutting the connection and once by SIGKILL
//! of the process that holds the job. Real broker, real containers.

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::json;

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
