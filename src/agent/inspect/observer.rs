//! The observer: one more link to the broker, on which nothing is consumed that
//! others wait for, and what was heard on it.
//!
//! ```text
//!  connecting ──▶ looking: presences, dead-log ──link lost──▶ backing off ──▶ connecting
//! ```
//!
//! The locks are held for a moment and never over an await.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::task;
use futures::{FutureExt, select_biased};
use serde_json::Value;
use sluice_proto::ids::PoolId;
use sluice_proto::queue::{Control, Names, PRESENCE_MS_MAX, Presence, Tally, WorkerState};

use crate::agent::inspect::Gateway;
use crate::backoff::{Backoff, jitter};
use crate::queue::graves::Graves;
use crate::queue::{Error, Link};
use crate::telemetry::{now_ms, now_us};

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
/// How long workers may take to say what they hold.
const TELL_MAX: Duration = Duration::from_millis(700);
/// How long an observer that has just begun waits for workers it has not heard of yet.
const STRANGERS_WAIT: Duration = Duration::from_millis(400);
/// How long the log of dead letters must be silent to count as read.
const LOG_QUIET: Duration = Duration::from_millis(200);
/// How long a first look waits for the log to be read.
const LOG_READ_MAX: Duration = Duration::from_secs(8);
/// How often it is looked whether something awaited is there.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Workers remembered; far more than a host runs.
const WORKERS_MAX: usize = 1_000;
/// Samples of the gateway's counters, for rates: the last minute at one a second.
const SAMPLES_MAX: usize = 60;

/// Where to look.
pub struct Place {
    pub amqp_url: String,
    pub pool: String,
    /// `None`: nothing is known of a gateway; the reason stands beside it.
    pub gateway: Result<Gateway, String>,
    pub data_dir: PathBuf,
    /// Names the looking process to people who look at the broker.
    pub client: String,
}

pub struct Observer {
    pub place: Place,
    pub names: Names,
    since: Instant,
    state: Mutex<State>,
}

/// What was heard so far.
struct State {
    link: Result<Link, String>,
    links: u64,
    workers: HashMap<String, Heard>,
    /// What workers had done that are gone.
    departed: BTreeMap<(String, String), Tally>,
    departed_links: u64,
    graves: Graves,
    log_moved: Instant,
    log_read: bool,
    samples: VecDeque<Sample>,
    session: Option<String>,
    sessions: u64,
}

struct Heard {
    presence: Presence,
    heard_ms: u64,
}

/// The gateway's counters at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at_us: u64,
    accepted: u64,
    ended: u64,
}

/// Jobs per second, of late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub accepted_per_s: f64,
    pub ended_per_s: f64,
}

// === impl Observer ===

impl Observer {
    pub fn new(place: Place) -> Arc<Self> {
        let names = Names::of(&PoolId::from(place.pool.as_str()));
        let now = Instant::now();
        Arc::new(Self {
            place,
            names,
            since: now,
            state: Mutex::new(State {
                link: Err("it is being connected".into()),
                links: 0,
                workers: HashMap::new(),
                departed: BTreeMap::new(),
                departed_links: 0,
                graves: Graves::default(),
                log_moved: now,
                log_read: false,
                samples: VecDeque::new(),
                session: None,
                sessions: 0,
            }),
        })
    }

    /// Looks for as long as it is polled.
    pub async fn keep(self: Arc<Self>) {
        let mut tries = 0;
        loop {
            let error = self.one_link(&mut tries).await;
            tracing::debug!(%error, "No link to look at the broker; trying again");
            self.lock().link = Err(error.to_string());
            task::sleep(BACKOFF.delay(tries, jitter())).await;
            tries += 1;
        }
    }

    async fn one_link(&self, tries: &mut u32) -> Error {
        let place = &self.place;
        let link = match Link::connect(&place.amqp_url, &place.client, &self.names).await {
            Ok(link) => link,
            Err(error) => return error,
        };
        let error = self.look_through(&link, tries).await;
        link.abandon();
        error
    }

    async fn look_through(&self, link: &Link, tries: &mut u32) -> Error {
        let mut presences = match link.presences().await {
            Ok(presences) => presences,
            Err(error) => return error,
        };
        let mut log = match link.dead_log().await {
            Ok(log) => log,
            Err(error) => return error,
        };
        *tries = 0;
        {
            let mut state = self.lock();
            state.link = Ok(link.clone());
            state.links += 1;
            // It is read from its beginning again.
            state.graves = Graves::default();
            state.log_moved = Instant::now();
            state.log_read = false;
        }
        let hear = async {
            loop {
                match presences.next().await {
                    Ok(delivery) => self.lock().hear(delivery.split().0),
                    Err(error) => return error,
                }
            }
        };
        let read = async {
            loop {
                match log.next().await {
                    Ok(entry) => {
                        let mut state = self.lock();
                        state.graves.note(entry);
                        state.log_moved = Instant::now();
                    }
                    Err(error) => return error,
                }
            }
        };
        // Whichever ends first ends the link; nothing is held that could be lost with it.
        select_biased! {
            error = link.failed().fuse() => error,
            error = Box::pin(hear).fuse() => error,
            error = Box::pin(read).fuse() => error,
        }
    }

