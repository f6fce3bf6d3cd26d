//! The latest changes of jobs, for whoever watches live: a bounded memory, and
//! nothing that anybody relies on. A change stands here as it is applied, some
//! milliseconds before its commit.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Attempt;

use crate::store::jobs::{Spec, State};
use crate::telemetry::now_us;

/// Changes remembered, of all pools: some seconds of full load, hours of an ordinary day.
const EVENTS_MAX: usize = 10_000;
/// Changes in one answer.
const ANSWER_MAX: usize = 1_000;

#[derive(Default)]
pub(super) struct Events {
    latest: VecDeque<Event>,
    next: u64,
}

struct Event {
    number: u64,
    at_us: u64,
    spec: Arc<Spec>,
    state: State,
    attempt: Attempt,
}

// === impl Events ===

impl Events {
    pub(super) fn note(&mut self, spec: &Arc<Spec>, state: State, attempt: Attempt) {
        if self.latest.len() >= EVENTS_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(Event {
            number: self.next,
            at_us: now_us(),
            spec: spec.clone(),
            state,
            attempt,
        });
        self.next += 1;
    }

    /// A pool's changes from number `after` on, and where the next look goes on.
    /// Without `after` only that place.
    pub(super) fn view(&self, pool: &str, after: Option<u64>) -> Value {
        let after = after.unwrap_or(self.next);
        let oldest = self.latest.front().map_or(self.next, |event| event.number);
        let from = usize::try_from(after.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let seen: Vec<&Event> = self
            .latest
            .iter()
            .skip(from)
            .filter(|event| event.spec.pool == pool)
            .take(ANSWER_MAX)
            .collect();
        let next = match seen.last() {
            Some(last) if seen.len() == ANSWER_MAX => last.number + 1,
            _ => self.next,
        };
        let events: Vec<Value> = seen.iter().map(|event| event.view()).collect();
        json!({"events": events, "next": next, "missed": oldest.saturating_sub(after)})
    }
}

// === impl Event ===

impl Event {
    fn view(&self) -> Value {
        json!({
            "at_us": self.at_us,
            "job": self.spec.id,
            "kind": self.spec.kind,
            "project": self.spec.project,
            "block": self.spec.block,
            "state": self.state.as_str(),
            "attempt": (self.attempt.dispatch > 0).then(|| self.attempt.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(pool: &str, id: &str) -> Arc<Spec> {
        Arc::new(Spec {
            seq: 1,
            id: id.into(),
            pool: pool.into(),
            project: "r".into(),
            kind: "evaluate".into(),
            high: false,
            identity: "{}".into(),
            block: None,
            timeout_ms: 1,
            expires_ms: None,
            created_us: 10,
            replay_of: None,
            purpose: None,
        })
    }

    #[test]
    fn a_watcher_goes_on_where_it_was_and_is_told_what_it_missed() {
        let mut events = Events::default();
        let start = events.view("p", None)["next"].as_u64();
        events.note(&spec("p", "a"), State::Queued, Attempt::default());
        events.note(&spec("q", "b"), State::Queued, Attempt::default());
        let seen = events.view("p", start);
        assert_eq!(seen["events"].as_array().map(Vec::len), Some(1), "{seen}");
        assert_eq!(
            (seen["events"][0]["job"].as_str(), &seen["missed"]),
            (Some("a"), &json!(0))
        );
        let next = seen["next"].as_u64();
        assert_eq!(events.view("p", next)["events"], json!([]));
        for _ in 0..EVENTS_MAX {
            events.note(&spec("p", "c"), State::Queued, Attempt::default());
        }
        let late = events.view("p", start);
        assert_eq!(late["missed"], 2, "{}", late["next"]);
        assert_eq!(late["events"].as_array().map(Vec::len), Some(ANSWER_MAX));
        assert_eq!(late["next"], 2 + ANSWER_MAX as u64);
    }
}
