//! Apps and their versions. The code itself lies beside the store, named by its digest.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, int, taken, uint};

#[derive(Debug, Clone)]
pub struct App {
    pub id: String,
    pub project: String,
    pub name: String,
    pub created_us: u64,
}

/// A published version: it never changes.
#[derive(Debug, Clone)]
pub struct Version {
    pub id: String,
    pub app: String,
    /// The project of its app.
    pub project: String,
    pub version: String,
    /// SHA-256 of the code.
    pub digest: String,
    pub code_bytes: u64,
    pub ui_digest: Option<String>,
    pub created_us: u64,
}

const VERSION: &str = "SELECT v.id, v.app, a.project, v.version, v.digest, v.code_bytes, v.ui_digest, \
     v.created_us FROM versions v JOIN apps a ON a.id = v.app";

fn version(row: &SqliteRow) -> Result<Version, sqlx::Error> {
    Ok(Version {
        id: row.try_get(0)?,
        app: row.try_get(1)?,
        project: row.try_get(2)?,
        version: row.try_get(3)?,
        digest: row.try_get(4)?,
        code_bytes: uint(row.try_get(5)?),
        ui_digest: row.try_get(6)?,
        created_us: uint(row.try_get(7)?),
    })
}

fn app(row: &SqliteRow) -> Result<App, sqlx::Error> {
    Ok(App {
        id: row.try_get(0)?,
        project: row.try_get(1)?,
        name: row.try_get(2)?,
        created_us: uint(row.try_get(3)?),
    })
}

// === impl Store ===

impl Store {
    pub async fn create_app(&self, app: App) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("INSERT INTO apps (id, project, name, created_us) VALUES (?, ?, ?, ?)")
                    .bind(app.id)
                    .bind(app.project)
                    .bind(app.name)
                    .bind(int(app.created_us))
                    .execute(c)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    pub async fn apps(&self) -> Result<Vec<App>, Error> {
        let rows =
            sqlx::query("SELECT id, project, name, created_us FROM apps ORDER BY created_us")
                .fetch_all(&self.readers)
                .await?;
        Ok(rows.iter().map(app).collect::<Result<_, _>>()?)
    }

    pub async fn app(&self, id: &str) -> Result<Option<App>, Error> {
        let row = sqlx::query("SELECT id, project, name, created_us FROM apps WHERE id = ?")
            .bind(id)
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
                    "INSERT INTO versions (id, app, version, digest, code_bytes, ui_digest, created_us) \
                     VALUES (?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(version.id)
                .bind(version.app)
                .bind(version.version.clone())
                .bind(version.digest)
                .bind(int(version.code_bytes))
                .bind(version.ui_digest)
                .bind(int(version.created_us))
                .execute(c)
                .await
                .map_err(|error| {
                    taken(error, || {
                        format!(
                            "version {} of this app is published already, and a published version never changes: raise the number",
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
        let text = format!("{VERSION} WHERE v.id = ?");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(version).transpose()?)
    }
}
