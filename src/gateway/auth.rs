//! Who calls. A [`Caller`] or a [`JobCaller`] is proof: a function that takes
//! one cannot be reached without credentials.

use std::collections::BTreeSet;

use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::gateway::line::Holder;
use crate::gateway::scopes::{Means, Scopes};
use crate::gateway::secrets::{self, ACCESS_TOKEN_PREFIX, API_KEY_PREFIX, CREDENTIAL_BYTES_MAX};
use crate::store::apps::Version;
use crate::store::directory::ApiKey;
use crate::store::jobs::Spec;
use crate::store::logins::Kind;
use crate::telemetry::now_ms;

/// Somebody with a good API key, or with a login that stands on one.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key's id, for logs.
    pub key: String,
    /// Those of the key. A login's own are fewer, and looked at before there is a caller.
    pub scopes: Scopes,
    reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    Admin,
    Projects(BTreeSet<String>),
    /// The agent of one pool: it sees that pool's jobs and nothing else.
    Pool(String),
}

/// A worker that holds a job whose dispatch is current.
#[derive(Debug, Clone)]
pub struct JobCaller {
    pub holder: Holder,
    pub dispatch: u32,
}

// === impl Caller ===

impl Caller {
    /// Whose key it is, whatever its scopes.
    pub fn check(gateway: &Gateway, credential: Option<&str>) -> Result<Self, ApiError> {
        let credential = credential.ok_or_else(|| {
            ApiError::new(401, "no API key: send `Authorization: Bearer sfapi_…`")
        })?;
        if !credential.starts_with(API_KEY_PREFIX) || credential.len() > CREDENTIAL_BYTES_MAX {
            return Err(ApiError::new(
                401,
                "this is no API key: one begins with `sfapi_`",
            ));
        }
        let key = gateway
            .directory
            .key(credential)
            .ok_or_else(|| ApiError::new(401, "this API key is not known, or was removed"))?;
        Self::of_key(key)
    }

    /// Whoever may make this request: by an API key within its scopes, or by a
    /// login's access token within its own and the key's.
    pub async fn of(
        gateway: &Gateway,
        credential: Option<&str>,
        method: &str,
        path: &[&str],
    ) -> Result<Self, ApiError> {
        let is_access = |token: &&str| token.starts_with(ACCESS_TOKEN_PREFIX);
        let Some(token) = credential.filter(is_access) else {
            let caller = Self::check(gateway, credential)?;
            caller.within(method, path)?;
            return Ok(caller);
        };
        let unknown = || ApiError::new(401, "this access token is not known, or its login is over");
        if token.len() > CREDENTIAL_BYTES_MAX {
            return Err(unknown());
        }
        let hash = secrets::hash(token);
        let login = gateway.store.login_of(&hash, Kind::Access).await?;
        let (login, until_ms) = login.ok_or_else(unknown)?;
        if until_ms <= now_ms() {
            return Err(ApiError::new(401, "this access token has expired"));
        }
        let key = gateway.directory.key_of_id(&login.api_key);
        let caller = Self::of_key(key.ok_or_else(unknown)?)?;
        let scopes = Scopes::of_login(&login.scopes).map_err(ApiError::internal)?;
        let allowed = scopes.allow(Means::Login, method, path);
        allowed.map_err(ApiError::forbidden)?;
        caller.within(method, path)?;
        Ok(caller)
    }

    /// Whether the key's own scopes allow it.
    fn within(&self, method: &str, path: &[&str]) -> Result<(), ApiError> {
        let allowed = self.scopes.allow(Means::Key, method, path);
        allowed.map_err(ApiError::forbidden)
    }

    fn of_key(key: ApiKey) -> Result<Self, ApiError> {
        if key.expires_ms.is_some_and(|at| at <= now_ms()) {
            return Err(ApiError::new(
                401,
                format!("API key `{}` has expired", key.name),
            ));
        }
        let scopes = match &key.scopes {
            None => Scopes::all(),
            Some(words) => {
                Scopes::of_key(words.split_ascii_whitespace()).map_err(ApiError::internal)?
            }
        };
        Ok(Self {
            key: key.id,
            scopes,
            reach: match key.projects {
                None => Reach::Admin,
                Some(projects) => Reach::Projects(projects.into_iter().collect()),
            },
        })
    }

