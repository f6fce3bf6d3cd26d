//! Flows as code: made, brought to a definition, planned, exported, and their
//! blocks' lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::flows::{bring, find, mapping, preview};
use crate::gateway::api::{blocks, installations};
use crate::gateway::auth::Caller;
use crate::gateway::clients::done;
use crate::gateway::engine::run::Mapping;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, name};

/// `{projectId, name}`.
pub async fn create(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let project = fields.required_text("projectId")?;
    caller.existing_project(gateway, "projectId", &project)?;
    let name = name(&fields.required_text("name")?)?;
    let id = gateway.engine.create_flow(project, name).await?;
    Ok(Reply::data(&json!({"flow": {"id": id}})))
}

/// `{flowId}`.
pub async fn get(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let flow = find(gateway, caller, &fields.required_text("flowId")?).await?;
    let blocks = gateway.store.components_of_flow(&flow.id).await?;
    let blocks: BTreeMap<&str, Value> = blocks
        .iter()
        // One that drains may have a successor of the same name.
        .filter(|block| block.state["deleting"] != true)
        .map(|block| (block.name.as_str(), json!({"id": block.id})))
        .collect();
    Ok(Reply::data(&json!({"name": flow.name, "blocks": blocks})))
}

/// `{id, name}`.
pub async fn update(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let flow = find(gateway, caller, &fields.required_text("id")?).await?;
    let name = name(&fields.required_text("name")?)?;
    gateway.engine.rename_flow(flow.id, name).await?;
    Ok(done())
}

/// `{id}`.
pub async fn delete(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let flow = find(gateway, caller, &fields.required_text("id")?).await?;
    gateway.engine.delete_flow(flow.id).await?;
    Ok(done())
}

/// `{flowId, definition, appInstallationMapping?}`: brings the flow there.
pub async fn apply(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    fields: Fields,
) -> Result<Reply, ApiError> {
    let (flow, definition, mapping) = wanted(gateway, caller, fields).await?;
    bring(gateway, &flow, definition, mapping).await?;
    Ok(done())
}

/// The same: what that would do.
pub async fn plan(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    fields: Fields,
) -> Result<Reply, ApiError> {
    let (flow, definition, mapping) = wanted(gateway, caller, fields).await?;
    let plan = preview(gateway, &flow, definition, mapping).await?;
    // It is shown as a warning, so there is none where nothing changes.
    let readable = (!plan.is_empty()).then(|| plan.readable());
    Ok(Reply::data(
        &json!({"plan": plan, "readablePlan": readable}),
    ))
}

/// `{flowId}`.
pub async fn export(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let flow = find(gateway, caller, &fields.required_text("flowId")?).await?;
    let definition = gateway.engine.export_flow(flow.id).await?;
    Ok(Reply::data(&json!({"definition": definition})))
}

/// `{entityId}`: of a block.
pub async fn entity_status(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let block = blocks::find(gateway, caller, &fields.required_text("entityId")?).await?;
    let (status, ..) = installations::life(&block);
    Ok(Reply::data(&json!({"status": status})))
}

/// `{id}`: of a block.
pub async fn confirm_entity(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let block = blocks::find(gateway, caller, &fields.required_text("id")?).await?;
    gateway.engine.confirm_block(block.id).await?;
    Ok(done())
}

async fn wanted(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<(String, String, Mapping), ApiError> {
    let flow = find(gateway, caller, &fields.required_text("flowId")?).await?;
    // A flow without a definition is one without blocks.
    let definition = fields.text("definition")?.unwrap_or_default();
    let mapping = mapping(&mut fields, "appInstallationMapping")?;
    Ok((flow.id, definition, mapping))
}
