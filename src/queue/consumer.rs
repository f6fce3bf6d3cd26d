//! What comes out of the broker: deliveries, each unsettled while somebody holds it.
//!
//! ```text
//!  queue ──▶ Deliveries::next ──▶ Delivery ──┬─ ack            done
//!                │ unreadable               ├─ requeue        not its fault: back to the queue
//!                ▼                          ├─ retry          its try failed: back after a while
//!              dead (and the job reported)  └─ bury           never again: dead
//! ```

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel, Consumer};
use serde::de::DeserializeOwned;

use sluice_proto::codec::{QUEUE_MESSAGE_BYTES_MAX, encode};
use sluice_proto::job::Job;
use sluice_proto::queue::{Control, Presence, header};
use sluice_proto::report::{Cause, Report};

use crate::queue::health::Health;
use crate::queue::link::Link;
use crate::queue::settling::Settling;
use crate::queue::{Error, message, topology, unread};
use crate::telemetry::now_us;

/// Most control messages that wait for one worker: each names many jobs, and a
/// worker that is this far behind cancels nothing in time anyway.
const CONTROLS_MAX: i64 = 10_000;
/// Most presence messages that wait for one listener.
const PRESENCES_MAX: i64 = 10_000;

/// The deliveries of one consumer.
pub struct Deliveries<T> {
    link: Link,
    source: Arc<Source>,
    consumer: Consumer,
    feed: Feed,
    cancelled: bool,
    /// An unreadable message on its way to the dead letters. It is out of the
    /// way before the next delivery is handed out, so that whoever settles a
    /// delivery and all earlier ones at once does not settle this one with them.
    burying: Option<(u64, BoxFuture<'static, Result<(), Error>>)>,
    item: PhantomData<fn() -> T>,
}

/// What is consumed, and so what happens to a message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// Buried, and reported as failed where the headers say which job it was.
    Jobs,
    /// Buried.
    Reports,
    /// Settled by being delivered; an unreadable one is logged and forgotten.
    Signals,
}

/// One message in our hands, not yet settled. Settling consumes it. One that is
/// dropped stays unsettled until its link ends, and then goes back to its queue.
#[must_use = "a delivery is unsettled until it is acknowledged, requeued, retried or buried"]
pub struct Delivery<T> {
    pub item: T,
    /// Microseconds since the Unix epoch when the bridge read the job's frame; 0 if not said.
    pub received_us: u64,
    /// Microseconds since the Unix epoch when this process got it.
    pub delivered_us: u64,
    /// Microseconds since the Unix epoch when it was published; 0 if not said.
    pub published_us: u64,
    /// Which delivery of its dispatch it is, from 1. Grows with every delivery, whatever its reason.
    pub delivery: u32,
    /// How long its body is, in bytes.
    pub bytes: usize,
    /// `None`: the broker took it for settled as it sent it.
    receipt: Option<Receipt>,
}

struct Receipt {
    acker: Acker,
    tag: u64,
    source: Arc<Source>,
}

/// Where deliveries come from. Each keeps its channel open until it is settled,
/// also when nobody consumes any more.
struct Source {
    channel: Channel,
    health: Arc<Health>,
    settling: Mutex<Settling>,
}

/// Says what is due when it is dropped, so that it is said however a wait ends.
struct Saying<'a>(&'a Source);

// === impl Link ===

impl Link {
    /// Work that is not urgent, at most `prefetch` unsettled at a time.
    pub async fn jobs(&self, prefetch: u16) -> Result<Deliveries<Job>, Error> {
        let queue = topology::name(&self.inner.names.jobs)?;
        self.consume(queue, prefetch, Feed::Jobs).await
    }

    /// Urgent work.
    pub async fn jobs_high(&self, prefetch: u16) -> Result<Deliveries<Job>, Error> {
        let queue = topology::name(&self.inner.names.jobs_high)?;
        self.consume(queue, prefetch, Feed::Jobs).await
    }

    /// What workers said.
    pub async fn reports(&self, prefetch: u16) -> Result<Deliveries<Report>, Error> {
        let queue = topology::name(&self.inner.names.reports)?;
        self.consume(queue, prefetch, Feed::Reports).await
    }

    /// Jobs that the broker itself gave up on, because workers died of them
    /// faster than they could count. The dead letter stays in `dead`.
    pub async fn given_up(&self, prefetch: u16) -> Result<Deliveries<Job>, Error> {
        let queue = topology::name(&self.inner.names.given_up)?;
        self.consume(queue, prefetch, Feed::Jobs).await
    }

    /// What the bridge says to all workers, from now on.
    pub async fn controls(&self) -> Result<Deliveries<Control>, Error> {
        self.listen(&self.inner.names.control, CONTROLS_MAX).await
    }

    /// How the workers are, from now on.
    pub async fn presences(&self) -> Result<Deliveries<Presence>, Error> {
        self.listen(&self.inner.names.presence, PRESENCES_MAX).await
    }

