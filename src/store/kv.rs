//! The key-value store of apps: two scopes, time to live, locks.
//!
//! ```text
//!  unlocked ──set with lock──▶ held by an id ──set with ttl 0, release, or its time-out──▶ unlocked
//! ```
//!
//! A set succeeds when the key is unlocked or held by the id it names; else
//! nothing changes and the answer is false. Several sets are all or nothing.

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::store::{Error, Store, int, uint};

/// Pairs in one page of a list.
pub const PAGE_PAIRS: usize = 100;
/// Bytes of values in one page, after which it ends early; one value always fits.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// One pair to be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    pub key: String,
    /// `None`: a pair that is only a lock, or a mark.
    pub value: Option<Value>,
    /// Seconds; 0 removes the key.
    pub ttl_s: Option<f64>,
    pub lock: Option<Lock>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Lock {
    pub id: String,
    pub timeout_s: Option<f64>,
}

/// One pair as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub key: String,
    pub value: Option<Value>,
    pub updated_ms: Option<u64>,
    /// Seconds left.
    pub ttl_s: Option<f64>,
    /// Who holds it, and for how many seconds more.
    pub lock: Option<Lock>,
}

/// What a call asks of the key-value store.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    GetMany(Vec<String>),
    SetMany(Vec<Set>),
    List {
        prefix: String,
        starting_key: Option<String>,
    },
    Delete(Vec<String>),
    Release {
        key: String,
        lock: String,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Pairs(Vec<Pair>),
    Page {
        pairs: Vec<Pair>,
        next: Option<String>,
    },
    /// Whether it was done; false when another holds a key.
    Done(bool),
}

const LIVE: &str = "(expires_ms IS NULL OR expires_ms > ?2)";

/// Carries one operation out, inside the caller's transaction.
pub(super) async fn run(
    c: &mut SqliteConnection,
    scope: &str,
    op: Op,
    now_ms: u64,
) -> Result<Answer, Error> {
    match op {
        Op::GetMany(keys) => {
            let mut pairs = Vec::with_capacity(keys.len());
            for key in keys {
                let found = get(c, scope, &key, now_ms).await?;
                pairs.push(found.unwrap_or_else(|| Pair::missing(key)));
            }
            Ok(Answer::Pairs(pairs))
        }
        Op::SetMany(sets) => set_many(c, scope, sets, now_ms).await.map(Answer::Done),
        Op::List {
            prefix,
            starting_key,
        } => list(c, scope, &prefix, starting_key, now_ms).await,
        Op::Delete(keys) => {
            for key in keys {
                sqlx::query("DELETE FROM kv WHERE scope = ? AND key = ?")
                    .bind(scope)
                    .bind(key)
                    .execute(&mut *c)
                    .await?;
            }
            Ok(Answer::Done(true))
        }
        Op::Release { key, lock } => {
            let done = sqlx::query(
                "UPDATE kv SET lock_id = NULL, lock_until_ms = NULL \
                 WHERE scope = ? AND key = ? AND lock_id = ?",
            )
            .bind(scope)
            .bind(key)
            .bind(lock)
            .execute(c)
            .await?;
            Ok(Answer::Done(done.rows_affected() > 0))
        }
    }
}

