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
mod report;
mod soak;
mod starts;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use sluice_proto::ids::{JobId, PoolId, ProjectId};
use sluice_proto::job::{Identity, Job, Kind, Priority};
use sluice_proto::queue::Names;
use sluice_proto::report::{Body, Origin, Outcome};

use crate::cli::rig::{PoolAccess, Rig, RigOptions, on_a_rig};
use crate::cli::stats::Samples;
use crate::queue::Link;
use crate::queue::two_hop;
use crate::shutdown::Shutdown;
use crate::telemetry::now_us;

/// Jobs run before anything is measured, so that runtimes are warm and code is compiled.
const WARM_UP_JOBS: usize = 1_000;
/// How long any single answer may take before the measurement is given up.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Jobs in flight while the pipeline's throughput is taken.
const PIPELINE_WINDOW: usize = 512;
/// The pool whose workers are fed by the bench itself, without a bridge.
const BARE_POOL: &str = "bench";
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
    /// Write a table (performance.md) and a plot (performance.svg) into this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
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
                    print_table(&summary);
                }
                0
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
            "sluice bench --workers {} --jobs {} --samples {} --clients {}",
            self.workers, self.jobs, self.samples, self.clients
        )
    }

    async fn measure(
        &self,
        settings: Vec<(String, String)>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Value> {
        let options = RigOptions {
            workers: self.workers,
            settings,
        };
        let (summary, left) =
            on_a_rig(options, shutdown, async |rig: &mut Rig| self.all(rig).await).await?;
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        Ok(summary)
    }

    async fn all(&self, rig: &mut Rig) -> anyhow::Result<Value> {
        let (project, pool) = rig.project_and_pool("bench").await?;
        rig.start_agent(&pool).await?;
        let amqp = rig.amqp_url()?;
        let load_average = load_average();

        eprintln!("Two bare hops through the broker");
        let two_hop = two_hop::measure(&amqp, self.jobs, PIPELINE_WINDOW).await?;
        eprintln!("The pipeline: broker to confirmed report");
        let (broker_to_report, pipeline) = self.pipeline(rig, &amqp).await?;
        eprintln!("The whole line: API to result");
        let api = Api { rig, project, pool };
        let (api_to_result, api_rate) = api.measure(self).await?;
        let (rss_mib, private_mib) = (rig.rss_mib(), rig.private_mib());
        say("A chain of blocks");
        let chain =
            flows::Chain::make(rig, &api.project, &api.pool.id, flows::BLOCKS, false).await?;
        let chain = chain.run(rig, flows::EVENTS).await?;
        ensure!(chain.fate.is_whole(), "the chain: {:?}", chain.fate);
        say("First calls, many identities, idle runtimes");
        let first_calls = starts::first_calls(&api).await?;
        let identities = starts::identities(&api).await?;
        let (runtime_pss_mib, runtimes) = starts::idle_memory(&api).await?;
        say("Cold starts");
        let cold = starts::cold(rig, &amqp).await?;
        say("The bare machine");
        let floors = floors::measure(&rig.image(), &rig.podman_url()?).await?;
        let tenth = |mib: f64| (mib * 10.0).round() / 10.0;
        Ok(json!({
            "ok": true,
            "load_average": load_average,
            "workers": self.workers,
            "broker_to_report_ms": broker_to_report.to_json(),
            "api_to_result_ms": api_to_result.to_json(),
            "api_jobs_per_s": api_rate.round(),
            "pipeline_jobs_per_s": pipeline.round(),
            "flow_executions_per_s": chain.per_s().round(),
            "two_hop_per_s": two_hop.round(),
            "pipeline_share_of_two_hop": (pipeline / two_hop * 100.0).round() / 100.0,
            "stem_first_call_ms": first_calls.to_json(),
            "stem_first_calls": first_calls.len(),
            "cold_ms": cold.to_json(),
            "podman_run_ms": floors.podman_run.to_json(),
            "identities": identities,
            "runtime_pss_mib": tenth(runtime_pss_mib),
            "idle_runtimes": runtimes,
            "rss_mib": rss_mib,
            "private_mib": private_mib,
            "floors": {
                "node_loop_per_s": floors.node_loop_per_s.round(),
                "bullmq": floors.bullmq,
            },
        }))
    }

    /// Workers alone, fed and heard through the broker by this process.
    async fn pipeline(&self, rig: &mut Rig, amqp: &str) -> anyhow::Result<(Samples, f64)> {
        let names = Names::of(&PoolId::from(BARE_POOL));
        let link = Link::connect(amqp, "sluice bench", &names).await?;
        let workers = rig.start_bare_workers(BARE_POOL, amqp, &[])?;
        let result = self.pump(&link).await;
        link.close().await;
        workers.stop().await;
        result
    }

    async fn pump(&self, link: &Link) -> anyhow::Result<(Samples, f64)> {
        let mut pump = Pump::new(link, BARE_POOL).await?;
        pump.run(WARM_UP_JOBS, 64).await.context("warm up")?;

        let mut samples = Samples::default();
        for _ in 0..self.samples {
            let started = Instant::now();
            pump.run(1, 1).await?;
            samples.add(started.elapsed());
        }
        let jobs = self.jobs as usize;
        let started = Instant::now();
        pump.run(jobs, PIPELINE_WINDOW).await?;
        Ok((samples, jobs as f64 / started.elapsed().as_secs_f64()))
    }
}

