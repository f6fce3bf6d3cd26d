//! How a process ends, and who owns its tasks.
//!
//! ```text
//!  Running ──first SIGTERM or SIGINT──▶ Draining ──second──▶ Cancelling
//!     └──────────── a task that must not end, ended ─────────────▲
//! ```
//!
//! *Drain* takes no more work and finishes what is held; *cancel* ends what is
//! held now. Every task is spawned through [`Tasks`]: its end is awaited, its
//! panic is logged and ends the role.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_std::channel;
use async_std::io::ReadExt;
use async_std::task::JoinHandle;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

/// How long an orphan may finish what it holds: little, because the broker it
/// would report to has usually ended with its parent.
const ORPHAN_DRAIN: Duration = Duration::from_secs(3);
/// How long an orphan may clean up after itself: ten containers and a bit.
const ORPHAN_CANCEL: Duration = Duration::from_secs(15);

/// Where a process stands between start and end. Later stages compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Running,
    Draining,
    Cancelling,
}

/// The wish to end, shared by everything in one process. Cheap to clone; it
/// only ever moves forward.
#[derive(Clone)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

struct Inner {
    stage: Mutex<Stage>,
    // Closing a channel wakes every waiter at once and for ever, so no waiter can miss it.
    draining: (channel::Sender<()>, channel::Receiver<()>),
    cancelling: (channel::Sender<()>, channel::Receiver<()>),
    broken: AtomicBool,
}

/// Exit code of a process that ended because a part of it panicked (`EX_SOFTWARE`).
pub const EXIT_BROKEN: i32 = 70;

/// How many threads a role's tasks run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// For what mostly passes messages on; more of it means more processes.
    One,
    /// As many as there are processors.
    Processors,
}

/// The tasks of one role.
pub struct Tasks {
    role: &'static str,
    handles: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
    shutdown: Shutdown,
}

// === impl Shutdown ===

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                stage: Mutex::new(Stage::Running),
                draining: channel::bounded(1),
                cancelling: channel::bounded(1),
                broken: AtomicBool::new(false),
            }),
        }
    }

    pub fn stage(&self) -> Stage {
        *self
            .inner
            .stage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The exit code of a process whose role ended with `code`: a process that
    /// lost a part of itself never ends as if all were well.
    pub fn exit_code(&self, code: i32) -> i32 {
        if code == 0 && self.inner.broken.load(Ordering::SeqCst) {
            EXIT_BROKEN
        } else {
            code
        }
    }

    /// Take no more work. A repeat changes nothing.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// End what is held, now. A repeat changes nothing.
    pub fn cancel(&self) {
        self.advance(Stage::Cancelling);
    }

    /// Resolves once the stage is `Draining` or later.
    pub async fn draining(&self) {
        let _ = self.inner.draining.1.recv().await;
    }

    /// Resolves once the stage is `Cancelling`.
    pub async fn cancelling(&self) {
        let _ = self.inner.cancelling.1.recv().await;
    }

    /// Listens for SIGTERM and SIGINT for the rest of the process: the first
    /// drains, the second cancels.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut signals =
            async_signal::Signals::new([async_signal::Signal::Term, async_signal::Signal::Int])?;
        let shutdown = self.clone();
        spawn_detached(async move {
            while let Some(signal) = signals.next().await {
                let Ok(signal) = signal else { continue };
                match shutdown.stage() {
                    Stage::Running => {
                        tracing::info!(
                            ?signal,
                            "Draining: no more work is taken, what is held is finished; a second signal cancels it"
                        );
                        shutdown.drain();
                    }
                    Stage::Draining | Stage::Cancelling => {
                        tracing::info!(?signal, "Cancelling what is held");
                        shutdown.cancel();
                    }
                }
            }
        });
        Ok(())
    }

    /// Ends this process when its standard input does: a parent that holds the
    /// other end is then gone, however it died. Drains, soon cancels, and at
    /// last exits, as nobody else would end a process that hangs.
    pub fn on_parent_end(&self) {
        let shutdown = self.clone();
        spawn_detached(async move {
            let mut ignored = [0u8; 64];
            let mut stdin = async_std::io::stdin();
            while matches!(stdin.read(&mut ignored).await, Ok(1..)) {}
            tracing::warn!("Draining: the process that started this one has ended");
            shutdown.drain();
            async_std::task::sleep(ORPHAN_DRAIN).await;
            shutdown.cancel();
            async_std::task::sleep(ORPHAN_CANCEL).await;
            tracing::error!("Exiting: cancelling did not end this process in time");
            std::process::exit(1);
        });
    }

    fn advance(&self, to: Stage) {
        let mut stage = self
            .inner
            .stage
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *stage >= to {
            return;
        }
        *stage = to;
        self.inner.draining.0.close();
        if to == Stage::Cancelling {
            self.inner.cancelling.0.close();
        }
    }
}

