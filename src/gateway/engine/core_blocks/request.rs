//! The request of an HTTP request block, and what it emits for a response.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use crate::gateway::engine::http_endpoint::{body_value, canonical};
use crate::gateway::engine::types::json_schema::kind;

/// Largest body of a request, in bytes: it travels in the payload of a job.
pub const REQUEST_BODY_BYTES_MAX: usize = 2 << 20;

/// Longest time-out of a request, in seconds.
pub const REQUEST_TIMEOUT_S_MAX: f64 = 300.0;

const TIMEOUT_S: f64 = 30.0;

/// Everything a runtime needs to make the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub url: String,
    /// Upper case.
    pub method: String,
    /// With canonical names.
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub timeout_ms: u64,
}

/// What came back, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    pub status_code: u16,
    pub headers: BTreeMap<String, String>,
    pub raw_body: String,
}

// === impl Request ===

impl Request {
    /// From the evaluated config of the input.
    ///
    /// # Errors
    ///
    /// A sentence that names the field.
    pub fn read(config: &Map<String, Value>) -> Result<Self, String> {
        let method = match config.get("method") {
            None | Some(Value::Null) => "GET".to_owned(),
            Some(Value::String(method)) => method.trim().to_ascii_uppercase(),
            Some(other) => return Err(expected("method", "a string", other)),
        };
        if !matches!(
            method.as_str(),
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS"
        ) {
            return Err(
                "`method`: expected GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS".to_owned(),
            );
        }
        let mut headers = headers(config.get("headers"))?;
        let body = body(config.get("body"), &mut headers)?;
        if body.is_some() && matches!(method.as_str(), "GET" | "HEAD") {
            return Err(format!("`body`: a {method} request has none"));
        }
        Ok(Self {
            url: address(config)?,
            method,
            headers,
            body,
            timeout_ms: timeout_ms(config.get("timeout"))?,
        })
    }
}

// === impl Response ===

impl Response {
    /// The body of the event that the block emits.
    pub fn into_body(self) -> Value {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (canonical(name), value.clone()));
        let headers = headers.collect::<BTreeMap<_, _>>();
        let content_type = headers.get("Content-Type").map_or("", String::as_str);
        let body = body_value(content_type, self.raw_body.as_bytes());
        json!({"statusCode": self.status_code, "headers": headers, "body": body})
    }
}

fn address(config: &Map<String, Value>) -> Result<String, String> {
    let url = match config.get("url") {
        Some(Value::String(url)) => url,
        other => return Err(expected("url", "a string", other.unwrap_or(&Value::Null))),
    };
    let mut url = Url::parse(url.trim()).map_err(|error| format!("`url`: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("`url`: expected http or https".to_owned());
    }
    match config.get("query") {
        None | Some(Value::Null) => {}
        Some(Value::Object(query)) => {
            let mut pairs = url.query_pairs_mut();
            for (key, value) in query {
                match value {
                    Value::Null => continue,
                    Value::String(text) => pairs.append_pair(key, text),
                    Value::Number(_) | Value::Bool(_) => pairs.append_pair(key, &value.to_string()),
                    other => return Err(expected(&format!("query.{key}"), "a string", other)),
                };
            }
        }
        Some(other) => return Err(expected("query", "an object", other)),
    }
    Ok(url.into())
}

fn headers(given: Option<&Value>) -> Result<BTreeMap<String, String>, String> {
    let given = match given {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(expected("headers", "an object", other)),
    };
    let mut headers = BTreeMap::new();
    for (name, value) in given {
        let Value::String(value) = value else {
            return Err(expected(&format!("headers.{name}"), "a string", value));
        };
        let named = !name.is_empty() && name.bytes().all(is_token);
        if !named || value.contains(['\r', '\n', '\0']) {
            return Err(format!("`headers.{name}`: this is no header"));
        }
        headers.insert(canonical(name), value.clone());
    }
    Ok(headers)
}

fn body(
    given: Option<&Value>,
    headers: &mut BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let (text, content_type) = match given {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => (text.clone(), "text/plain; charset=utf-8"),
        Some(other) => (other.to_string(), "application/json"),
    };
    if text.len() > REQUEST_BODY_BYTES_MAX {
        return Err(format!(
            "`body`: it has {} bytes, more than {REQUEST_BODY_BYTES_MAX}",
            text.len()
        ));
    }
    headers
        .entry("Content-Type".to_owned())
        .or_insert_with(|| content_type.to_owned());
    Ok(Some(text))
}

fn timeout_ms(given: Option<&Value>) -> Result<u64, String> {
    let seconds = match given {
        None | Some(Value::Null) => TIMEOUT_S,
        Some(Value::Number(seconds)) => seconds.as_f64().unwrap_or(f64::NAN),
        Some(other) => return Err(expected("timeout", "a number of seconds", other)),
    };
    if seconds > 0.0 && seconds <= REQUEST_TIMEOUT_S_MAX {
        Ok((seconds * 1_000.0).ceil() as u64)
    } else {
        Err(format!(
            "`timeout`: expected more than 0 and at most {REQUEST_TIMEOUT_S_MAX} seconds"
        ))
    }
}

fn expected(field: &str, what: &str, found: &Value) -> String {
    format!("`{field}`: expected {what}, found {}", kind(found))
}

/// A character of a header's name (RFC 9110).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
