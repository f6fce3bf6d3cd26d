//! The worker: takes jobs from the broker, runs each in a runtime, reports what came of it.
//!
//! ```text
//!  build: runtimes, leftovers swept ──▶ run: Link ──▶ consume ──▶ drain ──▶ stopped
//!
//!  Starting ──▶ Running ⇄ refusing (Podman, image, disk, broker) ──▶ Draining ──▶ Stopped
//! ```
//!
//! Owns the slots and the jobs in them. Does not own connections (`queue`),
//! containers (`runtime`) or the gateway's state; it meets them at their doors.
//!
//! Promises: a delivery is acked behind the confirm of its job's end; a job that
//! is delivered again while it runs here is not started twice; the first signal
//! finishes what runs, the second gives it back; a worker that cannot work says
//! why, takes nothing, and goes on by itself.
//!
//! | file | is |
//! |---|---|
//! | `consumer` | one link after the other, and what comes in by each |
//! | `office` | one job from its delivery to its settlement |
//! | `job_runner`, `conversation`, `log_streamer` | one job in one runtime, without a broker |
//! | `table`, `memory`, `verdict` | the policy, pure |
//! | `posture`, `sights` | where the worker stands, its presence, and what it tells of its jobs |
//! | `links`, `watch` | the link there is now; a value others wait for |

mod consumer;
mod office;

mod asking;
mod conversation;
mod job_runner;
mod log_streamer;

mod memory;
pub mod table;
mod verdict;

mod links;
mod posture;
mod sights;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_std::channel;

use sluice_proto::ids::PoolId;
use sluice_proto::queue::{Names, WorkerState};

use crate::agent_id;
use crate::api_client::ApiClient;
use crate::config::WorkerConfig;
use crate::runtime::Owner;
use crate::runtime::pool::Pool;
use crate::shutdown::{Shutdown, Stage, Tasks, unblock};
use crate::worker::consumer::Consumer;
use crate::worker::job_runner::JobRunner;
use crate::worker::office::Office;
use crate::worker::posture::{Posture, Presenter};
use crate::worker::watch::Watch;

/// Exit code of a worker that cannot be built.
const EXIT_UNBUILT: i32 = 1;

/// How long what was aborted may take to end and to be given back: the harness
/// answers an abort at once, and what does not is killed within seconds.
const ABORT_MAX: Duration = Duration::from_secs(15);

/// How long the last words may take: a presence and the good-bye to the broker.
const GOODBYE_MAX: Duration = Duration::from_secs(12);

/// How long the worker's last presence may take.
const LAST_WORD_MAX: Duration = Duration::from_secs(2);

/// How long the containers may take to go; what is left is swept at the next start.
const CONTAINERS_MAX: Duration = Duration::from_secs(30);

/// How often a draining worker looks whether it is empty.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a worker until it is told to end; answers with the exit code.
///
/// The first signal drains: no more jobs are taken, what runs is finished
/// within the grace period and reported. The second, or the end of that period,
/// aborts what runs and gives it back to the broker.
pub async fn run(config: WorkerConfig, shutdown: Shutdown) -> i32 {
    // The runtimes' tasks outlive the worker's: the containers go last.
    let runtime_tasks = Tasks::new("worker", shutdown.clone());
    let worker = match Worker::build(config, shutdown, &runtime_tasks).await {
        Ok(worker) => worker,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "The worker cannot start");
            return EXIT_UNBUILT;
        }
    };
    let pool = worker.pool.clone();
    worker.serve().await;
    let gone = async {
        pool.shutdown().await;
        runtime_tasks.join().await;
    };
    if async_std::future::timeout(CONTAINERS_MAX, gone)
        .await
        .is_err()
    {
        tracing::warn!("Some containers did not go in time; the next start sweeps them");
    }
    0
}

struct Worker {
    config: WorkerConfig,
    shutdown: Shutdown,
    pool: Pool,
    office: Arc<Office>,
    posture: Arc<Watch<Posture>>,
}

// === impl Worker ===

impl Worker {
    async fn build(
        config: WorkerConfig,
        shutdown: Shutdown,
        runtime_tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let data_dir = config.data_dir.clone();
        let agent = unblock(move || agent_id::read_or_create(&data_dir))
            .await
            .context("find the agent's id")?;
        let api = ApiClient::new(&config.endpoint, &config.egress)?;
        let owner = Owner {
            agent,
            worker: config.number,
        };
        let pool = Pool::start(config.runtime.clone(), owner, &shutdown, runtime_tasks)
            .await
            .context("prepare the runtimes")?;
        let name = name_of(config.number);
        let runner = JobRunner::new(pool.clone(), api);
        Ok(Self {
            office: Arc::new(Office::new(name, runner)),
            posture: Arc::new(Watch::new(Posture {
                state: WorkerState::Starting,
                refusing: None,
            })),
            config,
            shutdown,
            pool,
        })
    }

