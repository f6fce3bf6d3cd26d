//! `sluice bench flows`: how many blocks a second run when events go through a flow.
//!
//! ```text
//!  N triggers ─▶ Step 0 ─▶ Step 1 ─▶ … ─▶ Step 9 ─▶ an event that goes nowhere
//! ```
//!
//! Every step is an app's block in a real container whose handler emits once.
//! What counts beside the rate is custody: each event is delivered once, and
//! none is missing. So it is done twice: undisturbed, and with the gateway
//! killed half way and started again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::stream::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::cli::bench::chain::{Fate, fate};
use crate::cli::bench::{conclude, load_average, on_own_rig, say};
use crate::cli::rig::Rig;
use crate::cli::rig::harm::{Harm, Victim};
use crate::shutdown::Shutdown;

/// Block executions per second that an installation on two cores should reach.
pub const EXECUTIONS_PER_S_MIN: f64 = 300.0;
/// Events and blocks of the usual measurement.
pub const EVENTS: u32 = 1_000;
pub const BLOCKS: u32 = 10;
/// Triggers that are sent at once.
const TRIGGERS_MAX: usize = 128;
/// Events that go through before anything is measured, so that code is compiled.
const WARM_UP_EVENTS: u32 = 20;
/// How long all of it may take.
const DONE_MAX: Duration = Duration::from_secs(300);
/// How often the flow is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The same while the moment matters at which it goes on.
const LOOK_CLOSELY: Duration = Duration::from_millis(20);
/// Events in one look.
const PAGE: usize = 500;

/// An app whose one block emits for each event it gets.
const APP: &str = "import { defineApp, events } from \"@slflows/sdk/v1\";\n\
    const input = { config: { what: { type: \"any\" } }, onEvent: async () => { await events.emit({ done: true }); } };\n\
    const step = { inputs: { default: input }, outputs: { default: { possiblePrimaryParents: [\"default\"] } } };\n\
    export const app = defineApp({ name: \"Chain\", autoconfirm: true, blocks: { step } });\n";

/// Send events through a chain of blocks, and see that each arrives once: first
/// undisturbed, then with the gateway killed half way.
///
/// Example: sluice bench flows
#[derive(Debug, clap::Args)]
pub struct Flows {
    /// Print one summary object as the last line of standard output.
    #[arg(long)]
    json: bool,
    /// How many events are triggered at once.
    #[arg(long, default_value_t = EVENTS, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    events: u32,
    /// How many blocks the chain has.
    #[arg(long, default_value_t = BLOCKS, value_parser = clap::value_parser!(u32).range(1..=100))]
    blocks: u32,
    /// How many workers to start.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
    /// Give every block a config that refers to the event before it.
    #[arg(long)]
    expressions: bool,
}

/// A flow of blocks one behind the other.
pub struct Chain {
    project: String,
    definition: String,
    flow: String,
    blocks: u32,
}

/// What a run gave.
pub struct Run {
    pub fate: Fate,
    pub executions: u64,
    pub seconds: f64,
    pub cpu_ms: BTreeMap<String, f64>,
}

/// What a run gave in which the gateway was killed.
pub struct Killed {
    pub run: Run,
    /// From the kill to the first delivery that ended after it, in seconds.
    pub recovery_s: f64,
}

/// Both runs as a part of the whole measurement.
pub async fn measure(
    rig: &mut Rig,
    project: &str,
    pool: &str,
    summary: &mut Value,
) -> anyhow::Result<()> {
    let chain = Chain::make(rig, project, pool, BLOCKS, false).await?;
    let run = chain.run(rig, EVENTS).await?;
    ensure!(run.fate.is_whole(), "the chain: {:?}", run.fate);
    summary["flow_executions_per_s"] = json!(run.per_s().round());
    let killed = chain.run_killed(rig, EVENTS).await?;
    summary["flow_killed"] = killed.to_json();
    let fate = killed.run.fate;
    ensure!(
        fate.is_whole(),
        "the chain with the gateway killed: {fate:?}"
    );
    Ok(())
}

// === impl Flows ===

impl Flows {
    /// Measures; answers with the exit code.
    pub async fn run(self, settings: Vec<(String, String)>, shutdown: Shutdown) -> i32 {
        let measured = on_own_rig(self.workers, settings, &shutdown, async |rig| {
            self.all(rig).await
        });
        conclude("flows", self.json, measured.await)
    }

