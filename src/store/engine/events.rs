//! Events: what blocks emitted and what came from outside.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::engine::{json_or_null, nth_id};
use crate::store::{Error, Store, Tx};

/// Where an event stands on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its body waits for the customization of its output.
    Customizing,
    /// It has its body and waits for an older one of the same output.
    Customized,
    /// It is delivered wherever it goes.
    Sent,
    /// Its customization failed; it goes nowhere.
    Failed,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub seq: i64,
    pub id: String,
    pub flow: String,
    /// `None`: it came from outside.
    pub block: Option<String>,
    pub output: Option<String>,
    /// JSON.
    pub body: String,
    pub parent: Option<String>,
    pub secondary: Option<Vec<String>>,
    /// JSON whose meaning is the engine's.
    pub lineage: String,
    pub echo: bool,
    pub state: State,
    pub error: Option<String>,
    /// The job that emitted it.
    pub job: Option<i64>,
    pub fingerprint: Option<String>,
    pub created_ms: i64,
}

const COLUMNS: &str = "e.seq, e.id, e.flow, e.block, e.output, e.body, e.parent, e.secondary, \
     e.lineage, e.echo, e.state, e.error, e.job, e.fingerprint, e.created_ms";

// === impl State ===

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customizing => "customizing",
            Self::Customized => "customized",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "customizing" => Self::Customizing,
            "customized" => Self::Customized,
            "sent" => Self::Sent,
            _ => Self::Failed,
        }
    }
}

fn event(row: &SqliteRow) -> Result<Event, sqlx::Error> {
    Ok(Event {
        seq: row.try_get(0)?,
        id: row.try_get(1)?,
        flow: row.try_get(2)?,
        block: row.try_get(3)?,
        output: row.try_get(4)?,
        body: row.try_get(5)?,
        parent: row.try_get(6)?,
        secondary: json_or_null(row, 7)?,
        lineage: row.try_get(8)?,
        echo: row.try_get(9)?,
        state: State::parse(row.try_get(10)?),
        error: row.try_get(11)?,
        job: row.try_get(12)?,
        fingerprint: row.try_get(13)?,
        created_ms: row.try_get(14)?,
    })
}

