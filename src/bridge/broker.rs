//! The broker's side of the bridge: one link after the other, and what comes out of each.
//!
//! ```text
//!  connecting ──▶ waiting for the lock ──▶ working ──failure──▶ backing off ──▶ connecting
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_std::task;
use futures::future::{FutureExt, select};
use futures::select_biased;
use sluice_proto::ids::PoolId;
use sluice_proto::job::Attempt;
use sluice_proto::queue::{BROKER_DELIVERY_LIMIT, Control, Names};
use sluice_proto::report::{Cause, Failure};

use crate::backoff::{Backoff, jitter};
use crate::bridge::state::Shared;
use crate::config::EXIT_USAGE;
use crate::disk;
use crate::pause;
use crate::queue::{Error, Link, failed};
use crate::shutdown::unblock;
use crate::telemetry::now_ms;

/// Back at work well within 5 s of the broker's return.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// How often the lock is tried while another bridge holds it.
const LOCK_EVERY: Duration = Duration::from_secs(1);
/// How often queues and disk are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1_000);
/// How often repeats of cancellations are looked for.
const CANCEL_EVERY: Duration = Duration::from_millis(500);
/// Reports in our hands at once. AMQP counts messages and not bytes, so this
/// times the largest report (4 MiB) is what a bridge may have to hold: 256 MiB.
/// It is also what may be on its way to the gateway and back, and enough for
/// several thousand reports a second as long as that takes some milliseconds.
pub const PREFETCH: u16 = 64;

/// Keeps the bridge linked to its broker until it is told to stop.
pub async fn keep(shared: Arc<Shared>, client: String) {
    let names = Names::of(&PoolId::from(shared.config.pool_id.as_str()));
    let mut tries = 0;
    let stopped = shared.stop.rung().shared();
    loop {
        let turn = one_link(&shared, &client, &names, &mut tries);
        let error = match select(stopped.clone(), std::pin::pin!(turn)).await {
            futures::future::Either::Left(_) => break,
            futures::future::Either::Right((error, _)) => error,
        };
        shared.link_is_down(why_none(&error));
        if let Error::Address(_) = &error {
            tracing::error!(error = %error, "AMQP_URL is not usable; the bridge ends");
            shared.fail(EXIT_USAGE);
            break;
        }
        let wait = BACKOFF.delay(tries, jitter());
        tries += 1;
        let retry_ms = wait.as_millis() as u64;
        if error.is_transient() {
            tracing::warn!(error = %error, retry_ms, "No link to the broker; trying again");
        } else {
            tracing::error!(error = %error, retry_ms, "The broker cannot be used as it is; trying again");
        }
        let waited = select(stopped.clone(), Box::pin(task::sleep(wait))).await;
        if let futures::future::Either::Left(_) = waited {
            break;
        }
    }
    if let Ok(link) = shared.link() {
        link.close().await;
    }
    shared.link_is_down("the bridge ends".into());
}

/// Connects, and works until the link is dead.
async fn one_link(shared: &Shared, client: &str, names: &Names, tries: &mut u32) -> Error {
    let link = match Link::connect(&shared.config.amqp_url, client, names).await {
        Ok(link) => link,
        Err(error) => return error,
    };
    let error = use_link(shared, client, &link, tries).await;
    link.abandon();
    error
}

async fn use_link(shared: &Shared, client: &str, link: &Link, tries: &mut u32) -> Error {
    if let Err(error) = hold_lock(shared, link).await {
        return error;
    }
    tracing::info!(pool.id = shared.config.pool_id, "Linked to the broker");
    *tries = 0;
    let generation = shared.link_is_up(link);
    select_biased! {
        error = link.failed().fuse() => error,
        error = relay_reports(shared, link, generation).fuse() => error,
        error = report_given_up(shared, link, client).fuse() => error,
        error = hear_presences(shared, link).fuse() => error,
        error = say_cancels(shared, link).fuse() => error,
        error = look(shared, link).fuse() => error,
    }
}

