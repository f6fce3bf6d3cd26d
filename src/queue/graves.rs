//! Dead letters, read without being touched, and taken out when somebody says so.
//!
//! ```text
//!  dead-log (stream) ──read from its first message on──▶ Graves   nothing taken, nothing marked
//!  dead (quorum)     ──remove(jobs)──▶ acked; a note of it in dead-log
//! ```
//!
//! Two queues get every dead letter: `dead` holds it, `dead-log` remembers it.
//! Whoever removes one from `dead` notes that in `dead-log`, so the log read
//! from its beginning says what is still there, and who removed what.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;

use sluice_proto::queue::header;
use sluice_proto::report::Cause;

use crate::queue::link::Link;
use crate::queue::{Error, message, topology};

/// How many entries of the log may be on their way at once.
const LOG_PREFETCH: u16 = 500;
/// Dead letters remembered: as many as `dead` keeps.
const GRAVES_MAX: usize = 100_000;
/// How long `dead` may give nothing before all of it counts as seen.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grave {
    /// The job's id, or `#OFFSET` of a message that names none.
    pub job: String,
    pub kind: Option<String>,
    pub cause: String,
    pub reason: Option<String>,
    pub project: Option<String>,
    pub block: Option<String>,
    pub identity: Option<String>,
    pub dispatch: Option<u64>,
    pub deliveries: Option<u64>,
    /// Seconds since the Unix epoch when the message was published.
    pub published_s: u64,
    pub bytes: usize,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Buried(Box<Grave>),
    /// It was dropped or replayed, and by whom.
    Gone {
        job: String,
        fate: String,
        by: String,
    },
}

/// What a dead letter may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    Replayed,
}

/// The dead letters that are still there. Pure.
#[derive(Debug, Default)]
pub struct Graves {
    by_job: BTreeMap<String, Grave>,
}

/// The log, read from its beginning.
pub struct Log {
    link: Link,
    consumer: lapin::Consumer,
}

// === impl Fate ===

impl Fate {
    fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Replayed => "replayed",
        }
    }

    fn is(word: &str) -> bool {
        [Self::Dropped, Self::Replayed]
            .iter()
            .any(|fate| fate.as_str() == word)
    }
}

// === impl Graves ===

