//! Which version a name means: of the custom apps that the caller sees.

use std::cmp::Ordering;

use serde_json::json;

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::Fields;
use crate::store::apps::Version;

/// `{registry?, name, version?}`; without a version the newest one.
pub async fn get_id(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let registry = fields.text("registry")?.filter(|text| !text.is_empty());
    let name = fields.required_text("name")?;
    let number = fields.text("version")?.filter(|text| !text.is_empty());
    if let Some(registry) = registry {
        return Err(ApiError::not_found(format!("registry `{registry}`")));
    }
    let version = of_custom_app(gateway, caller, &name, number.as_deref()).await?;
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
        .filter(|app| app.name == name && caller.sees(&app.project))
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
    let is_stable = |version: &Version| parts(&version.version).1.is_none();
    versions.max_by(|a, b| {
        is_stable(a)
            .cmp(&is_stable(b))
            .then_with(|| precedence(&a.version, &b.version))
    })
}

/// Semantic versioning 2.0.0, section 11. Both are versions already.
fn precedence(a: &str, b: &str) -> Ordering {
    let ((core_a, pre_a), (core_b, pre_b)) = (parts(a), parts(b));
    let cores = core_a
        .split('.')
        .map(number)
        .cmp(core_b.split('.').map(number));
    cores.then_with(|| match (pre_a, pre_b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.split('.').map(word).cmp(b.split('.').map(word)),
    })
}

/// Core and pre-release.
fn parts(version: &str) -> (&str, Option<&str>) {
    let version = version.split('+').next().unwrap_or_default();
    match version.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (version, None),
    }
}

/// Numbers have no leading zeros, so the longer one is the greater.
fn number(text: &str) -> (usize, &str) {
    (text.len(), text)
}

/// Numbers come before words.
fn word(text: &str) -> (bool, usize, &str) {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    (!is_number, if is_number { text.len() } else { 0 }, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_semantic_versioning_says() {
        let ordered = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2.0",
            "1.10.0",
            "2.0.0",
            "99999999999999999999.0.0",
        ];
        for (index, a) in ordered.iter().enumerate() {
            for (other, b) in ordered.iter().enumerate() {
                assert_eq!(precedence(a, b), index.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(precedence("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }
}
