//! App installations: made, configured, confirmed, looked at, removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::apps;
use crate::gateway::auth::Caller;
use crate::gateway::engine::component::{State, Status};
use crate::gateway::engine::run::{ConfigChange, Install};
use crate::gateway::error::ApiError;
use crate::gateway::http::{Head, Reply};
use crate::gateway::json::{Fields, Json, name};
use crate::store::engine::components::Component;
use crate::store::engine::installations::{Described, Installation};

pub async fn list(gateway: &Gateway, caller: &Caller, head: &Head) -> Result<Reply, ApiError> {
    let project = head.query("project");
    let installations = gateway.store.installations().await?;
    let mut found = Vec::new();
    for installation in installations.iter().filter(|it| caller.sees(&it.project)) {
        if project.is_none_or(|project| project == installation.project) {
            found.push(object(gateway, installation).await?);
        }
    }
    Ok(Reply::data(&found))
}

/// `{project, name, version, pool?, config?, confirm?}`; a config is field →
/// JavaScript source.
pub async fn create(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    body: &[u8],
) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let project = fields.required_text("project")?;
    caller.existing_project(gateway, "project", &project)?;
    let name = name(&fields.required_text("name")?)?;
    let version = fields.required_text("version")?;
    let pool = fields.text("pool")?;
    let config = config(fields.take("config"), "config")?;
    let confirm = matches!(fields.take("confirm"), Some(Json::Bool(true)));
    fields.finish()?;
    let version = apps::find_version(gateway, caller, &version).await?;
    let pool = super::request::pool_of(gateway, pool, &project)?;
    let given = config.into_iter();
    let install = Install {
        project,
        name,
        version,
        pool,
        config: given
            .filter_map(|(key, source)| Some((key, source?)))
            .collect(),
        style: None,
        confirm,
    };
    let id = gateway.engine.install(install).await?;
    let installation = find(gateway, caller, &id).await?;
    Ok(Reply::created(&object(gateway, &installation).await?))
}

pub async fn get(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let installation = find(gateway, caller, id).await?;
    Ok(Reply::data(&object(gateway, &installation).await?))
}

/// `{config: {field: source or null}}`; null takes a field away.
pub async fn configure(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    let mut fields = Fields::read(body)?;
    let config = config(fields.take("config"), "config")?;
    fields.finish()?;
    gateway.engine.configure(id.to_owned(), config).await?;
    get(gateway, caller, id).await
}

pub async fn confirm(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    gateway.engine.confirm_installation(id.to_owned()).await?;
    get(gateway, caller, id).await
}

pub async fn sync(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    gateway.engine.sync_component(id.to_owned()).await?;
    get(gateway, caller, id).await
}

/// `{version}`: other code for it.
pub async fn upgrade(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
    body: &[u8],
) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    let mut fields = Fields::read(body)?;
    let version = fields.required_text("version")?;
    fields.finish()?;
    let version = apps::find_version(gateway, caller, &version).await?;
    gateway.engine.upgrade(id.to_owned(), version).await?;
    get(gateway, caller, id).await
}

pub async fn delete(gateway: &Arc<Gateway>, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    gateway.engine.uninstall(id.to_owned()).await?;
    Ok(Reply::data(&json!({})))
}

/// What the app or a block of it keeps: `?block=ID` for a block's.
pub async fn kv(
    gateway: &Gateway,
    caller: &Caller,
    head: &Head,
    id: &str,
) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    let scope = match head.query("block") {
        Some(block) => format!("block:{id}:{block}"),
        None => format!("app:{id}"),
    };
    super::blocks::pairs(gateway, head, scope).await
}

/// What the app's own handlers wrote lately.
pub async fn log(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, id).await?;
    super::blocks::lines_of(gateway, id).await
}

pub async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Installation, ApiError> {
    let installation = gateway.store.installation(id).await?;
    let installation = installation
        .filter(|installation| caller.sees(&installation.project))
        .ok_or_else(|| ApiError::not_found(format!("app installation {id}")))?;
    Ok(installation)
}

/// What a life looks like from outside: its status, and a line about it.
pub fn life(component: &Component) -> (Status, Option<String>, Option<State>) {
    match serde_json::from_value::<State>(component.state.clone()) {
        Ok(state) => (state.status, state.status_text(), Some(state)),
        Err(error) => (Status::Failed, Some(error.to_string()), None),
    }
}

/// The status as clients see it, and why it is so.
pub async fn status(
    gateway: &Gateway,
    installation: &Installation,
    component: &Component,
) -> Result<(Status, Option<String>), ApiError> {
    let (mut status, mut text, state) = life(component);
    let asked = match gateway.store.described(&installation.digest).await? {
        Described::Schema(_) => None,
        Described::Error(error) => {
            if installation.confirm_wanted {
                status = Status::Failed;
            }
            text = Some(format!("the app's code cannot say what is in it: {error}"));
            None
        }
        Described::Never | Described::Asked => {
            if installation.confirm_wanted {
                status = Status::InProgress;
            }
            Some("Waiting until the app's code has said what is in it".to_owned())
        }
    };
    let waits = asked.is_some() || state.is_some_and(|state| state.run.is_some());
    text = asked.or(text);
    if installation.delete_wanted && status != Status::DrainingFailed {
        status = Status::Draining;
        text = Some("Waiting until its last block is gone".to_owned());
    }
    if waits && !gateway.line.has_agent(&installation.pool) {
        let pool = gateway.directory.pool(&installation.pool);
        let pool = pool.map_or_else(|| installation.pool.clone(), |pool| pool.name);
        text = Some(format!("Waiting for an agent of the pool {pool}"));
    }
    Ok((status, text))
}

async fn object(gateway: &Gateway, it: &Installation) -> Result<Value, ApiError> {
    let component = gateway.store.component(&it.id).await?;
    let Some(component) = component else {
        return Err(ApiError::not_found(format!("app installation {}", it.id)));
    };
    let (status, text) = status(gateway, it, &component).await?;
    let sensitive = gateway.engine.sensitive(&component).await?;
    Ok(json!({
        "id": it.id,
        "project": it.project,
        "name": it.name,
        "version": it.version,
        "pool": it.pool,
        "status": status,
        "status_text": text,
        "config": sensitive.sources(it.config.clone()),
        "signals": sensitive.signals(component.signals),
        "prompts": gateway.store.prompts(&it.id).await?,
        "url": gateway.engine.app_url(&it.id),
        "instructions": gateway.engine.instructions(it).await?,
        "created_ms": it.created_ms,
    }))
}

/// Fields with their JavaScript sources, or null.
pub fn config(given: Option<Json>, field: &str) -> Result<ConfigChange, ApiError> {
    let wrong = || {
        ApiError::bad(format!(
            "`{field}` is not an object of JavaScript sources: {{\"field\": \"\\\"text\\\"\"}}"
        ))
    };
    let mut config = BTreeMap::new();
    match given {
        None => {}
        Some(Json::Object(entries)) => {
            for (key, value) in entries {
                let source = match value {
                    Json::Null => None,
                    Json::Text(source) => Some(source),
                    _ => return Err(wrong()),
                };
                config.insert(key, source);
            }
        }
        Some(_) => return Err(wrong()),
    }
    Ok(config)
}
