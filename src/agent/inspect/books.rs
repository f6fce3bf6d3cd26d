//! The three books a check compares, read from whoever keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_std::task;
use serde_json::json;

use crate::agent::inspect::api::unavailable;
use crate::agent::inspect::check::{Look, Seen, check};
use crate::agent::inspect::{Observer, snapshot};
use crate::http::{ApiError, Reply};

/// The oldest accepted jobs that a check knows by name, per state.
const CHECK_LISTED_MAX: usize = 1_000;
/// Between the two looks of a check: longer than a job needs from one place to
/// the next, shorter than a person's patience.
const CHECK_PAUSE: Duration = Duration::from_millis(700);

/// Looks twice, then at the broker's messages where that can be done, and compares.
pub(super) async fn checked(observer: &Observer) -> Result<Reply, ApiError> {
    let first = look(observer).await?;
    task::sleep(CHECK_PAUSE).await;
    let second = look(observer).await?;
    let seen = seen(observer).await?;
    Ok(Reply::data(&check(&first, &second, seen.as_ref())))
}

async fn seen(observer: &Observer) -> Result<Option<Seen>, ApiError> {
    let Some(snapshot) = snapshot::take(&observer.place.data_dir, &observer.names).await else {
        return Ok(None);
    };
    let look = look(observer).await?;
    // Asked for after the look: one that ended meanwhile has gone from the queue by itself.
    let jobs: Vec<&String> = snapshot.ready.iter().collect();
    let states = states(observer, &jobs).await?;
    Ok(Some(Seen {
        snapshot,
        look,
        states,
    }))
}

async fn look(observer: &Observer) -> Result<Look, ApiError> {
    let gateway = observer.gateway().map_err(|why| ApiError::new(502, why))?;
    let mut look = Look::default();
    // Other agents of the pool have brokers of their own.
    let agent = observer.agent_filter();
    for state in ["accepted", "started"] {
        let path = format!("/live?state={state}&limit={CHECK_LISTED_MAX}{agent}");
        let answer = gateway.get(&path).await?;
        let ids = answer["jobs"].as_array().into_iter().flatten();
        look.listed
            .extend(ids.filter_map(|job| job["id"].as_str()).map(str::to_owned));
        // Both states together; without an agent's id the pool's own counts add up.
        match answer["held_by_agent"].as_u64() {
            Some(held) => look.accepted = held,
            None => look.accepted += answer["total"].as_u64().unwrap_or(0),
        }
    }
    look.listed_all = look.listed.len() as u64 == look.accepted;
    for worker in observer.ask().await.map_err(unavailable)? {
        for held in worker.holds.iter().flat_map(|holds| &holds.jobs) {
            let holders = look.held.entry(held.job.to_string()).or_default();
            holders.push(worker.worker.clone());
        }
    }
    let link = observer.linked().await.map_err(unavailable)?;
    let depths = link
        .depth()
        .await
        .map_err(|error| unavailable(error.to_string()))?;
    look.ready = depths.jobs + depths.jobs_high;
    look.retry = depths.retry;
    look.reports = depths.reports;
    let dead = observer.graves(|graves| graves.iter().map(|grave| grave.job.clone()).collect());
    look.dead = dead.await.map_err(unavailable)?;
    let asked: Vec<&String> = look.held.keys().chain(look.dead.iter().rev()).collect();
    let asked = &asked[..asked.len().min(CHECK_LISTED_MAX * 10)];
    look.states = states(observer, asked).await?;
    Ok(look)
}

/// What the gateway says of some jobs.
async fn states(
    observer: &Observer,
    jobs: &[&String],
) -> Result<BTreeMap<String, String>, ApiError> {
    let gateway = observer.gateway().map_err(|why| ApiError::new(502, why))?;
    let mut known = BTreeMap::new();
    for some in jobs.chunks(CHECK_LISTED_MAX) {
        let states = gateway
            .call("POST", "/states", Some(&json!({"jobs": some})))
            .await?;
        for (job, state) in states.as_object().into_iter().flatten() {
            let state = state.as_str().unwrap_or_default().to_owned();
            known.insert(job.clone(), state);
        }
    }
    Ok(known)
}
