//! Values ⇄ AMQP properties, headers and bodies. Pure: no connection is touched here.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::de::DeserializeOwned;

use sluice_proto::codec::{QUEUE_MESSAGE_BYTES_MAX, decode};
use sluice_proto::job::Job;
use sluice_proto::queue::{CONTENT_TYPE, header};
use sluice_proto::report::{Body, Cause, Report};
use sluice_proto::{PROTOCOL, check_protocol};

/// AMQP's longest short string, in bytes.
const SHORT_BYTES_MAX: usize = 255;
/// How much of a reason stands in a dead letter's header, in bytes.
const REASON_BYTES_MAX: usize = 1_024;
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

/// Headers that the broker itself writes, and that mean nothing on a copy.
const BROKER_HEADERS: [&str; 6] = [
    header::BROKER_DELIVERY_COUNT,
    header::BROKER_ACQUIRED_COUNT,
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
];

/// What stands around a job in the work, retry and dead queues.
pub(super) fn of_job(
    job: &Job,
    deliveries: u32,
    received_us: u64,
    published_us: u64,
) -> (BasicProperties, FieldTable) {
    let mut headers = FieldTable::default();
    let mut text = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    text(header::POOL, job.pool.as_str());
    text(header::PROJECT, job.project.as_str());
    text(header::IDENTITY, &job.identity.to_string());
    if let Some(block) = &job.block {
        text(header::BLOCK, block);
    }
    if let Some(traceparent) = &job.traceparent {
        text(header::TRACEPARENT, traceparent);
    }
    let mut number = |name: &str, value: u64| {
        headers.insert(name.into(), number_of(value));
    };
    number(header::PROTOCOL, u64::from(PROTOCOL));
    number(header::DISPATCH, u64::from(job.dispatch));
    number(header::DELIVERIES, u64::from(deliveries));
    number(header::RECEIVED_US, received_us);
    number(header::PUBLISHED_US, published_us);
    let properties = BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(job.id.as_str()))
        .with_timestamp(published_us / 1_000_000)
        .with_type(job.kind.as_str().into());
    (properties, headers)
}

pub(super) fn of_report(report: &Report, now_s: u64) -> BasicProperties {
    let kind = match report.body {
        Body::Started { .. } => "started",
        Body::Log { .. } => "log",
        Body::Finished(_) => "finished",
    };
    plain(PERSISTENT, now_s)
        .with_message_id(short(report.job.as_str()))
        .with_type(kind.into())
}

/// Around a control or presence message.
pub(super) fn of_signal(kind: &'static str, now_s: u64) -> BasicProperties {
    plain(TRANSIENT, now_s).with_type(kind.into())
}

/// Around a note of what became of a dead letter; it has no body.
pub(super) fn of_mark(job: &str, fate: &str, by: &str, now_s: u64) -> BasicProperties {
    let mut headers = FieldTable::default();
    let by = AMQPValue::LongString(cut(by, REASON_BYTES_MAX).into());
    headers.insert(header::BY.into(), by);
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now_s)
        .with_message_id(short(job))
        .with_type(short(fate))
        .with_headers(headers)
}

fn plain(mode: u8, now_s: u64) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(header::PROTOCOL.into(), number_of(u64::from(PROTOCOL)));
    BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(mode)
        .with_timestamp(now_s)
        .with_headers(headers)
}

/// The headers of a dead letter: what the message had, without the broker's own, and why.
pub(super) fn buried(mut headers: FieldTable, cause: Cause, reason: &str) -> FieldTable {
    let had = headers.inner().clone();
    if BROKER_HEADERS.iter().any(|name| had.contains_key(*name)) {
        headers = FieldTable::default();
        for (name, value) in had {
            if !BROKER_HEADERS.contains(&name.as_str()) {
                headers.insert(name, value);
            }
        }
    }
    let reason = cut(reason, REASON_BYTES_MAX);
    for (name, value) in [(header::CAUSE, cause.as_str()), (header::REASON, reason)] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    headers
}

/// Reads a body, or says why it cannot be read.
pub(super) fn read<T: DeserializeOwned>(
    properties: &BasicProperties,
    body: &[u8],
) -> Result<T, String> {
    let version = number(properties, header::PROTOCOL)
        .ok_or_else(|| format!("it has no {} header", header::PROTOCOL))?;
    check_protocol(u16::try_from(version).unwrap_or(u16::MAX))?;
    decode(body, QUEUE_MESSAGE_BYTES_MAX).map_err(|error| error.to_string())
}

