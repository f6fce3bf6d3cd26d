//! What an API key or a login's access token is good for: a set of scopes, each
//! a part of the API. Pure: a request in, yes or the reason out.
//!
//! A login has the first four at most. The last is a key's alone, and so is what
//! the provider speaks: nothing that outlives a login or concerns the
//! organization is done in its name.

use std::collections::BTreeSet;

/// The parts that a key or a login can be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Api,
    AppsAdmin,
    AppsView,
    FlowsEdit,
    OrgAdmin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

/// By what a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    Key,
    Login,
}

/// What a request needs.
struct Need {
    scopes: &'static [Scope],
    /// One of the two scopes of apps beside them.
    sees_apps: bool,
    /// A login is not enough, whatever its scopes.
    key: bool,
}

// === impl Scope ===

impl Scope {
    pub const ALL: [Self; 5] = [
        Self::Api,
        Self::AppsAdmin,
        Self::AppsView,
        Self::FlowsEdit,
        Self::OrgAdmin,
    ];
    /// What a login may have.
    pub const OF_LOGINS: [Self; 4] = [Self::Api, Self::AppsAdmin, Self::AppsView, Self::FlowsEdit];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::AppsAdmin => "apps:admin",
            Self::AppsView => "apps:view",
            Self::FlowsEdit => "flows:edit",
            Self::OrgAdmin => "org:admin",
        }
    }

    /// For the person who is asked.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Api => "read projects, pools, flows, jobs and their logs",
            Self::AppsAdmin => "make apps and publish versions of them",
            Self::AppsView => "read apps and their versions",
            Self::FlowsEdit => "change and run flows and app installations, and write secrets",
            Self::OrgAdmin => "make and remove projects, pools, API keys and registries",
        }
    }
}

// === impl Scopes ===

impl Scopes {
    /// What a key has that is not limited.
    pub fn all() -> Self {
        Self(Scope::ALL.into())
    }

    /// A login's: words with spaces between; nothing at all asks for everything
    /// that a login may have.
    ///
    /// # Errors
    ///
    /// The word that is no scope of logins.
    pub fn of_login(text: &str) -> Result<Self, String> {
        let scopes = Self::read(text.split_ascii_whitespace(), &Scope::OF_LOGINS)?;
        Ok(match scopes.0.is_empty() {
            true => Self(Scope::OF_LOGINS.into()),
            false => scopes,
        })
    }

    /// A key's; no word at all is no scope at all.
    ///
    /// # Errors
    ///
    /// The word that is no scope.
    pub fn of_key<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        Self::read(words, &Scope::ALL)
    }

    fn read<'a>(words: impl IntoIterator<Item = &'a str>, known: &[Scope]) -> Result<Self, String> {
        let of = |word: &str| known.iter().find(|scope| scope.as_str() == word).copied();
        let words = words.into_iter();
        let scopes = words.map(|word| of(word).ok_or_else(|| word.to_owned()));
        scopes.collect::<Result<_, _>>().map(Self)
    }

    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        self.0.iter().copied()
    }

    pub fn words(&self) -> Vec<&'static str> {
        self.iter().map(Scope::as_str).collect()
    }

    pub fn to_text(&self) -> String {
        self.words().join(" ")
    }

    /// Those that both have.
    pub fn within(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// The first that the other lacks.
    pub fn beyond(&self, other: &Self) -> Option<Scope> {
        self.0.difference(&other.0).next().copied()
    }

    /// # Errors
    ///
    /// Why the request needs more, in one sentence.
    pub fn allow(&self, means: Means, method: &str, path: &[&str]) -> Result<(), String> {
        let need = need(method, path);
        if need.key && means == Means::Login {
            return Err("this needs an API key; a login's access token is not enough".to_owned());
        }
        let lacks = need.scopes.iter().find(|scope| !self.0.contains(scope));
        let sees_apps = self.0.contains(&Scope::AppsView) || self.0.contains(&Scope::AppsAdmin);
        let lacks = lacks.or((need.sees_apps && !sees_apps).then_some(&Scope::AppsView));
        match lacks {
            None => Ok(()),
            Some(scope) => Err(format!(
                "{} lacks the scope `{}`",
                means.this(),
                scope.as_str()
            )),
        }
    }
}

// === impl Means ===

impl Means {
    fn this(self) -> &'static str {
        match self {
            Self::Key => "this API key",
            Self::Login => "this access token",
        }
    }
}

// === impl Need ===

impl Need {
    const ANY: Self = Self {
        scopes: &[],
        sees_apps: false,
        key: false,
    };
    const SEE_APPS: Self = Self {
        sees_apps: true,
        ..Self::ANY
    };
    const READ: Self = Self::all(&[Scope::Api]);
    const READ_APPS: Self = Self {
        sees_apps: true,
        ..Self::READ
    };
    const EDIT: Self = Self::all(&[Scope::Api, Scope::FlowsEdit]);
    const ADMIN: Self = Self::all(&[Scope::Api, Scope::OrgAdmin]).by_key();

    const fn all(scopes: &'static [Scope]) -> Self {
        Self {
            scopes,
            ..Self::ANY
        }
    }

    const fn by_key(self) -> Self {
        Self { key: true, ..self }
    }
}

