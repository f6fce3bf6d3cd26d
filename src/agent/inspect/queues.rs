//! Each queue of the pool with what broker, gateway and workers know of it.

use serde::Serialize;
use serde_json::{Value, json};
use sluice_proto::queue::Presence;

use crate::agent::inspect::Observer;
use crate::queue::inspect::{self, QueueView};
use crate::telemetry::now_us;

/// Everything `ls`, `top` and the metrics show.
#[derive(Debug, Serialize)]
pub struct Overview {
    pub pool: String,
    pub queues: Vec<QueueView>,
    pub workers: Vec<Presence>,
    /// Dead letters by cause.
    pub dead: Vec<Value>,
    /// The gateway's view: jobs by state, the agents it sees.
    pub gateway: Value,
    pub accepted_per_s: Option<f64>,
    pub ended_per_s: Option<f64>,
    /// The order that stands, if any.
    pub order: Option<Value>,
    /// What could not be asked, and why.
    pub unknown: Vec<String>,
    pub now_us: u64,
}

/// Looks at everything once. What cannot be asked is said in `unknown`.
pub async fn overview(observer: &Observer) -> Overview {
    let mut unknown = Vec::new();
    let place = &observer.place;
    let summary = match observer.summary().await {
        Ok(summary) => summary,
        Err(why) => {
            unknown.push(format!("the gateway cannot be asked: {why}"));
            Value::Null
        }
    };
    let workers = match observer.ask().await {
        Ok(workers) => workers,
        Err(why) => {
            unknown.push(format!("the workers cannot be asked: {why}"));
            observer.workers()
        }
    };
    let mut queues = match inspect::ls(&place.amqp_url, &observer.names).await {
        Ok(queues) => queues,
        Err(error) => {
            unknown.push(format!("the broker cannot be asked: {error}"));
            Vec::new()
        }
    };
    let dead = match observer.graves(by_cause).await {
        Ok(dead) => dead,
        Err(why) => {
            unknown.push(format!("the dead letters cannot be read: {why}"));
            Vec::new()
        }
    };
    let rates = observer.rates();
    let held: u64 = workers
        .iter()
        .filter_map(|worker| worker.holds.as_ref())
        .map(|holds| u64::from(holds.jobs_total))
        .sum();
    let known = Known {
        held,
        oldest_us: oldest(&summary),
        in_per_s: rates.map(|rates| rates.accepted_per_s),
        out_per_s: rates.map(|rates| rates.ended_per_s),
        now_us: now_us(),
    };
    queues.iter_mut().for_each(|view| known.complete(view));
    Overview {
        pool: place.pool.clone(),
        queues,
        workers,
        dead,
        gateway: summary,
        accepted_per_s: known.in_per_s,
        ended_per_s: known.out_per_s,
        order: crate::pause::read(&place.data_dir).map(
            |order| json!({"mode": order.mode, "reason": order.reason, "since_ms": order.since_ms}),
        ),
        unknown,
        now_us: now_us(),
    }
}

/// What gateway and workers know and the broker without its management API does not tell.
struct Known {
    held: u64,
    oldest_us: Option<u64>,
    in_per_s: Option<f64>,
    out_per_s: Option<f64>,
    now_us: u64,
}

// === impl Known ===

impl Known {
    fn complete(&self, view: &mut QueueView) {
        if view.role != "jobs" || view.depth.is_none() {
            return;
        }
        view.unacked.get_or_insert(self.held);
        if view.oldest_s.is_none() {
            view.oldest_s = self
                .oldest_us
                .map(|at_us| self.now_us.saturating_sub(at_us) / 1_000_000);
        }
        view.in_per_s = view.in_per_s.or(self.in_per_s);
        view.out_per_s = view.out_per_s.or(self.out_per_s);
        if view.oldest_s.is_some() || self.oldest_us.is_none() {
            view.unknown = None;
        }
    }
}

/// Since when the oldest job exists that an agent has and has not started.
fn oldest(summary: &Value) -> Option<u64> {
    summary["states"]["accepted"]["oldest_us"].as_u64()
}

/// Dead letters by cause, the most frequent first.
pub fn by_cause(graves: &crate::queue::graves::Graves) -> Vec<Value> {
    let mut causes = std::collections::BTreeMap::<&str, (u64, u64, u64)>::new();
    for grave in graves.iter() {
        let entry = causes
            .entry(&grave.cause)
            .or_insert((0, grave.published_s, grave.published_s));
        entry.0 += 1;
        entry.1 = entry.1.min(grave.published_s);
        entry.2 = entry.2.max(grave.published_s);
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, (jobs, ..))| std::cmp::Reverse(*jobs));
    causes
        .into_iter()
        .map(|(cause, (jobs, first_s, last_s))| {
            json!({"cause": cause, "jobs": jobs, "first_s": first_s, "last_s": last_s})
        })
        .collect()
}
