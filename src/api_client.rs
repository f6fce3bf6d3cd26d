//! The api client door: this host's HTTP calls to the gateway, and downloads
//! of what a registry offers.
//!
//! ```text
//!  worker ── bundle, call ──┐                       ┌─▶ direct
//!  cli ───── request ───────┴─ try ≤ N times ─ surf ┴─▶ proxy, CONNECT for https
//!                                  ▲   └ time-out, size limit
//!                                  └ transient: back-off
//! ```
//!
//! Owns proxies, trust, time-outs, size limits and the bounded repetition of
//! what failed for a moment. Redirects are followed by downloads alone, which
//! have no token: one goes to the address that was configured, or nowhere. Does not own what is asked, and
//! never puts a token or a proxy's password into an error.

mod call;
mod download;
mod error;
mod transport;

use std::time::Duration;

use futures::AsyncReadExt;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sha2::Digest as _;
use surf::http::Method;
use url::Url;

use sluice_proto::harness::Answer;
use sluice_proto::ids::Digest;

use crate::api_client::transport::Transport;
use crate::backoff::{Backoff, jitter};
use crate::config::EgressConfig;
use crate::limit;

pub use crate::api_client::call::Call;
pub use crate::api_client::download::{Download, Downloaded, download};
pub use crate::api_client::error::Error;

/// The largest bundle, in bytes: it is held in memory while it is verified.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The largest reply to anything but a bundle, in bytes: a result of 4 MiB, written as JSON in JSON.
pub const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much of a reply that is no JSON is shown to a person, in characters.
const EXCERPT_CHARS_MAX: usize = 200;

/// A plain request may wait on the server's side (`?wait=60`), so this is well above it.
const REQUEST_MAX: Duration = Duration::from_secs(100);

/// A bundle of the largest size at 1 MiB/s, which is slow for a private line.
const BUNDLE_MAX: Duration = Duration::from_secs(64);

/// An SDK call is one statement in the gateway's store; more is a gateway in trouble.
const CALL_MAX: Duration = Duration::from_secs(20);

/// Tries of a plain request: a person waits for it.
const REQUEST_TRIES: u32 = 3;

/// Tries of what a job needs: with the back-off below they span the restart of a gateway.
const JOB_TRIES: u32 = 8;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(4));

/// One gateway, asked over shared connections. Cheap to clone.
#[derive(Clone)]
pub struct ApiClient {
    base: Url,
    /// Said after what was attempted, as half of such failures are the proxy's: empty without one.
    via: String,
    surf: surf::Client,
}

/// Whether sending the same request twice is the same as sending it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// A read, or numbered.
    Harmless,
    /// Only what never reached the server may be sent again.
    Harmful,
}

/// One request, ready to be sent any number of times.
struct Attempted<'a> {
    what: String,
    method: Method,
    url: Url,
    token: Option<&'a str>,
    json: Option<Vec<u8>>,
    limit: Duration,
    bytes_max: usize,
    repeat: Repeat,
    tries: u32,
}

struct Reply {
    status: u16,
    body: Vec<u8>,
}

/// `{"data": …}` and nothing else, whatever the data is.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct DataAlone {
    #[serde(rename = "data")]
    _data: IgnoredAny,
}

// === impl ApiClient ===

