//! Jobs: the shape of one at rest, and how they are read. How they are written
//! is `gathered`'s. What state may follow what is the gateway's lifecycle.

use std::sync::Arc;

use futures::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, uint};

/// Most jobs in one answer of [`Store::jobs`].
pub const LIST_MAX: u32 = 500;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The gateway has custody and will hand it out.
    Queued,
    /// Handed to a session that has not answered.
    Dispatched,
    /// The agent's broker has custody.
    Accepted,
    /// A worker runs it.
    Started,
    Succeeded,
    Failed,
    Cancelled,
}

/// What never changes about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Order of creation; also the row.
    pub seq: i64,
    pub id: String,
    pub pool: String,
    pub project: String,
    pub kind: String,
    pub high: bool,
    /// JSON of the proto's identity.
    pub identity: String,
    pub block: Option<String>,
    pub timeout_ms: u32,
    pub expires_ms: Option<u64>,
    pub created_us: u64,
    /// JSON: the engine's step that it belongs to, and that takes its end in.
    pub purpose: Option<Arc<str>>,
    /// The job that this one repeats because somebody asked for it again.
    pub replay_of: Option<String>,
}

/// What changes while it lives. A write replaces all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub state: State,
    pub dispatch: u32,
    pub delivery: u32,
    pub agent: Option<Arc<str>>,
    pub worker: Option<Arc<str>>,
    pub container: Option<Arc<str>>,
    pub origin: Option<&'static str>,
    pub dispatched_us: Option<u64>,
    pub accepted_us: Option<u64>,
    pub started_us: Option<u64>,
    pub finished_us: Option<u64>,
    pub cancel_reason: Option<Arc<str>>,
    pub cancel_us: Option<u64>,
}

/// What a job leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// JSON: `{"result":…}`, `{"cause":…}` or `{"reason":…}`.
    pub outcome: Arc<Vec<u8>>,
    /// JSON: hop name → microseconds.
    pub hops: String,
    pub log_bytes_dropped: u64,
    pub sdk_calls: u32,
}

/// One line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub job: i64,
    pub dispatch: u32,
    pub delivery: u32,
    pub line: u32,
    pub at_us: u64,
    pub level: String,
    pub text: String,
}

/// How much one attempt of a job logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSize {
    pub dispatch: u32,
    pub delivery: u32,
    pub lines: u64,
    pub bytes: u64,
}

/// An attempt that had started and did not end its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub job: i64,
    pub dispatch: u32,
    pub delivery: u32,
    pub started_us: u64,
    pub worker: Option<Arc<str>>,
    pub container: Option<Arc<str>>,
    pub origin: Option<&'static str>,
}

/// One write about a job.
#[derive(Debug, Clone)]
pub enum JobWrite {
    Create {
        spec: Arc<Spec>,
        progress: Progress,
        payload: Arc<Vec<u8>>,
    },
    Update {
        seq: i64,
        progress: Progress,
    },
    End {
        seq: i64,
        progress: Progress,
        ending: Ending,
    },
    Log(Vec<LogLine>),
    Tried(Tried),
}

/// A job as read back.
#[derive(Debug, Clone)]
pub struct Stored {
    pub spec: Spec,
    pub progress: Progress,
    pub ending: Option<Ending>,
}

/// Narrows a list; `None` is no limit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub projects: Option<Vec<String>>,
    pub pool: Option<String>,
    pub state: Option<State>,
    pub kind: Option<String>,
    /// Only jobs created before the one with this number.
    pub before: Option<i64>,
    pub limit: u32,
}

const COLUMNS: &str = "j.seq, j.id, j.pool, j.project, j.kind, j.high, j.identity, j.block, \
     j.timeout_ms, j.expires_ms, j.created_us, j.state, j.dispatch, j.delivery, j.agent, \
     j.worker, j.container, j.origin, j.dispatched_us, j.accepted_us, j.started_us, \
     j.finished_us, j.cancel_reason, j.cancel_us, j.replay_of, j.purpose";

// === impl State ===