async fn get(
    c: &mut SqliteConnection,
    scope: &str,
    key: &str,
    now_ms: u64,
) -> Result<Option<Pair>, Error> {
    let text = format!(
        "SELECT key, value, updated_ms, expires_ms, lock_id, lock_until_ms FROM kv \
         WHERE scope = ?1 AND key = ?3 AND {LIVE}"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(scope)
        .bind(int(now_ms))
        .bind(key)
        .fetch_optional(c)
        .await?;
    row.as_ref().map(|row| pair(row, now_ms)).transpose()
}

fn pair(row: &SqliteRow, now_ms: u64) -> Result<Pair, Error> {
    let left = |until: i64| {
        let left_ms = uint(until).saturating_sub(now_ms);
        left_ms as f64 / 1_000.0
    };
    let value: Option<String> = row.try_get(1)?;
    let lock_id: Option<String> = row.try_get(4)?;
    let lock_until: Option<i64> = row.try_get(5)?;
    let held = lock_until.is_none_or(|until| uint(until) > now_ms);
    Ok(Pair {
        key: row.try_get(0)?,
        value: value.and_then(|json| serde_json::from_str(&json).ok()),
        updated_ms: Some(uint(row.try_get(2)?)),
        ttl_s: row.try_get::<Option<i64>, _>(3)?.map(left),
        lock: lock_id.filter(|_| held).map(|id| Lock {
            id,
            timeout_s: lock_until.map(left),
        }),
    })
}

async fn set_many(
    c: &mut SqliteConnection,
    scope: &str,
    sets: Vec<Set>,
    now_ms: u64,
) -> Result<bool, Error> {
    for set in &sets {
        let held = get(c, scope, &set.key, now_ms)
            .await?
            .and_then(|pair| pair.lock);
        let ours = set.lock.as_ref().map(|lock| lock.id.as_str());
        if held.is_some_and(|lock| Some(lock.id.as_str()) != ours) {
            return Ok(false);
        }
    }
    for set in sets {
        if set.ttl_s.is_some_and(|ttl| ttl <= 0.0) {
            sqlx::query("DELETE FROM kv WHERE scope = ? AND key = ?")
                .bind(scope)
                .bind(set.key)
                .execute(&mut *c)
                .await?;
            continue;
        }
        let until =
            |seconds: Option<f64>| seconds.map(|s| int(now_ms.saturating_add((s * 1e3) as u64)));
        sqlx::query(
            "INSERT OR REPLACE INTO kv (scope, key, value, updated_ms, expires_ms, lock_id, lock_until_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(scope)
        .bind(set.key)
        .bind(set.value.map(|value| value.to_string()))
        .bind(int(now_ms))
        .bind(until(set.ttl_s))
        .bind(set.lock.as_ref().map(|lock| lock.id.clone()))
        .bind(until(set.lock.as_ref().and_then(|lock| lock.timeout_s)))
        .execute(&mut *c)
        .await?;
    }
    Ok(true)
}

async fn list(
    c: &mut SqliteConnection,
    scope: &str,
    prefix: &str,
    starting_key: Option<String>,
    now_ms: u64,
) -> Result<Answer, Error> {
    // `substr` rather than LIKE: a prefix may hold % and _, and case counts.
    let text = format!(
        "SELECT key, value, updated_ms, expires_ms, lock_id, lock_until_ms FROM kv \
         WHERE scope = ?1 AND {LIVE} AND key >= ?3 AND substr(key, 1, length(?4)) = ?4 \
         ORDER BY key LIMIT ?5"
    );
    let from = starting_key.unwrap_or_default().max(prefix.to_owned());
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(scope)
        .bind(int(now_ms))
        .bind(from)
        .bind(prefix)
        .bind(int(PAGE_PAIRS as u64 + 1))
        .fetch_all(c)
        .await?;
    let (mut pairs, mut bytes) = (Vec::new(), 0);
    let mut next = None;
    for row in &rows {
        let value: Option<&str> = row.try_get(1)?;
        bytes += value.map_or(0, str::len);
        let full = pairs.len() == PAGE_PAIRS || bytes > PAGE_BYTES_MAX;
        if full && !pairs.is_empty() {
            next = Some(row.try_get(0)?);
            break;
        }
        pairs.push(pair(row, now_ms)?);
    }
    Ok(Answer::Page { pairs, next })
}

// === impl Store ===

impl Store {
    /// A page of a scope's pairs in the order of their keys, and where the next one begins.
    pub async fn kv_page(
        &self,
        scope: String,
        prefix: String,
        from: Option<String>,
    ) -> Result<(Vec<Pair>, Option<String>), Error> {
        let mut reader = self.reader().await?;
        let now_ms = crate::telemetry::now_ms();
        match list(&mut reader, &scope, &prefix, from, now_ms).await? {
            Answer::Page { pairs, next } => Ok((pairs, next)),
            Answer::Pairs(pairs) => Ok((pairs, None)),
            Answer::Done(_) => Ok((Vec::new(), None)),
        }
    }
}

// === impl Pair ===

impl Pair {
    fn missing(key: String) -> Self {
        Self {
            key,
            value: None,
            updated_ms: None,
            ttl_s: None,
            lock: None,
        }
    }
}
