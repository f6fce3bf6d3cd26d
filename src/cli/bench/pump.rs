//! What stands for bridge and gateway where workers are measured alone.
//!
//! Like a bridge it acknowledges many reports at once, those it has taken so far.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryStreamExt};
use sluice_proto::ids::{JobId, PoolId, ProjectId};
use sluice_proto::job::{Identity, Job, Kind, Priority};
use sluice_proto::report::{Body, Origin, Outcome, Report};

use crate::limit;
use crate::queue::{Deliveries, Link};
use crate::telemetry::now_us;

/// How long any single answer may take before the measurement is given up.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Publishes on their way at once.
const PUBLISHING_MAX: usize = 256;
/// The pool whose workers are fed by the bench itself, without a bridge.
pub const BARE_POOL: &str = "bench";

/// Keeps a number of jobs in flight on the bare pool.
pub struct Pump<'a> {
    link: &'a Link,
    reports: Deliveries<Report>,
    open: HashSet<JobId>,
    pool: &'a str,
    /// Whose expressions are evaluated.
    pub flow: String,
    /// What the last job ran on.
    pub origin: Option<Origin>,
}

// === impl Pump ===

impl<'a> Pump<'a> {
    pub async fn new(link: &'a Link, pool: &'a str) -> anyhow::Result<Self> {
        Ok(Self {
            reports: link.reports(1_000).await?,
            link,
            open: HashSet::new(),
            pool,
            flow: pool.to_owned(),
            origin: None,
        })
    }

    /// Runs `jobs` no-op jobs, at most `window` at a time, until each is reported finished.
    pub async fn run(&mut self, jobs: usize, window: usize) -> anyhow::Result<()> {
        let mut published = 0;
        let mut publishing = FuturesUnordered::new();
        while published < jobs || !self.open.is_empty() || !publishing.is_empty() {
            while published < jobs && self.open.len() < window {
                let job = no_op_of(self.pool, &self.flow);
                self.open.insert(job.id.clone());
                published += 1;
                let link = self.link;
                publishing.push(async move { link.publish_job(&job, now_us()).await });
            }
            // Both futures may be dropped half-way: a delivery not yet taken stays
            // with the stream, and an unfinished publish stays in `publishing`.
            futures::select_biased! {
                confirmed = publishing.select_next_some() => confirmed?,
                reported = self.receive().fuse() => {
                    reported?;
                }
            }
        }
        Ok(())
    }

    /// Gives `jobs` jobs to each of so many flows at once, one to each in turn,
    /// and says when each flow's were over on average, from the beginning.
    pub async fn crowd(&mut self, flows: usize, jobs: usize) -> anyhow::Result<Vec<Duration>> {
        let begun = Instant::now();
        let mut whose = HashMap::new();
        let all = (0..flows * jobs).map(|n| {
            let job = no_op_of(self.pool, &format!("crowd-{}", n % flows));
            whose.insert(job.id.clone(), n % flows);
            job
        });
        let all: Vec<Job> = all.collect();
        self.open.extend(whose.keys().cloned());
        let link = self.link;
        let published = futures::stream::iter(&all)
            .map(|job| link.publish_job(job, now_us()))
            .buffer_unordered(PUBLISHING_MAX);
        published.try_collect::<Vec<()>>().await?;
        let mut ends = vec![Duration::ZERO; flows];
        while !self.open.is_empty() {
            for job in self.receive().await? {
                if let Some(flow) = whose.get(&job) {
                    ends[*flow] += begun.elapsed() / u32::try_from(jobs)?;
                }
            }
        }
        Ok(ends)
    }

    /// Takes the reports there are, at least one; the jobs that are over by them.
    /// Dropping the future loses nothing before it has one, and it does not wait after that.
    async fn receive(&mut self) -> anyhow::Result<Vec<JobId>> {
        let mut last = limit::timeout(ANSWER_MAX, self.reports.next()).await??;
        let mut over = Vec::new();
        self.take(&last.item, &mut over)?;
        while let Some(report) = self.reports.next().now_or_never() {
            last = report?;
            self.take(&last.item, &mut over)?;
        }
        last.ack_through().await?;
        Ok(over)
    }

    fn take(&mut self, report: &Report, over: &mut Vec<JobId>) -> anyhow::Result<()> {
        if let Body::Finished(finished) = &report.body {
            ensure!(
                matches!(finished.outcome, Outcome::Succeeded { .. }),
                "a no-op job ended as {:?}",
                finished.outcome
            );
            if self.open.remove(&report.job) {
                over.push(report.job.clone());
            }
            self.origin = finished.runtime.as_ref().map(|used| used.origin);
        }
        Ok(())
    }
}

pub fn no_op_of(pool: &str, flow: &str) -> Job {
    Job {
        id: JobId(uuid::Uuid::now_v7().to_string()),
        kind: Kind::Evaluate,
        priority: Priority::Normal,
        pool: PoolId::from(pool),
        project: ProjectId::from(pool),
        identity: Identity::Flow { flow: flow.into() },
        dispatch: 1,
        created_us: now_us(),
        timeout_ms: 30_000,
        expires_ms: None,
        block: None,
        token: String::new(),
        traceparent: None,
        payload: br#"{"expressions":{"value":"1 + 1"},"scope":{}}"#.to_vec(),
    }
}