impl ApiClient {
    /// A client for the gateway at `base`, leaving the host as `egress` says.
    pub fn new(base: &Url, egress: &EgressConfig) -> Result<Self, Error> {
        let setup = |why: String| Error::Setup {
            what: format!("A client for {}", shown(base)),
            why,
        };
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(setup("the address is neither http:// nor https://".into()));
        }
        let transport = Transport::new(base, egress).map_err(setup)?;
        let via = transport::proxy_for(base, egress)
            .map(|proxy| format!(" through the proxy {}", shown(proxy)))
            .unwrap_or_default();
        Ok(Self {
            base: base.clone(),
            via,
            surf: surf::Client::with_http_client(transport),
        })
    }

    /// A client for whoever listens on a unix socket of this host.
    pub fn on_socket(path: &std::path::Path) -> Result<Self, Error> {
        let what = format!("A client for {}", path.display());
        let setup = |why: String| Error::Setup { what, why };
        let transport = Transport::on_socket(path).map_err(setup)?;
        // The host is a name for messages; the socket is where it leads.
        Ok(Self {
            base: Url::parse("http://agent/").expect("an address"),
            via: format!(" on {}", path.display()),
            surf: surf::Client::with_http_client(transport),
        })
    }

    /// Sends one request and hands back the status, whatever it is, and the
    /// JSON that came with it. A body that is no JSON becomes `{"error": …}`.
    ///
    /// A read is tried again after a transient failure, anything else only if
    /// no connection was made.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Error> {
        let what = format!(
            "{method} {}{}{}",
            shown(&self.base),
            without_query(path),
            self.via
        );
        let invalid = |why: &str| Error::Invalid {
            what: what.clone(),
            why: why.to_owned(),
        };
        let parsed: Method = method
            .parse()
            .map_err(|_| invalid("there is no such method"))?;
        let repeat = match parsed {
            Method::Get | Method::Head => Repeat::Harmless,
            _ => Repeat::Harmful,
        };
        let attempted = Attempted {
            url: self
                .url(path)
                .ok_or_else(|| invalid("the path is no path"))?,
            what: what.clone(),
            method: parsed,
            token,
            json: body
                .filter(|body| !body.is_null())
                .map(|body| body.to_string().into_bytes()),
            limit: REQUEST_MAX,
            bytes_max: REPLY_BYTES_MAX,
            repeat,
            tries: REQUEST_TRIES,
        };
        let reply = self.send(&attempted).await?;
        let value = match serde_json::from_slice(&reply.body) {
            Ok(value) => value,
            Err(_) if reply.body.is_empty() => Value::Null,
            Err(_) => json!({"error": excerpt(&reply.body)}),
        };
        Ok((reply.status, value))
    }

    /// Fetches the bundle with this digest, with the token of a job that may
    /// have it. What comes back has that digest and at most [`BUNDLE_BYTES_MAX`].
    pub async fn bundle(&self, digest: &Digest, job_token: &str) -> Result<Vec<u8>, Error> {
        let what = format!("Fetching bundle {digest}{}", self.via);
        // It becomes part of a path, and a job is only as good as its writer.
        if digest.as_str().len() != 64 || !digest.as_str().bytes().all(|b| b.is_ascii_hexdigit()) {
            let why = "a digest is 64 hex digits".to_owned();
            return Err(Error::Invalid { what, why });
        }
        let attempted = Attempted {
            what: what.clone(),
            method: Method::Get,
            url: self
                .url(&format!("/agent/v1/bundles/{digest}"))
                .ok_or_else(|| Error::Invalid {
                    what: what.clone(),
                    why: "the gateway's address takes no path".into(),
                })?,
            token: Some(job_token),
            json: None,
            limit: BUNDLE_MAX,
            bytes_max: BUNDLE_BYTES_MAX,
            repeat: Repeat::Harmless,
            tries: JOB_TRIES,
        };
        let reply = self.send(&attempted).await?;
        if reply.status != 200 {
            return Err(reply.unexpected(what));
        }
        let found: String = sha2::Sha256::digest(&reply.body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if found != digest.as_str() {
            return Err(Error::DigestMismatch { what, found });
        }
        Ok(reply.body)
    }

    /// Makes one SDK call with the job's own token. A refusal of the gateway
    /// (4xx) is an answer, for the user's code to see; it is never tried again.
    /// 410 is none: this attempt is over, and the code need not know.
    pub async fn call(&self, job_token: &str, call: &Call<'_>) -> Result<Answer, Error> {
        let what = format!("SDK call {}{}", call.method, self.via);
        let invalid = |why: &str| Error::Invalid {
            what: what.clone(),
            why: why.to_owned(),
        };
        let attempted = Attempted {
            what: what.clone(),
            method: Method::Post,
            url: self
                .url("/agent/v1/calls")
                .ok_or_else(|| invalid("the gateway's address takes no path"))?,
            token: Some(job_token),
            json: Some(
                call.to_json()
                    .ok_or_else(|| invalid("its arguments are no JSON array"))?,
            ),
            limit: CALL_MAX,
            bytes_max: REPLY_BYTES_MAX,
            repeat: Repeat::Harmless,
            tries: JOB_TRIES,
        };
        let reply = self.send(&attempted).await?;
        match reply.status {
            200..=299 => match reply.data() {
                Some(json) => Ok(Answer::Value { json }),
                None => Err(Error::Malformed {
                    what,
                    why: "it is not {\"data\": …}".into(),
                }),
            },
            410 => Err(Error::Over {
                what,
                why: reply.sentence(),
            }),
            400..=499 => Ok(Answer::Error {
                message: reply.sentence(),
            }),
            _ => Err(reply.unexpected(what)),
        }
    }

    /// The address of `path`, below whatever path the endpoint itself has.
    fn url(&self, path: &str) -> Option<Url> {
        let base = self.base.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}/{}", path.trim_start_matches('/'))).ok()?;
        // The path must not have talked its way to another host.
        (url.origin() == self.base.origin()).then_some(url)
    }

    async fn send(&self, attempted: &Attempted<'_>) -> Result<Reply, Error> {
        let mut tried = 0;
        loop {
            let outcome = limit::timeout(attempted.limit, self.send_once(attempted))
                .await
                .unwrap_or_else(|_| {
                    Err(Error::TimedOut {
                        what: attempted.what.clone(),
                        limit_s: attempted.limit.as_secs(),
                    })
                });
            tried += 1;
            if tried >= attempted.tries || !may_repeat(&outcome, attempted.repeat) {
                return outcome;
            }
            async_std::task::sleep(BACKOFF.delay(tried - 1, jitter())).await;
        }
    }

    async fn send_once(&self, attempted: &Attempted<'_>) -> Result<Reply, Error> {
        let mut request = surf::Request::new(attempted.method, attempted.url.clone());
        if let Some(token) = attempted.token {
            request.insert_header("authorization", format!("Bearer {token}"));
        }
        request.insert_header("accept", "application/json, */*");
        if let Some(json) = &attempted.json {
            request.body_bytes(json);
            request.insert_header("content-type", "application/json");
        }
        let mut response = self
            .surf
            .send(request)
            .await
            .map_err(|error| transport::explain(&attempted.what, attempted.limit, &error))?;
        let too_large = || Error::TooLarge {
            what: attempted.what.clone(),
            bytes_max: attempted.bytes_max,
        };
        let announced = response.len().unwrap_or(0);
        if announced > attempted.bytes_max {
            return Err(too_large());
        }
        // One byte over the limit tells that there is more, whatever was announced.
        let one_over = u64::try_from(attempted.bytes_max)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let mut body = Vec::with_capacity(announced);
        response
            .take_body()
            .take(one_over)
            .read_to_end(&mut body)
            .await
            .map_err(|error| transport::explain_io(&attempted.what, attempted.limit, &error))?;
        if body.len() > attempted.bytes_max {
            return Err(too_large());
        }
        Ok(Reply {
            status: u16::from(response.status()),
            body,
        })
    }
}

