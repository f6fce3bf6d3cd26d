//! What a pool's own agent may see and do, below `/agent/v1/pool/{pool}`: that
//! pool's jobs, and no other's. The agent's local API stands on it.
//!
//! | route | answers |
//! |---|---|
//! | `GET /` | the pool, its agents, its jobs by state |
//! | `GET /live?state=` | live jobs in one state, oldest first; of one `agent`, if said |
//! | `GET /jobs`, `/jobs/{id}`, `…/trace`, `…/log`, `…/calls` | as `/api/v1/jobs` does |
//! | `POST /states` | the states of up to 1,000 jobs |
//! | `GET /events?after=` | what changed since |
//! | `GET /jobs/{id}/capture` | the job, its payload, bundle and calls; no token |
//! | `POST /jobs/{id}/cancel`, `…/replay` | as they say |
//!
//! The same routes take an admin key instead of the pool's token.

use std::sync::Arc;
use std::time::Duration;

use async_std::future::timeout;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use sluice_proto::job::{Identity, Kind};

use crate::gateway::Gateway;
use crate::gateway::api::jobs;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::{Head, Reply, no_route};
use crate::gateway::json::Fields;
use crate::gateway::line::{NewJob, Wanted};
use crate::store::jobs::{State, Stored};
use crate::telemetry::now_us;

/// Live jobs in one answer.
const LIVE_MAX: u64 = 1_000;
/// Jobs whose states may be asked for at once.
const STATES_MAX: usize = 1_000;
/// Calls in one capture.
const CALLS_MAX: u32 = 1_000;
/// The largest bundle that a capture carries, in bytes: as base64 in JSON it
/// must fit what a client takes in one answer.
const CAPTURED_BUNDLE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// How long a commit may take.
const COMMIT_MAX: Duration = Duration::from_secs(10);

/// Finds the handler; `caller` is one of this pool.
pub async fn handle(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    pool: &str,
    path: &[&str],
    body: &[u8],
) -> Result<Reply, ApiError> {
    match (head.method.as_str(), path) {
        ("GET", []) => Ok(Reply::data(&summary(gateway, pool))),
        ("GET", ["live"]) => live(gateway, head, pool),
        ("GET", ["events"]) => {
            let after = head.query_number("after")?;
            Ok(Reply::data(&gateway.line.events(pool, after)))
        }
        ("POST", ["states"]) => states(gateway, caller, body).await,
        ("GET", ["jobs"]) => jobs::list(gateway, caller, head).await,
        ("GET", ["jobs", id]) => jobs::get(gateway, caller, head, id).await,
        ("GET", ["jobs", id, "trace"]) => jobs::trace(gateway, caller, id).await,
        ("GET", ["jobs", id, "calls"]) => jobs::calls(gateway, caller, id).await,
        ("GET", ["jobs", id, "log"]) => jobs::log(gateway, caller, head, id).await,
        ("GET", ["jobs", id, "capture"]) => capture(gateway, caller, id).await,
        ("POST", ["jobs", id, "cancel"]) => jobs::cancel(gateway, caller, id, body).await,
        ("POST", ["jobs", id, "replay"]) => replay(gateway, caller, id).await,
        (method, _) => Err(no_route(method, &head.path)),
    }
}

fn summary(gateway: &Gateway, pool: &str) -> Value {
    let name = gateway.directory.pool(pool).map(|pool| pool.name);
    let mut value = gateway.line.counts(pool);
    value["id"] = json!(pool);
    value["name"] = json!(name);
    value["agents"] = json!(gateway.line.pool_view(pool).agents);
    value["now_us"] = json!(now_us());
    value
}

fn live(gateway: &Gateway, head: &Head, pool: &str) -> Result<Reply, ApiError> {
    let word = head.query("state").unwrap_or("accepted");
    let state = State::parse(word)
        .filter(|state| !state.is_final())
        .ok_or_else(|| ApiError::bad(format!("`{word}` is no state of a live job")))?;
    let number = |name: &str, default: u64, max: u64| {
        let number = head.query_number(name)?.unwrap_or(default).min(max);
        Ok::<_, ApiError>(usize::try_from(number).unwrap_or(usize::MAX))
    };
    let wanted = Wanted {
        state,
        kind: head.query("kind"),
        project: head.query("project"),
        agent: head.query("agent"),
        offset: number("offset", 0, u64::MAX)?,
        limit: number("limit", 100, LIVE_MAX)?,
    };
    Ok(Reply::data(&gateway.line.in_state(pool, &wanted)))
}