impl Graves {
    pub fn note(&mut self, entry: Entry) {
        match entry {
            Entry::Buried(grave) => {
                if self.by_job.len() >= GRAVES_MAX {
                    // Ids of jobs begin with their time, so the first is the oldest.
                    self.by_job.pop_first();
                }
                self.by_job.insert(grave.job.clone(), *grave);
            }
            Entry::Gone { job, .. } => drop(self.by_job.remove(&job)),
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Grave> {
        self.by_job.values()
    }

    pub fn get(&self, job: &str) -> Option<&Grave> {
        self.by_job.get(job)
    }

    pub fn len(&self) -> usize {
        self.by_job.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_job.is_empty()
    }
}

// === impl Log ===

impl Log {
    /// The next entry, old ones first.
    pub async fn next(&mut self) -> Result<Entry, Error> {
        let health = self.link.inner.health.clone();
        let raw = match self.consumer.next().await {
            Some(Ok(raw)) => raw,
            Some(Err(error)) => {
                let error = Error::from(error);
                health.kill(error.clone());
                return Err(error);
            }
            None => {
                let error = Error::Lost("the broker ended the reading of the dead letters".into());
                health.kill(error.clone());
                return Err(error);
            }
        };
        let entry = read(&raw.properties, raw.data.len());
        // In a stream this is credit for more, and removes nothing.
        let credit = raw.acker.ack(BasicAckOptions::default());
        health.within("reading the dead letters", credit).await?;
        Ok(entry)
    }
}

fn read(properties: &BasicProperties, bytes: usize) -> Entry {
    let id = properties
        .message_id()
        .as_ref()
        .map(|id| id.to_string())
        .filter(|id| !id.is_empty());
    let offset = message::number(properties, "x-stream-offset").unwrap_or(0);
    let job = id.unwrap_or_else(|| format!("#{offset}"));
    let kind = properties.kind().as_ref().map(|kind| kind.to_string());
    let text = |name| message::text(properties, name);
    if let (Some(by), Some(fate)) = (text(header::BY), kind.clone().filter(|kind| Fate::is(kind))) {
        return Entry::Gone { job, fate, by };
    }
    let by_broker = || {
        (
            Cause::Poison.as_str().to_owned(),
            Some("The broker gave it up after too many deliveries.".to_owned()),
        )
    };
    let (cause, reason) = match text(header::CAUSE) {
        Some(cause) => (cause, text(header::REASON)),
        None => by_broker(),
    };
    Entry::Buried(Box::new(Grave {
        job,
        kind,
        cause,
        reason,
        project: text(header::PROJECT),
        block: text(header::BLOCK),
        identity: text(header::IDENTITY),
        dispatch: message::number(properties, header::DISPATCH),
        deliveries: message::number(properties, header::DELIVERIES),
        published_s: properties.timestamp().unwrap_or(0),
        bytes,
    }))
}

// === impl Link ===

impl Link {
    /// Reads the log of dead letters from its beginning.
    pub async fn dead_log(&self) -> Result<Log, Error> {
        let inner = &self.inner;
        let health = &inner.health;
        let opening = inner.consuming.create_channel();
        let channel = health.within("opening a channel", opening).await?;
        let limited = channel.basic_qos(LOG_PREFETCH, BasicQosOptions::default());
        health.within("setting a prefetch", limited).await?;
        let mut arguments = FieldTable::default();
        let first = AMQPValue::LongString("first".into());
        arguments.insert("x-stream-offset".into(), first);
        let consuming = channel.basic_consume(
            topology::name(&inner.names.dead_log)?,
            ShortString::default(),
            BasicConsumeOptions::default(),
            arguments,
        );
        let consumer = health.within("starting to consume", consuming).await?;
        Ok(Log {
            link: self.clone(),
            consumer,
        })
    }

    /// Takes these jobs' dead letters out, and notes for each what became of it;
    /// answers with those that were found. All others go back to their queue.
    pub async fn remove_dead(
        &self,
        jobs: &HashSet<String>,
        fate: Fate,
        by: &str,
    ) -> Result<HashSet<String>, Error> {
        let inner = &self.inner;
        let health = &inner.health;
        let opening = inner.consuming.create_channel();
        let channel = health.within("opening a channel", opening).await?;
        let (ready, _) = topology::look(&channel, &inner.names.dead).await?;
        let consuming = channel.basic_consume(
            topology::name(&inner.names.dead)?,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = health.within("starting to consume", consuming).await?;
        let (mut found, mut kept) = (HashSet::new(), None);
        for _ in 0..ready {
            let next = async_std::future::timeout(QUIET_MAX, consumer.next()).await;
            let raw = match next {
                Ok(Some(raw)) => raw?,
                Ok(None) => return Err(Error::Lost("the broker ended a consumer of ours".into())),
                // Another one is removing some at the same time.
                Err(_) => break,
            };
            let id = raw
                .properties
                .message_id()
                .as_ref()
                .map(|id| id.to_string());
            match id.filter(|id| jobs.contains(id)) {
                Some(id) => {
                    // The note first: without the ack the letter is seen in `dead` alone,
                    // and the next removal ends that.
                    self.put_mark(&id, fate.as_str(), by).await?;
                    let settled = raw.acker.ack(BasicAckOptions::default());
                    health.within("an acknowledgement", settled).await?;
                    found.insert(id);
                }
                None => kept = Some(raw.delivery_tag),
            }
        }
        if let Some(tag) = kept {
            let options = BasicNackOptions {
                multiple: true,
                requeue: true,
            };
            let back = channel.basic_nack(tag, options);
            health.within("giving deliveries back", back).await?;
        }
        // What came on top goes back with the channel.
        let closing = channel.close(200, "done".into());
        health.within("closing a channel", closing).await?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buried(job: &str) -> Entry {
        let properties = BasicProperties::default()
            .with_message_id(job.into())
            .with_type("event".into());
        let headers = message::buried(FieldTable::default(), Cause::Collateral, "again and again");
        read(&properties.with_headers(headers), 5)
    }

    #[test]
    fn what_is_buried_is_there_until_it_is_dropped_or_replayed() {
        let mut graves = Graves::default();
        graves.note(buried("a"));
        graves.note(buried("b"));
        let a = graves.get("a").expect("it is there");
        assert_eq!(
            (a.cause.as_str(), a.kind.as_deref()),
            ("collateral", Some("event"))
        );
        let gone = read(&message::of_mark("a", Fate::Dropped.as_str(), "me", 1), 0);
        assert!(
            matches!(&gone, Entry::Gone { by, .. } if by == "me"),
            "{gone:?}"
        );
        graves.note(gone);
        assert_eq!((graves.len(), graves.get("a")), (1, None));
        graves.note(buried("a"));
        assert_eq!(graves.iter().count(), 2, "it died again");
    }

    #[test]
    fn what_the_broker_gave_up_is_poison_and_what_has_no_name_is_found_by_its_place() {
        let Entry::Buried(grave) = read(&BasicProperties::default(), 1) else {
            panic!("no note");
        };
        assert_eq!((grave.job.as_str(), grave.cause.as_str()), ("#0", "poison"));
    }
}
