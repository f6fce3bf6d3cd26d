//! `sluice bench faults`: every process is killed, stopped and restarted while jobs flow.
//!
//! ```text
//!  per cell:  stream ─▶ moment ─▶ harm ─▶ back ─▶ a new job ends ─▶ stream ends ─▶ every job's fate
//! ```
//!
//! A cell passes when no job is lost or failed, and when the first job ends
//! soon enough after whatever was harmed is back.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::backoff::jitter;
use crate::cli::bench::load::{Fates, Load, Target};
use crate::cli::bench::say;
use crate::cli::rig::harm::{Harm, Victim};
use crate::cli::rig::{Rig, RigOptions, on_a_rig};
use crate::shutdown::Shutdown;

/// Consuming again this soon after the dependency is back is promised.
const RECOVERY_MAX_S: f64 = 5.0;
/// How long jobs may take to end after the last harm.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a random moment may be away.
const RANDOM_WITHIN: Duration = Duration::from_millis(1_500);
/// Jobs handed out at once for the moment of a hand-out.
const BURST: usize = 32;
/// How long the probe of a running job runs, in milliseconds.
const PROBE_MS: u32 = 500;
/// How often it is looked whether a probe has started.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a probe may take to start or to end.
const PROBE_MAX_S: u64 = 30;
/// What the short form makes of the long one.
const SHORT_JOBS: u32 = 900;
const SHORT_STOP_S: u64 = 3;

/// Kill, stop and restart every process while jobs flow: nothing may be lost.
///
/// Example: sluice bench faults --short
#[derive(Debug, clap::Args)]
pub struct Faults {
    /// Print one summary object as the last line of standard output.
    #[arg(long)]
    json: bool,
    /// One random moment for each process and fault, few jobs, short stops.
    #[arg(long)]
    short: bool,
    /// Jobs over all cells, at least.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..))]
    jobs: u32,
    /// How long a stopped process stays stopped, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=300))]
    stop_s: u64,
    /// Harm these alone.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Victim::ALL)]
    process: Vec<Victim>,
    /// Do this alone.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Harm::ALL)]
    fault: Vec<Harm>,
    /// At these moments alone; the short form has the random one.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Moment::ALL)]
    moment: Vec<Moment>,
    /// How many workers to start.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
}

/// When harm is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Moment {
    /// At any time.
    Random,
    /// A burst of jobs is being handed to the agent and put into its queue.
    HandedOut,
    /// A job is running.
    Running,
    /// A job's end has just been stored, and its report is being acknowledged.
    Reported,
}

// === impl Moment ===

impl Moment {
    const ALL: [Self; 4] = [Self::Random, Self::HandedOut, Self::Running, Self::Reported];

    fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::HandedOut => "handed_out",
            Self::Running => "running",
            Self::Reported => "reported",
        }
    }
}

/// One cell of the matrix.
#[derive(Debug, Clone, Copy)]
struct Case {
    victim: Victim,
    harm: Harm,
    moment: Moment,
}

/// What came of it.
struct Cell {
    case: Case,
    fates: Fates,
    unanswered: u64,
    refused: u64,
    /// From the return to the first end of any job.
    recovery_s: Option<f64>,
    /// From the return to the end of a job that was submitted after it.
    fresh_s: Option<f64>,
}

// === impl Faults ===

impl Faults {
    /// Plays the matrix; answers with the exit code.
    pub async fn run(self, settings: Vec<(String, String)>, shutdown: Shutdown) -> i32 {
        match self.measure(settings, &shutdown).await {
            Ok(summary) => {
                let passed = summary["ok"] == true;
                if self.json {
                    println!("{summary}");
                } else {
                    print_table(&summary);
                }
                i32::from(!passed)
            }
            Err(error) => {
                say(&format!("bench faults: {error:#}"));
                1
            }
        }
    }

