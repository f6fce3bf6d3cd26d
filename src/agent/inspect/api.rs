//! The routes of the local API: a name, its facts, its answer.
//!
//! | route | answers |
//! |---|---|
//! | `GET /health`, `/ready` | how the agent is; 503 with the reasons when it is not |
//! | `GET /metrics` | Prometheus text |
//! | `GET /v1/queues` | the overview: queues, workers, dead letters, states |
//! | `GET /v1/peek/{ready,in-flight,retry,dead}` | jobs there: `offset`, `limit`, `kind`, `project`, `payload=1` |
//! | `GET /v1/jobs/{id}`, `…/trace`, `…/why`, `…/log`, `…/capture` | one job |
//! | `GET /v1/events?after=` | what changed since |
//! | `GET /v1/check` | whether each accepted job is in one place |
//! | `GET /v1/dead?cause=&job=&by=cause` | dead letters |
//! | `POST /v1/dead/replay`, `/v1/dead/drop` `{jobs}` | up to 200 of them |
//! | `POST /v1/jobs/{id}/cancel`, `…/replay` | as they say |
//! | `POST /v1/pause` `{mode, reason}`, `/v1/resume` | the pool's intake on this host |

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::agent::inspect::books;
use crate::agent::inspect::metrics::{self, Counted};
use crate::agent::inspect::queues::{by_cause, overview};
use crate::agent::inspect::why::{Facts, why};
use crate::agent::inspect::{Observer, health, peek};
use crate::http::{ApiError, Head, Reply, no_route};
use crate::pause::{self, Mode, Order};
use crate::queue::graves::Fate;
use crate::telemetry::{now_ms, now_us};

/// The largest body of a request, in bytes.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;
/// Dead letters replayed or dropped by one request.
const DEAD_AT_ONCE_MAX: usize = 200;
/// What the process that answers knows of itself.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// The agent's id, by which the gateway knows it.
    pub agent: String,
    /// `starting`, `running` or `draining`; `None`: no agent runs here.
    pub state: Option<String>,
    pub processes: Vec<(String, bool)>,
}

/// Answers one request.
pub async fn handle(
    observer: &Arc<Observer>,
    own: &Own,
    head: &Head,
    body: &[u8],
) -> Result<Reply, ApiError> {
    let path: Vec<&str> = head
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    match (head.method.as_str(), path.as_slice()) {
        ("GET", ["health"]) => Ok(health_reply(observer, own, false).await),
        ("GET", ["ready"]) => Ok(health_reply(observer, own, true).await),
        ("GET", ["metrics"]) => Ok(metrics_reply(observer, own).await),
        ("GET", ["v1", "queues"]) => Ok(Reply::data(&overview(observer).await)),
        ("GET", ["v1", "peek", place]) => peek::peek(observer, head, place).await,
        ("GET", ["v1", "check"]) => books::checked(observer).await,
        ("GET", ["v1", "dead"]) => dead(observer, head).await,
        ("POST", ["v1", "dead", "replay"]) => end_dead(observer, body, Fate::Replayed).await,
        ("POST", ["v1", "dead", "drop"]) => end_dead(observer, body, Fate::Dropped).await,
        ("GET", ["v1", "events"]) => {
            let after = head
                .query("after")
                .map_or(String::new(), |after| format!("?after={}", segment(after)));
            pass(observer, "GET", &format!("/events{after}"), None).await
        }
        ("GET", ["v1", "jobs", id]) => {
            pass(observer, "GET", &format!("/jobs/{}", segment(id)), None).await
        }
        ("GET", ["v1", "jobs", id, "why"]) => reason(observer, id).await,
        ("GET", ["v1", "jobs", id, what @ ("trace" | "log" | "capture")]) => {
            pass(
                observer,
                "GET",
                &format!("/jobs/{}/{what}", segment(id)),
                None,
            )
            .await
        }
        ("POST", ["v1", "jobs", id, what @ ("cancel" | "replay")]) => {
            let body = object(body)?;
            tracing::info!(job.id = id, action = what, "Asked for by the local API");
            pass(
                observer,
                "POST",
                &format!("/jobs/{}/{what}", segment(id)),
                Some(&body),
            )
            .await
        }
        ("POST", ["v1", "pause"]) => order(observer, body),
        ("POST", ["v1", "resume"]) => {
            pause::clear(&observer.place.data_dir).map_err(ApiError::internal)?;
            tracing::info!("Work is to be taken again: asked for by the local API");
            Ok(Reply::data(&json!({"order": null})))
        }
        (method, _) => Err(no_route(method, &head.path)),
    }
}

async fn health_reply(observer: &Observer, own: &Own, ready: bool) -> Reply {
    let overview = overview(observer).await;
    let state = own.state.as_deref().unwrap_or("running");
    let health = health::judge(&overview, state, &own.agent);
    let fine = if ready { health.ready } else { health.healthy };
    let mut reply = Reply::data(&health);
    if !fine {
        reply.status = 503;
    }
    reply
}

async fn metrics_reply(observer: &Observer, own: &Own) -> Reply {
    let overview = overview(observer).await;
    let counted = Counted {
        tallies: observer.tallies(),
        reconnects: observer.reconnects(),
        state: own.state.clone(),
        processes: own.processes.clone(),
    };
    let text = metrics::text(&overview, &counted);
    Reply::bytes(metrics::CONTENT_TYPE, text.into_bytes())
}

