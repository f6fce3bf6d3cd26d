//! Secrets of projects: written, told about, never read back.

use std::sync::Arc;

use serde_json::json;

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::clients::done;
use crate::gateway::engine::run::Writing;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::Fields;
use crate::store::engine::secrets::Secret;

/// `{projectId, key, value}`: one that does not exist yet.
pub async fn create(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    fields: Fields,
) -> Result<Reply, ApiError> {
    write(gateway, caller, fields, Writing::New).await
}

/// `{projectId, key, value}`: one that exists.
pub async fn update(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    fields: Fields,
) -> Result<Reply, ApiError> {
    write(gateway, caller, fields, Writing::Known).await
}

/// `{projectId, key}`: that it exists, and since when.
pub async fn read(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let project = fields.required_text("projectId")?;
    caller.project(&project)?;
    let key = fields.required_text("key")?;
    let secrets = gateway.store.secrets(&project).await?;
    let secret = secrets.iter().find(|secret| secret.key == key);
    let secret = secret.ok_or_else(|| ApiError::not_found(format!("secret `{key}`")))?;
    shown(secret)
}

/// `{projectId, key}`.
pub async fn delete(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let project = fields.required_text("projectId")?;
    caller.project(&project)?;
    let key = fields.required_text("key")?;
    gateway.engine.delete_secret(project, key).await?;
    Ok(done())
}

async fn write(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
    writing: Writing,
) -> Result<Reply, ApiError> {
    let project = fields.required_text("projectId")?;
    caller.existing_project(gateway, "projectId", &project)?;
    let key = fields.required_text("key")?;
    let value = fields.required_text("value")?;
    let engine = &gateway.engine;
    shown(&engine.put_secret(project, key, value, writing).await?)
}

fn shown(secret: &Secret) -> Result<Reply, ApiError> {
    let at = jiff::Timestamp::from_millisecond(secret.updated_ms).map_err(ApiError::internal)?;
    Ok(Reply::data(&json!({
        "secret": {"key": secret.key, "updatedAt": at.to_string()},
    })))
}