    pub async fn measure(
        &self,
        settings: Vec<(String, String)>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Value> {
        let options = RigOptions {
            workers: self.workers,
            settings,
        };
        let (mut summary, left) =
            on_a_rig(options, shutdown, async |rig: &mut Rig| self.all(rig).await).await?;
        let passed = summary["ok"] == true && left.is_empty();
        summary["ok"] = json!(passed);
        summary["left"] = json!(left);
        Ok(summary)
    }

    async fn all(&self, rig: &mut Rig) -> anyhow::Result<Value> {
        let (project, pool) = rig.project_and_pool("bench").await?;
        rig.start_agent(&pool).await?;
        let target = Target::new(rig, &project, &pool);
        target.submit("1", PROBE_MAX_S).await.context("warm up")?;
        let cases = self.cases(rig);
        let total = if self.short {
            self.jobs.min(SHORT_JOBS)
        } else {
            self.jobs
        };
        let jobs = (total as usize).div_ceil(cases.len().max(1));
        let mut cells = Vec::new();
        for case in cases {
            let cell = self
                .play(rig, &target, case, jobs)
                .await
                .with_context(|| format!("{} {}", case.victim.as_str(), case.harm.as_str()))?;
            say(&cell.sentence());
            cells.push(cell);
        }
        let lost: usize = cells.iter().map(|cell| cell.fates.lost.len()).sum();
        let jobs: usize = cells.iter().map(|cell| cell.fates.jobs).sum();
        Ok(json!({
            "ok": cells.iter().all(Cell::passed),
            "jobs": jobs,
            "lost": lost,
            "recovery_s_max": cells.iter().filter_map(|cell| cell.recovery_s).fold(0.0, f64::max),
            "cells": cells.iter().map(Cell::to_json).collect::<Vec<_>>(),
        }))
    }

    fn cases(&self, rig: &Rig) -> Vec<Case> {
        let moments: &[Moment] = if self.short {
            &[Moment::Random]
        } else {
            &self.moment
        };
        let mut cases = Vec::new();
        for victim in self.process.iter().copied() {
            if !rig.has(victim) {
                say(&format!("no {} of its own here", victim.as_str()));
                continue;
            }
            for harm in self.fault.iter().copied() {
                cases.extend(moments.iter().map(|moment| Case {
                    victim,
                    harm,
                    moment: *moment,
                }));
            }
        }
        cases
    }

    async fn play(
        &self,
        rig: &mut Rig,
        target: &Target,
        case: Case,
        jobs: usize,
    ) -> anyhow::Result<Cell> {
        let refused_before = target.refused().await?;
        let stop_s = if self.short {
            self.stop_s.min(SHORT_STOP_S)
        } else {
            self.stop_s
        };
        let load = Load::new(target.clone());
        let mischief = async {
            let done = self.harm(rig, target, &load, case, stop_s).await;
            load.stop();
            done
        };
        let ((), harmed) = futures::join!(load.run(jobs), mischief);
        let (returned_us, fresh) = harmed?;
        let fates = target.fates(load.take_ids(), PATIENCE).await;
        // A gateway that was started again counts from zero.
        let refused = target.refused().await?;
        Ok(Cell {
            case,
            recovery_s: fates.first_after(returned_us),
            fresh_s: fresh.map(|at| at.saturating_sub(returned_us) as f64 / 1_000_000.0),
            unanswered: load.unanswered(),
            refused: refused.checked_sub(refused_before).unwrap_or(refused),
            fates,
        })
    }

    /// Waits for the moment, does the harm, and waits until a new job has ended.
    async fn harm(
        &self,
        rig: &mut Rig,
        target: &Target,
        load: &Load,
        case: Case,
        stop_s: u64,
    ) -> anyhow::Result<(u64, Option<u64>)> {
        await_moment(target, load, case.moment).await?;
        let returned_us = rig
            .harm(case.victim, case.harm, Duration::from_secs(stop_s))
            .await?;
        let until_us = returned_us + PATIENCE.as_micros() as u64;
        while crate::telemetry::now_us() < until_us {
            if let Ok(job) = target.submit("2 + 2", PROBE_MAX_S).await {
                load.note(job["id"].as_str().unwrap_or_default());
                if let Some(at) = job["finished_us"].as_u64() {
                    return Ok((returned_us, Some(at)));
                }
            }
            async_std::task::sleep(LOOK_EVERY).await;
        }
        Ok((returned_us, None))
    }
}

/// Returns when it is time.
async fn await_moment(target: &Target, load: &Load, moment: Moment) -> anyhow::Result<()> {
    match moment {
        Moment::Random => {
            async_std::task::sleep(RANDOM_WITHIN.mul_f64(jitter())).await;
        }
        Moment::HandedOut => {
            let burst = (0..BURST).map(|_| target.submit("3 + 3", 0));
            for job in futures::future::join_all(burst).await {
                load.note(job?["id"].as_str().unwrap_or_default());
            }
        }
        Moment::Running => {
            let busy = format!(
                "(() => {{ const until = Date.now() + {PROBE_MS}; while (Date.now() < until) {{}} return 1 }})()"
            );
            let job = target.submit(&busy, 0).await?;
            let id = job["id"].as_str().unwrap_or_default();
            load.note(id);
            let path = format!("/api/v1/jobs/{id}");
            let started = async {
                loop {
                    let job = target.get(&path).await?;
                    if job["state"] == "started" || !job["finished_us"].is_null() {
                        return anyhow::Ok(());
                    }
                    async_std::task::sleep(LOOK_EVERY).await;
                }
            };
            async_std::future::timeout(Duration::from_secs(PROBE_MAX_S), started)
                .await
                .context("the probe does not start")??;
        }
        Moment::Reported => {
            let job = target.submit("4 + 4", PROBE_MAX_S).await?;
            load.note(job["id"].as_str().unwrap_or_default());
        }
    }
    Ok(())
}

// === impl Cell ===

impl Cell {
    fn passed(&self) -> bool {
        self.fates.lost.is_empty()
            && self.fates.failed.is_empty()
            && self.recovery_s.is_some_and(|s| s <= RECOVERY_MAX_S)
    }