    /// Whoever may look at one pool's jobs: its agent, by the pool's token, or an
    /// admin key within its scopes.
    pub fn of_pool(
        gateway: &Gateway,
        pool: &str,
        credential: Option<&str>,
        method: &str,
        path: &[&str],
    ) -> Result<Self, ApiError> {
        let credential = credential
            .filter(|credential| credential.len() <= CREDENTIAL_BYTES_MAX)
            .ok_or_else(|| {
                let sentence = "no pool token: send `Authorization: Bearer …` with the pool's token or an admin key";
                ApiError::new(401, sentence)
            })?;
        if credential.starts_with(API_KEY_PREFIX) {
            let caller = Self::check(gateway, Some(credential))?;
            caller.within(method, path)?;
            caller.admin()?;
            if gateway.directory.pool(pool).is_none() {
                return Err(ApiError::not_found(format!("agent pool {pool}")));
            }
        } else {
            gateway
                .directory
                .check_pool_token(pool, credential)
                .map_err(|refusal| ApiError::new(refusal.status(), refusal.sentence(pool)))?;
        }
        Ok(Self {
            key: format!("pool {pool}"),
            // Its reach says all: the pool's own routes are the only ones it gets to.
            scopes: Scopes::all(),
            reach: Reach::Pool(pool.to_owned()),
        })
    }

    /// For what concerns the whole organization.
    pub fn admin(&self) -> Result<(), ApiError> {
        match self.reach {
            Reach::Admin => Ok(()),
            Reach::Projects(_) | Reach::Pool(_) => Err(ApiError::forbidden(
                "this API key is limited to some projects; this needs an admin key",
            )),
        }
    }

    /// For what belongs to one project.
    pub fn project(&self, project: &str) -> Result<(), ApiError> {
        if self.sees(project) {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "this API key is not for project {project}"
        )))
    }

    /// For what is made in a project, which must exist; `field` of the request names it.
    pub fn existing_project(
        &self,
        gateway: &Gateway,
        field: &str,
        project: &str,
    ) -> Result<(), ApiError> {
        self.project(project)?;
        if gateway.directory.has_project(project) {
            return Ok(());
        }
        Err(ApiError::bad(format!(
            "`{field}` names {project}, which does not exist"
        )))
    }

    /// For an app version: of one project, or from a registry and so for all.
    pub fn version(&self, version: &Version) -> Result<(), ApiError> {
        match version.registry {
            Some(_) => Ok(()),
            None => self.project(&version.project),
        }
    }

    pub fn sees(&self, project: &str) -> bool {
        match &self.reach {
            Reach::Admin => true,
            Reach::Projects(projects) => projects.contains(project),
            Reach::Pool(_) => false,
        }
    }

    /// For one job, which belongs to a project and waits in a pool.
    pub fn job(&self, spec: &Spec) -> Result<(), ApiError> {
        match &self.reach {
            Reach::Pool(pool) if *pool == spec.pool => Ok(()),
            Reach::Pool(_) => Err(ApiError::not_found(format!("job {} of this pool", spec.id))),
            Reach::Admin | Reach::Projects(_) => self.project(&spec.project),
        }
    }

    /// The pool this caller is limited to, if it is a pool's agent.
    pub fn pool(&self) -> Option<&str> {
        match &self.reach {
            Reach::Pool(pool) => Some(pool),
            Reach::Admin | Reach::Projects(_) => None,
        }
    }

    /// The projects the key is limited to; `None` for all.
    pub fn projects(&self) -> Option<Vec<String>> {
        match &self.reach {
            Reach::Admin | Reach::Pool(_) => None,
            Reach::Projects(projects) => Some(projects.iter().cloned().collect()),
        }
    }
}

// === impl JobCaller ===

impl JobCaller {
    pub fn check(gateway: &Gateway, credential: Option<&str>) -> Result<Self, ApiError> {
        let credential = credential
            .filter(|credential| credential.len() <= CREDENTIAL_BYTES_MAX)
            .ok_or_else(|| ApiError::new(401, "no job token: send `Authorization: Bearer …`"))?;
        let (job, dispatch) = gateway
            .tokens
            .check(credential)
            .ok_or_else(|| ApiError::new(401, "this is no job token of this gateway"))?;
        let holder = gateway.line.authorize(&job, dispatch).ok_or_else(|| {
            ApiError::gone(format!(
                "dispatch {dispatch} of job {job} is over: the job has ended or was handed out again"
            ))
        })?;
        Ok(Self { holder, dispatch })
    }
}
