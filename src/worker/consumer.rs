//! One link after the other, and what comes in by each.
//!
//! ```text
//!  connect ──▶ controls, presence ──┬─ takes work ──▶ jobs, jobs.high ──▶ table ──▶ slots
//!     ▲  back-off                   └─ refuses or drains: cancel, give back what waits
//!     └────────── the link failed: what waits is the broker's, what runs goes on
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::channel::Sender;
use futures::{FutureExt, select_biased};

use sluice_proto::ids::JobId;
use sluice_proto::job::{Attempt, Job};
use sluice_proto::queue::{Control, Names};

use crate::backoff::{Backoff, jitter};
use crate::queue::{self, Deliveries, Link};
use crate::worker::office::{Hold, Office};
use crate::worker::posture::Posture;
use crate::worker::table::Arrival;
use crate::worker::watch::Watch;

/// Consuming again within five seconds after the broker is back is promised.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));

/// A link that lived shorter is counted as one more failure, so that a broker
/// that throws everybody out is not asked all the time.
const LIVED_MIN: Duration = Duration::from_secs(10);

/// Cancelled consumers whose channels are kept for the jobs that came by them.
/// More means that the worker went to and fro while some job ran all the time:
/// a new link is made then, and the jobs are adopted by it.
const CANCELLED_MAX: usize = 200;

/// Keeps the worker linked, and fed.
pub struct Consumer {
    pub office: Arc<Office>,
    pub posture: Arc<Watch<Posture>>,
    pub amqp_url: String,
    pub names: Names,
    /// As many as there are slots: what is here is being done, the rest is for others.
    pub prefetch: u16,
    pub prefetch_high: u16,
    pub to_slots: Sender<JobId>,
    pub to_slots_high: Sender<JobId>,
    /// Set when the worker has nothing left to say.
    pub over: Arc<Watch<bool>>,
}

// === impl Consumer ===

impl Consumer {
    /// Runs until [`Consumer::over`] is set.
    pub async fn run(self) {
        let (mut number, mut failures) = (0, 0);
        loop {
            let connecting = Link::connect(&self.amqp_url, &self.office.name, &self.names);
            let connected = select_biased! {
                () = self.is_over().fuse() => break,
                connected = connecting.fuse() => connected,
            };
            let since = Instant::now();
            let was_up = connected.is_ok();
            let error = match connected {
                Ok(link) => {
                    number += 1;
                    tracing::info!(worker = %self.office.name, link = number, "Connected to the broker");
                    self.office.links.up(number, &link);
                    let ended = select_biased! {
                        () = self.is_over().fuse() => None,
                        error = self.serve(number, &link).fuse() => Some(error),
                    };
                    self.office.links.down();
                    self.office.table().lose_link();
                    let Some(error) = ended else {
                        link.close().await;
                        break;
                    };
                    link.abandon();
                    error
                }
                Err(error) => error,
            };
            if since.elapsed() >= LIVED_MIN {
                failures = 0;
            }
            self.tell(&error, was_up || failures == 0);
            let pause = RECONNECT.delay(failures, jitter());
            failures = failures.saturating_add(1);
            select_biased! {
                () = self.is_over().fuse() => break,
                () = async_std::task::sleep(pause).fuse() => {}
            }
        }
        self.office.links.over();
    }

    async fn is_over(&self) {
        self.over.wait(|over| over.then_some(())).await;
    }

    fn tell(&self, error: &queue::Error, is_news: bool) {
        let worker = &self.office.name;
        let running = self.office.table().in_slots();
        if is_news && !error.is_transient() {
            tracing::error!(%worker, %error, running, "No link to the broker, and it will not come by itself");
        } else if is_news {
            tracing::warn!(%worker, %error, running, "No link to the broker; running jobs go on, and a new link is made");
        } else {
            tracing::debug!(%worker, %error, "Still no link to the broker");
        }
    }

    /// Feeds the worker by one link until that is dead.
    async fn serve(&self, number: u64, link: &Link) -> queue::Error {
        let work = async {
            let controls = link.controls().await?;
            select_biased! {
                ended = self.obey(controls).fuse() => ended,
                ended = self.take_work(number, link).fuse() => ended,
            }
        };
        // Whichever is first says why; the others have nothing to lose with it.
        select_biased! {
            error = link.failed().fuse() => error,
            ended = work.fuse() => match ended {
                Ok(never) => match never {},
                Err(error) => {
                    link.close().await;
                    error
                }
            },
        }
    }

    async fn obey(
        &self,
        mut controls: Deliveries<Control>,
    ) -> Result<std::convert::Infallible, queue::Error> {
        loop {
            match controls.next().await?.item {
                Control::Cancel { jobs, reason } => {
                    tracing::debug!(count = jobs.len(), "Jobs are cancelled");
                    let now = Instant::now();
                    for job in &jobs {
                        self.office.table().cancel(job, &reason, now);
                    }
                }
                Control::Tell => self.office.asked.update(|asked| {
                    *asked += 1;
                    true
                }),
            }
        }
    }

    /// Consumes while the worker takes work, again and again.
    async fn take_work(
        &self,
        number: u64,
        link: &Link,
    ) -> Result<std::convert::Infallible, queue::Error> {
        // A channel ends with its `Deliveries`, and gives back what runs: those
        // that are cancelled stay until nothing of theirs can be unsettled.
        let mut cancelled = Vec::new();
        loop {
            self.posture
                .wait(|posture| posture.takes_work().then_some(()))
                .await;
            if self.office.table().in_slots() == 0 {
                cancelled.clear();
            }
            if cancelled.len() >= CANCELLED_MAX {
                return Err(queue::Error::Closed);
            }
            let mut high = link.jobs_high(self.prefetch_high).await?;
            let mut normal = link.jobs(self.prefetch).await?;
            // A delivery that is not taken when this ends is in its stream, and
            // `cancel` gives that back.
            select_biased! {
                () = self.posture.wait(|posture| (!posture.takes_work()).then_some(())).fuse() => {}
                ended = self.pump(number, &mut high, &self.to_slots_high).fuse() => return ended,
                ended = self.pump(number, &mut normal, &self.to_slots).fuse() => return ended,
            }
            high.cancel().await?;
            normal.cancel().await?;
            let waiting = self.office.table().give_back_waiting(Instant::now());
            for hold in waiting {
                self.office.requeue(hold).await;
            }
            cancelled.extend([high, normal]);
        }
    }

    async fn pump(
        &self,
        link: u64,
        deliveries: &mut Deliveries<Job>,
        to_slots: &Sender<JobId>,
    ) -> Result<std::convert::Infallible, queue::Error> {
        loop {
            let delivery = deliveries.next().await?;
            let job = delivery.item.id.clone();
            let attempt = Attempt {
                dispatch: delivery.item.dispatch,
                delivery: delivery.delivery,
            };
            let hold = Hold { delivery, link };
            let arrival = self
                .office
                .table()
                .arrive(&job, attempt, hold, Instant::now());
            match arrival {
                // Unbounded, and bounded by the prefetch; closed only when the worker ends.
                Arrival::Waiting => drop(to_slots.try_send(job)),
                Arrival::Adopted { replaced } => {
                    tracing::info!(job.id = %job, %attempt, worker = %self.office.name, "A job that is here already was delivered again; it goes on as this attempt");
                    self.office.ack_all([replaced, None]).await;
                }
                Arrival::Superseded(hold) => {
                    tracing::info!(job.id = %job, %attempt, worker = %self.office.name, "An older dispatch of a job that is here was delivered; it is acked");
                    self.office.ack_all([Some(hold), None]).await;
                }
            }
        }
    }
}
