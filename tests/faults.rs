//! Nothing is lost, whatever is done to whom, and when: the kill matrix in its
//! short form, what stands still or dies just at a hand-off, and what a killed
//! worker leaves while Podman stands still.

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use support::chaos::{Chaos, Direction, Trigger, When};
use support::house::House;
use support::process::{PATIENCE, until};

/// Jobs per case: enough that some are at every hop when it comes.
const JOBS: usize = 12;
/// How long a process stands still: every time-out of a second passes meanwhile.
const STOPPED: Duration = Duration::from_millis(1_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Websocket,
    BridgeAmqp,
    WorkerAmqp,
}

/// What moves custody, and who is harmed when it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    StopBridge,
    StopWorker,
    KillGateway,
}

const CASES: &[(Wire, Direction, &str, Harm)] = &[
    (
        Wire::BridgeAmqp,
        Direction::Up,
        "publish:",
        Harm::StopBridge,
    ),
    (Wire::Websocket, Direction::Up, "reports", Harm::StopBridge),
    (
        Wire::WorkerAmqp,
        Direction::Down,
        "deliver:",
        Harm::StopWorker,
    ),
    (Wire::WorkerAmqp, Direction::Up, "reports", Harm::StopWorker),
    (
        Wire::Websocket,
        Direction::Down,
        "dispatch",
        Harm::KillGateway,
    ),
    (
        Wire::Websocket,
        Direction::Up,
        "accepted",
        Harm::KillGateway,
    ),
    (Wire::Websocket, Direction::Up, "reports", Harm::KillGateway),
    (
        Wire::Websocket,
        Direction::Down,
        "received",
        Harm::KillGateway,
    ),
];

#[test]
fn the_kill_matrix_loses_nothing_and_recovers_in_time() {
    let output = std::process::Command::new(support::exe())
        .args(["bench", "faults", "--short", "--json"])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let summary: Value = text
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("no summary: {text}\n{said}"));
    let cells = summary["cells"].as_array().expect("a list");
    assert_eq!(cells.len(), 18, "six processes, three faults\n{said}");
    for cell in cells {
        assert_eq!(cell["lost"], 0, "{cell}\n{said}");
        assert_eq!(cell["failed"], 0, "{cell}\n{said}");
        assert!(cell["jobs"].as_u64() > Some(20), "{cell}\n{said}");
        let recovery_s = cell["recovery_s"].as_f64().expect("it recovers");
        assert!(recovery_s <= 5.0, "{cell}\n{said}");
    }
    assert_eq!(summary["left"], json!([]), "{said}");
    assert!(output.status.success(), "{summary}\n{said}");
}

