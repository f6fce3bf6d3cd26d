//! Time limits that nearly never fall due: cheap to set, coarse to fire.
//!
//! Every timer of the reactor costs a wake-up of its thread and half a dozen
//! system calls, also one that is dropped a millisecond later. A job has some
//! ten limits around it, so these share one ticking timer instead.
//!
//! ```text
//!  timeout ──polled, pending──▶ waiting ──ready──▶ forgotten
//!                                  └──due──▶ woken, Elapsed
//!  ticker: asleep until the earliest is due; rung awake only for an earlier one
//! ```
//!
//! Not for pacing: what falls due does so up to a tick late.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_std::channel;
use futures::future::{Either, select};

use crate::shutdown;

/// How late a limit may be noticed: nothing for a limit of seconds, and a job
/// that runs for longer than 20 ms is still told of in time.
const TICK: Duration = Duration::from_millis(5);

/// How long the ticker sleeps with nothing to look for.
const NAP_MAX: Duration = Duration::from_secs(60);

static WAITING: Mutex<Waiting> = Mutex::new(Waiting::new());
/// Wakes the ticker; a ring that waits stands for all later ones.
static BELL: LazyLock<(channel::Sender<()>, channel::Receiver<()>)> =
    LazyLock::new(|| channel::bounded(1));

/// The time was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time limit is over")]
pub struct Elapsed;

struct Waiting {
    due: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    has_ticker: bool,
    /// When the ticker looks again; `None`: when it is rung.
    look_at: Option<Instant>,
}

/// Resolves when its moment has come.
struct Due {
    at: Instant,
    /// Its number among those that wait, once it does.
    number: Option<u64>,
}

/// Waits for `future`, but hardly longer than `limit`.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let future = std::pin::pin!(future);
    match select(future, after(limit)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(Elapsed),
    }
}

/// Resolves after about `pause`, never before.
pub fn after(pause: Duration) -> impl Future<Output = ()> + Send + Unpin {
    Due {
        at: Instant::now() + pause,
        number: None,
    }
}

// === impl Due ===

impl Future for Due {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        let mut waiting = waiting();
        let number = *self.number.get_or_insert_with(|| waiting.number());
        let waker = context.waker().clone();
        waiting.due.insert((self.at, number), waker);
        let ring = waiting.is_earlier(self.at);
        let has_ticker = std::mem::replace(&mut waiting.has_ticker, true);
        drop(waiting);
        if !has_ticker {
            shutdown::spawn_detached(tick());
        } else if ring {
            // Full means that it is rung already.
            let _ = BELL.0.try_send(());
        }
        Poll::Pending
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            waiting().due.remove(&(self.at, number));
        }
    }
}

// === impl Waiting ===

impl Waiting {
    const fn new() -> Self {
        Self {
            due: BTreeMap::new(),
            next: 0,
            has_ticker: false,
            look_at: None,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether the ticker must be told of this moment. It is then told once.
    fn is_earlier(&mut self, at: Instant) -> bool {
        let earlier = self.look_at.is_none_or(|look_at| at + TICK < look_at);
        if earlier {
            self.look_at = Some(at);
        }
        earlier
    }

    /// Takes out those whose moment has come, and sets the next look.
    fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let later = self.due.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.due, later);
        let earliest = self.due.keys().next();
        self.look_at = earliest.map(|(at, _)| (*at).max(now + TICK));
        due.into_values().collect()
    }
}

/// The one ticker of a process; it lives as long as that.
async fn tick() {
    loop {
        let now = Instant::now();
        let (due, look_at) = {
            let mut waiting = waiting();
            (waiting.take_due(now), waiting.look_at)
        };
        due.into_iter().for_each(Waker::wake);
        // Its sender is a static, so the channel never closes; which of the two woke it is the same.
        let rung = BELL.1.recv();
        let nap = look_at.map(|at| at.saturating_duration_since(now));
        let _ = async_std::future::timeout(nap.unwrap_or(NAP_MAX), rung).await;
    }
}

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[async_std::test]
    async fn a_limit_falls_due_and_never_early() {
        for ms in [1, 15, 40] {
            let limit = Duration::from_millis(ms);
            let since = Instant::now();
            let outcome = timeout(limit, std::future::pending::<()>()).await;
            assert_eq!(outcome, Err(Elapsed));
            assert!(since.elapsed() >= limit);
        }
    }

    #[async_std::test]
    async fn an_earlier_limit_is_noticed_while_the_ticker_sleeps_for_a_later_one() {
        let pending = || std::future::pending::<()>();
        let long = shutdown::spawn(timeout(Duration::from_secs(3_000), pending()));
        // Longer than the ticker takes to fall asleep for the long one.
        async_std::task::sleep(TICK * 10).await;
        let short = timeout(Duration::from_millis(30), pending());
        let guarded = async_std::future::timeout(Duration::from_secs(20), short);
        assert_eq!(guarded.await, Ok(Err(Elapsed)));
        assert!(long.cancel().await.is_none());
    }

    #[async_std::test]
    async fn what_is_ready_in_time_leaves_nothing_behind() {
        let slow = async_std::task::sleep(Duration::from_millis(5));
        let at = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(timeout(Duration::from_secs(3_600), slow).await, Ok(()));
        let left = waiting().due.range((at, 0)..).count();
        assert_eq!(left, 0);
    }
}
