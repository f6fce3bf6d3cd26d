//! `sluice demo`: one real installation from nothing to a job's trace and a flow's end.
//!
//! Starts every process in a scratch directory, runs real jobs through real
//! containers, kills a worker under a running job, and leaves nothing behind.
//! Owns the story; the processes are the [`Rig`]'s.

mod database;
mod flow;
mod handlers;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::cli::rig::{PoolAccess, Rig, RigOptions, until_interrupted};
use crate::cli::stats::Samples;
use crate::shutdown::Shutdown;

/// Warm evaluations one after the other, for the latency figures.
const LATENCY_JOBS: usize = 200;
/// Jobs submitted at once, to show that the queue takes them.
const BURST_JOBS: usize = 200;
/// How long one job of the demo may be waited for.
const WAIT_S: u64 = 60;

/// Why the demo's flows use no database.
const NO_DATABASE: &str = "apps reach no address of their host, and this user may not make the network in which `make demo` gives a database another one";

/// Run the whole line once on this machine, with nothing left behind.
///
/// Example: sluice demo --app sample.mjs
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// The bundle of the sample app (`make demo` builds it from tests/apps/sample).
    #[arg(long, value_name = "FILE")]
    app: PathBuf,
    /// How many workers to start.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=16))]
    workers: u32,
    /// Start a PostgreSQL server on the loopback, which apps reach at this address,
    /// and run a flow against it (`make demo` arranges the address).
    #[arg(long, value_name = "ADDRESS", requires = "postgresql_app")]
    postgresql: Option<std::net::IpAddr>,
    /// The bundle of tests/apps/postgresql.
    #[arg(long, value_name = "FILE")]
    postgresql_app: Option<PathBuf>,
    /// Print one summary object as the last line of standard output.
    #[arg(long)]
    json: bool,
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    jobs: usize,
    finished: usize,
    repeated: usize,
    containers: BTreeSet<String>,
    agents: u64,
    latency: Samples,
    /// What came of the flows.
    flow: Value,
    database: Value,
    started: Option<Instant>,
}

// === impl Demo ===

impl Demo {
    /// Runs the demo; the exit code is 0 only if all of it held.
    pub async fn run(self, settings: Vec<(String, String)>, shutdown: Shutdown) -> i32 {
        let mut seen = Seen {
            started: Some(Instant::now()),
            ..Seen::default()
        };
        let result = self.scenes(&mut seen, settings, &shutdown).await;
        let (ok, left) = match &result {
            Ok(left) => (left.is_empty(), left.clone()),
            Err(_) => (false, Vec::new()),
        };
        match &result {
            Err(error) => eprintln!("sluice: demo: {error:#}"),
            Ok(left) => left
                .iter()
                .for_each(|what| eprintln!("sluice: demo: left behind: {what}")),
        }
        if self.json {
            println!(
                "{}",
                seen.summary(ok, &left, result.err().map(|e| format!("{e:#}")))
            );
        } else if ok {
            println!(
                "All of it held: {} jobs, {} lost, a flow of {} events, p50 {:.1} ms, p99 {:.1} ms.",
                seen.jobs,
                seen.jobs - seen.finished,
                seen.flow["events"],
                seen.latency.p50(),
                seen.latency.p99()
            );
        }
        i32::from(!ok)
    }

    async fn scenes(
        &self,
        seen: &mut Seen,
        settings: Vec<(String, String)>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Vec<String>> {
        let code = std::fs::read_to_string(&self.app)
            .with_context(|| format!("read the sample app {}", self.app.display()))?;
        seen.say("Starting a gateway");
        let mut options = RigOptions {
            workers: self.workers,
            settings,
        };
        if let Some(address) = self.postgresql {
            let allowed = format!("{address}/32:{}", database::PORT);
            let network = [("", "private"), ("_ALLOW", &allowed)];
            let network = network
                .map(|(end, value)| (format!("SLUICE_RUNTIME_NETWORK{end}"), value.to_owned()));
            options.settings.extend(network);
        }
        let mut rig = until_interrupted(shutdown, Rig::start(options)).await?;
        let result = until_interrupted(shutdown, self.play(&mut rig, seen, &code)).await;
        if let Err(error) = result {
            eprintln!("--- the agent's last words\n{}", rig.log_tail("agent"));
            // The first error is the one worth telling.
            let _ = rig.stop().await;
            return Err(error);
        }
        seen.say("Stopping everything");
        rig.stop().await
    }

    async fn play(&self, rig: &mut Rig, seen: &mut Seen, code: &str) -> anyhow::Result<()> {
        seen.say("Creating a project, for the default pool");
        let project = rig.project("demo").await?;
        let pool = rig.default_pool().await?;
        seen.say(&format!(
            "Starting an agent: RabbitMQ, a bridge and {} workers",
            self.workers
        ));
        rig.start_agent(&pool).await?;
        let detail = rig.get(&format!("/api/v1/pools/{}", pool.id)).await?;
        seen.agents = detail["connected_agents"].as_u64().unwrap_or(0);
        seen.say(&format!(
            "Connected: {} agent on {}",
            seen.agents, detail["agents"][0]["host"]
        ));

        let stage = Stage { rig, project, pool };
        stage.expressions(seen).await?;
        let version = stage.app(seen, code).await?;
        stage.two_handlers_at_once(seen, &version).await?;
        let job = stage.a_worker_dies(seen, &version).await?;
        stage.latency(seen).await?;
        stage.burst(seen).await?;
        stage.trace(seen, &job).await?;
        let scene = flow::sample(&self.app);
        seen.flow = flow::run(stage.rig, seen, &stage.project, &scene)
            .await?
            .told;
        seen.database = match (self.postgresql, &self.postgresql_app) {
            (Some(address), Some(app)) => {
                let place = (&*address.to_string(), &**app);
                database::run(stage.rig, seen, &stage.project, place).await?
            }
            _ => {
                seen.say(&format!("No flow with a database: {NO_DATABASE}"));
                json!({"skipped": NO_DATABASE})
            }
        };
        Ok(())
    }
}

/// Where the scenes play.
struct Stage<'a> {
    rig: &'a Rig,
    project: String,
    pool: PoolAccess,
}

