//! One job in one runtime: from the job to its end, with no broker in it.
//!
//! ```text
//!  expired? ──▶ claim a runtime ──▶ invoke ──▶ conversation ──▶ Ran
//!     │              │ abort           │          ├─ Log   → batches → reports
//!     ▼              ▼                 ▼          ├─ Call  → api client → answer
//!    Ran            Ran               Ran         └─ Ended
//! ```
//!
//! Everything of one job happens in one future: no task per line or call. What
//! it wants said on the way (`Started`, `Log`) goes through a function of the
//! caller, one report at a time, so that their order is kept; while a report is
//! on its way the invocation goes on, and lines gather.

use std::future::Future;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::{FutureExt, select_biased};

use sluice_proto::job::{Attempt, Job};
use sluice_proto::report::{Body, Cause, Failure, Hops, LOG_JOB_BYTES_MAX, LogLine, RuntimeUse};

use crate::api_client::{self, ApiClient};
use crate::limit;
use crate::runtime::invocation::Invocation;
use crate::runtime::pool::{Lease, Pool};
use crate::telemetry::{now_ms, now_us};
use crate::worker::asking::Look;
use crate::worker::conversation::Conversation;
use crate::worker::log_streamer::Budget;

/// A job may wait this long for a runtime while all are busy with others. It is
/// the last guard: the pool bounds each of its own steps.
const CLAIM_MAX: Duration = Duration::from_secs(600);

/// Runs jobs. Cheap to clone.
#[derive(Clone)]
pub struct JobRunner {
    pool: Pool,
    api: ApiClient,
    log_budget: Budget,
}

/// What the runner asks of whoever holds the job.
pub trait Desk: Send + Sync {
    /// The attempt the job is at now; it rises when a delivery is adopted.
    fn attempt(&self) -> Attempt;

    /// What SDK calls are made with; that may change with every adopted delivery.
    fn papers(&self) -> Look;

    /// A runtime was claimed.
    fn claimed(&self, runtime: &RuntimeUse);

    /// The invocation wrote a line.
    fn logged(&self, text: &str);

    /// Sends a `Started` or a `Log`. Resolves when that is done with, one way
    /// or the other; the next one is sent only then.
    fn report(&self, body: Body) -> BoxFuture<'static, ()>;
}

/// What came of running a job once.
#[derive(Debug)]
pub struct Ran {
    pub end: End,
    pub runtime: Option<RuntimeUse>,
    pub hops: Hops,
    /// Lines not sent yet.
    pub log: Vec<LogLine>,
    pub log_bytes_dropped: u64,
    pub sdk_calls: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// JSON.
    Succeeded(Vec<u8>),
    Failed {
        failure: Failure,
        again: Again,
    },
    /// It was told to end, and did.
    Aborted,
    /// The gateway counts a later attempt that has not come here.
    Superseded,
}

/// Whether another try of the same job can end otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It was not the job's fault, or something was missing for a moment.
    Maybe,
    /// The job itself ended so.
    No,
}

// === impl JobRunner ===

impl JobRunner {
    pub fn new(pool: Pool, api: ApiClient) -> Self {
        Self {
            pool,
            api,
            log_budget: Budget::default(),
        }
    }

