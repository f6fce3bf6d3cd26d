//! Registries that are followed: their state, and what they list.

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, Tx, taken};

/// A subscription.
#[derive(Debug, Clone)]
pub struct Registry {
    pub id: String,
    pub name: String,
    /// Of its `registry.json`.
    pub url: String,
    pub etag: Option<String>,
    /// When it was asked last; `None`: not yet.
    pub checked_ms: Option<i64>,
    /// Why that failed, if it did.
    pub error: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// When it is asked next.
    pub next_ms: i64,
    pub created_ms: i64,
}

/// An app as a registry lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedApp {
    pub key: String,
    pub name: String,
    pub description: Option<String>,
    /// `{iconUrl, color}`
    pub style: Option<Value>,
    /// Of its `versions.json`.
    pub metadata_url: String,
    pub etag: Option<String>,
    /// What is wrong with its versions, if anything.
    pub error: Option<String>,
}

/// A version as a registry lists it, or once did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    pub version: String,
    pub url: String,
    /// As it was first seen, `sha256:` and hex.
    pub checksum: String,
    /// As it is listed now; `None`: it is not.
    pub listed: Option<String>,
    pub seen_ms: i64,
}

fn registry(row: &SqliteRow) -> Result<Registry, sqlx::Error> {
    Ok(Registry {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        url: row.try_get("url")?,
        etag: row.try_get("etag")?,
        checked_ms: row.try_get("checked_ms")?,
        error: row.try_get("error")?,
        failures: row.try_get("failures")?,
        next_ms: row.try_get("next_ms")?,
        created_ms: row.try_get("created_ms")?,
    })
}

fn app(row: &SqliteRow) -> Result<ListedApp, sqlx::Error> {
    let style: Option<&str> = row.try_get("style")?;
    Ok(ListedApp {
        key: row.try_get("key")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        style: style.and_then(|text| serde_json::from_str(text).ok()),
        metadata_url: row.try_get("metadata_url")?,
        etag: row.try_get("etag")?,
        error: row.try_get("error")?,
    })
}

fn version(row: &SqliteRow) -> Result<ListedVersion, sqlx::Error> {
    Ok(ListedVersion {
        version: row.try_get("version")?,
        url: row.try_get("url")?,
        checksum: row.try_get("checksum")?,
        listed: row.try_get("listed")?,
        seen_ms: row.try_get("seen_ms")?,
    })
}

// === impl Store ===

