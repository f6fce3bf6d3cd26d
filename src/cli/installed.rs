//! Getting an app installed: the app, its version, its installation, and
//! waiting until that is ready. What `app install`, `installation` and
//! `flow run` have in common.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure, object, query, segment};
use crate::cli::app::Bundle;
use crate::cli::print;

/// How often it is looked at whether something is ready.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// What an installation should be.
pub struct Wanted<'a> {
    pub project: &'a str,
    pub name: &'a str,
    /// Id of the app version.
    pub version: &'a str,
    /// Id of the pool; without it the default pool.
    pub pool: Option<&'a str>,
    /// Field to JavaScript source.
    pub config: &'a BTreeMap<String, String>,
}

/// `field=source`, as a person types it.
pub fn parse_field(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, source)) if !field.is_empty() => Ok((field.to_owned(), source.to_owned())),
        _ => Err("write FIELD=JAVASCRIPT, for example greeting='\"Hello\"'".to_owned()),
    }
}

/// The app of this name in the project, made if there is none.
pub async fn app(admin: &Admin, project: &str, name: &str) -> Result<String, Failure> {
    let apps = admin.get("/api/v1/apps").await?;
    let known = apps.as_array().into_iter().flatten();
    let known = known
        .filter(|app| app["project"] == project)
        .find(|app| app["name"] == name || app["id"] == name);
    if let Some(app) = known {
        return Ok(print::text(&app["id"]));
    }
    let body = json!({"project": project, "name": name});
    let app = admin.post("/api/v1/apps", &body).await?;
    Ok(print::text(&app["id"]))
}

/// A version of an app by its name or id; without a name the newest.
pub async fn version(
    admin: &Admin,
    app: &str,
    name: Option<&str>,
) -> Result<Option<Value>, Failure> {
    let path = format!("/api/v1/apps/{}/versions", segment(app));
    let mut versions = admin.get(&path).await?;
    let versions = versions.as_array_mut().map(std::mem::take);
    let mut versions = versions.unwrap_or_default().into_iter();
    Ok(versions.find(|version| {
        name.is_none_or(|name| version["version"] == name || version["id"] == name)
    }))
}

/// A version that one of the followed registries lists, fetched from it.
///
/// # Errors
///
/// What the last registry that lists the app said, if none gave it.
pub async fn from_registry(
    admin: &Admin,
    app: &str,
    version: Option<&str>,
) -> Result<Option<Value>, Failure> {
    // What a key without the scope does not see is not there for it.
    let (200, registries) = admin.answer("GET", "/api/v1/registries", None).await? else {
        return Ok(None);
    };
    let body = object(&[
        ("app", Some(json!(app))),
        ("version", version.map(|version| json!(version))),
    ]);
    let mut refused = None;
    for registry in registries.as_array().into_iter().flatten() {
        let id = segment(registry["id"].as_str().unwrap_or_default());
        let path = format!("/api/v1/registries/{id}/install");
        match admin.answer("POST", &path, Some(&body)).await? {
            (0..=399, version) => return Ok(Some(version)),
            (404, _) => {}
            (_, sentence) => refused = Some(print::text(&sentence)),
        }
    }
    match refused {
        Some(sentence) => Err(anyhow::anyhow!(sentence).into()),
        None => Ok(None),
    }
}

/// Publishes a bundle as a version.
pub async fn upload(
    admin: &Admin,
    app: &str,
    version: &str,
    bundle: &Bundle,
) -> Result<Value, Failure> {
    let body = object(&[
        ("version", Some(json!(version))),
        ("code", Some(json!(bundle.code))),
        ("ui_code", bundle.ui_code.as_ref().map(|code| json!(code))),
    ]);
    let path = format!("/api/v1/apps/{}/versions", segment(app));
    admin.post(&path, &body).await
}

/// The version with this very code, published if it is not there yet.
pub async fn publish(admin: &Admin, app: &str, bundle: &Bundle) -> Result<Value, Failure> {
    let name = bundle.version();
    match version(admin, app, Some(&name)).await? {
        Some(version) => Ok(version),
        None => upload(admin, app, &name, bundle).await,
    }
}

