//! `peek`: the jobs in one place, read from whoever knows them. Nothing is
//! consumed: ready jobs are the gateway's to tell, running ones the workers',
//! dead ones are read from their log.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::agent::inspect::Observer;
use crate::agent::inspect::api::{segment, unavailable};
use crate::agent::inspect::mask::masked;
use crate::http::{ApiError, Head, Reply};
use crate::telemetry::now_us;

/// Jobs in one answer of `peek`.
const PEEK_MAX: usize = 1_000;
/// Payloads in one answer of `peek`: each is a request of its own to the gateway.
const PAYLOADS_MAX: usize = 20;

/// Jobs in one place; `place` is `ready`, `in-flight`, `retry` or `dead`.
pub(super) async fn peek(observer: &Observer, head: &Head, place: &str) -> Result<Reply, ApiError> {
    let number = |name: &str, default: usize| {
        let number = head.query_number(name)?;
        Ok::<_, ApiError>(number.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX)))
    };
    let (offset, limit) = (number("offset", 0)?, number("limit", 20)?.min(PEEK_MAX));
    let fits = |job: &Value| {
        ["kind", "project"]
            .iter()
            .all(|name| head.query(name).is_none_or(|wanted| job[*name] == wanted))
    };
    let cut = |jobs: Vec<Value>| -> Vec<Value> {
        jobs.into_iter()
            .filter(fits)
            .skip(offset)
            .take(limit)
            .collect()
    };
    let (mut jobs, total) = match place {
        "ready" => ready(observer, head, offset, limit).await?,
        "in-flight" => {
            let all = in_flight(observer).await?;
            let total = all.len();
            (cut(all), total)
        }
        "retry" => {
            let all = retried(observer).await?;
            let total = all.len();
            (cut(all), total)
        }
        "dead" => {
            let all = observer.graves(|graves| {
                graves
                    .iter()
                    .filter_map(|grave| serde_json::to_value(grave).ok())
                    .collect::<Vec<_>>()
            });
            let all = all.await.map_err(unavailable)?;
            let total = all.len();
            (cut(all), total)
        }
        other => {
            return Err(ApiError::bad(format!(
                "`{other}` is no queue to peek into: say ready, in-flight, retry or dead"
            )));
        }
    };
    if head.query("payload").is_some() {
        for job in jobs.iter_mut().take(PAYLOADS_MAX) {
            job["payload"] = payload(observer, job).await;
        }
    }
    Ok(Reply::data(
        &json!({"place": place, "jobs": jobs, "total": total}),
    ))
}

/// Jobs that the agent accepted and no worker holds, oldest first, and how many
/// of the pool are accepted and not known to have started.
async fn ready(
    observer: &Observer,
    head: &Head,
    offset: usize,
    limit: usize,
) -> Result<(Vec<Value>, usize), ApiError> {
    let gateway = observer.gateway().map_err(|why| ApiError::new(502, why))?;
    let held: HashSet<String> = observer
        .ask()
        .await
        .map_err(unavailable)?
        .iter()
        .flat_map(|worker| worker.holds.iter())
        .flat_map(|holds| holds.jobs.iter().map(|held| held.job.to_string()))
        .collect();
    let filter: String = ["kind", "project"]
        .iter()
        .filter_map(|name| Some(format!("&{name}={}", segment(head.query(name)?))))
        .collect();
    let agent = observer.agent_filter();
    let free = |mut answer: Value| -> Vec<Value> {
        let jobs = match answer["jobs"].take() {
            Value::Array(jobs) => jobs,
            _ => Vec::new(),
        };
        let is_free = |job: &Value| !job["id"].as_str().is_some_and(|id| held.contains(id));
        jobs.into_iter().filter(is_free).collect()
    };
    // One whose worker died is with the broker again, and the gateway still
    // calls it started.
    let path = format!("/live?state=started&limit={PEEK_MAX}{filter}{agent}");
    let mut jobs = free(gateway.get(&path).await?);
    let skipped = offset.min(jobs.len());
    jobs.drain(..skipped);
    // What workers hold is among the oldest, so it is asked for on top and left out.
    let (offset, limit_all) = (offset - skipped, limit + held.len());
    let path = format!("/live?state=accepted&offset={offset}&limit={limit_all}{filter}{agent}");
    let answer = gateway.get(&path).await?;
    let total = answer["total"].as_u64().unwrap_or(0);
    jobs.extend(free(answer));
    jobs.truncate(limit);
    Ok((jobs, usize::try_from(total).unwrap_or(usize::MAX)))
}

async fn in_flight(observer: &Observer) -> Result<Vec<Value>, ApiError> {
    let workers = observer.ask().await.map_err(unavailable)?;
    let now = now_us();
    let mut jobs = Vec::new();
    for worker in &workers {
        for held in worker.holds.iter().flat_map(|holds| &holds.jobs) {
            let mut job = serde_json::to_value(held).unwrap_or_default();
            job["attempt"] = json!(held.attempt.to_string());
            job["worker"] = json!(worker.worker);
            if held.since_us > 0 {
                job["elapsed_ms"] = json!(now.saturating_sub(held.since_us) / 1_000);
            }
            jobs.push(job);
        }
    }
    Ok(jobs)
}

async fn retried(observer: &Observer) -> Result<Vec<Value>, ApiError> {
    let workers = observer.ask().await.map_err(unavailable)?;
    let holds = workers.iter().filter_map(|worker| worker.holds.as_ref());
    Ok(holds
        .flat_map(|holds| &holds.retried)
        .map(|job| {
            json!({
                "job": job.job,
                "attempt": job.attempt.to_string(),
                "cause": job.cause,
                "at_us": job.at_us,
            })
        })
        .collect())
}

/// A job's payload with nothing secret in it.
async fn payload(observer: &Observer, job: &Value) -> Value {
    let id = job["id"].as_str().or_else(|| job["job"].as_str());
    let (Some(id), Ok(gateway)) = (id, observer.gateway()) else {
        return Value::Null;
    };
    let capture = match gateway.get(&format!("/jobs/{}/capture", segment(id))).await {
        Ok(capture) => capture,
        Err(error) => return json!({"unknown": error.message}),
    };
    let bytes = BASE64.decode(capture["payload"].as_str().unwrap_or_default());
    let value = bytes
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    masked(&value.unwrap_or_default())
}
