//! Secrets at rest: a copy of the database tells nobody what they are.

use std::path::Path;

use serde_json::json;
use sluice_proto::job::Kind;

use crate::fixture::Fixture;

const VALUE: &str = "a-value-that-is-nowhere-else";

/// Files below a directory that hold the value.
fn holders(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(holders(&path));
            continue;
        }
        let bytes = std::fs::read(&path).expect("read");
        if bytes
            .windows(VALUE.len())
            .any(|part| part == VALUE.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[async_std::test]
async fn a_secret_is_sealed_on_the_disk_and_survives_another_key() {
    let fixture = Fixture::start().await;
    let path = format!("/api/v1/projects/{}/secrets/TOKEN", fixture.project);
    let body = json!({"value": VALUE});
    assert_eq!(fixture.call("PUT", &path, Some(&body)).await.0, 200);
    assert_eq!(holders(fixture.path()), Vec::<String>::new());
    let file = fixture.path().join("gateway/secrets.key");
    let old = std::fs::read_to_string(&file).expect("a key");
    // Another key above the old one, then the old one may go.
    std::fs::write(&file, format!("{}\n{old}", "cd".repeat(32))).expect("written");
    let fixture = fixture.restart().await;
    std::fs::write(&file, "cd".repeat(32)).expect("written");
    let fixture = fixture.restart().await;
    assert_eq!(holders(fixture.path()), Vec::<String>::new());
    let flow = json!({"project": fixture.project, "name": "f"});
    let flow = fixture.post("/api/v1/flows", &flow).await["id"].clone();
    let flow = flow.as_str().expect("an id");
    let definition = "blocks:\n  - name: Start\n    type: { coreBlock: manualTrigger }\n  \
        - name: Look\n    type: { coreBlock: condition }\n    inputs:\n      default:\n        \
        links: [{ block: Start, output: default }]\n        \
        config: { condition: !expr \"secrets.TOKEN !== ''\" }\n";
    let body = json!({"definition": definition});
    fixture
        .post(&format!("/api/v1/flows/{flow}/apply"), &body)
        .await;
    // The worker that evaluates is given the value, and nobody else.
    let pools = fixture.get("/api/v1/pools").await;
    let pools = pools.as_array().expect("a list");
    let pool = pools
        .iter()
        .find(|pool| pool["default"] == true)
        .expect("one");
    let pool = pool["id"].as_str().expect("an id");
    let rotated = fixture
        .post(&format!("/api/v1/pools/{pool}/rotate"), &json!({}))
        .await;
    let token = rotated["token"].as_str().expect("a token");
    let bridge = crate::fixture::Bridge::dial_pool(&fixture, pool, token).await;
    let mut bridge = bridge.expect("a session");
    bridge.hello(pool, "a", sluice_proto::PROTOCOL).await;
    bridge.next().await;
    bridge.window(8, None).await;
    let event = format!("/api/v1/flows/{flow}/blocks/Start/inputs/default/events");
    fixture.post(&event, &json!({})).await;
    let job = bridge.job().await;
    assert_eq!(job.kind, Kind::Evaluate);
    let payload: serde_json::Value = serde_json::from_slice(&job.payload).expect("JSON");
    assert_eq!(payload["scope"]["secrets"]["TOKEN"], VALUE, "{payload}");
    assert_eq!(fixture.stop().await, 0);
}