/// What is not named here needs a key with every scope: a new route is closed to
/// all others until somebody has thought about it.
fn need(method: &str, path: &[&str]) -> Need {
    match path {
        ["cli", "projects"] | ["api", "v1", "openapi.json"] => Need::ANY,
        ["cli", "apps", "list_apps" | "list_versions" | "get_version"] => Need::SEE_APPS,
        [
            "cli",
            "apps",
            "create_app" | "create_version" | "update_version",
        ] => Need::all(&[Scope::AppsAdmin]),
        ["provider", "apps", "get_version_id"] => Need::READ_APPS.by_key(),
        ["provider", _, verb] => provider_need(verb).by_key(),
        // What a pool's own agent sees, to an API key.
        ["agent", "v1", "pool", ..] if method == "GET" => Need::READ.by_key(),
        ["agent", "v1", "pool", _, "states"] => Need::READ.by_key(),
        ["agent", "v1", "pool", ..] => Need::EDIT.by_key(),
        ["api", "v1", rest @ ..] => api_need(method == "GET", rest),
        _ => Need::all(&Scope::ALL).by_key(),
    }
}

fn provider_need(verb: &str) -> Need {
    let reads = matches!(
        verb,
        "get" | "plan_changes" | "export_definition" | "read_secret"
    );
    match reads || verb.starts_with("get_") {
        true => Need::READ,
        false => Need::EDIT,
    }
}

fn api_need(reads: bool, path: &[&str]) -> Need {
    match path {
        ["apps" | "versions", ..] if reads => Need::READ_APPS,
        ["apps" | "versions", ..] => Need::all(&[Scope::Api, Scope::AppsAdmin]),
        ["projects"] | ["pools", ..] if reads => Need::READ,
        [
            "flows" | "installations" | "blocks" | "events" | "deliveries" | "jobs",
            ..,
        ]
        | ["projects", _, "secrets", ..] => match reads {
            true => Need::READ,
            false => Need::EDIT,
        },
        // An install fetches what a registry lists, as the provider's look-up does.
        ["registries", _, "install"] => Need::READ_APPS.by_key(),
        ["registries", ..] if reads => Need::READ_APPS.by_key(),
        ["projects"] | ["pools" | "keys" | "registries", ..] => Need::ADMIN,
        _ => Need::all(&Scope::ALL).by_key(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(scopes: &str, means: Means, method: &str, path: &str) -> bool {
        let path: Vec<_> = path.split('/').collect();
        let scopes = Scopes::of_key(scopes.split_ascii_whitespace()).expect("scopes");
        scopes.allow(means, method, &path).is_ok()
    }

    #[test]
    fn a_scope_opens_its_part_and_nothing_else() {
        for (scopes, method, path, wanted) in [
            ("", "POST", "cli/projects", true),
            ("", "GET", "api/v1/openapi.json", true),
            ("", "POST", "cli/apps/list_apps", false),
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
        ] {
            for means in [Means::Key, Means::Login] {
                let allowed = allows(scopes, means, method, path);
                assert_eq!(allowed, wanted, "{means:?} {scopes}: {method} {path}");
            }
        }
    }

    #[test]
    fn what_is_a_keys_alone_is_closed_to_logins() {
        for (scopes, method, path) in [
            ("api org:admin", "GET", "api/v1/keys"),
            ("api org:admin", "POST", "api/v1/keys"),
            ("api org:admin", "POST", "api/v1/projects"),
            ("api org:admin", "POST", "api/v1/pools/p/rotate"),
            ("api org:admin", "DELETE", "api/v1/registries/r"),
            ("api apps:view", "POST", "api/v1/registries/r/install"),
            ("api", "POST", "provider/flows/get"),
            ("api", "POST", "provider/flows/plan_changes"),
            ("api apps:view", "POST", "provider/apps/get_version_id"),
            ("api flows:edit", "POST", "provider/flows/apply_config"),
            (
                "api flows:edit",
                "POST",
                "provider/organization/create_secret",
            ),
            ("api", "GET", "agent/v1/pool/p/jobs"),
            ("api", "POST", "agent/v1/pool/p/states"),
            ("api flows:edit", "POST", "agent/v1/pool/p/jobs/j/cancel"),
        ] {
            assert!(allows(scopes, Means::Key, method, path), "{method} {path}");
            assert!(
                !allows(scopes, Means::Login, method, path),
                "{method} {path}"
            );
            // Each of the words is needed.
            for word in scopes.split(' ') {
                let rest = scopes.replace(word, "");
                assert!(!allows(&rest, Means::Key, method, path), "{rest}: {path}");
            }
        }
        // Nobody has thought about it: every scope.
        let new = ["api", "v1", "something", "new"];
        assert!(Scopes::all().allow(Means::Key, "GET", &new).is_ok());
        assert!(Scopes::all().allow(Means::Login, "GET", &new).is_err());
        assert!(!allows(
            "api flows:edit apps:admin",
            Means::Key,
            "GET",
            "api/v1/new"
        ));
    }

    #[test]
    fn scopes_are_read_and_written_as_words() {
        let scopes = Scopes::of_login("flows:edit api  api").expect("scopes");
        assert_eq!(scopes.to_text(), "api flows:edit");
        assert_eq!(Scopes::of_login("api root"), Err("root".to_owned()));
        let admin = "org:admin";
        assert_eq!(Scopes::of_login(admin), Err(admin.to_owned()));
        let all = Scopes::of_login("").expect("everything");
        assert_eq!(all.to_text(), "api apps:admin apps:view flows:edit");
        assert_eq!(Scopes::all().beyond(&all), Some(Scope::OrgAdmin));
        assert_eq!(all.beyond(&Scopes::all()), None);
        assert_eq!(all.within(&scopes), scopes);
        assert_eq!(Scopes::of_key([]).expect("none").to_text(), "");
    }
}