// === impl Reply ===

impl Reply {
    /// What stands behind `data`, byte for byte: numbers and the order of keys
    /// are the gateway's, and parsing them here would change both.
    fn data(&self) -> Option<Vec<u8>> {
        serde_json::from_slice::<DataAlone>(&self.body).ok()?;
        let inner = self.body.trim_ascii().strip_prefix(b"{")?.trim_ascii();
        let inner = inner.strip_prefix(b"\"data\"")?.trim_ascii();
        let inner = inner.strip_prefix(b":")?.strip_suffix(b"}")?;
        Some(inner.trim_ascii().to_vec())
    }

    /// What the gateway says went wrong.
    fn sentence(&self) -> String {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|value| Some(value.get("error")?.as_str()?.to_owned()))
            .unwrap_or_else(|| excerpt(&self.body))
    }

    fn unexpected(&self, what: String) -> Error {
        Error::Status {
            what,
            status: self.status,
            why: self.sentence(),
        }
    }
}

/// Whether this end of a try leaves anything to hope for from another one.
fn may_repeat(outcome: &Result<Reply, Error>, repeat: Repeat) -> bool {
    match (outcome, repeat) {
        (Err(Error::Unreachable { .. }), _) => true,
        (Err(error), Repeat::Harmless) => error.is_transient(),
        (Ok(reply), Repeat::Harmless) => busy(reply.status),
        (_, Repeat::Harmful) => false,
    }
}

/// What a proxy says while the gateway behind it restarts.
fn busy(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// An address as it may be shown: without user, password and query.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let path = url.path().trim_end_matches('/');
    format!("{}://{host}{port}{path}", url.scheme())
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() {
        return "no explanation came with it".into();
    }
    text.chars().take(EXCERPT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
