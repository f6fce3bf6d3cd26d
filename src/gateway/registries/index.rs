//! What a registry says: `registry.json` and `versions.json`, read without trust.
//! Pure: bytes in, values or one sentence out.
//!
//! Whoever writes a registry decides where the gateway connects to next, so
//! every address is looked at: by https, or at the registry's own place.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use url::{Host, Url};

use crate::gateway::semver::is_version;
use crate::store::registries::{ListedApp, ListedVersion};

/// Apps in one registry; published ones have some dozens.
pub const APPS_MAX: usize = 2_000;
/// Versions of one app.
pub const VERSIONS_MAX: usize = 2_000;
/// The longest key or name, in characters.
const NAME_CHARS_MAX: usize = 200;
/// What is kept of a description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 2_000;
/// The largest style that is kept, in bytes: an icon may stand in it.
const STYLE_BYTES_MAX: usize = 64 * 1024;
/// What a checksum begins with; 64 hex digits follow.
const CHECKSUM_PREFIX: &str = "sha256:";
const CHECKSUM_HEX_DIGITS: usize = 64;

#[derive(Deserialize)]
struct Index {
    apps: BTreeMap<String, App>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    name: Option<String>,
    description: Option<String>,
    block_style: Option<Value>,
    app_metadata_url: String,
}

#[derive(Deserialize)]
struct Metadata {
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: String,
    artifact_url: String,
    artifact_checksum: String,
}

/// Reads a `registry.json` that came from `registry`.
pub fn apps(registry: &Url, bytes: &[u8]) -> Result<Vec<ListedApp>, String> {
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is no registry.json ({{\"apps\": {{…}}}}): {error}"))?;
    if index.apps.len() > APPS_MAX {
        return Err(format!("it lists more than {APPS_MAX} apps"));
    }
    index
        .apps
        .into_iter()
        .map(|(key, app)| {
            let name = app.name.unwrap_or_else(|| key.clone());
            if [&key, &name].into_iter().any(|text| !is_name(text)) {
                return Err(
                    "it lists an app whose key or name is empty, too long or no text on one line"
                        .to_owned(),
                );
            }
            let url = address(registry, registry, &app.app_metadata_url)
                .map_err(|why| format!("`appMetadataUrl` of `{key}` {why}"))?;
            let description = app.description.map(|text| {
                let kept = text.chars().take(DESCRIPTION_CHARS_MAX);
                kept.collect()
            });
            let style = app
                .block_style
                .filter(|style| style.is_object() && style.to_string().len() <= STYLE_BYTES_MAX);
            Ok(ListedApp {
                key,
                name,
                description,
                style,
                metadata_url: url.into(),
                etag: None,
                error: None,
            })
        })
        .collect()
}

/// Reads a `versions.json` that came from `metadata`: what can be used, and
/// what is wrong with the first that cannot.
pub fn versions(
    registry: &Url,
    metadata: &Url,
    bytes: &[u8],
    now_ms: i64,
) -> Result<(Vec<ListedVersion>, Option<String>), String> {
    let listed: Metadata = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is no versions.json ({{\"versions\": […]}}): {error}"))?;
    if listed.versions.len() > VERSIONS_MAX {
        return Err(format!("it lists more than {VERSIONS_MAX} versions"));
    }
    let mut found: BTreeMap<String, ListedVersion> = BTreeMap::new();
    let mut wrong = None;
    for version in listed.versions {
        match self::version(registry, metadata, version, now_ms) {
            Ok(it) => {
                let twice = found.insert(it.version.clone(), it.clone());
                if twice.is_some_and(|other| other.checksum != it.checksum) {
                    let what = format!("version {} is listed with two checksums", it.version);
                    return Err(what);
                }
            }
            Err(why) => wrong = wrong.or(Some(why)),
        }
    }
    Ok((found.into_values().collect(), wrong))
}

fn version(
    registry: &Url,
    metadata: &Url,
    it: Version,
    now_ms: i64,
) -> Result<ListedVersion, String> {
    if !is_version(&it.version) {
        let shown: String = it.version.chars().take(NAME_CHARS_MAX).collect();
        return Err(format!("`{shown}` is no semantic version"));
    }
    let checksum = it.artifact_checksum.to_ascii_lowercase();
    let digits = checksum.strip_prefix(CHECKSUM_PREFIX);
    let good = |digits: &str| {
        digits.len() == CHECKSUM_HEX_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if !digits.is_some_and(good) {
        return Err(format!(
            "the checksum of version {} is not `{CHECKSUM_PREFIX}` and {CHECKSUM_HEX_DIGITS} hex digits",
            it.version
        ));
    }
    let url = address(registry, metadata, &it.artifact_url)
        .map_err(|why| format!("`artifactUrl` of version {} {why}", it.version))?;
    Ok(ListedVersion {
        version: it.version,
        url: url.into(),
        listed: Some(checksum.clone()),
        checksum,
        seen_ms: now_ms,
    })
}

/// The address of a registry, as a person gave it.
pub fn registry_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "`url` is no address".to_owned())?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err("`url` is neither an https:// nor an http:// address".to_owned());
    }
    if has_credentials(&url) {
        return Err("`url` has a user or a password in it, and it is shown to people".to_owned());
    }
    Ok(url)
}

