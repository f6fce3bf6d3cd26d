//! What an invocation says while it runs, and what it is answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{BoxFuture, Fuse, FusedFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, select_biased};

use sluice_proto::harness::{Answer, CALLS_IN_FLIGHT_MAX};
use sluice_proto::job::{Attempt, Job};
use sluice_proto::report::{Body, Cause, Failure, Hops, RuntimeUse};

use crate::api_client::ApiClient;
use crate::limit;
use crate::redaction::Redactor;
use crate::runtime::invocation::{Ended, Running, Said};
use crate::telemetry::now_us;
use crate::worker::asking::{Asked, Came};
use crate::worker::job_runner::{Again, Desk, End, Ran, asked, judged};
use crate::worker::log_streamer::{Budget, LogStreamer};

/// A job that ends sooner needs no `Started` of its own: it would be one more
/// message to the broker, the bridge and the store for something that is over
/// before a person could read it. Half of all messages are saved by this.
pub const STARTED_AFTER: Duration = Duration::from_millis(20);

/// SDK calls of one job that are with the gateway at once; more wait here in
/// their order, so that one job does not take all connections.
const CALLS_OVERLAP_MAX: usize = 32;

/// How long an invocation may take to end after it was told to. The runtime
/// sends `Failed` at once, or kills what does not answer.
const ABORT_MAX: Duration = Duration::from_secs(10);

/// How far over its time an invocation may be before the runtime door itself is
/// taken for broken: the door ends invocations at their limit, this is the guard above it.
const OVERDUE: Duration = Duration::from_secs(60);

/// What is taken from a runtime in one turn, so that one that floods its log
/// leaves room for the other jobs of this thread.
const SAID_AT_ONCE_MAX: u32 = 256;

/// The number of a call, its answer, and whether that counts.
type Reply = (u32, Answer, Came);

/// One invocation under way.
pub(super) struct Conversation<'a> {
    job: &'a Job,
    runtime: RuntimeUse,
    running: Running,
    api: ApiClient,
    log: LogStreamer,
    redactor: Arc<Redactor>,
    /// With the gateway.
    calls: FuturesUnordered<BoxFuture<'a, Reply>>,
    /// Not yet with the gateway, in the order they were made.
    waiting: VecDeque<(u32, String, Vec<u8>)>,
    sdk_calls: u32,
    /// The attempt as which it began.
    attempt: Attempt,
    /// The worst that came of a call.
    came: Came,
    /// The one report on its way; terminated when there is none.
    sending: Fuse<BoxFuture<'static, ()>>,
    started_said: bool,
    begun: Instant,
    /// When it was told to end.
    aborted: Option<Instant>,
}

// === impl Conversation ===

impl<'a> Conversation<'a> {
    pub(super) fn new(
        job: &'a Job,
        runtime: RuntimeUse,
        running: Running,
        attempt: Attempt,
        api: ApiClient,
        budget: Budget,
    ) -> Self {
        let redactor = Arc::new(Redactor::of(&job.payload));
        Self {
            job,
            runtime,
            running,
            api,
            log: LogStreamer::new(budget, Arc::clone(&redactor)),
            redactor,
            calls: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            sdk_calls: 0,
            attempt,
            came: Came::Answered,
            sending: Fuse::terminated(),
            started_said: false,
            begun: Instant::now(),
            aborted: None,
        }
    }

    /// Listens until the invocation has ended.
    pub(super) async fn hold(
        mut self,
        desk: &impl Desk,
        mut abort: oneshot::Receiver<()>,
        mut hops: Hops,
    ) -> Ran {
        let ended = loop {
            if let Some(ended) = self.listen_to_what_is_there(desk) {
                break ended;
            }
            self.say_what_is_due(desk);
            let Some(wake) = self.wake_at() else {
                break self.given_up();
            };
            let pause = wake.saturating_duration_since(Instant::now());
            // Whatever loses stays where it is: words in the runtime's channel,
            // answers and the report in the futures that this struct owns.
            select_biased! {
                said = self.running.next().fuse() => {
                    if let Some(ended) = self.hear(said, desk) {
                        break ended;
                    }
                }
                answered = next_answer(&mut self.calls).fuse() => self.pass_on(answered, desk),
                () = &mut self.sending => {}
                () = told(&mut abort, self.aborted).fuse() => {
                    self.aborted = Some(Instant::now());
                    self.running.abort();
                }
                () = limit::after(pause).fuse() => {}
            }
        };
        hops.finished_us = now_us();
        self.conclude(ended, desk, hops).await
    }

    /// Takes what needs no waiting for.
    fn listen_to_what_is_there(&mut self, desk: &impl Desk) -> Option<Ended> {
        for _ in 0..SAID_AT_ONCE_MAX {
            let said = self.running.next().now_or_never()?;
            if let Some(ended) = self.hear(said, desk) {
                return Some(ended);
            }
        }
        None
    }

    fn hear(&mut self, said: Said, desk: &impl Desk) -> Option<Ended> {
        match said {
            Said::Ended(ended) => return Some(ended),
            Said::Log { at_us, level, text } => {
                desk.logged(&text);
                self.log.push(Instant::now(), at_us, level, text);
            }
            Said::Call { call, method, args } => {
                self.sdk_calls = self.sdk_calls.saturating_add(1);
                if self.waiting.len() + self.calls.len() >= CALLS_IN_FLIGHT_MAX {
                    // The harness keeps this limit itself; one that does not is answered all the same.
                    let message =
                        format!("more than {CALLS_IN_FLIGHT_MAX} SDK calls are unanswered");
                    self.running.answer(call, Answer::Error { message });
                } else {
                    self.waiting.push_back((call, method, args));
                    self.make_calls(desk);
                }
            }
        }
        None
    }

