//! Which version a name means: of the custom apps that the caller sees, or of
//! the registries that are followed.

use serde_json::json;

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::Fields;
use crate::gateway::semver::{compare, is_prerelease};
use crate::store::apps::Version;

/// `{registry?, name, version?}`; without a version the newest one. A registry is
/// named by its id, name or address; without one a custom app comes first.
pub async fn get_id(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let registry = fields.text("registry")?.filter(|text| !text.is_empty());
    let name = fields.required_text("name")?;
    let number = fields.text("version")?.filter(|text| !text.is_empty());
    let number = number.as_deref();
    let registries = &gateway.registries;
    let version = match registry {
        Some(registry) => registries.resolve(Some(&registry), &name, number).await?,
        None => match of_custom_app(gateway, caller, &name, number).await? {
            Some(version) => version,
            None => registries.resolve(None, &name, number).await?,
        },
    };
    Ok(Reply::data(&json!({"id": version.id})))
}

async fn of_custom_app(
    gateway: &Gateway,
    caller: &Caller,
    name: &str,
    number: Option<&str>,
) -> Result<Option<Version>, ApiError> {
    let apps = gateway.store.apps().await?;
    let mut found = Vec::new();
    for app in apps
        .iter()
        .filter(|app| app.name == name && app.origin.is_none() && caller.sees(&app.project))
    {
        let versions = gateway.store.versions(&app.id).await?;
        let fitting = versions.into_iter().filter(|version| {
            !version.draft && number.is_none_or(|number| number == version.version)
        });
        found.extend(newest(fitting));
    }
    if let [_, _, ..] = found.as_slice() {
        return Err(ApiError::conflict(format!(
            "{} custom apps are called `{name}`: use a key of one project, or name the version by its id",
            found.len()
        )));
    }
    Ok(found.pop())
}

/// The highest by the rules of semantic versioning; one with a pre-release only
/// where there is nothing else.
fn newest(versions: impl Iterator<Item = Version>) -> Option<Version> {
    versions.max_by(|one, other| {
        let releases = is_prerelease(&other.version).cmp(&is_prerelease(&one.version));
        releases.then_with(|| compare(&one.version, &other.version))
    })
}