/// Writes a new event; its number is given here.
pub async fn insert(tx: &mut Tx, it: &Event) -> Result<(), Error> {
    let secondary = it.secondary.as_ref().map(|ids| serde_json::json!(ids));
    sqlx::query(
        "INSERT INTO events (id, flow, block, output, body, parent, secondary, lineage, echo, \
         state, error, job, fingerprint, created_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&it.id)
    .bind(&it.flow)
    .bind(&it.block)
    .bind(&it.output)
    .bind(&it.body)
    .bind(&it.parent)
    .bind(secondary.map(|ids| ids.to_string()))
    .bind(&it.lineage)
    .bind(it.echo)
    .bind(it.state.as_str())
    .bind(&it.error)
    .bind(it.job)
    .bind(&it.fingerprint)
    .bind(it.created_ms)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Event>, Error> {
    let text = format!("SELECT {COLUMNS} FROM events e WHERE e.id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(event).transpose()?)
}

/// The lineage (JSON) of an event of this flow.
pub async fn lineage(tx: &mut Tx, flow: &str, id: &str) -> Result<Option<String>, Error> {
    let row = sqlx::query("SELECT lineage FROM events WHERE id = ? AND flow = ?")
        .bind(id)
        .bind(flow)
        .fetch_optional(tx)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub async fn body(tx: &mut Tx, id: &str) -> Result<Option<Value>, Error> {
    let row = sqlx::query("SELECT body FROM events WHERE id = ?")
        .bind(id)
        .fetch_optional(tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let text: &str = row.try_get(0)?;
    Ok(serde_json::from_str(text).ok())
}

/// Takes the customized body, or the error, of an event that waits for it.
pub async fn customized(
    tx: &mut Tx,
    id: &str,
    body: Option<&str>,
    error: Option<&str>,
) -> Result<(), Error> {
    let state = if error.is_some() {
        State::Failed
    } else {
        State::Customized
    };
    sqlx::query("UPDATE events SET state = ?, body = COALESCE(?, body), error = ? WHERE id = ?")
        .bind(state.as_str())
        .bind(body)
        .bind(error)
        .bind(id)
        .execute(tx)
        .await?;
    Ok(())
}

/// The oldest event of an output that has not gone out.
pub async fn first_on_hold(tx: &mut Tx, block: &str, output: &str) -> Result<Option<Event>, Error> {
    let text = format!(
        "SELECT {COLUMNS} FROM events e WHERE e.block = ? AND e.output = ? \
         AND e.state IN ('customizing', 'customized') ORDER BY e.seq LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(block)
        .bind(output)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(event).transpose()?)
}

pub async fn sent(tx: &mut Tx, id: &str) -> Result<(), Error> {
    sqlx::query("UPDATE events SET state = 'sent' WHERE id = ?")
        .bind(id)
        .execute(tx)
        .await?;
    Ok(())
}

/// The n-th event (from 0) that a job has emitted with this fingerprint.
pub async fn nth_said(
    tx: &mut Tx,
    job: i64,
    fingerprint: &str,
    nth: i64,
) -> Result<Option<String>, Error> {
    let query =
        "SELECT id FROM events WHERE job = ? AND fingerprint = ? ORDER BY seq LIMIT 1 OFFSET ?";
    nth_id(tx, query, job, fingerprint, nth).await
}

/// Counts that an attempt says a fingerprint; answers how often it did before.
pub async fn say(
    tx: &mut Tx,
    job: i64,
    attempt: (u32, u32),
    fingerprint: &str,
) -> Result<i64, Error> {
    let row = sqlx::query(
        "INSERT INTO repeats (job, dispatch, delivery, fingerprint, said) VALUES (?, ?, ?, ?, 1) \
         ON CONFLICT DO UPDATE SET said = said + 1 RETURNING said",
    )
    .bind(job)
    .bind(attempt.0)
    .bind(attempt.1)
    .bind(fingerprint)
    .fetch_one(tx)
    .await?;
    let said: i64 = row.try_get(0)?;
    Ok(said - 1)
}

/// Events that a job has emitted or announced.
pub async fn count_of_job(tx: &mut Tx, job: i64) -> Result<i64, Error> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM events WHERE job = ?1) \
         + (SELECT COUNT(*) FROM pendings WHERE job = ?1) AS events",
    )
    .bind(job)
    .fetch_one(tx)
    .await?;
    Ok(row.try_get("events")?)
}

// === impl Store ===

impl Store {
    pub async fn event(&self, id: &str) -> Result<Option<Event>, Error> {
        get(&mut *self.reader().await?, id).await
    }

    /// Ids of the jobs with these numbers, of those that are kept still.
    pub async fn job_ids(&self, seqs: &[i64]) -> Result<BTreeMap<i64, String>, Error> {
        let rows =
            sqlx::query("SELECT seq, id FROM jobs WHERE seq IN (SELECT value FROM json_each(?))")
                .bind(serde_json::json!(seqs).to_string())
                .fetch_all(&self.readers)
                .await?;
        let pair = |row: &SqliteRow| Ok((row.try_get("seq")?, row.try_get("id")?));
        Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Events of a flow after (or, newest first, before) a number.
    pub async fn events(
        &self,
        flow: &str,
        after: Option<i64>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let text = format!(
            "SELECT {COLUMNS} FROM events e WHERE e.flow = ?1 AND (?2 IS NULL OR e.seq > ?2) \
             AND (?3 IS NULL OR e.seq < ?3) ORDER BY e.seq {order} LIMIT ?4"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(flow)
            .bind(after)
            .bind(before)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(event).collect::<Result<_, _>>()?)
    }

    /// Removes events that are older than this, with what became of them; says how
    /// many. What is still under way stays.
    pub async fn sweep_events(&self, before_ms: i64, limit: u32) -> Result<usize, Error> {
        self.change(move |c| {
            Box::pin(async move {
                let rows = sqlx::query(
                    "SELECT id FROM events e WHERE created_ms < ? AND NOT EXISTS \
                     (SELECT 1 FROM deliveries d WHERE d.event = e.id \
                     AND d.state NOT IN ('done', 'failed')) LIMIT ?",
                )
                .bind(before_ms)
                .bind(limit)
                .fetch_all(&mut *c)
                .await?;
                for row in &rows {
                    let id: &str = row.try_get(0)?;
                    for text in [
                        "DELETE FROM deliveries WHERE event = ?",
                        "DELETE FROM events WHERE id = ?",
                    ] {
                        sqlx::query(text).bind(id).execute(&mut *c).await?;
                    }
                }
                sqlx::query("DELETE FROM pendings WHERE created_ms < ? AND open = 0")
                    .bind(before_ms)
                    .execute(&mut *c)
                    .await?;
                sqlx::query("DELETE FROM repeats WHERE job NOT IN (SELECT seq FROM jobs)")
                    .execute(c)
                    .await?;
                Ok(rows.len())
            })
        })
        .await
    }

    /// How many deliveries of a flow stand in which state.
    pub async fn delivery_counts(&self, flow: &str) -> Result<BTreeMap<String, i64>, Error> {
        let rows =
            sqlx::query("SELECT state, COUNT(*) FROM deliveries WHERE flow = ? GROUP BY state")
                .bind(flow)
                .fetch_all(&self.readers)
                .await?;
        let pair = |row: &SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?));
        Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
    }
}