/// States by id; a job that is not this pool's, or not there, is left out.
async fn states(gateway: &Arc<Gateway>, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let ids = fields.texts("jobs")?.unwrap_or_default();
    fields.finish()?;
    if ids.len() > STATES_MAX {
        return Err(ApiError::bad(format!("more than {STATES_MAX} jobs")));
    }
    let mut states = Map::new();
    for id in ids {
        if let Some((spec, progress, _)) = gateway.line.look(&id) {
            if caller.job(&spec).is_ok() {
                states.insert(id, json!(progress.state.as_str()));
            }
            continue;
        }
        let stored = gateway.store.job(&id).await?;
        if let Some(stored) = stored.filter(|stored| caller.job(&stored.spec).is_ok()) {
            states.insert(id, json!(stored.progress.state.as_str()));
        }
    }
    Ok(Reply::data(&states))
}

/// Everything that is needed to run the job once more without a gateway.
async fn capture(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let (stored, identity) = stored(gateway, caller, id).await?;
    let seq = stored.spec.seq;
    let payload = payload(gateway, id, seq).await?;
    let bundle = match identity.bundle() {
        None => None,
        Some(digest) => {
            let bytes = gateway.bundles.get(digest.as_str()).await?;
            if bytes.len() > CAPTURED_BUNDLE_BYTES_MAX {
                return Err(ApiError::new(
                    413,
                    format!(
                        "the job's bundle has {} bytes, and a capture carries {CAPTURED_BUNDLE_BYTES_MAX} at most",
                        bytes.len()
                    ),
                ));
            }
            Some(BASE64.encode(bytes))
        }
    };
    let calls: Vec<Value> = gateway
        .store
        .calls(seq, CALLS_MAX)
        .await?
        .into_iter()
        .map(|call| {
            let parse = |text: Option<String>| text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            json!({"number": call.number.number, "method": call.method, "answer": parse(call.answer), "error": call.error})
        })
        .collect();
    let spec = &stored.spec;
    Ok(Reply::data(&json!({
        "sluice_capture": 1,
        "job": spec.id,
        "kind": spec.kind,
        "pool": spec.pool,
        "project": spec.project,
        "block": spec.block,
        "identity": identity,
        "timeout_ms": spec.timeout_ms,
        "state": stored.progress.state.as_str(),
        "payload": BASE64.encode(payload),
        "bundle": bundle,
        "calls": calls,
    })))
}

/// The same job again, as a new one that names the old.
async fn replay(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let (stored, identity) = stored(gateway, caller, id).await?;
    let spec = &stored.spec;
    if !stored.progress.state.is_final() {
        return Err(ApiError::conflict(format!(
            "job {id} is {}: only a job that has ended is replayed",
            stored.progress.state.as_str()
        )));
    }
    let kind = Kind::parse(&spec.kind)
        .ok_or_else(|| ApiError::internal(format!("`{}` is no kind of job", spec.kind)))?;
    let new = NewJob {
        pool: spec.pool.clone(),
        project: spec.project.clone(),
        kind,
        high: spec.high,
        identity,
        block: spec.block.clone(),
        timeout_ms: spec.timeout_ms,
        // What it was worth waiting for then says nothing about now.
        expires_ms: None,
        payload: payload(gateway, id, spec.seq).await?,
    };
    let created = gateway
        .line
        .create_as(new, false, Some(id.to_owned()))
        .map_err(|full| ApiError::later(429, full.0, 1))?;
    if !matches!(timeout(COMMIT_MAX, created.committed).await, Ok(Ok(()))) {
        let sentence = format!("job {} is not committed yet: ask for it later", created.id);
        return Err(ApiError::later(503, sentence, 2));
    }
    tracing::info!(job.id = %created.id, original = id, by = %caller.key, "A job is replayed");
    Ok(Reply::created(&json!({"id": created.id, "replay_of": id})))
}

async fn stored(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
) -> Result<(Stored, Identity), ApiError> {
    let stored = gateway
        .store
        .job(id)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("job {id}")))?;
    caller.job(&stored.spec)?;
    let identity = serde_json::from_str(&stored.spec.identity).map_err(ApiError::internal)?;
    Ok((stored, identity))
}

async fn payload(gateway: &Gateway, id: &str, seq: i64) -> Result<Vec<u8>, ApiError> {
    let payload = gateway.store.payload(seq).await?;
    payload.ok_or_else(|| ApiError::not_found(format!("the payload of job {id}")))
}
