//! The store door: everything the gateway remembers, in one SQLite file.
//!
//! ```text
//!  roles ──writes──▶ channel ──▶ Writer: all that waits → one transaction → commit ──▶ answers
//!  roles ──reads───▶ a few read-only connections (they see what is committed)
//! ```
//!
//! Owns the file, its schema, the one writer and every SQL text. Does not own
//! any decision: what may follow what is the gateway's. Two kinds of write:
//! *job writes* are data; they are tried again until they are committed (a full
//! disk delays them, and [`Store::trouble`] says so), and what stands in their
//! `then` runs only after that. *Changes* of everything else are tried once and
//! answer with their error.

pub mod apps;
mod bulk;
pub mod calls;
pub mod data_tables;
pub mod directory;
pub mod engine;
mod gathered;
pub mod jobs;
pub mod kv;
pub mod logins;
pub mod registries;
pub mod retention;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_std::channel;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use crate::store::jobs::{JobWrite, Progress};
use crate::store::writer::Command;

pub use crate::store::writer::{Then, Writer};

/// A transaction: what `store::engine` works in.
pub type Tx = SqliteConnection;

/// Connections for reading: each is a thread, and two cores serve no more at once.
const READERS_MAX: u32 = 4;
/// How long a read waits for a free connection before it gives up.
const READER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long SQLite waits for a lock; the gateway is alone with its file, so only a backup tool can hold it,
/// and what could not be written is tried again.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// Pages in the write-ahead log before they are moved into the file: 16 MiB,
/// so that a busy gateway does not do it every few commits.
const CHECKPOINT_PAGES: &str = "4000";
/// Page cache of one connection, in KiB (SQLite counts them as negative pages).
const CACHE_KIB: &str = "-8000";

/// The store, shared by everything in the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    commands: channel::Sender<Command>,
    readers: SqlitePool,
    trouble: Arc<Mutex<Option<String>>>,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name or version that must be unique is taken.
    #[error("{0}")]
    Taken(String),
    /// What should be changed does not exist.
    #[error("{0} not found")]
    Missing(String),
    /// The store is closed, or the commit did not come.
    #[error("the store did not commit the change")]
    NotCommitted,
    #[error("the store's file: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("the store's schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("the store's directory: {0}")]
    Io(#[from] std::io::Error),
}

// === impl Error ===

impl Error {
    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Taken(_) | Self::Missing(_) | Self::Migrate(_) => false,
            Self::NotCommitted | Self::Io(_) => true,
            Self::Sql(error) => !matches!(
                error,
                sqlx::Error::RowNotFound | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_)
            ),
        }
    }
}

// === impl Store ===

impl Store {
    /// Opens or creates the file and brings its schema up to date. The second
    /// value is the writer, to be run as a task; without it nothing is written.
    pub async fn open(path: &Path) -> Result<(Self, Writer), Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Full: a commit is on the disk before anybody is told of it.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_MAX)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("cache_size", CACHE_KIB);
        let mut connection = connect(&options).await?;
        // Not `run`, whose generic bound keeps the future from being `Send`.
        sqlx::migrate!("src/store/migrations")
            .run_direct(None, &mut connection, false)
            .await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .acquire_timeout(READER_WAIT_MAX)
            .idle_timeout(Some(Duration::from_secs(60)))
            .connect_with(options.clone().pragma("query_only", "1"))
            .await?;
        // Unbounded, because a write must take its place while its owner's lock is
        // held, in order; requests in flight and session credit bound what waits.
        let (commands, waiting) = channel::unbounded();
        let trouble = Arc::new(Mutex::new(None));
        let writer = Writer::new(connection, options, waiting, trouble.clone());
        let store = Self {
            commands,
            readers,
            trouble,
        };
        Ok((store, writer))
    }

    /// Writes about jobs, in the order of the calls; `then` runs once they are committed.
    pub fn apply(&self, writes: Vec<JobWrite>, then: impl FnOnce() + Send + 'static) {
        self.send(Command::Jobs {
            writes,
            then: Box::new(then),
        });
    }

    /// Notes a job's progress some time soon: with the next commit, or after a
    /// moment. For what nobody was promised, such as that an agent accepted.
    pub fn apply_lazily(&self, seq: i64, progress: Progress) {
        self.send(Command::Lazy { seq, progress });
    }

    /// Why nothing can be written at present, if so: one sentence.
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes no more writes; the writer ends once all that wait are committed.
    pub fn close(&self) {
        self.commands.close();
    }

    /// One change, in the writer's transaction but with its own fate; answers after the commit.
    async fn change<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>>
            + Send
            + 'static,
    {
        self.transact(move |c| {
            let work = work(c);
            Box::pin(async move {
                let nothing: Then = Box::new(|| ());
                Ok((work.await?, nothing))
            })
        })
        .await
    }

    /// Like a change, for a caller with errors of its own, and with something
    /// that runs right after the commit, even when nobody waits for the answer.
    pub async fn transact<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: for<'c> FnOnce(&'c mut Tx) -> BoxFuture<'c, Result<(T, Then), E>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Change(Box::new(move |connection| {
            Box::pin(async move {
                match work(connection).await {
                    // A receiver that is gone has lost interest; the change stands.
                    Ok((value, after)) => {
                        let then: Then = Box::new(move || {
                            after();
                            drop(answer.send(Ok(value)));
                        });
                        Ok(then)
                    }
                    Err(error) => {
                        drop(answer.send(Err(error)));
                        Err(())
                    }
                }
            })
        })));
        answered
            .await
            .unwrap_or_else(|_| Err(E::from(Error::NotCommitted)))
    }

    /// A connection for reading, for queries that work in a transaction as well.
    async fn reader(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Sqlite>, Error> {
        Ok(self.readers.acquire().await?)
    }

    fn send(&self, command: Command) {
        // Closed means that the process ends; whoever waits sees the answer's sender dropped.
        drop(self.commands.try_send(command));
    }
}

async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, Error> {
    use sqlx::ConnectOptions;
    Ok(options.connect().await?)
}

/// SQLite has no unsigned integers; no time or size of ours comes near the border.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Turns a violated uniqueness into the sentence for it.
fn taken(error: sqlx::Error, sentence: impl FnOnce() -> String) -> Error {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => {
            Error::Taken(sentence())
        }
        _ => Error::Sql(error),
    }
}

#[cfg(test)]
mod tests;
