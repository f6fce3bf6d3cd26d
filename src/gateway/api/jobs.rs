//! Jobs: made, waited for, looked at, cancelled.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::request;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::body::Body;
use crate::gateway::http::{Head, Reply};
use crate::gateway::json::Fields;
use crate::gateway::line::{Cancelled, Ended, view};
use crate::limit;
use crate::redaction::Redactor;
use crate::store::jobs::{Filter, LIST_MAX, State, Stored};

/// The longest wait for a job's end, in seconds.
const WAIT_S_MAX: u64 = 300;
/// How long a commit may take before the caller is told that the store is in trouble.
const COMMIT_MAX: Duration = Duration::from_secs(10);
/// Lines of a log in one answer.
const LOG_LINES_MAX: u64 = 10_000;
/// Calls in one answer; no job records more.
const CALLS_MAX: u32 = 1_000;
/// The longest reason for a cancel, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

/// A job that the caller may see, live or ended.
pub(in crate::gateway) enum Found {
    Live(Value),
    Ended(Box<Stored>),
}

pub async fn create(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    body: Body,
) -> Result<Reply, ApiError> {
    let wait = wait(head)?;
    if gateway.is_draining() {
        return Err(ApiError::later(
            503,
            "the gateway is about to stop and takes no more jobs",
            2,
        ));
    }
    if let Some(trouble) = gateway.store.trouble() {
        return Err(ApiError::later(503, trouble, 2));
    }
    gateway.disk.check()?;
    let new = request::read(gateway, caller, &body).await?;
    let created = gateway
        .line
        .create(new, wait.is_some())
        .map_err(|full| ApiError::later(429, full.0, 1))?;
    if !matches!(
        limit::timeout(COMMIT_MAX, created.committed).await,
        Ok(Ok(()))
    ) {
        let sentence = format!(
            "job {} is not committed yet: the store is slow or cannot write; ask for it later",
            created.id
        );
        return Err(ApiError::later(503, sentence, 2));
    }
    // From here on the job lies on the disk, and its body is no burden while the caller waits.
    drop(body);
    if let (Some(wait), Some(ended)) = (wait, created.ended)
        && let Some(job) = until_ended(gateway, ended, wait).await
    {
        return Ok(Reply::raw(&job));
    }
    show(gateway, &find(gateway, caller, &created.id).await?).await
}

pub async fn get(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    id: &str,
) -> Result<Reply, ApiError> {
    let wait = wait(head)?;
    let found = find(gateway, caller, id).await?;
    if let (Found::Live(_), Some(wait)) = (&found, wait)
        && let Some(ended) = gateway.line.wait(id)
    {
        // It is read anew: what people are not shown is in what it answers.
        drop(until_ended(gateway, ended, wait).await);
        return show(gateway, &find(gateway, caller, id).await?).await;
    }
    if let (Found::Live(_), Some(_)) = (&found, wait) {
        // It has ended between the two looks.
        return show(gateway, &find(gateway, caller, id).await?).await;
    }
    show(gateway, &found).await
}

pub async fn list(gateway: &Gateway, caller: &Caller, head: &Head) -> Result<Reply, ApiError> {
    let project = head.query("project").map(str::to_owned);
    if let Some(project) = &project {
        caller.project(project)?;
    }
    let state = match head.query("state") {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| {
            ApiError::bad(format!("`state` in the query is `{word}`, which is none"))
        })?),
    };
    let before = head.query_number("before")?;
    let filter = Filter {
        projects: project
            .map(|project| vec![project])
            .or_else(|| caller.projects()),
        pool: caller
            .pool()
            .or_else(|| head.query("pool"))
            .map(str::to_owned),
        state,
        kind: head.query("kind").map(str::to_owned),
        before: before.and_then(|before| i64::try_from(before).ok()),
        limit: head
            .query_number("limit")?
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or(100)
            .clamp(1, LIST_MAX),
    };
    let jobs = gateway.store.jobs(&filter).await?;
    let next = jobs
        .last()
        .filter(|_| jobs.len() as u32 == filter.limit)
        .map(|(spec, _)| spec.seq);
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|(spec, progress)| view::live(spec, progress, None))
        .collect();
    Ok(Reply::data(&json!({"jobs": jobs, "next_before": next})))
}

pub async fn trace(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let (mut trace, seq) = match find(gateway, caller, id).await? {
        Found::Ended(job) => (
            view::trace(&job.spec, &job.progress, job.ending.as_ref()),
            job.spec.seq,
        ),
        Found::Live(_) => match gateway.line.look(id) {
            Some((spec, progress, _)) => (view::trace(&spec, &progress, None), spec.seq),
            None => return Err(ApiError::not_found(format!("job {id}"))),
        },
    };
    let calls = gateway.store.calls(seq, CALLS_MAX).await?;
    let logs = gateway.store.log_sizes(seq).await?;
    view::add_tried(&mut trace, &gateway.store.tried(seq).await?);
    view::add_traces(&mut trace, &calls, &logs);
    Ok(Reply::data(&trace))
}

