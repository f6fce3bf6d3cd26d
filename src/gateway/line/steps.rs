//! Jobs of the flow engine: made inside its transactions, taken in here after
//! the commit, and their ends told to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_proto::job::{Identity, Kind};

use crate::gateway::line::state::Live;
use crate::gateway::line::{Line, Plan};
use crate::store::jobs::Spec;

pub use crate::store::engine::steps::Ended;

/// A job that is committed and that nobody holds yet.
pub struct Adopted {
    pub spec: Arc<Spec>,
    pub kind: Kind,
    pub identity: Identity,
    pub payload: Arc<Vec<u8>>,
}

// === impl Line ===

impl Line {
    /// A number for a job that the caller writes itself. One that is not used is left out.
    pub fn reserve(&self) -> i64 {
        self.lock().take_seq()
    }

    /// Takes jobs in that are committed. What is lost between the commit and
    /// this is found again when the line is rebuilt.
    pub fn adopt(self: &Arc<Self>, jobs: Vec<Adopted>) {
        let mut inner = self.lock();
        let mut pools = BTreeSet::new();
        for job in jobs {
            pools.insert(job.spec.pool.clone());
            let mut live = Live::new(job.spec, job.kind, job.identity);
            inner.hold_payload(&mut live, job.payload, &self.limits);
            inner.add(live);
        }
        let mut plan = Plan::default();
        for pool in pools {
            self.hand_out(&mut inner, &pool, &mut plan);
        }
        self.commit_if_any(plan);
    }

    /// How many jobs more the project may have waiting in the pool.
    pub fn has_room(&self, project: &str, pool: &str) -> Result<(), crate::gateway::line::Full> {
        self.lock().check_room(project, pool, &self.limits)
    }

    /// Whether the pool has an agent.
    pub fn has_agent(&self, pool: &str) -> bool {
        !self.lock().pool(pool).sessions.is_empty()
    }

    pub(super) fn tell_engine(&self, live: &Live) {
        let (Some(purpose), Some(ending)) = (&live.spec.purpose, &live.ending) else {
            return;
        };
        // A channel that is closed belongs to a gateway that ends: the store tells the next one.
        drop(self.steps.try_send(Ended {
            seq: live.spec.seq,
            id: live.spec.id.clone(),
            purpose: purpose.clone(),
            state: live.state.phase,
            outcome: ending.outcome.clone(),
        }));
    }
}
