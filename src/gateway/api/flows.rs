//! Flows: made, applied, planned, exported, removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::engine::definition::plan::Plan;
use crate::gateway::engine::run::{Fault, Mapping};
use crate::gateway::error::ApiError;
use crate::gateway::http::{Head, Reply};
use crate::gateway::json::{Fields, Json, name};
use crate::store::engine::flows::Flow;

/// How long a definition waits for the schemas of the apps it uses: a cold
/// runtime on a busy host takes seconds, and clients wait for as long as it takes.
const DESCRIBED_MAX: Duration = Duration::from_secs(30);
/// How often it is tried again meanwhile.
const DESCRIBED_AGAIN: Duration = Duration::from_millis(200);

pub async fn list(gateway: &Gateway, caller: &Caller, head: &Head) -> Result<Reply, ApiError> {
    let project = head.query("project");
    let flows = gateway.store.flows().await?;
    let flows: Vec<Value> = flows
        .iter()
        .filter(|flow| caller.sees(&flow.project))
        .filter(|flow| project.is_none_or(|project| project == flow.project))
        .map(object)
        .collect();
    Ok(Reply::data(&flows))
}

/// `{project, name}`.
pub async fn create(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    body: &[u8],
) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let project = fields.required_text("project")?;
    caller.existing_project(gateway, "project", &project)?;
    let name = name(&fields.required_text("name")?)?;
    fields.finish()?;
    let id = gateway.engine.create_flow(project, name).await?;
    Ok(Reply::created(&object(&find(gateway, caller, &id).await?)))
}

pub async fn get(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let flow = find(gateway, caller, id).await?;
    let mut shown = object(&flow);
    shown["definition"] = json!(flow.definition);
    shown["open"] = json!(gateway.store.open_in_flow(id).await?);
    shown["deliveries"] = json!(gateway.store.delivery_counts(id).await?);
    let ahead = gateway.store.ahead_in_flow(id).await?;
    shown["jobs"] = json!(ahead.jobs);
    shown["next_timer_ms"] = json!(ahead.next_timer_ms);
    Ok(Reply::data(&shown))
}

pub async fn rename(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    let mut fields = Fields::read(body)?;
    let name = name(&fields.required_text("name")?)?;
    fields.finish()?;
    gateway.engine.rename_flow(id.to_owned(), name).await?;
    get(gateway, caller, id).await
}

pub async fn delete(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    gateway.engine.delete_flow(id.to_owned()).await?;
    Ok(Reply::data(&json!({})))
}

/// `{definition, installations?}`: brings the flow there.
pub async fn apply(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    let (definition, mapping) = definition(body)?;
    let plan = bring(gateway, id, definition, mapping).await?;
    Ok(Reply::data(&plan_object(&plan)))
}

/// The same body: what applying it would do.
pub async fn plan(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    let (definition, mapping) = definition(body)?;
    let plan = preview(gateway, id, definition, mapping).await?;
    Ok(Reply::data(&plan_object(&plan)))
}

/// Brings a flow to a definition. Waits a while for apps that were installed a
/// moment ago and have not said yet which blocks they have.
pub async fn bring(
    gateway: &Arc<Gateway>,
    id: &str,
    definition: String,
    mapping: Mapping,
) -> Result<Plan, ApiError> {
    let apply = || {
        let (definition, mapping) = (definition.clone(), mapping.clone());
        gateway
            .engine
            .apply_flow(id.to_owned(), definition, mapping)
    };
    Ok(patiently(gateway, apply).await?.plan)
}

/// What bringing it there would do, with the same patience.
pub async fn preview(
    gateway: &Arc<Gateway>,
    id: &str,
    definition: String,
    mapping: Mapping,
) -> Result<Plan, ApiError> {
    let plan = || {
        let (definition, mapping) = (definition.clone(), mapping.clone());
        gateway.engine.plan_flow(id.to_owned(), definition, mapping)
    };
    patiently(gateway, plan).await
}

/// Tries until it succeeds, fails for good, or was tried long enough.
async fn patiently<T, F>(gateway: &Gateway, mut attempt: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, Fault>>,
{
    let start = Instant::now();
    loop {
        let outcome = attempt().await;
        if !is_worth_waiting(gateway, start, outcome.as_ref().err()).await {
            return Ok(outcome?);
        }
    }
}

fn plan_object(plan: &Plan) -> Value {
    json!({"operations": plan.operations, "readable": plan.readable()})
}

/// Waits before another try, if there is to be one.
async fn is_worth_waiting(gateway: &Gateway, start: Instant, fault: Option<&Fault>) -> bool {
    let may_pass = matches!(fault, Some(Fault::Undescribed(_)));
    if !may_pass || start.elapsed() >= DESCRIBED_MAX || gateway.is_draining() {
        return false;
    }
    async_std::task::sleep(DESCRIBED_AGAIN).await;
    true
}

pub async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Flow, ApiError> {
    let flow = gateway.store.flow(id).await?;
    flow.filter(|flow| caller.sees(&flow.project))
        .ok_or_else(|| ApiError::not_found(format!("flow {id}")))
}

fn object(flow: &Flow) -> Value {
    json!({
        "id": flow.id, "project": flow.project, "name": flow.name, "created_ms": flow.created_ms,
    })
}

fn definition(body: &[u8]) -> Result<(String, Mapping), ApiError> {
    let mut fields = Fields::read(body)?;
    let text = fields.required_text("definition")?;
    let mapping = mapping(&mut fields, "installations")?;
    fields.finish()?;
    Ok((text, mapping))
}

/// Keys of a definition's installations and whom they mean.
pub fn mapping(fields: &mut Fields, field: &str) -> Result<Mapping, ApiError> {
    let mut mapping = Mapping::new();
    if let Some(Json::Object(entries)) = fields.object(field)? {
        for (key, id) in entries {
            let id = id.as_str().ok_or_else(|| {
                ApiError::bad(format!("`{field}.{key}` is not the id of an installation"))
            })?;
            mapping.insert(key, id.to_owned());
        }
    }
    Ok(mapping)
}
