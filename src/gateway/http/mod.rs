//! The HTTP door: the listener, the limits, the envelope.
//!
//! ```text
//!  head (bounded) ─▶ a place among the requests in flight, or 503
//!     ─▶ credentials ─▶ body (bounded, timed) ─▶ handler ─▶ {"data":…} or {"error":"one sentence"}
//! ```
//!
//! Owns everything that knows trillium. Handlers get values and give values.

pub mod body;
mod endpoints;
mod patience;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_std::future::timeout;
use futures::{FutureExt, Stream, TryStreamExt};
use serde::Serialize;
use trillium::{Conn, Handler, KnownHeaderName, Swansong};

use crate::gateway::auth::{Caller, JobCaller};
use crate::gateway::bundles::ARCHIVE_BYTES_MAX;
use crate::gateway::engine::definition::DEFINITION_BYTES_MAX;
use crate::gateway::error::ApiError;
use crate::gateway::http::body::Budget;
use crate::gateway::http::patience::Patience;
use crate::gateway::{Gateway, agent_api, api};

/// Requests at once; most of them wait for a job's end and cost some KiB each.
const REQUESTS_MAX: usize = 2_048;
/// Connections at once.
const CONNECTIONS_MAX: usize = 4_096;
/// The longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The largest body where nothing larger is expected, in bytes.
const BODY_BYTES_MAX: u64 = 64 * 1024;
/// The largest body of a job: its payload and what stands around it, in bytes.
const JOB_BODY_BYTES_MAX: u64 = 5 * 1024 * 1024;
/// The largest body of a version: code and UI as JSON strings, or an archive, in bytes.
const VERSION_BODY_BYTES_MAX: u64 = 2 * ARCHIVE_BYTES_MAX as u64 + 1024 * 1024;
/// The largest body with a flow's definition, in bytes: its text as a JSON string.
const FLOW_BODY_BYTES_MAX: u64 = 2 * DEFINITION_BYTES_MAX as u64 + 64 * 1024;
/// The largest body of an event, in bytes; the engine's own limit says so more kindly.
const EVENT_BODY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// The largest config of an installation, in bytes.
const CONFIG_BODY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// How long a client that was turned away should wait, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// A request without its body.
pub struct Head {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    bearer: Option<String>,
    pub content_type: String,
}

/// What a handler answers.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Content,
}

/// What an answer carries.
#[derive(Debug)]
pub enum Content {
    Bytes(Vec<u8>),
    Stream(trillium::Body),
}

/// The running server.
pub struct Server {
    swansong: Swansong,
}

struct Service {
    gateway: Arc<Gateway>,
    in_flight: AtomicUsize,
    bodies: Budget,
}

struct Place<'a>(&'a AtomicUsize);

/// Serves requests on a bound listener.
pub fn serve(gateway: Arc<Gateway>, listener: std::net::TcpListener) -> Server {
    let swansong = Swansong::new();
    let config = trillium_async_std::config()
        .with_prebound_server(listener)
        .without_signals()
        .with_nodelay()
        .with_acceptor(Patience)
        .with_max_connections(Some(CONNECTIONS_MAX))
        .with_http_config(
            trillium::HttpConfig::default()
                .with_head_max_len(HEAD_BYTES_MAX)
                .with_received_body_max_len(VERSION_BODY_BYTES_MAX),
        )
        .with_swansong(swansong.clone());
    drop(config.spawn(Service {
        gateway,
        in_flight: AtomicUsize::new(0),
        bodies: Budget::default(),
    }));
    Server { swansong }
}

// === impl Server ===

impl Server {
    /// Takes no more connections and waits, within the grace, for what is in flight.
    pub async fn drain(self, grace: Duration) -> bool {
        timeout(grace, self.swansong.shut_down()).await.is_ok()
    }
}

// === impl Service ===

impl Handler for Service {
    async fn run(&self, mut conn: Conn) -> Conn {
        if endpoints::is_one(&conn) {
            return endpoints::serve(self, conn).await;
        }
        // Whether the connection can be used again is in doubt when the body was not read.
        let (result, body_read) = self.answer(&mut conn).await;
        let mut conn = match result {
            Ok(reply) => reply.send(conn),
            Err(error) => refuse(conn, error),
        };
        if !body_read {
            conn.insert_response_header(KnownHeaderName::Connection, "close");
        }
        conn.halt()
    }
}

impl Service {
    async fn answer(&self, conn: &mut Conn) -> (Result<Reply, ApiError>, bool) {
        let Some(_place) = Place::take(&self.in_flight) else {
            let error = ApiError::later(
                503,
                "too many requests are in flight: try again shortly",
                RETRY_AFTER_S,
            );
            return (Err(error), false);
        };
        let head = Head::of(conn);
        let mut read = false;
        let work = self.route(&head, conn, &mut read);
        let caught = std::panic::AssertUnwindSafe(work).catch_unwind().await;
        let result = caught.unwrap_or_else(|_| Err(ApiError::internal("a handler panicked")));
        (result, read)
    }