// === impl Stage ===

impl Stage<'_> {
    async fn expressions(&self, seen: &mut Seen) -> anyhow::Result<()> {
        seen.say("Evaluating expressions");
        let job = self
            .run(
                seen,
                &json!({
                    "kind": "evaluate",
                    "expressions": {"sum": "1 + 2", "greeting": "`Hello ${outputs.user.name}`"},
                    "scope": {"outputs": {"user": {"name": "Ada"}}},
                }),
            )
            .await?;
        let result = &job["outcome"]["result"];
        ensure!(
            *result == json!({"sum": 3, "greeting": "Hello Ada"}),
            "the expressions gave {}",
            job["outcome"]
        );
        seen.say(&format!(
            "  {result} in container {}",
            job["container"].as_str().unwrap_or("?")
        ));
        let job = self
            .run(
                seen,
                &json!({"kind": "evaluate", "expressions": {"wrong": "outputs.nobody.name"}}),
            )
            .await?;
        ensure!(
            job["outcome"]["cause"] == "threw",
            "an expression that throws gave {}",
            job["outcome"]
        );
        seen.say(&format!(
            "  and one that throws says so: {}",
            job["outcome"]["message"]
        ));
        Ok(())
    }

    async fn app(&self, seen: &mut Seen, code: &str) -> anyhow::Result<String> {
        seen.say("Uploading the sample app and describing it");
        let app = self
            .rig
            .post(
                "/api/v1/apps",
                &json!({"project": self.project, "name": "sample"}),
            )
            .await?;
        let path = format!(
            "/api/v1/apps/{}/versions",
            app["id"].as_str().unwrap_or_default()
        );
        let version = self
            .rig
            .post(&path, &json!({"version": "0.1.0", "code": code}))
            .await?;
        let version = version["id"].as_str().unwrap_or_default().to_owned();
        let job = self
            .run(seen, &json!({"kind": "describe", "version": version}))
            .await?;
        let blocks = job["outcome"]["result"]["blocks"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        ensure!(
            blocks.contains_key("greet"),
            "describing the app gave {}",
            job["outcome"]
        );
        let names: Vec<_> = blocks.keys().map(String::as_str).collect();
        seen.say(&format!("  blocks: {}", names.join(", ")));
        Ok(version)
    }

    async fn latency(&self, seen: &mut Seen) -> anyhow::Result<()> {
        seen.say(&format!(
            "Evaluating {LATENCY_JOBS} expressions one after the other"
        ));
        for _ in 0..LATENCY_JOBS {
            let started = Instant::now();
            let job = self
                .run(
                    seen,
                    &json!({"kind": "evaluate", "expressions": {"value": "1 + 1"}}),
                )
                .await?;
            ensure!(
                job["outcome"]["result"]["value"] == 2,
                "1 + 1 gave {}",
                job["outcome"]
            );
            seen.latency.add(started.elapsed());
        }
        seen.say(&format!(
            "  API to result p50 {:.2} ms, p99 {:.2} ms",
            seen.latency.p50(),
            seen.latency.p99()
        ));
        Ok(())
    }

    async fn burst(&self, seen: &mut Seen) -> anyhow::Result<()> {
        seen.say(&format!("Submitting {BURST_JOBS} jobs at once"));
        let body = self.body(&json!({"kind": "evaluate", "expressions": {"value": "40 + 2"}}));
        let path = format!("/api/v1/jobs?wait={WAIT_S}");
        let jobs =
            futures::future::join_all((0..BURST_JOBS).map(|_| self.rig.post(&path, &body))).await;
        seen.jobs += jobs.len();
        for job in jobs {
            let job = job?;
            ensure!(
                job["outcome"]["result"]["value"] == 42,
                "a job of the burst gave {}",
                job["outcome"]
            );
            seen.note(&job);
        }
        Ok(())
    }

    async fn trace(&self, seen: &mut Seen, job: &str) -> anyhow::Result<()> {
        seen.say(&format!(
            "The trace of job {job}, whose first worker was killed"
        ));
        let trace = self.rig.get(&format!("/api/v1/jobs/{job}/trace")).await?;
        let hops = trace["hops"].as_array().cloned().unwrap_or_default();
        ensure!(hops.len() >= 8, "the trace has only {} hops", hops.len());
        for hop in hops {
            let since = hop["since_previous_us"].as_f64().unwrap_or(0.0) / 1_000.0;
            eprintln!(
                "    {since:>10.3} ms  {}",
                hop["name"].as_str().unwrap_or("?")
            );
        }
        Ok(())
    }

    fn body(&self, what: &Value) -> Value {
        let mut body = what.clone();
        body["project"] = json!(self.project);
        body["pool"] = json!(self.pool.id);
        body
    }

    async fn submit(&self, seen: &mut Seen, what: &Value) -> anyhow::Result<String> {
        let job = self.rig.post("/api/v1/jobs", &self.body(what)).await?;
        seen.jobs += 1;
        Ok(job["id"].as_str().context("a job without id")?.to_owned())
    }

    async fn run(&self, seen: &mut Seen, what: &Value) -> anyhow::Result<Value> {
        let path = format!("/api/v1/jobs?wait={WAIT_S}");
        let job = self.rig.post(&path, &self.body(what)).await?;
        seen.jobs += 1;
        seen.note(&job);
        Ok(job)
    }

    async fn wait(&self, seen: &mut Seen, id: &str) -> anyhow::Result<Value> {
        let job = self
            .rig
            .get(&format!("/api/v1/jobs/{id}?wait={WAIT_S}"))
            .await?;
        seen.note(&job);
        Ok(job)
    }

    /// Waits until a job is known to run; answers with its worker.
    async fn started(&self, id: &str) -> anyhow::Result<String> {
        let until = Instant::now() + Duration::from_secs(WAIT_S);
        while Instant::now() < until {
            let job = self.rig.get(&format!("/api/v1/jobs/{id}")).await?;
            match job["state"].as_str() {
                Some("started") => {
                    return Ok(job["worker"].as_str().unwrap_or_default().to_owned());
                }
                Some("queued" | "dispatched" | "accepted") => {}
                other => bail!("job {id} is {other:?}: {}", job["outcome"]),
            }
            async_std::task::sleep(Duration::from_millis(20)).await;
        }
        bail!("job {id} has not started after {WAIT_S} s")
    }
}

