//! `sluice job …`: run a job, look at jobs, cancel one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure, object, query, segment};
use crate::cli::{LookUp, print};

/// How long one request may be held open by the gateway, in seconds.
const WAIT_S_MAX: u64 = 60;
/// The key of an expression that was given without one.
const KEY: &str = "value";

#[derive(Debug, Subcommand)]
pub enum Job {
    Run(Run),
    /// Show one job.
    ///
    /// Example: sluice job show 0198c0de-0000-7000-8000-000000000000
    Show {
        /// The job's id.
        job: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List jobs, newest first.
    ///
    /// Example: sluice job list --state failed --limit 20
    List {
        /// Only jobs of this project, by id or name.
        #[arg(long)]
        project: Option<String>,
        /// Only jobs of this pool, by id or name.
        #[arg(long)]
        pool: Option<String>,
        /// Only jobs in this state.
        #[arg(long, value_parser = ["queued", "dispatched", "accepted", "started", "succeeded", "failed", "cancelled"])]
        state: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cancel a job, wherever it is.
    ///
    /// Example: sluice job cancel 0198c0de-0000-7000-8000-000000000000 --reason obsolete
    Cancel {
        /// The job's id.
        job: String,
        /// Why, for whoever looks at it later.
        #[arg(long)]
        reason: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what a job's code logged.
    ///
    /// Example: sluice job log 0198c0de-0000-7000-8000-000000000000
    Log {
        /// The job's id.
        job: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Run a job and wait for its outcome.
///
/// Exits with 0 only if the job succeeded, or if it was not waited for.
///
/// Example: sluice job run --project default --expression '1 + 1'
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct Run {
    /// The project it belongs to, by id or name.
    #[arg(long)]
    project: String,
    /// The pool that runs it, by id or name; without it the default pool.
    #[arg(long)]
    pool: Option<String>,
    /// An expression to evaluate, with a key (`key:=expression`) if there are several.
    #[arg(
        long = "expression",
        short = 'e',
        value_name = "EXPRESSION",
        group = "what"
    )]
    expressions: Vec<String>,
    /// The id of an app version to describe.
    #[arg(long, value_name = "VERSION", group = "what")]
    describe: Option<String>,
    /// A file with the job as the API takes it, as JSON; `-` is standard input.
    #[arg(long, value_name = "FILE", group = "what")]
    body: Option<PathBuf>,
    /// What expressions can see, as JSON, for example `{"outputs": {"a": 1}}`.
    #[arg(long, value_name = "JSON", requires = "expressions", value_parser = parse_json)]
    scope: Option<Value>,
    /// Let it go before others.
    #[arg(long)]
    high: bool,
    /// How many seconds it may run.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// How many seconds to wait for its outcome; 0 only submits it.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

// === impl Job ===

impl Job {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        match self {
            Self::Run(run) => return run.run(&admin).await,
            Self::Show { job, json } => {
                show(
                    json,
                    &admin
                        .get(&format!("/api/v1/jobs/{}", segment(&job)))
                        .await?,
                );
            }
            Self::List {
                project,
                pool,
                state,
                limit,
                json,
            } => {
                let project = match project {
                    Some(project) => Some(admin.project(&project).await?),
                    None => None,
                };
                let pool = match pool {
                    Some(pool) => Some(admin.pool(&pool).await?),
                    None => None,
                };
                let filter = query(&[
                    ("project", project),
                    ("pool", pool),
                    ("state", state),
                    ("limit", Some(limit.to_string())),
                ]);
                list(json, &admin.get(&format!("/api/v1/jobs{filter}")).await?);
            }
            Self::Cancel { job, reason, json } => {
                let body = object(&[("reason", reason.map(|reason| json!(reason)))]);
                let path = format!("/api/v1/jobs/{}/cancel", segment(&job));
                let reply = admin.post(&path, &body).await?;
                if json {
                    print::line(reply);
                } else {
                    print::line(format!("Job {job} is being cancelled."));
                }
            }
            Self::Log { job, json } => {
                let path = format!("/api/v1/jobs/{}/log", segment(&job));
                log(json, &admin.get(&path).await?);
            }
        }
        Ok(0)
    }
}

// === impl Run ===

impl Run {
    async fn run(self, admin: &Admin) -> Result<i32, Failure> {
        let project = admin.project(&self.project).await?;
        let pool = match &self.pool {
            Some(pool) => Some(admin.pool(pool).await?),
            None => None,
        };
        let body = self.job(&project, pool.as_deref())?;
        let until = Instant::now() + Duration::from_secs(self.wait);
        let path = format!("/api/v1/jobs?wait={}", self.wait.min(WAIT_S_MAX));
        let mut job = admin.post(&path, &body).await?;
        while self.wait > 0 && !has_ended(&job) && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
            let id = segment(job["id"].as_str().unwrap_or_default());
            let path = format!("/api/v1/jobs/{id}?wait={}", left.min(WAIT_S_MAX));
            job = admin.get(&path).await?;
        }
        if self.wait == 0 && !self.json {
            print::line(job["id"].as_str().unwrap_or_default());
        } else {
            show(self.json, &job);
        }
        Ok(i32::from(self.wait > 0 && job["state"] != "succeeded"))
    }

    /// The body of the request.
    fn job(&self, project: &str, pool: Option<&str>) -> Result<Value, Failure> {
        let mut job = if let Some(file) = &self.body {
            read_json(file)?
        } else if let Some(version) = &self.describe {
            json!({"kind": "describe", "version": version})
        } else {
            let mut expressions = json!({});
            for text in &self.expressions {
                let (key, expression) = text.split_once(":=").unwrap_or((KEY, text));
                if !expressions[key].is_null() {
                    return Err(Failure::Usage(format!(
                        "two expressions have the key `{key}`: write key:=expression"
                    )));
                }
                expressions[key] = json!(expression);
            }
            json!({"kind": "evaluate", "expressions": expressions})
        };
        if !job.is_object() {
            return Err(Failure::Usage("a job is a JSON object".to_owned()));
        }
        let said = object(&[
            ("project", Some(json!(project))),
            ("pool", pool.map(|pool| json!(pool))),
            ("scope", self.scope.clone()),
            ("priority", self.high.then(|| json!("high"))),
            (
                "timeout_ms",
                self.timeout.map(|s| json!(u64::from(s) * 1_000)),
            ),
        ]);
        for (name, value) in said.as_object().into_iter().flatten() {
            job[name] = value.clone();
        }
        Ok(job)
    }
}

fn read_json(file: &Path) -> Result<Value, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.with_context(|| format!("read {}", file.display()))?;
    parse_json(&text)
        .map_err(|error| Failure::Usage(format!("{} is no JSON: {error}", file.display())))
}

fn parse_json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

fn has_ended(job: &Value) -> bool {
    matches!(
        job["state"].as_str(),
        Some("succeeded" | "failed" | "cancelled")
    )
}

fn show(json: bool, job: &Value) {
    let fields = [
        ("job", "/id"),
        ("kind", "/kind"),
        ("state", "/state"),
        ("waiting", "/waiting/sentence"),
        ("result", "/outcome/result"),
        ("cause", "/outcome/cause"),
        ("key", "/outcome/key"),
        ("message", "/outcome/message"),
        ("reason", "/outcome/reason"),
        ("attempt", "/attempt"),
        ("worker", "/worker"),
        ("container", "/container"),
        ("runtime", "/origin"),
        ("log bytes dropped", "/log_bytes_dropped"),
    ];
    print::record(json, job, &fields);
}

fn list(json: bool, jobs: &Value) {
    let columns = [
        ("ID", "/id"),
        ("KIND", "/kind"),
        ("STATE", "/state"),
        ("ATTEMPT", "/attempt"),
        ("WORKER", "/worker"),
        ("CAUSE", "/outcome/cause"),
    ];
    if json {
        print::line(jobs);
    } else {
        print::list(false, &jobs["jobs"], &columns);
    }
}

fn log(json: bool, lines: &Value) {
    if json {
        return print::line(lines);
    }
    for line in lines.as_array().into_iter().flatten() {
        let at = print::moment(line["at_us"].as_i64());
        let level = print::cell(line.get("level"));
        let text = print::harmless(line["text"].as_str().unwrap_or_default());
        print::line(format!("{at}  {level:5}  {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn body(line: &[&str]) -> Result<Value, Failure> {
        let words = ["sluice", "job", "run", "--project", "p"];
        let words = words.iter().chain(line).map(std::ffi::OsString::from);
        match crate::cli::parse(words).expect("it parses") {
            Command::Job(Job::Run(run)) => run.job("p-id", None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn expressions_become_an_evaluation() {
        let job = body(&[
            "-e",
            "1 + 1",
            "-e",
            "b:=x",
            "--scope",
            "{\"x\":1}",
            "--high",
            "--timeout",
            "5",
        ]);
        let expected = json!({
            "kind": "evaluate", "project": "p-id", "priority": "high", "timeout_ms": 5_000,
            "expressions": {"value": "1 + 1", "b": "x"}, "scope": {"x": 1},
        });
        assert_eq!(job.expect("a job"), expected);
    }

    #[test]
    fn two_expressions_need_their_keys() {
        let failure = body(&["-e", "1", "-e", "2"]).expect_err("one key for both");
        assert!(failure.to_string().contains("key:=expression"), "{failure}");
    }

    #[test]
    fn a_body_is_taken_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("job.json");
        std::fs::write(&file, r#"{"kind":"event","version":"v"}"#).expect("written");
        let path = file.to_str().expect("a path");
        let job = body(&["--body", path]).expect("a job");
        assert_eq!(
            job,
            json!({"kind": "event", "version": "v", "project": "p-id"})
        );
        std::fs::write(&file, "[]").expect("written");
        assert!(body(&["--body", path]).is_err());
    }
}
