//! `sluice bench`: reproducible measurements on one machine, in one run.
//!
//! ```text
//!  two hops     bench ─▶ broker ─▶ bench ─▶ broker ─▶ bench          the floor
//!  pipeline     bench ─▶ broker ─▶ worker ─▶ Node ─▶ worker ─▶ broker ─▶ bench
//!  API          bench ─▶ gateway ─▶ bridge ─▶ … the whole line … ─▶ bench
//!  starts       jobs of identities that no runtime is warm for
//!  floors       `podman run` of the same image, the same expression in a bare loop, BullMQ
//! ```
//!
//! Every figure is taken with real processes, durable queues and confirms;
//! client, broker, workers and Node share the machine.

mod chain;
mod depth;
mod faults;
mod floors;
mod flows;
mod load;
mod plot;
mod pump;
mod report;
mod soak;
mod starts;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;

use crate::cli::bench::pump::{BARE_POOL, Pump};
use crate::cli::rig::{BareWorkers, PoolAccess, Rig, RigOptions, on_a_rig};
use crate::cli::stats::Samples;
use crate::queue::Link;
use crate::queue::two_hop;
use crate::shutdown::Shutdown;

/// Jobs run before anything is measured, so that runtimes are warm and code is compiled.
const WARM_UP_JOBS: usize = 1_000;
/// Jobs in flight while the pipeline's throughput is taken.
const PIPELINE_WINDOW: usize = 512;
/// The same for a quick run, and how many jobs wait at once in it.
const QUICK_JOBS: u32 = 2_000;
const QUICK_SAMPLES: u32 = 100;
const QUICK_DEPTH: &str = "20000";
const QUICK_FAULT_JOBS: &str = "500";
/// What every job computes: nothing worth mentioning.
const EXPRESSION: &str = "1 + 1";

/// Measure latency, throughput and memory of this installation's parts, beside
/// the bare machine.
///
/// Example: sluice bench --report docs
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Print one summary object as the last line of standard output.
    #[arg(long)]
    json: bool,
    /// How many workers to start.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
    /// Jobs per throughput figure.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..))]
    jobs: u32,
    /// Jobs per latency figure, one at a time.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..))]
    samples: u32,
    /// HTTP requests in flight for the API's throughput.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: u32,
    /// Measure these parts alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Also fill the queue with a million jobs and kill every process, each in
    /// an installation of its own: the whole table of numbers to hold, in one run.
    #[arg(long)]
    all: bool,
    /// Few jobs for each figure: whether everything works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Write a table (performance.md) and a plot (performance.svg) into this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// One part of the whole measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Two bare hops through the broker.
    Hops,
    /// Broker to confirmed report.
    Pipeline,
    /// API to result, and the memory of the processes.
    Api,
    /// Events through a chain of blocks.
    Flows,
    /// First calls, many identities, paused and idle runtimes.
    Starts,
    /// Cold starts, and where their time goes.
    Cold,
    /// The bare machine.
    Floors,
}

/// What is measured instead of latency and throughput.
#[derive(Debug, clap::Subcommand)]
enum Mode {
    Faults(faults::Faults),
    Depth(depth::Depth),
    Soak(soak::Soak),
    Flows(flows::Flows),
}

// === impl Bench ===

impl Bench {
    /// Runs all measurements; answers with the exit code.
    pub async fn run(mut self, settings: Vec<(String, String)>, shutdown: Shutdown) -> i32 {
        match self.mode.take() {
            // Boxed: each is large, and a command's future lives on the main thread's stack.
            Some(Mode::Faults(faults)) => return Box::pin(faults.run(settings, shutdown)).await,
            Some(Mode::Depth(depth)) => return Box::pin(depth.run(settings, shutdown)).await,
            Some(Mode::Soak(soak)) => return Box::pin(soak.run(settings, shutdown)).await,
            Some(Mode::Flows(flows)) => return Box::pin(flows.run(settings, shutdown)).await,
            None => {}
        }
        if self.quick {
            self.jobs = self.jobs.min(QUICK_JOBS);
            self.samples = self.samples.min(QUICK_SAMPLES);
        }
        let measured = async {
            let summary = self.measure(settings, &shutdown).await?;
            if let Some(dir) = &self.report {
                report::write(dir, &summary, &self.command()).await?;
            }
            anyhow::Ok(summary)
        };
        match measured.await {
            Ok(summary) => {
                if self.json {
                    println!("{summary}");
                } else {
                    table::print(&summary);
                }
                i32::from(summary["ok"] != true)
            }
            Err(error) => {
                eprintln!("sluice: bench: {error:#}");
                1
            }
        }
    }

    /// The command line that repeats this run.
    fn command(&self) -> String {
        format!(
            "sluice bench{}{} --workers {} --jobs {} --samples {} --clients {}",
            if self.all { " --all" } else { "" },
            if self.quick { " --quick" } else { "" },
            self.workers,
            self.jobs,
            self.samples,
            self.clients
        )
    }

