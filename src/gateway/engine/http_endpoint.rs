//! HTTP requests to apps and flows: what a handler sees, and what it may answer.
//!
//! Owns the form of a request (`HTTPRequest`): canonical header names, query,
//! parsed body and its exact text, the path below the endpoint; and the meaning
//! of the arguments of `http.respond`. Opens no socket and keeps no request.

mod response;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use response::{RESPONSE_BODY_BYTES_MAX, Response, response};

/// Largest body of a request, in bytes. It travels twice (`body` and `rawBody`)
/// in the payload of a job, which has 4 MiB.
pub const REQUEST_BODY_BYTES_MAX: usize = 1 << 20;

/// Headers of one request, and bytes of all of them: what proxies allow.
pub const HEADERS_MAX: usize = 200;
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// Longest path with its query, in bytes.
pub const TARGET_BYTES_MAX: usize = 16 << 10;

/// Pairs of a query or a form: a form is not a data set.
pub const PAIRS_MAX: usize = 5_000;

/// A request as it came, its body read to the end.
#[derive(Debug, Clone)]
pub struct Incoming<'a> {
    /// Identifies the open request everywhere.
    pub request_id: &'a str,
    pub method: &'a str,
    /// Path and query below the endpoint, as [`below`] gives it.
    pub target: &'a str,
    pub headers: &'a [(&'a str, &'a [u8])],
    pub body: &'a [u8],
}

/// `HTTPRequest` of the SDK.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub request_id: String,
    pub method: String,
    /// Starts with `/`; the root is `/`.
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    /// The exact text, for signatures.
    pub raw_body: String,
    /// The exact bytes in base64 when they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_body_base64: Option<String>,
}

/// Why a request is refused, with the HTTP status that says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the body has more than {REQUEST_BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("the headers are more than {HEADERS_MAX} or have more than {HEADER_BYTES_MAX} bytes")]
    HeadersTooLarge,
    #[error("the address has more than {TARGET_BYTES_MAX} bytes")]
    TargetTooLong,
    #[error("the query has more than {PAIRS_MAX} pairs")]
    TooManyPairs,
}

// === impl Refused ===

impl Refused {
    pub const fn status(&self) -> u16 {
        match self {
            Self::BodyTooLarge => 413,
            Self::HeadersTooLarge => 431,
            Self::TargetTooLong | Self::TooManyPairs => 414,
        }
    }
}

// === impl Request ===

impl Request {
    /// # Errors
    ///
    /// Over a limit.
    pub fn read(incoming: &Incoming<'_>) -> Result<Self, Refused> {
        if incoming.body.len() > REQUEST_BODY_BYTES_MAX {
            return Err(Refused::BodyTooLarge);
        }
        if incoming.target.len() > TARGET_BYTES_MAX {
            return Err(Refused::TargetTooLong);
        }
        let headers = headers(incoming.headers)?;
        let (path, query) = match incoming.target.split_once('?') {
            Some((path, query)) => (path, query),
            None => (incoming.target, ""),
        };
        let content_type = headers.get("Content-Type").map_or("", String::as_str);
        let text = std::str::from_utf8(incoming.body);
        Ok(Self {
            request_id: incoming.request_id.to_owned(),
            method: incoming.method.to_ascii_uppercase(),
            path: rooted(path),
            query: pairs(query.as_bytes())?,
            body: body_value(content_type, incoming.body),
            raw_body: match text {
                Ok(text) => text.to_owned(),
                Err(_) => String::from_utf8_lossy(incoming.body).into_owned(),
            },
            raw_body_base64: text.is_err().then(|| BASE64.encode(incoming.body)),
            headers,
        })
    }
}

// === Rules ===

/// The name as Go writes it: `x-hub-signature-256` is `X-Hub-Signature-256`.
/// A name with a character that no header has stays as it is.
pub fn canonical(name: &str) -> String {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !name.chars().all(is_token) {
        return name.to_owned();
    }
    let mut upper = true;
    name.chars()
        .map(|c| {
            let c = if upper {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            };
            upper = c == '-';
            c
        })
        .collect()
}

/// The part of `target` (path and query) below the endpoint at `base`, starting
/// with `/`; `None` when it lies elsewhere. `base` is `/app/x` or `/`.
pub fn below<'t>(base: &str, target: &'t str) -> Option<std::borrow::Cow<'t, str>> {
    let base = base.trim_end_matches('/');
    let rest = target.strip_prefix(base)?;
    match rest.chars().next() {
        Some('/') => Some(rest.into()),
        None | Some('?') => Some(format!("/{rest}").into()),
        Some(_) => None,
    }
}

/// What a body means by its content type: JSON is a value, a form an object,
/// nothing `null`, other text itself, and bytes `{"$bytes": base64}`. What says
/// it is JSON and is not stays text, so that a handler can answer it.
pub fn body_value(content_type: &str, body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    if (essence == "application/json" || essence.ends_with("+json"))
        && let Ok(value) = serde_json::from_slice(body)
    {
        return value;
    }
    if essence == "application/x-www-form-urlencoded"
        && let Ok(form) = form(body)
    {
        return form;
    }
    match std::str::from_utf8(body) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({"$bytes": BASE64.encode(body)}),
    }
}

/// A field that occurs several times is a list.
fn form(body: &[u8]) -> Result<Value, Refused> {
    let mut form = Map::new();
    for (count, (key, value)) in url::form_urlencoded::parse(body).enumerate() {
        if count >= PAIRS_MAX {
            return Err(Refused::TooManyPairs);
        }
        let value = Value::String(value.into_owned());
        match form.get_mut(&*key) {
            None => {
                form.insert(key.into_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.clone(), value]),
        }
    }
    Ok(Value::Object(form))
}

/// Single values, the first of several, as Go's `Get` reads them.
fn pairs(query: &[u8]) -> Result<BTreeMap<String, String>, Refused> {
    let mut pairs = BTreeMap::new();
    for (count, (key, value)) in url::form_urlencoded::parse(query).enumerate() {
        if count >= PAIRS_MAX {
            return Err(Refused::TooManyPairs);
        }
        pairs
            .entry(key.into_owned())
            .or_insert_with(|| value.into_owned());
    }
    Ok(pairs)
}

fn headers(incoming: &[(&str, &[u8])]) -> Result<BTreeMap<String, String>, Refused> {
    let bytes = incoming
        .iter()
        .map(|(name, value)| name.len() + value.len());
    if incoming.len() > HEADERS_MAX || bytes.sum::<usize>() > HEADER_BYTES_MAX {
        return Err(Refused::HeadersTooLarge);
    }
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in incoming {
        let name = canonical(name);
        let value = String::from_utf8_lossy(value);
        match headers.get_mut(&name) {
            None => {
                headers.insert(name, value.into_owned());
            }
            Some(known) => {
                // Cookies are joined by their own separator, the others as a list.
                known.push_str(if name == "Cookie" { "; " } else { ", " });
                known.push_str(&value);
            }
        }
    }
    Ok(headers)
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

#[cfg(test)]
mod tests;
