//! Signals, secrets, customized outputs, drains, the HTTP request block, streams.

use std::sync::Arc;

use async_std::future::timeout;
use async_std::io::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, PATIENCE, until};
use crate::worker::{Do, Script, Seen, Worker, apply, flow, install, quiet, status, trigger};

/// `source` has a signal; `user` has a config that may follow it, and drains.
fn schema() -> Value {
    json!({"blocks": {
        "source": {
            "hasOnSync": true, "autoconfirm": true, "signals": {"level": {"order": 0}},
            "config": {"level": {"type": "number", "required": true}},
        },
        "user": {
            "hasOnSync": true, "hasOnDrain": true,
            "config": {"level": {"type": "number"}, "key": {"type": "string"}},
            "inputs": {"default": {"hasOnEvent": true}},
            "outputs": {"out": {"order": 0}},
        },
    }})
}

fn script() -> Script {
    Arc::new(|seen: &Seen| match (seen.kind, seen.block.as_str()) {
        (Kind::Sync, "source") => vec![Do::Return(json!({
            "newStatus": "ready",
            "signalUpdates": {"level": seen.given["block"]["config"]["level"]},
        }))],
        (Kind::Sync, _) => vec![Do::Return(json!({"newStatus": "ready"}))],
        (Kind::Drain, _) => vec![
            // Too late, but no reason to fail.
            Do::Call("lifecycle.sync", json!([])),
            Do::Return(json!({"newStatus": "drained"})),
        ],
        (Kind::Event, "request") => {
            let url = &seen.given["event"]["inputConfig"]["url"];
            vec![Do::Return(
                json!({"statusCode": 200, "headers": {"content-type": "application/json"}, "rawBody": json!({"url": url}).to_string()}),
            )]
        }
        (Kind::Event, _) => vec![Do::Call("events.emit", json!([{"raw": 1}]))],
        _ => vec![],
    })
}

fn definition(installation: &str, level: u32) -> String {
    format!(
        "appInstallations: {{test: {{id: {installation}}}}}\n\
         blocks:\n\
         - {{name: Source, type: {{appBlock: {{block: source, appInstallation: test}}}}, config: {{level: {level}}}}}\n\
         - name: User\n\
         \x20 type: {{appBlock: {{block: user, appInstallation: test}}}}\n\
         \x20 config: {{level: !expr 'ref(\"signal.source.level\")', key: !expr 'ref(\"secret.KEY\")'}}\n\
         \x20 outputs: {{out: {{customization: !expr outputs.user.raw}}}}\n\
         - name: Ask\n\
         \x20 type: {{coreBlock: httpRequest}}\n\
         \x20 inputs: {{default: {{links: [{{block: User, output: out}}], config: {{url: \"http://h/\"}}}}}}\n"
    )
}

async fn block(fixture: &Fixture, flow: &str, name: &str) -> Option<Value> {
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    let mut blocks = blocks.as_array().expect("a list").iter();
    blocks.find(|block| block["name"] == name).cloned()
}

/// Asks for a stream and reads until it has said something; answers all it said.
async fn follow(fixture: &Fixture, path: &str, until: &str) -> String {
    let stream = TcpStream::connect(&fixture.http).await;
    let mut stream = stream.expect("it listens");
    let key = &fixture.key;
    let request = format!("GET {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let said = async {
        let mut said = String::new();
        while !said.contains(until) {
            let mut chunk = vec![0; 64 * 1024];
            let read = stream.read(&mut chunk).await.expect("the stream lives");
            assert!(read > 0, "the stream ended after {said}");
            said += &String::from_utf8_lossy(&chunk[..read]);
        }
        said
    };
    timeout(PATIENCE, said).await.expect("it says so")
}

#[async_std::test]
async fn a_follower_of_a_signal_syncs_again() {
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let secret = format!("/api/v1/projects/{}/secrets/KEY", fixture.project);
    let value = json!({"value": "s3cret"});
    assert_eq!(fixture.call("PUT", &secret, Some(&value)).await.0, 200);
    let listed = fixture
        .get(&format!("/api/v1/projects/{}/secrets", fixture.project))
        .await;
    assert_eq!(listed[0]["key"], "KEY");
    assert!(
        !listed.to_string().contains("s3cret"),
        "a value is never read back"
    );
    let flow = flow(&fixture, "f", &definition(&app.installation, 1)).await;
    // A block that nobody has confirmed takes no events.
    let user = block(&fixture, &flow, "User").await.expect("there");
    assert_eq!(user["status"], "draft");
    trigger(&fixture, &flow, "User", json!({})).await;
    let events = quiet(&fixture, &flow).await;
    let error = events[0]["deliveries"][0]["error"]
        .as_str()
        .expect("an error");
    assert!(error.contains("is a draft"), "{error}");
    let source = block(&fixture, &flow, "Source").await.expect("there");
    let path = format!("/api/v1/blocks/{}", source["id"].as_str().expect("an id"));
    status(&fixture, &path, "ready").await;
    let user = format!("/api/v1/blocks/{}", user["id"].as_str().expect("an id"));
    fixture.post(&format!("{user}/confirm"), &json!({})).await;
    let ready = status(&fixture, &user, "ready").await;
    assert_eq!(ready["config"], json!({"level": 1, "key": "s3cret"}));
    let syncs = || {
        let syncs = worker.of_kind(Kind::Sync).into_iter();
        syncs.filter(|seen| seen.block == "user").count()
    };
    assert_eq!(syncs(), 1);
    apply(&fixture, &flow, &definition(&app.installation, 2)).await;
    until("the follower has synced again", async || {
        let shown = fixture.get(&user).await;
        (shown["config"]["level"] == 2 && shown["status"] == "ready" && syncs() == 2).then_some(())
    })
    .await;
    let seen = worker.of_kind(Kind::Sync).into_iter();
    let signals: Vec<_> = seen
        .filter(|seen| seen.block == "user")
        .map(|seen| seen.given["block"]["lifecycle"].get("signals").cloned())
        .collect();
    assert_eq!(
        signals,
        [None, Some(json!({}))],
        "none before the first sync"
    );

    let stream = format!("/api/v1/flows/{flow}/events?stream=1&after=0");
    trigger(&fixture, &flow, "User", json!({})).await;
    let events = quiet(&fixture, &flow).await;
    assert_eq!(events[2]["body"], 1, "the output is customized");
    assert_eq!(
        events[3]["body"]["body"],
        json!({"url": "http://h/"}),
        "{events:#?}"
    );
    let followed = follow(&fixture, &stream, "event: delivery").await;
    assert!(followed.contains("event: event\ndata: {"), "{followed}");

    a_block_that_is_taken_out_drains(&fixture, &flow, &app.installation, &worker).await;
    assert_eq!(fixture.stop().await, 0);
}

/// Its app waits for it.
async fn a_block_that_is_taken_out_drains(
    fixture: &Fixture,
    flow: &str,
    installation: &str,
    worker: &Worker,
) {
    let without = format!(
        "appInstallations: {{test: {{id: {}}}}}\nblocks: []\n",
        installation
    );
    apply(fixture, flow, &without).await;
    let installation = format!("/api/v1/installations/{}", installation);
    assert_eq!(fixture.call("DELETE", &installation, None).await.0, 200);
    until("all is removed", async || {
        (fixture.call("GET", &installation, None).await.0 == 404).then_some(())
    })
    .await;
    assert_eq!(worker.of_kind(Kind::Drain).len(), 1);
    assert!(block(fixture, flow, "User").await.is_none());
}