    /// The working link, or why there is none.
    pub fn link(&self) -> Result<Link, String> {
        self.lock().link.clone()
    }

    /// The same, once the first connection has come about or failed.
    pub async fn linked(&self) -> Result<Link, String> {
        let until = self.since + TELL_MAX * 4;
        loop {
            let link = self.link();
            let waiting = matches!(&link, Err(why) if why == "it is being connected");
            if !waiting || Instant::now() > until {
                return link;
            }
            task::sleep(LOOK_EVERY).await;
        }
    }

    /// The id by which the gateway knows the agent of this data directory, as a filter.
    pub fn agent_filter(&self) -> String {
        let id = std::fs::read_to_string(self.place.data_dir.join("agent/id"));
        match id.as_deref().map(str::trim) {
            Ok(id) if !id.is_empty() => format!("&agent={id}"),
            _ => String::new(),
        }
    }

    pub fn gateway(&self) -> Result<&Gateway, String> {
        self.place.gateway.as_ref().map_err(Clone::clone)
    }

    /// Workers heard of lately, each with what it holds if it was asked before.
    pub fn workers(&self) -> Vec<Presence> {
        let mut state = self.lock();
        state.forget_silent(now_ms());
        let mut workers: Vec<_> = state
            .workers
            .values()
            .map(|heard| heard.presence.clone())
            .collect();
        workers.sort_by(|a, b| a.worker.cmp(&b.worker));
        workers
    }

    /// Asks every worker what it holds, and waits until all that are known have said so.
    pub async fn ask(&self) -> Result<Vec<Presence>, String> {
        let link = self.linked().await?;
        let asked_us = now_us();
        link.publish_control(&Control::Tell)
            .await
            .map_err(|error| error.to_string())?;
        let (start, young) = (Instant::now(), self.since.elapsed() < STRANGERS_WAIT * 4);
        while start.elapsed() < TELL_MAX {
            let early = young && start.elapsed() < STRANGERS_WAIT;
            if !early && self.lock().all_told(asked_us) {
                break;
            }
            task::sleep(LOOK_EVERY).await;
        }
        Ok(self.workers())
    }

    /// Looks at the dead letters, once the log has been read.
    pub async fn graves<T>(&self, look: impl FnOnce(&Graves) -> T) -> Result<T, String> {
        self.linked().await?;
        let read = async {
            while !self.lock().is_log_read() {
                task::sleep(LOOK_EVERY).await;
            }
        };
        timeout(LOG_READ_MAX, read)
            .await
            .map_err(|_| "the log of dead letters is not read yet: ask again".to_owned())?;
        Ok(look(&self.lock().graves))
    }

    /// What all workers did since they, or this observer, began.
    pub fn tallies(&self) -> Vec<Tally> {
        let state = self.lock();
        let mut all = state.departed.clone();
        for heard in state.workers.values() {
            let holds = heard.presence.holds.iter();
            for tally in holds.flat_map(|holds| &holds.tallies) {
                add(&mut all, tally);
            }
        }
        all.into_values().collect()
    }

    /// Reconnects so far: of all workers and this observer to the broker, and of the bridge to the gateway.
    pub fn reconnects(&self) -> (u64, u64) {
        let state = self.lock();
        let workers = state.workers.values();
        let of_workers: u64 = workers
            .map(|heard| heard.presence.link.saturating_sub(1))
            .sum();
        let own = state.links.saturating_sub(1);
        let to_broker = of_workers + state.departed_links + own;
        (to_broker, state.sessions.saturating_sub(1))
    }

    /// Asks the gateway about the pool, and notes what rates are made of.
    pub async fn summary(&self) -> Result<Value, String> {
        let summary = self.gateway()?.get("").await;
        let summary = summary.map_err(|error| error.message)?;
        self.lock().sample(&summary, now_us());
        Ok(summary)
    }

