//! Which app and which version somebody means. Pure.

use crate::gateway::semver::{compare, is_prerelease};
use crate::store::registries::{ListedApp, ListedVersion};

/// The app of this key, or else of this name whatever its case.
pub fn app<'a>(apps: &'a [ListedApp], wanted: &str) -> Option<&'a ListedApp> {
    let same = |text: &str| text.to_lowercase() == wanted.to_lowercase();
    apps.iter()
        .find(|app| app.key == wanted)
        .or_else(|| apps.iter().find(|app| app.name == wanted))
        .or_else(|| apps.iter().find(|app| same(&app.name) || same(&app.key)))
}

/// The version of this number (a `v` before it is forgiven), or the newest
/// that is listed: a release if there is one, and none that was changed.
pub fn version<'a>(
    versions: &'a [ListedVersion],
    wanted: Option<&str>,
) -> Option<&'a ListedVersion> {
    if let Some(wanted) = wanted {
        let wanted = wanted.strip_prefix('v').unwrap_or(wanted);
        return versions
            .iter()
            .filter(|it| it.listed.is_some())
            .find(|it| it.version == wanted);
    }
    versions
        .iter()
        .filter(|it| it.listed.as_ref() == Some(&it.checksum))
        .max_by(|one, other| {
            let release = |it: &ListedVersion| !is_prerelease(&it.version);
            let by_release = release(one).cmp(&release(other));
            by_release.then_with(|| compare(&one.version, &other.version))
        })
}

/// The sentence about a version that is not what it was, if so.
pub fn changed(app: &str, it: &ListedVersion) -> Option<String> {
    let listed = it
        .listed
        .as_ref()
        .filter(|listed| **listed != it.checksum)?;
    Some(format!(
        "version {} of `{app}` had the checksum {} when it was first seen and is listed with {listed} now: \
         a published version never changes, so it is not installed",
        it.version, it.checksum
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_of(number: &str, listed: Option<&str>) -> ListedVersion {
        ListedVersion {
            version: number.to_owned(),
            url: "https://example.org/x".to_owned(),
            checksum: "sha256:a".to_owned(),
            listed: listed.map(str::to_owned),
            seen_ms: 1,
        }
    }

    #[test]
    fn the_newest_is_a_release_that_is_listed_and_unchanged() {
        let same = Some("sha256:a");
        let versions = [
            version_of("1.2.0", same),
            version_of("1.10.0", same),
            version_of("1.11.0", Some("sha256:b")),
            version_of("1.12.0", None),
            version_of("2.0.0-rc.1", same),
        ];
        let number = |wanted| version(&versions, wanted).map(|it| it.version.as_str());
        assert_eq!(number(None), Some("1.10.0"));
        assert_eq!(number(Some("v2.0.0-rc.1")), Some("2.0.0-rc.1"));
        assert_eq!(number(Some("1.12.0")), None, "it is no longer listed");
        assert_eq!(number(Some("1.11.0")), Some("1.11.0"));
        let sentence = changed("x", &versions[2]).expect("changed");
        assert!(sentence.contains("sha256:a") && sentence.contains("sha256:b"));
        assert_eq!(changed("x", &versions[0]), None);
        assert_eq!(
            version(&versions[4..], None).map(|it| it.version.as_str()),
            Some("2.0.0-rc.1"),
            "where there is nothing else"
        );
    }

    #[test]
    fn an_app_is_meant_by_its_key_or_its_name() {
        let listed = |key: &str, name: &str| ListedApp {
            key: key.to_owned(),
            name: name.to_owned(),
            description: None,
            style: None,
            metadata_url: String::new(),
            etag: None,
            error: None,
        };
        let apps = [
            listed("aws", "AWS"),
            listed("pg", "PostgreSQL"),
            listed("AWS", "other"),
        ];
        let key = |wanted| app(&apps, wanted).map(|app| app.key.as_str());
        assert_eq!(key("pg"), Some("pg"));
        assert_eq!(key("postgresql"), Some("pg"));
        assert_eq!(key("AWS"), Some("AWS"), "a key before a name");
        assert_eq!(key("mysql"), None);
    }
}
