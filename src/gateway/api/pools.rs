//! Agent pools: made, exposed, rotated, revoked, looked at.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, name};
use crate::store::directory::Pool;
use crate::telemetry::now_ms;

/// How long the old token works beside the new one, in seconds, if nobody says.
const OVERLAP_S: u64 = 3_600;
/// The longest such overlap: a month.
const OVERLAP_S_MAX: u64 = 31 * 24 * 3_600;

pub fn list(gateway: &Gateway, caller: &Caller) -> Reply {
    let pools: Vec<Value> = gateway
        .directory
        .pools()
        .iter()
        .filter(|pool| sees(gateway, caller, pool))
        .map(|pool| {
            let view = gateway.line.pool_view(&pool.id);
            json!({
                "id": pool.id,
                "name": pool.name,
                "default": pool.is_default,
                "connected_agents": view.agents.len(),
                "queued": view.queued,
            })
        })
        .collect();
    Reply::data(&pools)
}

pub async fn create(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    caller.admin()?;
    let mut fields = Fields::read(body)?;
    let name = name(&fields.required_text("name")?)?;
    fields.finish()?;
    let (pool, token) = match gateway.directory.add_pool(&name, false).await {
        Ok(made) => made,
        Err(error) => return Err(store_error(error)),
    };
    Ok(Reply::created(
        &json!({"id": pool.id, "name": pool.name, "token": token}),
    ))
}

pub fn get(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let pool = find(gateway, id)?;
    if !sees(gateway, caller, &pool) {
        return Err(ApiError::forbidden(format!(
            "agent pool {id} is not exposed to a project of this API key"
        )));
    }
    let view = gateway.line.pool_view(id);
    Ok(Reply::data(&json!({
        "id": pool.id,
        "name": pool.name,
        "default": pool.is_default,
        "revoked": gateway.directory.is_revoked(id),
        "connected_agents": view.agents.len(),
        "agents": view.agents,
        "projects": gateway.directory.exposures(id),
        "queued": view.queued,
        "reports_refused": gateway.line.denied(),
    })))
}

pub async fn expose(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
    project: &str,
    on: bool,
) -> Result<Reply, ApiError> {
    caller.admin()?;
    find(gateway, id)?;
    if !gateway.directory.has_project(project) {
        return Err(ApiError::not_found(format!("project {project}")));
    }
    gateway.directory.expose(id, project, on).await?;
    Ok(Reply::data(
        &json!({"pool": id, "projects": gateway.directory.exposures(id)}),
    ))
}

pub async fn rotate(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    caller.admin()?;
    find(gateway, id)?;
    let mut fields = Fields::read(body)?;
    let overlap_s = fields.whole("overlap_s")?.unwrap_or(OVERLAP_S);
    fields.finish()?;
    if overlap_s > OVERLAP_S_MAX {
        return Err(ApiError::bad(format!(
            "`overlap_s` is over {OVERLAP_S_MAX}"
        )));
    }
    let until = now_ms() + overlap_s * 1_000;
    let token = gateway.directory.rotate(id, until).await?;
    Ok(Reply::data(
        &json!({"token": token, "old_valid_until_ms": until}),
    ))
}

pub async fn revoke(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    caller.admin()?;
    find(gateway, id)?;
    gateway.directory.revoke(id).await?;
    let reason = "every token of the agent pool has been revoked";
    gateway.line.close_pool(id, reason);
    tracing::info!(
        pool.id = id,
        "Every token of a pool is revoked; its sessions are closed"
    );
    Ok(Reply::data(&json!({"pool": id, "revoked": true})))
}

fn find(gateway: &Gateway, id: &str) -> Result<Pool, ApiError> {
    gateway
        .directory
        .pool(id)
        .ok_or_else(|| ApiError::not_found(format!("agent pool {id}")))
}

fn sees(gateway: &Gateway, caller: &Caller, pool: &Pool) -> bool {
    match caller.projects() {
        None => true,
        Some(projects) => projects
            .iter()
            .any(|project| gateway.directory.is_exposed(&pool.id, project)),
    }
}

/// A store's error that came through `anyhow` keeps its sentence.
fn store_error(error: anyhow::Error) -> ApiError {
    match error.downcast::<crate::store::Error>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}
