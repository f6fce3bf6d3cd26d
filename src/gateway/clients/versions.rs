//! Which version a name means: of the custom apps that the caller sees, or in
//! the registries that are followed.

use serde_json::json;

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::Fields;
use crate::gateway::semver::{compare, is_prerelease};
use crate::store::apps::Version;

/// `{registry?, name, version?}`; without a version the newest one.
pub async fn get_id(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let registry = fields.text("registry")?.filter(|text| !text.is_empty());
    let name = fields.required_text("name")?;
    let number = fields.text("version")?.filter(|text| !text.is_empty());
    let number = number.as_deref();
    let version = match registry {
        Some(registry) => {
            let registries = &gateway.registries;
            registries.resolve(Some(&registry), &name, number).await?
        }
        None => match of_custom_app(gateway, caller, &name, number).await {
            // Registries are asked only if there are any, so that the sentence fits.
            Err(error) if error.status == 404 && gateway.registries.are_there().await? => {
                gateway.registries.resolve(None, &name, number).await?
            }
            other => other?,
        },
    };
    Ok(Reply::data(&json!({"id": version.id})))
}

async fn of_custom_app(
    gateway: &Gateway,
    caller: &Caller,
    name: &str,
    number: Option<&str>,
) -> Result<Version, ApiError> {
    let apps = gateway.store.apps().await?;
    let mut found = Vec::new();
    for app in apps
        .iter()
        .filter(|app| app.origin.is_none() && app.name == name && caller.sees(&app.project))
    {
        let versions = gateway.store.versions(&app.id).await?;
        let fitting = versions.into_iter().filter(|version| {
            !version.draft && number.is_none_or(|number| number == version.version)
        });
        found.extend(newest(fitting));
    }
    match (found.len(), number) {
        (0, None) => Err(ApiError::not_found(format!(
            "published version of app `{name}`"
        ))),
        (0, Some(number)) => Err(ApiError::not_found(format!(
            "published version {number} of app `{name}`"
        ))),
        (1, _) => Ok(found.swap_remove(0)),
        (apps, _) => Err(ApiError::conflict(format!(
            "{apps} custom apps are called `{name}`: use a key of one project, or name the version by its id"
        ))),
    }
}

/// The highest by the rules of semantic versioning; one with a pre-release only
/// where there is nothing else.
fn newest(versions: impl Iterator<Item = Version>) -> Option<Version> {
    let is_stable = |version: &Version| !is_prerelease(&version.version);
    versions.max_by(|a, b| {
        is_stable(a)
            .cmp(&is_stable(b))
            .then_with(|| compare(&a.version, &b.version))
    })
}
