//! Apps and their versions. The code itself lies beside the store, named by its digest.

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, Tx, int, taken, uint};

#[derive(Debug, Clone)]
pub struct App {
    pub id: String,
    /// Empty for an app from a registry, which is for all projects.
    pub project: String,
    pub name: String,
    pub description: Option<String>,
    /// How its blocks are drawn unless an installation says otherwise.
    pub style: Option<Value>,
    /// Where it comes from, if not from a person.
    pub origin: Option<Origin>,
    pub created_us: u64,
}

/// A registry's id, and the app's key there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub registry: String,
    pub key: String,
}

/// A version. Once it is published it never changes; a draft may get other code.
#[derive(Debug, Clone)]
pub struct Version {
    pub id: String,
    pub app: String,
    /// The project of its app.
    pub project: String,
    /// The registry it comes from.
    pub registry: Option<String>,
    pub version: String,
    /// SHA-256 of the code.
    pub digest: String,
    pub code_bytes: u64,
    pub ui_digest: Option<String>,
    pub draft: bool,
    pub created_us: u64,
}

const VERSION: &str = "SELECT v.id, v.app, a.project, a.registry, v.version, v.digest, v.code_bytes, \
     v.ui_digest, v.draft, v.created_us FROM versions v JOIN apps a ON a.id = v.app";

const APP: &str = "SELECT id, project, name, description, style, registry, registry_key, created_us \
     FROM apps";

fn version(row: &SqliteRow) -> Result<Version, sqlx::Error> {
    Ok(Version {
        id: row.try_get("id")?,
        app: row.try_get("app")?,
        project: row.try_get("project")?,
        registry: row.try_get("registry")?,
        version: row.try_get("version")?,
        digest: row.try_get("digest")?,
        code_bytes: uint(row.try_get("code_bytes")?),
        ui_digest: row.try_get("ui_digest")?,
        draft: row.try_get("draft")?,
        created_us: uint(row.try_get("created_us")?),
    })
}

fn app(row: &SqliteRow) -> Result<App, sqlx::Error> {
    let style: Option<String> = row.try_get("style")?;
    let registry: Option<String> = row.try_get("registry")?;
    let key: Option<String> = row.try_get("registry_key")?;
    Ok(App {
        id: row.try_get("id")?,
        project: row.try_get("project")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        style: style.and_then(|json| serde_json::from_str(&json).ok()),
        origin: registry
            .zip(key)
            .map(|(registry, key)| Origin { registry, key }),
        created_us: uint(row.try_get("created_us")?),
    })
}

/// A version as the transaction sees it.
pub async fn version_of(tx: &mut Tx, id: &str) -> Result<Option<Version>, Error> {
    let text = format!("{VERSION} WHERE v.id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(version).transpose()?)
}

/// Writes what may change of a draft: its code, and whether it is one still.
pub async fn put_draft(tx: &mut Tx, version: &Version) -> Result<(), Error> {
    sqlx::query(
        "UPDATE versions SET digest = ?, code_bytes = ?, ui_digest = ?, draft = ? \
         WHERE id = ? AND draft = 1",
    )
    .bind(&version.digest)
    .bind(int(version.code_bytes))
    .bind(&version.ui_digest)
    .bind(version.draft)
    .bind(&version.id)
    .execute(tx)
    .await?;
    Ok(())
}

// === impl Version ===

impl Version {
    /// Whether a project may use it: its own, or from a registry.
    pub fn is_for(&self, project: &str) -> bool {
        self.registry.is_some() || self.project == project
    }
}

// === impl Store ===

impl Store {
    pub async fn create_app(&self, app: App) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                let (registry, key) = app
                    .origin
                    .map(|origin| (origin.registry, origin.key))
                    .unzip();
                sqlx::query(
                    "INSERT INTO apps \
                     (id, project, name, description, style, registry, registry_key, created_us) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(app.id)
                .bind(app.project)
                .bind(app.name)
                .bind(app.description)
                .bind(app.style.map(|style| style.to_string()))
                .bind(registry)
                .bind(key)
                .bind(int(app.created_us))
                .execute(c)
                .await?;
                Ok(())
            })
        })
        .await
    }

    pub async fn apps(&self) -> Result<Vec<App>, Error> {
        let text = format!("{APP} ORDER BY created_us");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(app).collect::<Result<_, _>>()?)
    }

    pub async fn app(&self, id: &str) -> Result<Option<App>, Error> {
        let text = format!("{APP} WHERE id = ?");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(app).transpose()?)
    }

    /// The app that comes from there, once a version of it was fetched.
    pub async fn app_of_registry(&self, registry: &str, key: &str) -> Result<Option<App>, Error> {
        let text = format!("{APP} WHERE registry = ? AND registry_key = ?");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(registry)
            .bind(key)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(app).transpose()?)
    }

    /// # Errors
    ///
    /// [`Error::Taken`] when the app has this version already.
    pub async fn create_version(&self, version: Version) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO versions (id, app, version, digest, code_bytes, ui_digest, draft, \
                     created_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(version.id)
                .bind(version.app)
                .bind(version.version.clone())
                .bind(version.digest)
                .bind(int(version.code_bytes))
                .bind(version.ui_digest)
                .bind(version.draft)
                .bind(int(version.created_us))
                .execute(c)
                .await
                .map_err(|error| {
                    taken(error, || {
                        format!(
                            "version {} of this app exists already: raise the number",
                            version.version
                        )
                    })
                })?;
                Ok(())
            })
        })
        .await
    }

    /// Versions of one app, newest first.
    pub async fn versions(&self, app: &str) -> Result<Vec<Version>, Error> {
        let text = format!("{VERSION} WHERE v.app = ? ORDER BY v.created_us DESC");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(app)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(version).collect::<Result<_, _>>()?)
    }

    pub async fn version(&self, id: &str) -> Result<Option<Version>, Error> {
        version_of(&mut *self.reader().await?, id).await
    }
}
