//! The open invocations of one runtime, and what a message or the time does to
//! them. No socket and no clock: both are the caller's.
//!
//! ```text
//! Running ──deadline, abort: Abort and Ping sent──▶ Ending ──Failed, Done──▶ ended
//!    │                                                │ grace over
//!    └────────────── Done, Failed ──▶ ended           ├─ Pong came: ended, runtime in doubt
//!                                                     └─ no Pong: event loop blocked, runtime killed
//! ```
//!
//! Everything a runtime says may be forged by the code in it. Whatever a
//! harness would never send is a violation and ends the runtime.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use sluice_proto::codec::RESULT_BYTES_MAX;
use sluice_proto::harness::{Answer, FromRuntime, ToRuntime};
use sluice_proto::report::{Cause, Failure};

use crate::runtime::death::{Verdict, collateral};
use crate::runtime::invocation::{Ended, Invocation, Mailbox};
use crate::runtime::table::entry::{is_json, tidy};

/// How long an aborted invocation and a ping may take before the runtime is
/// doubted. A Node process that yields answers within a millisecond; a second
/// leaves room for a host that is out of CPU.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Table {
    open: HashMap<u32, Entry>,
    /// Ended by us while the runtime may still speak of them.
    abandoned: HashSet<u32>,
    next: u32,
    loading: Option<oneshot::Sender<Result<(), Failure>>>,
    pings: u32,
    pongs: u32,
    /// Who waits for the echo of which ping.
    echoes: Vec<(u32, oneshot::Sender<()>)>,
    /// The socket has ended, and why is being found out.
    dying: bool,
    /// Set once the runtime is over: what an invocation that comes late is told.
    over: Option<Failure>,
}

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    deadline: Instant,
    phase: Phase,
    /// Unanswered calls and the bytes of their arguments.
    calls: HashMap<u32, usize>,
    call_bytes: usize,
    log_bytes: u64,
    log_cost: u64,
    log_bytes_max: u64,
    log_bytes_dropped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Ending { why: Why, since: Instant, ping: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    TimedOut,
    Aborted,
}

/// What the passing of time asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) frames: Vec<ToRuntime>,
    /// No echo in time: the runtime must be killed.
    pub(super) blocked: bool,
    /// The runtime gets no new invocation.
    pub(super) doubt: bool,
}

// === impl Table ===

impl Table {
    /// Notes a load; its answer comes through the receiver.
    pub(super) fn load(&mut self) -> oneshot::Receiver<Result<(), Failure>> {
        let (sender, receiver) = oneshot::channel();
        match &self.over {
            Some(failure) => drop(sender.send(Err(collateral(failure)))),
            None => self.loading = Some(sender),
        }
        receiver
    }

