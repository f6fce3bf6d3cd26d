//! The demo's last scenes: flows, by `sluice flow run` as a person runs it.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use async_process::Command;
use futures::{AsyncBufReadExt, AsyncReadExt, StreamExt};
use serde_json::{Value, json};

use crate::cli::demo::Seen;
use crate::cli::rig::Rig;
use crate::config::SETTINGS;

/// A flow and what is to come of it.
pub struct Scene<'a> {
    /// The file's name; the flow is called so.
    pub name: &'a str,
    pub definition: &'a str,
    /// Key in the definition, and the bundle.
    pub app: (&'a str, &'a Path),
    /// `KEY.FIELD=JAVASCRIPT`.
    pub config: &'a [String],
    pub body: Value,
    /// Each of these emits an event at least.
    pub blocks: &'a [&'a str],
}

/// The flow over the sample app.
pub fn sample(app: &Path) -> Scene<'_> {
    Scene {
        name: "sample.yaml",
        definition: include_str!("../../../docs/examples/sample.yaml"),
        app: ("sample", app),
        config: &[],
        body: json!({"name": "Ada"}),
        blocks: &["Start", "Greet", "Count", "Remind"],
    }
}

/// What came of a flow.
pub struct Ran {
    /// The last body of each block, by its name.
    pub bodies: Value,
    /// For the summary.
    pub told: Value,
}

/// Runs a flow in a project of the rig.
pub async fn run(
    rig: &Rig,
    seen: &mut Seen,
    project: &str,
    scene: &Scene<'_>,
) -> anyhow::Result<Ran> {
    seen.say(&format!(
        "Running a flow: sluice flow run docs/examples/{}",
        scene.name
    ));
    let mut child = command(rig, project, scene)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start `sluice flow run`")?;
    let stdout = child.stdout.take().context("its output")?;
    let mut stderr = child.stderr.take().context("its errors")?;
    let (mut end, mut bodies) = (Value::Null, json!({}));
    let mut lines = futures::io::BufReader::new(stdout).lines();
    while let Some(line) = lines.next().await {
        let told: Value = serde_json::from_str(&line?).context("read a line of the run")?;
        match told["kind"].as_str() {
            Some("event") => {
                let name = told["block_name"].as_str().unwrap_or_default();
                seen.say(&format!("  {name} emits {}", told["body"]));
                bodies[name] = told["body"].clone();
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
    for block in scene.blocks {
        ensure!(
            bodies.get(block).is_some(),
            "block {block} emitted nothing; what was emitted: {bodies}"
        );
    }
    seen.say(&format!("  quiet after {} s", end["seconds"]));
    let told = json!({
        "events": end["events"],
        "failures": end["failures"],
        "seconds": end["seconds"],
    });
    Ok(Ran { bodies, told })
}

fn command(rig: &Rig, project: &str, scene: &Scene<'_>) -> anyhow::Result<Command> {
    let file = rig.dir().join(scene.name);
    std::fs::write(&file, scene.definition).context("write the flow's definition")?;
    let exe = std::env::current_exe().context("find this program's own file")?;
    let mut command = Command::new(exe);
    for setting in SETTINGS {
        command.env_remove(setting.name);
        setting.aliases.iter().for_each(|name| {
            command.env_remove(name);
        });
    }
    let (key, app) = scene.app;
    command
        .args(["flow", "run", "--json", "--project", project])
        .arg("--app")
        .arg(format!("{key}={}", app.display()))
        .args(scene.config.iter().flat_map(|field| ["--config", field]))
        .args(["--timeout", "60", "--body"])
        .arg(scene.body.to_string())
        .arg(&file)
        .env("SLUICE_DATA_DIR", rig.dir());
    Ok(command)
}
