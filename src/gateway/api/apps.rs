//! Apps and their versions: code that never changes once it is published.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::bundles::Stored;
use crate::gateway::bundles::archive::{ARCHIVE_BYTES_MAX, CODE_BYTES_MAX, Code, unpack};
use crate::gateway::directory::new_id;
use crate::gateway::error::ApiError;
use crate::gateway::http::body::Body;
use crate::gateway::http::{Head, Reply};
use crate::gateway::json::{Fields, name};
use crate::gateway::semver::is_version;
use crate::shutdown::unblock;
use crate::store::apps::{App, Version};
use crate::telemetry::now_us;

pub async fn list(gateway: &Gateway, caller: &Caller) -> Result<Reply, ApiError> {
    let apps: Vec<Value> = gateway
        .store
        .apps()
        .await?
        .iter()
        .filter(|app| app.origin.is_some() || caller.sees(&app.project))
        .map(app_object)
        .collect();
    Ok(Reply::data(&apps))
}

pub async fn create(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let project = fields.required_text("project")?;
    let name = name(&fields.required_text("name")?)?;
    fields.finish()?;
    caller.existing_project(gateway, "project", &project)?;
    let app = App {
        id: new_id(),
        project,
        name,
        description: None,
        style: None,
        origin: None,
        created_us: now_us(),
    };
    gateway.store.create_app(app.clone()).await?;
    Ok(Reply::created(&app_object(&app)))
}

pub async fn versions(gateway: &Gateway, caller: &Caller, app: &str) -> Result<Reply, ApiError> {
    find(gateway, caller, app).await?;
    let versions: Vec<Value> = gateway
        .store
        .versions(app)
        .await?
        .iter()
        .map(version_object)
        .collect();
    Ok(Reply::data(&versions))
}

pub async fn version(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let version = find_version(gateway, caller, id).await?;
    Ok(Reply::data(&version_object(&version)))
}

pub async fn find_version(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
) -> Result<Version, ApiError> {
    let version = gateway
        .version(id)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("app version {id}")))?;
    caller.version(&version)?;
    Ok(version)
}

/// Publishes a version: JSON with the code as text, or a gzip tar archive.
pub async fn publish(
    gateway: &Gateway,
    caller: &Caller,
    head: &Head,
    app: &str,
    body: Body,
) -> Result<Reply, ApiError> {
    let app = find(gateway, caller, app).await?;
    const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
    let is_archive = body.starts_with(&GZIP_MAGIC) || head.content_type.contains("gzip");
    let (number, code) = if is_archive {
        let number = head.query("version").ok_or_else(|| {
            ApiError::bad("an archive needs its version in the query: ?version=1.2.3")
        })?;
        (number.to_owned(), from_archive(body).await?)
    } else {
        from_json(&body)?
    };
    let version = add_version(gateway, app, number, code, false).await?;
    Ok(Reply::created(&version_object(&version)))
}

/// Makes a version of an app.
pub async fn add_version(
    gateway: &Gateway,
    app: App,
    number: String,
    code: Code,
    draft: bool,
) -> Result<Version, ApiError> {
    if app.origin.is_some() {
        return Err(ApiError::conflict(
            "this app comes from a registry, and its versions are published there",
        ));
    }
    if !is_version(&number) {
        return Err(ApiError::bad(
            "`version` is not a semantic version such as 1.2.3 or 1.2.3-beta.1",
        ));
    }
    let stored = store_code(gateway, code).await?;
    let version = Version {
        id: new_id(),
        app: app.id,
        project: app.project,
        registry: None,
        version: number,
        digest: stored.digest,
        code_bytes: stored.code_bytes,
        ui_digest: stored.ui_digest,
        draft,
        created_us: now_us(),
    };
    gateway.store.create_version(version.clone()).await?;
    Ok(version)
}

/// Stores code beside the store; nothing is a version of it yet.
pub async fn store_code(gateway: &Gateway, code: Code) -> Result<Stored, ApiError> {
    if code.code.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad("`code` is empty"));
    }
    gateway.disk.check()?;
    Ok(gateway.bundles.put_code(code).await?)
}

async fn from_archive(body: Body) -> Result<Code, ApiError> {
    if body.len() > ARCHIVE_BYTES_MAX {
        return Err(ApiError::new(
            413,
            format!("the archive has more than {ARCHIVE_BYTES_MAX} bytes"),
        ));
    }
    unblock(move || unpack(&body)).await.map_err(ApiError::bad)
}

fn from_json(body: &[u8]) -> Result<(String, Code), ApiError> {
    let mut fields = Fields::read(body)?;
    let version = fields.required_text("version")?;
    let code = fields.required_text("code")?;
    let ui = fields.text("ui_code")?;
    fields.finish()?;
    Ok((version, code_of(code, ui)?))
}

/// Code that came as text.
pub fn code_of(code: String, ui: Option<String>) -> Result<Code, ApiError> {
    for (name, text) in [("code", Some(&code)), ("ui code", ui.as_ref())] {
        if text.is_some_and(|text| text.len() > CODE_BYTES_MAX) {
            let sentence = format!("the {name} has more than {CODE_BYTES_MAX} bytes");
            return Err(ApiError::new(413, sentence));
        }
    }
    Ok(Code {
        code: code.into_bytes(),
        ui: ui.map(String::into_bytes),
    })
}

pub async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<App, ApiError> {
    let app = gateway
        .store
        .app(id)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("app {id}")))?;
    if app.origin.is_none() {
        caller.project(&app.project)?;
    }
    Ok(app)
}

fn app_object(app: &App) -> Value {
    let project = app.origin.is_none().then_some(&app.project);
    json!({
        "id": app.id,
        "project": project,
        "name": app.name,
        "registry": app.origin.as_ref().map(|origin| &origin.registry),
        "created_us": app.created_us,
    })
}

pub fn version_object(version: &Version) -> Value {
    json!({
        "id": version.id,
        "app": version.app,
        "version": version.version,
        "digest": version.digest,
        "code_bytes": version.code_bytes,
        "ui_digest": version.ui_digest,
        "draft": version.draft,
        "created_us": version.created_us,
    })
}