    /// Runs `job` to its end. `hops` says where it has been so far; `abort`
    /// ends it early, at whatever stage it is.
    pub async fn run(
        &self,
        job: &Job,
        mut hops: Hops,
        desk: &impl Desk,
        mut abort: oneshot::Receiver<()>,
    ) -> Ran {
        if job.expires_ms.is_some_and(|expires| expires < now_ms()) {
            let message = "The job waited longer than it was worth, and was not started.";
            return Ran::without_runtime(failed(Cause::Expired, message), hops);
        }
        // Dropping a claim gives its turn to the next.
        let claimed = select_biased! {
            _ = asked(&mut abort).fuse() => return Ran::without_runtime(End::Aborted, hops),
            claimed = self.claim(job).fuse() => claimed,
        };
        let lease = match claimed {
            Ok(lease) => lease,
            Err(end) => return Ran::without_runtime(end, hops),
        };
        hops.claimed_us = now_us();
        let runtime = RuntimeUse {
            container: lease.container().to_owned(),
            origin: lease.origin(),
        };
        desk.claimed(&runtime);
        let invocation = Invocation {
            kind: job.kind,
            payload: job.payload.clone(),
            timeout: Duration::from_millis(u64::from(job.timeout_ms)),
            log_bytes_max: u32::try_from(LOG_JOB_BYTES_MAX).unwrap_or(u32::MAX),
        };
        let invoked = lease.invoke(invocation).await;
        hops.started_us = now_us();
        let running = match invoked {
            Ok(running) => running,
            Err(failure) => {
                let mut ran = Ran::without_runtime(judged(failure), hops);
                ran.runtime = Some(runtime);
                return ran;
            }
        };
        let talk = Conversation::new(
            job,
            runtime,
            running,
            desk.attempt(),
            self.api.clone(),
            self.log_budget.clone(),
        );
        talk.hold(desk, abort, hops).await
    }

    async fn claim(&self, job: &Job) -> Result<Lease, End> {
        // Remembered beside the claim, as a failure does not tell whether it may pass.
        let mut again = None;
        let fetch = async {
            let Some(digest) = job.identity.bundle() else {
                let message = "A flow has no bundle.";
                return Err(Failure::new(Cause::BundleUnavailable, message));
            };
            // Boxed: a request's future is large, and most jobs make none.
            let fetched = Box::pin(self.api.bundle(digest, &job.token)).await;
            fetched.map_err(|error| {
                again = Some(again_after(&error));
                Failure::new(Cause::BundleUnavailable, format!("{error}."))
            })
        };
        let claimed = limit::timeout(CLAIM_MAX, self.pool.claim(&job.identity, fetch));
        let failure = match claimed.await {
            Ok(Ok(lease)) => return Ok(lease),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::new(
                Cause::RuntimeUnavailable,
                format!("No runtime came free in {} s.", CLAIM_MAX.as_secs()),
            ),
        };
        Err(match again {
            Some(again) => End::Failed { failure, again },
            None => judged(failure),
        })
    }
}

fn again_after(error: &api_client::Error) -> Again {
    if error.is_transient() {
        Again::Maybe
    } else {
        Again::No
    }
}

/// A failure that came without a word on whether it may pass.
pub(super) fn judged(failure: Failure) -> End {
    let again = match failure.cause {
        // The host lacks something for the moment, or another job is to blame.
        Cause::RuntimeUnavailable | Cause::Collateral => Again::Maybe,
        Cause::Syntax
        | Cause::Threw
        | Cause::Timeout
        | Cause::EventLoopBlocked
        | Cause::OutOfMemory
        | Cause::Crashed
        | Cause::ResultNotJson
        | Cause::ResultTooLarge
        | Cause::NoSuchHandler
        | Cause::BundleUnavailable
        | Cause::Expired
        | Cause::Poison
        | Cause::Unacceptable
        | Cause::Lost => Again::No,
    };
    End::Failed { failure, again }
}

fn failed(cause: Cause, message: &str) -> End {
    End::Failed {
        failure: Failure::new(cause, message),
        again: Again::No,
    }
}

/// Resolves when the job is told to end. An abort whose sender is gone never is.
pub(super) fn asked(abort: &mut oneshot::Receiver<()>) -> impl Future<Output = ()> + '_ {
    abort.then(|told| async move {
        if told.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

// === impl Ran ===

impl Ran {
    /// The end of a job that reached no runtime.
    pub fn without_runtime(end: End, hops: Hops) -> Self {
        Self {
            end,
            runtime: None,
            hops,
            log: Vec::new(),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        }
    }
}
