//! What published clients send, replayed in their own shapes against a gateway,
//! with a worker that answers jobs by a script on its other side.

mod cli;
mod data;
#[path = "../gateway/fixture.rs"]
#[allow(
    dead_code,
    reason = "the gateway's own tests use what these leave alone"
)]
mod fixture;
mod login;
#[path = "../engine/people.rs"]
#[allow(
    dead_code,
    reason = "the engine's own tests use what these leave alone"
)]
mod people;
mod provider;
mod scopes;
#[path = "../engine/worker.rs"]
#[allow(
    dead_code,
    reason = "the engine's own tests use what these leave alone"
)]
mod worker;

use serde_json::{Value, json};

use crate::fixture::Fixture;

/// What a client gets that insists on 200 and reads `data`.
async fn ask(fixture: &Fixture, path: &str, body: Value) -> Value {
    let (status, mut reply) = fixture.call("POST", path, Some(&body)).await;
    assert_eq!(status, 200, "{path} {body}: {reply}");
    reply["data"].take()
}

/// The error of a request that is refused.
async fn refused(fixture: &Fixture, path: &str, body: Value) -> String {
    let (status, reply) = fixture.call("POST", path, Some(&body)).await;
    assert!(status >= 400, "{path} {body}: {reply}");
    reply["error"].as_str().expect("a sentence").to_owned()
}

/// A key that is good for these projects alone.
async fn key_for(fixture: &Fixture, projects: &[&str]) -> String {
    let body = json!({"name": "limited", "projects": projects});
    let key = fixture.post("/api/v1/keys", &body).await;
    key["key"].as_str().expect("a key").to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
