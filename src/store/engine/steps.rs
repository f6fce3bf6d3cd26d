//! Jobs of the engine: made inside a step's transaction, and settled by one.

use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::jobs::{Progress, Spec, State};
use crate::store::{Error, Store, Tx, int};

/// A job with a purpose that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub seq: i64,
    pub id: String,
    /// JSON: which step it is for.
    pub purpose: Arc<str>,
    pub state: State,
    /// JSON: `{"result":…}`, `{"cause":…}` or `{"reason":…}`.
    pub outcome: Arc<Vec<u8>>,
}

/// A line of a log, with the job that wrote it.
#[derive(Debug, Clone)]
pub struct Line {
    pub job: String,
    pub kind: String,
    pub at_us: u64,
    pub level: String,
    pub text: String,
}

/// Writes a job that nobody has touched. The line takes it after the commit.
pub async fn create(tx: &mut Tx, spec: &Spec, payload: &[u8]) -> Result<(), Error> {
    let progress = Progress::queued();
    sqlx::query(
        "INSERT INTO jobs (seq, id, pool, project, kind, high, identity, block, timeout_ms, \
         expires_ms, created_us, state, dispatch, delivery, purpose) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(spec.seq)
    .bind(&spec.id)
    .bind(&spec.pool)
    .bind(&spec.project)
    .bind(&spec.kind)
    .bind(spec.high)
    .bind(&spec.identity)
    .bind(&spec.block)
    .bind(spec.timeout_ms)
    .bind(spec.expires_ms.map(int))
    .bind(int(spec.created_us))
    .bind(progress.state.as_str())
    .bind(progress.dispatch)
    .bind(progress.delivery)
    .bind(spec.purpose.as_deref())
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO payloads (seq, payload) VALUES (?, ?)")
        .bind(spec.seq)
        .bind(payload)
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether a job of this pool is to say what is in a bundle.
pub async fn is_being_described(tx: &mut Tx, digest: &str, pool: &str) -> Result<bool, Error> {
    let row = sqlx::query(
        "SELECT 1 FROM jobs WHERE purpose IS NOT NULL AND settled = 0 AND kind = 'describe' \
         AND pool = ? AND json_extract(purpose, '$.digest') = ? LIMIT 1",
    )
    .bind(pool)
    .bind(digest)
    .fetch_optional(tx)
    .await?;
    Ok(row.is_some())
}

/// Marks a job's end as taken in; false when it was before.
pub async fn settle(tx: &mut Tx, seq: i64) -> Result<bool, Error> {
    let done = sqlx::query("UPDATE jobs SET settled = 1 WHERE seq = ? AND settled = 0")
        .bind(seq)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn ended(row: &SqliteRow) -> Result<Ended, sqlx::Error> {
    let word: String = row.try_get(3)?;
    let purpose: String = row.try_get(2)?;
    let outcome: Option<Vec<u8>> = row.try_get(4)?;
    Ok(Ended {
        seq: row.try_get(0)?,
        id: row.try_get(1)?,
        purpose: purpose.into(),
        state: State::parse(&word).unwrap_or(State::Failed),
        outcome: Arc::new(outcome.unwrap_or_default()),
    })
}

// === impl Store ===

impl Store {
    /// Jobs that have ended and whose step has not taken that in, oldest first.
    pub async fn unsettled(&self) -> Result<Vec<Ended>, Error> {
        let rows = sqlx::query(
            "SELECT j.seq, j.id, j.purpose, j.state, e.outcome FROM jobs j \
             LEFT JOIN endings e ON e.seq = j.seq \
             WHERE j.purpose IS NOT NULL AND j.settled = 0 AND j.finished_us IS NOT NULL \
             ORDER BY j.finished_us, j.seq",
        )
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(ended).collect::<Result<_, _>>()?)
    }

    /// What the last jobs of a component wrote, oldest first.
    pub async fn component_log(
        &self,
        component: &str,
        jobs: u32,
        lines: u32,
    ) -> Result<Vec<Line>, Error> {
        let rows = sqlx::query(
            "SELECT j.id, j.kind, l.at_us, l.level, l.text FROM (SELECT seq, id, kind FROM jobs \
             WHERE json_extract(purpose, '$.component') = ? AND purpose IS NOT NULL \
             ORDER BY seq DESC LIMIT ?) j JOIN logs l ON l.job = j.seq \
             ORDER BY l.at_us DESC, l.line DESC LIMIT ?",
        )
        .bind(component)
        .bind(jobs)
        .bind(lines)
        .fetch_all(&self.readers)
        .await?;
        let lines = rows.iter().rev().map(line);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    /// What the handlers of an event wrote, oldest first.
    pub async fn event_log(&self, event: &str, lines: u32) -> Result<Vec<Line>, Error> {
        let rows = sqlx::query(
            "SELECT j.id, j.kind, l.at_us, l.level, l.text FROM deliveries d \
             JOIN jobs j ON j.seq = d.job JOIN logs l ON l.job = j.seq \
             WHERE d.event = ? ORDER BY l.at_us, l.line LIMIT ?",
        )
        .bind(event)
        .bind(lines)
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(line).collect::<Result<_, _>>()?)
    }
}

fn line(row: &SqliteRow) -> Result<Line, sqlx::Error> {
    Ok(Line {
        job: row.try_get(0)?,
        kind: row.try_get(1)?,
        at_us: crate::store::uint(row.try_get(2)?),
        level: row.try_get(3)?,
        text: row.try_get(4)?,
    })
}
