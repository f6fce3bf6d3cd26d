//! Secrets of a project: written and listed, never read back.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::engine::run::Writing;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::Fields;
use crate::store::engine::secrets::Secret;

pub async fn list(gateway: &Gateway, caller: &Caller, project: &str) -> Result<Reply, ApiError> {
    caller.project(project)?;
    let secrets = gateway.store.secrets(project).await?;
    let secrets: Vec<Value> = secrets.iter().map(object).collect();
    Ok(Reply::data(&secrets))
}

/// `{value}`: makes the secret or gives it another value.
pub async fn put(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    project: &str,
    key: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    caller.project(project)?;
    if !gateway.directory.has_project(project) {
        return Err(ApiError::not_found(format!("project {project}")));
    }
    let mut fields = Fields::read(body)?;
    let value = fields.required_text("value")?;
    fields.finish()?;
    let engine = &gateway.engine;
    let secret = engine
        .put_secret(project.to_owned(), key.to_owned(), value, Writing::Either)
        .await?;
    Ok(Reply::data(&object(&secret)))
}

pub async fn delete(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    project: &str,
    key: &str,
) -> Result<Reply, ApiError> {
    caller.project(project)?;
    let engine = &gateway.engine;
    engine
        .delete_secret(project.to_owned(), key.to_owned())
        .await?;
    Ok(Reply::data(&json!({})))
}

fn object(secret: &Secret) -> Value {
    json!({"key": secret.key, "updated_ms": secret.updated_ms})
}
