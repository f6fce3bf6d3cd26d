//! What a pool has on a broker: every queue and exchange, with every argument said.
//!
//! Declared by whoever comes first; declaring it again changes nothing. Nothing
//! is left to a broker's defaults, which differ between RabbitMQ 3.10 and 4.x
//! (no delivery limit before 4.0, then 20; a dead letter without an exchange is dropped).

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use sluice_proto::queue::{BROKER_DELIVERY_LIMIT, Names};

use crate::backoff::Backoff;
use crate::queue::{ANSWER_MAX, Error, within};

/// Most messages in a queue that carries work: twice the million that the
/// product promises to hold. Over it the broker refuses, and the publisher says so.
const LENGTH_MAX: i64 = 2_000_000;
/// Most bytes in a queue that carries work, so that a disk is not filled by one pool.
const LENGTH_BYTES_MAX: i64 = 8 * 1024 * 1024 * 1024;
/// Most dead letters kept; each has been reported, so the oldest may go.
const DEAD_LENGTH_MAX: i64 = 100_000;
const DEAD_LENGTH_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// What the log of dead letters forgets at a time, in bytes.
const DEAD_LOG_SEGMENT_BYTES: i64 = 64 * 1024 * 1024;
/// How long a job waits before its second try: long enough for
/// a dying runtime to be cleaned up, short enough not to be felt. Each further
/// try waits twice as long as the one before.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest such wait. A queue lets go of its messages in their order, so it
/// is also the longest that one which waits less may be held up by others.
const RETRY_MAX: Duration = Duration::from_secs(8);
const RETRY: Backoff = Backoff::new(RETRY_MIN, RETRY_MAX);

/// Declares all that jobs and reports pass through.
pub(super) async fn declare(channel: &Channel, names: &Names) -> Result<(), Error> {
    for exchange in [
        &names.control,
        &names.presence,
        &names.dead_letters,
        &names.burials,
    ] {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let request = channel.exchange_declare(
            name(exchange)?,
            ExchangeKind::Fanout,
            options,
            FieldTable::default(),
        );
        settled(exchange, request).await?;
    }
    // What others dead-letter into comes first.
    for queue in [&names.dead, &names.given_up] {
        quorum(channel, queue, dead_arguments()).await?;
    }
    for (queue, exchange) in [
        (&names.dead, &names.dead_letters),
        (&names.given_up, &names.dead_letters),
        (&names.dead, &names.burials),
    ] {
        bind(channel, queue, exchange).await?;
    }
    for queue in [&names.jobs, &names.jobs_high] {
        let mut arguments = work_arguments();
        arguments.extend([
            ("x-delivery-limit", long(i64::from(BROKER_DELIVERY_LIMIT))),
            ("x-dead-letter-exchange", text(&names.dead_letters)),
            ("x-dead-letter-strategy", text("at-least-once")),
        ]);
        quorum(channel, queue, arguments).await?;
    }
    for (queue, back_to) in [
        (&names.retry, &names.jobs),
        (&names.retry_high, &names.jobs_high),
    ] {
        let mut arguments = work_arguments();
        arguments.extend([
            ("x-message-ttl", long(RETRY_MAX.as_millis() as i64)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(back_to)),
            ("x-dead-letter-strategy", text("at-least-once")),
        ]);
        quorum(channel, queue, arguments).await?;
    }
    // A report has no limit of deliveries: the bridge drops none, and one it
    // cannot read it buries itself. RabbitMQ 4 would put in a limit of 20, so
    // what is over the largest one it takes would go to `dead`, not away.
    let mut arguments = work_arguments();
    arguments.extend([
        ("x-delivery-limit", long(LENGTH_MAX)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(&names.dead)),
        ("x-dead-letter-strategy", text("at-least-once")),
    ]);
    quorum(channel, &names.reports, arguments).await
}

/// The queues among those that a broker keeps in a log of their own.
pub fn quorum_queues(names: &Names) -> [&str; 7] {
    [
        &names.dead,
        &names.given_up,
        &names.jobs,
        &names.jobs_high,
        &names.retry,
        &names.retry_high,
        &names.reports,
    ]
}

