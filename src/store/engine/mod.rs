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