// === impl Tasks ===

impl Tasks {
    pub fn new(role: &'static str, shutdown: Shutdown) -> Self {
        Self {
            role,
            handles: Mutex::new(Vec::new()),
            shutdown,
        }
    }

    /// Spawns a task that this role owns. If it panics the role drains: a
    /// process that lost a part of itself must not look alive.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let role = self.role;
        let shutdown = self.shutdown.clone();
        let handle = spawn(async move {
            let caught = std::panic::AssertUnwindSafe(future).catch_unwind().await;
            if caught.is_err() {
                tracing::error!(role, task = name, "A task panicked; the role ends");
                shutdown.inner.broken.store(true, Ordering::SeqCst);
                shutdown.cancel();
            }
        });
        self.handles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name, handle));
    }

    fn next(&self) -> Option<JoinHandle<()>> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.pop().map(|(_, handle)| handle)
    }

    /// Waits until every task has ended.
    pub async fn join(&self) {
        while let Some(handle) = self.next() {
            handle.await;
        }
    }

    /// Stops every task where it stands. For tasks that hold nothing.
    pub async fn abort(&self) {
        while let Some(handle) = self.next() {
            handle.cancel().await;
        }
    }
}

/// Spawns for a library that minds its own tasks and ends them with what it
/// owns, such as a broker connection. Nothing of ours is spawned so.
#[expect(clippy::disallowed_methods, reason = "the one place that may spawn")]
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    async_std::task::spawn(future)
}

/// Spawns something whose end nobody needs to await: it holds nothing that
/// must be settled, and it ends with what it listens to.
#[expect(clippy::disallowed_methods, reason = "the one place that may spawn")]
pub fn spawn_detached(future: impl Future<Output = ()> + Send + 'static) {
    drop(async_std::task::spawn(future));
}

/// Starts this process's executor. To be called before anything touches it;
/// `ASYNC_STD_THREAD_COUNT` sets another number of threads.
///
/// One thread is what makes a message cheap: the thread that hears a socket is
/// then the one that does what follows from it, and nothing is handed over.
pub fn start_executor(threads: Threads) {
    let config = async_global_executor::GlobalExecutorConfig::default()
        .with_env_var("ASYNC_STD_THREAD_COUNT")
        .with_thread_name_fn(|| "sluice".to_owned());
    async_global_executor::init_with_config(match threads {
        Threads::One => config.with_min_threads(1),
        Threads::Processors => config,
    });
}

/// Runs a role to its end on the executor. This thread only waits: one that
/// looked at sockets meanwhile would hear what the executor's thread is for,
/// and had to wake it.
pub fn run_role(role: BoxFuture<'static, i32>) -> i32 {
    futures::executor::block_on(spawn(role))
}

/// Runs a blocking closure on the blocking pool and hands back its value.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    async_std::task::spawn_blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[async_std::test]
    async fn the_stage_only_moves_forward_and_wakes_all_waiters() {
        let shutdown = Shutdown::new();
        shutdown.cancel();
        shutdown.drain();
        assert_eq!(shutdown.stage(), Stage::Cancelling);
        shutdown.draining().await;
        shutdown.cancelling().await;
    }

    #[async_std::test]
    async fn a_panicking_task_ends_its_role() {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new("test", shutdown.clone());
        tasks.spawn("faulty", async { panic!("as the test wants") });
        shutdown.cancelling().await;
        tasks.join().await;
        assert_eq!(shutdown.exit_code(0), EXIT_BROKEN);
        assert_eq!(shutdown.exit_code(77), 77);
    }
}