/// Declares what dead letters are written down in. On a channel of its own,
/// which may be closed afterwards: a stream comes up later than the queues after
/// its broker's restart, and until then its declaration is refused as not found.
/// It is durable, so it is there, and no job waits for it.
pub(super) async fn declare_log(channel: &Channel, names: &Names) -> Result<(), Error> {
    match declared(channel, &names.dead_log, "stream", dead_log_arguments()).await {
        Err(Error::Missing(_)) => return Ok(()),
        outcome => outcome?,
    }
    bind(channel, &names.dead_log, &names.dead_letters).await?;
    bind(channel, &names.dead_log, &names.burials).await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str) -> Result<(), Error> {
    let bound = channel.queue_bind(
        name(queue)?,
        name(exchange)?,
        ShortString::default(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    settled(queue, bound).await
}

/// How long a job waits that was delivered so many times. Without jitter: jobs
/// come back one by one, as whoever takes them has room.
pub fn retry_wait(deliveries: u32) -> Duration {
    RETRY.delay(deliveries.saturating_sub(1), 1.0)
}

fn work_arguments() -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-overflow", text("reject-publish")),
        ("x-max-length", long(LENGTH_MAX)),
        ("x-max-length-bytes", long(LENGTH_BYTES_MAX)),
    ]
}

fn dead_arguments() -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-overflow", text("drop-head")),
        ("x-max-length", long(DEAD_LENGTH_MAX)),
        ("x-max-length-bytes", long(DEAD_LENGTH_BYTES_MAX)),
        // A dead letter is looked at, and on old brokers a look counts as a delivery.
        ("x-delivery-limit", long(LENGTH_MAX)),
    ]
}

fn dead_log_arguments() -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-max-length-bytes", long(DEAD_LENGTH_BYTES_MAX)),
        (
            "x-stream-max-segment-size-bytes",
            long(DEAD_LOG_SEGMENT_BYTES),
        ),
    ]
}

async fn quorum(
    channel: &Channel,
    queue: &str,
    arguments: Vec<(&'static str, AMQPValue)>,
) -> Result<(), Error> {
    declared(channel, queue, "quorum", arguments).await
}

async fn declared(
    channel: &Channel,
    queue: &str,
    kind: &str,
    arguments: Vec<(&'static str, AMQPValue)>,
) -> Result<(), Error> {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text(kind));
    for (key, value) in arguments {
        table.insert(key.into(), value);
    }
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let answer = channel.queue_declare(name(queue)?, options, table);
    settled(queue, answer).await.map(drop)
}

/// Waits for an answer; a refusal because of other arguments names what and why.
async fn settled<T>(
    what: &str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match async_std::future::timeout(ANSWER_MAX, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if Error::soft(&error) == Some(AMQPSoftError::PRECONDITIONFAILED) => {
            Err(Error::Mismatch {
                what: what.to_owned(),
                reason: error.to_string(),
            })
        }
        Ok(Err(error)) if Error::soft(&error) == Some(AMQPSoftError::NOTFOUND) => {
            Err(Error::Missing(what.to_owned()))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::TimedOut("a declaration")),
    }
}

/// An exclusive queue of this connection's own, bound to a fanout exchange. It
/// is gone when the connection is; what it cannot hold, it forgets from the front.
pub(super) async fn ear(
    channel: &Channel,
    exchange: &str,
    length_max: i64,
) -> Result<ShortString, Error> {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), long(length_max));
    arguments.insert("x-overflow".into(), text("drop-head"));
    let declared = channel.queue_declare(ShortString::default(), options, arguments);
    let queue = within("a declaration", declared).await?.name().clone();
    let bound = channel.queue_bind(
        queue.clone(),
        name(exchange)?,
        ShortString::default(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    within("a binding", bound).await?;
    Ok(queue)
}

/// Messages ready in a queue, and its consumers, by a declaration that changes nothing.
pub(super) async fn look(channel: &Channel, queue: &str) -> Result<(u64, u32), Error> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(name(queue)?, options, FieldTable::default());
    match async_std::future::timeout(ANSWER_MAX, declared).await {
        Ok(Ok(seen)) => Ok((u64::from(seen.message_count()), seen.consumer_count())),
        Ok(Err(error)) if Error::soft(&error) == Some(AMQPSoftError::NOTFOUND) => {
            Err(Error::Missing(queue.to_owned()))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::TimedOut("a look at a queue")),
    }
}

/// A name as AMQP writes it: at most 255 bytes.
pub(super) fn name(text: &str) -> Result<ShortString, Error> {
    ShortString::try_new(text).map_err(|_| {
        Error::Unwritable(format!(
            "a name of {} bytes is longer than AMQP allows (255)",
            text.len()
        ))
    })
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn long(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_up_to_a_limit() {
        let waits = [0, 1, 2, 3, 4, 5, u32::MAX].map(|n| retry_wait(n).as_millis());
        assert_eq!(waits, [1_000, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
    }
}
