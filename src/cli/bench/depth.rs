//! `sluice bench depth`: what a very long queue costs.
//!
//! ```text
//!  pause ─▶ gateway off ─▶ N jobs into its store and the pool's queue ─▶ gateway on
//!    ─▶ queue ls, check, peek, trace ─▶ resume ─▶ urgent jobs by the API ─▶ their starts
//! ```
//!
//! The jobs are written where they would lie after an hour's backlog: accepted
//! in the gateway's books, confirmed in the broker's queue, with the same ids.
//! Only the way there is short, as nobody submits a million jobs one by one.
//! Everything that is measured is done by the real processes.

mod fill;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;

use crate::cli::bench::depth::fill::{Backlog, fill};
use crate::cli::bench::load::Target;
use crate::cli::bench::{conclude, on_own_rig, say, stats_of};
use crate::cli::rig::Rig;
use crate::pause::{self, Mode, Order};
use crate::queue::Link;
use crate::shutdown::Shutdown;
use crate::telemetry::now_ms;

/// Jobs that run before memory is first looked at, and how many of them at once.
const WARM_UP: usize = 5_000;
const WARM_UP_AT_ONCE: usize = 128;
/// How many urgent jobs are measured.
const URGENT: usize = 10;
/// How long an urgent job may take.
const URGENT_MAX_S: u64 = 60;
/// An urgent job starts within this, in milliseconds.
const URGENT_START_MS_MAX: f64 = 1_000.0;
/// `queue ls` and `queue check` take less than this, in milliseconds.
const OVERVIEW_MS_MAX: f64 = 2_000.0;
/// `queue peek` and `queue trace` take less than this, in milliseconds.
const LOOK_MS_MAX: f64 = 1_000.0;
/// Each look is taken so often; the slowest counts.
const LOOKS: usize = 3;
/// How much the memory of bridge or worker may differ, in MiB: what an
/// allocator keeps back after a burst.
pub const GROWTH_MIB_MAX: f64 = 8.0;
/// How long bridge and workers are watched with the full queue.
const WATCH: Duration = Duration::from_secs(5);
/// How long the bridge may take to be back at a gateway with so many jobs.
const SESSION_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What one queued job needs on the disk, in bytes, at most: some 1,200 in the
/// broker, as much in the store, and twice that while logs are compacted.
const DISK_BYTES_PER_JOB: u64 = 5 * 1024;
/// What stays free beside it, in bytes: below it a broker takes nothing more.
const DISK_BYTES_SPARE: u64 = 2 * 1024 * 1024 * 1024;

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
        conclude("depth", self.json, self.measure(settings, &shutdown).await)
    }

    pub async fn measure(
        &self,
        settings: Vec<(String, String)>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Value> {
        room_for(u64::from(self.jobs))?;
        let all = async |rig: &mut Rig| self.all(rig).await;
        on_own_rig(self.workers, settings, shutdown, all).await
    }

    async fn all(&self, rig: &mut Rig) -> anyhow::Result<Value> {
        let (project, pool) = rig.project_and_pool("bench").await?;
        rig.start_agent(&pool).await?;
        let target = Target::new(rig, &project, &pool);
        warm_up(&target).await?;
        let before = rig.rss_mib();

        say(&format!("Filling the queue with {} jobs", self.jobs));
        let order = Order::new(Mode::Paused, "a long queue is made", now_ms());
        pause::write(rig.data_dir(), &order)?;
        taken(rig, false).await?;
        let backlog = Backlog {
            project,
            pool: pool.id.clone(),
            jobs: u64::from(self.jobs),
        };
        let filling = Instant::now();
        let oldest = rig
            .without_gateway(async |rig: &Rig| fill(rig, &backlog).await)
            .await?;
        let fill_s = filling.elapsed().as_secs_f64();
        in_session(&target, &pool.id).await?;
        let during = rig.rss_mib();

        say("Looking at them");
        let looks = looks(rig, &oldest).await?;
        pause::clear(rig.data_dir())?;
        taken(rig, true).await?;

        say("Urgent jobs past all of them");
        let (starts, ends) = urgent(&target).await?;
        async_std::task::sleep(WATCH).await;
        let after = rig.rss_mib();
        let names = Names::of(&PoolId::from(pool.id.as_str()));
        let link = Link::connect(&rig.amqp_url()?, "sluice bench", &names).await?;
        let still = link.depth().await?.jobs;
        link.close().await;

        let start_ms_max = starts.iter().copied().fold(0.0, f64::max);
        let growth = growth(&before, &[&during, &after]);
        let flat = ["bridge", "worker"]
            .iter()
            .all(|role| growth.get(*role).is_none_or(|mib| *mib <= GROWTH_MIB_MAX));
        let quick = start_ms_max <= URGENT_START_MS_MAX && looks.are_quick();
        let whole = looks.checked["ok"] == true && looks.checked["ready"] == self.jobs;
        Ok(json!({
            "ok": flat && quick && whole,
            "queued": looks.checked["ready"],
            "queued_at_the_end": still,
            "fill_s": fill_s.round(),
            "look_ms": looks.ms,
            "check": looks.checked,
            "urgent_start_ms": stats_of(&starts),
            "urgent_starts_ms": starts,
            "urgent_start_ms_max": start_ms_max,
            "urgent_end_ms": stats_of(&ends),
            "rss_mib_before": before,
            "rss_mib_full": during,
            "rss_mib_after": after,
            "growth_mib": growth,
        }))
    }
}

