//! Events of a flow and what became of them; replay of what failed.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::{blocks, flows, follow};
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::{Head, Reply};
use crate::store::engine::deliveries::Delivery;
use crate::store::engine::events::Event;

/// Events in one answer.
const EVENTS_MAX: u64 = 500;
const EVENTS_USUAL: u64 = 100;

/// Newest first, `?before=SEQ`; or oldest first: `?after=SEQ`. With `?stream=1`
/// whatever comes from now on (or after SEQ), as server-sent events.
pub async fn list(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    flow: &str,
) -> Result<Reply, ApiError> {
    flows::find(gateway, caller, flow).await?;
    if head.query("stream") == Some("1") {
        let after = head.query_number("after")?;
        return follow::stream(gateway, flow, after).await;
    }
    let number = |name: &str| {
        let number = head.query_number(name)?;
        Ok::<_, ApiError>(number.map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
    };
    let limit = head.query_number("limit")?.unwrap_or(EVENTS_USUAL);
    let limit = u32::try_from(limit.min(EVENTS_MAX)).unwrap_or(u32::MAX);
    let (after, before) = (number("after")?, number("before")?);
    let events = gateway.store.events(flow, after, before, limit).await?;
    Ok(Reply::data(&objects(gateway, &events).await?))
}

pub async fn get(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let event = gateway.store.event(id).await?;
    let event = event.ok_or_else(|| ApiError::not_found(format!("event {id}")))?;
    flows::find(gateway, caller, &event.flow).await?;
    let mut shown = objects(gateway, std::slice::from_ref(&event)).await?;
    Ok(Reply::data(&shown.pop()))
}

/// What the handlers of an event wrote.
pub async fn log(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let event = gateway.store.event(id).await?;
    let event = event.ok_or_else(|| ApiError::not_found(format!("event {id}")))?;
    flows::find(gateway, caller, &event.flow).await?;
    let lines = gateway.store.event_log(id, blocks::LOG_LINES).await?;
    Ok(Reply::data(
        &lines.iter().map(blocks::line).collect::<Vec<_>>(),
    ))
}

/// Events that were announced, and whether they came.
pub async fn pending(gateway: &Gateway, caller: &Caller, flow: &str) -> Result<Reply, ApiError> {
    flows::find(gateway, caller, flow).await?;
    let most = u32::try_from(EVENTS_MAX).unwrap_or(u32::MAX);
    let pendings = gateway.store.pendings(flow, most).await?;
    let pendings: Vec<Value> = pendings
        .into_iter()
        .map(|it| {
            let mut shown = it.pending;
            shown["id"] = it.id.into();
            shown["block"] = it.block.into();
            shown["created_ms"] = it.created_ms.into();
            shown
        })
        .collect();
    Ok(Reply::data(&pendings))
}

pub async fn replay(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let missing = || ApiError::not_found(format!("delivery {id}"));
    let seq: i64 = id.parse().map_err(|_| missing())?;
    let delivery = gateway.store.delivery(seq).await?.ok_or_else(missing)?;
    flows::find(gateway, caller, &delivery.flow).await?;
    gateway.engine.replay(seq).await?;
    let delivery = gateway.store.delivery(seq).await?.ok_or_else(missing)?;
    Ok(Reply::data(&shown(&delivery, None)))
}

pub async fn objects(gateway: &Gateway, events: &[Event]) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    let mut deliveries = std::collections::BTreeMap::<String, Vec<Value>>::new();
    for (delivery, job) in gateway.store.deliveries(&ids).await? {
        let of_event = deliveries.entry(delivery.event.clone()).or_default();
        of_event.push(shown(&delivery, job));
    }
    let emitters: Vec<i64> = events.iter().filter_map(|event| event.job).collect();
    let jobs = gateway.store.job_ids(&emitters).await?;
    let shown = events.iter().map(|event| {
        let body: Value = serde_json::from_str(&event.body).unwrap_or_default();
        json!({
            "seq": event.seq,
            "id": event.id,
            "flow": event.flow,
            "block": event.block,
            "output": event.output,
            "body": body,
            "parent": event.parent,
            "secondary_parents": event.secondary,
            "state": event.state.as_str(),
            "error": event.error,
            "job": event.job.and_then(|job| jobs.get(&job)),
            "created_ms": event.created_ms,
            "deliveries": deliveries.remove(&event.id).unwrap_or_default(),
        })
    });
    Ok(shown.collect())
}

pub fn shown(delivery: &Delivery, job: Option<String>) -> Value {
    json!({
        "id": delivery.seq.to_string(),
        "block": delivery.block,
        "input": delivery.input,
        "state": delivery.state.as_str(),
        "error": delivery.error,
        "tries": delivery.tries,
        "job": job,
        "created_ms": delivery.created_ms,
        "ended_ms": delivery.ended_ms,
    })
}
