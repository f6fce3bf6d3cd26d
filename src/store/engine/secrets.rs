//! Secrets of projects. A value is read by the engine alone; no view has it.

use std::collections::BTreeMap;

use sqlx::Row;

use crate::store::{Error, Store, Tx};

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub key: String,
    pub updated_ms: i64,
}

pub async fn put(
    tx: &mut Tx,
    project: &str,
    key: &str,
    value: &str,
    now_ms: i64,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO secrets (project, key, value, updated_ms) VALUES (?, ?, ?, ?)",
    )
    .bind(project)
    .bind(key)
    .bind(value)
    .bind(now_ms)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn exists(tx: &mut Tx, project: &str, key: &str) -> Result<bool, Error> {
    let row = sqlx::query("SELECT 1 FROM secrets WHERE project = ? AND key = ?")
        .bind(project)
        .bind(key)
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

/// False when there was none.
pub async fn delete(tx: &mut Tx, project: &str, key: &str) -> Result<bool, Error> {
    let done = sqlx::query("DELETE FROM secrets WHERE project = ? AND key = ?")
        .bind(project)
        .bind(key)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// All of a project's, with their values.
pub async fn values(tx: &mut Tx, project: &str) -> Result<BTreeMap<String, String>, Error> {
    let rows = sqlx::query("SELECT key, value FROM secrets WHERE project = ?")
        .bind(project)
        .fetch_all(tx)
        .await?;
    let pair = |row: &sqlx::sqlite::SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?));
    Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
}

// === impl Store ===

impl Store {
    pub async fn secrets(&self, project: &str) -> Result<Vec<Secret>, Error> {
        let rows =
            sqlx::query("SELECT key, updated_ms FROM secrets WHERE project = ? ORDER BY key")
                .bind(project)
                .fetch_all(&self.readers)
                .await?;
        let secret = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Secret {
                key: row.try_get(0)?,
                updated_ms: row.try_get(1)?,
            })
        };
        Ok(rows
            .iter()
            .map(secret)
            .collect::<Result<_, sqlx::Error>>()?)
    }
}
