//! Whether anything of a flow is still to come: jobs under way, timers.

use sqlx::Row;

use crate::store::{Error, Store};

/// What a flow's blocks, and the apps they belong to, still have before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Jobs whose end the engine has not taken in yet.
    pub jobs: i64,
    /// When the next timer of an app or a block is due. Schedules and the runs
    /// of lives do not count: they go on for ever.
    pub next_timer_ms: Option<i64>,
}

// === impl Store ===

impl Store {
    pub async fn ahead_in_flow(&self, flow: &str) -> Result<Ahead, Error> {
        let row = sqlx::query(
            "WITH owners AS (SELECT id FROM components WHERE flow = ?1 \
             UNION SELECT installation FROM components WHERE flow = ?1 AND installation IS NOT NULL) \
             SELECT (SELECT COUNT(*) FROM jobs WHERE purpose IS NOT NULL AND settled = 0 \
             AND json_extract(purpose, '$.component') IN (SELECT id FROM owners)) AS jobs, \
             (SELECT MIN(due_ms) FROM timers WHERE component IN (SELECT id FROM owners) \
             AND json_extract(due, '$.due') = 'app') AS next_timer_ms",
        )
        .bind(flow)
        .fetch_one(&self.readers)
        .await?;
        Ok(Ahead {
            jobs: row.try_get("jobs")?,
            next_timer_ms: row.try_get("next_timer_ms")?,
        })
    }
}
