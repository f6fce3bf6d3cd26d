//! `sluice bench depth`: what a very long queue costs.
//!
//! ```text
//!  bench ─▶ the pool's own queue, until N jobs wait ─▶ queue ls ─▶ an urgent job by the API ─▶ its start
//! ```
//!
//! The jobs are put straight into the broker, as fast as it takes them, while
//! bridge and workers are at work; nobody waits for their ends. What is taken
//! is the time and the memory of everybody else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;

use crate::cli::bench::load::Target;
use crate::cli::bench::{conclude, no_op, on_own_rig, say, stats_of};
use crate::cli::rig::Rig;
use crate::queue::{Link, inspect};
use crate::shutdown::Shutdown;
use crate::telemetry::now_us;

/// Publishes on their way: what keeps the broker busy.
const PUBLISHING_MAX: usize = 512;
/// How often the depth is looked at while the queue fills, in jobs.
const LOOK_EVERY: usize = 20_000;
/// How many urgent jobs are measured.
const URGENT: usize = 10;
/// How long an urgent job may take.
const URGENT_MAX_S: u64 = 60;
/// An urgent job starts within this, in milliseconds.
const URGENT_START_MS_MAX: f64 = 1_000.0;
/// A look at the queues takes less than this, in milliseconds.
const LS_MS_MAX: f64 = 2_000.0;
/// How much the memory of bridge or worker may differ, in MiB: what an
/// allocator keeps back after a burst.
const GROWTH_MIB_MAX: f64 = 16.0;
/// How long bridge and workers are watched with the full queue.
const WATCH: Duration = Duration::from_secs(5);

/// Fill the queue with very many jobs, and see that nobody minds.
///
/// Example: sluice bench depth --jobs 200000
#[derive(Debug, clap::Args)]
pub struct Depth {
    /// Print one summary object as the last line of standard output.
    #[arg(long)]
    json: bool,
    /// How many jobs wait at the same time.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1_500_000))]
    jobs: u32,
    /// How many workers to start.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
}

// === impl Depth ===

impl Depth {
    /// Fills, measures and empties; answers with the exit code.
    pub async fn run(self, settings: Vec<(String, String)>, shutdown: Shutdown) -> i32 {
        let measured = on_own_rig(self.workers, settings, &shutdown, async |rig| {
            self.all(rig).await
        });
        conclude("depth", self.json, measured.await)
    }

    async fn all(&self, rig: &mut Rig) -> anyhow::Result<Value> {
        let (project, pool) = rig.project_and_pool("bench").await?;
        rig.start_agent(&pool).await?;
        let amqp = rig.amqp_url()?;
        let names = Names::of(&PoolId::from(pool.id.as_str()));
        let target = Target::new(rig, &project, &pool);
        for _ in 0..URGENT {
            target.submit("1", URGENT_MAX_S).await.context("warm up")?;
        }
        let before = rig.rss_mib();

        say(&format!("Filling the queue with {} jobs", self.jobs));
        let link = Link::connect(&amqp, "sluice bench", &names).await?;
        let filling = Instant::now();
        let published = fill(&link, &pool.id, u64::from(self.jobs)).await?;
        let fill_s = filling.elapsed().as_secs_f64();
        let queued = link.depth().await?.jobs;
        let during = rig.rss_mib();

        let looking = Instant::now();
        let views = inspect::ls(&amqp, &names).await?;
        let ls_ms = looking.elapsed().as_secs_f64() * 1_000.0;
        ensure!(views.len() == 6, "all queues are seen");

        say("Urgent jobs past all of them");
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..URGENT {
            let job = target.urgent("1 + 1", URGENT_MAX_S).await?;
            let path = format!(
                "/api/v1/jobs/{}/trace",
                job["id"].as_str().unwrap_or_default()
            );
            let trace = target.get(&path).await?;
            starts.push(since_created(&trace, "started")?);
            ends.push(since_created(&trace, "reported")?);
        }
        async_std::task::sleep(WATCH).await;
        let after = rig.rss_mib();
        let still = link.depth().await?.jobs;
        link.close().await;

        let start_ms_max = starts.iter().copied().fold(0.0, f64::max);
        let growth = growth(&before, &[&during, &after]);
        let flat = ["bridge", "worker"]
            .iter()
            .all(|role| growth.get(*role).is_none_or(|mib| *mib <= GROWTH_MIB_MAX));
        Ok(json!({
            "ok": flat && ls_ms <= LS_MS_MAX && start_ms_max <= URGENT_START_MS_MAX,
            "queued": queued,
            "queued_at_the_end": still,
            "published": published,
            "publish_per_s": (published as f64 / fill_s).round(),
            "queue_ls_ms": ls_ms.round(),
            "urgent_start_ms": stats_of(&starts),
            "urgent_start_ms_max": start_ms_max,
            "urgent_end_ms": stats_of(&ends),
            "rss_mib_before": before,
            "rss_mib_full": during,
            "rss_mib_after": after,
            "growth_mib": growth,
        }))
    }
}

/// Publishes until so many wait, whatever is taken out meanwhile.
async fn fill(link: &Link, pool: &str, wanted: u64) -> anyhow::Result<u64> {
    let mut publishing = FuturesUnordered::new();
    let mut published = 0u64;
    loop {
        for _ in 0..LOOK_EVERY {
            if publishing.len() >= PUBLISHING_MAX {
                let confirmed: Result<(), crate::queue::Error> =
                    publishing.next().await.unwrap_or(Ok(()));
                confirmed?;
            }
            let mut job = no_op();
            job.pool = PoolId::from(pool);
            publishing.push(async move { link.publish_job(&job, now_us()).await });
            published += 1;
        }
        let depth = link.depth().await?.jobs;
        say(&format!("  {depth} wait, {published} were put in"));
        if depth >= wanted {
            while let Some(confirmed) = publishing.next().await {
                confirmed?;
            }
            return Ok(published);
        }
    }
}

/// Milliseconds from a job's creation to a hop.
fn since_created(trace: &Value, hop: &str) -> anyhow::Result<f64> {
    let at = |name: &str| {
        let hops = trace["hops"].as_array()?;
        hops.iter().find(|hop| hop["name"] == name)?["at_us"].as_u64()
    };
    let (created, at) = at("created")
        .zip(at(hop))
        .with_context(|| format!("no `{hop}` in {trace}"))?;
    Ok(at.saturating_sub(created) as f64 / 1_000.0)
}

fn growth(
    before: &BTreeMap<String, f64>,
    later: &[&BTreeMap<String, f64>],
) -> BTreeMap<String, f64> {
    before
        .iter()
        .map(|(role, mib)| {
            let most = later
                .iter()
                .filter_map(|seen| seen.get(role))
                .copied()
                .fold(*mib, f64::max);
            (role.clone(), ((most - mib) * 10.0).round() / 10.0)
        })
        .collect()
}
