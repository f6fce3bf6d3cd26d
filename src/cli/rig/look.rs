//! A rig seen from outside: where its files are, and what a person sees of its queue.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_process::Command;
use async_std::future::timeout;
use serde_json::Value;

use crate::cli::rig::Rig;
use crate::config::SETTINGS;

/// How long one look at the queue may take.
const QUEUE_MAX: Duration = Duration::from_secs(60);

impl Rig {
    /// Where gateway and agent keep their files.
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The gateway's database; nobody else may write it while the gateway runs.
    pub fn store_file(&self) -> PathBuf {
        self.dir.path().join("gateway/sluice.db")
    }

    /// The id by which the gateway knows the agent.
    pub fn agent_id(&self) -> anyhow::Result<String> {
        let id = std::fs::read_to_string(self.dir.path().join("agent/id"));
        Ok(id.context("read the agent's id")?.trim().to_owned())
    }

    /// Runs `sluice queue …` for the rig's agent as a person would; answers with
    /// what it prints, and how long it took.
    pub async fn queue(&self, words: &[&str]) -> anyhow::Result<(Value, Duration)> {
        let mut command = std::process::Command::new(&self.exe);
        for setting in SETTINGS {
            command.env_remove(setting.name);
            setting.aliases.iter().for_each(|name| {
                command.env_remove(name);
            });
        }
        command
            .arg("queue")
            .args(words)
            .arg("--json")
            .env("SLUICE_DATA_DIR", self.dir.path());
        let started = Instant::now();
        let output = Command::from(command).output();
        let output = timeout(QUEUE_MAX, output)
            .await
            .with_context(|| format!("`sluice queue {}` does not end", words.join(" ")))??;
        let took = started.elapsed();
        let seen = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "`sluice queue {}` says: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })?;
        Ok((seen, took))
    }
}
