//! App installations, and the schemas of the code they run.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::engine::{json, json_or_null};
use crate::store::{Error, Store, Tx, taken};

#[derive(Debug, Clone)]
pub struct Installation {
    pub id: String,
    pub project: String,
    pub name: String,
    /// Id of the app version.
    pub version: String,
    pub digest: String,
    pub pool: String,
    /// Field → JavaScript source.
    pub config: BTreeMap<String, String>,
    pub style: Option<Value>,
    pub confirm_wanted: bool,
    pub delete_wanted: bool,
    pub created_ms: i64,
}

/// What is known of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Described {
    /// Nobody has asked it.
    Never,
    /// It is being asked.
    Asked,
    /// JSON.
    Schema(String),
    Error(String),
}

const COLUMNS: &str = "id, project, name, version, digest, pool, config, style, confirm_wanted, \
     delete_wanted, created_ms";

fn installation(row: &SqliteRow) -> Result<Installation, sqlx::Error> {
    Ok(Installation {
        id: row.try_get(0)?,
        project: row.try_get(1)?,
        name: row.try_get(2)?,
        version: row.try_get(3)?,
        digest: row.try_get(4)?,
        pool: row.try_get(5)?,
        config: json(row, 6)?,
        style: json_or_null(row, 7)?,
        confirm_wanted: row.try_get(8)?,
        delete_wanted: row.try_get(9)?,
        created_ms: row.try_get(10)?,
    })
}

/// Writes all of it; an installation with the same id is replaced.
///
/// # Errors
///
/// [`Error::Taken`] when the project has an installation of this name.
pub async fn put(tx: &mut Tx, it: &Installation) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO installations (id, project, name, version, digest, pool, config, style, \
         confirm_wanted, delete_wanted, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version, \
         digest = excluded.digest, pool = excluded.pool, config = excluded.config, \
         style = excluded.style, confirm_wanted = excluded.confirm_wanted, \
         delete_wanted = excluded.delete_wanted",
    )
    .bind(&it.id)
    .bind(&it.project)
    .bind(&it.name)
    .bind(&it.version)
    .bind(&it.digest)
    .bind(&it.pool)
    .bind(serde_json::json!(it.config).to_string())
    .bind(it.style.as_ref().map(Value::to_string))
    .bind(it.confirm_wanted)
    .bind(it.delete_wanted)
    .bind(it.created_ms)
    .execute(tx)
    .await
    .map_err(|error| {
        taken(error, || {
            format!(
                "an app installation called `{}` exists in this project",
                it.name
            )
        })
    })?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Installation>, Error> {
    let text = format!("SELECT {COLUMNS} FROM installations WHERE id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(installation).transpose()?)
}

pub async fn of_project(tx: &mut Tx, project: &str) -> Result<Vec<Installation>, Error> {
    let text = format!("SELECT {COLUMNS} FROM installations WHERE project = ? ORDER BY id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(project)
        .fetch_all(tx)
        .await?;
    Ok(rows.iter().map(installation).collect::<Result<_, _>>()?)
}

/// Those that run this code.
pub async fn of_digest(tx: &mut Tx, digest: &str) -> Result<Vec<Installation>, Error> {
    let text = format!("SELECT {COLUMNS} FROM installations WHERE digest = ? ORDER BY id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(digest)
        .fetch_all(tx)
        .await?;
    Ok(rows.iter().map(installation).collect::<Result<_, _>>()?)
}

/// Those of this app version.
pub async fn of_version(tx: &mut Tx, version: &str) -> Result<Vec<Installation>, Error> {
    let text = format!("SELECT {COLUMNS} FROM installations WHERE version = ? ORDER BY id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(version)
        .fetch_all(tx)
        .await?;
    Ok(rows.iter().map(installation).collect::<Result<_, _>>()?)
}

/// Removes the installation and what its app kept.
pub async fn delete(tx: &mut Tx, id: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM installations WHERE id = ?")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    sqlx::query("DELETE FROM kv WHERE scope = ? OR substr(scope, 1, length(?2)) = ?2")
        .bind(format!("app:{id}"))
        .bind(format!("block:{id}:"))
        .execute(tx)
        .await?;
    Ok(())
}

// === Schemas ===

pub async fn described(tx: &mut Tx, digest: &str) -> Result<Described, Error> {
    let row = sqlx::query("SELECT schema, error FROM schemas WHERE digest = ?")
        .bind(digest)
        .fetch_optional(tx)
        .await?;
    let Some(row) = row else {
        return Ok(Described::Never);
    };
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (Some(schema), _) => Described::Schema(schema),
        (None, Some(error)) => Described::Error(error),
        (None, None) => Described::Asked,
    })
}

pub async fn describe(tx: &mut Tx, digest: &str, what: &Described) -> Result<(), Error> {
    let (schema, error) = match what {
        Described::Never | Described::Asked => (None, None),
        Described::Schema(schema) => (Some(schema), None),
        Described::Error(error) => (None, Some(error)),
    };
    sqlx::query("INSERT OR REPLACE INTO schemas (digest, schema, error) VALUES (?, ?, ?)")
        .bind(digest)
        .bind(schema)
        .bind(error)
        .execute(tx)
        .await?;
    Ok(())
}

// === impl Store ===

impl Store {
    pub async fn installation(&self, id: &str) -> Result<Option<Installation>, Error> {
        get(&mut *self.reader().await?, id).await
    }

    pub async fn installations(&self) -> Result<Vec<Installation>, Error> {
        let text = format!("SELECT {COLUMNS} FROM installations ORDER BY id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(installation).collect::<Result<_, _>>()?)
    }

    pub async fn described(&self, digest: &str) -> Result<Described, Error> {
        described(&mut *self.reader().await?, digest).await
    }
}
