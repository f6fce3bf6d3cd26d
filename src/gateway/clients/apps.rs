//! Custom apps and their versions, as the command line makes them: a version is
//! a draft until it is published.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::apps::{add_version, code_of, find, find_version, store_code};
use crate::gateway::auth::Caller;
use crate::gateway::clients::installations::style;
use crate::gateway::directory::new_id;
use crate::gateway::engine::run::VersionChange;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, Json, name};
use crate::store::apps::{App, Version};
use crate::telemetry::now_us;

/// The longest description of an app, in characters: a paragraph.
const DESCRIPTION_CHARS_MAX: usize = 2_000;

/// The one answer without an envelope.
pub fn projects(gateway: &Gateway, caller: &Caller) -> Reply {
    let projects = gateway.directory.projects();
    let projects = projects.iter().filter(|project| caller.sees(&project.id));
    let projects: Vec<Value> = projects
        .map(|project| json!({"id": project.id, "name": project.name}))
        .collect();
    let body = json!({"projects": projects}).to_string();
    Reply::bytes("application/json", body.into_bytes())
}

/// `{projectId}`.
pub async fn list(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let project = Fields::read(body)?.required_text("projectId")?;
    caller.existing_project(gateway, "projectId", &project)?;
    let apps = gateway.store.apps().await?;
    let apps = apps.iter().filter(|app| app.project == project);
    let apps: Vec<Value> = apps
        .map(|app| json!({"id": app.id, "name": app.name}))
        .collect();
    Ok(Reply::data(&json!({"apps": apps})))
}

/// `{name, description, projectId, blockStyle: {color, iconUrl}}`.
pub async fn create(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let project = fields.required_text("projectId")?;
    caller.existing_project(gateway, "projectId", &project)?;
    let description = fields.text("description")?;
    if description
        .as_ref()
        .is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX)
    {
        return Err(ApiError::bad(format!(
            "`description` has more than {DESCRIPTION_CHARS_MAX} characters"
        )));
    }
    let app = App {
        id: new_id(),
        project,
        name: name(&fields.required_text("name")?)?,
        description: description.filter(|text| !text.is_empty()),
        style: style(&mut fields, "blockStyle")?,
        origin: None,
        created_us: now_us(),
    };
    gateway.store.create_app(app.clone()).await?;
    Ok(Reply::data(
        &json!({"app": {"id": app.id, "name": app.name}}),
    ))
}

/// `{customAppId}`.
pub async fn versions(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let id = Fields::read(body)?.required_text("customAppId")?;
    let app = find(gateway, caller, &id).await?;
    let versions = gateway.store.versions(&app.id).await?;
    let versions: Vec<Value> = versions.iter().map(object).collect();
    Ok(Reply::data(&json!({"versions": versions})))
}

/// `{id}`.
pub async fn version(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let id = Fields::read(body)?.required_text("id")?;
    let version = find_version(gateway, caller, &id).await?;
    Ok(Reply::data(&json!({"appVersion": object(&version)})))
}

/// `{customAppId, version, code, uiCode}`.
pub async fn create_version(
    gateway: &Gateway,
    caller: &Caller,
    body: &[u8],
) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let app = fields.required_text("customAppId")?;
    let app = find(gateway, caller, &app).await?;
    let number = fields.required_text("version")?;
    let code = code_of(fields.required_text("code")?, ui_code(&mut fields)?)?;
    let version = add_version(gateway, app, number, code, true).await?;
    Ok(Reply::data(&json!({"appVersion": object(&version)})))
}

/// `{id, code, uiCode}` for a draft, or `{id, draft: false}` to publish it.
pub async fn update_version(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    body: &[u8],
) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let id = fields.required_text("id")?;
    let version = find_version(gateway, caller, &id).await?;
    let publish = match fields.take("draft") {
        None => false,
        Some(Json::Bool(draft)) if draft == version.draft => false,
        Some(Json::Bool(false)) => true,
        Some(Json::Bool(true)) => {
            let sentence = "a published version never becomes a draft again: make another version";
            return Err(ApiError::conflict(sentence));
        }
        Some(_) => return Err(ApiError::bad("`draft` is neither true nor false")),
    };
    let code = match fields.text("code")? {
        // Before anything is stored for it; the engine asks once more.
        Some(_) if !version.draft => {
            return Err(ApiError::conflict(format!(
                "app version {} is not a draft: a published version never changes, so make another one",
                version.version
            )));
        }
        Some(code) => Some(store_code(gateway, code_of(code, ui_code(&mut fields)?)?).await?),
        None => None,
    };
    let change = VersionChange { code, publish };
    gateway.engine.change_version(id.clone(), change).await?;
    let version = find_version(gateway, caller, &id).await?;
    Ok(Reply::data(&json!({"appVersion": object(&version)})))
}

/// An empty text is no code.
fn ui_code(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    Ok(fields.text("uiCode")?.filter(|text| !text.is_empty()))
}

fn object(version: &Version) -> Value {
    json!({"id": version.id, "version": version.version, "draft": version.draft})
}