    fn to_json(&self) -> Value {
        json!({
            "process": self.case.victim.as_str(),
            "fault": self.case.harm.as_str(),
            "moment": self.case.moment.as_str(),
            "ok": self.passed(),
            "jobs": self.fates.jobs,
            "lost": self.fates.lost.len(),
            "failed": self.fates.failed.len(),
            "repeated": self.fates.repeated,
            "reports_refused": self.refused,
            "unanswered": self.unanswered,
            "recovery_s": self.recovery_s.map(round),
            "fresh_s": self.fresh_s.map(round),
        })
    }

    fn sentence(&self) -> String {
        let seconds = |s: Option<f64>| s.map_or("never".to_owned(), |s| format!("{s:.2} s"));
        let mut sentence = format!(
            "{:8} {:8} {:11} {:5} jobs, {} lost, {} failed, {} repeated, {} reports refused; first end after {}, of a new job after {}{}",
            self.case.victim.as_str(),
            self.case.harm.as_str(),
            self.case.moment.as_str(),
            self.fates.jobs,
            self.fates.lost.len(),
            self.fates.failed.len(),
            self.fates.repeated,
            self.refused,
            seconds(self.recovery_s),
            seconds(self.fresh_s),
            if self.passed() { "" } else { "  <- FAILED" },
        );
        for what in self.fates.lost.iter().chain(&self.fates.failed).take(3) {
            sentence.push_str("\n    ");
            sentence.push_str(what);
        }
        sentence
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

fn print_table(summary: &Value) {
    let cells = summary["cells"].as_array().map_or(0, Vec::len);
    let good = |cell: &&Value| cell["ok"] == true;
    let passed = summary["cells"]
        .as_array()
        .map_or(0, |cells| cells.iter().filter(good).count());
    println!(
        "{passed} of {cells} cells passed: {} jobs, {} lost, slowest recovery {:.2} s",
        summary["jobs"],
        summary["lost"],
        summary["recovery_s_max"].as_f64().unwrap_or(0.0)
    );
}