    /// Rates between the oldest and the newest sample; `None` until there are two.
    pub fn rates(&self) -> Option<Rates> {
        let state = self.lock();
        let (first, last) = (state.samples.front()?, state.samples.back()?);
        let seconds = last.at_us.saturating_sub(first.at_us) as f64 / 1e6;
        let per_s = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        (seconds > 0.2).then(|| Rates {
            accepted_per_s: per_s(first.accepted, last.accepted),
            ended_per_s: per_s(first.ended, last.ended),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn hear(&mut self, mut presence: Presence) {
        if presence.state == WorkerState::Stopped {
            self.depart(&presence.worker);
            return;
        }
        if let Some(known) = self.workers.get_mut(&presence.worker) {
            // A presence that nobody asked for says nothing of what is held.
            if presence.holds.is_none() {
                presence.holds = known.presence.holds.take();
            }
        } else if self.workers.len() >= WORKERS_MAX {
            return;
        }
        let heard = Heard {
            heard_ms: now_ms(),
            presence,
        };
        self.workers.insert(heard.presence.worker.clone(), heard);
    }

    fn all_told(&self, asked_us: u64) -> bool {
        self.workers
            .values()
            .all(|heard| heard.presence.at_us >= asked_us && heard.presence.holds.is_some())
    }

    fn is_log_read(&mut self) -> bool {
        self.log_read |= self.link.is_ok() && self.log_moved.elapsed() >= LOG_QUIET;
        self.log_read
    }

    fn forget_silent(&mut self, now_ms: u64) {
        let silent: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, heard)| now_ms.saturating_sub(heard.heard_ms) > PRESENCE_MS_MAX)
            .map(|(name, _)| name.clone())
            .collect();
        silent.iter().for_each(|name| self.depart(name));
    }

    /// A worker is gone; what it did stays counted, so that counters only grow.
    fn depart(&mut self, name: &str) {
        let Some(heard) = self.workers.remove(name) else {
            return;
        };
        self.departed_links += heard.presence.link.saturating_sub(1);
        for tally in heard.presence.holds.iter().flat_map(|holds| &holds.tallies) {
            add(&mut self.departed, tally);
        }
    }

    fn sample(&mut self, summary: &Value, at_us: u64) {
        let passed = |state: &str| summary["passed"][state].as_u64().unwrap_or(0);
        let sample = Sample {
            at_us,
            accepted: passed("accepted"),
            ended: passed("succeeded") + passed("failed") + passed("cancelled"),
        };
        // A gateway that began anew counts from nought.
        if self
            .samples
            .back()
            .is_some_and(|last| last.ended > sample.ended)
        {
            self.samples.clear();
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let session = summary["agents"][0]["session"].as_str();
        if session.is_some() && session != self.session.as_deref() {
            self.session = session.map(str::to_owned);
            self.sessions += 1;
        }
    }
}

fn add(all: &mut BTreeMap<(String, String), Tally>, tally: &Tally) {
    let key = (tally.kind.clone(), tally.outcome.clone());
    match all.get_mut(&key) {
        None => drop(all.insert(key, tally.clone())),
        Some(sum) => {
            sum.jobs += tally.jobs;
            sum.took_us += tally.took_us;
            for (sum, more) in sum.buckets.iter_mut().zip(&tally.buckets) {
                *sum += more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_proto::queue::Holds;

    use super::*;

    fn observer() -> Arc<Observer> {
        Observer::new(Place {
            amqp_url: String::new(),
            pool: "p".into(),
            gateway: Err("none".into()),
            data_dir: PathBuf::new(),
            client: "test".into(),
        })
    }

    fn presence(state: WorkerState, jobs: Option<u64>) -> Presence {
        let tally = |jobs| Tally {
            kind: "event".into(),
            outcome: "succeeded".into(),
            jobs,
            took_us: 0,
            buckets: vec![jobs],
        };
        Presence {
            worker: "w".into(),
            state,
            slots: 1,
            in_flight: 0,
            runtimes: 0,
            refusing: None,
            at_us: 5,
            link: 3,
            holds: jobs.map(|jobs| {
                Box::new(Holds {
                    tallies: vec![tally(jobs)],
                    ..Holds::default()
                })
            }),
        }
    }

    #[test]
    fn counters_only_grow_when_workers_come_and_go() {
        let observer = observer();
        observer
            .lock()
            .hear(presence(WorkerState::Running, Some(4)));
        observer.lock().hear(presence(WorkerState::Running, None));
        assert_eq!(observer.tallies()[0].jobs, 4);
        assert!(observer.lock().all_told(5) && !observer.lock().all_told(6));
        observer.lock().hear(presence(WorkerState::Stopped, None));
        assert_eq!(observer.workers(), []);
        observer
            .lock()
            .hear(presence(WorkerState::Running, Some(1)));
        assert_eq!(observer.tallies()[0].jobs, 5);
        assert_eq!(observer.reconnects(), (4, 0));
    }

    #[test]
    fn rates_need_two_samples_and_begin_anew_with_the_gateway() {
        let observer = observer();
        let sample = |ended: u64| json!({"passed": {"accepted": 10 + ended, "succeeded": ended}});
        observer.lock().sample(&sample(5), 1_000_000);
        assert_eq!(observer.rates(), None);
        observer.lock().sample(&sample(9), 3_000_000);
        let rates = observer.rates().expect("two samples");
        assert_eq!((rates.accepted_per_s, rates.ended_per_s), (2.0, 2.0));
        observer.lock().sample(&sample(0), 4_000_000);
        assert_eq!(observer.rates(), None);
    }
}
