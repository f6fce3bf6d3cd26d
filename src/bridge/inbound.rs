//! From the gateway: frames read, jobs put into the broker, custody noted.
//!
//! ```text
//!  Dispatch ─▶ publish, all at once ─▶ confirmed ─▶ answers (Accepted, Rejected)
//!  Received ─▶ outbox ─▶ acknowledge with the broker
//!  Cancel ───▶ cancels ─▶ said to the workers until the job ends
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use futures::select_biased;
use futures::stream::{FuturesUnordered, StreamExt};
use sluice_proto::frame::{FromGateway, SILENCE_MS_MAX, Taken};
use sluice_proto::job::Job;

use crate::bridge::policy::End;
use crate::bridge::state::Shared;
use crate::limit;
use crate::telemetry::{now_ms, now_us};
use crate::{queue, wire};

/// How long the gateway may be silent before the session counts as lost.
const SILENCE_MAX: Duration = Duration::from_millis(SILENCE_MS_MAX);

/// Payloads on their way into the broker, in bytes, above which no more frames
/// are read: the gateway then waits with what it has, and no memory fills. A
/// frame that was read counts whole, so twice a frame comes on top.
const PUBLISHING_BYTES_MAX: usize = 32 * 1024 * 1024;

type Publishes = FuturesUnordered<BoxFuture<'static, Published>>;

/// A publish that is over.
struct Published {
    taken: Taken,
    bytes: usize,
    outcome: Result<(), queue::Error>,
}

/// Reads frames until the session is over; `busy` counts publishes on their way.
pub async fn run(
    shared: &Shared,
    receiver: &mut wire::Receiver<FromGateway>,
    busy: &AtomicUsize,
) -> End {
    let mut publishes = Publishes::new();
    let mut publishing_bytes = 0;
    let mut silent_at = Instant::now() + SILENCE_MAX;
    loop {
        let is_full = publishing_bytes > PUBLISHING_BYTES_MAX;
        // Each future may be dropped half-way: frames stay with their stream,
        // publishes in their set, and the deadline is a point in time.
        let frame = select_biased! {
            Published { taken, bytes, outcome } = publishes.select_next_some() => {
                busy.store(publishes.len(), Ordering::Relaxed);
                publishing_bytes -= bytes;
                if let Err(queue::Error::Refused(_)) = &outcome {
                    shared.see_refusal();
                }
                shared.answer(taken, outcome.map_err(|error| format!("The agent: {error}.")));
                if is_full {
                    // What came meanwhile was not listened to.
                    silent_at = Instant::now() + SILENCE_MAX;
                }
                continue;
            }
            frame = next_frame(receiver, is_full).fuse() => frame,
            () = limit::after(silent_at.saturating_duration_since(Instant::now())).fuse() => {
                let s = SILENCE_MAX.as_secs();
                return End::Lost(format!("the gateway was silent for {s} s"));
            }
        };
        silent_at = Instant::now() + SILENCE_MAX;
        match frame {
            Ok(Some(FromGateway::Dispatch { jobs })) => {
                publishing_bytes += dispatch(shared, jobs, &mut publishes);
                busy.store(publishes.len(), Ordering::Relaxed);
            }
            Ok(Some(FromGateway::Received { numbers })) => received(shared, &numbers).await,
            Ok(Some(FromGateway::Cancel { jobs, reason })) => {
                shared.cancels().add(jobs, &reason, now_ms());
                shared.controls.ring();
            }
            Ok(Some(FromGateway::Heartbeat | FromGateway::Welcome { .. })) => {}
            Ok(Some(FromGateway::Refused {
                reason,
                retry: true,
            })) => return End::Lost(reason),
            Ok(Some(FromGateway::Refused { reason, .. })) => return End::Refused(reason),
            Ok(Some(FromGateway::Goodbye { reason })) => {
                return End::Lost(format!("the gateway says goodbye: {reason}"));
            }
            Ok(None) => {
                let why = receiver.parting().unwrap_or("without a reason");
                return End::Lost(format!("the gateway closed the session: {why}"));
            }
            Err(error) => return End::Lost(error.to_string()),
        }
    }
}

/// The next frame, or never while there is no room for one.
async fn next_frame(
    receiver: &mut wire::Receiver<FromGateway>,
    is_full: bool,
) -> Result<Option<FromGateway>, wire::Error> {
    if is_full {
        std::future::pending::<()>().await;
    }
    receiver.next().await
}

/// Puts each job into the broker. The answer comes when the broker has it, or
/// will not. Says how many bytes are on their way.
fn dispatch(shared: &Shared, jobs: Vec<Job>, publishes: &mut Publishes) -> usize {
    let received_us = now_us();
    let mut publishing_bytes = 0;
    let link = shared.link();
    for job in jobs {
        let taken = Taken {
            job: job.id.clone(),
            dispatch: job.dispatch,
        };
        let link = match &link {
            Err(why) => {
                shared.answer(taken, Err(format!("The agent has no broker: {why}.")));
                continue;
            }
            // What is published now would wait for the end of the alarm in this
            // process; the gateway keeps it better.
            Ok(link) => match link.blocked() {
                Some(why) => {
                    let reason = format!("The agent's broker takes nothing: {why}.");
                    shared.answer(taken, Err(reason));
                    continue;
                }
                None => link.clone(),
            },
        };
        let bytes = job.payload.len();
        publishing_bytes += bytes;
        publishes.push(
            async move {
                let outcome = link.publish_job(&job, received_us).await;
                Published {
                    taken,
                    bytes,
                    outcome,
                }
            }
            .boxed(),
        );
    }
    publishing_bytes
}

/// The gateway has custody of these: now, and not before, the broker may forget them.
async fn received(shared: &Shared, numbers: &[u64]) {
    let receipt = shared.outbox().received(numbers);
    if let Some(receipt) = receipt
        && let Err(error) = receipt.ack_through().await
    {
        // The broker delivers them again, and the gateway takes repeats as such.
        tracing::debug!(error = %error, "Reports were not acknowledged; they come again");
    }
}
