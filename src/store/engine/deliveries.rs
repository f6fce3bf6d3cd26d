//! Deliveries: an event at an input of a block, and what became of it.

use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::engine::json_or_null;
use crate::store::{Error, Store, Tx};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The config of the input is being evaluated.
    Evaluating,
    /// It starts once the older ones of its input have.
    Ready,
    /// Its handler has a job.
    Started,
    /// It sleeps.
    Waiting,
    Done,
    Failed,
}

#[derive(Debug, Clone)]
pub struct Delivery {
    pub seq: i64,
    pub event: String,
    pub flow: String,
    pub block: String,
    pub input: String,
    pub state: State,
    pub error: Option<String>,
    /// Its last job.
    pub job: Option<i64>,
    /// Evaluated fields, constants left out.
    pub config: Option<Map<String, Value>>,
    pub tries: u32,
    pub created_ms: i64,
    pub ended_ms: Option<i64>,
}

const COLUMNS: &str = "d.seq, d.event, d.flow, d.block, d.input, d.state, d.error, d.job, \
     d.config, d.tries, d.created_ms, d.ended_ms";

// === impl State ===

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evaluating => "evaluating",
            Self::Ready => "ready",
            Self::Started => "started",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "evaluating" => Self::Evaluating,
            "ready" => Self::Ready,
            "started" => Self::Started,
            "waiting" => Self::Waiting,
            "done" => Self::Done,
            _ => Self::Failed,
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

fn delivery(row: &SqliteRow) -> Result<Delivery, sqlx::Error> {
    Ok(Delivery {
        seq: row.try_get(0)?,
        event: row.try_get(1)?,
        flow: row.try_get(2)?,
        block: row.try_get(3)?,
        input: row.try_get(4)?,
        state: State::parse(row.try_get(5)?),
        error: row.try_get(6)?,
        job: row.try_get(7)?,
        config: json_or_null(row, 8)?,
        tries: row.try_get(9)?,
        created_ms: row.try_get(10)?,
        ended_ms: row.try_get(11)?,
    })
}

/// Writes a new delivery and answers its number.
pub async fn insert(tx: &mut Tx, it: &Delivery) -> Result<i64, Error> {
    let done = sqlx::query(
        "INSERT INTO deliveries (event, flow, block, input, state, error, tries, created_ms, ended_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&it.event)
    .bind(&it.flow)
    .bind(&it.block)
    .bind(&it.input)
    .bind(it.state.as_str())
    .bind(&it.error)
    .bind(it.tries)
    .bind(it.created_ms)
    .bind(it.ended_ms)
    .execute(tx)
    .await?;
    Ok(done.last_insert_rowid())
}

/// Writes what may have changed.
pub async fn update(tx: &mut Tx, it: &Delivery) -> Result<(), Error> {
    let config = it.config.as_ref().map(|config| serde_json::json!(config));
    sqlx::query(
        "UPDATE deliveries SET state = ?, error = ?, job = ?, config = ?, tries = ?, \
         ended_ms = ? WHERE seq = ?",
    )
    .bind(it.state.as_str())
    .bind(&it.error)
    .bind(it.job)
    .bind(config.map(|config| config.to_string()))
    .bind(it.tries)
    .bind(it.ended_ms)
    .bind(it.seq)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, seq: i64) -> Result<Option<Delivery>, Error> {
    let text = format!("SELECT {COLUMNS} FROM deliveries d WHERE d.seq = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(seq)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(delivery).transpose()?)
}

/// Ends a started delivery well.
pub async fn done(tx: &mut Tx, seq: i64, now_ms: i64) -> Result<(), Error> {
    sqlx::query(
        "UPDATE deliveries SET state = 'done', ended_ms = ? WHERE seq = ? AND state = 'started'",
    )
    .bind(now_ms)
    .bind(seq)
    .execute(tx)
    .await?;
    Ok(())
}

/// The oldest of an input that has not started.
pub async fn first_on_hold(
    tx: &mut Tx,
    block: &str,
    input: &str,
) -> Result<Option<Delivery>, Error> {
    let text = format!(
        "SELECT {COLUMNS} FROM deliveries d WHERE d.block = ? AND d.input = ? \
         AND d.state IN ('evaluating', 'ready') ORDER BY d.seq LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(block)
        .bind(input)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(delivery).transpose()?)
}

/// Fails what a block that goes away has not taken.
pub async fn fail_all_of(tx: &mut Tx, block: &str, error: &str, now_ms: i64) -> Result<(), Error> {
    sqlx::query(
        "UPDATE deliveries SET state = 'failed', error = ?, ended_ms = ? \
         WHERE block = ? AND state IN ('evaluating', 'ready', 'waiting')",
    )
    .bind(error)
    .bind(now_ms)
    .bind(block)
    .execute(tx)
    .await?;
    Ok(())
}

// === impl Store ===

impl Store {
    pub async fn delivery(&self, seq: i64) -> Result<Option<Delivery>, Error> {
        get(&mut *self.reader().await?, seq).await
    }

    /// The deliveries of some events, in order, each with the id of its job.
    pub async fn deliveries(
        &self,
        events: &[String],
    ) -> Result<Vec<(Delivery, Option<String>)>, Error> {
        let text = format!(
            "SELECT {COLUMNS}, j.id FROM deliveries d LEFT JOIN jobs j ON j.seq = d.job \
             WHERE d.event IN (SELECT value FROM json_each(?)) ORDER BY d.seq"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(serde_json::json!(events).to_string())
            .fetch_all(&self.readers)
            .await?;
        let pair = |row: &SqliteRow| Ok((delivery(row)?, row.try_get(12)?));
        Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Deliveries of a flow that ended at this time or later, oldest first, each
    /// with the id of its job.
    pub async fn ended_since(
        &self,
        flow: &str,
        since_ms: i64,
        limit: u32,
    ) -> Result<Vec<(Delivery, Option<String>)>, Error> {
        let text = format!(
            "SELECT {COLUMNS}, j.id FROM deliveries d LEFT JOIN jobs j ON j.seq = d.job \
             WHERE d.flow = ? AND d.ended_ms >= ? ORDER BY d.ended_ms, d.seq LIMIT ?"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(flow)
            .bind(since_ms)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        let pair = |row: &SqliteRow| Ok((delivery(row)?, row.try_get(12)?));
        Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
    }

    /// How many deliveries and events of a flow are under way.
    pub async fn open_in_flow(&self, flow: &str) -> Result<i64, Error> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM deliveries WHERE flow = ?1 AND state NOT IN ('done', 'failed')) \
             + (SELECT COUNT(*) FROM events WHERE flow = ?1 AND state IN ('customizing', 'customized'))",
        )
        .bind(flow)
        .fetch_one(&self.readers)
        .await?;
        Ok(row.try_get(0)?)
    }
}
