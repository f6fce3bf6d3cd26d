//! `sluice queue capture` and `run`: one job as a file, and that file run once
//! more in the same sandbox on this host, without gateway or broker.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use futures::{FutureExt, select_biased};
use serde_json::{Value, json};
use sluice_proto::harness::Answer;
use sluice_proto::job::{Identity, Kind};
use sluice_proto::report::{Cause, Failure as JobFailure, LOG_JOB_BYTES_MAX};

use crate::agent_id;
use crate::cli::admin::Failure;
use crate::cli::queue::access::kept;
use crate::cli::queue::views;
use crate::cli::{LookUp, configure, print};
use crate::config::RuntimeConfig;
use crate::runtime::Owner;
use crate::runtime::invocation::{Ended, Invocation, Running, Said};
use crate::runtime::pool::Pool;
use crate::shutdown::{Shutdown, Tasks, unblock};

/// Workers of an agent count from 0; whoever runs a capture stands above all of them.
const WORKER_NUMBER_BASE: u32 = 100_000;
/// How long a runtime may take to be there.
const CLAIM_MAX: Duration = Duration::from_secs(120);

/// Run a captured job here, in the same sandbox, without gateway or broker.
///
/// SDK calls are answered as they were when the job ran; one that was not made
/// then is answered with null, and `--json` shows which. Exits with 0 only if
/// the job succeeded.
///
/// Example: sluice queue run job.json
#[derive(Debug, Args)]
pub struct Run {
    /// A file that `sluice queue capture` wrote.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A captured job, read back.
struct Capture {
    job: String,
    kind: Kind,
    identity: Identity,
    timeout: Duration,
    payload: Vec<u8>,
    bundle: Option<Vec<u8>>,
    recorded: Recorded,
}

/// What SDK calls were answered, by method and in their order.
#[derive(Debug, Default)]
struct Recorded(HashMap<String, VecDeque<Answer>>);

/// Writes a capture to a file of its owner alone, or to standard output.
pub fn write(capture: &Value, output: Option<&Path>) -> Result<i32, Failure> {
    let Some(path) = output else {
        print::line(capture);
        return Ok(0);
    };
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    writeln!(file, "{capture}").with_context(|| format!("write {}", path.display()))?;
    Ok(0)
}

// === impl Run ===

impl Run {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let text =
            std::fs::read(&self.file).with_context(|| format!("read {}", self.file.display()))?;
        let mut capture = Capture::read(&text).map_err(|why| {
            Failure::Usage(format!("{} is no capture: {why}", self.file.display()))
        })?;
        let (mut config, set, data_dir) = configure(look_up, |reader| {
            (reader.runtime(), reader.set(), reader.data_dir())
        })?;
        if !set.iter().any(|(name, _)| name == "CONTAINER_HOST")
            && let Some(url) = kept(&data_dir, "podman-url")
        {
            config.podman_url = url;
        }
        let here = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(existing(&data_dir)?)
            .context("make a directory for the runtime")?;
        config.mounts_dir = here.path().to_owned();
        config.stems = 0;
        config.runtimes_max = 1;
        let result = sandboxed(config, &data_dir, &mut capture, self.json).await?;
        let succeeded = result["outcome"].get("result").is_some();
        views::one_run(self.json, &result);
        Ok(i32::from(!succeeded))
    }
}

fn existing(dir: &Path) -> Result<&Path, Failure> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

/// Runs it in a container of its own, which is gone afterwards.
async fn sandboxed(
    config: RuntimeConfig,
    data_dir: &Path,
    capture: &mut Capture,
    json: bool,
) -> Result<Value, Failure> {
    let dir = data_dir.to_owned();
    let agent = unblock(move || agent_id::read_or_create(&dir))
        .await
        .context("find the agent's id")?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(anyhow::Error::from)?;
    let tasks = Tasks::new("run", shutdown.clone());
    let owner = Owner {
        agent,
        worker: WORKER_NUMBER_BASE + std::process::id(),
    };
    let pool = Pool::start(config, owner, &shutdown, &tasks)
        .await
        .context("prepare the runtime")?;
    let ran = one(&pool, capture, &shutdown, json).await;
    pool.shutdown().await;
    tasks.join().await;
    Ok(ran)
}

async fn one(pool: &Pool, capture: &mut Capture, shutdown: &Shutdown, json: bool) -> Value {
    let bundle = capture.bundle.clone();
    let fetch = async move {
        bundle
            .ok_or_else(|| JobFailure::new(Cause::BundleUnavailable, "The capture has no bundle."))
    };
    let claimed = async_std::future::timeout(CLAIM_MAX, pool.claim(&capture.identity, fetch)).await;
    let lease = match claimed {
        Ok(Ok(lease)) => lease,
        Ok(Err(failure)) => return capture.ended(Err(failure), None, Duration::ZERO),
        Err(_) => {
            let message = format!("No runtime was there in {} s.", CLAIM_MAX.as_secs());
            let failure = JobFailure::new(Cause::RuntimeUnavailable, message);
            return capture.ended(Err(failure), None, Duration::ZERO);
        }
    };
    let begun = Instant::now();
    let invocation = Invocation {
        kind: capture.kind,
        payload: capture.payload.clone(),
        timeout: capture.timeout,
        log_bytes_max: u32::try_from(LOG_JOB_BYTES_MAX).unwrap_or(u32::MAX),
    };
    let runtime = json!({"container": lease.container(), "origin": lease.origin().as_str()});
    let result = match lease.invoke(invocation).await {
        Ok(running) => {
            listen(running, &mut capture.recorded, shutdown, json)
                .await
                .result
        }
        Err(failure) => Err(failure),
    };
    capture.ended(result, Some(&runtime), begun.elapsed())
}

