//! The demo's last scene: a flow over the sample app, by `sluice flow run`.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use async_process::Command;
use futures::{AsyncBufReadExt, AsyncReadExt, StreamExt};
use serde_json::{Value, json};

use crate::cli::demo::Seen;
use crate::cli::rig::Rig;
use crate::config::SETTINGS;

/// The flow that is run.
const DEFINITION: &str = include_str!("../../../docs/examples/sample.yaml");
/// What its blocks emit, beside the trigger: one event each.
const BLOCKS: [&str; 4] = ["Start", "Greet", "Count", "Remind"];
/// Why the demo's flow uses no database.
const NO_DATABASE: &str = "no database here: the sandbox closes the host's own addresses, where a PostgreSQL of this machine would listen";

/// Runs the flow in a project of the rig; answers with what its last line said.
pub async fn run(rig: &Rig, seen: &mut Seen, project: &str, app: &Path) -> anyhow::Result<Value> {
    seen.say("Running a flow over the sample app: sluice flow run docs/examples/sample.yaml");
    let file = rig.dir().join("sample.yaml");
    std::fs::write(&file, DEFINITION).context("write the flow's definition")?;
    let exe = std::env::current_exe().context("find this program's own file")?;
    let mut command = Command::new(exe);
    for setting in SETTINGS {
        command.env_remove(setting.name);
        setting.aliases.iter().for_each(|name| {
            command.env_remove(name);
        });
    }
    let mut child = command
        .args(["flow", "run", "--json", "--project", project])
        .arg("--app")
        .arg(format!("sample={}", app.display()))
        .args(["--config", "sample.greeting=\"Good morning\""])
        .args(["--body", "{\"name\": \"Ada\"}", "--timeout", "60"])
        .arg(&file)
        .env("SLUICE_DATA_DIR", rig.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start `sluice flow run`")?;
    let stdout = child.stdout.take().context("its output")?;
    let mut stderr = child.stderr.take().context("its errors")?;
    let mut end = Value::Null;
    let mut emitted = Vec::new();
    let mut lines = futures::io::BufReader::new(stdout).lines();
    while let Some(line) = lines.next().await {
        let told: Value = serde_json::from_str(&line?).context("read a line of the run")?;
        match told["kind"].as_str() {
            Some("event") => {
                let name = told["block_name"].as_str().unwrap_or_default();
                seen.say(&format!("  {name} emits {}", told["body"]));
                emitted.push(name.to_owned());
            }
            Some("failure") => seen.say(&format!("  {told}")),
            Some("end") => end = told,
            _ => {}
        }
    }
    let status = child.status().await.context("wait for the run")?;
    let mut said = String::new();
    stderr.read_to_string(&mut said).await?;
    ensure!(
        status.success(),
        "the flow's run ended with {status}: {said}"
    );
    for block in BLOCKS {
        ensure!(
            emitted.iter().any(|name| name == block),
            "block {block} emitted nothing, but {emitted:?} did"
        );
    }
    seen.say(&format!(
        "  quiet after {} s; {NO_DATABASE}",
        end["seconds"]
    ));
    Ok(json!({
        "events": end["events"],
        "failures": end["failures"],
        "seconds": end["seconds"],
        "database": NO_DATABASE,
    }))
}
