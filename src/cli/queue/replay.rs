//! `sluice queue replay` and `drop`: dead letters done again or thrown away.
//! Nothing happens without `--yes`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::admin::{Failure, query};
use crate::cli::queue::access::Access;
use crate::cli::queue::{Look, views};
use crate::cli::{LookUp, print};
use crate::shutdown::{Shutdown, Stage};

/// Dead letters in one request; the API takes no more.
const AT_ONCE_MAX: usize = 200;

/// Which dead letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Which {
    /// These jobs.
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// All that died of this cause.
    #[arg(long)]
    cause: Option<String>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["jobs", "cause"])]
    all: bool,
}

/// Run dead letters' jobs again, each as a new job that names the old one.
///
/// Without --yes it only shows which. Ctrl-C ends it between two jobs; what is
/// done is done, and the next replay goes on with the rest.
///
/// Example: sluice queue replay --cause collateral --rate 20 --yes
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    which: Which,
    /// Jobs per second.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Do it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    look: Look,
}

/// Throw dead letters away. Their jobs' ends stay with the gateway.
///
/// Without --yes it only shows which.
///
/// Example: sluice queue drop --cause unacceptable --yes
#[derive(Debug, Args)]
pub struct Drop {
    #[command(flatten)]
    which: Which,
    /// Do it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    look: Look,
}

// === impl Replay ===

impl Replay {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let order = Order {
            what: "replay",
            rate: self.rate,
            yes: self.yes,
            json: self.look.json,
        };
        let access = Access::open(look_up, self.look.pool).await?;
        order.carry_out(&access, &self.which).await
    }
}

// === impl Drop ===

impl Drop {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let order = Order {
            what: "drop",
            rate: u32::MAX,
            yes: self.yes,
            json: self.look.json,
        };
        let access = Access::open(look_up, self.look.pool).await?;
        order.carry_out(&access, &self.which).await
    }
}

struct Order {
    what: &'static str,
    rate: u32,
    yes: bool,
    json: bool,
}

// === impl Order ===

impl Order {
    async fn carry_out(&self, access: &Access, which: &Which) -> Result<i32, Failure> {
        let filter = query(&[("cause", which.cause.clone())]);
        let dead = access.get(&format!("/v1/dead{filter}")).await?;
        let chosen = which.choose(&dead);
        if !self.yes {
            views::dead(self.json, false, &Value::Array(chosen.clone()));
            eprintln!(
                "sluice: {} dead letters would go; --yes does it ({})",
                chosen.len(),
                self.what
            );
            return Ok(0);
        }
        let shutdown = Shutdown::new();
        shutdown.on_signals().map_err(anyhow::Error::from)?;
        let ids: Vec<&str> = chosen
            .iter()
            .filter_map(|one| one["job"].as_str())
            .collect();
        let mut answers = Vec::new();
        let batch = usize::try_from(self.rate)
            .unwrap_or(usize::MAX)
            .min(AT_ONCE_MAX);
        for some in ids.chunks(batch) {
            if shutdown.stage() != Stage::Running {
                eprintln!(
                    "sluice: ended early, {} of {} are done",
                    answers.len(),
                    ids.len()
                );
                break;
            }
            let begun = Instant::now();
            let body = json!({"jobs": some, "by": "sluice queue"});
            let answer = access
                .post(&format!("/v1/dead/{}", self.what), &body)
                .await?;
            answers.extend(answer.as_array().cloned().unwrap_or_default());
            let due = Duration::from_secs_f64(some.len() as f64 / f64::from(self.rate));
            let rest = due.saturating_sub(begun.elapsed());
            if answers.len() < ids.len() {
                // A signal ends the wait as well.
                let _ = async_std::future::timeout(rest, shutdown.draining()).await;
            }
        }
        let failed = answers.iter().any(|answer| !answer["error"].is_null());
        let unknown = which.jobs.len() > chosen.len() && !which.jobs.is_empty();
        views::fates(self.json, &Value::Array(answers));
        if unknown {
            print_unknown(which, &chosen);
        }
        Ok(i32::from(failed || unknown))
    }
}

fn print_unknown(which: &Which, chosen: &[Value]) {
    for job in &which.jobs {
        if !chosen.iter().any(|one| one["job"] == job.as_str()) {
            print::line(format!("{job}  there is no dead letter of this job"));
        }
    }
}

// === impl Which ===

impl Which {
    /// Those of `dead` that are meant; a cause is narrowed by jobs.
    fn choose(&self, dead: &Value) -> Vec<Value> {
        let all = dead.as_array().map(Vec::as_slice).unwrap_or_default();
        let named = |one: &&Value| {
            // One without a job's id can be dropped by its cause alone.
            self.jobs.is_empty() || self.jobs.iter().any(|job| one["job"] == job.as_str())
        };
        all.iter().filter(named).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_narrow_a_cause_down() {
        let dead = json!([{"job": "a"}, {"job": "b"}]);
        let mut which = Which {
            jobs: vec!["b".into(), "c".into()],
            cause: None,
            all: false,
        };
        assert_eq!(which.choose(&dead), [json!({"job": "b"})]);
        which.jobs.clear();
        assert_eq!(which.choose(&dead).len(), 2);
    }

    #[test]
    fn somebody_must_say_which() {
        let parse = |line: &str| crate::cli::parse(line.split(' ').map(Into::into)).is_ok();
        assert!(!parse("sluice queue replay"));
        assert!(!parse("sluice queue drop --all --cause threw"));
        assert!(parse("sluice queue drop --all"));
        assert!(parse("sluice queue replay a b --rate 5"));
    }
}
