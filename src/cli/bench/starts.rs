//! Runtimes that are not warm: cold ones, stems, and many identities at once.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::stream::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;
use sluice_proto::report::Origin;

use crate::cli::bench::{Api, EXPRESSION, Pump};
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
const IDENTITY_JOBS: usize = 300;
/// Jobs in flight with several identities.
const IDENTITY_WINDOW: usize = 10;
/// Idle runtimes whose memory is taken, at least.
pub const IDLE_RUNTIMES: usize = 10;
/// What a runtime does after a job, it has done by then.
const SETTLE: Duration = Duration::from_secs(2);

/// The smallest app there is.
const APP: &str = "import { defineApp } from \"@slflows/sdk/v1\";\n\
    export const app = defineApp({ name: \"Bench\", blocks: {} });\n";

/// Jobs of flows that nobody has seen, by workers that keep nothing started.
pub async fn cold(rig: &Rig, amqp: &str) -> anyhow::Result<Samples> {
    let names = Names::of(&PoolId::from(COLD_POOL));
    let link = Link::connect(amqp, "sluice bench", &names).await?;
    let stems = [("FLOWS_POOL_SIZE".into(), "0".into())];
    let workers = rig.start_bare_workers(COLD_POOL, amqp, &stems)?;
    let result = cold_starts(&link).await;
    link.close().await;
    workers.stop().await;
    result
}

async fn cold_starts(link: &Link) -> anyhow::Result<Samples> {
    let mut pump = Pump::new(link, COLD_POOL).await?;
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

/// The first call of an installation, each on a stem that waits for it: the
/// bundle is fetched, checked and loaded within it.
pub async fn first_calls(api: &Api<'_>) -> anyhow::Result<Samples> {
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
pub async fn identities(api: &Api<'_>) -> anyhow::Result<Value> {
    let mut by_number = serde_json::Map::new();
    for number in IDENTITIES {
        let jobs = futures::stream::iter(0..IDENTITY_JOBS).map(|job| async move {
            let body = json!({
                "kind": "evaluate",
                "flow": format!("one-of-{number}-{}", job % number),
                "expressions": {"value": EXPRESSION},
            });
            let started = Instant::now();
            api.submit(body).await?;
            anyhow::Ok(started.elapsed())
        });
        let mut samples = Samples::default();
        let mut ended = jobs.buffer_unordered(IDENTITY_WINDOW);
        let since = Instant::now();
        while let Some(duration) = ended.try_next().await? {
            samples.add(duration);
        }
        let mut figures = samples.to_json();
        let rate = IDENTITY_JOBS as f64 / since.elapsed().as_secs_f64();
        figures["jobs_per_s"] = json!(rate.round());
        by_number.insert(number.to_string(), figures);
    }
    Ok(Value::Object(by_number))
}

/// Proportional memory of one of at least ten idle runtimes, its monitor
/// included, in MiB; and how many there were.
pub async fn idle_memory(api: &Api<'_>) -> anyhow::Result<(f64, usize)> {
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
