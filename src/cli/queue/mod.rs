//! `sluice queue …`: a look between bridge and workers, and what may be done there.
//!
//! Everything goes through the local API's routes (`agent::inspect`): what a
//! person can see here, a script can ask for.

mod access;
mod capture;
mod replay;
mod top;
mod views;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::admin::{Failure, object, query, segment};
use crate::cli::queue::access::Access;
use crate::cli::{LookUp, print};

/// How often live events are asked for.
const TAIL_EVERY: Duration = Duration::from_millis(400);
/// How long the bridge may take to see an order: it looks every second.
const ORDER_SEEN_MAX: Duration = Duration::from_millis(1_500);
/// How often a drain is looked at.
const DRAIN_EVERY: Duration = Duration::from_millis(500);

/// Whose queue, and how it is printed.
#[derive(Debug, Args)]
pub struct Look {
    /// The pool's id; without it FLOWS_AGENT_POOL_ID, or the pool of the agent here.
    #[arg(long, value_name = "ID")]
    pub pool: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Show jobs in one place without consuming any: ready, in-flight, retry or dead.
///
/// Example: sluice queue peek ready --limit 5 --kind event
#[derive(Debug, Args)]
pub struct Peek {
    #[arg(value_name = "QUEUE", value_parser = ["ready", "in-flight", "retry", "dead"])]
    place: String,
    /// Leave out so many of the oldest.
    #[arg(long, default_value_t = 0)]
    offset: u64,
    /// At most this many.
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Only jobs of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs of this project, by id.
    #[arg(long)]
    project: Option<String>,
    /// Show payloads too, with secrets masked.
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    look: Look,
}

#[derive(Debug, Subcommand)]
pub enum Queue {
    /// Show each queue: depth, oldest age, rates, consumers, what is in workers' hands.
    ///
    /// Example: sluice queue ls --json
    Ls {
        #[command(flatten)]
        look: Look,
    },
    Peek(Peek),
    /// Show one job's way over every hop, with times, attempts, SDK calls and log.
    ///
    /// Example: sluice queue trace 0198c0de-0000-7000-8000-000000000000
    Trace {
        /// The job's id.
        job: String,
        #[command(flatten)]
        look: Look,
    },
    /// Say why a job is where it is.
    ///
    /// Example: sluice queue why 0198c0de-0000-7000-8000-000000000000
    Why {
        /// The job's id.
        job: String,
        #[command(flatten)]
        look: Look,
    },
    /// Show dead letters, each or grouped by cause.
    ///
    /// Example: sluice queue dead --by cause
    Dead {
        /// Group them.
        #[arg(long, value_parser = ["cause"])]
        by: Option<String>,
        /// Only those with this cause.
        #[arg(long)]
        cause: Option<String>,
        #[command(flatten)]
        look: Look,
    },
    Replay(replay::Replay),
    Drop(replay::Drop),
    /// Show what happens to jobs as it happens, until Ctrl-C.
    ///
    /// Example: sluice queue tail --seconds 10
    Tail {
        /// End after so many seconds.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
        #[command(flatten)]
        look: Look,
    },
    /// Watch queues, workers and running jobs full-screen.
    ///
    /// Keys: up and down choose a job; p peeks into its payload, t traces it,
    /// w says why, page up and down read on in a long answer, c cancels it (twice
    /// to confirm), space pauses or resumes the pool, q quits.
    ///
    /// Example: sluice queue top
    Top {
        #[command(flatten)]
        look: Look,
    },
    /// Take nothing in and start nothing on this host, also after restarts, until `resume`.
    ///
    /// Running jobs go on. The order lies in the data directory: a bridge or
    /// worker on another host, or with another data directory, does not see it.
    ///
    /// Example: sluice queue pause --reason 'database upgrade'
    Pause {
        /// Why, for whoever asks.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        look: Look,
    },
    /// End a pause or a drain.
    ///
    /// Example: sluice queue resume
    Resume {
        #[command(flatten)]
        look: Look,
    },
    /// Take nothing in on this host, finish what is queued and running, and wait for that.
    ///
    /// The order stands afterwards, also over restarts, until `resume`.
    ///
    /// Example: sluice queue drain --wait 600
    Drain {
        /// Why, for whoever asks.
        #[arg(long, default_value = "")]
        reason: String,
        /// How many seconds to wait until all is done.
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        wait: u64,
        #[command(flatten)]
        look: Look,
    },
    /// Cancel a job, queued or running; once more changes nothing.
    ///
    /// Example: sluice queue cancel 0198c0de-0000-7000-8000-000000000000 --reason obsolete
    Cancel {
        /// The job's id.
        job: String,
        /// Why, for whoever looks at it later.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        look: Look,
    },
    /// Write one job as a file for `sluice queue run`: payload, bundle, recorded answers.
    ///
    /// No token is in it, but the payload is as the app got it, secrets included.
    ///
    /// Example: sluice queue capture 0198c0de-0000-7000-8000-000000000000 --output job.json
    Capture {
        /// The job's id.
        job: String,
        /// The file to write, readable by you alone; without it standard output.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        look: Look,
    },
    Run(capture::Run),
    /// Check that each accepted job is in exactly one place, and name each that is not.
    ///
    /// Exits with 1 if one is not.
    ///
    /// Example: sluice queue check --json
    Check {
        #[command(flatten)]
        look: Look,
    },
}

// === impl Queue ===

impl Queue {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        match self {
            Self::Ls { look } => ls(&Access::open(look_up, look.pool).await?, look.json).await,
            Self::Peek(peek) => peek.run(look_up).await,
            Self::Trace { job, look } => {
                let trace = about(look_up, look.pool, &job, "/trace").await?;
                show(look.json, &trace, views::trace);
                Ok(0)
            }
            Self::Why { job, look } => {
                let why = about(look_up, look.pool, &job, "/why").await?;
                show(look.json, &why, views::why);
                Ok(0)
            }
            Self::Dead { by, cause, look } => {
                let access = Access::open(look_up, look.pool).await?;
                let filter = query(&[("by", by.clone()), ("cause", cause)]);
                let dead = access.get(&format!("/v1/dead{filter}")).await?;
                views::dead(look.json, by.is_some(), &dead);
                Ok(0)
            }
            Self::Replay(replay) => replay.run(look_up).await,
            Self::Drop(drop) => drop.run(look_up).await,
            Self::Tail { seconds, look } => {
                let access = Access::open(look_up, look.pool).await?;
                tail(&access, seconds, look.json).await
            }
            Self::Top { look } => top::run(Access::open(look_up, look.pool).await?).await,
            Self::Pause { reason, look } => pause(look_up, look, &reason).await,
            Self::Resume { look } => resume(look_up, look).await,
            Self::Drain { reason, wait, look } => {
                let access = Access::open(look_up, look.pool).await?;
                drain(&access, &reason, wait, look.json).await
            }
            Self::Cancel { job, reason, look } => cancel(look_up, look, &job, reason).await,
            Self::Capture { job, output, look } => {
                let capture = about(look_up, look.pool, &job, "/capture").await?;
                capture::write(&capture, output.as_deref())
            }
            Self::Run(run) => run.run(look_up).await,
            Self::Check { look } => {
                let access = Access::open(look_up, look.pool).await?;
                let report = access.get("/v1/check").await?;
                show(look.json, &report, views::check);
                Ok(i32::from(report["ok"] != true))
            }
        }
    }
}

