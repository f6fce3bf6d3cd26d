//! Runtimes that are not warm: cold ones, stems, and many identities at once.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::stream::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;
use sluice_proto::report::Origin;

use crate::cli::bench::pump::Pump;
use crate::cli::bench::{Api, EXPRESSION};
use crate::cli::rig::Rig;
use crate::cli::stats::Samples;
use crate::queue::Link;

/// The pool whose workers keep no stems.
const COLD_POOL: &str = "bench-cold";
/// Cold starts, one after the other.
const COLD_STARTS: usize = 20;
/// First calls of an installation, one after the other.
const FIRST_CALLS: usize = 20;
/// Between two first calls: time to refill the stems, which is off the job's path.
const REFILL: Duration = Duration::from_millis(400);
/// How many identities share the jobs of one figure.
const IDENTITIES: [usize; 3] = [1, 10, 100];
const IDENTITY_JOBS: usize = 500;
/// Jobs in flight with several identities.
const IDENTITY_WINDOW: usize = 10;
/// Idle runtimes whose memory is taken, at least.
const IDLE_RUNTIMES: usize = 10;
/// Flows whose paused runtimes are called, and how often each.
const RESUME_FLOWS: usize = 6;
const RESUME_ROUNDS: usize = 4;
const RESUME_WARM_JOBS: usize = 12;
/// How long it may take until they are paused.
const PAUSED_MAX: Duration = Duration::from_secs(20);
/// The steps of a cold start, in their order, and the fields of the log that tell them.
const STEPS: [(&str, &str); 5] = [
    ("create", "create_us"),
    ("start", "start_us"),
    ("boot", "boot_us"),
    ("hello", "hello_us"),
    ("load", "load_us"),
];
/// Who comes at once, and to how many runtimes.
const CROWD_POOL: &str = "bench-crowd";
const CROWD_IDENTITIES: usize = 100;
const CROWD_JOBS: usize = 20;
const CROWD_RUNTIMES: usize = 12;
/// As many slots as a worker may have.
const SLOTS_MAX: usize = 1_000;
/// What a runtime does after a job, it has done by then.
const SETTLE: Duration = Duration::from_secs(2);

/// The smallest app there is.
const APP: &str = "import { defineApp } from \"@slflows/sdk/v1\";\n\
    export const app = defineApp({ name: \"Bench\", blocks: {} });\n";

/// Everything that the agent's own runtimes are asked for.
pub async fn measure(api: &Api<'_>, summary: &mut Value) -> anyhow::Result<()> {
    let first_calls = first_calls(api).await?;
    summary["stem_first_call_ms"] = first_calls.to_json();
    summary["stem_first_calls"] = json!(first_calls.len());
    summary["identities"] = identities(api).await?;
    let (pss_mib, runtimes) = idle_memory(api).await?;
    summary["runtime_pss_mib"] = json!((pss_mib * 10.0).round() / 10.0);
    summary["idle_runtimes"] = json!(runtimes);
    Ok(())
}