/// Whether something that this registry names may be fetched from there.
pub fn permits(registry: &Url, url: &Url) -> Result<(), String> {
    if has_credentials(url) {
        return Err("has a user or a password in it".to_owned());
    }
    if url.origin() == registry.origin() {
        return Ok(());
    }
    if url.scheme() != "https" {
        return Err("is neither an https:// address nor at the registry's own place".to_owned());
    }
    let named = match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name != "localhost" && !name.ends_with(".localhost") && name.contains('.')
        }
        _ => false,
    };
    if named {
        return Ok(());
    }
    Err("leads to an address without a public name".to_owned())
}

fn address(registry: &Url, base: &Url, text: &str) -> Result<Url, String> {
    let url = base.join(text).map_err(|_| "is no address".to_owned())?;
    permits(registry, &url)?;
    Ok(url)
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty()
        && text.chars().count() <= NAME_CHARS_MAX
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("an address")
    }

    #[test]
    fn an_index_is_read_with_addresses_made_whole() {
        let registry = url("https://example.org/core/registry.json");
        let text = br##"{"apps": {"slack": {"name": "Slack", "description": "Chat",
            "blockStyle": {"color": "#fff"}, "appMetadataUrl": "apps/slack/versions.json", "more": 1},
            "b": {"appMetadataUrl": "https://cdn.example.com/b.json", "blockStyle": 7}}}"##;
        let apps = apps(&registry, text).expect("an index");
        assert_eq!(apps.len(), 2);
        assert_eq!((apps[0].name.as_str(), &apps[0].style), ("b", &None));
        assert_eq!(
            apps[1].metadata_url,
            "https://example.org/core/apps/slack/versions.json"
        );
        let text = format!(
            r#"{{"versions": [{{"version": "1.0.0", "artifactUrl": "v/1.tar.gz", "artifactChecksum": "SHA256:{}"}},
                {{"version": "one", "artifactUrl": "x", "artifactChecksum": "x"}}]}}"#,
            "AB".repeat(32)
        );
        let metadata = url(&apps[1].metadata_url);
        let (versions, wrong) =
            versions(&registry, &metadata, text.as_bytes(), 5).expect("versions");
        assert_eq!(versions.len(), 1);
        assert_eq!(
            versions[0].url,
            "https://example.org/core/apps/slack/v/1.tar.gz"
        );
        assert_eq!(versions[0].checksum, format!("sha256:{}", "ab".repeat(32)));
        assert!(wrong.expect("one is wrong").contains("`one`"));
    }

    #[test]
    fn an_address_that_leads_inside_is_refused() {
        let registry = url("https://example.org/registry.json");
        for bad in [
            "http://example.org/x",
            "https://169.254.169.254/latest",
            "https://localhost/x",
            "https://[::1]/x",
            "https://intranet/x",
            "https://user@example.com/x",
            "file:///etc/passwd",
        ] {
            permits(&registry, &url(bad)).expect_err(bad);
        }
        permits(&registry, &url("https://example.com/x")).expect("a public name");
        let inside = url("http://10.0.0.7:8080/registry.json");
        permits(&inside, &url("http://10.0.0.7:8080/a")).expect("its own place");
        permits(&inside, &url("http://10.0.0.8:8080/a")).expect_err("another's");
    }

    #[test]
    fn what_is_no_index_says_why() {
        let registry = url("https://example.org/registry.json");
        for (text, says) in [
            ("<html>", "no registry.json"),
            (r#"{"apps": {"": {"appMetadataUrl": "x"}}}"#, "key or name"),
            (
                r#"{"apps": {"a": {"appMetadataUrl": "http://x.y/"}}}"#,
                "`appMetadataUrl` of `a`",
            ),
        ] {
            let why = apps(&registry, text.as_bytes()).expect_err(text);
            assert!(why.contains(says), "{why}");
        }
        let two = format!(
            r#"{{"versions": [{{"version": "1.0.0", "artifactUrl": "x", "artifactChecksum": "sha256:{}"}},
                {{"version": "1.0.0", "artifactUrl": "x", "artifactChecksum": "sha256:{}"}}]}}"#,
            "aa".repeat(32),
            "bb".repeat(32)
        );
        let why = versions(&registry, &registry, two.as_bytes(), 1).expect_err("two");
        assert!(why.contains("two checksums"), "{why}");
    }
}