/// Keeps a number of jobs in flight on the bare pool.
struct Pump<'a> {
    link: &'a Link,
    reports: crate::queue::Deliveries<sluice_proto::report::Report>,
    open: HashSet<JobId>,
    pool: &'a str,
    /// Whose expressions are evaluated.
    flow: String,
    /// What the last job ran on.
    origin: Option<Origin>,
}

// === impl Pump ===

impl<'a> Pump<'a> {
    async fn new(link: &'a Link, pool: &'a str) -> anyhow::Result<Self> {
        Ok(Self {
            reports: link.reports(1_000).await?,
            link,
            open: HashSet::new(),
            pool,
            flow: pool.to_owned(),
            origin: None,
        })
    }

    /// Runs `jobs` no-op jobs, at most `window` at a time, until each is reported finished.
    async fn run(&mut self, jobs: usize, window: usize) -> anyhow::Result<()> {
        let mut published = 0;
        let mut publishing = FuturesUnordered::new();
        while published < jobs || !self.open.is_empty() || !publishing.is_empty() {
            while published < jobs && self.open.len() < window {
                let job = no_op_of(self.pool, &self.flow);
                self.open.insert(job.id.clone());
                published += 1;
                let link = self.link;
                publishing.push(async move { link.publish_job(&job, now_us()).await });
            }
            // Both futures may be dropped half-way: a delivery not yet taken stays
            // with the stream, and an unfinished publish stays in `publishing`.
            let next = futures::future::select(
                publishing.next(),
                Box::pin(async_std::future::timeout(ANSWER_MAX, self.reports.next())),
            );
            let delivery = match next.await {
                futures::future::Either::Left((Some(confirmed), _)) => {
                    confirmed?;
                    continue;
                }
                futures::future::Either::Left((None, report)) => report.await??,
                futures::future::Either::Right((report, _)) => report??,
            };
            if let Body::Finished(finished) = &delivery.item.body {
                ensure!(
                    matches!(finished.outcome, Outcome::Succeeded { .. }),
                    "a no-op job ended as {:?}",
                    finished.outcome
                );
                self.open.remove(&delivery.item.job);
                self.origin = finished.runtime.as_ref().map(|used| used.origin);
            }
            delivery.ack().await?;
        }
        Ok(())
    }
}

fn no_op_of(pool: &str, flow: &str) -> Job {
    Job {
        id: JobId(uuid::Uuid::now_v7().to_string()),
        kind: Kind::Evaluate,
        priority: Priority::Normal,
        pool: PoolId::from(pool),
        project: ProjectId::from(pool),
        identity: Identity::Flow { flow: flow.into() },
        dispatch: 1,
        created_us: now_us(),
        timeout_ms: 30_000,
        expires_ms: None,
        block: None,
        token: String::new(),
        traceparent: None,
        payload: br#"{"expressions":{"value":"1 + 1"},"scope":{}}"#.to_vec(),
    }
}

/// The whole line, by HTTP.
struct Api<'a> {
    rig: &'a Rig,
    project: String,
    pool: PoolAccess,
}

// === impl Api ===

impl Api<'_> {
    async fn measure(&self, bench: &Bench) -> anyhow::Result<(Samples, f64)> {
        self.burst(WARM_UP_JOBS, 32).await.context("warm up")?;
        let mut samples = Samples::default();
        for _ in 0..bench.samples {
            let started = Instant::now();
            self.one().await?;
            samples.add(started.elapsed());
        }
        let jobs = bench.jobs as usize;
        let started = Instant::now();
        self.burst(jobs, bench.clients as usize).await?;
        Ok((samples, jobs as f64 / started.elapsed().as_secs_f64()))
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

/// Tells a person how it goes; standard output is for the summary.
fn say(sentence: &str) {
    eprintln!("{sentence}");
}

fn print_table(summary: &Value) {
    let latency = |key: &str| {
        format!(
            "p50 {:.2} ms, p99 {:.2} ms",
            summary[key]["p50"].as_f64().unwrap_or(0.0),
            summary[key]["p99"].as_f64().unwrap_or(0.0)
        )
    };
    println!(
        "broker to confirmed report  {}",
        latency("broker_to_report_ms")
    );
    println!(
        "API to result               {}",
        latency("api_to_result_ms")
    );
    println!(
        "API                         {} jobs/s",
        summary["api_jobs_per_s"]
    );
    println!(
        "pipeline                    {} jobs/s",
        summary["pipeline_jobs_per_s"]
    );
    println!(
        "two bare hops               {} messages/s",
        summary["two_hop_per_s"]
    );
    for (name, key) in [
        ("first call, on a stem", "stem_first_call_ms"),
        ("first call, cold", "cold_ms"),
        ("podman run, Node hello", "podman_run_ms"),
    ] {
        println!("{name:<27} {}", latency(key));
    }
    println!(
        "an idle runtime, PSS        {} MiB",
        summary["runtime_pss_mib"]
    );
    println!("resident memory, MiB        {}", summary["rss_mib"]);
    println!("private memory, MiB         {}", summary["private_mib"]);
}