impl State {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Dispatched,
        Self::Accepted,
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Accepted => "accepted",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Dispatched | Self::Accepted | Self::Started => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

// === impl Progress ===

impl Progress {
    /// A job nobody has touched.
    pub fn queued() -> Self {
        Self {
            state: State::Queued,
            dispatch: 0,
            delivery: 0,
            agent: None,
            worker: None,
            container: None,
            origin: None,
            dispatched_us: None,
            accepted_us: None,
            started_us: None,
            finished_us: None,
            cancel_reason: None,
            cancel_us: None,
        }
    }
}

fn read(row: &SqliteRow) -> Result<(Spec, Progress), sqlx::Error> {
    let text = |index: usize| row.try_get::<Option<String>, _>(index);
    let time = |index: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(index)?.map(uint));
    let arc = |index: usize| Ok::<_, sqlx::Error>(text(index)?.map(Arc::from));
    let spec = Spec {
        seq: row.try_get(0)?,
        id: row.try_get(1)?,
        pool: row.try_get(2)?,
        project: row.try_get(3)?,
        kind: row.try_get(4)?,
        high: row.try_get(5)?,
        identity: row.try_get(6)?,
        block: text(7)?,
        timeout_ms: row.try_get(8)?,
        expires_ms: time(9)?,
        created_us: time(10)?.unwrap_or(0),
        replay_of: row.try_get("replay_of")?,
        purpose: row.try_get::<Option<String>, _>("purpose")?.map(Arc::from),
    };
    let word: String = row.try_get(11)?;
    let state = State::parse(&word)
        .ok_or_else(|| sqlx::Error::Decode(format!("`{word}` is no state of a job").into()))?;
    let progress = Progress {
        state,
        dispatch: row.try_get(12)?,
        delivery: row.try_get(13)?,
        agent: arc(14)?,
        worker: arc(15)?,
        container: arc(16)?,
        origin: text(17)?.as_deref().and_then(origin),
        dispatched_us: time(18)?,
        accepted_us: time(19)?,
        started_us: time(20)?,
        finished_us: time(21)?,
        cancel_reason: arc(22)?,
        cancel_us: time(23)?,
    };
    Ok((spec, progress))
}

fn origin(word: &str) -> Option<&'static str> {
    ["cold", "stem", "warm"]
        .into_iter()
        .find(|known| *known == word)
}

fn with_ending(row: &SqliteRow) -> Result<Stored, sqlx::Error> {
    let (spec, progress) = read(row)?;
    let outcome: Option<Vec<u8>> = row.try_get("outcome")?;
    let ending = match outcome {
        None => None,
        Some(outcome) => Some(Ending {
            outcome: Arc::new(outcome),
            hops: row.try_get("hops")?,
            log_bytes_dropped: uint(row.try_get("log_bytes_dropped")?),
            sdk_calls: row.try_get("sdk_calls")?,
        }),
    };
    Ok(Stored {
        spec,
        progress,
        ending,
    })
}

// === impl Store ===