    async fn all(&self, rig: &mut Rig) -> anyhow::Result<Value> {
        let load = load_average();
        // Expressions run on the default pool, whoever uses them.
        let pool = rig.default_pool().await?;
        let project = rig
            .post("/api/v1/projects", &json!({"name": "bench"}))
            .await?;
        let project = project["id"].as_str().unwrap_or_default().to_owned();
        rig.start_agent(&pool).await?;
        let chain = Chain::make(rig, &project, &pool.id, self.blocks, self.expressions).await?;
        let run = chain.run(rig, self.events).await?;
        let killed = chain.run_killed(rig, self.events).await?;
        Ok(json!({
            "ok": run.fate.is_whole() && killed.run.fate.is_whole(),
            "load_average": load,
            "events": self.events,
            "blocks": self.blocks,
            "workers": self.workers,
            "expressions": self.expressions,
            "executions": run.executions,
            "seconds": rounded(run.seconds),
            "executions_per_s": run.per_s().round(),
            "lost": run.fate.lost,
            "repeated": run.fate.twice,
            "failed": run.fate.failed,
            "cpu_ms_per_execution": run.cpu_ms_per_execution(),
            "killed": killed.to_json(),
        }))
    }
}

// === impl Chain ===

impl Chain {
    /// Installs the app in the pool and makes the flow; a few events have gone
    /// through it and are forgotten.
    pub async fn make(
        rig: &Rig,
        project: &str,
        pool: &str,
        blocks: u32,
        expressions: bool,
    ) -> anyhow::Result<Self> {
        let text = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
        let app = json!({"project": project, "name": "chain"});
        let app = text(&rig.post("/api/v1/apps", &app).await?);
        let version = json!({"version": "1.0.0", "code": APP});
        let path = format!("/api/v1/apps/{app}/versions");
        let version = text(&rig.post(&path, &version).await?);
        let installation = json!({
            "project": project, "name": "chain", "version": version, "pool": pool,
        });
        let installation = text(&rig.post("/api/v1/installations", &installation).await?);
        let path = format!("/api/v1/installations/{installation}");
        let until = Instant::now() + DONE_MAX;
        while rig.get(&path).await?["status"] != "ready" {
            ensure!(Instant::now() < until, "the app does not become ready");
            async_std::task::sleep(LOOK_EVERY).await;
        }
        let definition = definition(&installation, blocks, expressions);
        // The first one only warms everything up: its events would be in the way.
        let warm = Self::over(rig, project, "warm", &definition, blocks).await?;
        warm.trigger(rig, WARM_UP_EVENTS).await?;
        warm.until(rig, LOOK_EVERY, |_, open| open == 0).await?;
        Self::over(rig, project, "chain", &definition, blocks).await
    }

    async fn over(
        rig: &Rig,
        project: &str,
        name: &str,
        definition: &str,
        blocks: u32,
    ) -> anyhow::Result<Self> {
        let flow = json!({"project": project, "name": name});
        let flow = rig.post("/api/v1/flows", &flow).await?;
        let flow = flow["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/api/v1/flows/{flow}/apply");
        rig.post(&path, &json!({"definition": definition})).await?;
        Ok(Self {
            project: project.to_owned(),
            definition: definition.to_owned(),
            flow,
            blocks,
        })
    }

    /// Triggers so many events at once and waits until the last has gone through.
    pub async fn run(&self, rig: &Rig, events: u32) -> anyhow::Result<Run> {
        let before = rig.cpu_ms();
        let started = Instant::now();
        self.trigger(rig, events).await?;
        self.finish(rig, events, started, &before).await
    }

    /// The same over a flow of its own; the gateway is killed half way.
    pub async fn run_killed(&self, rig: &mut Rig, events: u32) -> anyhow::Result<Killed> {
        let (project, definition) = (&self.project, &self.definition);
        let chain = Self::over(rig, project, "killed", definition, self.blocks).await?;
        let before = rig.cpu_ms();
        let started = Instant::now();
        chain.trigger(rig, events).await?;
        let half = u64::from(events) * u64::from(self.blocks) / 2;
        chain.until(rig, LOOK_EVERY, |done, _| done >= half).await?;
        say("Killing the gateway half way");
        let killed = Instant::now();
        rig.harm(Victim::Gateway, Harm::Kill, Duration::ZERO)
            .await?;
        let known = chain.until(rig, LOOK_CLOSELY, |_, _| true).await?;
        let goes_on = |done: u64, open: u64| done > known || open == 0;
        chain.until(rig, LOOK_CLOSELY, goes_on).await?;
        let recovery_s = killed.elapsed().as_secs_f64();
        let run = chain.finish(rig, events, started, &before).await?;
        Ok(Killed { run, recovery_s })
    }

