//! The organization's directory: projects, pools with their tokens and
//! exposures, API keys. Small; the gateway reads it whole and keeps it in memory.

use sqlx::Row;

use crate::store::{Error, Store, int, taken, uint};

/// Tokens of one pool that have ended and are still told apart from wrong ones:
/// more than anybody rotates while one old agent is forgotten somewhere.
const ENDED_TOKENS_MAX: u32 = 20;

#[derive(Debug, Clone)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub created_us: u64,
}

#[derive(Debug, Clone)]
pub struct Pool {
    pub id: String,
    pub name: String,
    pub is_default: bool,
    pub created_us: u64,
}

/// A pool's token, as its SHA-256.
#[derive(Debug, Clone)]
pub struct PoolToken {
    pub hash: String,
    pub pool: String,
    /// `None`: the current one.
    pub valid_until_ms: Option<u64>,
    pub revoked: bool,
}

#[derive(Debug, Clone)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub hash: String,
    /// `None`: an admin key.
    pub projects: Option<Vec<String>>,
    /// Words with spaces between; `None`: all there are.
    pub scopes: Option<String>,
    pub expires_ms: Option<u64>,
    pub created_us: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// The organization's id and name, once it exists.
    pub organization: Option<(String, String)>,
    pub projects: Vec<Project>,
    pub pools: Vec<Pool>,
    pub tokens: Vec<PoolToken>,
    /// Pool id and project id.
    pub exposures: Vec<(String, String)>,
    pub keys: Vec<ApiKey>,
}

// === impl Store ===

impl Store {
    pub async fn directory(&self) -> Result<Directory, Error> {
        let mut all = Directory::default();
        let rows = |text: &'static str| sqlx::query(text).fetch_all(&self.readers);
        for row in rows("SELECT id, name FROM organizations LIMIT 1").await? {
            all.organization = Some((row.try_get(0)?, row.try_get(1)?));
        }
        for row in rows("SELECT id, name, created_us FROM projects ORDER BY created_us").await? {
            all.projects.push(Project {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                created_us: uint(row.try_get(2)?),
            });
        }
        let pools = "SELECT id, name, is_default, created_us FROM pools ORDER BY created_us";
        for row in rows(pools).await? {
            all.pools.push(Pool {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                is_default: row.try_get(2)?,
                created_us: uint(row.try_get(3)?),
            });
        }
        for row in rows("SELECT hash, pool, valid_until_ms, revoked FROM pool_tokens").await? {
            all.tokens.push(PoolToken {
                hash: row.try_get(0)?,
                pool: row.try_get(1)?,
                valid_until_ms: row.try_get::<Option<i64>, _>(2)?.map(uint),
                revoked: row.try_get(3)?,
            });
        }
        for row in rows("SELECT pool, project FROM exposures").await? {
            all.exposures.push((row.try_get(0)?, row.try_get(1)?));
        }
        let keys = "SELECT id, name, hash, projects, scopes, expires_ms, created_us FROM api_keys";
        for row in rows(keys).await? {
            let projects: Option<String> = row.try_get("projects")?;
            all.keys.push(ApiKey {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                hash: row.try_get("hash")?,
                // A list that cannot be read opens nothing rather than everything.
                projects: projects.map(|json| serde_json::from_str(&json).unwrap_or_default()),
                scopes: row.try_get("scopes")?,
                expires_ms: row.try_get::<Option<i64>, _>("expires_ms")?.map(uint),
                created_us: uint(row.try_get("created_us")?),
            });
        }
        Ok(all)
    }

