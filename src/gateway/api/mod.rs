//! The API of people and programs: `/api/v1/…`, a file per noun.

pub(in crate::gateway) mod apps;
pub(in crate::gateway) mod blocks;
mod events;
pub(in crate::gateway) mod flows;
mod follow;
pub(in crate::gateway) mod installations;
pub(in crate::gateway) mod jobs;
mod keys;
mod openapi;
mod pools;
mod projects;
mod registries;
pub(in crate::gateway) mod request;
mod schedules;
mod secrets;
mod suggestions;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::body::Body;
use crate::gateway::http::{Head, Reply, no_route};
use crate::telemetry::now_ms;

/// Whether the gateway is there; the one answer that needs no credentials.
pub fn health() -> Value {
    json!({"ok": true, "now_ms": now_ms(), "version": env!("CARGO_PKG_VERSION")})
}

/// Finds the handler. Every one of them takes the caller, so none can be reached without.
pub async fn handle(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    path: &[&str],
    body: Body,
) -> Result<Reply, ApiError> {
    match (head.method.as_str(), path) {
        ("GET", ["openapi.json"]) => Ok(openapi::get()),
        ("GET", ["projects"]) => Ok(projects::list(gateway, caller)),
        ("POST", ["projects"]) => projects::create(gateway, caller, &body).await,
        ("GET", ["pools"]) => Ok(pools::list(gateway, caller)),
        ("POST", ["pools"]) => pools::create(gateway, caller, &body).await,
        ("GET", ["pools", id]) => pools::get(gateway, caller, id),
        ("PUT", ["pools", id, "projects", project]) => {
            pools::expose(gateway, caller, id, project, true).await
        }
        ("DELETE", ["pools", id, "projects", project]) => {
            pools::expose(gateway, caller, id, project, false).await
        }
        ("POST", ["pools", id, "rotate"]) => pools::rotate(gateway, caller, id, &body).await,
        ("POST", ["pools", id, "revoke"]) => pools::revoke(gateway, caller, id).await,
        ("GET", ["keys"]) => keys::list(gateway, caller),
        ("POST", ["keys"]) => keys::create(gateway, caller, &body).await,
        ("DELETE", ["keys", id]) => keys::delete(gateway, caller, id).await,
        ("GET", ["apps"]) => apps::list(gateway, caller).await,
        ("POST", ["apps"]) => apps::create(gateway, caller, &body).await,
        ("GET", ["apps", id, "versions"]) => apps::versions(gateway, caller, id).await,
        ("POST", ["apps", id, "versions"]) => apps::publish(gateway, caller, head, id, body).await,
        ("GET", ["versions", id]) => apps::version(gateway, caller, id).await,
        ("GET", ["jobs"]) => jobs::list(gateway, caller, head).await,
        ("POST", ["jobs"]) => jobs::create(gateway, caller, head, body).await,
        ("GET", ["jobs", id]) => jobs::get(gateway, caller, head, id).await,
        ("GET", ["jobs", id, "trace"]) => jobs::trace(gateway, caller, id).await,
        ("GET", ["jobs", id, "calls"]) => jobs::calls(gateway, caller, id).await,
        ("GET", ["jobs", id, "log"]) => jobs::log(gateway, caller, head, id).await,
        ("POST", ["jobs", id, "cancel"]) => jobs::cancel(gateway, caller, id, &body).await,
        (_, ["registries", ..]) => registry_routes(gateway, caller, head, path, &body).await,
        _ => flow_routes(gateway, caller, head, path, &body).await,
    }
}

/// What belongs to registries.
async fn registry_routes(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    path: &[&str],
    body: &[u8],
) -> Result<Reply, ApiError> {
    match (head.method.as_str(), path) {
        ("GET", ["registries"]) => registries::list(gateway).await,
        ("POST", ["registries"]) => registries::create(gateway, caller, body).await,
        ("GET", ["registries", id]) => registries::get(gateway, id).await,
        ("DELETE", ["registries", id]) => registries::delete(gateway, caller, id).await,
        ("POST", ["registries", id, "refresh"]) => registries::refresh(gateway, caller, id).await,
        ("GET", ["registries", id, "apps"]) => registries::apps(gateway, id).await,
        ("GET", ["registries", id, "apps", key, "versions"]) => {
            registries::versions(gateway, id, key).await
        }
        ("POST", ["registries", id, "install"]) => registries::install(gateway, id, body).await,
        (method, _) => Err(no_route(method, &head.path)),
    }
}