pub async fn calls(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let seq = seq(gateway, caller, id).await?;
    let redactor = redactor(gateway, seq).await?;
    let read = |json: &Option<String>| {
        let value = serde_json::from_str::<Value>(json.as_deref()?).ok()?;
        Some(redactor.redact_value(value))
    };
    let calls: Vec<Value> = gateway
        .store
        .calls(seq, CALLS_MAX)
        .await?
        .iter()
        .map(|call| {
            json!({
                "number": call.number.number,
                "attempt": format!("{}.{}", call.number.dispatch, call.number.delivery),
                "method": call.method,
                "args": read(&call.args),
                "answer": read(&call.answer),
                "at_us": call.at_us,
            })
        })
        .collect();
    Ok(Reply::data(&calls))
}

pub async fn log(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    id: &str,
) -> Result<Reply, ApiError> {
    let seq = seq(gateway, caller, id).await?;
    let number =
        |name: &str, default: u64| Ok::<_, ApiError>(head.query_number(name)?.unwrap_or(default));
    let limit = number("limit", LOG_LINES_MAX)?.clamp(1, LOG_LINES_MAX);
    let skip = number("skip", 0)?;
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let lines: Vec<Value> = gateway
        .store
        .log(seq, small(skip), small(limit))
        .await?
        .iter()
        .map(|line| {
            json!({
                "attempt": format!("{}.{}", line.dispatch, line.delivery),
                "seq": line.line,
                "at_us": line.at_us,
                "level": line.level,
                "text": line.text,
            })
        })
        .collect();
    Ok(Reply::data(&lines))
}

pub async fn cancel(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let reason = fields
        .text("reason")?
        .unwrap_or_else(|| "cancelled".to_owned());
    fields.finish()?;
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        return Err(ApiError::bad(format!(
            "`reason` must have 1 to {REASON_BYTES_MAX} bytes"
        )));
    }
    find(gateway, caller, id).await?;
    let ended = gateway.line.wait(id);
    match gateway.line.cancel(id, &reason) {
        Cancelled::AtOnce => {
            if let Some(ended) = ended
                && let Some(job) = until_ended(gateway, ended, COMMIT_MAX).await
            {
                return Ok(Reply::raw(&job));
            }
        }
        Cancelled::Asked | Cancelled::NotLive => {}
    }
    show(gateway, &find(gateway, caller, id).await?).await
}

/// The job's end, or nothing if it does not come in time or the gateway stops.
async fn until_ended(gateway: &Gateway, ended: Ended, wait: Duration) -> Option<Arc<Vec<u8>>> {
    // The job goes on whatever happens to its callers, so nothing is lost by giving up.
    let ended = limit::timeout(wait, ended);
    match select(Box::pin(ended), Box::pin(gateway.shutdown.draining())).await {
        Either::Left((Ok(Ok(job)), _)) => Some(job),
        Either::Left(_) | Either::Right(_) => None,
    }
}

fn wait(head: &Head) -> Result<Option<Duration>, ApiError> {
    let wait = head.query_number("wait")?.filter(|seconds| *seconds > 0);
    Ok(wait.map(|seconds| Duration::from_secs(seconds.min(WAIT_S_MAX))))
}

pub(in crate::gateway) async fn find(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
) -> Result<Found, ApiError> {
    if let Some((spec, progress, _)) = gateway.line.look(id) {
        caller.job(&spec)?;
        let waiting = (progress.state == State::Queued).then(|| {
            let revoked = gateway.directory.is_revoked(&spec.pool);
            gateway.line.waiting(&spec.pool, id, revoked)
        });
        return Ok(Found::Live(view::live(&spec, &progress, waiting)));
    }
    // Its end may be on its way to the disk: then it is answered from there.
    if let Some(ended) = gateway.line.wait(id) {
        drop(limit::timeout(COMMIT_MAX, ended).await);
    }
    let stored = gateway
        .store
        .job(id)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("job {id}")))?;
    caller.job(&stored.spec)?;
    Ok(Found::Ended(Box::new(stored)))
}

async fn seq(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<i64, ApiError> {
    match find(gateway, caller, id).await? {
        Found::Ended(job) => Ok(job.spec.seq),
        Found::Live(_) => match gateway.line.look(id) {
            Some((spec, ..)) => Ok(spec.seq),
            None => Err(ApiError::not_found(format!("job {id}"))),
        },
    }
}

/// Knows the secrets of a job: what it was given says which they are, and is
/// forgotten together with what it did.
async fn redactor(gateway: &Gateway, seq: i64) -> Result<Redactor, ApiError> {
    let payload = gateway.store.payload(seq).await?;
    Ok(Redactor::of(&payload.unwrap_or_default()))
}

/// A job; what is sensitive in the answer to the engine is left out.
async fn show(gateway: &Gateway, found: &Found) -> Result<Reply, ApiError> {
    let job = match found {
        Found::Live(job) => return Ok(Reply::data(job)),
        Found::Ended(job) => job,
    };
    let Some(mut ending) = job.ending.clone() else {
        return Ok(Reply::data(&view::live(&job.spec, &job.progress, None)));
    };
    if let Some(purpose) = &job.spec.purpose {
        let shown = gateway.engine.outcome_shown(purpose, &ending.outcome);
        let outcome = match shown.await? {
            Some(outcome) => Some(outcome),
            None => serde_json::from_slice(&ending.outcome).ok(),
        };
        if let Some(outcome) = outcome {
            // A secret may stand in a field that is not marked, as in a header.
            let outcome = redactor(gateway, job.spec.seq).await?.redact_value(outcome);
            ending.outcome = Arc::new(outcome.to_string().into_bytes());
        }
    }
    Ok(Reply::raw(&view::ended(&job.spec, &job.progress, &ending)))
}