    /// Authenticates, reads the body and hands both on.
    async fn route(
        &self,
        head: &Head,
        conn: &mut Conn,
        read: &mut bool,
    ) -> Result<Reply, ApiError> {
        let gateway = &self.gateway;
        let path: Vec<&str> = head
            .path
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let credential = head.bearer.as_deref();
        match (head.method.as_str(), path.as_slice()) {
            ("GET", ["health"]) => {
                *read = true;
                Ok(Reply::data(&api::health()))
            }
            (_, ["api", "v1", rest @ ..]) => {
                let caller = Caller::check(gateway, credential)?;
                let body = self.bodies.read(conn, body_max(rest)).await?;
                *read = true;
                api::handle(gateway, &caller, head, rest, body).await
            }
            ("GET", ["agent", "v1", "bundles", digest]) => {
                let caller = JobCaller::check(gateway, credential)?;
                *read = true;
                agent_api::bundle(gateway, &caller, digest).await
            }
            ("POST", ["agent", "v1", "calls"]) => {
                let caller = JobCaller::check(gateway, credential)?;
                let body = self.bodies.read(conn, agent_api::CALL_BYTES_MAX).await?;
                *read = true;
                agent_api::call(gateway, &caller, &body).await
            }
            (method, _) => Err(no_route(method, &head.path)),
        }
    }
}

fn body_max(path: &[&str]) -> u64 {
    match path {
        ["jobs"] => JOB_BODY_BYTES_MAX,
        ["apps", _, "versions"] => VERSION_BODY_BYTES_MAX,
        ["flows", _, "apply" | "plan"] => FLOW_BODY_BYTES_MAX,
        ["flows", _, "blocks", _, "inputs", _, "events"] => EVENT_BODY_BYTES_MAX,
        ["installations", ..] => CONFIG_BODY_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    }
}

/// The answer to a request that means nothing here.
pub fn no_route(method: &str, path: &str) -> ApiError {
    ApiError::new(404, format!("{method} {path} is not part of this API"))
}

fn refuse(mut conn: Conn, error: ApiError) -> Conn {
    if let Some(cause) = &error.cause {
        tracing::error!(
            status = error.status,
            error = cause,
            "A request failed: {}",
            error.message
        );
    }
    if let Some(seconds) = error.retry_after_s {
        conn.insert_response_header(KnownHeaderName::RetryAfter, seconds.to_string());
    }
    if error.status == 401 {
        conn.insert_response_header(KnownHeaderName::WwwAuthenticate, "Bearer");
    }
    let body = serde_json::json!({"error": error.message}).to_string();
    let reply = Reply {
        status: error.status,
        content_type: JSON,
        body: Content::Bytes(body.into_bytes()),
    };
    reply.send(conn)
}

const JSON: &str = "application/json";

// === impl Head ===

impl Head {
    fn of(conn: &Conn) -> Self {
        let header = |name: KnownHeaderName| conn.request_headers().get_str(name);
        let bearer = header(KnownHeaderName::Authorization).and_then(|value| {
            let (scheme, credential) = value.split_once(' ')?;
            let credential = credential.trim();
            (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty())
                .then(|| credential.to_owned())
        });
        Self {
            method: conn.method().as_str().to_owned(),
            path: conn.path().to_owned(),
            query: url::form_urlencoded::parse(conn.querystring().as_bytes())
                .into_owned()
                .collect(),
            bearer,
            content_type: header(KnownHeaderName::ContentType)
                .unwrap_or_default()
                .to_ascii_lowercase(),
        }
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number in the query, or the sentence that says it is none.
    pub fn query_number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.query(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad(format!("`{name}` in the query is not a whole number"))),
        }
    }
}

// === impl Reply ===

impl Reply {
    /// 200 with a value.
    pub fn data<T: Serialize>(value: &T) -> Self {
        // A value of ours has string keys and always serializes.
        let json = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
        Self::raw(&json)
    }

    /// 200 with JSON text.
    pub fn raw(json: &[u8]) -> Self {
        let mut body = Vec::with_capacity(json.len() + 10);
        body.extend_from_slice(b"{\"data\":");
        body.extend_from_slice(json);
        body.push(b'}');
        Self {
            status: 200,
            content_type: JSON,
            body: Content::Bytes(body),
        }
    }

    /// 201 with a value.
    pub fn created<T: Serialize>(value: &T) -> Self {
        Self {
            status: 201,
            ..Self::data(value)
        }
    }

    /// 200 with something that is not in the envelope.
    pub fn bytes(content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status: 200,
            content_type,
            body: Content::Bytes(body),
        }
    }

    /// 200 with what comes, until the stream ends.
    pub fn stream(
        content_type: &'static str,
        chunks: impl Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static,
    ) -> Self {
        let reader = Box::pin(chunks).into_async_read();
        Self {
            status: 200,
            content_type,
            body: Content::Stream(trillium::Body::new_streaming(reader, None)),
        }
    }

    fn send(self, conn: Conn) -> Conn {
        conn.with_status(self.status)
            .with_response_header(KnownHeaderName::ContentType, self.content_type)
            .with_body(match self.body {
                Content::Bytes(bytes) => bytes.into(),
                Content::Stream(body) => body,
            })
    }
}

// === impl Place ===

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::SeqCst);
        let place = Self(count);
        // A place over the limit is dropped here and given back.
        (before < REQUESTS_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
