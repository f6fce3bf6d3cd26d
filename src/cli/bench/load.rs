//! A steady stream of small jobs through the whole line, and what became of each.
//!
//! The stream goes on while things are harmed: a submission without an answer
//! is nobody's job, and one that was answered must end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use async_std::future::timeout;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::api_client::ApiClient;
use crate::cli::rig::{PoolAccess, Rig};

/// Between two jobs of the stream.
const PACE: Duration = Duration::from_millis(20);
/// Submissions on their way: enough to keep the pace while the gateway is stopped for a second.
const SUBMITTING_MAX: usize = 64;
/// A submission is given up after this; a gateway that is stopped answers later.
const SUBMIT_MAX: Duration = Duration::from_secs(30);
/// How often one job is asked for that has not ended.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Jobs asked for at once.
const ASKING_MAX: usize = 32;
/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Where jobs go.
#[derive(Clone)]
pub struct Target {
    api: ApiClient,
    key: String,
    project: String,
    pool: String,
}

/// One stream.
pub struct Load {
    target: Target,
    stop: AtomicBool,
    ids: Mutex<Vec<String>>,
    unanswered: AtomicU64,
}

/// What became of a stream's jobs.
#[derive(Debug, Default)]
pub struct Fates {
    pub jobs: usize,
    /// Taken by the gateway and without an end.
    pub lost: Vec<String>,
    /// Ended, otherwise than they should.
    pub failed: Vec<String>,
    /// Handed out or delivered more than once.
    pub repeated: usize,
    /// When each ended, in microseconds since the Unix epoch.
    pub finished_us: Vec<u64>,
}

// === impl Target ===

impl Target {
    pub fn new(rig: &Rig, project: &str, pool: &PoolAccess) -> Self {
        let (api, key) = rig.api();
        Self {
            api,
            key,
            project: project.to_owned(),
            pool: pool.id.clone(),
        }
    }

    fn job(&self, expression: &str) -> Value {
        json!({
            "project": self.project,
            "pool": self.pool,
            "kind": "evaluate",
            "timeout_ms": 60_000,
            "expressions": {"value": expression},
        })
    }

    /// Submits one urgent job and waits for its end.
    pub async fn urgent(&self, expression: &str, wait_s: u64) -> anyhow::Result<Value> {
        let mut job = self.job(expression);
        job["priority"] = json!("high");
        let path = format!("/api/v1/jobs?wait={wait_s}");
        let limit = SUBMIT_MAX + Duration::from_secs(wait_s);
        self.call("POST", &path, Some(&job), limit).await
    }