    pub async fn create_organization(&self, id: &str, name: &str, at_us: u64) -> Result<(), Error> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("INSERT INTO organizations (id, name, created_us) VALUES (?, ?, ?)")
                    .bind(id)
                    .bind(name)
                    .bind(int(at_us))
                    .execute(c)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// # Errors
    ///
    /// [`Error::Taken`] when the name is in use.
    pub async fn create_project(&self, project: Project) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("INSERT INTO projects (id, name, created_us) VALUES (?, ?, ?)")
                    .bind(project.id)
                    .bind(project.name.clone())
                    .bind(int(project.created_us))
                    .execute(c)
                    .await
                    .map_err(|error| {
                        taken(error, || {
                            format!("a project named `{}` exists already", project.name)
                        })
                    })?;
                Ok(())
            })
        })
        .await
    }

    /// Makes a pool and its first token.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] when the name is in use.
    pub async fn create_pool(&self, pool: Pool, token_hash: String) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO pools (id, name, is_default, created_us) VALUES (?, ?, ?, ?)",
                )
                .bind(pool.id.clone())
                .bind(pool.name.clone())
                .bind(pool.is_default)
                .bind(int(pool.created_us))
                .execute(&mut *c)
                .await
                .map_err(|error| {
                    taken(error, || {
                        format!("an agent pool named `{}` exists already", pool.name)
                    })
                })?;
                sqlx::query("INSERT INTO pool_tokens (hash, pool) VALUES (?, ?)")
                    .bind(token_hash)
                    .bind(pool.id)
                    .execute(&mut *c)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// Adds a token and lets the ones that have no end yet end at `old_until_ms`.
    /// Of those that have ended by `now_ms` the newest [`ENDED_TOKENS_MAX`] stay
    /// known, so that whoever still uses one is told why it no longer works;
    /// answers with the hashes of the others, which are forgotten.
    pub async fn rotate_pool_token(
        &self,
        pool: &str,
        new_hash: String,
        old_until_ms: u64,
        now_ms: u64,
    ) -> Result<Vec<String>, Error> {
        let pool = pool.to_owned();
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE pool_tokens SET valid_until_ms = MIN(COALESCE(valid_until_ms, ?1), ?1) \
                     WHERE pool = ?2",
                )
                .bind(int(old_until_ms))
                .bind(pool.clone())
                .execute(&mut *c)
                .await?;
                sqlx::query("INSERT INTO pool_tokens (hash, pool) VALUES (?, ?)")
                    .bind(new_hash)
                    .bind(pool.clone())
                    .execute(&mut *c)
                    .await?;
                let forgotten = sqlx::query(
                    "DELETE FROM pool_tokens WHERE hash IN (SELECT hash FROM pool_tokens \
                     WHERE pool = ?1 AND valid_until_ms <= ?2 \
                     ORDER BY valid_until_ms DESC, rowid DESC LIMIT -1 OFFSET ?3) RETURNING hash",
                )
                .bind(pool)
                .bind(int(now_ms))
                .bind(ENDED_TOKENS_MAX)
                .fetch_all(&mut *c)
                .await?;
                let hash = |row: &sqlx::sqlite::SqliteRow| row.try_get("hash");
                Ok(forgotten.iter().map(hash).collect::<Result<_, _>>()?)
            })
        })
        .await
    }

    /// Ends every token of a pool at once. They stay known, so that whoever
    /// still uses one is told why it no longer works.
    pub async fn revoke_pool_tokens(&self, pool: &str) -> Result<(), Error> {
        let pool = pool.to_owned();
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("UPDATE pool_tokens SET revoked = 1 WHERE pool = ?")
                    .bind(pool)
                    .execute(c)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// Exposes a pool to a project, or no longer. A repeat changes nothing.
    pub async fn expose(&self, pool: &str, project: &str, exposed: bool) -> Result<(), Error> {
        let (pool, project) = (pool.to_owned(), project.to_owned());
        self.change(move |c| {
            Box::pin(async move {
                let text = if exposed {
                    "INSERT OR IGNORE INTO exposures (pool, project) VALUES (?, ?)"
                } else {
                    "DELETE FROM exposures WHERE pool = ? AND project = ?"
                };
                sqlx::query(text)
                    .bind(pool)
                    .bind(project)
                    .execute(c)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    pub async fn create_key(&self, key: ApiKey) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                let projects = key
                    .projects
                    .map(|ids| serde_json::Value::from(ids).to_string());
                sqlx::query(
                    "INSERT INTO api_keys (id, name, hash, projects, scopes, expires_ms, created_us) \
                     VALUES (?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(key.id)
                .bind(key.name)
                .bind(key.hash)
                .bind(projects)
                .bind(key.scopes)
                .bind(key.expires_ms.map(int))
                .bind(int(key.created_us))
                .execute(c)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// # Errors
    ///
    /// [`Error::Missing`] when there is no such key.
    pub async fn delete_key(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.change(move |c| {
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM api_keys WHERE id = ?")
                    .bind(id.clone())
                    .execute(c)
                    .await?;
                if done.rows_affected() == 0 {
                    return Err(Error::Missing(format!("API key {id}")));
                }
                Ok(())
            })
        })
        .await
    }
}
