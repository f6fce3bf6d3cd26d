//! The worker's way to the broker, over all the links it gets in its life.
//!
//! ```text
//!  Down ──connected──▶ Up(1) ──failed──▶ Down ──connected──▶ Up(2) … ──▶ Over
//! ```
//!
//! A report that could not be published is published on the next link: nothing
//! that a job came to is forgotten because a connection was lost meanwhile.

use std::time::Duration;

use sluice_proto::report::Report;

use crate::backoff::{Backoff, jitter};
use crate::queue::{self, Link};
use crate::worker::watch::Watch;

/// While the queue of reports is full, or its disk is: the bridge or the gateway
/// is away, and a slot that waits takes no more work.
const REFUSED: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// The links of one worker; one at a time.
pub struct Links {
    state: Watch<State>,
}

#[derive(Clone)]
enum State {
    Down,
    /// The number of the link, from 1, and the link.
    Up(u64, Link),
    /// There will be no other.
    Over,
}

/// Why a report was not published.
#[derive(Debug, PartialEq, Eq)]
pub enum Unpublished {
    /// The worker ends. The broker has the job, or its delivery, still.
    Over,
    /// It fits no message, on whichever link.
    Unwritable(String),
}

// === impl Links ===

impl Links {
    pub fn new() -> Self {
        Self {
            state: Watch::new(State::Down),
        }
    }

    pub fn up(&self, number: u64, link: &Link) {
        self.state.set(State::Up(number, link.clone()));
    }

    pub fn down(&self) {
        self.state.update(|state| {
            let was_up = matches!(state, State::Up(..));
            if was_up {
                *state = State::Down;
            }
            was_up
        });
    }

    pub fn over(&self) {
        self.state.set(State::Over);
    }

    /// The link there is now.
    pub fn now(&self) -> Option<(u64, Link)> {
        match self.state.get() {
            State::Up(number, link) => Some((number, link)),
            State::Down | State::Over => None,
        }
    }

    /// The link with this number, if it is still the one there is.
    pub fn if_still(&self, number: u64) -> Option<Link> {
        self.now()
            .filter(|(now, _)| *now == number)
            .map(|(_, link)| link)
    }

    /// Resolves to the first link after number `after`; `None` when there will be none.
    pub async fn next(&self, after: u64) -> Option<(u64, Link)> {
        self.state
            .wait(|state| match state {
                State::Up(number, link) if *number > after => Some(Some((*number, link.clone()))),
                State::Over => Some(None),
                State::Up(..) | State::Down => None,
            })
            .await
    }

    /// Publishes a report, on this link or a later one, and waits for its confirm.
    pub async fn publish(&self, report: &Report) -> Result<(), Unpublished> {
        let (mut tried, mut failed) = (0, 0);
        loop {
            let Some((number, link)) = self.next(failed).await else {
                return Err(Unpublished::Over);
            };
            match link.publish_report(report).await {
                Ok(()) => return Ok(()),
                Err(queue::Error::Unwritable(why)) => return Err(Unpublished::Unwritable(why)),
                Err(error) if error.leaves_link_alive() => {
                    if tried == 0 {
                        tracing::warn!(job.id = %report.job, attempt = %report.attempt, %error, "A report is not taken by the broker; it is tried again until it is");
                    }
                    async_std::task::sleep(REFUSED.delay(tried, jitter())).await;
                    tried += 1;
                }
                // The link is dead by this, and says so to whoever watches it.
                Err(_) => failed = number,
            }
        }
    }
}
