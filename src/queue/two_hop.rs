//! The floor under every throughput figure: two bare durable hops through the broker.
//!
//! ```text
//!  publish ──▶ quorum queue ──▶ relay (publish, then ack) ──▶ quorum queue ──▶ ack
//! ```
//!
//! Same confirms, same acknowledgements, same kind of queue as the real line,
//! and no Sluice in between.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{Fuse, FuturesUnordered};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer};

use crate::queue::health::Health;
use crate::queue::{Error, link, within};

/// About what a small job weighs, in bytes.
const BODY_BYTES: usize = 300;
/// How long the whole measurement may take.
const MEASURE_MAX: Duration = Duration::from_secs(300);
/// The queues go by themselves if nobody deletes them, in milliseconds.
const EXPIRES_MS: i64 = 600_000;

/// Sends `messages` over both hops, at most `window` on the way at a time;
/// answers with messages per second.
pub async fn measure(amqp_url: &str, messages: u32, window: usize) -> Result<f64, Error> {
    let uri = link::parse(amqp_url)?;
    let health = Health::new();
    let publishing = link::open(&uri, "sluice bench, publishing", &health).await?;
    let consuming = link::open(&uri, "sluice bench, consuming", &health).await?;
    let run = uuid::Uuid::now_v7();
    let queues = [1, 2].map(|hop| ShortString::from(format!("sluice.bench.{run}.{hop}")));
    let side = within("opening a channel", consuming.create_channel()).await?;
    for queue in &queues {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(EXPIRES_MS));
        let declared = side.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments);
        within("a declaration", declared).await?;
    }
    let (relaying, relay) = consume(&consuming, &queues[0]).await?;
    let (ending, end) = consume(&consuming, &queues[1]).await?;
    let tags = [(relaying, relay.tag().clone()), (ending, end.tag().clone())];
    let mut hops = Hops {
        first: confirmed(&publishing).await?,
        second: confirmed(&publishing).await?,
        relay: relay.fuse(),
        end: end.fuse(),
        queues: queues.clone(),
    };
    let measured = async_std::future::timeout(MEASURE_MAX, hops.run(messages, window)).await;
    // A consumer that is dropped while its queue is deleted takes the connection along.
    for (channel, tag) in tags {
        let cancelled = channel.basic_cancel(tag, BasicCancelOptions::default());
        within("ending a consumer", cancelled).await?;
    }
    drop(hops);
    for queue in queues {
        let deleted = side.queue_delete(queue, QueueDeleteOptions::default());
        within("a deletion", deleted).await?;
    }
    health.kill(Error::Closed);
    measured.unwrap_or(Err(Error::TimedOut("the measurement")))
}

struct Hops {
    first: Channel,
    second: Channel,
    relay: Fuse<Consumer>,
    end: Fuse<Consumer>,
    queues: [ShortString; 2],
}

// === impl Hops ===

impl Hops {
    async fn run(&mut self, messages: u32, window: usize) -> Result<f64, Error> {
        let body = vec![b'x'; BODY_BYTES];
        let started = Instant::now();
        let (mut sent, mut arrived) = (0u32, 0u32);
        let mut publishing = FuturesUnordered::new();
        let mut relaying = FuturesUnordered::new();
        while arrived < messages {
            while sent < messages && (sent - arrived) as usize <= window {
                sent += 1;
                publishing.push(publish(&self.first, &self.queues[0], &body));
            }
            // Whatever is not taken in one turn stays in its stream for the next.
            futures::select! {
                done = publishing.select_next_some() => done?,
                done = relaying.select_next_some() => done?,
                raw = self.relay.next() => {
                    relaying.push(pass_on(&self.second, &self.queues[1], taken(raw)?));
                }
                raw = self.end.next() => {
                    taken(raw)?.acker.ack(BasicAckOptions::default()).await?;
                    arrived += 1;
                }
            }
        }
        Ok(f64::from(messages) / started.elapsed().as_secs_f64())
    }
}

async fn pass_on(channel: &Channel, queue: &ShortString, raw: Delivery) -> Result<(), Error> {
    publish(channel, queue, &raw.data).await?;
    raw.acker.ack(BasicAckOptions::default()).await?;
    Ok(())
}

async fn publish(channel: &Channel, queue: &ShortString, body: &[u8]) -> Result<(), Error> {
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let written = channel.basic_publish(
        ShortString::default(),
        queue.clone(),
        options,
        body,
        properties,
    );
    match written.await?.await? {
        Confirmation::Ack(None) => Ok(()),
        other => Err(Error::Lost(format!("a publish ended as {other:?}"))),
    }
}

fn taken(raw: Option<lapin::Result<Delivery>>) -> Result<Delivery, Error> {
    match raw {
        Some(raw) => Ok(raw?),
        None => Err(Error::Lost("a consumer ended".into())),
    }
}

async fn confirmed(connection: &Connection) -> Result<Channel, Error> {
    let channel = within("opening a channel", connection.create_channel()).await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    within("asking for confirms", select).await?;
    Ok(channel)
}

async fn consume(
    connection: &Connection,
    queue: &ShortString,
) -> Result<(Channel, Consumer), Error> {
    let channel = within("opening a channel", connection.create_channel()).await?;
    let limited = channel.basic_qos(512, BasicQosOptions::default());
    within("setting a prefetch", limited).await?;
    let consuming = channel.basic_consume(
        queue.clone(),
        ShortString::default(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let consumer = within("starting to consume", consuming).await?;
    Ok((channel, consumer))
}
