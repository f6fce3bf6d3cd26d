//! The SDK calls a job made. A call that is sent twice, because its answer was
//! lost, is carried out once: the second gets the first one's answer.

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::store::kv;
use crate::store::{Error, Store, int, uint};

/// How much of a call's arguments is kept for views, in bytes of JSON.
pub const ARGS_BYTES_KEPT: usize = 16 * 1024;

/// Which call of which attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    /// The job's row.
    pub job: i64,
    pub dispatch: u32,
    pub delivery: u32,
    pub number: u32,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    pub number: Number,
    pub at_us: u64,
    pub method: String,
    /// JSON, or `None` when it was too much to keep.
    pub args: Option<String>,
    /// JSON.
    pub answer: Option<String>,
    pub error: Option<String>,
}

/// What there is to do beside recording.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Nothing: the answer is known.
    Answer(Value),
    Kv {
        scope: String,
        op: kv::Op,
    },
}

/// Turns what the key-value store said into the call's answer.
pub type Render = fn(kv::Answer) -> Value;

// === impl Store ===

impl Store {
    /// Carries a call out and records it, in one change; answers with its value.
    ///
    /// `keep` is false for a job that has recorded enough: then only the effect happens.
    pub async fn call(
        &self,
        call: Call,
        effect: Effect,
        render: Render,
        now_ms: u64,
        keep: bool,
    ) -> Result<Value, Error> {
        self.change(move |c| {
            Box::pin(async move {
                let earlier = answered(c, &call.number).await?;
                if let Earlier::Answered(answer) = earlier {
                    return Ok(answer);
                }
                let keep = keep && matches!(earlier, Earlier::Never);
                let reads = effect.only_reads();
                let answer = match effect {
                    Effect::Answer(value) => value,
                    Effect::Kv { scope, op } => render(kv::run(c, &scope, op, now_ms).await?),
                };
                if keep {
                    // What was read is read again if asked again; it need not be kept.
                    let kept = (!reads).then(|| answer.to_string());
                    record(c, call, kept, None).await?;
                }
                Ok(answer)
            })
        })
        .await
    }

    /// The calls of one job, in order.
    pub async fn calls(&self, seq: i64, limit: u32) -> Result<Vec<Call>, Error> {
        let rows = sqlx::query(
            "SELECT job, dispatch, delivery, number, at_us, method, args, answer, error FROM calls \
             WHERE job = ? ORDER BY dispatch, delivery, at_us, number LIMIT ?",
        )
        .bind(seq)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let call = |row: &SqliteRow| {
            Ok(Call {
                number: Number {
                    job: row.try_get(0)?,
                    dispatch: row.try_get(1)?,
                    delivery: row.try_get(2)?,
                    number: row.try_get(3)?,
                },
                at_us: uint(row.try_get(4)?),
                method: row.try_get(5)?,
                args: row.try_get(6)?,
                answer: row.try_get(7)?,
                error: row.try_get(8)?,
            })
        };
        Ok(rows.iter().map(call).collect::<Result<_, sqlx::Error>>()?)
    }
}

/// What is known of a call that may have been sent before.
pub enum Earlier {
    Never,
    /// Recorded, but its answer is not kept.
    Asked,
    Answered(Value),
}

// === impl Effect ===

impl Effect {
    fn only_reads(&self) -> bool {
        match self {
            Self::Answer(_) => false,
            Self::Kv { op, .. } => matches!(op, kv::Op::GetMany(_) | kv::Op::List { .. }),
        }
    }
}

/// The answer of a call, if it was carried out.
pub async fn answered(c: &mut SqliteConnection, number: &Number) -> Result<Earlier, Error> {
    let row = sqlx::query(
        "SELECT answer FROM calls WHERE job = ? AND dispatch = ? AND delivery = ? AND number = ?",
    )
    .bind(number.job)
    .bind(number.dispatch)
    .bind(number.delivery)
    .bind(number.number)
    .fetch_optional(c)
    .await?;
    let answer: Option<Option<String>> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(match answer {
        None => Earlier::Never,
        Some(None) => Earlier::Asked,
        Some(Some(json)) => Earlier::Answered(serde_json::from_str(&json).unwrap_or(Value::Null)),
    })
}

/// The answer of the n-th call (from 0) by which a job has said this.
pub async fn nth_said(
    c: &mut SqliteConnection,
    job: i64,
    said: &str,
    nth: i64,
) -> Result<Option<Value>, Error> {
    let row = sqlx::query(
        "SELECT answer FROM calls WHERE job = ? AND said = ? \
         ORDER BY dispatch, delivery, number LIMIT 1 OFFSET ?",
    )
    .bind(job)
    .bind(said)
    .bind(nth)
    .fetch_optional(c)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let answer: Option<String> = row.try_get("answer")?;
    let answer = answer.and_then(|json| serde_json::from_str(&json).ok());
    Ok(Some(answer.unwrap_or_default()))
}

/// Notes a call and its answer; `said` is what a later attempt of its job is
/// recognised by.
pub async fn record(
    c: &mut SqliteConnection,
    call: Call,
    answer: Option<String>,
    said: Option<&str>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO calls (job, dispatch, delivery, number, at_us, method, args, answer, error, said) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(call.number.job)
    .bind(call.number.dispatch)
    .bind(call.number.delivery)
    .bind(call.number.number)
    .bind(int(call.at_us))
    .bind(call.method)
    .bind(call.args)
    .bind(answer)
    .bind(call.error)
    .bind(said)
    .execute(c)
    .await?;
    Ok(())
}