    /// Opens an invocation and gives its number, or ends it at once, as
    /// collateral, if the runtime is over.
    pub(super) fn open(
        &mut self,
        invocation: &Invocation,
        mailbox: &Arc<Mailbox>,
        now: Instant,
    ) -> Option<u32> {
        if self.dying || self.over.is_some() {
            let gone = Failure::new(Cause::Crashed, "it ended before this invocation began");
            let why = self.over.as_ref().unwrap_or(&gone);
            mailbox.end(Ended::collateral(collateral(why)));
            return None;
        }
        while self.open.contains_key(&self.next) || self.abandoned.contains(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let entry = Entry {
            mailbox: Arc::clone(mailbox),
            deadline: now + invocation.timeout,
            phase: Phase::Running,
            calls: HashMap::new(),
            call_bytes: 0,
            log_bytes: 0,
            log_cost: 0,
            log_bytes_max: u64::from(invocation.log_bytes_max),
            log_bytes_dropped: 0,
        };
        self.open.insert(number, entry);
        Some(number)
    }

    /// A ping, and what hears its echo; nothing does once the runtime is over.
    pub(super) fn probe(&mut self) -> (ToRuntime, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        self.pings = self.pings.wrapping_add(1);
        if self.over.is_none() && !self.dying {
            self.echoes.push((self.pings, sender));
        }
        (ToRuntime::Ping { number: self.pings }, receiver)
    }

    /// No invocation is opened any more; the open ones wait to hear why.
    pub(super) fn dying(&mut self) {
        self.dying = true;
        self.echoes.clear();
    }

    /// Takes back an invocation that was never sent.
    pub(super) fn forget(&mut self, invocation: u32) {
        self.open.remove(&invocation);
    }

    /// Whether the answer is still waited for.
    pub(super) fn answered(
        &mut self,
        invocation: u32,
        call: u32,
        answer: Answer,
    ) -> Option<ToRuntime> {
        let entry = self.open.get_mut(&invocation)?;
        let bytes = entry.calls.remove(&call)?;
        entry.call_bytes -= bytes;
        Some(ToRuntime::Called {
            invocation,
            call,
            answer,
        })
    }

    /// Begins to end an invocation. A repeat changes nothing.
    pub(super) fn abort(&mut self, invocation: u32, now: Instant) -> Due {
        let mut due = Due::default();
        let ping = self.pings.wrapping_add(1);
        if let Some(entry) = self.open.get_mut(&invocation)
            && entry.phase == Phase::Running
        {
            entry.end_soon(Why::Aborted, now, ping);
            due.frames.push(ToRuntime::Abort { invocation });
        }
        self.ping(&mut due);
        due
    }

    /// Applies one message. An error is a violation, in words.
    pub(super) fn apply(&mut self, message: FromRuntime, now_us: u64) -> Result<(), String> {
        match message {
            FromRuntime::Hello { .. } => return Err("a second Hello".into()),
            FromRuntime::Loaded => self.loaded(Ok(()))?,
            FromRuntime::LoadFailed { failure } => self.loaded(Err(tidy(failure)))?,
            FromRuntime::Done {
                invocation,
                log_bytes_dropped,
                result,
            } => return self.done(invocation, log_bytes_dropped, result),
            FromRuntime::Failed {
                invocation,
                log_bytes_dropped,
                failure,
            } => return self.failed(invocation, log_bytes_dropped, failure),
            FromRuntime::Call {
                invocation,
                call,
                method,
                args,
            } => {
                if let Some(entry) = self.entry(invocation)? {
                    entry.call(call, method, args)?;
                }
            }
            FromRuntime::Log {
                invocation,
                level,
                text,
            } => {
                if let Some(entry) = self.entry(invocation)? {
                    entry.log(level, text, now_us)?;
                }
            }
            FromRuntime::Pong { number } => {
                if number > self.pings || number <= self.pongs {
                    return Err(format!("an echo of a ping {number} that was not sent"));
                }
                self.pongs = number;
                for (_, echo) in self.echoes.extract_if(.., |(ping, _)| *ping <= number) {
                    let _ = echo.send(());
                }
            }
        }
        Ok(())
    }

    /// What is due at `now`. The deadlines of all open invocations are looked at.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        if self.dying {
            // A dead process answers no ping, and is not blocked for it.
            return due;
        }
        let ping = self.pings.wrapping_add(1);
        let mut over = Vec::new();
        for (&invocation, entry) in &mut self.open {
            match entry.phase {
                Phase::Running if now >= entry.deadline => {
                    entry.end_soon(Why::TimedOut, now, ping);
                    due.frames.push(ToRuntime::Abort { invocation });
                }
                Phase::Ending { since, ping, .. } if now >= since + GRACE => {
                    due.blocked |= self.pongs < ping;
                    over.push(invocation);
                }
                Phase::Running | Phase::Ending { .. } => {}
            }
        }
        self.ping(&mut due);
        if !due.blocked {
            for invocation in over {
                // It yields, and yet does not end what it was told to end.
                due.doubt = true;
                self.abandoned.insert(invocation);
                if let Some(entry) = self.open.remove(&invocation) {
                    entry.finish(None);
                }
            }
        }
        due
    }

    /// Ends everything because we end the runtime.
    pub(super) fn condemn(&mut self, verdict: &Verdict, culprit: Option<u32>) {
        let failure = verdict.failure();
        // A message for one that has ended is not the fault of the one that is left.
        let known = culprit.is_some_and(|number| number < self.next);
        let alone = self.open.len() == 1 && !known;
        for (invocation, entry) in std::mem::take(&mut self.open) {
            let guilty = match verdict {
                Verdict::EventLoopBlocked => entry.phase != Phase::Running,
                Verdict::OutOfMemory { .. } | Verdict::Violation(_) => {
                    alone || culprit == Some(invocation)
                }
            };
            entry.perish(guilty, &failure);
        }
        self.close(failure);
    }

    /// Ends everything because the runtime died by itself.
    pub(super) fn bury(&mut self, failure: Failure) {
        let alone = self.open.len() == 1;
        for (_, entry) in std::mem::take(&mut self.open) {
            entry.perish(alone, &failure);
        }
        self.close(failure);
    }

    /// Ends every invocation so that it may be tried again.
    pub(super) fn bury_blameless(&mut self, failure: Failure) {
        for (_, entry) in std::mem::take(&mut self.open) {
            entry.perish_blameless(&failure);
        }
        // Whoever is loading it is no more to blame, and loads another one.
        if let Some(loading) = self.loading.take() {
            let _ = loading.send(Err(collateral(&failure)));
        }
        self.close(failure);
    }

    fn close(&mut self, failure: Failure) {
        self.echoes.clear();
        if let Some(loading) = self.loading.take() {
            let _ = loading.send(Err(failure.clone()));
        }
        self.over.get_or_insert(failure);
    }

    /// Asks for an echo after what was aborted. Code that is told to end may
    /// still run on, so its runtime gets nothing new.
    fn ping(&mut self, due: &mut Due) {
        if !due.frames.is_empty() {
            self.pings = self.pings.wrapping_add(1);
            due.frames.push(ToRuntime::Ping { number: self.pings });
            due.doubt = true;
        }
    }

    fn entry(&mut self, invocation: u32) -> Result<Option<&mut Entry>, String> {
        if self.abandoned.contains(&invocation) {
            return Ok(None);
        }
        match self.open.get_mut(&invocation) {
            Some(entry) => Ok(Some(entry)),
            None => Err(format!(
                "a message for invocation {invocation}, which is not open"
            )),
        }
    }

    fn loaded(&mut self, outcome: Result<(), Failure>) -> Result<(), String> {
        let loading = self.loading.take().ok_or("an answer to no Load")?;
        let _ = loading.send(outcome);
        Ok(())
    }

    fn done(&mut self, invocation: u32, dropped: u64, result: Vec<u8>) -> Result<(), String> {
        if self.abandoned.remove(&invocation) {
            return Ok(());
        }
        self.entry(invocation)?;
        let result = if result.len() > RESULT_BYTES_MAX {
            Err(Failure::new(
                Cause::ResultTooLarge,
                format!(
                    "the result has {} bytes, the limit is {RESULT_BYTES_MAX}",
                    result.len()
                ),
            ))
        } else if is_json(&result) {
            Ok(result)
        } else {
            return Err("a result that is not JSON".into());
        };
        self.finish(invocation, dropped, result);
        Ok(())
    }

    fn failed(&mut self, invocation: u32, dropped: u64, failure: Failure) -> Result<(), String> {
        if self.abandoned.remove(&invocation) {
            return Ok(());
        }
        self.entry(invocation)?;
        self.finish(invocation, dropped, Err(tidy(failure)));
        Ok(())
    }

    fn finish(&mut self, invocation: u32, dropped: u64, result: Result<Vec<u8>, Failure>) {
        if let Some(mut entry) = self.open.remove(&invocation) {
            entry.log_bytes_dropped = entry.log_bytes_dropped.saturating_add(dropped);
            entry.finish(Some(result));
        }
    }
}

mod entry;

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
