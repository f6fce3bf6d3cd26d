//! Apps and their versions: code that never changes once it is published.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::bundles::{ARCHIVE_BYTES_MAX, CODE_BYTES_MAX, Code, unpack};
use crate::gateway::directory::new_id;
use crate::gateway::engine::run::VersionCode;
use crate::gateway::error::ApiError;
use crate::gateway::http::body::Body;
use crate::gateway::http::{Head, Reply};
use crate::gateway::json::{Fields, name};
use crate::shutdown::unblock;
use crate::store::apps::{App, Version};
use crate::telemetry::now_us;

/// The longest version, in characters.
const VERSION_CHARS_MAX: usize = 64;

pub async fn list(gateway: &Gateway, caller: &Caller) -> Result<Reply, ApiError> {
    let apps: Vec<Value> = gateway
        .store
        .apps()
        .await?
        .iter()
        .filter(|app| caller.sees(&app.project))
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
    caller.project(&version.project)?;
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
    check_version(&number)?;
    let code = store_code(gateway, code).await?;
    let version = Version {
        id: new_id(),
        app: app.id,
        project: app.project,
        version: number,
        digest: code.digest,
        code_bytes: code.code_bytes,
        ui_digest: code.ui_digest,
        draft,
        created_us: now_us(),
    };
    gateway.store.create_version(version.clone()).await?;
    Ok(version)
}

/// Stores code beside the store; nothing is a version of it yet.
pub async fn store_code(gateway: &Gateway, code: Code) -> Result<VersionCode, ApiError> {
    if code.code.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad("`code` is empty"));
    }
    gateway.disk.check()?;
    Ok(VersionCode {
        code_bytes: code.code.len() as u64,
        digest: gateway.bundles.put(code.code).await?,
        ui_digest: match code.ui {
            Some(ui) => Some(gateway.bundles.put(ui).await?),
            None => None,
        },
    })
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

/// Semantic versioning 2.0.0, as far as it can be written on one line.
fn check_version(text: &str) -> Result<(), ApiError> {
    let (rest, build) = text
        .split_once('+')
        .map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = rest
        .split_once('-')
        .map_or((rest, None), |(a, b)| (a, Some(b)));
    let numeric = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let pre_word =
        |part: &str| word(part) && (numeric(part) || !part.bytes().all(|b| b.is_ascii_digit()));
    let good = text.len() <= VERSION_CHARS_MAX
        && core.split('.').count() == 3
        && core.split('.').all(numeric)
        && pre.is_none_or(|pre| pre.split('.').all(pre_word))
        && build.is_none_or(|build| build.split('.').all(word));
    if good {
        return Ok(());
    }
    Err(ApiError::bad(
        "`version` is not a semantic version such as 1.2.3 or 1.2.3-beta.1",
    ))
}

pub async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<App, ApiError> {
    let app = gateway
        .store
        .app(id)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("app {id}")))?;
    caller.project(&app.project)?;
    Ok(app)
}

fn app_object(app: &App) -> Value {
    json!({"id": app.id, "project": app.project, "name": app.name, "created_us": app.created_us})
}

fn version_object(version: &Version) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_semantic_version() {
        for good in ["0.1.0", "1.2.3-beta.1", "1.0.0-x-y.7+build.01", "10.20.30"] {
            check_version(good).expect(good);
        }
        for bad in [
            "", "1", "1.2", "1.2.3.4", "01.2.3", "v1.2.3", "1.2.3-", "1.2.3-01", "1.2.x", "1.2.3 ",
        ] {
            check_version(bad).expect_err(bad);
        }
    }
}
