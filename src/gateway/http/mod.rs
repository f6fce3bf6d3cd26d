//! What the gateway serves over HTTP: credentials first, then the body, then the handler.
//!
//! Owns which path needs whose credentials and how large its body may be. The
//! listener, the limits and the envelope are the HTTP door's.

mod endpoints;

use std::borrow::Cow;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::gateway::auth::{Caller, JobCaller};
use crate::gateway::bundles::archive::ARCHIVE_BYTES_MAX;
use crate::gateway::engine::definition::DEFINITION_BYTES_MAX;
use crate::gateway::engine::run::SECRET_BYTES_MAX;
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, agent_api, api, clients, oauth, pool_api};
use crate::http::{Listener, Request, Routes};

// The door's values keep the names the gateway's handlers know.
pub use crate::http::{Head, Reply, Server, body, no_route};

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
/// The largest body with a secret, in bytes: its value as a JSON string.
const SECRET_BODY_BYTES_MAX: u64 = 2 * SECRET_BYTES_MAX as u64 + 64 * 1024;

struct Served(Arc<Gateway>);

/// Serves requests on a bound listener.
pub fn serve(gateway: Arc<Gateway>, listener: std::net::TcpListener) -> Server {
    crate::http::serve(Served(gateway), Listener::Tcp(listener))
}

// === impl Served ===

impl Routes for Served {
    const BODY_BYTES_MAX: u64 = VERSION_BODY_BYTES_MAX;

    fn route<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<Reply, ApiError>> {
        route(&self.0, request).boxed()
    }
}

async fn route(gateway: &Arc<Gateway>, mut request: Request<'_>) -> Result<Reply, ApiError> {
    let addresses = &gateway.addresses;
    if let Some(whose) = request.host().and_then(|host| addresses.endpoint_at(host)) {
        return endpoints::serve_at(gateway, request, &whose, "").await;
    }
    let head = request.head;
    let path: Vec<&str> = head
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let credential = head.bearer.as_deref();
    match (head.method.as_str(), path.as_slice()) {
        ("GET", ["health"]) => {
            request.without_body();
            Ok(Reply::data(&api::health()))
        }
        (_, ["api", "v1", rest @ ..]) => {
            let caller = Caller::of(gateway, credential, &head.method, &path).await?;
            let parts: Vec<_> = rest.iter().map(|part| decoded(part)).collect();
            let parts: Vec<&str> = parts.iter().map(|part| part.as_ref()).collect();
            let body = request.body(body_max(&parts)).await?;
            api::handle(gateway, &caller, head, &parts, body).await
        }
        ("GET", ["agent", "v1", "bundles", digest]) => {
            let caller = JobCaller::check(gateway, credential)?;
            request.without_body();
            agent_api::bundle(gateway, &caller, digest).await
        }
        ("POST", ["agent", "v1", "calls"]) => {
            let caller = JobCaller::check(gateway, credential)?;
            let body = request.body(agent_api::CALL_BYTES_MAX).await?;
            agent_api::call(gateway, &caller, &body).await
        }
        (_, ["agent", "v1", "pool", pool, rest @ ..]) => {
            let caller = Caller::of_pool(gateway, pool, credential, &head.method, &path)?;
            let body = request.body(BODY_BYTES_MAX).await?;
            pool_api::handle(gateway, &caller, head, pool, rest, &body).await
        }
        (method, ["cli" | "provider", ..]) => {
            let caller = Caller::of(gateway, credential, method, &path).await?;
            let body = request.body(client_body_max(&path)).await?;
            clients::handle(gateway, &caller, method, &path, &body).await
        }
        (_, ["oauth" | ".well-known", ..]) => oauth::serve(gateway, request, &path).await,
        (_, ["endpoints", whose, ..]) => endpoints::serve(gateway, request, whose).await,
        (method, _) => Err(no_route(method, &head.path)),
    }
}

/// A part of a path as it was meant: names of blocks have spaces.
fn decoded(part: &str) -> Cow<'_, str> {
    if !part.contains('%') {
        return Cow::Borrowed(part);
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let pair = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn body_max(path: &[&str]) -> u64 {
    match path {
        ["jobs"] => JOB_BODY_BYTES_MAX,
        ["apps", _, "versions"] => VERSION_BODY_BYTES_MAX,
        ["flows", _, "apply" | "plan"] => FLOW_BODY_BYTES_MAX,
        ["flows", _, "blocks", _, "inputs", _, "events"] => EVENT_BODY_BYTES_MAX,
        ["installations", ..] | ["blocks", _, "suggestions"] => CONFIG_BODY_BYTES_MAX,
        ["projects", _, "secrets", _] => SECRET_BODY_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    }
}

fn client_body_max(path: &[&str]) -> u64 {
    match path {
        ["cli", "apps", "create_version" | "update_version"] => VERSION_BODY_BYTES_MAX,
        ["provider", "flows", "apply_config" | "plan_changes"] => FLOW_BODY_BYTES_MAX,
        ["provider", "apps", _] => CONFIG_BODY_BYTES_MAX,
        ["provider", "organization", _] => SECRET_BODY_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn a_part_of_a_path_is_decoded_once() {
        for (part, meant) in [
            ("Step%201", "Step 1"),
            ("a+b", "a+b"),
            ("100%", "100%"),
            ("%zz%c3%bc%2", "%zzü%2"),
            ("%2541", "%41"),
            ("%2F", "/"),
        ] {
            assert_eq!(decoded(part), meant);
        }
    }
}
