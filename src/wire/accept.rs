//! The gateway's side: from a TCP connection to a session, or a refusal.
//!
//! ```text
//!  accept: HTTP head, bounded and timed ──▶ Pending{pool, token} ──┬─ accept ─▶ 101, session
//!     └─ not a session request: 404, 426, 401                      └─ refuse ─▶ 401, 403, …
//! ```
//!
//! The head is read here and not by the websocket crate, so that the caller can
//! look the credentials up in its own time before anything is answered.

use std::time::Duration;

use async_std::future::timeout;
use async_std::net::TcpStream;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::Role;
use futures::{AsyncReadExt, AsyncWriteExt};

use sluice_proto::frame::{FromBridge, FromGateway, POOL_HEADER, SESSION_PATH};

use crate::wire::{AnyIo, Error, Receiver, Sender, halves, limits};

/// How long a client may take to send its request head, and to take an answer.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// The longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Somebody who asks for a session and has shown credentials that nobody has
/// checked yet. Dropping it closes the connection.
#[must_use = "whoever waits wants to be accepted or refused"]
pub struct Pending {
    pub pool: String,
    /// Secret.
    pub token: String,
    /// Address and port of the other end of the TCP connection.
    pub peer: String,
    stream: TcpStream,
    /// What `sec-websocket-accept` answers.
    accept_key: String,
    /// What came behind the head.
    early: Vec<u8>,
}

/// What a request head says, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    pool: String,
    token: String,
    key: String,
}

/// Reads a request head. What is no request for a session is answered here,
/// and told as [`Error::Malformed`].
pub async fn accept(mut stream: TcpStream) -> Result<Pending, Error> {
    let _ = stream.set_nodelay(true);
    let peer = stream
        .peer_addr()
        .map_or_else(|_| "unknown".to_owned(), |addr| addr.to_string());
    let (head, early) = match timeout(HEAD_MAX, read_head(&mut stream)).await {
        Ok(head) => head?,
        Err(_) => return Err(Error::TimedOut("send a request head")),
    };
    match understand(&head) {
        Ok(asked) => Ok(Pending {
            accept_key: derive_accept_key(asked.key.as_bytes()),
            pool: asked.pool,
            token: asked.token,
            peer,
            stream,
            early,
        }),
        Err((status, sentence)) => {
            answer(&mut stream, status, &sentence).await;
            Err(Error::Malformed(sentence))
        }
    }
}

// === impl Pending ===

impl Pending {
    /// Opens the session.
    pub async fn accept(self) -> Result<(Sender<FromGateway>, Receiver<FromBridge>), Error> {
        let mut stream = self.stream;
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n",
            self.accept_key
        );
        match timeout(HEAD_MAX, stream.write_all(head.as_bytes())).await {
            Ok(written) => written.map_err(|error| Error::Lost(error.to_string()))?,
            Err(_) => return Err(Error::TimedOut("take an answer")),
        }
        let stream: AnyIo = Box::new(stream);
        let config = Some(limits());
        let session =
            WebSocketStream::from_partially_read(stream, self.early, Role::Server, config).await;
        Ok(halves(session))
    }

    /// Answers with an HTTP status and one sentence. A bridge takes 401 and 403
    /// as final. Never fails: one that is gone needs no answer.
    pub async fn refuse(mut self, status: u16, sentence: &str) {
        answer(&mut self.stream, status, sentence).await;
    }
}

async fn answer(stream: &mut TcpStream, status: u16, sentence: &str) {
    let name = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Refused",
    };
    let more = match status {
        401 => "www-authenticate: Bearer\r\n",
        426 => "upgrade: websocket\r\nsec-websocket-version: 13\r\n",
        _ => "",
    };
    let body = serde_json::json!({ "error": sentence }).to_string();
    let reply = format!(
        "HTTP/1.1 {status} {name}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n{body}",
        body.len()
    );
    let _ = timeout(HEAD_MAX, async {
        stream.write_all(reply.as_bytes()).await?;
        stream.close().await
    })
    .await;
}

/// The head, and what came behind it.
async fn read_head(stream: &mut TcpStream) -> Result<(String, Vec<u8>), Error> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 1024];
    loop {
        let read = stream
            .read(&mut chunk)
            .await
            .map_err(|error| Error::Lost(error.to_string()))?;
        if read == 0 {
            return Err(Error::Lost("it ended before its request did".into()));
        }
        // The border may lie across two reads.
        let from = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(&chunk[..read]);
        let border = bytes[from..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        if let Some(at) = border {
            let early = bytes.split_off(from + at + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), early));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Error::TooLarge(format!(
                "a request head of more than {HEAD_BYTES_MAX} bytes"
            )));
        }
    }
}

/// A request for a session, or the status and the sentence to refuse it with.
fn understand(head: &str) -> Result<Asked, (u16, String)> {
    let refuse = |status, sentence: &str| Err((status, sentence.to_owned()));
    let mut lines = head.split("\r\n");
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (request.next(), request.next().unwrap_or_default());
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| *value)
    };
    let lists = |name: &str, token: &str| {
        header(name).is_some_and(|value| {
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(token))
        })
    };
    let path = target.split('?').next().unwrap_or_default();
    if method != Some("GET") || path != SESSION_PATH {
        return refuse(404, "Agents open their session with GET /agent/v1/session.");
    }
    let upgrade = lists("upgrade", "websocket")
        && lists("connection", "upgrade")
        && header("sec-websocket-version") == Some("13");
    let Some(key) = header("sec-websocket-key").filter(|_| upgrade) else {
        return refuse(426, "A session is a websocket of version 13; ask for one.");
    };
    let Some(pool) = header(POOL_HEADER).filter(|pool| !pool.is_empty()) else {
        return refuse(
            401,
            "The request names no pool in the x-sluice-pool header.",
        );
    };
    let token = header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim())
            .filter(|token| !token.is_empty())
    });
    let Some(token) = token else {
        return refuse(
            401,
            "The request has no pool token (authorization: Bearer …).",
        );
    };
    Ok(Asked {
        pool: pool.to_owned(),
        token: token.to_owned(),
        key: key.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /agent/v1/session HTTP/1.1\r\nHost: g\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\nX-Sluice-Pool: p1\r\nAuthorization: bearer t1\r\n\r\n";

    #[test]
    fn a_request_for_a_session_is_understood() {
        let asked = understand(GOOD).expect("all there");
        assert_eq!((asked.pool.as_str(), asked.token.as_str()), ("p1", "t1"));
    }

    #[test]
    fn what_is_missing_is_named_with_its_status() {
        let status = |from: &str, to: &str| {
            let (status, sentence) = understand(&GOOD.replace(from, to)).expect_err(from);
            assert!(sentence.ends_with('.'), "{sentence}");
            status
        };
        assert_eq!(status("/agent/v1/session", "/"), 404);
        assert_eq!(status("GET", "POST"), 404);
        assert_eq!(status("Upgrade: WebSocket", "Upgrade: h2c"), 426);
        assert_eq!(status("Version: 13", "Version: 8"), 426);
        assert_eq!(status("Sec-WebSocket-Key: a2V5", "X: y"), 426);
        assert_eq!(status("bearer t1", "Basic dDE="), 401);
        assert_eq!(status("X-Sluice-Pool: p1", "X: y"), 401);
    }
}
