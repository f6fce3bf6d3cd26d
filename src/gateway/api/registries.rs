//! Registries: followed, asked, listed, installed from. They are the
//! organization's; what they list is for every project.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::apps::version_object;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, name};
use crate::gateway::semver::compare;
use crate::store::registries::{ListedApp, ListedVersion, Registry};

pub async fn list(gateway: &Gateway) -> Result<Reply, ApiError> {
    let all = gateway.store.registries().await?;
    Ok(Reply::data(&all.iter().map(object).collect::<Vec<_>>()))
}

/// `{name, url}`: follows it, if it can be asked.
pub async fn create(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    caller.admin()?;
    let mut fields = Fields::read(body)?;
    let name = name(&fields.required_text("name")?)?;
    let url = fields.required_text("url")?;
    fields.finish()?;
    let registry = gateway.registries.subscribe(name, &url).await?;
    Ok(Reply::created(&object(&registry)))
}

pub async fn get(gateway: &Gateway, id: &str) -> Result<Reply, ApiError> {
    Ok(Reply::data(&object(&gateway.registries.find(id).await?)))
}

pub async fn delete(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    caller.admin()?;
    let registry = gateway.registries.find(id).await?;
    gateway.store.delete_registry(registry.id).await?;
    Ok(Reply::data(&json!({})))
}

/// Asks it now.
pub async fn refresh(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    caller.admin()?;
    let registry = gateway.registries.find(id).await?;
    let registry = gateway.registries.refresh(registry).await?;
    Ok(Reply::data(&object(&registry)))
}

pub async fn apps(gateway: &Gateway, id: &str) -> Result<Reply, ApiError> {
    let registry = gateway.registries.find(id).await?;
    let apps = gateway.store.registry_apps(&registry.id).await?;
    Ok(Reply::data(
        &apps.iter().map(app_object).collect::<Vec<_>>(),
    ))
}

/// Versions of an app by its key, newest first.
pub async fn versions(gateway: &Gateway, id: &str, key: &str) -> Result<Reply, ApiError> {
    let registry = gateway.registries.find(id).await?;
    let apps = gateway.store.registry_apps(&registry.id).await?;
    if !apps.iter().any(|app| app.key == key) {
        return Err(ApiError::not_found(format!(
            "app `{key}` in registry `{}`",
            registry.name
        )));
    }
    let mut versions = gateway.store.registry_versions(&registry.id, key).await?;
    versions.sort_by(|one, other| compare(&other.version, &one.version));
    let mut shown = Vec::with_capacity(versions.len());
    let app = gateway.store.app_of_registry(&registry.id, key).await?;
    let ours = match app {
        Some(app) => gateway.store.versions(&app.id).await?,
        None => Vec::new(),
    };
    for it in &versions {
        let ours = ours.iter().find(|ours| ours.version == it.version);
        shown.push(listed_object(it, ours.map(|ours| ours.id.as_str())));
    }
    Ok(Reply::data(&shown))
}

/// `{app, version?}`: fetches a version, unless it is there; answers it.
pub async fn install(gateway: &Gateway, id: &str, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let app = fields.required_text("app")?;
    let version = fields.text("version")?;
    fields.finish()?;
    let registries = &gateway.registries;
    let installed = registries
        .resolve(Some(id), &app, version.as_deref())
        .await?;
    Ok(Reply::data(&version_object(&installed)))
}

fn object(it: &Registry) -> Value {
    json!({
        "id": it.id,
        "name": it.name,
        "url": it.url,
        "checked_ms": it.checked_ms,
        "error": it.error,
        "failures": it.failures,
        "next_ms": it.next_ms,
        "created_ms": it.created_ms,
    })
}

fn app_object(it: &ListedApp) -> Value {
    json!({
        "key": it.key,
        "name": it.name,
        "description": it.description,
        "style": it.style,
        "error": it.error,
    })
}

fn listed_object(it: &ListedVersion, id: Option<&str>) -> Value {
    let state = match &it.listed {
        None => "gone",
        Some(listed) if *listed != it.checksum => "changed",
        Some(_) => "listed",
    };
    json!({
        "version": it.version,
        "state": state,
        "checksum": it.checksum,
        "listed_checksum": it.listed,
        "url": it.url,
        "seen_ms": it.seen_ms,
        "id": id,
    })
}
