//! One session as the line knows it: its credit, and how its agent is. Changed
//! under the line's lock alone.

use std::collections::HashSet;
use std::sync::Arc;

use async_std::channel;
use serde_json::{Value, json};
use sluice_proto::frame::AgentStatus;

use crate::gateway::dispatch::Room;
use crate::gateway::line::Outbox;
use crate::gateway::line::sessions::Peer;

/// One session, as the line knows it.
pub(super) struct Slot {
    pub id: String,
    pub agent: Arc<str>,
    pub outbox: channel::Sender<Outbox>,
    pub window: u32,
    pub reason: Option<String>,
    pub unanswered: HashSet<String>,
    pub status: AgentStatus,
    pub peer: Peer,
    pub since_ms: u64,
    /// Since when its agent has had nothing to do, in milliseconds; `None`: it has, or nobody knows.
    pub idle_since_ms: Option<u64>,
}

// === impl Slot ===

impl Slot {
    pub(super) fn room(&self, held: u64) -> Room {
        Room {
            window: self.window,
            unanswered: u32::try_from(self.unanswered.len()).unwrap_or(u32::MAX),
            held,
            workers: self.status.workers,
        }
    }

    pub(super) fn view(&self) -> Value {
        let refusing = match self.window {
            0 => self.reason.clone().or_else(|| self.status.refusing.clone()),
            _ => self.status.refusing.clone(),
        };
        json!({
            "agent": &*self.agent,
            "host": self.peer.host,
            "version": self.peer.version,
            "since_ms": self.since_ms,
            "started_ms": self.peer.started_ms,
            "workers": self.status.workers,
            "in_flight": self.status.in_flight,
            "queued": self.status.queued,
            "refusing": refusing,
            "session": self.id,
            "window": self.window,
            "unanswered": self.unanswered.len(),
        })
    }
}