impl Store {
    /// # Errors
    ///
    /// [`Error::Taken`] when the name or the address is followed already.
    pub async fn create_registry(&self, it: Registry) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO registries (id, name, url, created_ms) VALUES (?, ?, ?, ?)",
                )
                .bind(it.id)
                .bind(&it.name)
                .bind(it.url)
                .bind(it.created_ms)
                .execute(c)
                .await
                .map_err(|error| {
                    taken(error, || {
                        format!(
                            "a registry called `{}`, or with this address, is followed already",
                            it.name
                        )
                    })
                })?;
                Ok(())
            })
        })
        .await
    }

    /// Notes what asking a registry has led to; one that is gone stays so.
    pub async fn note_registry(&self, it: Registry) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE registries SET etag = ?, checked_ms = ?, error = ?, failures = ?, \
                     next_ms = ? WHERE id = ?",
                )
                .bind(it.etag)
                .bind(it.checked_ms)
                .bind(it.error)
                .bind(it.failures)
                .bind(it.next_ms)
                .bind(it.id)
                .execute(c)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Ends a subscription and forgets what was listed. Versions that were
    /// installed stay, as installations run them.
    pub async fn delete_registry(&self, id: String) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM registries WHERE id = ?")
                    .bind(&id)
                    .execute(&mut *c)
                    .await?;
                if done.rows_affected() == 0 {
                    return Err(Error::Missing(format!("registry {id}")));
                }
                for text in [
                    "DELETE FROM registry_apps WHERE registry = ?",
                    "DELETE FROM registry_versions WHERE registry = ?",
                ] {
                    sqlx::query(text).bind(&id).execute(&mut *c).await?;
                }
                Ok(())
            })
        })
        .await
    }

    pub async fn registries(&self) -> Result<Vec<Registry>, Error> {
        let rows = sqlx::query("SELECT * FROM registries ORDER BY created_ms, id")
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(registry).collect::<Result<_, _>>()?)
    }

    /// The registry's list is this one. What was known of an app's versions stays.
    pub async fn list_registry_apps(
        &self,
        registry: String,
        apps: Vec<ListedApp>,
    ) -> Result<(), Error> {
        self.change(move |c| Box::pin(async move { replace_apps(c, &registry, &apps).await }))
            .await
    }

    pub async fn registry_apps(&self, registry: &str) -> Result<Vec<ListedApp>, Error> {
        let rows = sqlx::query("SELECT * FROM registry_apps WHERE registry = ? ORDER BY key")
            .bind(registry)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(app).collect::<Result<_, _>>()?)
    }

    /// Notes the state of one app, and its versions if they were read anew.
    pub async fn note_registry_app(
        &self,
        registry: String,
        it: ListedApp,
        versions: Option<Vec<ListedVersion>>,
    ) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE registry_apps SET etag = ?, error = ? WHERE registry = ? AND key = ?",
                )
                .bind(&it.etag)
                .bind(&it.error)
                .bind(&registry)
                .bind(&it.key)
                .execute(&mut *c)
                .await?;
                match versions {
                    Some(versions) => replace_versions(c, &registry, &it.key, &versions).await,
                    None => Ok(()),
                }
            })
        })
        .await
    }

    /// Every version of an app that was ever seen.
    pub async fn registry_versions(
        &self,
        registry: &str,
        key: &str,
    ) -> Result<Vec<ListedVersion>, Error> {
        let rows = sqlx::query("SELECT * FROM registry_versions WHERE registry = ? AND key = ?")
            .bind(registry)
            .bind(key)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(version).collect::<Result<_, _>>()?)
    }
}

async fn replace_apps(tx: &mut Tx, registry: &str, apps: &[ListedApp]) -> Result<(), Error> {
    let keys: Vec<&str> = apps.iter().map(|app| app.key.as_str()).collect();
    sqlx::query(
        "DELETE FROM registry_apps WHERE registry = ? AND key NOT IN (SELECT value FROM json_each(?))",
    )
    .bind(registry)
    .bind(serde_json::json!(keys).to_string())
    .execute(&mut *tx)
    .await?;
    for app in apps {
        // Where the versions are told from elsewhere, what is known of them has no tag any more.
        sqlx::query(
            "INSERT INTO registry_apps (registry, key, name, description, style, metadata_url) \
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (registry, key) DO UPDATE SET \
             name = excluded.name, description = excluded.description, style = excluded.style, \
             etag = CASE metadata_url WHEN excluded.metadata_url THEN etag END, \
             metadata_url = excluded.metadata_url",
        )
        .bind(registry)
        .bind(&app.key)
        .bind(&app.name)
        .bind(&app.description)
        .bind(app.style.as_ref().map(Value::to_string))
        .bind(&app.metadata_url)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn replace_versions(
    tx: &mut Tx,
    registry: &str,
    key: &str,
    versions: &[ListedVersion],
) -> Result<(), Error> {
    sqlx::query("UPDATE registry_versions SET listed = NULL WHERE registry = ? AND key = ?")
        .bind(registry)
        .bind(key)
        .execute(&mut *tx)
        .await?;
    for it in versions {
        sqlx::query(
            "INSERT INTO registry_versions (registry, key, version, url, checksum, listed, seen_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (registry, key, version) DO UPDATE SET \
             url = excluded.url, listed = excluded.listed",
        )
        .bind(registry)
        .bind(key)
        .bind(&it.version)
        .bind(&it.url)
        .bind(&it.checksum)
        .bind(&it.listed)
        .bind(it.seen_ms)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
