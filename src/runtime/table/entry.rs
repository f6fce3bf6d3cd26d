//! One open invocation: what it may say, how much, and how it ends.

use std::time::Instant;

use serde::de::IgnoredAny;
use sluice_proto::harness::CALLS_IN_FLIGHT_MAX;
use sluice_proto::report::{Cause, ERROR_TEXT_BYTES_MAX, Failure, LOG_LINE_BYTES_MAX, Level};

use crate::runtime::death::collateral;
use crate::runtime::invocation::{Ended, Said};
use crate::runtime::table::{Entry, Phase, Why};

/// How many bytes of arguments the unanswered calls of one invocation may
/// hold: what a worker must keep in memory for it.
const CALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The longest name of an SDK method, in bytes; ours are below 30.
const METHOD_BYTES_MAX: usize = 128;

/// What a log line costs beside its text, so that empty lines are not free.
const LINE_BYTES_MIN: u64 = 16;

/// How far over its log limit a harness may be before it is not ours: it
/// counts the text alone and may count it a little differently.
const LOG_SLACK_BYTES: u64 = 64 * 1024;

// === impl Entry ===

impl Entry {
    pub(super) fn end_soon(&mut self, why: Why, since: Instant, ping: u32) {
        self.phase = Phase::Ending { why, since, ping };
    }

    pub(super) fn call(&mut self, call: u32, method: String, args: Vec<u8>) -> Result<(), String> {
        if self.phase != Phase::Running {
            // It crossed the Abort; nobody answers it.
            return Ok(());
        }
        if method.len() > METHOD_BYTES_MAX {
            return Err(format!(
                "an SDK method with a name of {} bytes",
                method.len()
            ));
        }
        if args.first() != Some(&b'[') || !is_json(&args) {
            return Err(format!("arguments of {method} that are no JSON array"));
        }
        if self.calls.len() >= CALLS_IN_FLIGHT_MAX {
            return Err(format!(
                "more than {CALLS_IN_FLIGHT_MAX} unanswered SDK calls"
            ));
        }
        self.call_bytes += args.len();
        if self.call_bytes > CALL_BYTES_MAX {
            return Err(format!(
                "unanswered SDK calls with more than {CALL_BYTES_MAX} bytes of arguments"
            ));
        }
        if self.calls.insert(call, args.len()).is_some() {
            return Err(format!("a second SDK call with the number {call}"));
        }
        self.mailbox.put(Said::Call { call, method, args });
        Ok(())
    }

    pub(super) fn log(&mut self, level: Level, text: String, at_us: u64) -> Result<(), String> {
        let bytes = text.len() as u64;
        self.log_bytes += bytes;
        if self.log_bytes > self.log_bytes_max + LOG_SLACK_BYTES {
            return Err(format!(
                "more than the {} bytes of log allowed",
                self.log_bytes_max
            ));
        }
        self.log_cost += bytes.max(LINE_BYTES_MIN);
        if self.log_cost > self.log_bytes_max {
            self.log_bytes_dropped += bytes;
            return Ok(());
        }
        let text = cut(text, LOG_LINE_BYTES_MAX);
        self.mailbox.put(Said::Log { at_us, level, text });
        Ok(())
    }

    /// Ends it with what the runtime said, or with what we waited for in vain.
    pub(super) fn finish(self, said: Option<Result<Vec<u8>, Failure>>) {
        let why = match self.phase {
            Phase::Running => None,
            Phase::Ending { why, .. } => Some(why),
        };
        let (result, aborted) = match (said, why) {
            // A result that crossed the Abort is a result.
            (Some(Ok(result)), _) => (Ok(result), false),
            (Some(Err(failure)), None) => (Err(failure), false),
            (_, Some(Why::TimedOut)) => (Err(timed_out()), false),
            (Some(Err(failure)), Some(Why::Aborted)) => (Err(failure), true),
            (None, _) => (Err(aborted_failure()), true),
        };
        self.mailbox.end(Ended {
            result,
            log_bytes_dropped: self.log_bytes_dropped,
            collateral: false,
            aborted,
        });
    }

    pub(super) fn perish(self, guilty: bool, failure: &Failure) {
        self.go_down(if guilty {
            Ended::failed(failure.clone())
        } else {
            Ended::collateral(collateral(failure))
        });
    }

    /// Somebody else brought the runtime down.
    pub(super) fn perish_blameless(self, failure: &Failure) {
        self.go_down(Ended::collateral(failure.clone()));
    }

    fn go_down(self, ended: Ended) {
        let aborted = matches!(
            self.phase,
            Phase::Ending {
                why: Why::Aborted,
                ..
            }
        );
        self.mailbox.end(Ended {
            collateral: ended.collateral && !aborted,
            aborted,
            log_bytes_dropped: self.log_bytes_dropped,
            ..ended
        });
    }
}

fn timed_out() -> Failure {
    Failure::new(
        Cause::Timeout,
        "the time allowed passed before the invocation ended",
    )
}

fn aborted_failure() -> Failure {
    Failure::new(Cause::Threw, "the invocation was aborted")
}

pub(super) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Cuts what a failure says and keeps only causes that a harness may name: the
/// others are facts about this side of the socket.
pub(super) fn tidy(failure: Failure) -> Failure {
    let cause = match failure.cause {
        cause @ (Cause::Syntax
        | Cause::Threw
        | Cause::ResultNotJson
        | Cause::ResultTooLarge
        | Cause::NoSuchHandler
        | Cause::Unacceptable) => cause,
        Cause::Timeout
        | Cause::EventLoopBlocked
        | Cause::OutOfMemory
        | Cause::Crashed
        | Cause::Collateral
        | Cause::BundleUnavailable
        | Cause::RuntimeUnavailable
        | Cause::Expired
        | Cause::Poison
        | Cause::Lost => Cause::Threw,
    };
    Failure {
        cause,
        message: cut(failure.message, ERROR_TEXT_BYTES_MAX),
        stack: failure.stack.map(|text| cut(text, ERROR_TEXT_BYTES_MAX)),
        key: failure.key.map(|text| cut(text, ERROR_TEXT_BYTES_MAX)),
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    const MARK: &str = " …";
    if text.len() > bytes_max {
        let mut end = bytes_max - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}