    async fn measure(
        &self,
        settings: Vec<(String, String)>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Value> {
        let more = settings.clone();
        let parts = async |rig: &mut Rig| self.parts(rig).await;
        let mut summary = on_own_rig(self.workers, settings, shutdown, parts).await?;
        if self.all {
            let (jobs, fault_jobs) = match self.quick {
                true => (
                    &["--jobs", QUICK_DEPTH][..],
                    &["--jobs", QUICK_FAULT_JOBS][..],
                ),
                false => (&[][..], &[][..]),
            };
            say("A long queue");
            let depth: depth::Depth = with_defaults(jobs)?;
            let measured = Box::pin(depth.measure(more.clone(), shutdown)).await;
            take(&mut summary, "depth", measured);
            say("Every process killed while jobs run");
            let options = [&["--short", "--fault", "kill"], fault_jobs].concat();
            let faults: faults::Faults = with_defaults(&options)?;
            let measured = Box::pin(faults.measure(more, shutdown)).await;
            take(&mut summary, "faults", measured);
        }
        Ok(summary)
    }

    async fn parts(&self, rig: &mut Rig) -> anyhow::Result<Value> {
        let (project, pool) = rig.project_and_pool("bench").await?;
        rig.start_agent(&pool).await?;
        let amqp = rig.amqp_url()?;
        let mut summary = json!({
            "ok": true,
            "load_average": load_average(),
            "workers": self.workers,
        });
        if self.wants(Part::Hops) {
            say("Two bare hops through the broker");
            let rate = two_hop::measure(&amqp, self.jobs, PIPELINE_WINDOW).await?;
            summary["two_hop_per_s"] = json!(rate.round());
        }
        if self.wants(Part::Pipeline) {
            say("The pipeline: broker to confirmed report");
            let measured = self.pipeline(rig, &amqp, &mut summary).await;
            note(&mut summary, "pipeline", measured);
        }
        let (project, pool) = (project.as_str(), &pool);
        if self.wants(Part::Api) {
            say("The whole line: API to result");
            let api = Api { rig, project, pool };
            let measured = api.measure(self, &mut summary).await;
            note(&mut summary, "api", measured);
        }
        if self.wants(Part::Flows) {
            say("A chain of blocks");
            let measured = flows::measure(rig, project, &pool.id, &mut summary).await;
            note(&mut summary, "flows", measured);
        }
        let api = Api { rig, project, pool };
        if self.wants(Part::Starts) {
            say("First calls, many identities, idle runtimes");
            let measured = starts::measure(&api, &mut summary).await;
            note(&mut summary, "starts", measured);
            say("A crowd on few runtimes");
            let measured = starts::crowd(rig, &amqp, &mut summary).await;
            note(&mut summary, "crowd", measured);
        }
        if self.wants(Part::Cold) {
            say("Cold starts and paused runtimes");
            let measured = starts::cold(rig, &amqp, &mut summary).await;
            note(&mut summary, "cold", measured);
        }
        if self.wants(Part::Floors) {
            say("The bare machine");
            let (image, podman) = (rig.image(), rig.podman_url()?);
            let measured = floors::measure(&image, &podman, &mut summary).await;
            note(&mut summary, "floors", measured);
        }
        Ok(summary)
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Workers alone, fed and heard through the broker by this process.
    async fn pipeline(&self, rig: &mut Rig, amqp: &str, summary: &mut Value) -> anyhow::Result<()> {
        let names = Names::of(&PoolId::from(BARE_POOL));
        let link = Link::connect(amqp, "sluice bench", &names).await?;
        let workers = rig.start_bare_workers(BARE_POOL, amqp, &[])?;
        let result = self.pump(rig, &workers, &link, summary).await;
        link.close().await;
        workers.stop().await;
        result
    }

    async fn pump(
        &self,
        rig: &Rig,
        workers: &BareWorkers,
        link: &Link,
        summary: &mut Value,
    ) -> anyhow::Result<()> {
        let mut pump = Pump::new(link, BARE_POOL).await?;
        pump.run(WARM_UP_JOBS, 64).await.context("warm up")?;

        let mut samples = Samples::default();
        for _ in 0..self.samples {
            let started = Instant::now();
            pump.run(1, 1).await?;
            samples.add(started.elapsed());
        }
        let jobs = self.jobs as usize;
        let spent = rig.cpu_us(workers.ids());
        let started = Instant::now();
        pump.run(jobs, PIPELINE_WINDOW).await?;
        let rate = jobs as f64 / started.elapsed().as_secs_f64();
        summary["broker_to_report_ms"] = samples.to_json();
        summary["pipeline_jobs_per_s"] = json!(rate.round());
        summary["pipeline_cpu_us_per_job"] = per_job(&spent, &rig.cpu_us(workers.ids()), jobs);
        if let Some(two_hop) = summary["two_hop_per_s"].as_f64() {
            let share = (rate / two_hop * 100.0).round() / 100.0;
            summary["pipeline_share_of_two_hop"] = json!(share);
        }
        Ok(())
    }
}

/// The whole line, by HTTP.
struct Api<'a> {
    rig: &'a Rig,
    project: &'a str,
    pool: &'a PoolAccess,
}

// === impl Api ===

impl Api<'_> {
    async fn measure(&self, bench: &Bench, summary: &mut Value) -> anyhow::Result<()> {
        self.burst(WARM_UP_JOBS, 32).await.context("warm up")?;
        let mut samples = Samples::default();
        for _ in 0..bench.samples {
            let started = Instant::now();
            self.one().await?;
            samples.add(started.elapsed());
        }
        let jobs = bench.jobs as usize;
        let spent = self.rig.cpu_us([]);
        let started = Instant::now();
        self.burst(jobs, bench.clients as usize).await?;
        let rate = jobs as f64 / started.elapsed().as_secs_f64();
        summary["api_to_result_ms"] = samples.to_json();
        summary["api_jobs_per_s"] = json!(rate.round());
        summary["api_cpu_us_per_job"] = per_job(&spent, &self.rig.cpu_us([]), jobs);
        summary["rss_mib"] = json!(self.rig.rss_mib());
        summary["private_mib"] = json!(self.rig.private_mib());
        Ok(())
    }

