//! The flow engine at rest: a file of queries per noun. Each function works
//! inside the caller's transaction, so that one step of the engine is one commit.
//!
//! Owns the rows and their SQL; what follows from what is the engine's.

pub mod components;
pub mod deliveries;
pub mod events;
pub mod flows;
pub mod installations;
pub mod pendings;
pub mod quiet;
pub mod schedules;
pub mod secrets;
pub mod steps;
pub mod timers;

use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Tx};

/// A column of JSON that was written by us.
fn json<T: DeserializeOwned>(row: &SqliteRow, index: usize) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(index)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn json_or_null<T: DeserializeOwned>(
    row: &SqliteRow,
    index: usize,
) -> Result<Option<T>, sqlx::Error> {
    let text: Option<&str> = row.try_get(index)?;
    text.map(serde_json::from_str)
        .transpose()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// The id of the n-th row (from 0) that a job has made with a fingerprint, by a
/// query that takes those three.
async fn nth_id(
    tx: &mut Tx,
    query: &'static str,
    job: i64,
    fingerprint: &str,
    nth: i64,
) -> Result<Option<String>, Error> {
    let row = sqlx::query(query)
        .bind(job)
        .bind(fingerprint)
        .bind(nth)
        .fetch_optional(tx)
        .await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}
