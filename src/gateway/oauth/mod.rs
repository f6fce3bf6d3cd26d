//! Interactive login: how a program on a person's machine gets a token without
//! ever seeing their API key.
//!
//! ```text
//!  client ── register ──▶ a sealed id          (nothing is stored)
//!  browser ── authorize ─▶ page: who asks, for what ── API key ──▶ code (a minute, once)
//!  client ── token ── code and verifier ──▶ access (an hour), refresh (30 days, once)
//!         ── token ── refresh ──▶ a new pair; an old one again ends the login
//! ```
//!
//! OAuth 2.1 as published clients speak it: RFC 8414, 9728, 7591, 7636 (S256
//! alone), 8252, 7009 and 9207. A login stands on the API key the person showed:
//! it sees that key's projects, is over when the key is, and what it may do of
//! it is limited by scopes. Owns the protocol; whose a request is, is `auth`'s.

mod ask;
mod clients;
mod codes;
mod page;
mod redirect;
mod tokens;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::gateway::http::{Reply, no_route};
use crate::http::Request;

pub use crate::gateway::oauth::codes::Codes;

/// The largest body, in bytes: a form with a sealed request, or a registration.
const BODY_BYTES_MAX: u64 = 16 * 1024;

/// A refusal in the words of the protocol.
#[derive(Debug)]
pub struct Refusal {
    status: u16,
    /// One of the protocol's own words.
    error: &'static str,
    description: String,
}

/// A form, or a query: each name once.
pub struct Form(Vec<(String, String)>);

/// Below `/oauth` and `/.well-known` is nothing else. Anybody may ask.
pub async fn serve(
    gateway: &Arc<Gateway>,
    mut request: Request<'_>,
    path: &[&str],
) -> Result<Reply, ApiError> {
    let head = request.head;
    let body = request.body(BODY_BYTES_MAX).await?;
    let reply = match (head.method.as_str(), path) {
        ("GET", [".well-known", "oauth-protected-resource"]) => Ok(clients::resource(gateway)),
        ("GET", [".well-known", "oauth-authorization-server"]) => Ok(clients::server(gateway)),
        ("POST", ["oauth", "register"]) => clients::register(gateway, &body),
        ("GET", ["oauth", "authorize"]) => ask::show(gateway, &head.query),
        ("POST", ["oauth", "authorize"]) => {
            ask::answer(gateway, &body, cookie(&request).as_deref())
        }
        ("POST", ["oauth", "token"]) => tokens::issue(gateway, &body).await,
        ("POST", ["oauth", "revoke"]) => tokens::revoke(gateway, &body).await,
        (method, _) => return Err(no_route(method, &head.path)),
    };
    Ok(reply.unwrap_or_else(Refusal::reply))
}

/// The value of the page's cookie.
fn cookie(request: &Request<'_>) -> Option<String> {
    let headers = request.headers();
    let cookies = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
        .filter_map(|(_, value)| std::str::from_utf8(value).ok());
    let mut pairs = cookies.flat_map(|line| line.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == page::COOKIE).then(|| value.to_owned())
    })
}

/// JSON without the API's envelope, which nobody may keep.
fn json_reply(status: u16, value: &Value) -> Reply {
    Reply {
        status,
        headers: vec![("cache-control".to_owned(), "no-store".to_owned())],
        ..Reply::bytes("application/json", value.to_string().into_bytes())
    }
}

// === impl Refusal ===

impl Refusal {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: 400,
            error,
            description: description.into(),
        }
    }

    fn reply(self) -> Reply {
        let body = json!({"error": self.error, "error_description": self.description});
        json_reply(self.status, &body)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        if let Some(cause) = &error.cause {
            tracing::error!(error = cause, "A login could not be carried on");
        }
        Self {
            status: error.status,
            error: match error.status {
                503 => "temporarily_unavailable",
                _ => "server_error",
            },
            description: error.message,
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        ApiError::from(error).into()
    }
}

impl From<crate::store::Error> for Refusal {
    fn from(error: crate::store::Error) -> Self {
        ApiError::from(error).into()
    }
}

// === impl Form ===

impl Form {
    /// # Errors
    ///
    /// The name that is there twice, which the protocol forbids.
    fn new(fields: Vec<(String, String)>) -> Result<Self, Refusal> {
        for (index, (name, _)) in fields.iter().enumerate() {
            if fields[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refusal::new(
                    "invalid_request",
                    format!("`{name}` is there twice"),
                ));
            }
        }
        Ok(Self(fields))
    }

    fn read(body: &[u8]) -> Result<Self, Refusal> {
        Self::new(url::form_urlencoded::parse(body).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name)
            .ok_or_else(|| Refusal::new("invalid_request", format!("`{name}` is missing")))
    }
}
