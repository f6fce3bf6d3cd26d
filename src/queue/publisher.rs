//! What is put into the broker: confirmed and mandatory where it matters.
//!
//! Any number of callers share one channel and wait for their own confirm;
//! nothing is locked meanwhile, so publishes are pipelined as deep as there are callers.

use lapin::options::BasicPublishOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Confirmation};

use sluice_proto::codec::{QUEUE_MESSAGE_BYTES_MAX, encode};
use sluice_proto::job::{Job, Priority};
use sluice_proto::queue::{Control, Presence};
use sluice_proto::report::{Cause, Report};

use crate::queue::link::{Inner, Link};
use crate::queue::{Error, message, topology};
use crate::telemetry::now_us;

// === impl Link ===

impl Link {
    /// Hands a job to the broker; `Ok` means that it is on disk there.
    ///
    /// [`Error::Refused`] when its queue is full: the link lives on, and the job
    /// is still the caller's. After any other error the job may or may not be in
    /// the queue, and putting it in again is right: repeats are normal.
    pub async fn publish_job(&self, job: &Job, received_us: u64) -> Result<(), Error> {
        let names = &self.inner.names;
        let queue = match job.priority {
            Priority::Normal => &names.jobs,
            Priority::High => &names.jobs_high,
        };
        let (properties, headers) = message::of_job(job, 0, received_us, now_us());
        let body = encoded(job)?;
        self.inner
            .publish(queue, properties.with_headers(headers), &body)
            .await
    }

    /// Hands a report to the broker, as [`Link::publish_job`] does.
    pub async fn publish_report(&self, report: &Report) -> Result<(), Error> {
        let body = encoded(report)?;
        let properties = message::of_report(report, now_s());
        self.inner
            .publish(&self.inner.names.reports, properties, &body)
            .await
    }

    /// Tells every worker of the pool that listens now.
    pub async fn publish_control(&self, control: &Control) -> Result<(), Error> {
        let body = encoded(control)?;
        let exchange = &self.inner.names.control;
        self.inner.signal(exchange, "control", &body).await
    }

    /// Tells the bridge, and whoever else listens now.
    pub async fn publish_presence(&self, presence: &Presence) -> Result<(), Error> {
        let body = encoded(presence)?;
        let exchange = &self.inner.names.presence;
        self.inner.signal(exchange, "presence", &body).await
    }

    /// Publishes something to nobody: a broker under alarm tells only those who
    /// publish that it takes nothing ([`Link::blocked`]), so one has to.
    pub async fn pulse(&self) -> Result<(), Error> {
        if self.blocked().is_some() {
            return Ok(());
        }
        self.inner.signal("", "pulse", &[]).await
    }

    /// Puts a job into the retry queue of its priority, with what it has spent,
    /// for a wait that grows with that.
    pub(super) async fn put_back(
        &self,
        job: &Job,
        deliveries: u32,
        received_us: u64,
    ) -> Result<(), Error> {
        let (properties, headers) = message::of_job(job, deliveries, received_us, now_us());
        let body = encoded(job)?;
        let names = &self.inner.names;
        let queue = match job.priority {
            Priority::Normal => &names.retry,
            Priority::High => &names.retry_high,
        };
        let wait_ms = topology::retry_wait(deliveries).as_millis();
        let properties = properties
            .with_expiration(wait_ms.to_string().into())
            .with_headers(headers);
        self.inner.publish(queue, properties, &body).await
    }

    /// Puts a message that can go nowhere else into the dead-letter queue.
    pub(super) async fn put_away(
        &self,
        properties: BasicProperties,
        headers: FieldTable,
        body: &[u8],
        cause: Cause,
        reason: &str,
    ) -> Result<(), Error> {
        let properties = properties.with_headers(message::buried(headers, cause, reason));
        let names = &self.inner.names;
        self.inner
            .publish_to(&names.burials, "", properties, body)
            .await
    }

    /// Notes in the log of dead letters what became of one.
    pub(super) async fn put_mark(&self, job: &str, fate: &str, by: &str) -> Result<(), Error> {
        let properties = message::of_mark(job, fate, by, now_s());
        self.inner
            .publish(&self.inner.names.dead_log, properties, &[])
            .await
    }
}

// === impl Inner ===

impl Inner {
    /// Publishes to a queue and waits until the broker has it.
    async fn publish(
        &self,
        queue: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), Error> {
        self.publish_to("", queue, properties, body).await
    }

    /// Publishes to an exchange, and waits until every queue behind it has it.
    async fn publish_to(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), Error> {
        self.health.check()?;
        let outcome = self.try_publish(exchange, key, properties, body).await;
        if let Err(error) = &outcome
            && !error.leaves_link_alive()
        {
            self.health.kill(error.clone());
        }
        outcome
    }

    async fn try_publish(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), Error> {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let written = self.confirmed.basic_publish(
            topology::name(exchange)?,
            topology::name(key)?,
            options,
            body,
            properties,
        );
        let mut confirm = self.health.within("a publish", written).await?;
        let confirmation = loop {
            match self.health.within("a publish", &mut confirm).await {
                // A blocked broker reads nothing until its alarm is over; the
                // message waits on its way, and giving it up would only repeat
                // it. The watchdogs still end this when the link dies.
                Err(Error::TimedOut(_)) if self.health.blocked().is_some() => {}
                answer => break answer?,
            }
        };
        // An unroutable message is confirmed, and returned inside the confirm.
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Nack(None) => Err(Error::Refused(
                "its queue has reached its length limit".into(),
            )),
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => Err(
                Error::Unroutable(format!("{exchange}{key}: {}", returned.reply_text)),
            ),
            Confirmation::NotRequested => Err(Error::Lost("its channel confirms nothing".into())),
        }
    }

    async fn signal(&self, exchange: &str, kind: &'static str, body: &[u8]) -> Result<(), Error> {
        let written = self.loose.basic_publish(
            topology::name(exchange)?,
            ShortString::default(),
            BasicPublishOptions::default(),
            body,
            message::of_signal(kind, now_s()),
        );
        match self.health.within("a publish", written).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.health.kill(error.clone());
                Err(error)
            }
        }
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    encode(value, QUEUE_MESSAGE_BYTES_MAX).map_err(|error| Error::Unwritable(error.to_string()))
}

fn now_s() -> u64 {
    now_us() / 1_000_000
}