/// Hands a request on to the gateway.
async fn pass(
    observer: &Observer,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Reply, ApiError> {
    let gateway = observer.gateway().map_err(|why| ApiError::new(502, why))?;
    Ok(Reply::data(&gateway.call(method, path, body).await?))
}

async fn reason(observer: &Observer, id: &str) -> Result<Reply, ApiError> {
    let gateway = observer.gateway().map_err(|why| ApiError::new(502, why))?;
    let job = gateway.get(&format!("/jobs/{}", segment(id))).await?;
    let (asked, depth, grave) = futures::join!(
        observer.ask(),
        async {
            let link = observer.linked().await?;
            link.depth().await.map_err(|error| error.to_string())
        },
        observer.graves(|graves| graves.get(id).cloned()),
    );
    let no_broker = depth.as_ref().err().cloned();
    let workers = asked.unwrap_or_else(|_| observer.workers());
    let holds = || {
        workers
            .iter()
            .filter_map(|worker| Some((worker, worker.holds.as_ref()?)))
    };
    let held = holds().find_map(|(worker, holds)| {
        let held = holds.jobs.iter().find(|held| held.job.as_str() == id)?;
        Some((worker.worker.as_str(), held))
    });
    let retried =
        holds().find_map(|(_, holds)| holds.retried.iter().find(|job| job.job.as_str() == id));
    let grave = grave.unwrap_or_default();
    let facts = Facts {
        held,
        retried,
        grave: grave.as_ref(),
        order: pause::read(&observer.place.data_dir),
        workers: &workers,
        ready: depth.ok().map(|depths| depths.jobs + depths.jobs_high),
        no_broker,
        now_us: now_us(),
        job,
    };
    let found = why(&facts);
    Ok(Reply::data(&json!({
        "job": id,
        "state": facts.job["state"],
        "reason": found.reason,
        "sentence": found.sentence,
        "worker": held.map(|(worker, _)| worker),
    })))
}

async fn dead(observer: &Observer, head: &Head) -> Result<Reply, ApiError> {
    if head.query("by") == Some("cause") {
        let causes = observer.graves(by_cause).await.map_err(unavailable)?;
        return Ok(Reply::data(&causes));
    }
    let (cause, job) = (head.query("cause"), head.query("job"));
    let found = observer.graves(|graves| {
        graves
            .iter()
            .filter(|grave| cause.is_none_or(|cause| grave.cause == cause))
            .filter(|grave| job.is_none_or(|job| grave.job == job))
            .cloned()
            .collect::<Vec<_>>()
    });
    Ok(Reply::data(&found.await.map_err(unavailable)?))
}

/// Replays or drops some dead letters; each is answered for on its own.
async fn end_dead(observer: &Observer, body: &[u8], fate: Fate) -> Result<Reply, ApiError> {
    let body = object(body)?;
    let jobs = body["jobs"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let jobs: Vec<&str> = jobs.iter().filter_map(Value::as_str).collect();
    if jobs.is_empty() || jobs.len() > DEAD_AT_ONCE_MAX {
        return Err(ApiError::bad(format!(
            "`jobs` is a list of 1 to {DEAD_AT_ONCE_MAX} job ids"
        )));
    }
    let by = body["by"].as_str().unwrap_or("the local API");
    let buried = observer.graves(|graves| {
        jobs.iter()
            .map(|job| graves.get(job).is_some())
            .collect::<Vec<_>>()
    });
    let buried = buried.await.map_err(unavailable)?;
    let (mut answers, mut gone) = (Vec::new(), HashSet::new());
    for (job, buried) in jobs.iter().zip(buried) {
        let mut answer = json!({"job": job});
        if !buried {
            answer["error"] = json!("there is no dead letter of this job");
        } else if fate == Fate::Replayed {
            let gateway = observer.gateway().map_err(|why| ApiError::new(502, why))?;
            let path = format!("/jobs/{}/replay", segment(job));
            match gateway.call("POST", &path, Some(&json!({}))).await {
                Ok(new) => {
                    answer["replayed_as"] = new["id"].clone();
                    gone.insert((*job).to_owned());
                }
                Err(error) => answer["error"] = json!(error.message),
            }
        } else {
            gone.insert((*job).to_owned());
        }
        tracing::info!(
            job.id = job,
            ?fate,
            by,
            error = answer["error"].as_str(),
            "A dead letter is to go"
        );
        answers.push(answer);
    }
    if !gone.is_empty() {
        let link = observer.linked().await.map_err(unavailable)?;
        let removed = link.remove_dead(&gone, fate, by).await;
        let removed = removed.map_err(|error| unavailable(error.to_string()))?;
        for answer in &mut answers {
            let id = answer["job"].as_str().unwrap_or_default().to_owned();
            answer["removed"] = json!(removed.contains(&id));
        }
    }
    Ok(Reply::data(&answers))
}

fn order(observer: &Observer, body: &[u8]) -> Result<Reply, ApiError> {
    let body = object(body)?;
    let mode = match body["mode"].as_str() {
        Some("draining") => Mode::Draining,
        Some("paused") | None => Mode::Paused,
        Some(other) => {
            return Err(ApiError::bad(format!(
                "`{other}` is no mode: say paused or draining"
            )));
        }
    };
    let order = Order::new(mode, body["reason"].as_str().unwrap_or_default(), now_ms());
    pause::write(&observer.place.data_dir, &order).map_err(ApiError::internal)?;
    tracing::info!(
        ?mode,
        reason = order.reason,
        "No work is to be taken: asked for by the local API"
    );
    Ok(Reply::data(&json!({"order": order})))
}

fn object(body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad(format!("the body is no JSON: {error}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::bad("the body is no JSON object"))
    }
}

pub(super) fn unavailable(why: String) -> ApiError {
    ApiError::new(503, why)
}

/// One segment of a path, whatever somebody put there.
pub(super) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
