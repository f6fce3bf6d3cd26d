//! A look at a pool's queues that changes nothing: no message is taken, no
//! queue is made.
//!
//! Depth and consumers come over AMQP and are always known. What only the
//! broker's management API tells (unacknowledged, age, rates) is `None` where
//! that API cannot be asked, with the reason beside it.

use std::time::Duration;

use async_std::future::timeout;
use async_std::io::prelude::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapin::uri::AMQPUri;
use serde::Serialize;
use serde_json::Value;

use sluice_proto::queue::Names;

use crate::queue::health::Health;
use crate::queue::{Error, link, topology, within};
use crate::telemetry::now_us;

/// How long one question to the management API may take.
const MANAGEMENT_MAX: Duration = Duration::from_secs(3);
/// The longest answer of the management API that is read, in bytes.
const MANAGEMENT_BYTES_MAX: u64 = 1024 * 1024;
/// RabbitMQ's own convention: 15672 beside 5672.
const MANAGEMENT_PORT_OFFSET: u16 = 10_000;

/// One queue of a pool, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueView {
    /// Its name on the broker.
    pub queue: String,
    /// What it is for: `jobs`, `jobs.high`, `retry`, `retry.high`, `reports`, `dead` or `given-up`.
    pub role: &'static str,
    /// Messages ready. `None`: there is no such queue yet.
    pub depth: Option<u64>,
    pub consumers: Option<u32>,
    /// Messages with a consumer, not yet settled.
    pub unacked: Option<u64>,
    /// Seconds since the message at the head was published.
    pub oldest_s: Option<u64>,
    /// Messages per second put in, of late.
    pub in_per_s: Option<f64>,
    /// Messages per second taken out and settled, of late.
    pub out_per_s: Option<f64>,
    /// Why something above is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Every queue of a pool, in the order a job meets them.
pub async fn ls(amqp_url: &str, names: &Names) -> Result<Vec<QueueView>, Error> {
    let uri = link::parse(amqp_url)?;
    let health = Health::new();
    let connection = link::open(&uri, "sluice queue", &health).await?;
    let queues = [
        ("jobs", &names.jobs),
        ("jobs.high", &names.jobs_high),
        ("retry", &names.retry),
        ("retry.high", &names.retry_high),
        ("reports", &names.reports),
        ("dead", &names.dead),
        ("given-up", &names.given_up),
    ];
    let mut views = Vec::with_capacity(queues.len());
    // Asked once: an API that is not there for one queue is not there for the next.
    let mut management = Ok(());
    for (role, queue) in queues {
        // A question about a queue that is not there closes its channel, so each has its own.
        let opening = connection.create_channel();
        let channel = within("opening a channel", opening).await?;
        let seen = match topology::look(&channel, queue).await {
            Ok(seen) => Some(seen),
            Err(Error::Missing(_)) => None,
            Err(error) => return Err(error),
        };
        let mut view = QueueView::of(role, queue, seen);
        if seen.is_some() {
            if management.is_ok() {
                management = match ask_management(&uri, queue).await {
                    Ok(reply) => {
                        view.add(&reply, now_us() / 1_000_000);
                        Ok(())
                    }
                    Err(reason) => Err(reason),
                };
            }
            view.unknown = management.clone().err();
        }
        views.push(view);
    }
    health.kill(Error::Closed);
    Ok(views)
}

// === impl QueueView ===

impl QueueView {
    fn of(role: &'static str, queue: &str, seen: Option<(u64, u32)>) -> Self {
        Self {
            queue: queue.to_owned(),
            role,
            depth: seen.map(|(depth, _)| depth),
            consumers: seen.map(|(_, consumers)| consumers),
            unacked: None,
            oldest_s: None,
            in_per_s: None,
            out_per_s: None,
            unknown: seen
                .is_none()
                .then(|| "no agent of this pool has used this broker yet".to_owned()),
        }
    }

    /// Adds what `GET /api/queues/VHOST/QUEUE` answered.
    fn add(&mut self, reply: &Value, now_s: u64) {
        let rate = |name: &str| {
            let details = format!("{name}_details");
            reply["message_stats"][&details]["rate"].as_f64()
        };
        self.unacked = reply["messages_unacknowledged"].as_u64();
        self.oldest_s = reply["head_message_timestamp"]
            .as_u64()
            .map(|at_s| now_s.saturating_sub(at_s));
        self.in_per_s = rate("publish");
        self.out_per_s = rate("ack");
    }
}

/// Asks the management API about one queue; the error says why it cannot be asked.
async fn ask_management(uri: &AMQPUri, queue: &str) -> Result<Value, String> {
    let port = uri
        .authority
        .port
        .checked_add(MANAGEMENT_PORT_OFFSET)
        .ok_or("the broker's port leaves no room for a management port")?;
    let address = format!("{}:{port}", uri.authority.host);
    let user = &uri.authority.userinfo;
    let credentials = BASE64.encode(format!("{}:{}", user.username, user.password));
    let segment =
        |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let request = format!(
        "GET /api/queues/{}/{} HTTP/1.0\r\nhost: {address}\r\nauthorization: Basic {credentials}\r\n\r\n",
        segment(&uri.vhost),
        segment(queue)
    );
    let exchange = async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        stream
            .take(MANAGEMENT_BYTES_MAX)
            .read_to_end(&mut reply)
            .await?;
        Ok::<_, std::io::Error>(reply)
    };
    let reply = match timeout(MANAGEMENT_MAX, exchange).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => return Err(format!("no management API at {address}: {error}")),
        Err(_) => return Err(format!("the management API at {address} does not answer")),
    };
    body_of(&reply).map_err(|why| format!("the management API at {address} {why}"))
}

/// The JSON body of a plain HTTP/1.0 reply.
fn body_of(reply: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(reply);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("answers no HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("answers with status {status}"));
    }
    serde_json::from_str(body).map_err(|error| format!("answers no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_management_api_says_is_added_and_the_rest_stays_unknown() {
        let reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\
            {\"messages_unacknowledged\":3,\"head_message_timestamp\":90,\
             \"message_stats\":{\"publish_details\":{\"rate\":1.5}}}";
        let mut view = QueueView::of("jobs", "q", Some((7, 2)));
        view.add(&body_of(reply).expect("a body"), 100);
        assert_eq!((view.depth, view.unacked), (Some(7), Some(3)));
        assert_eq!((view.oldest_s, view.in_per_s), (Some(10), Some(1.5)));
        assert_eq!(view.out_per_s, None);
    }

    #[test]
    fn a_reply_that_is_no_success_says_its_status() {
        let error = body_of(b"HTTP/1.1 401 Unauthorized\r\n\r\n{}").expect_err("refused");
        assert!(error.contains("401"), "{error}");
        assert!(body_of(b"AMQP\0\0\x09\x01").is_err());
    }
}
