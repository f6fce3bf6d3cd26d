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
pub mod outbox;
mod policy;
mod roster;
mod session;
mod state;

use std::sync::Arc;

use crate::agent_id;
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
    let agent = match unblock(move || agent_id::read_or_create(&data_dir)).await {
        Ok(agent) => agent,
        Err(error) => {
            tracing::error!(
                error = %error,
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