/// Jobs of flows that nobody has seen, by workers that keep nothing started;
/// and calls on runtimes of theirs that were paused since.
pub async fn cold(rig: &Rig, amqp: &str, summary: &mut Value) -> anyhow::Result<()> {
    let names = Names::of(&PoolId::from(COLD_POOL));
    let link = Link::connect(amqp, "sluice bench", &names).await?;
    let settings = [
        ("FLOWS_POOL_SIZE", "0"),
        ("SLUICE_RUNTIME_PAUSE_S", "1"),
        // How long each step took is in the log.
        ("SLUICE_LOG", "info,sluice=debug"),
        ("SLUICE_LOG_FORMAT", "json"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let workers = rig.start_bare_workers(COLD_POOL, amqp, &settings)?;
    let result = async {
        let mut pump = Pump::new(&link, COLD_POOL).await?;
        summary["cold_ms"] = cold_starts(&mut pump).await?.to_json();
        summary["cold_steps_ms"] = steps(&rig.logs_of_bare_workers(COLD_POOL));
        summary["resume_ms"] = resumes(rig, &mut pump).await?.to_json();
        anyhow::Ok(())
    };
    let result = result.await;
    link.close().await;
    workers.stop().await;
    result
}

async fn cold_starts(pump: &mut Pump<'_>) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for run in 0..=COLD_STARTS {
        pump.flow = format!("cold-{run}");
        let started = Instant::now();
        pump.run(1, 1).await?;
        ensure!(
            pump.origin == Some(Origin::Cold),
            "a job that nothing was started for ran on {:?}",
            pump.origin
        );
        // The first one waits for the workers themselves.
        if run > 0 {
            samples.add(started.elapsed());
        }
    }
    Ok(samples)
}

/// The parts of a cold start, by the workers' own account: p50 of each.
fn steps(logs: &str) -> Value {
    let mut steps = serde_json::Map::new();
    for (step, field) in STEPS {
        let mut samples = Samples::default();
        for line in logs.lines() {
            let said: Option<Value> = serde_json::from_str(line).ok();
            if let Some(us) = said.and_then(|said| said[field].as_u64()) {
                samples.add(Duration::from_micros(us));
            }
        }
        steps.insert(step.to_owned(), json!(samples.p50()));
    }
    Value::Object(steps)
}

/// Calls on runtimes that were stopped because nobody called them.
async fn resumes(rig: &Rig, pump: &mut Pump<'_>) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for round in 0..RESUME_ROUNDS {
        let flows: Vec<_> = (0..RESUME_FLOWS).map(|n| format!("paused-{n}")).collect();
        for flow in &flows {
            // Enough for every worker to have a runtime of it.
            pump.flow.clone_from(flow);
            pump.run(RESUME_WARM_JOBS, RESUME_WARM_JOBS).await?;
        }
        let until = Instant::now() + PAUSED_MAX;
        while rig.paused_runtimes() < RESUME_FLOWS {
            ensure!(
                Instant::now() < until,
                "round {round}: no runtime was paused"
            );
            async_std::task::sleep(Duration::from_millis(200)).await;
        }
        async_std::task::sleep(SETTLE).await;
        for flow in flows {
            pump.flow = flow;
            let started = Instant::now();
            pump.run(1, 1).await?;
            // One that was cold after all is another figure.
            if pump.origin == Some(Origin::Warm) {
                samples.add(started.elapsed());
            }
        }
    }
    ensure!(
        samples.len() * 2 >= RESUME_ROUNDS * RESUME_FLOWS,
        "few paused runtimes were called"
    );
    Ok(samples)
}

/// Many identities with a few jobs each, all at once, on few runtimes: how fast
/// they are through, and how much longer than the average the last one waits.
pub async fn crowd(rig: &Rig, amqp: &str, summary: &mut Value) -> anyhow::Result<()> {
    let names = Names::of(&PoolId::from(CROWD_POOL));
    let link = Link::connect(amqp, "sluice bench", &names).await?;
    let workers = rig.workers() as usize;
    let settings = [
        ("SLUICE_RUNTIMES_MAX", (CROWD_RUNTIMES / workers).max(1)),
        // How far a worker looks ahead for jobs of the identities that it has.
        (
            "SLUICE_SLOTS",
            (CROWD_IDENTITIES * CROWD_JOBS / workers).min(SLOTS_MAX),
        ),
        ("FLOWS_POOL_SIZE", 1),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_string()));
    let workers = rig.start_bare_workers(CROWD_POOL, amqp, &settings)?;
    let result = async {
        let mut pump = Pump::new(&link, CROWD_POOL).await?;
        pump.run(1, 1).await?;
        let begun = Instant::now();
        let waits = pump.crowd(CROWD_IDENTITIES, CROWD_JOBS).await?;
        let rate = (CROWD_IDENTITIES * CROWD_JOBS) as f64 / begun.elapsed().as_secs_f64();
        let share = waits.iter().sum::<Duration>().as_secs_f64() / waits.len() as f64;
        let longest = waits.iter().max().map_or(0.0, Duration::as_secs_f64);
        summary["crowd"] = json!({
            "identities": CROWD_IDENTITIES,
            "jobs_each": CROWD_JOBS,
            "runtimes": CROWD_RUNTIMES,
            "jobs_per_s": rate.round(),
            "wait_s_mean": (share * 100.0).round() / 100.0,
            "wait_s_longest": (longest * 100.0).round() / 100.0,
            "longest_by_mean": (longest / share * 100.0).round() / 100.0,
        });
        anyhow::Ok(())
    };
    let result = result.await;
    link.close().await;
    workers.stop().await;
    result
}

