//! A flow's events as they come: server-sent events, `event` for each event and
//! `delivery` for each delivery that has ended.
//!
//! The stream looks into the store a few times a second, so that it shows what
//! is committed and nothing else, and costs no one who does not follow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::gateway::Gateway;
use crate::gateway::api::events::{objects, shown};
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::telemetry::now_ms;

/// How long the stream waits between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Looks without news after which a comment keeps the connection alive: 15 s.
const QUIET_LOOKS: u32 = 75;
/// Events or deliveries in one look.
const NEWS_MAX: u32 = 5_000;
/// Streams at once; each looks into the store.
const STREAMS_MAX: usize = 100;

struct Follower {
    gateway: Arc<Gateway>,
    flow: String,
    /// The last event that was shown.
    seq: i64,
    /// Deliveries are looked for from this time on; those of its very
    /// millisecond that were shown are known.
    since_ms: i64,
    shown: BTreeSet<i64>,
    // Counts the streams.
    _place: Arc<()>,
}

/// Answers with a stream that ends with the gateway or the client.
pub async fn stream(
    gateway: &Arc<Gateway>,
    flow: &str,
    after: Option<u64>,
) -> Result<Reply, ApiError> {
    let place = gateway.followers.clone();
    if Arc::strong_count(&place) > STREAMS_MAX + 1 {
        let sentence = format!("{STREAMS_MAX} streams are open, which is the limit");
        return Err(ApiError::later(503, sentence, 5));
    }
    let seq = match after {
        Some(after) => i64::try_from(after).unwrap_or(i64::MAX),
        None => {
            let newest = gateway.store.events(flow, None, None, 1).await?;
            newest.first().map_or(0, |event| event.seq)
        }
    };
    let since_ms = if after.is_some() { 0 } else { now_ms() };
    let follower = Follower {
        gateway: gateway.clone(),
        flow: flow.to_owned(),
        seq,
        since_ms: i64::try_from(since_ms).unwrap_or(i64::MAX),
        shown: BTreeSet::new(),
        _place: place,
    };
    let chunks = futures::stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok::<_, std::io::Error>(chunk.into_bytes()), follower))
    });
    Ok(Reply::stream("text/event-stream", chunks))
}

// === impl Follower ===

impl Follower {
    /// The next part of the stream; `None` at its end.
    async fn next(&mut self) -> Option<String> {
        for _ in 0..QUIET_LOOKS {
            if self.gateway.is_draining() {
                return None;
            }
            match self.look().await {
                Ok(news) if news.is_empty() => {}
                Ok(news) => return Some(news),
                Err(error) => {
                    tracing::warn!(error = error.message, "A stream of events ends");
                    return None;
                }
            }
            async_std::task::sleep(LOOK).await;
        }
        Some(": nothing new\n\n".to_owned())
    }

    async fn look(&mut self) -> Result<String, ApiError> {
        let store = &self.gateway.store;
        let events = store
            .events(&self.flow, Some(self.seq), None, NEWS_MAX)
            .await?;
        let mut news = String::new();
        for (event, object) in events.iter().zip(objects(&self.gateway, &events).await?) {
            self.seq = event.seq;
            say(&mut news, "event", Some(event.seq), &object);
        }
        let ended = store
            .ended_since(&self.flow, self.since_ms, NEWS_MAX)
            .await?;
        for (delivery, job) in ended {
            if !self.shown.insert(delivery.seq) {
                continue;
            }
            let ended_ms = delivery.ended_ms.unwrap_or(self.since_ms);
            if ended_ms > self.since_ms {
                self.since_ms = ended_ms;
                self.shown = BTreeSet::from([delivery.seq]);
            }
            let mut object = shown(&delivery, job);
            object["event"] = delivery.event.into();
            say(&mut news, "delivery", None, &object);
        }
        Ok(news)
    }
}

fn say(news: &mut String, kind: &str, id: Option<i64>, data: &Value) {
    if let Some(id) = id {
        news.push_str(&format!("id: {id}\n"));
    }
    news.push_str(&format!("event: {kind}\ndata: {data}\n\n"));
}
