//! Pending events.

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::engine::{json, nth_id};
use crate::store::{Error, Store, Tx};

#[derive(Debug, Clone)]
pub struct Pending {
    pub id: String,
    pub flow: String,
    pub block: String,
    /// JSON whose meaning is the engine's.
    pub pending: Value,
    pub open: bool,
    /// The job that made it.
    pub job: Option<i64>,
    pub fingerprint: Option<String>,
    pub created_ms: i64,
}

fn pending(row: &SqliteRow) -> Result<Pending, sqlx::Error> {
    Ok(Pending {
        id: row.try_get(0)?,
        flow: row.try_get(1)?,
        block: row.try_get(2)?,
        pending: json(row, 3)?,
        open: row.try_get(4)?,
        job: row.try_get(5)?,
        fingerprint: row.try_get(6)?,
        created_ms: row.try_get(7)?,
    })
}

const COLUMNS: &str = "id, flow, block, pending, open, job, fingerprint, created_ms";

pub async fn put(tx: &mut Tx, it: &Pending) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO pendings (id, flow, block, pending, open, job, fingerprint, created_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&it.id)
    .bind(&it.flow)
    .bind(&it.block)
    .bind(it.pending.to_string())
    .bind(it.open)
    .bind(it.job)
    .bind(&it.fingerprint)
    .bind(it.created_ms)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Pending>, Error> {
    let text = format!("SELECT {COLUMNS} FROM pendings WHERE id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(pending).transpose()?)
}

/// The n-th (from 0) that a job has made with this fingerprint.
pub async fn nth_said(
    tx: &mut Tx,
    job: i64,
    fingerprint: &str,
    nth: i64,
) -> Result<Option<String>, Error> {
    let query =
        "SELECT id FROM pendings WHERE job = ? AND fingerprint = ? ORDER BY id LIMIT 1 OFFSET ?";
    nth_id(tx, query, job, fingerprint, nth).await
}

// === impl Store ===

impl Store {
    /// Pending events of a flow, newest first.
    pub async fn pendings(&self, flow: &str, limit: u32) -> Result<Vec<Pending>, Error> {
        let text =
            format!("SELECT {COLUMNS} FROM pendings WHERE flow = ? ORDER BY id DESC LIMIT ?");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(flow)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(pending).collect::<Result<_, _>>()?)
    }
}
