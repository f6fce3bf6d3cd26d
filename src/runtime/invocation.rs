//! One invocation, as its caller sees it.
//!
//! Owns the mailbox between the reader of a runtime's socket and the one who
//! holds the [`Running`]. The reader never waits for a slow holder: what may
//! lie in a mailbox is bounded by the limits that `table` applies before it puts something in.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sluice_proto::harness::Answer;
use sluice_proto::job::Kind;
use sluice_proto::report::{Failure, Level};

use crate::runtime::harness::Conversation;
use crate::runtime::pool::Hold;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub kind: Kind,
    /// JSON, at most [`sluice_proto::codec::PAYLOAD_BYTES_MAX`].
    pub payload: Vec<u8>,
    /// How long it may take from now on.
    pub timeout: Duration,
    /// How much log it may send, in bytes.
    pub log_bytes_max: u32,
}

/// What an invocation says. `Ended` comes last; after it `next` answers the
/// same end again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Log {
        /// Microseconds since the Unix epoch when it arrived here.
        at_us: u64,
        level: Level,
        text: String,
    },
    /// An SDK call, to be answered with [`Running::answer`]. `args` is a JSON array.
    Call {
        call: u32,
        method: String,
        args: Vec<u8>,
    },
    Ended(Ended),
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// JSON, at most [`sluice_proto::codec::RESULT_BYTES_MAX`].
    pub result: Result<Vec<u8>, Failure>,
    pub log_bytes_dropped: u64,
    /// The runtime went down because of another invocation, or nobody knows
    /// which: worth another try.
    pub collateral: bool,
    /// It was ended by [`Running::abort`].
    pub aborted: bool,
}

/// An invocation under way. Dropping it aborts it.
pub struct Running {
    mailbox: Arc<Mailbox>,
    conversation: Arc<Conversation>,
    /// `None` if it ended before it began.
    invocation: Option<u32>,
    // Keeps the runtime claimed for as long as the invocation is held.
    _hold: Arc<Hold>,
}

/// What one invocation said and nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    said: VecDeque<Said>,
    ended: Option<Ended>,
    waker: Option<Waker>,
}

// === impl Running ===

impl Running {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        conversation: Arc<Conversation>,
        invocation: Option<u32>,
        hold: Arc<Hold>,
    ) -> Self {
        Self {
            mailbox,
            conversation,
            invocation,
            _hold: hold,
        }
    }

    /// The next thing it says. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Said {
        poll_fn(|context| self.mailbox.poll(context)).await
    }

    /// Answers one call. An answer nobody waits for any more is dropped.
    pub fn answer(&self, call: u32, answer: Answer) {
        if let Some(invocation) = self.invocation {
            self.conversation.answer(invocation, call, answer);
        }
    }

    /// Asks for the end of it; a repeat changes nothing.
    pub fn abort(&self) {
        if let Some(invocation) = self.invocation {
            self.conversation.abort(invocation);
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Running({:?} in {})",
            self.invocation,
            self.conversation.container()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Aborting an invocation that has ended changes nothing.
        self.abort();
    }
}

// === impl Ended ===

impl Ended {
    pub(super) fn failed(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            log_bytes_dropped: 0,
            collateral: false,
            aborted: false,
        }
    }

    pub(super) fn collateral(failure: Failure) -> Self {
        Self {
            collateral: true,
            ..Self::failed(failure)
        }
    }
}

// === impl Mailbox ===

impl Mailbox {
    pub(super) fn put(&self, said: Said) {
        let mut inner = self.lock();
        if inner.ended.is_none() {
            inner.said.push_back(said);
        }
        wake(inner);
    }

    /// The first end holds; a later one changes nothing.
    pub(super) fn end(&self, ended: Ended) {
        let mut inner = self.lock();
        if inner.ended.is_none() {
            inner.ended = Some(ended);
        }
        wake(inner);
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Said> {
        let mut inner = self.lock();
        if let Some(said) = inner.said.pop_front() {
            return Poll::Ready(said);
        }
        if let Some(ended) = &inner.ended {
            return Poll::Ready(Said::Ended(ended.clone()));
        }
        // Stored under the lock that every writer takes, so no wake-up is missed.
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}