    async fn listen<T>(&self, exchange: &str, length_max: i64) -> Result<Deliveries<T>, Error> {
        let health = &self.inner.health;
        let opening = self.inner.consuming.create_channel();
        let channel = health.within("opening a channel", opening).await?;
        let queue = topology::ear(&channel, exchange, length_max).await?;
        self.start(channel, queue, Feed::Signals).await
    }

    async fn consume<T>(
        &self,
        queue: ShortString,
        prefetch: u16,
        feed: Feed,
    ) -> Result<Deliveries<T>, Error> {
        let health = &self.inner.health;
        let opening = self.inner.consuming.create_channel();
        let channel = health.within("opening a channel", opening).await?;
        let limited = channel.basic_qos(prefetch, BasicQosOptions::default());
        health.within("setting a prefetch", limited).await?;
        self.start(channel, queue, feed).await
    }

    async fn start<T>(
        &self,
        channel: Channel,
        queue: ShortString,
        feed: Feed,
    ) -> Result<Deliveries<T>, Error> {
        let options = BasicConsumeOptions {
            no_ack: feed == Feed::Signals,
            ..BasicConsumeOptions::default()
        };
        let consuming = channel.basic_consume(
            queue,
            ShortString::default(),
            options,
            FieldTable::default(),
        );
        let health = &self.inner.health;
        let consumer = health.within("starting to consume", consuming).await?;
        Ok(Deliveries {
            link: self.clone(),
            source: Arc::new(Source {
                channel,
                health: self.inner.health.clone(),
                settling: Mutex::default(),
            }),
            consumer,
            feed,
            cancelled: false,
            burying: None,
            item: PhantomData,
        })
    }
}

// === impl Deliveries ===

impl<T: DeserializeOwned> Deliveries<T> {
    /// The next readable message. Dropping the future loses nothing.
    ///
    /// Fails when the link is dead, or after [`Deliveries::cancel`].
    pub async fn next(&mut self) -> Result<Delivery<T>, Error> {
        loop {
            if let Some((tag, burying)) = &mut self.burying {
                let buried = burying.await;
                self.source.settling().gone(*tag);
                self.burying = None;
                // If it failed the message is unsettled, and comes again with the next link.
                buried.inspect_err(|error| self.link.inner.health.kill(error.clone()))?;
            }
            let raw = self.pull().await?;
            match message::read(&raw.properties, &raw.data) {
                Ok(item) => {
                    let properties = &raw.properties;
                    return Ok(Delivery {
                        item,
                        received_us: message::number(properties, header::RECEIVED_US).unwrap_or(0),
                        delivered_us: now_us(),
                        published_us: message::number(properties, header::PUBLISHED_US)
                            .unwrap_or_else(|| properties.timestamp().unwrap_or(0) * 1_000_000),
                        delivery: message::delivery_number(properties, raw.redelivered),
                        bytes: raw.data.len(),
                        receipt: (self.feed != Feed::Signals).then(|| Receipt {
                            acker: raw.acker,
                            tag: raw.delivery_tag,
                            source: self.source.clone(),
                        }),
                    });
                }
                Err(reason) => self.discard(raw, reason),
            }
        }
    }

    /// Takes no more: what was handed out stays valid, what was not yet goes back to its queue.
    pub async fn cancel(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.cancelled, true) {
            return Ok(());
        }
        let tag = self.consumer.tag();
        let cancelling = self
            .source
            .channel
            .basic_cancel(tag, BasicCancelOptions::default());
        let health = &self.link.inner.health;
        health.within("ending a consumer", cancelling).await?;
        // The broker has said that nothing follows, so the stream ends behind what is in it.
        let draining = async {
            while let Some(Ok(raw)) = self.consumer.next().await {
                if self.feed != Feed::Signals {
                    raw.acker.nack(back_to_queue()).await?;
                }
            }
            Ok(())
        };
        health.within("giving deliveries back", draining).await
    }

    async fn pull(&mut self) -> Result<lapin::message::Delivery, Error> {
        if self.cancelled {
            return Err(Error::Closed);
        }
        let health = self.link.inner.health.clone();
        let gone = std::pin::pin!(health.failed());
        // Deliveries first: the end of the link stays known, and a delivery that
        // is not taken stays in the stream.
        match select(self.consumer.next(), gone).await {
            Either::Left((Some(Ok(raw)), _)) => {
                if self.feed != Feed::Signals {
                    self.source.settling().taken(raw.delivery_tag);
                }
                Ok(raw)
            }
            Either::Left((Some(Err(error)), _)) => {
                let error = Error::from(error);
                health.kill(error.clone());
                Err(error)
            }
            Either::Left((None, _)) => {
                let error = Error::Lost("the broker ended a consumer of ours".into());
                health.kill(error.clone());
                Err(error)
            }
            Either::Right((error, _)) => Err(error),
        }
    }

    /// Begins to get a message out of the way that nobody can read.
    fn discard(&mut self, raw: lapin::message::Delivery, reason: String) {
        let job = raw
            .properties
            .message_id()
            .as_ref()
            .map_or("", |id| id.as_str());
        tracing::error!(
            job.id = job,
            queue = raw.routing_key.as_str(),
            error = reason,
            "A message cannot be read; it goes to the dead letters"
        );
        if self.feed != Feed::Signals {
            let (link, feed, tag) = (self.link.clone(), self.feed, raw.delivery_tag);
            let burying = async move { unread::bury(&link, feed, raw, &reason).await };
            self.burying = Some((tag, burying.boxed()));
        }
    }
}