    async fn trigger(&self, rig: &Rig, events: u32) -> anyhow::Result<()> {
        let path = format!(
            "/api/v1/flows/{}/blocks/Step%200/inputs/default/events",
            self.flow
        );
        let path = path.as_str();
        futures::stream::iter(0..events)
            .map(|n| async move { rig.post(path, &json!({"n": n})).await })
            .buffer_unordered(TRIGGERS_MAX)
            .try_for_each(|_| async { Ok(()) })
            .await
    }

    /// Waits until so much is done and so little is open; answers with what is done.
    async fn until(
        &self,
        rig: &Rig,
        look_every: Duration,
        enough: impl Fn(u64, u64) -> bool,
    ) -> anyhow::Result<u64> {
        let path = format!("/api/v1/flows/{}", self.flow);
        let until = Instant::now() + DONE_MAX;
        loop {
            let shown = rig.get(&path).await?;
            let done = shown["deliveries"]["done"].as_u64().unwrap_or(0);
            let open = shown["open"].as_u64().context("a flow says what is open")?;
            if enough(done, open) {
                return Ok(done);
            }
            if Instant::now() > until {
                bail!(
                    "the flow is not quiet after {} s: {}",
                    DONE_MAX.as_secs(),
                    shown["deliveries"]
                );
            }
            async_std::task::sleep(look_every).await;
        }
    }

    async fn finish(
        &self,
        rig: &Rig,
        events: u32,
        started: Instant,
        before: &BTreeMap<String, f64>,
    ) -> anyhow::Result<Run> {
        self.until(rig, LOOK_EVERY, |_, open| open == 0).await?;
        let seconds = started.elapsed().as_secs_f64();
        let after = rig.cpu_ms().into_iter();
        let spent = |(role, ms): (String, f64)| {
            let ms = ms - before.get(&role).copied().unwrap_or(0.0);
            // A process that was killed has taken what it used with it.
            (role, ms.max(0.0))
        };
        let cpu_ms = after.map(spent).collect();
        let seen = self.events(rig).await?;
        Ok(Run {
            fate: fate(&seen, events as usize, self.blocks as usize),
            executions: u64::from(events) * u64::from(self.blocks),
            seconds,
            cpu_ms,
        })
    }

    /// Every event of the flow, oldest first.
    async fn events(&self, rig: &Rig) -> anyhow::Result<Vec<Value>> {
        let mut seen: Vec<Value> = Vec::new();
        loop {
            let after = seen.last().and_then(|event| event["seq"].as_i64());
            let after = after.unwrap_or(0);
            let path = format!(
                "/api/v1/flows/{}/events?after={after}&limit={PAGE}",
                self.flow
            );
            let mut page = rig.get(&path).await?;
            let page = page.as_array_mut().context("a list of events")?;
            let is_last = page.len() < PAGE;
            seen.append(page);
            if is_last {
                return Ok(seen);
            }
        }
    }
}

// === impl Run ===

impl Run {
    pub fn per_s(&self) -> f64 {
        self.executions as f64 / self.seconds
    }

    /// Processor time by role, in milliseconds; of a gateway that was killed the rest.
    fn cpu_ms_per_execution(&self) -> BTreeMap<&str, f64> {
        let each = self.cpu_ms.iter().map(|(role, ms)| {
            let ms = ms / self.executions as f64;
            (role.as_str(), (ms * 1_000.0).round() / 1_000.0)
        });
        each.collect()
    }
}

// === impl Killed ===

impl Killed {
    pub fn to_json(&self) -> Value {
        json!({
            "executions": self.run.executions,
            "per_s": self.run.per_s().round(),
            "lost": self.run.fate.lost,
            "repeated": self.run.fate.twice,
            "failed": self.run.fate.failed,
            "recovery_s": rounded(self.recovery_s),
        })
    }
}

/// To hundredths.
fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

fn definition(installation: &str, blocks: u32, expressions: bool) -> String {
    let mut text = format!("appInstallations: {{chain: {{id: {installation}}}}}\nblocks:\n");
    for at in 0..blocks {
        let what = match (at, expressions) {
            (1.., true) => format!("!expr outputs.step{}.done", at - 1),
            _ => at.to_string(),
        };
        text += &format!(
            "- name: Step {at}\n  type: {{appBlock: {{block: step, appInstallation: chain}}}}\n  \
             inputs:\n    default:\n      config: {{what: {what}}}\n"
        );
        if at > 0 {
            text += &format!(
                "      links: [{{block: Step {}, output: default}}]\n",
                at - 1
            );
        }
    }
    text
}
