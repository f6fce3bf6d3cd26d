//! Who calls. A [`Caller`] or a [`JobCaller`] is proof: a function that takes
//! one cannot be reached without credentials.

use std::collections::BTreeSet;

use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::gateway::line::Holder;
use crate::gateway::oauth::scopes::Scopes;
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
    scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
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

    /// Whoever may make this request: by an API key, or by a login's access token
    /// within its scopes.
    pub async fn of(
        gateway: &Gateway,
        credential: Option<&str>,
        method: &str,
        path: &[&str],
    ) -> Result<Self, ApiError> {
        let is_access = |token: &&str| token.starts_with(ACCESS_TOKEN_PREFIX);
        let Some(token) = credential.filter(is_access) else {
            return Self::check(gateway, credential);
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
        let scopes = Scopes::parse(&login.scopes).map_err(ApiError::internal)?;
        scopes.allow(method, path).map_err(ApiError::forbidden)?;
        Ok(caller)
    }

    fn of_key(key: ApiKey) -> Result<Self, ApiError> {
        if key.expires_ms.is_some_and(|at| at <= now_ms()) {
            return Err(ApiError::new(
                401,
                format!("API key `{}` has expired", key.name),
            ));
        }
        Ok(Self {
            key: key.id,
            scope: match key.projects {
                None => Scope::Admin,
                Some(projects) => Scope::Projects(projects.into_iter().collect()),
            },
        })
    }

    /// Whoever may look at one pool's jobs: its agent, by the pool's token, or an admin key.
    pub fn of_pool(
        gateway: &Gateway,
        pool: &str,
        credential: Option<&str>,
    ) -> Result<Self, ApiError> {
        let credential = credential
            .filter(|credential| credential.len() <= CREDENTIAL_BYTES_MAX)
            .ok_or_else(|| {
                let sentence = "no pool token: send `Authorization: Bearer …` with the pool's token or an admin key";
                ApiError::new(401, sentence)
            })?;
        if credential.starts_with(API_KEY_PREFIX) {
            Self::check(gateway, Some(credential))?.admin()?;
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
            scope: Scope::Pool(pool.to_owned()),
        })
    }

    /// For what concerns the whole organization.
    pub fn admin(&self) -> Result<(), ApiError> {
        match self.scope {
            Scope::Admin => Ok(()),
            Scope::Projects(_) | Scope::Pool(_) => Err(ApiError::forbidden(
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
        match &self.scope {
            Scope::Admin => true,
            Scope::Projects(projects) => projects.contains(project),
            Scope::Pool(_) => false,
        }
    }

    /// For one job, which belongs to a project and waits in a pool.
    pub fn job(&self, spec: &Spec) -> Result<(), ApiError> {
        match &self.scope {
            Scope::Pool(pool) if *pool == spec.pool => Ok(()),
            Scope::Pool(_) => Err(ApiError::not_found(format!("job {} of this pool", spec.id))),
            Scope::Admin | Scope::Projects(_) => self.project(&spec.project),
        }
    }

    /// The pool this caller is limited to, if it is a pool's agent.
    pub fn pool(&self) -> Option<&str> {
        match &self.scope {
            Scope::Pool(pool) => Some(pool),
            Scope::Admin | Scope::Projects(_) => None,
        }
    }

    /// The projects the key is limited to; `None` for all.
    pub fn projects(&self) -> Option<Vec<String>> {
        match &self.scope {
            Scope::Admin | Scope::Pool(_) => None,
            Scope::Projects(projects) => Some(projects.iter().cloned().collect()),
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
