//! The HTTP door: the listener, the limits, the envelope.
//!
//! ```text
//!  head (bounded) ─▶ a place among the requests in flight, or 503
//!     ─▶ Routes: credentials ─▶ body (bounded, timed) ─▶ handler
//!     ─▶ {"data":…} or {"error":"one sentence"}
//! ```
//!
//! Owns everything that knows trillium, for the two that serve HTTP: the
//! gateway, and the agent's local API. What is served is theirs ([`Routes`]);
//! handlers get values and give values.

pub mod body;
mod error;
mod patience;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_std::future::timeout;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, TryStreamExt};
use serde::Serialize;
use trillium::{Conn, Handler, KnownHeaderName, Swansong};

use crate::http::body::{Body, Budget};
use crate::http::patience::Patience;

pub use error::ApiError;

/// Requests at once; most of them wait for something and cost some KiB each.
const REQUESTS_MAX: usize = 2_048;
/// Connections at once.
const CONNECTIONS_MAX: usize = 4_096;
/// The longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client that was turned away should wait, in seconds.
const RETRY_AFTER_S: u32 = 1;

const JSON: &str = "application/json";

/// What a role serves.
pub trait Routes: Send + Sync + 'static {
    /// The largest body any route takes, in bytes.
    const BODY_BYTES_MAX: u64;

    /// Authenticates, reads the body and answers.
    fn route<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<Reply, ApiError>>;
}

/// A request whose body is still on its way.
pub struct Request<'a> {
    pub head: &'a Head,
    conn: &'a mut Conn,
    bodies: &'a Budget,
    read: &'a mut bool,
}

/// Where requests come from.
pub enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A request without its body.
pub struct Head {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub bearer: Option<String>,
    pub content_type: String,
}

/// What a handler answers.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// Beside the content type; several values of one name follow each other.
    pub headers: Vec<(String, String)>,
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

struct Service<R> {
    routes: R,
    in_flight: AtomicUsize,
    bodies: Budget,
}

struct Place<'a>(&'a AtomicUsize);

/// Serves requests on a bound listener.
pub fn serve<R: Routes>(routes: R, listener: Listener) -> Server {
    serve_with(routes, listener, Budget::default())
}

fn serve_with<R: Routes>(routes: R, listener: Listener, bodies: Budget) -> Server {
    let swansong = Swansong::new();
    let config = trillium_async_std::config()
        .without_signals()
        .with_nodelay()
        .with_acceptor(Patience)
        .with_max_connections(Some(CONNECTIONS_MAX))
        .with_http_config(
            trillium::HttpConfig::default()
                .with_head_max_len(HEAD_BYTES_MAX)
                .with_received_body_max_len(R::BODY_BYTES_MAX),
        )
        .with_swansong(swansong.clone());
    let config = match listener {
        Listener::Tcp(listener) => config.with_prebound_server(listener),
        Listener::Unix(listener) => {
            config.with_prebound_server(async_std::os::unix::net::UnixListener::from(listener))
        }
    };
    drop(config.spawn(Service {
        routes,
        in_flight: AtomicUsize::new(0),
        bodies,
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

// === impl Request ===

impl Request<'_> {
    /// Reads the body, of at most `bytes_max`.
    pub async fn body(&mut self, bytes_max: u64) -> Result<Body, ApiError> {
        let body = self.bodies.read(self.conn, bytes_max).await?;
        *self.read = true;
        Ok(body)
    }

    /// Path and query as they came.
    pub fn target(&self) -> String {
        match self.conn.querystring() {
            "" => self.conn.path().to_owned(),
            query => format!("{}?{query}", self.conn.path()),
        }
    }

    /// The host that the client means, perhaps with a port.
    pub fn host(&self) -> Option<&str> {
        self.conn
            .request_headers()
            .get_str(trillium::KnownHeaderName::Host)
    }

    /// Every header, each value by itself.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let headers = self.conn.request_headers().iter();
        headers
            .flat_map(|(name, values)| {
                let name = name.to_string();
                let values = values.iter();
                values.map(move |value| (name.clone(), value.as_ref().to_vec()))
            })
            .collect()
    }

    /// Says that a body is not looked at.
    pub fn without_body(&mut self) {
        *self.read = true;
    }
}

// === impl Service ===

impl<R: Routes> Handler for Service<R> {
    async fn run(&self, mut conn: Conn) -> Conn {
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

impl<R: Routes> Service<R> {
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
        let work = self.routes.route(Request {
            head: &head,
            conn,
            bodies: &self.bodies,
            read: &mut read,
        });
        let caught = std::panic::AssertUnwindSafe(work).catch_unwind().await;
        let result = caught.unwrap_or_else(|_| Err(ApiError::internal("a handler panicked")));
        (result, read)
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
        ..Reply::bytes(JSON, body.into_bytes())
    };
    reply.send(conn)
}

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
        Self::bytes(JSON, body)
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
            headers: Vec::new(),
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
            body: Content::Stream(trillium::Body::new_streaming(reader, None)),
            ..Self::bytes(content_type, Vec::new())
        }
    }

    /// What somebody else's code answers: its status, its headers, no envelope.
    pub fn foreign(status: u16, headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        Self {
            status,
            headers,
            ..Self::bytes("", body)
        }
    }

    /// The bytes of an answer that is no stream.
    pub fn json(&self) -> &[u8] {
        match &self.body {
            Content::Bytes(bytes) => bytes,
            Content::Stream(_) => &[],
        }
    }

    fn send(self, conn: Conn) -> Conn {
        let mut conn = conn.with_status(self.status).with_body(match self.body {
            Content::Bytes(bytes) => bytes.into(),
            Content::Stream(body) => body,
        });
        if !self.content_type.is_empty() {
            conn.insert_response_header(KnownHeaderName::ContentType, self.content_type);
        }
        for (name, value) in self.headers {
            conn.response_headers_mut().append(name, value);
        }
        conn
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
