//! Looks at the live jobs of one pool: counts, lists, states. They change
//! nothing, and hold the lock for as long as their answer is long.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::gateway::line::state::LIVE_STATES;
use crate::gateway::line::{Line, view};
use crate::store::jobs::{Spec, State};

/// Which live jobs, and how many of them.
pub struct Wanted<'a> {
    pub state: State,
    pub kind: Option<&'a str>,
    pub project: Option<&'a str>,
    /// The agent that has them: one of several of the pool.
    pub agent: Option<&'a str>,
    pub offset: usize,
    pub limit: usize,
}

// === impl Line ===

impl Line {
    /// How many jobs of a pool are in each live state, since when the oldest
    /// one exists, and how many have passed each state since the gateway started.
    pub fn counts(&self, pool: &str) -> Value {
        let mut inner = self.lock();
        let line = inner.pool(pool);
        let mut states = Map::new();
        for (state, jobs) in LIVE_STATES.iter().zip(&line.by_state) {
            let oldest = jobs.first_key_value().map(|(_, spec)| spec.created_us);
            states.insert(
                state.as_str().to_owned(),
                json!({"jobs": jobs.len(), "oldest_us": oldest}),
            );
        }
        json!({"states": states, "passed": line.passed})
    }

    /// Live jobs in one state, oldest first, how many there are in the pool,
    /// and how many an agent has accepted and not ended.
    pub fn in_state(&self, pool: &str, wanted: &Wanted<'_>) -> Value {
        let inner = self.lock();
        let line = inner.pools.get(pool);
        let Some(all) = line.and_then(|line| line.in_state(wanted.state)) else {
            return json!({"jobs": [], "total": 0});
        };
        let total = all.len();
        let of_agent = |spec: &Spec| {
            let agent = inner.live.get(&spec.id).map(|live| &live.progress.agent);
            wanted
                .agent
                .is_none_or(|wanted| agent.is_some_and(|agent| agent.as_deref() == Some(wanted)))
        };
        let fits = |spec: &Spec| {
            wanted.kind.is_none_or(|kind| kind == spec.kind)
                && wanted.project.is_none_or(|project| project == spec.project)
        };
        let held = wanted
            .agent
            .map(|agent| inner.held_by(pool, &Arc::from(agent)));
        let ids: Vec<String> = all
            .values()
            .filter(|spec| fits(spec) && of_agent(spec))
            .skip(wanted.offset)
            .take(wanted.limit)
            .map(|spec| spec.id.clone())
            .collect();
        let jobs: Vec<Value> = ids
            .iter()
            .filter_map(|id| inner.live.get(id))
            .map(|live| view::live(&live.spec, &live.snapshot(), None))
            .collect();
        json!({"jobs": jobs, "total": total, "held_by_agent": held})
    }

    /// The latest changes of a pool's jobs.
    pub fn events(&self, pool: &str, after: Option<u64>) -> Value {
        self.lock().events.view(pool, after)
    }
}
