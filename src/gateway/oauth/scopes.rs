//! What an access token is good for: a set of scopes, each a part of the API.
//! Pure: a request in, yes or the reason out.

use std::collections::BTreeSet;

/// The parts that a login can be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Api,
    AppsAdmin,
    AppsView,
    FlowsEdit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

/// What a request needs.
enum Need {
    Any,
    All(&'static [Scope]),
    /// One of the two scopes of apps.
    SeeApps,
    SeeAppsByApi,
    /// Nothing that a login has.
    Key,
}

// === impl Scope ===

impl Scope {
    pub const ALL: [Self; 4] = [Self::Api, Self::AppsAdmin, Self::AppsView, Self::FlowsEdit];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::AppsAdmin => "apps:admin",
            Self::AppsView => "apps:view",
            Self::FlowsEdit => "flows:edit",
        }
    }

    /// For the person who is asked.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Api => "read projects, pools, flows, jobs and their logs",
            Self::AppsAdmin => "make apps and publish versions of them",
            Self::AppsView => "read apps and their versions",
            Self::FlowsEdit => "change and run flows and app installations, and write secrets",
        }
    }
}

// === impl Scopes ===

impl Scopes {
    /// Words with spaces between; nothing at all asks for everything.
    ///
    /// # Errors
    ///
    /// The word that is no scope.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scopes = BTreeSet::new();
        for word in text.split_ascii_whitespace() {
            let known = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            scopes.insert(known.ok_or_else(|| word.to_owned())?);
        }
        if scopes.is_empty() {
            scopes.extend(Scope::ALL);
        }
        Ok(Self(scopes))
    }

    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        self.0.iter().copied()
    }

    pub fn to_text(&self) -> String {
        let words: Vec<_> = self.iter().map(Scope::as_str).collect();
        words.join(" ")
    }

    /// # Errors
    ///
    /// Why the request needs more, in one sentence.
    pub fn allow(&self, method: &str, path: &[&str]) -> Result<(), String> {
        let lacks = |scope: Scope| {
            Err(format!(
                "this access token lacks the scope `{}`",
                scope.as_str()
            ))
        };
        let all = |scopes: &[Scope]| match scopes.iter().find(|scope| !self.0.contains(scope)) {
            Some(scope) => lacks(*scope),
            None => Ok(()),
        };
        let sees_apps = self.0.contains(&Scope::AppsView) || self.0.contains(&Scope::AppsAdmin);
        match need(method, path) {
            Need::Any => Ok(()),
            Need::All(scopes) => all(scopes),
            Need::SeeApps if sees_apps => Ok(()),
            Need::SeeAppsByApi if sees_apps => all(&[Scope::Api]),
            Need::SeeApps | Need::SeeAppsByApi => lacks(Scope::AppsView),
            Need::Key => {
                Err("this needs an API key; a login's access token is not enough".to_owned())
            }
        }
    }
}

/// What is not named here needs a key: a new route is closed to logins until
/// somebody has thought about it.
fn need(method: &str, path: &[&str]) -> Need {
    let reads = method == "GET";
    match path {
        ["cli", "projects"] => Need::Any,
        ["cli", "apps", "list_apps" | "list_versions" | "get_version"] => Need::SeeApps,
        [
            "cli",
            "apps",
            "create_app" | "create_version" | "update_version",
        ] => Need::All(&[Scope::AppsAdmin]),
        ["api", "v1", "apps" | "versions", ..] if reads => Need::SeeAppsByApi,
        ["api", "v1", "apps" | "versions", ..] => Need::All(&[Scope::Api, Scope::AppsAdmin]),
        ["api", "v1", "projects"] | ["api", "v1", "pools", ..] if reads => Need::All(&[Scope::Api]),
        [
            "api",
            "v1",
            "flows" | "installations" | "blocks" | "events" | "deliveries" | "jobs",
            ..,
        ]
        | ["api", "v1", "projects", _, "secrets", ..] => match reads {
            true => Need::All(&[Scope::Api]),
            false => Need::All(&[Scope::Api, Scope::FlowsEdit]),
        },
        _ => Need::Key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(scopes: &str, method: &str, path: &str) -> bool {
        let path: Vec<_> = path.split('/').collect();
        let scopes = Scopes::parse(scopes).expect("scopes");
        scopes.allow(method, &path).is_ok()
    }

    #[test]
    fn a_scope_opens_its_part_and_nothing_else() {
        for (scopes, method, path, wanted) in [
            ("apps:view", "POST", "cli/projects", true),
            ("apps:view", "POST", "cli/apps/list_apps", true),
            ("apps:admin", "POST", "cli/apps/list_apps", true),
            ("api flows:edit", "POST", "cli/apps/list_apps", false),
            ("apps:view api", "POST", "cli/apps/create_app", false),
            ("apps:admin", "POST", "cli/apps/update_version", true),
            ("api", "GET", "api/v1/flows/x/events", true),
            ("flows:edit", "GET", "api/v1/flows", false),
            ("api", "POST", "api/v1/flows", false),
            ("api flows:edit", "POST", "api/v1/flows", true),
            ("api flows:edit", "PUT", "api/v1/projects/p/secrets/k", true),
            ("api", "GET", "api/v1/apps", false),
            ("api apps:view", "GET", "api/v1/apps", true),
            ("api apps:view", "POST", "api/v1/apps/a/versions", false),
            ("api apps:admin", "POST", "api/v1/apps/a/versions", true),
            // Nothing that outlives the login or concerns the organization.
            ("", "GET", "api/v1/keys", false),
            ("", "POST", "api/v1/keys", false),
            ("", "POST", "api/v1/projects", false),
            ("", "POST", "api/v1/pools/p/rotate", false),
            ("", "POST", "provider/flows/get", false),
            ("", "GET", "api/v1/something/new", false),
        ] {
            assert_eq!(
                allows(scopes, method, path),
                wanted,
                "{scopes}: {method} {path}"
            );
        }
    }

    #[test]
    fn scopes_are_read_and_written_as_words() {
        let scopes = Scopes::parse("flows:edit api  api").expect("scopes");
        assert_eq!(scopes.to_text(), "api flows:edit");
        assert_eq!(Scopes::parse("api root"), Err("root".to_owned()));
        let all = Scopes::parse("").expect("everything");
        assert_eq!(all.to_text(), "api apps:admin apps:view flows:edit");
    }
}
