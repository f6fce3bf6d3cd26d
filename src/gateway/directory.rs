//! The organization's directory in memory: projects, pools and who may use
//! them, tokens and API keys. Written through to the store first, then here.
//!
//! Owns every answer to "may this one?". Does not know HTTP.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::Context;

use crate::gateway::secrets;
use crate::store::directory::{ApiKey, Directory as Rows, Pool, PoolToken, Project};
use crate::store::{self, Store};
use crate::telemetry::{now_ms, now_us};

/// The name of the pool that every project can use.
const DEFAULT_POOL: &str = "default";
/// The name of the one organization there is.
const ORGANIZATION: &str = "default";

pub struct Directory {
    store: Store,
    // Read on every request and written a few times a day; never held across an await.
    rows: RwLock<Rows>,
}

/// What a new API key is good for; by default everything, for ever.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// `None`: all projects.
    pub projects: Option<Vec<String>>,
    /// Words with spaces between; `None`: all scopes.
    pub scopes: Option<String>,
    pub expires_ms: Option<u64>,
}

/// Why a pool's token does not open a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefusal {
    UnknownPool,
    Wrong,
    /// It was rotated out, and its overlap is over.
    Ended,
    Revoked,
}

// === impl Directory ===

impl Directory {
    /// Reads the directory; makes the organization and the default pool if there are none.
    pub async fn load(store: &Store) -> anyhow::Result<Self> {
        let rows = store.directory().await.context("read the directory")?;
        let directory = Self {
            store: store.clone(),
            rows: RwLock::new(rows),
        };
        if directory.read().organization.is_none() {
            let id = new_id();
            store
                .create_organization(&id, ORGANIZATION, now_us())
                .await?;
            directory.write().organization = Some((id, ORGANIZATION.to_owned()));
        }
        if !directory.read().pools.iter().any(|pool| pool.is_default) {
            // Nobody is told this first token: `rotate` gives the one to use.
            directory.add_pool(DEFAULT_POOL, true).await?;
        }
        Ok(directory)
    }

    pub fn organization(&self) -> String {
        let rows = self.read();
        rows.organization
            .as_ref()
            .map(|(_, name)| name.clone())
            .unwrap_or_default()
    }

    pub fn projects(&self) -> Vec<Project> {
        self.read().projects.clone()
    }

    pub fn has_project(&self, id: &str) -> bool {
        self.read().projects.iter().any(|project| project.id == id)
    }

    pub async fn add_project(&self, name: &str) -> Result<Project, store::Error> {
        let project = Project {
            id: new_id(),
            name: name.to_owned(),
            created_us: now_us(),
        };
        self.store.create_project(project.clone()).await?;
        self.write().projects.push(project.clone());
        Ok(project)
    }

    pub fn pools(&self) -> Vec<Pool> {
        self.read().pools.clone()
    }

    pub fn pool(&self, id: &str) -> Option<Pool> {
        self.read().pools.iter().find(|pool| pool.id == id).cloned()
    }

    pub fn default_pool(&self) -> Option<Pool> {
        self.read()
            .pools
            .iter()
            .find(|pool| pool.is_default)
            .cloned()
    }

    /// Whether jobs of the project may go to the pool. The default pool is open to all.
    pub fn is_exposed(&self, pool: &str, project: &str) -> bool {
        let rows = self.read();
        rows.pools
            .iter()
            .any(|known| known.id == pool && known.is_default)
            || rows
                .exposures
                .iter()
                .any(|(p, to)| p == pool && to == project)
    }

    /// The projects a pool is exposed to one by one.
    pub fn exposures(&self, pool: &str) -> Vec<String> {
        let rows = self.read();
        rows.exposures
            .iter()
            .filter(|(known, _)| known == pool)
            .map(|(_, project)| project.clone())
            .collect()
    }

    pub async fn expose(&self, pool: &str, project: &str, on: bool) -> Result<(), store::Error> {
        self.store.expose(pool, project, on).await?;
        let pair = (pool.to_owned(), project.to_owned());
        let mut rows = self.write();
        rows.exposures.retain(|known| *known != pair);
        if on {
            rows.exposures.push(pair);
        }
        Ok(())
    }

    /// Makes a pool; the token is told here and never again.
    pub async fn add_pool(&self, name: &str, is_default: bool) -> anyhow::Result<(Pool, String)> {
        let token = secrets::pool_token()?;
        let hash = secrets::hash(&token);
        let pool = Pool {
            id: new_id(),
            name: name.to_owned(),
            is_default,
            created_us: now_us(),
        };
        self.store.create_pool(pool.clone(), hash.clone()).await?;
        let mut rows = self.write();
        rows.pools.push(pool.clone());
        rows.tokens.push(current(&pool.id, hash));
        Ok((pool, token))
    }