/// What belongs to flows and the apps installed for them.
async fn flow_routes(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    path: &[&str],
    body: &[u8],
) -> Result<Reply, ApiError> {
    match (head.method.as_str(), path) {
        ("GET", ["installations"]) => installations::list(gateway, caller, head).await,
        ("POST", ["installations"]) => installations::create(gateway, caller, body).await,
        ("GET", ["installations", id]) => installations::get(gateway, caller, id).await,
        ("DELETE", ["installations", id]) => installations::delete(gateway, caller, id).await,
        ("PATCH", ["installations", id, "config"]) => {
            installations::configure(gateway, caller, id, body).await
        }
        ("POST", ["installations", id, "confirm"]) => {
            installations::confirm(gateway, caller, id).await
        }
        ("POST", ["installations", id, "sync"]) => installations::sync(gateway, caller, id).await,
        ("POST", ["installations", id, "version"]) => {
            installations::upgrade(gateway, caller, id, body).await
        }
        ("GET", ["installations", id, "kv"]) => installations::kv(gateway, caller, head, id).await,
        ("GET", ["flows"]) => flows::list(gateway, caller, head).await,
        ("POST", ["flows"]) => flows::create(gateway, caller, body).await,
        ("GET", ["flows", id]) => flows::get(gateway, caller, id).await,
        ("PATCH", ["flows", id]) => flows::rename(gateway, caller, id, body).await,
        ("DELETE", ["flows", id]) => flows::delete(gateway, caller, id).await,
        ("POST", ["flows", id, "apply"]) => flows::apply(gateway, caller, id, body).await,
        ("POST", ["flows", id, "plan"]) => flows::plan(gateway, caller, id, body).await,
        ("GET", ["flows", id, "blocks"]) => blocks::list(gateway, caller, id).await,
        ("POST", ["flows", id, "blocks", block, "inputs", input, "events"]) => {
            blocks::trigger(gateway, caller, id, block, input, body).await
        }
        ("GET", ["flows", id, "events"]) => events::list(gateway, caller, head, id).await,
        ("GET", ["flows", id, "pending"]) => events::pending(gateway, caller, id).await,
        ("GET", ["blocks", id]) => blocks::get(gateway, caller, id).await,
        ("POST", ["blocks", id, "confirm"]) => blocks::confirm(gateway, caller, id).await,
        ("POST", ["blocks", id, "sync"]) => blocks::sync(gateway, caller, id).await,
        ("GET", ["blocks", id, "kv"]) => blocks::kv(gateway, caller, head, id).await,
        ("GET", ["installations", id, "log"]) => installations::log(gateway, caller, id).await,
        ("GET", ["blocks", id, "log"]) => blocks::log(gateway, caller, id).await,
        ("GET", ["events", id, "log"]) => events::log(gateway, caller, id).await,
        ("GET", ["events", id]) => events::get(gateway, caller, id).await,
        ("POST", ["deliveries", id, "replay"]) => events::replay(gateway, caller, id).await,
        ("GET", ["projects", id, "secrets"]) => secrets::list(gateway, caller, id).await,
        ("PUT", ["projects", id, "secrets", key]) => {
            secrets::put(gateway, caller, id, key, body).await
        }
        ("DELETE", ["projects", id, "secrets", key]) => {
            secrets::delete(gateway, caller, id, key).await
        }
        _ => schedule_routes(gateway, caller, head, path, body).await,
    }
}

/// When apps and blocks are called by the clock, and what they suggest.
async fn schedule_routes(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    head: &Head,
    path: &[&str],
    body: &[u8],
) -> Result<Reply, ApiError> {
    let (app, block) = (schedules::Of::Installation, schedules::Of::Block);
    match (head.method.as_str(), path) {
        ("GET", ["installations", id, "schedules"]) => {
            schedules::list(gateway, caller, app, id).await
        }
        ("PUT", ["installations", id, "schedules", key]) => {
            schedules::customize(gateway, caller, (app, id, key), body).await
        }
        ("DELETE", ["installations", id, "schedules", key]) => {
            schedules::reset(gateway, caller, (app, id, key)).await
        }
        ("POST", ["installations", id, "suggestions"]) => {
            suggestions::ask(gateway, caller, (app, id), body).await
        }
        ("POST", ["blocks", id, "suggestions"]) => {
            suggestions::ask(gateway, caller, (block, id), body).await
        }
        ("GET", ["blocks", id, "schedules"]) => schedules::list(gateway, caller, block, id).await,
        ("PUT", ["blocks", id, "schedules", key]) => {
            schedules::customize(gateway, caller, (block, id, key), body).await
        }
        ("DELETE", ["blocks", id, "schedules", key]) => {
            schedules::reset(gateway, caller, (block, id, key)).await
        }
        (method, _) => Err(no_route(method, &head.path)),
    }
}
