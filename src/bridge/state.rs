//! What the two sides of a bridge share: the broker's side writes how things
//! are, the gateway's side reads it, and reports wait in between.
//!
//! Every lock here is held for a moment and never over an await. Nothing here
//! outlives the process: the broker is the bridge's only memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_std::channel;
use sluice_proto::frame::Taken;
use sluice_proto::ids::JobId;
use sluice_proto::report::{Body, Report};

use crate::bridge::cancels::Cancels;
use crate::bridge::outbox::Outbox;
use crate::bridge::policy::Facts;
use crate::bridge::roster::Roster;
use crate::config::BridgeConfig;
use crate::queue::{Delivery, Link};
use crate::shutdown::Shutdown;
use crate::telemetry::{now_ms, now_us};

/// How long no work is taken after the broker turned a job away, in milliseconds:
/// until its queues have been looked at again.
const REFUSAL_MS: u64 = 1_500;

pub struct Shared {
    pub config: BridgeConfig,
    pub shutdown: Shutdown,
    broker: Mutex<Broker>,
    outbox: Mutex<Outbox<Delivery<()>>>,
    answers: Mutex<Answers>,
    roster: Mutex<Roster>,
    cancels: Mutex<Cancels>,
    queued: AtomicU64,
    /// Reports that wait in the queue, as seen last.
    reports_ready: AtomicU64,
    disk_free_bytes: AtomicU64,
    /// Why nothing is to be taken in, if somebody ordered so.
    paused: Mutex<Option<String>>,
    /// Something for the writer of frames to look at.
    pub frames: Bell,
    /// Something for the sayer of cancellations to look at.
    pub controls: Bell,
    /// Rung once: the broker's side is to end.
    pub stop: Bell,
}

/// The link to the broker, or why there is none.
struct Broker {
    link: Option<Link>,
    generation: u64,
    why_none: String,
    refused_ms: u64,
    /// Ends the process with this code.
    fatal: Option<i32>,
}

/// Jobs to be answered for.
#[derive(Default)]
pub struct Answers {
    pub accepted: Vec<Taken>,
    pub rejected: Vec<(Taken, String)>,
}

/// Wakes one waiter; a ring while nobody waits is kept, and many are one.
pub struct Bell {
    ring: channel::Sender<()>,
    rung: channel::Receiver<()>,
}

// === impl Bell ===

impl Bell {
    fn new() -> Self {
        let (ring, rung) = channel::bounded(1);
        Self { ring, rung }
    }

    pub fn ring(&self) {
        // Full means that a ring is already waiting.
        let _ = self.ring.try_send(());
    }

    pub async fn rung(&self) {
        let _ = self.rung.recv().await;
    }
}

// === impl Shared ===

impl Shared {
    pub fn new(config: BridgeConfig, shutdown: Shutdown) -> Self {
        Self {
            config,
            shutdown,
            broker: Mutex::new(Broker {
                link: None,
                generation: 0,
                why_none: "it is being connected".into(),
                refused_ms: 0,
                fatal: None,
            }),
            outbox: Mutex::default(),
            answers: Mutex::default(),
            roster: Mutex::default(),
            cancels: Mutex::default(),
            queued: AtomicU64::new(0),
            reports_ready: AtomicU64::new(0),
            // Unknown is taken for enough: a file system that cannot be asked must not stop work.
            disk_free_bytes: AtomicU64::new(u64::MAX),
            paused: Mutex::default(),
            frames: Bell::new(),
            controls: Bell::new(),
            stop: Bell::new(),
        }
    }

    /// The working link, or why there is none.
    pub fn link(&self) -> Result<Link, String> {
        let broker = hold(&self.broker);
        broker.link.clone().ok_or_else(|| broker.why_none.clone())
    }

    /// A new link works; answers with its generation.
    pub fn link_is_up(&self, link: &Link) -> u64 {
        let mut broker = hold(&self.broker);
        broker.link = Some(link.clone());
        broker.generation += 1;
        self.frames.ring();
        broker.generation
    }