/// What a person's looks at the full queue took and found.
struct Looks {
    /// By command: the slowest of [`LOOKS`], in milliseconds.
    ms: BTreeMap<&'static str, f64>,
    checked: Value,
}

impl Looks {
    fn are_quick(&self) -> bool {
        self.ms.iter().all(|(command, ms)| match *command {
            "ls" | "check" => *ms <= OVERVIEW_MS_MAX,
            _ => *ms <= LOOK_MS_MAX,
        })
    }
}

/// Every command as a person types it, from its start to its end.
async fn looks(rig: &Rig, job: &str) -> anyhow::Result<Looks> {
    let commands: [(&'static str, &[&str]); 4] = [
        ("ls", &["ls"]),
        ("check", &["check"]),
        ("peek", &["peek", "ready"]),
        ("trace", &["trace", job]),
    ];
    let mut looks = Looks {
        ms: BTreeMap::new(),
        checked: Value::Null,
    };
    for (name, words) in commands {
        for _ in 0..LOOKS {
            let (seen, took) = rig.queue(words).await?;
            let ms = looks.ms.entry(name).or_default();
            *ms = ms.max((took.as_secs_f64() * 1_000.0).round());
            match name {
                "check" => looks.checked = seen,
                "peek" => ensure!(
                    seen["jobs"].as_array().is_some_and(|jobs| jobs.len() == 20),
                    "20 of very many jobs are peeked at: {seen}"
                ),
                "trace" => ensure!(seen["job"] == job, "it is the job's trace: {seen}"),
                _ => {}
            }
        }
    }
    Ok(looks)
}

/// Milliseconds from creation to start, and to the end, of some urgent jobs.
async fn urgent(target: &Target) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..URGENT {
        let job = target.urgent("1 + 1", URGENT_MAX_S).await?;
        let id = job["id"].as_str().unwrap_or_default();
        let trace = target.get(&format!("/api/v1/jobs/{id}/trace")).await?;
        starts.push(since_created(&trace, "started")?);
        ends.push(since_created(&trace, "reported")?);
    }
    Ok((starts, ends))
}

/// Runs as many jobs at once as the workers take, so that what they need for
/// that is not mistaken for what a long queue costs.
async fn warm_up(target: &Target) -> anyhow::Result<()> {
    let jobs = (0..WARM_UP).map(|_| target.submit("1", URGENT_MAX_S));
    let jobs = stream::iter(jobs).buffer_unordered(WARM_UP_AT_ONCE);
    jobs.try_for_each(async |_| Ok(())).await.context("warm up")
}

/// Waits until workers take jobs, or none does any more: both see an order to
/// pause within a second.
async fn taken(rig: &Rig, wanted: bool) -> anyhow::Result<()> {
    let until = Instant::now() + SESSION_MAX;
    loop {
        let (queues, _) = rig.queue(&["ls"]).await?;
        if queues[0]["role"] == "jobs" && (queues[0]["consumers"] != 0) == wanted {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "the workers do not follow the order to pause: {queues}"
        );
        async_std::task::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the gateway has the bridge's session again.
async fn in_session(target: &Target, pool: &str) -> anyhow::Result<()> {
    let until = Instant::now() + SESSION_MAX;
    loop {
        let seen = target.get(&format!("/api/v1/pools/{pool}")).await?;
        if seen["connected_agents"] == 1 {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "the bridge does not come back: {seen}"
        );
        async_std::task::sleep(LOOK_EVERY).await;
    }
}

/// Refuses before anything is started if the disk is too small for all of it.
fn room_for(jobs: u64) -> anyhow::Result<()> {
    let dir = std::env::temp_dir();
    let needed = jobs * DISK_BYTES_PER_JOB + DISK_BYTES_SPARE;
    let free = crate::disk::free_bytes(&dir).unwrap_or(u64::MAX);
    ensure!(
        free >= needed,
        "{jobs} jobs need {} MiB on the disk of {}, and {} are free: free some, or fill in fewer with --jobs",
        needed >> 20,
        dir.display(),
        free >> 20
    );
    Ok(())
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
