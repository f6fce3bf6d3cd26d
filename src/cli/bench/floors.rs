//! What is compared with: the bare machine, without anything of ours.
//!
//! | floor | is |
//! |---|---|
//! | `podman run` | a Node hello by the command line, in the image the runtimes use |
//! | Node loop | the benchmark's expression, compiled once, called in a loop |
//! | BullMQ | its sandboxed processor on Redis, where both are installed |

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_process::Command;
use serde_json::{Value, json};

use crate::cli::bench::EXPRESSION;
use crate::cli::stats::Samples;

/// Containers started by the command line, one after the other.
const RUNS: usize = 10;
/// How long one of them may take.
const RUN_MAX: Duration = Duration::from_secs(60);
/// Jobs of the bare loop.
const LOOP_JOBS: u32 = 2_000_000;
/// Jobs of BullMQ's processor.
const BULLMQ_JOBS: u32 = 2_000;

/// The same work as a job's, without a queue, a process boundary or a container.
const LOOP: &str = r#"
const [jobs, expression] = [Number(process.argv[1]), process.argv[2]];
const job = new Function(`return JSON.stringify({ value: (${expression}) })`);
let length = 0;
for (let n = 0; n < 10000; n++) length += job().length;
const start = process.hrtime.bigint();
for (let n = 0; n < jobs; n++) length += job().length;
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
console.log(JSON.stringify({ rate: jobs / seconds, length }));
"#;

/// A queue, its events and a sandboxed processor in a process of its own.
const BULLMQ: &str = r#"
const fs = require("fs"), os = require("os"), path = require("path");
const { Queue, Worker } = require("bullmq");
const [jobs, expression] = [Number(process.argv[2]), process.argv[3]];
const connection = { path: process.argv[4], maxRetriesPerRequest: null };
const dir = fs.mkdtempSync(path.join(os.tmpdir(), "bullmq-"));
const processor = path.join(dir, "processor.cjs");
fs.writeFileSync(processor, `module.exports = async () => ({ value: (${expression}) });`);
(async () => {
  const name = `sluice-bench-${process.pid}`;
  const queue = new Queue(name, { connection });
  const worker = new Worker(name, processor, { connection, concurrency: 8 });
  let done = 0, start = 0, warm = 200;
  const all = new Promise((resolve, reject) => {
    worker.on("completed", () => {
      done += 1;
      if (done === warm) start = Date.now();
      if (done === warm + jobs) resolve();
    });
    worker.on("failed", (_, error) => reject(error));
    worker.on("error", reject);
  });
  for (let sent = 0; sent < warm + jobs; sent += 100)
    await queue.addBulk(Array.from({ length: 100 }, () => ({ name: "job", data: {} })));
  await all;
  console.log(JSON.stringify({ rate: jobs / ((Date.now() - start) / 1000) }));
  await worker.close(); await queue.obliterate({ force: true }); await queue.close();
  fs.rmSync(dir, { recursive: true });
  process.exit(0);
})().catch((error) => { console.error(String(error)); process.exit(1); });
"#;

/// Measures all of them, one after the other; each that could not be had says why.
pub async fn measure(image: &str, podman_url: &str, summary: &mut Value) -> anyhow::Result<()> {
    summary["podman_run_ms"] = podman_run(image, podman_url).await?.to_json();
    summary["floors"] = json!({
        "node_loop_per_s": node_loop(image, podman_url).await?.round(),
        "bullmq": bullmq().await,
    });
    Ok(())
}

/// The command line beside the service that the workers use, with its storage.
fn podman(podman_url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("podman");
    command
        .args([
            "--remote",
            "--url",
            podman_url,
            "run",
            "--rm",
            "--network=none",
        ])
        .args(arguments)
        .kill_on_drop(true);
    command
}

async fn podman_run(image: &str, podman_url: &str) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for run in 0..=RUNS {
        let started = Instant::now();
        let hello = ["--pull=never", image, "node", "-e", "console.log('hello')"];
        // The plain command, as a person would type it; the service's way is no shorter.
        let mut command = Command::new("podman");
        command.args(["run", "--rm", "--network=none"]).args(hello);
        let output = answer(command, "podman run").await;
        let output = match output {
            Ok(output) => output,
            // The user's own storage may lack the image where the service has it.
            Err(_) => answer(podman(podman_url, &hello), "podman run").await?,
        };
        ensure!(output.trim() == "hello", "`podman run` printed {output:?}");
        // The first one warms the page cache, as the runtimes find it warm too.
        if run > 0 {
            samples.add(started.elapsed());
        }
    }
    Ok(samples)
}

/// In the same image, so that it is the same Node.
async fn node_loop(image: &str, podman_url: &str) -> anyhow::Result<f64> {
    let jobs = LOOP_JOBS.to_string();
    let arguments = ["--pull=never", image, "node", "-e", LOOP, &jobs, EXPRESSION];
    let mut command = Command::new("podman");
    command
        .args(["run", "--rm", "--network=none"])
        .args(arguments);
    let output = match answer(command, "the bare Node loop").await {
        Ok(output) => output,
        Err(_) => answer(podman(podman_url, &arguments), "the bare Node loop").await?,
    };
    rate(&output)
}

async fn bullmq() -> Value {
    match try_bullmq().await {
        Ok(rate) => json!({"per_s": rate.round()}),
        Err(error) => json!({"per_s": null, "reason": format!("{error:#}")}),
    }
}

/// On a Redis of its own that keeps its log as Redis does by default where it
/// keeps one: written at once, flushed to disk every second.
async fn try_bullmq() -> anyhow::Result<f64> {
    let mut look = Command::new("node");
    look.args(["-e", "require('bullmq')"]);
    let installed = answer(look, "BullMQ").await;
    installed.map_err(|_| anyhow::anyhow!("the Node package bullmq is not installed"))?;
    let dir = tempfile::tempdir().context("make a scratch directory")?;
    let socket = dir.path().join("redis.sock");
    let mut redis = Command::new("redis-server");
    redis
        .args(["--port", "0", "--appendonly", "yes", "--save", ""])
        .arg("--dir")
        .arg(dir.path())
        .arg("--unixsocket")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let mut redis = redis.spawn().context("redis-server is not installed")?;
    let until = Instant::now() + RUN_MAX;
    while !socket.exists() && Instant::now() < until {
        async_std::task::sleep(Duration::from_millis(50)).await;
    }
    // A file, because a sandboxed processor is started with this one's arguments to Node.
    let script = dir.path().join("bench.cjs");
    std::fs::write(&script, BULLMQ).context("write the script for BullMQ")?;
    let mut command = Command::new("node");
    command
        .arg(&script)
        .args([&BULLMQ_JOBS.to_string(), EXPRESSION])
        .arg(&socket);
    command.kill_on_drop(true);
    let said = answer(command, "BullMQ").await;
    // It has nothing that anybody wants to keep.
    let _ = redis.kill();
    let _ = redis.status().await;
    rate(&said?)
}

fn rate(output: &str) -> anyhow::Result<f64> {
    let said: Value = serde_json::from_str(output.trim()).context("it printed no JSON")?;
    said["rate"].as_f64().context("it printed no rate")
}

/// What a command printed, if it succeeded in time.
async fn answer(mut command: Command, what: &str) -> anyhow::Result<String> {
    let output = async_std::future::timeout(RUN_MAX, command.output())
        .await
        .with_context(|| format!("{what} took longer than {} s", RUN_MAX.as_secs()))?
        .with_context(|| format!("{what} could not be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{what} ended with {}: {}",
        output.status,
        said.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