// === impl Seen ===

impl Seen {
    /// One line of progress, with the time since the start.
    fn say(&self, text: &str) {
        let since = self
            .started
            .map(|at| at.elapsed().as_secs_f64())
            .unwrap_or_default();
        eprintln!("[{since:6.2} s] {text}");
    }

    fn note(&mut self, job: &Value) {
        let finished = matches!(
            job["state"].as_str(),
            Some("succeeded" | "failed" | "cancelled")
        );
        self.finished += usize::from(finished);
        if let Some(container) = job["container"].as_str() {
            self.containers.insert(container.to_owned());
        }
    }

    fn summary(&self, ok: bool, left: &[String], error: Option<String>) -> Value {
        json!({
            "ok": ok && self.jobs == self.finished,
            "jobs": self.jobs,
            "lost": self.jobs - self.finished,
            "repeated": self.repeated,
            "agents": self.agents,
            "containers": self.containers.len(),
            "p50_ms": self.latency.p50(),
            "p99_ms": self.latency.p99(),
            "flow": self.flow,
            "database": self.database,
            "left_behind": left,
            "seconds": self.started.map(|at| at.elapsed().as_secs_f64()),
            "error": error,
        })
    }
}

fn handler(version: &str, block: &str, input_config: &Value) -> Value {
    json!({
        "kind": "event",
        "version": version,
        "installation": "demo",
        "handler": {"block": block, "input": "default"},
        "input": {
            "app": {"config": {}, "signals": {}, "prompts": {}, "http": {"url": ""}, "installationUrl": ""},
            "block": {"id": format!("demo-{block}"), "name": block, "config": {}},
            "event": {"id": "demo-event", "inputConfig": input_config},
        },
    })
}