impl Store {
    /// The number the next job gets.
    pub async fn next_seq(&self) -> Result<i64, Error> {
        let row = sqlx::query("SELECT COALESCE(MAX(seq), 0) + 1 FROM jobs")
            .fetch_one(&self.readers)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Every job that has not ended, oldest first, without its payload.
    pub async fn live_jobs(&self) -> Result<Vec<(Spec, Progress)>, Error> {
        let text = format!(
            "SELECT {COLUMNS} FROM jobs j WHERE j.state IN ('queued', 'dispatched', 'accepted', 'started') ORDER BY j.seq"
        );
        // Row by row: there may be a million, and a row is ten times as large as what is read of it.
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch(&self.readers);
        let mut jobs = Vec::new();
        while let Some(row) = rows.try_next().await? {
            jobs.push(read(&row)?);
        }
        Ok(jobs)
    }

    /// One job by its id.
    pub async fn job(&self, id: &str) -> Result<Option<Stored>, Error> {
        let text = format!(
            "SELECT {COLUMNS}, e.outcome, e.hops, e.log_bytes_dropped, e.sdk_calls \
             FROM jobs j LEFT JOIN endings e ON e.seq = j.seq WHERE j.id = ?"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(with_ending).transpose()?)
    }

    /// Jobs, newest first, without their outcomes.
    pub async fn jobs(&self, filter: &Filter) -> Result<Vec<(Spec, Progress)>, Error> {
        let projects = filter
            .projects
            .as_ref()
            .map(|ids| serde_json::Value::from(ids.clone()).to_string());
        let text = format!(
            "SELECT {COLUMNS} FROM jobs j WHERE (?1 IS NULL OR j.seq < ?1) \
             AND (?2 IS NULL OR j.project IN (SELECT value FROM json_each(?2))) \
             AND (?3 IS NULL OR j.pool = ?3) AND (?4 IS NULL OR j.state = ?4) \
             AND (?5 IS NULL OR j.kind = ?5) ORDER BY j.seq DESC LIMIT ?6"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(filter.before)
            .bind(projects)
            .bind(filter.pool.clone())
            .bind(filter.state.map(State::as_str))
            .bind(filter.kind.clone())
            .bind(filter.limit.min(LIST_MAX))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// What a job works on.
    pub async fn payload(&self, seq: i64) -> Result<Option<Vec<u8>>, Error> {
        let row = sqlx::query("SELECT payload FROM payloads WHERE seq = ?")
            .bind(seq)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// The attempts of a job that had started and did not end it, in order.
    pub async fn tried(&self, job: i64) -> Result<Vec<Tried>, Error> {
        let rows = sqlx::query(
            "SELECT dispatch, delivery, started_us, worker, container, origin FROM tried \
             WHERE job = ? ORDER BY dispatch, delivery",
        )
        .bind(job)
        .fetch_all(&self.readers)
        .await?;
        let text = |row: &SqliteRow, name: &str| row.try_get::<Option<String>, _>(name);
        let tried = |row: &SqliteRow| {
            Ok(Tried {
                job,
                dispatch: row.try_get("dispatch")?,
                delivery: row.try_get("delivery")?,
                started_us: uint(row.try_get("started_us")?),
                worker: text(row, "worker")?.map(Arc::from),
                container: text(row, "container")?.map(Arc::from),
                origin: text(row, "origin")?.as_deref().and_then(origin),
            })
        };
        Ok(rows.iter().map(tried).collect::<Result<_, sqlx::Error>>()?)
    }

    /// How much each attempt of a job logged.
    pub async fn log_sizes(&self, seq: i64) -> Result<Vec<LogSize>, Error> {
        let rows = sqlx::query(
            "SELECT dispatch, delivery, COUNT(*), SUM(LENGTH(CAST(text AS BLOB))) FROM logs \
             WHERE job = ? GROUP BY dispatch, delivery ORDER BY dispatch, delivery",
        )
        .bind(seq)
        .fetch_all(&self.readers)
        .await?;
        let size = |row: &SqliteRow| {
            Ok(LogSize {
                dispatch: row.try_get(0)?,
                delivery: row.try_get(1)?,
                lines: uint(row.try_get(2)?),
                bytes: uint(row.try_get(3)?),
            })
        };
        Ok(rows.iter().map(size).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Lines of a job's log in order, from line number `skip` on, at most `limit`.
    pub async fn log(&self, seq: i64, skip: u32, limit: u32) -> Result<Vec<LogLine>, Error> {
        let rows = sqlx::query(
            "SELECT job, dispatch, delivery, line, at_us, level, text FROM logs \
             WHERE job = ? ORDER BY dispatch, delivery, line LIMIT ? OFFSET ?",
        )
        .bind(seq)
        .bind(limit)
        .bind(skip)
        .fetch_all(&self.readers)
        .await?;
        let line = |row: &SqliteRow| {
            Ok(LogLine {
                job: row.try_get(0)?,
                dispatch: row.try_get(1)?,
                delivery: row.try_get(2)?,
                line: row.try_get(3)?,
                at_us: uint(row.try_get(4)?),
                level: row.try_get(5)?,
                text: row.try_get(6)?,
            })
        };
        Ok(rows.iter().map(line).collect::<Result<_, sqlx::Error>>()?)
    }
}