// === impl Peek ===

impl Peek {
    async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let access = Access::open(look_up, self.look.pool).await?;
        let filter = query(&[
            ("offset", Some(self.offset.to_string())),
            ("limit", Some(self.limit.to_string())),
            ("kind", self.kind),
            ("project", self.project),
            ("payload", self.payload.then(|| "1".to_owned())),
        ]);
        let path = format!("/v1/peek/{}{filter}", self.place);
        views::peek(self.look.json, &self.place, &access.get(&path).await?);
        Ok(0)
    }
}

async fn ls(access: &Access, json: bool) -> Result<i32, Failure> {
    let first = access.get("/v1/queues").await?;
    let overview = if first["accepted_per_s"].is_null() && !first["gateway"].is_null() {
        // A process that has just begun needs two looks for a rate.
        access.get("/v1/queues").await?
    } else {
        first
    };
    if json {
        print::line(&overview["queues"]);
    } else {
        print::line(views::queues(&overview));
    }
    Ok(0)
}

async fn about(
    look_up: LookUp<'_>,
    pool: Option<String>,
    job: &str,
    what: &str,
) -> Result<Value, Failure> {
    let access = Access::open_for(look_up, pool, job).await?;
    access
        .get(&format!("/v1/jobs/{}{what}", segment(job)))
        .await
}

