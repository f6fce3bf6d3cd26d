//! What has a bound: the memory for a backlog of large jobs, the time until a
//! cancelled job that nobody takes has ended, and how often a job counts whose
//! deliveries overlap.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::support::house::House;
use crate::support::process::Process;
use crate::{IMPATIENT, NEVER, cancel, in_flow, seen, state};

/// Jobs of the backlog, and the size of each, in bytes.
const LARGE_JOBS: usize = 160;
const LARGE_BYTES: usize = 1024 * 1024;
/// Jobs a worker holds at once; half as many urgent ones come on top.
const SLOTS: usize = 8;
/// What a debug build takes by itself, in MiB.
const BARE_MIB: usize = 48;
/// A job is held as it came, decoded, written for whoever is next, and in the
/// buffer of a socket, which doubles as it grows.
const COPIES: usize = 5;
/// What more the second half of a backlog may take than the first, in MiB.
const GROWTH_MIB: usize = 16;
/// What a bridge may have on its way into the broker, in MiB.
const PUBLISHING_MIB: usize = 32;

#[async_std::test]
async fn a_backlog_of_large_jobs_takes_no_memory_of_bridge_and_worker() {
    let mut house = House::build().await;
    house.start_bridge();
    house.start_worker_with(0, &[("SLUICE_SLOTS", SLOTS.to_string())]);
    house.connected(1).await;
    house.evaluate("1").await;
    let large = json!({
        "kind": "evaluate", "flow": "large", "timeout_ms": 120_000,
        "expressions": {"value": "new Promise((done) => setTimeout(() => done(outputs.text.length), 1000))"},
        "scope": {"outputs": {"text": "x".repeat(LARGE_BYTES)}},
    });
    let mut jobs = Vec::new();
    let mut bridge = Vec::new();
    for half in 1..=2 {
        while jobs.len() < half * LARGE_JOBS / 2 {
            jobs.push(house.submit(&large).await);
        }
        // They wait there, and their worker is not through with half of them.
        let pool = format!("/api/v1/pools/{}", house.pool);
        seen(&house, &pool, |pool| pool["queued"] == 0).await;
        bridge.push(most_mib(house.bridge.as_ref().expect("started")));
    }
    let mut worker = Vec::new();
    for half in jobs.chunks(LARGE_JOBS / 2) {
        for job in half {
            let job = house.wait(job).await;
            assert_eq!(job["outcome"]["result"]["value"], LARGE_BYTES, "{job}");
        }
        worker.push(most_mib(&house.workers[0]));
    }
    println!("{LARGE_JOBS} jobs of {LARGE_BYTES} bytes, MiB: bridge {bridge:?}, worker {worker:?}");
    let held = ((SLOTS + SLOTS / 2) * LARGE_BYTES) >> 20;
    for (who, most, held) in [("bridge", bridge, PUBLISHING_MIB), ("worker", worker, held)] {
        assert!(most[1] <= BARE_MIB + COPIES * held, "{who}: {most:?} MiB");
        assert!(
            most[1] <= most[0] + GROWTH_MIB,
            "{who} grows with the backlog: {most:?} MiB"
        );
    }
}

/// The most that was ever resident, in MiB.
fn most_mib(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("it runs");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most = most.and_then(|rest| rest.split_whitespace().next());
    let kib: usize = most.and_then(|kib| kib.parse().ok()).expect("a number");
    kib.div_ceil(1024)
}

/// Until the gateway takes silence for an end, and a bit.
const OVERDUE_MAX: Duration = Duration::from_secs(40);
/// Until a worker that comes later lets go of a job that has ended.
const LET_GO_MAX: Duration = Duration::from_secs(10);

#[async_std::test]
async fn a_cancelled_job_that_nobody_takes_ends_in_time_and_is_not_run_later() {
    let mut house = House::start(1).await;
    // Killed, it still counts for a moment: its bridge takes jobs.
    kill(house.workers[0].pid(), Signal::SIGKILL).expect("it runs");
    let job = house.submit(&in_flow("late", NEVER, 600_000)).await;
    state(&house, &job, "accepted").await;
    let asked = Instant::now();
    for reason in ["first", "second"] {
        let marked = cancel(&house, &job, reason).await;
        assert_eq!(marked["cancelling"]["reason"], "first", "{marked}");
    }
    let shown = house.get(&format!("/api/v1/jobs/{job}")).await;
    assert_eq!(
        shown["state"], "accepted",
        "it is not known to have ended: {shown}"
    );
    let shown = house.wait(&job).await;
    assert_eq!(
        (&shown["state"], &shown["outcome"]["reason"]),
        (&json!("cancelled"), &json!("first")),
        "{shown}"
    );
    assert!(asked.elapsed() < OVERDUE_MAX, "{:?}", asked.elapsed());
    let trace = house.get(&format!("/api/v1/jobs/{job}/trace")).await;
    let hops = trace["hops"].as_array().expect("hops");
    let names: Vec<_> = hops.iter().filter_map(|hop| hop["name"].as_str()).collect();
    assert!(
        names.contains(&"accepted") && names.contains(&"reported"),
        "{trace}"
    );
    assert!(!names.contains(&"started"), "{trace}");

    // Its message is still there, and somebody comes to take it.
    house.start_worker(0);
    house.connected(1).await;
    let begun = Instant::now();
    let pool = format!("/api/v1/pools/{}", house.pool);
    seen(&house, &pool, |pool| {
        let agent = &pool["agents"][0];
        agent["workers"] == 1 && agent["queued"] == 0 && agent["in_flight"] == 0
    })
    .await;
    assert!(
        begun.elapsed() < LET_GO_MAX,
        "{:?}\n{}",
        begun.elapsed(),
        house.logs()
    );
    let shown = house.get(&format!("/api/v1/jobs/{job}")).await;
    assert_eq!(shown["state"], "cancelled", "{shown}");
    assert_eq!(house.evaluate("2").await["state"], "succeeded");
}

#[async_std::test]
async fn a_job_that_starts_twice_counts_once() {
    let mut house = House::build_on(Some(IMPATIENT)).await;
    house.start_bridge();
    house.start_worker(0);
    house.start_worker(1);
    house.connected(2).await;
    let code = "new Promise((done) => setTimeout(() => done('through'), 7000))";
    let id = house.submit(&in_flow("long", code, 60_000)).await;
    let job = house.wait(&id).await;
    assert_eq!(
        job["outcome"]["result"]["value"],
        "through",
        "{job}\n{}",
        house.logs()
    );
    let attempt = job["attempt"].clone();
    assert_ne!(attempt, "1.1", "the broker did strike: {job}");
    // The other one comes to its end too, and is refused.
    let pool = format!("/api/v1/pools/{}", house.pool);
    let pool = seen(&house, &pool, |pool| {
        let refused = pool["reports_refused"].as_object();
        let refused = refused.into_iter().flat_map(|refused| refused.values());
        let refused: u64 = refused.filter_map(Value::as_u64).sum();
        let agent = &pool["agents"][0];
        refused > 0 && agent["queued"] == 0 && agent["in_flight"] == 0
    })
    .await;
    println!("refused: {}", pool["reports_refused"]);
    let after = house.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!(
        (&after["outcome"], &after["attempt"]),
        (&job["outcome"], &attempt),
        "its end is its end"
    );
    let trace = house.get(&format!("/api/v1/jobs/{id}/trace")).await;
    let ends = trace["hops"].as_array().expect("hops").iter();
    assert_eq!(
        ends.filter(|hop| hop["name"] == "finished").count(),
        1,
        "{trace}"
    );
}