/// One bridge per pool and broker: waits until this one is it.
async fn hold_lock(shared: &Shared, link: &Link) -> Result<(), Error> {
    let mut said = false;
    loop {
        match link.hold_bridge_lock().await {
            Err(error @ Error::LockHeld) => {
                if !std::mem::replace(&mut said, true) {
                    shared.link_is_down(error.to_string());
                    tracing::warn!(
                        pool.id = shared.config.pool_id,
                        "Another bridge of this pool uses this broker; waiting until it ends"
                    );
                }
                task::sleep(LOCK_EVERY).await;
            }
            other => return other,
        }
    }
}

async fn relay_reports(shared: &Shared, link: &Link, generation: u64) -> Error {
    let relaying = async {
        let mut reports = link.reports(PREFETCH).await?;
        loop {
            let delivery = reports.next().await?;
            shared.take_report(delivery, generation);
        }
    };
    ended(relaying.await)
}

/// Turns what the broker itself gave up on into an end that the gateway hears of.
async fn report_given_up(shared: &Shared, link: &Link, client: &str) -> Error {
    let reporting = async {
        let mut given_up = link.given_up(1).await?;
        loop {
            let delivery = given_up.next().await?;
            let job = &delivery.item;
            // At least the greatest that was handed out, so that no fence keeps it out.
            let attempt = Attempt {
                dispatch: job.dispatch,
                delivery: delivery.delivery + BROKER_DELIVERY_LIMIT + 1,
            };
            tracing::error!(
                job.id = job.id.as_str(),
                attempt = %attempt,
                pool.id = shared.config.pool_id,
                "The broker gave a job up after too many deliveries; it is kept in the dead letters"
            );
            let sentence = format!(
                "The job was delivered more than {BROKER_DELIVERY_LIMIT} times, and no worker lived to report its end."
            );
            let failure = Failure::new(Cause::Poison, sentence);
            let report = failed(job.id.clone(), attempt, client, failure);
            link.publish_report(&report).await?;
            delivery.ack().await?;
        }
    };
    ended(reporting.await)
}

async fn hear_presences(shared: &Shared, link: &Link) -> Error {
    let hearing = async {
        let mut presences = link.presences().await?;
        loop {
            let (presence, _) = presences.next().await?.split();
            if shared.roster().hear(presence, now_ms()) {
                // What was said before it came is news to it.
                shared.cancels().say_again(now_ms());
                shared.controls.ring();
            }
        }
    };
    ended(hearing.await)
}

async fn say_cancels(shared: &Shared, link: &Link) -> Error {
    let saying = async {
        loop {
            let due = shared.cancels().due(now_ms());
            for (reason, jobs) in due {
                link.publish_control(&Control::Cancel { jobs, reason })
                    .await?;
            }
            // A ring that came while something was said is kept.
            let pause = Box::pin(task::sleep(CANCEL_EVERY));
            select(Box::pin(shared.controls.rung()), pause).await;
        }
    };
    ended(saying.await)
}

async fn look(shared: &Shared, link: &Link) -> Error {
    let looking = async {
        loop {
            link.pulse().await?;
            let depths = link.depth().await?;
            let queued = depths.jobs + depths.jobs_high + depths.retry;
            shared.see_queues(queued, depths.reports);
            let dir = shared.config.data_dir.clone();
            let seen = unblock(move || (disk::free_bytes(&dir), pause::read(&dir)));
            let (free, order) = seen.await;
            if let Some(free) = free {
                shared.see_disk(free);
            }
            shared.see_order(order.map(|order| order.sentence()));
            task::sleep(LOOK_EVERY).await;
        }
    };
    ended(looking.await)
}

/// Why there is no link, for the gateway: the same words while the cause is the
/// same, whatever the operating system calls it this time.
fn why_none(error: &Error) -> String {
    match error {
        Error::Unreachable(_) | Error::Lost(_) | Error::TimedOut(_) | Error::Closed => {
            "the connection to it is lost".into()
        }
        other => other.to_string(),
    }
}

/// The loops above end in no other way than by an error.
fn ended(outcome: Result<std::convert::Infallible, Error>) -> Error {
    match outcome {
        Err(error) => error,
    }
}