    fn pass_on(&mut self, (call, answer, came): Reply, desk: &impl Desk) {
        self.came = match (self.came, came) {
            (known, Came::Answered) | (known @ Came::Over, _) => known,
            (_, worse) => worse,
        };
        self.running.answer(call, answer);
        self.make_calls(desk);
    }

    /// Gives calls to the gateway, in their order, as far as there is room.
    fn make_calls(&mut self, desk: &impl Desk) {
        while self.calls.len() < CALLS_OVERLAP_MAX {
            let Some((number, method, args)) = self.waiting.pop_front() else {
                return;
            };
            let asked = Asked {
                job: self.job,
                began: self.attempt,
                number,
                method,
                args,
            };
            let (api, look) = (self.api.clone(), desk.papers());
            self.calls.push(
                async move {
                    let (answer, came) = asked.ask(api, look).await;
                    (number, answer, came)
                }
                .boxed(),
            );
        }
    }

    /// Starts the next report, if one is due and none is on its way.
    fn say_what_is_due(&mut self, desk: &impl Desk) {
        if self.is_sending() {
            return;
        }
        let now = Instant::now();
        let full = self.log.is_full();
        if !self.started_said && (full || now >= self.begun + STARTED_AFTER) {
            self.say_started(desk);
        } else if self.started_said && self.log.due_at().is_some_and(|due| due <= now) {
            let lines = self.log.take();
            self.send(desk.report(Body::Log { lines }));
        }
    }

    fn say_started(&mut self, desk: &impl Desk) {
        self.started_said = true;
        let runtime = self.runtime.clone();
        self.send(desk.report(Body::Started { runtime }));
    }

    fn send(&mut self, report: BoxFuture<'static, ()>) {
        self.sending = report.fuse();
    }

    fn is_sending(&self) -> bool {
        !self.sending.is_terminated()
    }

    /// When there is something to do that nobody else wakes us for; `None` when
    /// the invocation should have ended long ago.
    fn wake_at(&self) -> Option<Instant> {
        let allowed = Duration::from_millis(u64::from(self.job.timeout_ms));
        let overdue = match self.aborted {
            Some(told) => told + ABORT_MAX,
            None => self.begun + allowed + OVERDUE,
        };
        let now = Instant::now();
        if now >= overdue {
            return None;
        }
        let said = match (self.is_sending(), self.started_said) {
            // The end of what is on its way wakes us.
            (true, _) => None,
            (false, false) => Some(self.begun + STARTED_AFTER),
            (false, true) => self.log.due_at(),
        };
        Some(said.map_or(overdue, |said| said.min(overdue)))
    }

    /// The end of an invocation that does not end.
    fn given_up(&self) -> Ended {
        tracing::error!(job.id = %self.job.id, container = %self.runtime.container, "An invocation did not end when its time was over");
        let message = "The runtime did not end the invocation when its time was over.";
        Ended {
            result: Err(Failure::new(Cause::RuntimeUnavailable, message)),
            log_bytes_dropped: 0,
            collateral: false,
            aborted: self.aborted.is_some(),
        }
    }

    /// Sends what must go before the end, and hands the rest out with it.
    async fn conclude(mut self, ended: Ended, desk: &impl Desk, hops: Hops) -> Ran {
        // Calls nobody waits for any more: the harness said its end after the last answer.
        self.calls.clear();
        if self.is_sending() {
            (&mut self.sending).await;
        }
        while self.log.is_full() {
            if !self.started_said {
                self.started_said = true;
                let runtime = self.runtime.clone();
                desk.report(Body::Started { runtime }).await;
            }
            let lines = self.log.take();
            desk.report(Body::Log { lines }).await;
        }
        let end = match ended.result {
            _ if ended.aborted => End::Aborted,
            _ if self.came == Came::Over => End::Superseded,
            Ok(result) => End::Succeeded(result),
            Err(failure) if ended.collateral => End::Failed {
                failure: self.redacted(failure),
                again: Again::Maybe,
            },
            // It may have failed for want of an answer.
            Err(failure) if self.came == Came::Unanswered => End::Failed {
                failure: self.redacted(failure),
                again: Again::Maybe,
            },
            Err(failure) => judged(self.redacted(failure)),
        };
        Ran {
            end,
            log: self.log.take(),
            log_bytes_dropped: ended.log_bytes_dropped + self.log.dropped_bytes(),
            runtime: Some(self.runtime),
            hops,
            sdk_calls: self.sdk_calls,
        }
    }
}

impl Conversation<'_> {
    /// An error's text comes from user code and quotes what it likes.
    fn redacted(&self, failure: Failure) -> Failure {
        Failure {
            message: self.redactor.redact(failure.message),
            stack: self.redactor.redact_some(failure.stack),
            ..failure
        }
    }
}

async fn next_answer(calls: &mut FuturesUnordered<BoxFuture<'_, Reply>>) -> Reply {
    match calls.next().await {
        Some(answered) => answered,
        // There is no call to wait for.
        None => std::future::pending().await,
    }
}

/// Resolves once, when the job is told to end.
async fn told(abort: &mut oneshot::Receiver<()>, already: Option<Instant>) {
    if already.is_some() {
        std::future::pending::<()>().await;
    }
    asked(abort).await;
}