    async fn serve(self) {
        let tasks = Tasks::new("worker", self.shutdown.clone());
        let over = Arc::new(Watch::new(false));
        let slots = u16::try_from(self.config.slots).unwrap_or(u16::MAX);
        let slots_high = reserve(slots);
        let (to_slots, waiting) = channel::unbounded();
        let (to_slots_high, waiting_high) = channel::unbounded();
        for (count, waiting) in [(slots, &waiting), (slots_high, &waiting_high)] {
            for _ in 0..count {
                let posture = Arc::clone(&self.posture);
                let open = move || posture.get().starts_jobs();
                let slot = Arc::clone(&self.office).slot(waiting.clone(), open);
                tasks.spawn("slot", slot);
            }
        }
        let presenter = self.presenter();
        // Before the first job is asked for it is known whether one can be done.
        presenter.look().await;
        self.enter(WorkerState::Running);
        let (last_word, last_word_said) = channel::bounded::<()>(1);
        tasks.spawn("presence", async move {
            presenter.run().await;
            drop(last_word);
        });
        let consumer = Consumer {
            office: Arc::clone(&self.office),
            posture: Arc::clone(&self.posture),
            amqp_url: self.config.amqp_url.clone(),
            names: Names::of(&PoolId::from(self.config.pool_id.as_str())),
            prefetch: slots,
            prefetch_high: slots_high,
            to_slots,
            to_slots_high,
            over: Arc::clone(&over),
        };
        tasks.spawn("consumer", consumer.run());
        tracing::info!(worker = %self.office.name, pool.id = %self.config.pool_id, slots, slots_high, "The worker runs");

        self.shutdown.draining().await;
        self.drain().await;

        self.enter(WorkerState::Stopped);
        // Nobody depends on that word: who does not hear it takes silence for it.
        let _ = async_std::future::timeout(LAST_WORD_MAX, last_word_said.recv()).await;
        // The slots end with their channels, the rest with the last link.
        over.set(true);
        waiting.close();
        waiting_high.close();
        if async_std::future::timeout(GOODBYE_MAX, tasks.join())
            .await
            .is_err()
        {
            tracing::warn!(worker = %self.office.name, "The worker leaves without a good-bye to the broker");
            tasks.abort().await;
        }
        tracing::info!(worker = %self.office.name, "The worker has stopped");
    }

    fn presenter(&self) -> Presenter {
        Presenter {
            office: Arc::clone(&self.office),
            pool: self.pool.clone(),
            posture: Arc::clone(&self.posture),
            slots: self.config.slots,
            dirs: vec![
                self.config.data_dir.clone(),
                self.config.runtime.mounts_dir.clone(),
            ],
            disk_free_bytes_min: self.config.disk_free_bytes_min,
            data_dir: self.config.data_dir.clone(),
        }
    }

    fn enter(&self, state: WorkerState) {
        self.posture.update(|posture| {
            let changed = posture.state != state;
            posture.state = state;
            changed
        });
    }

    /// Finishes what runs, or gives it back.
    async fn drain(&self) {
        self.enter(WorkerState::Draining);
        let running = self.office.table().in_slots();
        tracing::info!(worker = %self.office.name, running, grace_s = self.config.drain.as_secs(), "The worker drains");
        let until = Instant::now() + self.config.drain;
        while Instant::now() < until && self.shutdown.stage() < Stage::Cancelling {
            if self.is_empty() {
                return;
            }
            async_std::task::sleep(LOOK_EVERY).await;
        }
        let running = self.office.table().in_slots();
        tracing::warn!(worker = %self.office.name, running, "What still runs is ended and given back");
        let until = Instant::now() + ABORT_MAX;
        while Instant::now() < until && !self.is_empty() {
            // Again and again, as one may just have begun.
            self.office.table().abort_all();
            async_std::task::sleep(LOOK_EVERY).await;
        }
    }

    fn is_empty(&self) -> bool {
        self.office.table().in_slots() == 0
    }
}

/// Slots for urgent jobs alone, on top of the others: an urgent job starts at
/// once although every other slot is busy, and half as many again is what a
/// runtime's event loop takes without being felt.
fn reserve(slots: u16) -> u16 {
    (slots / 2).max(1)
}

/// `host/pid/number`.
fn name_of(number: u32) -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into());
    format!("{host}/{}/{number}", std::process::id())
}

#[cfg(test)]
mod runner_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_a_slot_for_an_urgent_job() {
        assert_eq!((reserve(1), reserve(64), reserve(1_000)), (1, 32, 500));
    }

    #[test]
    fn a_name_says_host_process_and_number() {
        let name = name_of(3);
        let parts: Vec<_> = name.rsplitn(3, '/').collect();
        assert_eq!(parts[..2], ["3".to_owned(), std::process::id().to_string()]);
        assert!(!parts[2].is_empty());
    }
}