    /// Submits one job, waiting up to `wait_s` for its end; answers with the job object.
    pub async fn submit(&self, expression: &str, wait_s: u64) -> anyhow::Result<Value> {
        let path = match wait_s {
            0 => "/api/v1/jobs".to_owned(),
            s => format!("/api/v1/jobs?wait={s}"),
        };
        let limit = SUBMIT_MAX + Duration::from_secs(wait_s);
        self.call("POST", &path, Some(&self.job(expression)), limit)
            .await
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None, ASK_MAX).await
    }

    /// Reports the gateway has refused since its start.
    pub async fn refused(&self) -> anyhow::Result<u64> {
        let pool = self.get(&format!("/api/v1/pools/{}", self.pool)).await?;
        let by_reason = pool["reports_refused"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        Ok(by_reason.values().filter_map(Value::as_u64).sum())
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> anyhow::Result<Value> {
        let asking = self.api.request(method, path, Some(&self.key), body);
        let (status, mut reply) = timeout(limit, asking).await??;
        ensure!(
            status < 400,
            "{method} {path}: {status}: {}",
            reply["error"]
        );
        Ok(reply["data"].take())
    }

    /// Waits for every job's end, for at most `patience`.
    pub async fn fates(&self, ids: Vec<String>, patience: Duration) -> Fates {
        let until = Instant::now() + patience;
        let mut fates = Fates {
            jobs: ids.len(),
            ..Fates::default()
        };
        let mut asked = futures::stream::iter(ids)
            .map(|id| self.fate(id, until))
            .buffer_unordered(ASKING_MAX);
        while let Some((id, job)) = asked.next().await {
            fates.note(id, job);
        }
        fates
    }

    /// The job once it has ended; what is known of it when time is over.
    async fn fate(&self, id: String, until: Instant) -> (String, Option<Value>) {
        let path = format!("/api/v1/jobs/{id}");
        loop {
            let job = self.get(&path).await.ok();
            let ended = job
                .as_ref()
                .is_some_and(|job| !job["finished_us"].is_null());
            if ended || Instant::now() >= until {
                return (id, job);
            }
            async_std::task::sleep(ASK_EVERY).await;
        }
    }
}

// === impl Load ===

impl Load {
    pub fn new(target: Target) -> Self {
        Self {
            target,
            stop: AtomicBool::new(false),
            ids: Mutex::default(),
            unanswered: AtomicU64::new(0),
        }
    }

    /// Submits until [`Load::stop`] was called and `jobs` were taken.
    pub async fn run(&self, jobs: usize) {
        let mut submitting = FuturesUnordered::new();
        while !self.stop.load(Ordering::Relaxed) || self.taken() < jobs {
            let until = Instant::now() + PACE;
            if submitting.len() < SUBMITTING_MAX {
                submitting.push(self.one());
            }
            // What is not answered within the pace stays in the set.
            while timeout(until.saturating_duration_since(Instant::now()), async {
                match submitting.next().await {
                    Some(()) => {}
                    None => std::future::pending().await,
                }
            })
            .await
            .is_ok()
            {}
        }
        while submitting.next().await.is_some() {}
    }

    /// Ends the stream as soon as enough jobs were taken.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Notes a job that was submitted beside the stream.
    pub fn note(&self, id: &str) {
        self.hold().push(id.to_owned());
    }

    pub fn take_ids(&self) -> Vec<String> {
        std::mem::take(&mut *self.hold())
    }

    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    fn taken(&self) -> usize {
        self.hold().len()
    }

    async fn one(&self) {
        match self.target.submit("1 + 1", 0).await {
            Ok(job) => self.note(job["id"].as_str().unwrap_or_default()),
            // The gateway is what is harmed at present; nobody was promised anything.
            Err(_) => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Fates ===

impl Fates {
    fn note(&mut self, id: String, job: Option<Value>) {
        let Some(job) = job.filter(|job| !job["finished_us"].is_null()) else {
            return self.lost.push(id);
        };
        self.finished_us.extend(job["finished_us"].as_u64());
        if job["state"] != "succeeded" {
            self.failed.push(format!("{id}: {}", job["outcome"]));
        }
        if job["attempt"] != "1.1" {
            self.repeated += 1;
        }
    }

    /// How long after `since_us` the first job ended, in seconds.
    pub fn first_after(&self, since_us: u64) -> Option<f64> {
        let first = self
            .finished_us
            .iter()
            .filter(|at| **at >= since_us)
            .min()?;
        Some((first - since_us) as f64 / 1_000_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_lost_failed_repeated_or_well() {
        let mut fates = Fates::default();
        let ended = |state: &str, attempt: &str, at: u64| json!({"state": state, "attempt": attempt, "finished_us": at, "outcome": {}});
        fates.note("a".into(), Some(ended("succeeded", "1.1", 3_000_000)));
        fates.note("b".into(), Some(ended("succeeded", "2.1", 5_000_000)));
        fates.note("c".into(), Some(ended("failed", "1.1", 9_000_000)));
        fates.note(
            "d".into(),
            Some(json!({"state": "started", "finished_us": null})),
        );
        fates.note("e".into(), None);
        assert_eq!(fates.lost, ["d", "e"]);
        assert_eq!((fates.failed.len(), fates.repeated), (1, 1));
        assert_eq!(fates.first_after(3_000_001), Some(1.999_999));
        assert_eq!(fates.first_after(9_000_001), None);
    }
}