    /// Gives a pool a new token; the old ones work until `old_until_ms`.
    pub async fn rotate(&self, pool: &str, old_until_ms: u64) -> anyhow::Result<String> {
        let token = secrets::pool_token()?;
        let hash = secrets::hash(&token);
        let forgotten = self
            .store
            .rotate_pool_token(pool, hash.clone(), old_until_ms, now_ms())
            .await?;
        let mut rows = self.write();
        rows.tokens.retain(|old| !forgotten.contains(&old.hash));
        for old in rows.tokens.iter_mut().filter(|old| old.pool == pool) {
            let until = old.valid_until_ms.unwrap_or(u64::MAX).min(old_until_ms);
            old.valid_until_ms = Some(until);
        }
        rows.tokens.push(current(pool, hash));
        Ok(token)
    }

    pub async fn revoke(&self, pool: &str) -> Result<(), store::Error> {
        self.store.revoke_pool_tokens(pool).await?;
        let mut rows = self.write();
        for token in rows.tokens.iter_mut().filter(|token| token.pool == pool) {
            token.revoked = true;
        }
        Ok(())
    }

    /// Whether no token of the pool can open a session any more.
    pub fn is_revoked(&self, pool: &str) -> bool {
        let rows = self.read();
        let mut tokens = rows.tokens.iter().filter(|token| token.pool == pool);
        tokens.all(|token| token.revoked)
    }

    /// Whether the token opens a session for the pool now.
    pub fn check_pool_token(&self, pool: &str, token: &str) -> Result<(), TokenRefusal> {
        let rows = self.read();
        if !rows.pools.iter().any(|known| known.id == pool) {
            return Err(TokenRefusal::UnknownPool);
        }
        let hash = secrets::hash(token);
        let now = now_ms();
        let mut answer = Err(TokenRefusal::Wrong);
        // Every token is compared, so that the time taken does not tell which one it was.
        for known in rows.tokens.iter().filter(|known| known.pool == pool) {
            if secrets::same(&known.hash, &hash) {
                let ended = known.valid_until_ms.is_some_and(|until| until <= now);
                answer = match (known.revoked, ended) {
                    (true, _) => Err(TokenRefusal::Revoked),
                    (false, true) => Err(TokenRefusal::Ended),
                    (false, false) => Ok(()),
                };
            }
        }
        answer
    }

    /// The API key a credential is, whatever its state.
    pub fn key(&self, credential: &str) -> Option<ApiKey> {
        let hash = secrets::hash(credential);
        let rows = self.read();
        rows.keys
            .iter()
            .find(|key| secrets::same(&key.hash, &hash))
            .cloned()
    }

    pub fn key_of_id(&self, id: &str) -> Option<ApiKey> {
        self.read().keys.iter().find(|key| key.id == id).cloned()
    }

    /// Whether the key exists and has not expired.
    pub fn has_key(&self, id: &str, now_ms: u64) -> bool {
        let ended = |key: ApiKey| key.expires_ms.is_some_and(|at| at <= now_ms);
        self.key_of_id(id).is_some_and(|key| !ended(key))
    }

    pub fn keys(&self) -> Vec<ApiKey> {
        self.read().keys.clone()
    }

    /// Makes an API key; the key itself is told here and never again.
    pub async fn add_key(&self, name: &str, grant: Grant) -> anyhow::Result<(ApiKey, String)> {
        let credential = secrets::api_key()?;
        let key = self.add_known_key(name, grant, &credential).await?;
        Ok((key, credential))
    }

    /// Like [`Directory::add_key`] with a credential that exists already.
    pub async fn add_known_key(
        &self,
        name: &str,
        grant: Grant,
        credential: &str,
    ) -> anyhow::Result<ApiKey> {
        let key = ApiKey {
            id: new_id(),
            name: name.to_owned(),
            hash: secrets::hash(credential),
            projects: grant.projects,
            scopes: grant.scopes,
            expires_ms: grant.expires_ms,
            created_us: now_us(),
        };
        self.store.create_key(key.clone()).await?;
        self.write().keys.push(key.clone());
        Ok(key)
    }

    pub async fn remove_key(&self, id: &str) -> Result<(), store::Error> {
        self.store.delete_key(id).await?;
        self.write().keys.retain(|key| key.id != id);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn current(pool: &str, hash: String) -> PoolToken {
    PoolToken {
        hash,
        pool: pool.to_owned(),
        valid_until_ms: None,
        revoked: false,
    }
}

/// A new UUIDv7: ids sort by the time they were made.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

// === impl TokenRefusal ===

impl TokenRefusal {
    pub fn status(self) -> u16 {
        match self {
            Self::UnknownPool | Self::Wrong => 401,
            Self::Ended | Self::Revoked => 403,
        }
    }

    pub fn sentence(self, pool: &str) -> String {
        match self {
            Self::UnknownPool => {
                format!("there is no agent pool {pool}: check FLOWS_AGENT_POOL_ID")
            }
            Self::Wrong => {
                format!("the token is not one of agent pool {pool}: check FLOWS_AGENT_POOL_TOKEN")
            }
            Self::Ended => format!(
                "this token of agent pool {pool} was rotated out and its overlap is over: use the new token"
            ),
            Self::Revoked => format!(
                "this token of agent pool {pool} is revoked: rotate the pool's token and use the new one"
            ),
        }
    }
}
