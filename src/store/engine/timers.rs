//! What is due at a time: timers of apps, sleeping events, next runs, schedules.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, Tx};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    pub id: String,
    pub component: String,
    /// JSON: what is due.
    pub due: String,
    pub due_ms: i64,
}

fn timer(row: &SqliteRow) -> Result<Timer, sqlx::Error> {
    Ok(Timer {
        id: row.try_get(0)?,
        component: row.try_get(1)?,
        due: row.try_get(2)?,
        due_ms: row.try_get(3)?,
    })
}

/// Sets a timer; one with the same id is replaced.
pub async fn set(tx: &mut Tx, timer: &Timer) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO timers (id, component, due, due_ms) VALUES (?, ?, ?, ?)")
        .bind(&timer.id)
        .bind(&timer.component)
        .bind(&timer.due)
        .bind(timer.due_ms)
        .execute(tx)
        .await?;
    Ok(())
}

/// Removes a timer of the component, if there is one.
pub async fn unset(tx: &mut Tx, component: &str, id: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM timers WHERE id = ? AND component = ?")
        .bind(id)
        .bind(component)
        .execute(tx)
        .await?;
    Ok(())
}

pub async fn unset_all(tx: &mut Tx, component: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM timers WHERE component = ?")
        .bind(component)
        .execute(tx)
        .await?;
    Ok(())
}

pub async fn count(tx: &mut Tx, component: &str) -> Result<i64, Error> {
    let row = sqlx::query("SELECT COUNT(*) FROM timers WHERE component = ?")
        .bind(component)
        .fetch_one(tx)
        .await?;
    Ok(row.try_get(0)?)
}

/// Takes what is due out, earliest first.
pub async fn take_due(tx: &mut Tx, now_ms: i64, limit: u32) -> Result<Vec<Timer>, Error> {
    let rows = sqlx::query(
        "SELECT id, component, due, due_ms FROM timers WHERE due_ms <= ? ORDER BY due_ms, id LIMIT ?",
    )
    .bind(now_ms)
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    let timers = rows.iter().map(timer).collect::<Result<Vec<_>, _>>()?;
    for timer in &timers {
        unset(tx, &timer.component, &timer.id).await?;
    }
    Ok(timers)
}

/// When the next one is due.
pub async fn next(tx: &mut Tx) -> Result<Option<i64>, Error> {
    let row = sqlx::query("SELECT MIN(due_ms) FROM timers")
        .fetch_one(tx)
        .await?;
    Ok(row.try_get(0)?)
}

// === impl Store ===

impl Store {
    /// Timers that a component has set by itself, the next first.
    pub async fn app_timers(&self, component: &str, limit: u32) -> Result<Vec<Timer>, Error> {
        let rows = sqlx::query(
            "SELECT id, component, due, due_ms FROM timers \
             WHERE component = ? AND json_extract(due, '$.due') = 'app' \
             ORDER BY due_ms, id LIMIT ?",
        )
        .bind(component)
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        Ok(rows.iter().map(timer).collect::<Result<_, _>>()?)
    }
}