/// Prints a value as JSON, or as its view.
fn show(json: bool, value: &Value, view: impl Fn(&Value) -> String) {
    if json {
        print::line(value);
    } else {
        print::line(view(value));
    }
}

async fn pause(look_up: LookUp<'_>, look: Look, reason: &str) -> Result<i32, Failure> {
    let access = Access::open(look_up, look.pool).await?;
    let order = json!({"mode": "paused", "reason": reason});
    let reply = access.post("/v1/pause", &order).await?;
    show(look.json, &reply, |_| {
        "Nothing is taken in or started on this host until `sluice queue resume`.".to_owned()
    });
    Ok(0)
}

async fn resume(look_up: LookUp<'_>, look: Look) -> Result<i32, Failure> {
    let access = Access::open(look_up, look.pool).await?;
    let reply = access.post("/v1/resume", &json!({})).await?;
    show(look.json, &reply, |_| "Work is taken again.".to_owned());
    Ok(0)
}

async fn cancel(
    look_up: LookUp<'_>,
    look: Look,
    job: &str,
    reason: Option<String>,
) -> Result<i32, Failure> {
    let access = Access::open_for(look_up, look.pool, job).await?;
    let body = object(&[("reason", reason.map(Value::from))]);
    let path = format!("/v1/jobs/{}/cancel", segment(job));
    let reply = access.post(&path, &body).await?;
    show(look.json, &reply, |_| {
        format!("Job {job} is being cancelled.")
    });
    Ok(0)
}

async fn tail(access: &Access, seconds: Option<u64>, json: bool) -> Result<i32, Failure> {
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let start = access.get("/v1/events").await?;
    let mut next = start["next"].as_u64().unwrap_or(0);
    while until.is_none_or(|until| Instant::now() < until) {
        async_std::task::sleep(TAIL_EVERY).await;
        let seen = access.get(&format!("/v1/events?after={next}")).await?;
        // A gateway that began anew counts from nought.
        next = seen["next"].as_u64().unwrap_or(0);
        if let Some(missed @ 1..) = seen["missed"].as_u64() {
            eprintln!("sluice: {missed} events came faster than they are kept and are not shown");
        }
        for event in seen["events"].as_array().into_iter().flatten() {
            show(json, event, views::event);
        }
    }
    Ok(0)
}

async fn drain(access: &Access, reason: &str, wait: u64, json: bool) -> Result<i32, Failure> {
    access
        .post("/v1/pause", &json!({"mode": "draining", "reason": reason}))
        .await?;
    // What the bridge took before it saw the order must be in the books by then.
    let seen = Instant::now() + ORDER_SEEN_MAX;
    let until = Instant::now() + Duration::from_secs(wait);
    loop {
        let overview = access.get("/v1/queues").await?;
        let left = views::left(&overview);
        let done = left == Some(0) && Instant::now() >= seen;
        if done || Instant::now() >= until {
            let state = json!({"drained": done, "left": left});
            show(json, &state, |_| match left {
                Some(0) => {
                    "All jobs here are done; nothing is taken in until `sluice queue resume`."
                        .to_owned()
                }
                Some(left) => {
                    format!("{left} jobs are left after {wait} s; nothing more is taken in.")
                }
                None => format!(
                    "What is left is not known: {}",
                    print::cell(overview["unknown"].get(0))
                ),
            });
            return Ok(i32::from(!done));
        }
        if !json {
            eprintln!(
                "sluice: {} jobs are left",
                left.map_or("?".to_owned(), |left| left.to_string())
            );
        }
        async_std::task::sleep(DRAIN_EVERY).await;
    }
}