/// A new installation, confirmed or a draft.
pub async fn create(
    admin: &Admin,
    wanted: &Wanted<'_>,
    is_confirmed: bool,
) -> Result<Value, Failure> {
    let body = object(&[
        ("project", Some(json!(wanted.project))),
        ("name", Some(json!(wanted.name))),
        ("version", Some(json!(wanted.version))),
        ("pool", wanted.pool.map(|pool| json!(pool))),
        ("config", Some(json!(wanted.config))),
        ("confirm", Some(json!(is_confirmed))),
    ]);
    admin.post("/api/v1/installations", &body).await
}

/// The installation of this name, made, or brought to the version and config.
pub async fn install(admin: &Admin, wanted: &Wanted<'_>) -> Result<String, Failure> {
    let path = query(&[("project", Some(wanted.project.to_owned()))]);
    let known = admin.get(&format!("/api/v1/installations{path}")).await?;
    let mut known = known.as_array().into_iter().flatten();
    let Some(known) = known.find(|known| known["name"] == wanted.name) else {
        let made = create(admin, wanted, true).await?;
        return Ok(print::text(&made["id"]));
    };
    let id = print::text(&known["id"]);
    if wanted.pool.is_some_and(|pool| known["pool"] != pool) {
        return Err(Failure::Usage(format!(
            "the app installation `{}` is on another pool: delete it first, or name the new one otherwise",
            wanted.name
        )));
    }
    if known["version"] != wanted.version {
        let path = format!("/api/v1/installations/{id}/version");
        admin
            .post(&path, &json!({"version": wanted.version}))
            .await?;
    }
    configure(admin, known, wanted.config).await?;
    if known["status"] == "draft" {
        confirm(admin, "installations", &id).await?;
    }
    Ok(id)
}

/// Changes those fields of an installation's config that are otherwise.
pub async fn configure(
    admin: &Admin,
    known: &Value,
    config: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let mut fields = config.iter();
    if fields.all(|(field, source)| known["config"][field] == source.as_str()) {
        return Ok(());
    }
    let id = segment(known["id"].as_str().unwrap_or_default());
    let path = format!("/api/v1/installations/{id}/config");
    admin
        .call("PATCH", &path, Some(&json!({"config": config})))
        .await?;
    Ok(())
}

/// Confirms a draft of an installation or a block; `noun` is that of the path.
pub async fn confirm(admin: &Admin, noun: &str, id: &str) -> Result<Value, Failure> {
    let path = format!("/api/v1/{noun}/{}/confirm", segment(id));
    admin.post(&path, &json!({})).await
}

/// Waits until an installation is ready. `say` hears of each new status.
///
/// # Errors
///
/// It failed, or is not ready in time; the sentence says what it says itself.
pub async fn ready(
    admin: &Admin,
    id: &str,
    until: Instant,
    mut say: impl FnMut(&str, &str),
) -> Result<Value, Failure> {
    let path = format!("/api/v1/installations/{}", segment(id));
    let mut last = String::new();
    loop {
        let it = admin.get(&path).await?;
        let (name, status) = (print::text(&it["name"]), print::text(&it["status"]));
        let text = print::harmless(it["status_text"].as_str().unwrap_or_default());
        let now = sentence(&status, &text);
        if now != last {
            say(&name, &now);
            last = now;
        }
        match status.as_str() {
            "ready" => return Ok(it),
            "failed" | "drifted" | "draining" | "drained" | "draining_failed" => {
                return Err(anyhow::anyhow!("the app installation `{name}` is {last}").into());
            }
            _ if Instant::now() > until => {
                return Err(anyhow::anyhow!(
                    "the app installation `{name}` is not ready in time; it is {last}"
                )
                .into());
            }
            _ => async_std::task::sleep(LOOK_EVERY).await,
        }
    }
}

/// A status with what is said about it.
pub fn sentence(status: &str, text: &str) -> String {
    let status = status.replace('_', " ");
    if text.is_empty() {
        status
    } else {
        format!("{status}: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_name_and_a_source() {
        let expected = Ok(("url".to_owned(), "\"a=b\"".to_owned()));
        assert_eq!(parse_field("url=\"a=b\""), expected);
        assert!(parse_field("=1").is_err());
        assert!(parse_field("url").is_err());
    }

    #[test]
    fn a_status_is_said_in_words() {
        assert_eq!(sentence("in_progress", "waits"), "in progress: waits");
        assert_eq!(sentence("ready", ""), "ready");
    }
}
