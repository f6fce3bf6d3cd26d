//! What `http.respond` means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::{HEADER_BYTES_MAX, HEADERS_MAX, canonical};
use crate::gateway::engine::types::json_schema::kind;

/// Largest body of a response, in bytes: it comes in one SDK call.
pub const RESPONSE_BODY_BYTES_MAX: usize = 4 << 20;

/// What goes to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// In canonical form, in the order of their names; several values of one name follow each other.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Reads the second argument of `http.respond(requestId, …)`.
///
/// # Errors
///
/// A sentence for the app: the call is rejected with it and the request stays open.
pub fn response(args: &Value) -> Result<Response, String> {
    let empty = Map::new();
    let args = match args {
        Value::Null => &empty,
        Value::Object(args) => args,
        other => return Err(format!("the response is an object, not {}", kind(other))),
    };
    let status = status(args.get("statusCode"))?;
    let mut headers = headers(args.get("headers"))?;
    let (body, content_type) = body(args.get("body"))?;
    if body.len() > RESPONSE_BODY_BYTES_MAX {
        return Err(format!(
            "the body has {} bytes, more than {RESPONSE_BODY_BYTES_MAX}",
            body.len()
        ));
    }
    let typed = headers.iter().any(|(name, _)| name == "Content-Type");
    if let Some(content_type) = content_type.filter(|_| !typed) {
        headers.push(("Content-Type".to_owned(), content_type.to_owned()));
    }
    headers.sort();
    let bodiless = matches!(status, 204 | 304);
    Ok(Response {
        status,
        headers,
        body: if bodiless { Vec::new() } else { body },
    })
}

fn status(given: Option<&Value>) -> Result<u16, String> {
    let status = match given {
        None | Some(Value::Null) => return Ok(200),
        Some(Value::Number(status)) => status.as_f64().unwrap_or_default(),
        Some(other) => {
            return Err(format!(
                "`statusCode`: expected a number, found {}",
                kind(other)
            ));
        }
    };
    // 1xx is not an answer, and 101 would hand the connection to the app.
    if status.fract() == 0.0 && (200.0..600.0).contains(&status) {
        Ok(status as u16)
    } else {
        Err("`statusCode`: expected a status from 200 to 599".to_owned())
    }
}

fn headers(given: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let given = match given {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(given)) => given,
        Some(other) => {
            return Err(format!(
                "`headers`: expected an object, found {}",
                kind(other)
            ));
        }
    };
    let mut headers = Vec::new();
    for (name, value) in given {
        let values = match value {
            Value::Null => continue,
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        let name = canonical(name);
        // These belong to the connection, which is not the app's.
        let is_ours = matches!(
            name.as_str(),
            "Connection"
                | "Content-Length"
                | "Transfer-Encoding"
                | "Upgrade"
                | "Keep-Alive"
                | "Trailer"
        );
        if is_ours {
            continue;
        }
        for value in values {
            let value = match value {
                Value::String(value) => value.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                other => {
                    return Err(format!(
                        "`headers.{name}`: expected a string, found {}",
                        kind(other)
                    ));
                }
            };
            let named = !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if !named || value.contains(|c: char| c.is_control() && c != '\t') {
                return Err(format!("`headers.{name}`: this is no header"));
            }
            headers.push((name.clone(), value));
        }
    }
    let bytes = headers.iter().map(|(name, value)| name.len() + value.len());
    if headers.len() > HEADERS_MAX || bytes.sum::<usize>() > HEADER_BYTES_MAX {
        return Err(format!(
            "the headers are more than {HEADERS_MAX} or have more than {HEADER_BYTES_MAX} bytes"
        ));
    }
    Ok(headers)
}

/// The bytes, and the content type when the app names none.
fn body(given: Option<&Value>) -> Result<(Vec<u8>, Option<&'static str>), String> {
    match given {
        None | Some(Value::Null) => Ok((Vec::new(), None)),
        Some(Value::String(text)) => {
            Ok((text.clone().into_bytes(), Some("text/plain; charset=utf-8")))
        }
        Some(Value::Object(object)) if object.len() == 1 && object.contains_key("$bytes") => {
            let bytes = object
                .get("$bytes")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let bytes = BASE64
                .decode(bytes)
                .map_err(|_| "`body`: the bytes are no base64".to_owned())?;
            Ok((bytes, Some("application/octet-stream")))
        }
        Some(value) => Ok((value.to_string().into_bytes(), Some("application/json"))),
    }
}