    /// There is no working link. What came over the last one is void.
    pub fn link_is_down(&self, why: String) {
        let generation = {
            let mut broker = hold(&self.broker);
            broker.link = None;
            broker.why_none = why;
            broker.generation
        };
        hold(&self.outbox).forget(generation);
        self.frames.ring();
    }

    /// Ends the bridge with this exit code.
    pub fn fail(&self, code: i32) {
        hold(&self.broker).fatal.get_or_insert(code);
        self.shutdown.cancel();
    }

    pub fn fatal(&self) -> Option<i32> {
        hold(&self.broker).fatal
    }

    /// All that the flow of work depends on, as it is now.
    pub fn facts(&self) -> Facts {
        let (no_link, blocked) = match self.link() {
            Err(why) => (Some(why), None),
            Ok(link) => {
                let refused_ms = hold(&self.broker).refused_ms;
                let refused = now_ms().saturating_sub(refused_ms) < REFUSAL_MS;
                let full = || refused.then(|| "its queue is at its limit".to_owned());
                (None, link.blocked().or_else(full))
            }
        };
        Facts {
            stage: self.shutdown.stage(),
            no_link,
            blocked,
            paused: hold(&self.paused).clone(),
            queued: self.queued.load(Ordering::Relaxed),
            disk_free_bytes: self.disk_free_bytes.load(Ordering::Relaxed),
            disk_free_bytes_min: self.config.disk_free_bytes_min,
            crew: hold(&self.roster).crew(now_ms()),
        }
    }

    pub fn see_queues(&self, queued: u64, reports_ready: u64) {
        self.queued.store(queued, Ordering::Relaxed);
        self.reports_ready.store(reports_ready, Ordering::Relaxed);
    }

    pub fn see_disk(&self, free_bytes: u64) {
        self.disk_free_bytes.store(free_bytes, Ordering::Relaxed);
    }

    /// What orders there are; a change of mind is said to the gateway at once.
    pub fn see_order(&self, sentence: Option<String>) {
        let mut paused = hold(&self.paused);
        if *paused != sentence {
            match &sentence {
                Some(why) => {
                    tracing::warn!(reason = why, "Nothing is taken in until that is ended")
                }
                None => tracing::info!("Work is taken in again"),
            }
            *paused = sentence;
            self.frames.ring();
        }
    }

    pub fn roster(&self) -> MutexGuard<'_, Roster> {
        hold(&self.roster)
    }

    pub fn cancels(&self) -> MutexGuard<'_, Cancels> {
        hold(&self.cancels)
    }

    pub fn outbox(&self) -> MutexGuard<'_, Outbox<Delivery<()>>> {
        hold(&self.outbox)
    }

    /// Takes a report from the queue into our hands.
    pub fn take_report(&self, delivery: Delivery<Report>, generation: u64) {
        let bytes = delivery.bytes;
        let (mut report, receipt) = delivery.split();
        if let Body::Finished(finished) = &mut report.body {
            finished.hops.relayed_us = now_us();
            self.job_has_ended(&report.job);
        }
        hold(&self.outbox).push(report, bytes, generation, receipt);
        self.frames.ring();
    }

    /// A job is in the broker's custody, or is not and why.
    pub fn answer(&self, taken: Taken, outcome: Result<(), String>) {
        let mut answers = hold(&self.answers);
        match outcome {
            Ok(()) => answers.accepted.push(taken),
            Err(reason) => answers.rejected.push((taken, reason)),
        }
        self.frames.ring();
    }

    /// The broker turned a job away for want of room.
    pub fn see_refusal(&self) {
        hold(&self.broker).refused_ms = now_ms();
    }

    pub fn take_answers(&self) -> Answers {
        std::mem::take(&mut *hold(&self.answers))
    }

    /// Whether nothing is left to be said that is known of.
    pub fn is_idle(&self) -> bool {
        let answers = hold(&self.answers);
        answers.accepted.is_empty()
            && answers.rejected.is_empty()
            && hold(&self.outbox).is_empty()
            && self.reports_ready.load(Ordering::Relaxed) == 0
    }

    fn job_has_ended(&self, job: &JobId) {
        hold(&self.cancels).ended(job);
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the role; until then the values are whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
