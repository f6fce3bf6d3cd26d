//! The one writer: takes all commands that wait, writes them in one
//! transaction, commits, and only then lets their `then`s run (group commit).
//!
//! ```text
//!  Idle ──command──▶ Gathering ──no more, or enough──▶ Committing ──ok──▶ thens ──▶ Idle
//!                                                          └─error─▶ wait, again (job writes)
//! ```
//!
//! A full disk or a lock held by a stranger keeps job writes waiting and is
//! told through `trouble`; nothing that was not committed is ever answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_std::channel;
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::backoff::{Backoff, jitter};
use crate::store::engine::secrets::{self, Kept};
use crate::store::gathered::Gathered;
use crate::store::jobs::{JobWrite, Progress};
use crate::store::{Error, connect};

/// Commands in one transaction: enough to share one flush among all that wait
/// on two cores, and few enough that the first does not wait long for the last.
const BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of payloads and results in one transaction before it is closed.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a lazy write may wait for another command to share its commit.
const LAZY_MAX: Duration = Duration::from_millis(250);
/// How long to wait before a failed transaction is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Runs after the commit. Must be quick and must not wait.
pub type Then = Box<dyn FnOnce() + Send>;

/// A change with its own fate. Whoever asked for it has been told of its error.
pub(super) type Change =
    Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<Then, ()>> + Send>;

pub(super) enum Command {
    Jobs { writes: Vec<JobWrite>, then: Then },
    Lazy { seq: i64, progress: Progress },
    Change(Change),
}

/// Owns the only connection that writes.
pub struct Writer {
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    waiting: channel::Receiver<Command>,
    trouble: Arc<Mutex<Option<String>>>,
    lazy_since: Option<Instant>,
    batch: Batch,
}

#[derive(Default)]
struct Batch {
    jobs: Gathered,
    thens: Vec<Then>,
    changes: Vec<Change>,
    commands: usize,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        waiting: channel::Receiver<Command>,
        trouble: Arc<Mutex<Option<String>>>,
    ) -> Self {
        Self {
            connection,
            options,
            waiting,
            trouble,
            lazy_since: None,
            batch: Batch::default(),
        }
    }

    /// Gives secrets that need it another form at rest, before anything else is
    /// written; answers how many.
    pub async fn renew_secrets<E: From<Error>>(
        &mut self,
        renew: impl Fn(&str, &str, &Kept) -> Result<Option<Kept>, E>,
    ) -> Result<usize, E> {
        secrets::renew(&mut self.connection, renew).await
    }

    /// Writes until the store is closed and all that waited is committed.
    pub async fn run(mut self) {
        loop {
            let open = self.gather().await;
            self.commit().await;
            if !open {
                return;
            }
        }
    }

    /// Waits for something to write and takes all there is. False: nothing will come any more.
    async fn gather(&mut self) -> bool {
        loop {
            let command = match self.lazy_since {
                None => self.waiting.recv().await.ok(),
                Some(since) => {
                    let left = LAZY_MAX.saturating_sub(since.elapsed());
                    match async_std::future::timeout(left, self.waiting.recv()).await {
                        Ok(command) => command.ok(),
                        Err(_) => return true,
                    }
                }
            };
            let Some(command) = command else { return false };
            let mut urgent = self.batch.add(command);
            while self.batch.commands < BATCH_COMMANDS_MAX
                && self.batch.jobs.bytes() < BATCH_BYTES_MAX
            {
                match self.waiting.try_recv() {
                    Ok(command) => urgent |= self.batch.add(command),
                    Err(_) => break,
                }
            }
            if urgent || self.batch.commands >= BATCH_COMMANDS_MAX {
                return true;
            }
            self.lazy_since.get_or_insert_with(Instant::now);
        }
    }

    /// Commits the batch, however often it takes, and lets its `then`s run.
    async fn commit(&mut self) {
        self.lazy_since = None;
        let mut batch = std::mem::take(&mut self.batch);
        let mut failures = 0;
        loop {
            if batch.is_empty() {
                return;
            }
            let changes = std::mem::take(&mut batch.changes);
            match self.transaction(&batch.jobs, changes).await {
                Ok(answers) => {
                    self.say_trouble(None);
                    batch
                        .thens
                        .into_iter()
                        .chain(answers)
                        .for_each(|then| then());
                    return;
                }
                Err(error) => {
                    // The changes' answers were dropped: each of them reads as not committed.
                    tracing::error!(%error, failures, "The store cannot commit; it is tried again");
                    self.say_trouble(Some(format!("the gateway cannot write its store: {error}")));
                    self.recover().await;
                    async_std::task::sleep(AGAIN.delay(failures, jitter())).await;
                    failures += 1;
                }
            }
        }
    }

    async fn transaction(
        &mut self,
        jobs: &Gathered,
        changes: Vec<Change>,
    ) -> Result<Vec<Then>, Error> {
        execute(&mut self.connection, "BEGIN IMMEDIATE").await?;
        jobs.write(&mut self.connection).await?;
        let mut answers = Vec::new();
        for change in changes {
            execute(&mut self.connection, "SAVEPOINT change").await?;
            match change(&mut self.connection).await {
                Ok(then) => {
                    answers.push(then);
                    execute(&mut self.connection, "RELEASE change").await?;
                }
                Err(()) => {
                    execute(&mut self.connection, "ROLLBACK TO change").await?;
                    execute(&mut self.connection, "RELEASE change").await?;
                }
            }
        }
        execute(&mut self.connection, "COMMIT").await?;
        Ok(answers)
    }

    /// Leaves the broken transaction; a connection that cannot even do that is replaced.
    async fn recover(&mut self) {
        if execute(&mut self.connection, "ROLLBACK").await.is_ok() {
            return;
        }
        match connect(&self.options).await {
            Ok(connection) => self.connection = connection,
            Err(error) => tracing::error!(%error, "The store cannot be opened again"),
        }
    }

    fn say_trouble(&self, what: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

// === impl Batch ===

impl Batch {
    /// Takes one command in; true when somebody waits for its commit.
    fn add(&mut self, command: Command) -> bool {
        self.commands += 1;
        match command {
            Command::Jobs { writes, then } => {
                writes.into_iter().for_each(|write| self.jobs.add(write));
                self.thens.push(then);
                true
            }
            Command::Lazy { seq, progress } => {
                self.jobs.add(JobWrite::Update { seq, progress });
                false
            }
            Command::Change(change) => {
                self.changes.push(change);
                true
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.thens.is_empty() && self.changes.is_empty()
    }
}