/// The first call of an installation, each on a stem that waits for it: the
/// bundle is fetched, checked and loaded within it.
async fn first_calls(api: &Api<'_>) -> anyhow::Result<Samples> {
    let version = upload(api).await?;
    let mut samples = Samples::default();
    for run in 0..FIRST_CALLS {
        async_std::task::sleep(REFILL).await;
        let body = json!({
            "kind": "describe",
            "version": version,
            "installation": format!("first-{run}"),
        });
        let started = Instant::now();
        let job = api.submit(body).await?;
        // Two workers take turns, so either may have spent its stems on a busy machine.
        if job["origin"] == "stem" {
            samples.add(started.elapsed());
        }
    }
    ensure!(
        samples.len() * 2 >= FIRST_CALLS,
        "only {} of {FIRST_CALLS} first calls met a stem",
        samples.len()
    );
    Ok(samples)
}

async fn upload(api: &Api<'_>) -> anyhow::Result<String> {
    let app = json!({"project": api.project, "name": "bench"});
    let app = api.rig.post("/api/v1/apps", &app).await?;
    let path = format!(
        "/api/v1/apps/{}/versions",
        app["id"].as_str().unwrap_or_default()
    );
    let version = json!({"version": "1.0.0", "code": APP});
    let version = api.rig.post(&path, &version).await?;
    let id = version["id"].as_str().context("a version without id")?;
    Ok(id.to_owned())
}

/// API to result while so many identities take turns, by their number.
async fn identities(api: &Api<'_>) -> anyhow::Result<Value> {
    let mut by_number = serde_json::Map::new();
    for number in IDENTITIES {
        let jobs = futures::stream::iter(0..IDENTITY_JOBS).map(|job| async move {
            let body = json!({
                "kind": "evaluate",
                "flow": format!("one-of-{number}-{}", job % number),
                "expressions": {"value": EXPRESSION},
            });
            let started = Instant::now();
            let ended = api.submit(body).await?;
            anyhow::Ok((started.elapsed(), ended["origin"] == "warm"))
        });
        let (mut samples, mut warm) = (Samples::default(), 0);
        let mut ended = jobs.buffer_unordered(IDENTITY_WINDOW);
        let since = Instant::now();
        while let Some((duration, was_warm)) = ended.try_next().await? {
            samples.add(duration);
            warm += usize::from(was_warm);
        }
        let mut figures = samples.to_json();
        let rate = IDENTITY_JOBS as f64 / since.elapsed().as_secs_f64();
        figures["jobs_per_s"] = json!(rate.round());
        figures["warm_percent"] = json!(warm * 100 / IDENTITY_JOBS);
        by_number.insert(number.to_string(), figures);
    }
    Ok(Value::Object(by_number))
}

/// Proportional memory of one of at least ten idle runtimes, its monitor
/// included, in MiB; and how many there were.
async fn idle_memory(api: &Api<'_>) -> anyhow::Result<(f64, usize)> {
    for flow in 0..IDLE_RUNTIMES {
        let body = json!({
            "kind": "evaluate",
            "flow": format!("idle-{flow}"),
            "expressions": {"value": EXPRESSION},
        });
        api.submit(body).await?;
    }
    async_std::task::sleep(SETTLE).await;
    let (mib, runtimes) = api.rig.runtimes_pss_mib();
    ensure!(
        runtimes >= IDLE_RUNTIMES,
        "only {runtimes} runtimes are there"
    );
    Ok((mib / runtimes as f64, runtimes))
}
