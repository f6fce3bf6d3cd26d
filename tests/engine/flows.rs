//! Events through flows: links, inputs, outputs, failures, restarts.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::Fixture;
use crate::worker::{Do, Script, Seen, Worker, apply, flow, install, quiet, trigger};

/// An app whose `pass` emits what its input says and whose `fail` throws.
pub fn schema() -> Value {
    let input = |field: Value| json!({"default": {"hasOnEvent": true, "config": field}});
    let out = json!({"default": {"order": 0, "possiblePrimaryParents": ["default"]}});
    json!({
        "config": {"url": {"type": "string", "required": false}},
        "hasOnSync": true,
        "blocks": {
            "pass": {"inputs": input(json!({"what": {"type": "any"}})), "outputs": out},
            "strict": {"inputs": input(json!({"count": {"type": "number", "required": true}})), "outputs": out},
        },
    })
}

pub fn script() -> Script {
    Arc::new(|seen: &Seen| match (seen.kind, seen.block.as_str()) {
        (Kind::Sync, _) => vec![Do::Return(json!({"newStatus": "ready"}))],
        (Kind::Event, "pass") => {
            let what = &seen.given["event"]["inputConfig"]["what"];
            if what == "throw" {
                return vec![Do::Throw("it was told to")];
            }
            vec![Do::Call("events.emit", json!([{"got": what}]))]
        }
        _ => vec![],
    })
}

fn chain(installation: &str) -> String {
    format!(
        "appInstallations: {{test: {{id: {installation}}}}}\n\
         blocks:\n\
         - name: First\n\
         \x20 type: {{appBlock: {{block: pass, appInstallation: test}}}}\n\
         \x20 inputs: {{default: {{config: {{what: start}}}}}}\n\
         - name: Second Step\n\
         \x20 type: {{appBlock: {{block: pass, appInstallation: test}}}}\n\
         \x20 inputs: {{default: {{links: [{{block: First, output: default}}], config: {{what: !expr outputs.first.got}}}}}}\n"
    )
}

#[async_std::test]
async fn an_event_goes_through_two_linked_blocks() {
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({"url": "\"u\""})).await;
    let flow = flow(&fixture, "f", &chain(&app.installation)).await;
    let id = trigger(&fixture, &flow, "First", json!({"by": "hand"})).await;
    let events = quiet(&fixture, &flow).await;
    assert_eq!(events.len(), 3, "{events:#?}");
    assert_eq!(events[0]["id"], id.as_str());
    assert_eq!(events[0]["body"], json!({"by": "hand"}));
    assert_eq!(events[1]["body"], json!({"got": "start"}));
    assert_eq!(events[1]["parent"], id.as_str());
    assert_eq!(events[2]["body"], json!({"got": "start"}));
    assert_eq!(events[2]["parent"], events[1]["id"]);
    for event in &events[..2] {
        assert_eq!(event["deliveries"][0]["state"], "done", "{event}");
        assert!(event["deliveries"][0]["job"].is_string(), "{event}");
    }
    // Constants are no work for a runtime.
    assert_eq!(worker.of_kind(Kind::Evaluate).len(), 1);
    let second = &worker.of_kind(Kind::Event)[1].given;
    assert_eq!(second["app"]["config"], json!({"url": "u"}));
    assert_eq!(second["block"]["name"], "Second Step");
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_failed_delivery_is_seen_and_replayed() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let throwing = chain(&app.installation).replace("what: start", "what: throw");
    let flow = flow(&fixture, "f", &throwing).await;
    trigger(&fixture, &flow, "First", json!(1)).await;
    let events = quiet(&fixture, &flow).await;
    let delivery = &events[0]["deliveries"][0];
    assert_eq!(
        (&delivery["state"], &delivery["error"]),
        (&json!("failed"), &json!("it was told to"))
    );
    // The same event, once the block has another config.
    apply(&fixture, &flow, &chain(&app.installation)).await;
    let id = delivery["id"].as_str().expect("an id");
    let path = format!("/api/v1/deliveries/{id}/replay");
    fixture.post(&path, &json!({})).await;
    let events = quiet(&fixture, &flow).await;
    assert_eq!(events.len(), 3, "{events:#?}");
    assert_eq!(events[0]["deliveries"][0]["state"], "done");
    assert_eq!(events[0]["deliveries"][0]["tries"], 2);
    let (status, reply) = fixture.call("POST", &path, None).await;
    assert_eq!(status, 409, "{reply}");
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn an_app_and_its_blocks_keep_values_and_locks_apart() {
    let fixture = Fixture::start().await;
    let set = |scope: &'static str, id: &str, timeout: f64| {
        let lock = json!({"id": id, "timeout": timeout});
        let pair = json!([{"key": "k", "value": id, "lock": lock}]);
        Do::Call(scope, pair)
    };
    let keeps: Script = Arc::new(move |seen: &Seen| match seen.kind {
        Kind::Sync => vec![Do::Return(json!({"newStatus": "ready"}))],
        _ => vec![
            set("kv.app.set", "one", 60.0),
            set("kv.app.set", "two", 60.0),
            set("kv.block.set", "two", 60.0),
            Do::Call("kv.app.get", json!(["k"])),
            Do::Call("kv.app.releaseLock", json!([{"key": "k", "lockId": "one"}])),
            set("kv.app.set", "two", 60.0),
            Do::Call("kv.block.set", json!([{"key": "t", "value": 1, "ttl": 60}])),
            Do::Call("kv.block.get", json!(["t"])),
            Do::Call("kv.block.set", json!([{"key": "t", "value": 1, "ttl": 0}])),
            Do::Call("kv.block.get", json!(["t"])),
        ],
    });
    let worker = Worker::start(&fixture, schema(), keeps).await;
    let app = install(&fixture, "test", json!({})).await;
    let flow = flow(&fixture, "f", &chain(&app.installation)).await;
    trigger(&fixture, &flow, "First", json!({})).await;
    quiet(&fixture, &flow).await;
    let said = worker.answers();
    assert_eq!(&said[..3], [json!(true), json!(false), json!(true)]);
    assert_eq!(
        (&said[3]["value"], &said[3]["lock"]["id"]),
        (&json!("one"), &json!("one"))
    );
    assert_eq!(said[5], true);
    assert!(
        said[7]["ttl"].as_f64().is_some_and(|left| left > 50.0),
        "{said:?}"
    );
    assert!(said[9]["value"].is_null(), "it went at once: {said:?}");
    let path = format!("/api/v1/installations/{}/kv", app.installation);
    assert_eq!(fixture.get(&path).await["pairs"][0]["value"], "two");
    assert_eq!(fixture.stop().await, 0);
}