/// Which delivery of its dispatch this is, from 1.
///
/// It grows with each delivery as far as the broker tells. Our own header counts
/// what was spent before a retry. On top comes the broker's count for this stay
/// in the queue: up to RabbitMQ 4.2 `x-delivery-count` counts every return; from
/// 4.3 on it counts failures alone, and `x-acquired-count` counts every time a
/// consumer was given the message before. Where neither is there, `redelivered`
/// still tells a second delivery from a first.
pub(super) fn delivery_number(properties: &BasicProperties, redelivered: bool) -> u32 {
    let of = |name| number(properties, name).unwrap_or(0);
    let by_broker = of(header::BROKER_DELIVERY_COUNT)
        .max(of(header::BROKER_ACQUIRED_COUNT))
        .max(u64::from(redelivered));
    let all = of(header::DELIVERIES)
        .saturating_add(by_broker)
        .saturating_add(1);
    u32::try_from(all).unwrap_or(u32::MAX)
}

/// A header that is a number, whichever width it was written with.
pub(super) fn number(properties: &BasicProperties, name: &str) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::ShortShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::ShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::LongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::LongUInt(n) => Some(u64::from(*n)),
        AMQPValue::LongLongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::Timestamp(n) => Some(*n),
        _ => None,
    }
}

/// A header that is text.
pub(super) fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Cut to at most `bytes_max` bytes, at a character's border.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn short(text: &str) -> ShortString {
    cut(text, SHORT_BYTES_MAX).into()
}

fn number_of(value: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn the_delivery_number_grows_whatever_the_broker_counts() {
        let count = |name, n: i64| (name, AMQPValue::LongLongInt(n));
        let first = with(&[count(header::DELIVERIES, 0)]);
        assert_eq!(delivery_number(&first, false), 1);
        assert_eq!(delivery_number(&first, true), 2, "a broker without counts");
        let old = with(&[
            count(header::DELIVERIES, 2),
            count(header::BROKER_DELIVERY_COUNT, 3),
        ]);
        assert_eq!(delivery_number(&old, true), 6);
        let new = with(&[
            count(header::DELIVERIES, 1),
            count(header::BROKER_DELIVERY_COUNT, 0),
            count(header::BROKER_ACQUIRED_COUNT, 4),
        ]);
        assert_eq!(delivery_number(&new, true), 6);
    }

    #[test]
    fn a_message_of_an_unknown_protocol_is_not_read() {
        let body = rmp_serde::to_vec_named("text").expect("text is written");
        let none = read::<String>(&with(&[]), &body).expect_err("no header");
        assert!(none.contains(header::PROTOCOL), "{none}");
        let newer = with(&[(header::PROTOCOL, AMQPValue::ShortUInt(PROTOCOL + 1))]);
        let newer = read::<String>(&newer, &body).expect_err("a newer peer");
        assert!(newer.contains("newer"), "{newer}");
        let ours = with(&[(header::PROTOCOL, AMQPValue::ShortShortUInt(1))]);
        assert_eq!(read::<String>(&ours, &body).as_deref(), Ok("text"));
        assert!(read::<u8>(&ours, &body).is_err(), "not a number");
    }

    #[test]
    fn a_dead_letter_keeps_its_headers_but_not_the_brokers() {
        let properties = with(&[
            (header::POOL, AMQPValue::LongString("p".into())),
            (header::BROKER_DELIVERY_COUNT, AMQPValue::LongLongInt(9)),
        ]);
        let headers = properties.headers().clone().expect("just set");
        let long = "ä".repeat(REASON_BYTES_MAX);
        let headers = buried(headers, Cause::Poison, &long);
        assert!(headers.contains_key(header::POOL));
        assert!(!headers.contains_key(header::BROKER_DELIVERY_COUNT));
        let Some(AMQPValue::LongString(reason)) = headers.inner().get(header::REASON) else {
            panic!("a reason is a text");
        };
        assert!(reason.len() <= REASON_BYTES_MAX && !reason.is_empty());
    }
}
