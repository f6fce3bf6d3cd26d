//! Blocks of flows: looked at, confirmed, synced, triggered.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::{flows, installations};
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::{Head, Reply};
use crate::store::engine::components::Component;
use crate::store::engine::steps::Line;

/// Jobs whose logs are looked at, and lines in one answer.
const LOG_JOBS: u32 = 100;
pub const LOG_LINES: u32 = 1_000;
/// How long a caller should wait that would make too many jobs, in seconds.
const RETRY_AFTER_S: u32 = 1;

pub async fn list(gateway: &Gateway, caller: &Caller, flow: &str) -> Result<Reply, ApiError> {
    flows::find(gateway, caller, flow).await?;
    let blocks = gateway.store.components_of_flow(flow).await?;
    let mut shown = Vec::with_capacity(blocks.len());
    for block in &blocks {
        shown.push(object(gateway, block).await?);
    }
    Ok(Reply::data(&shown))
}

pub async fn get(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let block = find(gateway, caller, id).await?;
    let mut shown = object(gateway, &block).await?;
    let sensitive = gateway.engine.sensitive(&block).await?;
    shown["config"] = json!(block.vals.map(|values| sensitive.config(values)));
    shown["prompts"] = json!(gateway.store.prompts(id).await?);
    shown["timers"] = json!(gateway.engine.app_timers(id).await?);
    shown["widget"] = json!(block.widget);
    Ok(Reply::data(&shown))
}

pub async fn confirm(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    gateway.engine.confirm_block(id.to_owned()).await?;
    get(gateway, caller, id).await
}

pub async fn sync(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    gateway.engine.sync_component(id.to_owned()).await?;
    get(gateway, caller, id).await
}

/// What the block keeps.
pub async fn kv(
    gateway: &Gateway,
    caller: &Caller,
    head: &Head,
    id: &str,
) -> Result<Reply, ApiError> {
    let block = find(gateway, caller, id).await?;
    let installation = block.installation.unwrap_or_default();
    pairs(gateway, head, format!("block:{installation}:{id}")).await
}

/// Brings the body, which is JSON, as an event to an input of the block.
pub async fn trigger(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    flow: &str,
    block: &str,
    input: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    let found = flows::find(gateway, caller, flow).await?;
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body)
            .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?
    };
    if gateway.is_draining() {
        let sentence = "the gateway is about to stop and takes no more events";
        return Err(ApiError::later(503, sentence, 2));
    }
    if let Some(trouble) = gateway.store.trouble() {
        return Err(ApiError::later(503, trouble, 2));
    }
    if let Some(pool) = gateway.directory.default_pool() {
        let room = gateway.line.has_room(&found.project, &pool.id);
        room.map_err(|full| ApiError::later(429, full.0, RETRY_AFTER_S))?;
    }
    let (flow, block, input) = (flow.to_owned(), block.to_owned(), input.to_owned());
    let id = gateway.engine.trigger(flow, block, input, body).await?;
    Ok(Reply::created(&json!({"id": id})))
}

pub async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Component, ApiError> {
    let block = gateway.store.component(id).await?;
    block
        .filter(|block| block.flow.is_some() && caller.sees(&block.project))
        .ok_or_else(|| ApiError::not_found(format!("block {id}")))
}

async fn object(gateway: &Gateway, block: &Component) -> Result<Value, ApiError> {
    let (status, mut text, state) = installations::life(block);
    if state.is_some_and(|state| state.run.is_some())
        && let Some(id) = &block.installation
        && let Some(installation) = gateway.store.installation(id).await?
        && !gateway.line.has_agent(&installation.pool)
    {
        let pool = gateway.directory.pool(&installation.pool);
        let pool = pool.map_or(installation.pool, |pool| pool.name);
        text = Some(format!("Waiting for an agent of the pool {pool}"));
    }
    let sensitive = gateway.engine.sensitive(block).await?;
    Ok(json!({
        "id": block.id,
        "flow": block.flow,
        "name": block.name,
        "type": block.kind,
        "installation": block.installation,
        "status": status,
        "status_text": text,
        "config_error": block.config_error,
        "signals": sensitive.signals(block.signals.clone()),
    }))
}

/// What the block's handlers wrote lately.
pub async fn log(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    lines_of(gateway, id).await
}

pub async fn lines_of(gateway: &Gateway, component: &str) -> Result<Reply, ApiError> {
    let store = &gateway.store;
    let lines = store.component_log(component, LOG_JOBS, LOG_LINES).await?;
    Ok(Reply::data(&lines.iter().map(line).collect::<Vec<_>>()))
}

/// A line of a log with the job that wrote it.
pub fn line(line: &Line) -> Value {
    json!({
        "job": line.job, "kind": line.kind, "at_us": line.at_us,
        "level": line.level, "text": line.text,
    })
}

/// A page of a key-value store: `?prefix=&from=`.
pub async fn pairs(gateway: &Gateway, head: &Head, scope: String) -> Result<Reply, ApiError> {
    let prefix = head.query("prefix").unwrap_or_default().to_owned();
    let from = head.query("from").map(str::to_owned);
    let (pairs, next) = gateway.store.kv_page(scope, prefix, from).await?;
    let pairs: Vec<Value> = pairs.iter().map(crate::gateway::agent_api::pair).collect();
    Ok(Reply::data(&json!({"pairs": pairs, "next": next})))
}