#[async_std::test]
async fn what_stands_still_or_dies_at_a_hand_off_loses_nothing() {
    let mut house = House::start(1).await;
    house.evaluate("1").await;
    let mut failures = Vec::new();
    for case in CASES {
        for when in [When::Before, When::After] {
            if let Err(why) = play(&mut house, *case, when).await {
                failures.push(format!("{case:?} {when:?}: {why}"));
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
    (wire, direction, what, harm): (Wire, Direction, &str, Harm),
    when: When,
) -> Result<(), String> {
    let (victim, signal) = match harm {
        Harm::StopBridge => {
            let bridge = house.bridge.as_ref().expect("started");
            (bridge.pid(), Signal::SIGSTOP)
        }
        Harm::StopWorker => (house.workers[0].pid(), Signal::SIGSTOP),
        Harm::KillGateway => (house.gateway.pid(), Signal::SIGKILL),
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
        mischief: Box::new(move || kill(victim, signal).expect("the victim lives")),
    });
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        let what = json!({"kind": "evaluate", "expressions": {"value": format!("{number} * 3")}});
        // A gateway that is gone takes no more; what it had taken must end.
        match house.try_submit(&what).await {
            Some(id) => jobs.push((number, id)),
            None if harm == Harm::KillGateway => break,
            None => return Err("a job is not taken".into()),
        }
    }
    let start = Instant::now();
    while !chaos.fired() {
        if start.elapsed() > PATIENCE {
            return Err("the message has not passed".into());
        }
        async_std::task::sleep(Duration::from_millis(20)).await;
    }
    match harm {
        Harm::KillGateway => house.restart_gateway().await,
        Harm::StopBridge | Harm::StopWorker => {
            async_std::task::sleep(STOPPED).await;
            kill(victim, Signal::SIGCONT).expect("it is still there");
        }
    }
    for (number, id) in &jobs {
        let job = house.wait_after_restart(id).await;
        if job["outcome"]["result"]["value"] != number * 3 {
            return Err(format!(
                "job {number} is {} with {}",
                job["state"], job["outcome"]
            ));
        }
    }
    house.connected(1).await;
    Ok(())
}

/// What is promised of a worker once what it depends on is back.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

#[async_std::test]
async fn what_a_killed_worker_left_is_ended_though_podman_stands_still() {
    let mut house = House::build().await;
    house.start_bridge();
    let slots = [("FLOWS_POOL_SIZE", "4".to_owned())];
    house.start_worker_with(0, &slots);
    house.connected(1).await;
    // It computes for ever, so it does not notice that its socket has ended.
    let endless = json!({
        "kind": "evaluate", "flow": "endless", "timeout_ms": 120_000,
        "expressions": {"value": "(() => { while (true) {} })()"},
    });
    let endless = house.submit(&endless).await;
    house.started(&endless).await;
    let first = house.get(&format!("/api/v1/jobs/{endless}")).await;
    let left = first_process(first["container"].as_str().expect("a container"));
    assert!(computes(left), "it runs");

    let podman = std::fs::read_to_string(house.path().join("agent/pids/podman"));
    let podman = podman.expect("the agent runs Podman's service");
    let podman = podman
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    let podman = Pid::from_raw(podman.expect("a pid"));
    kill(podman, Signal::SIGSTOP).expect("it runs");
    house.workers[0].kill();
    let killed = Instant::now();
    house.start_worker_with(0, &slots);
    until("the leftover has ended", || (!computes(left)).then_some(())).await;
    let took = killed.elapsed();
    assert!(took < RECOVERY_MAX, "{took:?}\n{}", house.logs());
    let fresh = json!({"kind": "evaluate", "flow": "fresh", "expressions": {"value": "6 * 7"}});
    let fresh = house.submit(&fresh).await;
    async_std::task::sleep(STOPPED).await;
    let job = house.get(&format!("/api/v1/jobs/{fresh}")).await;
    assert!(job["finished_us"].is_null(), "Podman stands still: {job}");

    kill(podman, Signal::SIGCONT).expect("it is there");
    let back = Instant::now();
    let job = house.wait(&fresh).await;
    assert_eq!(
        job["outcome"]["result"]["value"],
        42,
        "{job}\n{}",
        house.logs()
    );
    let took = back.elapsed();
    assert!(took < RECOVERY_MAX, "{took:?}\n{}", house.logs());
    let path = format!("/api/v1/jobs/{endless}/cancel");
    house
        .post(&path, &json!({"reason": "it has shown what it should"}))
        .await;
    let job = house.wait(&endless).await;
    assert_eq!(
        (&job["state"], &job["attempt"]),
        (&json!("cancelled"), &json!("1.2")),
        "{job}"
    );
    house.end_workers();
}

/// The first process of a container, in this host's own count.
fn first_process(container: &str) -> i32 {
    let output = std::process::Command::new("podman")
        .args(["inspect", "--format", "{{.State.Pid}}", container])
        .output()
        .expect("podman runs");
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
    pid.unwrap_or_else(|_| panic!("{output:?}"))
}

/// Whether a process is there and not just waiting to be buried.
fn computes(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
