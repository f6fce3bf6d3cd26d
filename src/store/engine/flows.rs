//! Flows: a name, a definition, and the revision that says when it changed.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, Tx, taken};

#[derive(Debug, Clone)]
pub struct Flow {
    pub id: String,
    pub project: String,
    pub name: String,
    /// The text that an export gives.
    pub definition: String,
    pub revision: String,
    pub created_ms: i64,
}

const COLUMNS: &str = "id, project, name, definition, revision, created_ms";

fn flow(row: &SqliteRow) -> Result<Flow, sqlx::Error> {
    Ok(Flow {
        id: row.try_get(0)?,
        project: row.try_get(1)?,
        name: row.try_get(2)?,
        definition: row.try_get(3)?,
        revision: row.try_get(4)?,
        created_ms: row.try_get(5)?,
    })
}

fn name_taken(name: &str) -> String {
    format!("a flow called `{name}` exists in this project")
}

/// # Errors
///
/// [`Error::Taken`] when the project has a flow of this name.
pub async fn insert(tx: &mut Tx, flow: &Flow) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO flows (id, project, name, definition, revision, created_ms) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&flow.id)
    .bind(&flow.project)
    .bind(&flow.name)
    .bind(&flow.definition)
    .bind(&flow.revision)
    .bind(flow.created_ms)
    .execute(tx)
    .await
    .map_err(|error| taken(error, || name_taken(&flow.name)))?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Flow>, Error> {
    let text = format!("SELECT {COLUMNS} FROM flows WHERE id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(flow).transpose()?)
}

/// Whether the definition is still the one that the caller knows.
pub async fn revision(tx: &mut Tx, id: &str) -> Result<Option<String>, Error> {
    let row = sqlx::query("SELECT revision FROM flows WHERE id = ?")
        .bind(id)
        .fetch_optional(tx)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub async fn define(tx: &mut Tx, id: &str, definition: &str, revision: &str) -> Result<(), Error> {
    sqlx::query("UPDATE flows SET definition = ?, revision = ? WHERE id = ?")
        .bind(definition)
        .bind(revision)
        .bind(id)
        .execute(tx)
        .await?;
    Ok(())
}

/// # Errors
///
/// [`Error::Taken`] when the project has a flow of this name.
pub async fn rename(tx: &mut Tx, id: &str, name: &str) -> Result<(), Error> {
    sqlx::query("UPDATE flows SET name = ? WHERE id = ?")
        .bind(name)
        .bind(id)
        .execute(tx)
        .await
        .map_err(|error| taken(error, || name_taken(name)))?;
    Ok(())
}

/// A new revision: what is known of the flow's blocks must be read again.
pub async fn touch(tx: &mut Tx, id: &str, revision: &str) -> Result<(), Error> {
    sqlx::query("UPDATE flows SET revision = ? WHERE id = ?")
        .bind(revision)
        .bind(id)
        .execute(tx)
        .await?;
    Ok(())
}

/// A new revision for every flow with a block of the installation.
pub async fn touch_users(tx: &mut Tx, installation: &str, revision: &str) -> Result<(), Error> {
    sqlx::query(
        "UPDATE flows SET revision = ? WHERE id IN \
         (SELECT flow FROM components WHERE installation = ? AND flow IS NOT NULL)",
    )
    .bind(revision)
    .bind(installation)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn delete(tx: &mut Tx, id: &str) -> Result<(), Error> {
    for text in [
        "DELETE FROM data_table_flows WHERE flow = ?",
        "DELETE FROM flows WHERE id = ?",
    ] {
        sqlx::query(text).bind(id).execute(&mut *tx).await?;
    }
    Ok(())
}

/// The ids of a project's flows.
pub async fn of_project(tx: &mut Tx, project: &str) -> Result<Vec<String>, Error> {
    let rows = sqlx::query("SELECT id FROM flows WHERE project = ? ORDER BY id")
        .bind(project)
        .fetch_all(tx)
        .await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?)
}

// === impl Store ===

impl Store {
    pub async fn flow(&self, id: &str) -> Result<Option<Flow>, Error> {
        get(&mut *self.reader().await?, id).await
    }

    pub async fn flows(&self) -> Result<Vec<Flow>, Error> {
        let text = format!("SELECT {COLUMNS} FROM flows ORDER BY id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(flow).collect::<Result<_, _>>()?)
    }
}
