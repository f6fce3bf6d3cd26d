//! What nobody can read: put away with its reason, its end reported.

use lapin::options::BasicAckOptions;
use sluice_proto::ids::JobId;
use sluice_proto::job::Attempt;
use sluice_proto::queue::header;
use sluice_proto::report::{Body, Cause, Failure, Finished, Outcome, Report};

use crate::queue::consumer::Feed;
use crate::queue::link::Link;
use crate::queue::{Error, message};
use crate::telemetry::now_us;

/// Puts a message away, and settles it then. A job's end is reported first.
pub(super) async fn bury(
    link: &Link,
    feed: Feed,
    raw: lapin::message::Delivery,
    reason: &str,
) -> Result<(), Error> {
    if let (Feed::Jobs, Some(report)) = (feed, unacceptable(link, &raw, reason)) {
        link.publish_report(&report).await?;
    }
    let headers = raw.properties.headers().clone().unwrap_or_default();
    let reason = format!("unreadable: {reason}");
    link.put_away(
        raw.properties,
        headers,
        &raw.data,
        Cause::Unacceptable,
        &reason,
    )
    .await?;
    let settled = raw.acker.ack(BasicAckOptions::default());
    let health = &link.inner.health;
    health.within("an acknowledgement", settled).await.map(drop)
}

/// The end of a job that cannot be read, as far as its properties tell which it was.
fn unacceptable(link: &Link, raw: &lapin::message::Delivery, reason: &str) -> Option<Report> {
    let job = raw.properties.message_id().as_ref()?;
    let dispatch = message::number(&raw.properties, header::DISPATCH)?;
    Some(failed(
        JobId::from(job.as_str()),
        Attempt {
            dispatch: u32::try_from(dispatch).ok()?,
            delivery: message::delivery_number(&raw.properties, raw.redelivered),
        },
        &link.inner.client,
        Failure::new(
            Cause::Unacceptable,
            format!("The job cannot be read by the worker: {reason}."),
        ),
    ))
}

/// A report of a job that ended without a runtime.
pub fn failed(job: JobId, attempt: Attempt, worker: &str, failure: Failure) -> Report {
    Report {
        job,
        attempt,
        worker: worker.to_owned(),
        at_us: now_us(),
        body: Body::Finished(Box::new(Finished {
            outcome: Outcome::Failed(failure),
            runtime: None,
            hops: Default::default(),
            log: Vec::new(),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        })),
    }
}
