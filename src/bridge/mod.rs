//! The bridge: one per pool and host, between the gateway's websocket and the broker.
//!
//! ```text
//!            ┌────────────── Shared ──────────────┐
//!  gateway ◀─┤ session: inbound, outbound  broker ├─▶ RabbitMQ
//!            └── outbox, answers, cancels, roster ┘
//! ```
//!
//! Both sides live and die apart: a lost session leaves the link alone, a lost
//! link leaves the session alone, and each comes back by itself. The bridge is
//! stateless: its only memory is the broker.
//!
//! Promises (each acknowledgement stands behind the downstream's custody):
//! a job is `Accepted` after the broker confirmed it; a report is acknowledged
//! with the broker after the gateway said `Received`. Whatever is not answered
//! when a side dies is said again, and repeats are normal.

mod broker;
mod cancels;
mod inbound;
mod outbound;
mod outbox;
mod policy;
mod roster;
mod session;
mod state;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::bridge::state::Shared;
use crate::config::BridgeConfig;
use crate::shutdown::{Shutdown, Tasks, unblock};
use crate::telemetry::now_ms;

/// Exit code of a bridge that cannot use its data directory (`EX_CANTCREAT`).
const EXIT_DATA_DIR: i32 = 73;

/// Who this bridge is, to the gateway.
#[derive(Debug, Clone)]
struct Identity {
    /// Stable for one data directory.
    agent: String,
    host: String,
    started_ms: u64,
}

/// Runs the bridge until it drains, or is refused; answers with the exit code.
pub async fn run(config: BridgeConfig, shutdown: Shutdown) -> i32 {
    let data_dir = config.data_dir.clone();
    let agent = match unblock(move || agent_id(&data_dir)).await {
        Ok(agent) => agent,
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "The data directory is not usable"
            );
            return EXIT_DATA_DIR;
        }
    };
    let host = nix::unistd::gethostname().map_or_else(
        |_| "unknown".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let client = format!("{host}/{}/bridge", std::process::id());
    let identity = Identity {
        agent,
        host,
        started_ms: now_ms(),
    };
    let tasks = Tasks::new("bridge", shutdown.clone());
    let shared = Arc::new(Shared::new(config, shutdown));
    tasks.spawn("broker", broker::keep(shared.clone(), client));
    let code = session::keep(shared.clone(), identity).await;
    // The broker's side goes last: it held what the session was answered for.
    shared.stop.ring();
    tasks.join().await;
    shared.fatal().unwrap_or(code)
}

/// The agent's id, made by whichever of its processes comes first.
fn agent_id(data_dir: &Path) -> anyhow::Result<String> {
    let dir = data_dir.join("agent");
    let path = dir.join("id");
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let read = || -> anyhow::Result<Option<String>> {
        match std::fs::read_to_string(&path) {
            Ok(id) if !id.trim().is_empty() => Ok(Some(id.trim().to_owned())),
            Ok(_) => anyhow::bail!("{} is empty: remove it", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    };
    if let Some(id) = read()? {
        return Ok(id);
    }
    let mut file = tempfile::NamedTempFile::new_in(&dir).context("write an agent id")?;
    writeln!(file, "{}", uuid::Uuid::now_v7()).context("write an agent id")?;
    // Whole or not at all, and never over one that another process has just made.
    match file.persist_noclobber(&path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error).context("keep an agent id"),
    }
    read()?.context("the agent id vanished as soon as it was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_keeps_its_id() {
        let dir = tempfile::tempdir().expect("a directory");
        let id = agent_id(dir.path()).expect("made");
        assert_eq!(agent_id(dir.path()).expect("read"), id);
        let file = std::fs::read_to_string(dir.path().join("agent/id")).expect("a file");
        assert_eq!(file.trim(), id);
        std::fs::write(dir.path().join("agent/id"), "").expect("written");
        assert!(agent_id(dir.path()).is_err(), "an empty id is no id");
    }
}