    async fn burst(&self, jobs: usize, clients: usize) -> anyhow::Result<()> {
        let mut running = FuturesUnordered::new();
        let mut submitted = 0;
        loop {
            while submitted < jobs && running.len() < clients {
                running.push(self.one());
                submitted += 1;
            }
            match running.next().await {
                Some(result) => result?,
                None => return Ok(()),
            }
        }
    }

    async fn one(&self) -> anyhow::Result<()> {
        let body = json!({"kind": "evaluate", "expressions": {"value": EXPRESSION}});
        self.submit(body).await.map(drop)
    }

    /// Runs one job to its end; answers with the job object.
    async fn submit(&self, mut body: Value) -> anyhow::Result<Value> {
        body["project"] = json!(self.project);
        body["pool"] = json!(self.pool.id);
        let job = self.rig.post("/api/v1/jobs?wait=30", &body).await?;
        ensure!(
            job["state"] == "succeeded",
            "a job of the benchmark ended as {}",
            job["outcome"]
        );
        Ok(job)
    }
}

/// A part that could not be measured is told, and takes no other along.
fn note(summary: &mut Value, part: &str, measured: anyhow::Result<()>) {
    if let Err(error) = measured {
        say(&format!("  {part}: {error:#}"));
        summary["ok"] = json!(false);
        summary["failed"][part] = json!(format!("{error:#}"));
    }
}

/// The same for a mode of its own, and for one that found what must not be.
fn take(summary: &mut Value, mode: &str, measured: anyhow::Result<Value>) {
    let outcome = measured.and_then(|found| {
        let good = found["ok"] == true;
        summary[mode] = found;
        ensure!(good, "a number to hold was missed: see its figures");
        Ok(())
    });
    note(summary, mode, outcome);
}

/// A mode with these options and the defaults of all others.
fn with_defaults<T: clap::Args>(options: &[&str]) -> anyhow::Result<T> {
    let command = T::augment_args(clap::Command::new("bench").no_binary_name(true));
    Ok(T::from_arg_matches(
        &command.try_get_matches_from(options)?,
    )?)
}

/// What one job cost each role in processor time, in microseconds, and all together.
fn per_job(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, jobs: usize) -> Value {
    let mut shares = serde_json::Map::new();
    let mut all = 0.0;
    for (role, us) in after {
        let spent = us.saturating_sub(before.get(role).copied().unwrap_or(0));
        let share = spent as f64 / jobs as f64;
        all += share;
        if share >= 0.5 {
            shares.insert(role.clone(), json!(share.round()));
        }
    }
    shares.insert("all".into(), json!(all.round()));
    Value::Object(shares)
}

/// Processes that ran or wanted to, on average over the last minute.
fn load_average() -> Option<f64> {
    let said = std::fs::read_to_string("/proc/loadavg").ok()?;
    said.split(' ').next()?.parse().ok()
}

/// Percentiles of milliseconds.
fn stats_of(ms: &[f64]) -> Value {
    let mut samples = Samples::default();
    for ms in ms {
        samples.add(Duration::from_secs_f64(ms / 1_000.0));
    }
    samples.to_json()
}

/// Measures on an installation that leaves nothing behind.
async fn on_own_rig(
    workers: u32,
    settings: Vec<(String, String)>,
    shutdown: &Shutdown,
    work: impl AsyncFnOnce(&mut Rig) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let options = RigOptions { workers, settings };
    let (summary, left) = on_a_rig(options, shutdown, work).await?;
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(summary)
}

/// Prints what a mode has found; answers with the exit code.
fn conclude(mode: &str, json: bool, measured: anyhow::Result<Value>) -> i32 {
    match measured {
        Ok(summary) => {
            if json {
                println!("{summary}");
            } else {
                println!("{summary:#}");
            }
            i32::from(summary["ok"] != true)
        }
        Err(error) => {
            say(&format!("bench {mode}: {error:#}"));
            1
        }
    }
}

/// Tells a person how it goes; standard output is for the summary.
fn say(sentence: &str) {
    eprintln!("{sentence}");
}
