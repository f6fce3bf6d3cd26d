//! Other code for an installation.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, until};
use crate::worker::{Do, Script, Seen, Worker, flow, install, quiet, status, trigger};

/// The second version has lost a block, and its sync says another signal.
fn schema(is_second: bool) -> Value {
    let block = json!({
        "hasOnSync": true, "autoconfirm": true,
        "config": {"level": {"type": "any"}},
        "inputs": {"default": {"hasOnEvent": true}},
        "outputs": {"default": {"order": 0}},
    });
    let mut blocks = json!({"kept": block});
    if !is_second {
        blocks["lost"] = block;
    }
    json!({"hasOnSync": true, "signals": {"level": {"order": 0}}, "blocks": blocks})
}

fn script(first: Arc<std::sync::OnceLock<String>>) -> Script {
    Arc::new(move |seen: &Seen| {
        let is_second = first.get_or_init(|| seen.bundle.clone()) != &seen.bundle;
        match (seen.kind, seen.block.as_str()) {
            (Kind::Describe, _) => vec![Do::Return(schema(is_second))],
            (Kind::Sync, "") => {
                let level = if is_second { 2 } else { 1 };
                let said = json!({"newStatus": "ready", "signalUpdates": {"level": level}});
                vec![Do::Return(said)]
            }
            (Kind::Sync, _) => vec![Do::Return(json!({"newStatus": "ready"}))],
            (Kind::Event, _) => vec![Do::Call("events.emit", json!([{"second": is_second}]))],
            _ => vec![],
        }
    })
}

async fn upgrade(fixture: &Fixture, installation: &str) {
    let shown = fixture
        .get(&format!("/api/v1/installations/{installation}"))
        .await;
    let version = shown["version"].as_str().expect("an id");
    let version = fixture.get(&format!("/api/v1/versions/{version}")).await;
    let path = format!(
        "/api/v1/apps/{}/versions",
        version["app"].as_str().expect("an id")
    );
    let version = json!({"version": "2.0.0", "code": "// the second"});
    let version = fixture.post(&path, &version).await;
    let path = format!("/api/v1/installations/{installation}/version");
    fixture
        .post(&path, &json!({"version": version["id"]}))
        .await;
}

#[async_std::test]
async fn blocks_go_on_with_the_code_of_the_new_version() {
    let fixture = Fixture::start().await;
    let first = Arc::new(std::sync::OnceLock::new());
    let worker = Worker::start(&fixture, json!({}), script(first.clone())).await;
    let app = install(&fixture, "test", json!({})).await;
    let definition = format!(
        "appInstallations: {{test: {{id: {}}}}}\n\
         blocks:\n\
         - {{name: Kept, type: {{appBlock: {{block: kept, appInstallation: test}}}}, config: {{level: !expr signals.test.level}}}}\n\
         - {{name: Lost, type: {{appBlock: {{block: lost, appInstallation: test}}}}}}\n",
        app.installation
    );
    let flow = flow(&fixture, "f", &definition).await;
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    let kept = blocks.as_array().expect("a list").iter();
    let kept = kept.clone().find(|block| block["name"] == "Kept");
    let kept = kept.expect("it is there")["id"].as_str().expect("an id");
    let kept = format!("/api/v1/blocks/{kept}");
    let ready = status(&fixture, &kept, "ready").await;
    assert_eq!(ready["config"]["level"], 1);
    trigger(&fixture, &flow, "Lost", json!({})).await;
    trigger(&fixture, &flow, "Kept", json!({})).await;
    assert_eq!(quiet(&fixture, &flow).await.len(), 4);

    upgrade(&fixture, &app.installation).await;
    let first = first.get().expect("it was described").clone();
    let syncs = |block: &str| {
        let syncs = worker.of_kind(Kind::Sync).into_iter();
        syncs
            .filter(|seen| seen.block == block && seen.bundle != first)
            .count()
    };
    until("app and block have synced with the new code", async || {
        let shown = fixture.get(&kept).await;
        let settled = shown["status"] == "ready" && shown["config"]["level"] == 2;
        (settled && syncs("") == 1 && syncs("kept") >= 1).then_some(())
    })
    .await;
    trigger(&fixture, &flow, "Kept", json!({})).await;
    let events = quiet(&fixture, &flow).await;
    assert_eq!(
        events.last().expect("its event")["body"],
        json!({"second": true})
    );
    // What the new version has no code for says so, and harms nobody.
    let path = format!("/api/v1/flows/{flow}/blocks/Lost/inputs/default/events");
    let (code, reply) = fixture.call("POST", &path, Some(&json!({}))).await;
    assert_eq!(code, 400, "{reply}");
    let error = reply["error"].as_str().expect("a sentence");
    assert!(error.contains("`Lost`"), "{error}");
    assert_eq!(fixture.stop().await, 0);
}
