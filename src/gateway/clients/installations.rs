//! App installations, as the provider makes them: created as a draft,
//! configured, confirmed, polled until they are ready.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::apps::find_version;
use crate::gateway::api::installations::{config, find, status as status_of};
use crate::gateway::api::request::pool_of;
use crate::gateway::auth::Caller;
use crate::gateway::clients::done;
use crate::gateway::engine::component::Status;
use crate::gateway::engine::run::Install;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, Json, name};
use crate::store::apps::Version;
use crate::store::engine::installations::Installation;

/// The longest color or address of an icon, in bytes; small icons come as `data:` addresses.
const STYLE_BYTES_MAX: usize = 16 * 1024;

/// `{projectId, name, app: {versionId, custom}, styleOverride?}`.
pub async fn create(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let project = fields.required_text("projectId")?;
    caller.existing_project(gateway, "projectId", &project)?;
    let name = name(&fields.required_text("name")?)?;
    let version = app(gateway, caller, &mut fields).await?;
    let install = Install {
        pool: pool_of(gateway, None, &project)?,
        project,
        name,
        version,
        config: std::collections::BTreeMap::new(),
        style: style(&mut fields, "styleOverride")?,
        confirm: false,
    };
    let id = gateway.engine.install(install).await?;
    let installation = find(gateway, caller, &id).await?;
    let draft = life(gateway, &installation).await? == Status::Draft;
    Ok(Reply::data(&json!({"id": id, "draft": draft})))
}

/// `{id}`.
pub async fn get(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    let version = gateway.version(&it.version).await?;
    let custom = version.is_none_or(|version| version.registry.is_none());
    Ok(Reply::data(&json!({
        "name": it.name,
        "status": life(gateway, &it).await?,
        "app": {"versionId": it.version, "custom": custom},
        "styleOverride": it.style,
        "configFields": it.config,
    })))
}

/// `{id}`.
pub async fn status(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    let status = life(gateway, &it).await?;
    Ok(Reply::data(&json!({"status": status})))
}

/// `{id, key}`.
pub async fn config_field(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    let key = fields.required_text("key")?;
    Ok(Reply::data(&json!({"value": it.config.get(&key)})))
}

/// `{id, configFields: {key: JavaScript source or null}}`; null takes a field away.
pub async fn configure(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    let change = config(fields.take("configFields"), "configFields")?;
    gateway.engine.configure(it.id.clone(), change).await?;
    draft(gateway, caller, &it.id).await
}

/// `{id, name, styleOverride}`.
pub async fn restyle(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    let name = name(&fields.required_text("name")?)?;
    let style = style(&mut fields, "styleOverride")?;
    gateway.engine.restyle(it.id.clone(), name, style).await?;
    draft(gateway, caller, &it.id).await
}

/// `{id, app: {versionId, custom}}`.
pub async fn upgrade(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    let version = app(gateway, caller, &mut fields).await?;
    gateway.engine.upgrade(it.id.clone(), version).await?;
    draft(gateway, caller, &it.id).await
}

/// `{id}`.
pub async fn confirm(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    gateway.engine.confirm_installation(it.id).await?;
    Ok(done())
}

/// `{id}`: drains and removes it; until it is gone its status says so.
pub async fn delete(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, &fields.required_text("id")?).await?;
    gateway.engine.uninstall(it.id).await?;
    Ok(done())
}

/// `{color, iconUrl}`, as it came.
pub fn style(fields: &mut Fields, field: &str) -> Result<Option<Value>, ApiError> {
    let Some(given) = fields.object(field)? else {
        return Ok(None);
    };
    let text = |key: &str| match given.get(key) {
        None | Some(Json::Null) => Ok(""),
        Some(Json::Text(text)) if text.len() <= STYLE_BYTES_MAX => Ok(text.as_str()),
        Some(_) => Err(ApiError::bad(format!(
            "`{field}.{key}` is not a text of at most {STYLE_BYTES_MAX} bytes"
        ))),
    };
    let (icon, color) = (text("iconUrl")?, text("color")?);
    Ok(Some(json!({"iconUrl": icon, "color": color})))
}

/// The version to install: `app: {versionId, custom}`.
async fn app(gateway: &Gateway, caller: &Caller, fields: &mut Fields) -> Result<Version, ApiError> {
    let app = fields
        .object("app")?
        .ok_or_else(|| ApiError::bad("`app` is missing: {\"versionId\": …, \"custom\": …}"))?;
    let id = app.get("versionId").and_then(Json::as_str);
    let id = id.ok_or_else(|| ApiError::bad("`app.versionId` is missing"))?;
    let version = find_version(gateway, caller, id).await;
    let version = version.map_err(|error| match error.status {
        // It is what the request names, not what it is about.
        404 => ApiError::bad(format!("app version {id} does not exist")),
        _ => error,
    })?;
    // A client that is told another value than it said finds a difference for ever.
    let custom = app.get("custom") == Some(&Json::Bool(true));
    if custom != version.registry.is_none() {
        let (whose, said) = match custom {
            true => ("an app from a registry", "false"),
            false => ("a custom app", "true"),
        };
        return Err(ApiError::bad(format!(
            "app version {id} is one of {whose}, so `custom` is {said} for it"
        )));
    }
    Ok(version)
}

async fn draft(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let it = find(gateway, caller, id).await?;
    let draft = life(gateway, &it).await? == Status::Draft;
    Ok(Reply::data(&json!({"draft": draft})))
}

async fn life(gateway: &Gateway, it: &Installation) -> Result<Status, ApiError> {
    let component = gateway.store.component(&it.id).await?;
    let component =
        component.ok_or_else(|| ApiError::not_found(format!("app installation {}", it.id)))?;
    Ok(status_of(gateway, it, &component).await?.0)
}
