//! What people have decided about schedules, instead of their apps.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::engine::json;
use crate::store::{Error, Tx};

/// A component's, by the key of the schedule.
pub async fn customized(tx: &mut Tx, component: &str) -> Result<BTreeMap<String, Value>, Error> {
    let rows = sqlx::query("SELECT key, definition FROM custom_schedules WHERE component = ?")
        .bind(component)
        .fetch_all(tx)
        .await?;
    let pair = |row: &SqliteRow| Ok((row.try_get("key")?, json(row, 1)?));
    Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
}

/// `None`: the app decides again.
pub async fn customize(
    tx: &mut Tx,
    component: &str,
    key: &str,
    definition: Option<&Value>,
) -> Result<(), Error> {
    let query = match definition {
        Some(definition) => sqlx::query(
            "INSERT OR REPLACE INTO custom_schedules (component, key, definition) VALUES (?, ?, ?)",
        )
        .bind(component)
        .bind(key)
        .bind(definition.to_string()),
        None => sqlx::query("DELETE FROM custom_schedules WHERE component = ? AND key = ?")
            .bind(component)
            .bind(key),
    };
    query.execute(tx).await?;
    Ok(())
}