async fn listen(
    mut running: Running,
    recorded: &mut Recorded,
    shutdown: &Shutdown,
    json: bool,
) -> Ended {
    loop {
        // What was not heard stays in the runtime's channel.
        let said = select_biased! {
            said = running.next().fuse() => Some(said),
            () = shutdown.draining().fuse() => None,
        };
        let said = match said {
            Some(said) => said,
            None => {
                running.abort();
                running.next().await
            }
        };
        match said {
            Said::Ended(ended) => return ended,
            Said::Log { level, text, .. } => {
                let level = format!("{level:?}").to_lowercase();
                eprintln!("{level:5}  {}", plain(&text));
            }
            Said::Call { call, method, args } => {
                let (answer, how) = recorded.answer(&method);
                if !json {
                    let args = String::from_utf8_lossy(&args);
                    eprintln!("call   {method}{} ({how})", plain(&args));
                }
                running.answer(call, answer);
            }
        }
    }
}

/// What user code wrote may hold control characters, which a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

// === impl Capture ===

impl Capture {
    fn read(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if value["sluice_capture"] != 1 {
            return Err("it does not say `\"sluice_capture\": 1`".to_owned());
        }
        let bytes = |name: &str| {
            let text = value[name].as_str()?;
            BASE64.decode(text).ok()
        };
        let kind = value["kind"].as_str().unwrap_or_default();
        Ok(Self {
            job: value["job"].as_str().unwrap_or_default().to_owned(),
            kind: Kind::parse(kind).ok_or_else(|| format!("`{kind}` is no kind of job"))?,
            identity: serde_json::from_value(value["identity"].clone())
                .map_err(|error| format!("its identity: {error}"))?,
            timeout: Duration::from_millis(value["timeout_ms"].as_u64().unwrap_or(30_000)),
            payload: bytes("payload").ok_or("its payload is no base64")?,
            bundle: bytes("bundle"),
            recorded: Recorded::read(&value["calls"]),
        })
    }

    fn ended(
        &self,
        result: Result<Vec<u8>, JobFailure>,
        runtime: Option<&Value>,
        took: Duration,
    ) -> Value {
        let outcome = match result {
            Ok(json) => {
                json!({"result": serde_json::from_slice::<Value>(&json).unwrap_or_default()})
            }
            Err(failure) => json!({
                "cause": failure.cause.as_str(),
                "message": failure.message,
                "stack": failure.stack,
                "key": failure.key,
            }),
        };
        json!({
            "job": self.job,
            "outcome": outcome,
            "container": runtime.map(|runtime| &runtime["container"]),
            "origin": runtime.map(|runtime| &runtime["origin"]),
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

// === impl Recorded ===

impl Recorded {
    fn read(calls: &Value) -> Self {
        let mut by_method = HashMap::<String, VecDeque<Answer>>::new();
        for call in calls.as_array().into_iter().flatten() {
            let method = call["method"].as_str().unwrap_or_default().to_owned();
            let answer = match call["error"].as_str() {
                Some(message) => Answer::Error {
                    message: message.to_owned(),
                },
                None => Answer::Value {
                    json: call["answer"].to_string().into_bytes(),
                },
            };
            by_method.entry(method).or_default().push_back(answer);
        }
        Self(by_method)
    }

    /// The next recorded answer to this method, or null.
    fn answer(&mut self, method: &str) -> (Answer, &'static str) {
        match self.0.get_mut(method).and_then(VecDeque::pop_front) {
            Some(answer) => (answer, "as recorded"),
            None => (
                Answer::Value {
                    json: b"null".to_vec(),
                },
                "not recorded: null",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_answered_as_recorded_and_then_with_null() {
        let calls = json!([
            {"number": 0, "method": "kv.app.get", "answer": {"key": "a"}, "error": null},
            {"number": 1, "method": "kv.app.get", "answer": null, "error": "no"},
        ]);
        let mut recorded = Recorded::read(&calls);
        let first = Answer::Value {
            json: br#"{"key":"a"}"#.to_vec(),
        };
        assert_eq!(recorded.answer("kv.app.get"), (first, "as recorded"));
        let second = Answer::Error {
            message: "no".into(),
        };
        assert_eq!(recorded.answer("kv.app.get").0, second);
        assert_eq!(recorded.answer("kv.app.get").1, "not recorded: null");
    }

    #[test]
    fn a_capture_is_read_back_and_anything_else_is_refused() {
        let capture = json!({
            "sluice_capture": 1, "job": "j", "kind": "evaluate", "identity": {"flow": {"flow": "f"}},
            "timeout_ms": 5, "payload": BASE64.encode("{}"), "bundle": null, "calls": [],
        });
        let read = Capture::read(capture.to_string().as_bytes()).expect("a capture");
        assert_eq!(
            (read.payload.as_slice(), read.bundle),
            (b"{}".as_slice(), None)
        );
        for wrong in ["[]", "{\"sluice_capture\": 1, \"kind\": \"dance\"}", "x"] {
            assert!(Capture::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_capture_is_readable_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("job.json");
        write(&json!({}), Some(&path)).expect("written");
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