// === impl Delivery ===

impl<T> Delivery<T> {
    /// Settles it: done with. Those that are done within one turn of the
    /// executor are settled by one message, as far as none before them is open.
    pub async fn ack(self) -> Result<(), Error> {
        let Some(Receipt { tag, source, .. }) = self.receipt else {
            return Ok(());
        };
        source.health.check()?;
        if source.settling().done(tag) {
            let _saying = Saying(&source);
            async_std::task::yield_now().await;
            return source.say_due();
        }
        Ok(())
    }

    /// Settles it and every earlier delivery of the same [`Deliveries`], which
    /// must all be done with: one message to the broker instead of many.
    pub async fn ack_through(self) -> Result<(), Error> {
        let Some(Receipt { tag, source, .. }) = self.receipt else {
            return Ok(());
        };
        source.health.check()?;
        // Held until it is said, as below.
        let mut settling = source.settling();
        settling.gone_through(tag);
        source.say(tag, true)
    }

    /// Settles it: not its fault, back to its queue, near the front. Brokers
    /// before RabbitMQ 4.3 count this as a delivery all the same.
    pub async fn requeue(self) -> Result<(), Error> {
        let Some(Receipt { acker, tag, source }) = self.receipt else {
            return Ok(());
        };
        let settled = acker.nack(back_to_queue());
        known(source.health.within("a requeue", settled).await?)?;
        source.settling().gone(tag);
        Ok(())
    }

    /// Takes the item out; what is left settles as before.
    pub fn split(self) -> (T, Delivery<()>) {
        let rest = Delivery {
            item: (),
            received_us: self.received_us,
            delivered_us: self.delivered_us,
            published_us: self.published_us,
            delivery: self.delivery,
            bytes: self.bytes,
            receipt: self.receipt,
        };
        (self.item, rest)
    }
}

// === impl Source ===

impl Source {
    fn settling(&self) -> MutexGuard<'_, Settling> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one acknowledgement on its way. It is not waited for, as AMQP
    /// confirms none: what is lost with the link comes again, and repeats are normal.
    fn say(&self, tag: u64, multiple: bool) -> Result<(), Error> {
        self.health.note_settled();
        let said = self.channel.basic_ack(tag, BasicAckOptions { multiple });
        said.now_or_never().unwrap_or(Ok(())).map_err(Error::from)
    }

    fn say_due(&self) -> Result<(), Error> {
        // Held until all is said: one that another thread says meanwhile could
        // settle these along with its own, and a tag that is settled twice ends
        // the channel.
        let mut settling = self.settling();
        let due = settling.due();
        let through = due.through.map_or(Ok(()), |tag| self.say(tag, true));
        let said = due.single.into_iter().map(|tag| self.say(tag, false));
        through.and(said.collect())
    }
}

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        // Nothing is due any more unless the wait was given up, and then nobody hears of it.
        let _ = self.0.say_due();
    }
}

impl Delivery<Job> {
    /// Settles it: this try failed for a reason that may pass. The job comes
    /// back after a moment, as an ordinary one, with one more delivery counted.
    pub async fn retry(self, link: &Link) -> Result<(), Error> {
        let put = link
            .put_back(&self.item, self.delivery, self.received_us)
            .await;
        self.moved(put).await
    }

    /// Settles it: it is never delivered again, but kept to look at.
    pub async fn bury(self, link: &Link, cause: Cause, reason: &str) -> Result<(), Error> {
        let deliveries = self.delivery;
        let (properties, headers) =
            message::of_job(&self.item, deliveries, self.received_us, self.published_us);
        let put = match encode(&self.item, QUEUE_MESSAGE_BYTES_MAX) {
            Ok(body) => {
                link.put_away(properties, headers, &body, cause, reason)
                    .await
            }
            Err(error) => Err(Error::Unwritable(error.to_string())),
        };
        self.moved(put).await
    }

    /// Acknowledges once the copy is safe; else the original goes back.
    async fn moved(self, put: Result<(), Error>) -> Result<(), Error> {
        match put {
            Ok(()) => self.ack().await,
            Err(error) => {
                let _ = self.requeue().await;
                Err(error)
            }
        }
    }
}

fn back_to_queue() -> BasicNackOptions {
    BasicNackOptions {
        multiple: false,
        requeue: true,
    }
}

/// lapin answers `false` for a delivery whose channel is gone.
fn known(written: bool) -> Result<(), Error> {
    if written {
        Ok(())
    } else {
        Err(Error::Lost("the delivery's channel is gone".into()))
    }
}
