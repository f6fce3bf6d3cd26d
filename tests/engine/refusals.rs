//! What does not fit: one clear sentence each, and the engine goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::io::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use serde_json::json;

use crate::fixture::Fixture;
use crate::flows::{schema, script};
use crate::worker::{Do, Script, Seen, Worker, flow, install, quiet, trigger};

/// How long ten thousand calls may take on a machine that has other work.
const FLOOD_MAX: Duration = Duration::from_secs(120);

/// A definition with one block that is given as YAML.
fn with(installation: &str, blocks: &str) -> String {
    format!("appInstallations: {{test: {{id: {installation}}}}}\nblocks:\n{blocks}")
}

/// Another event of the same flow is taken and done.
async fn goes_on(fixture: &Fixture, flow: &str, block: &str) {
    let event = trigger(fixture, flow, block, json!({"again": true})).await;
    let events = quiet(fixture, flow).await;
    let event = events.iter().find(|it| it["id"] == event.as_str());
    let event = event.expect("the event");
    assert_eq!(event["deliveries"][0]["state"], "done", "{event}");
}

#[async_std::test]
async fn a_client_that_never_finishes_its_body_holds_nobody_up() {
    let fixture = Fixture::start().await;
    let definition = "blocks:\n\
         - name: In\n\
         \x20 type: {coreBlock: httpEndpoint}\n\
         \x20 config: {path: /orders, methods: [POST]}\n\
         \x20 inputs: {respond: {links: [{block: Pass, output: default}], config: {statusCode: 202}}}\n\
         - name: Pass\n\
         \x20 type: {coreBlock: transform}\n\
         \x20 inputs: {default: {links: [{block: In, output: default}]}}\n";
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let flow = flow(&fixture, "f", definition).await;
    let path = format!("/endpoints/{flow}/orders");
    // As many as an app's callers may have open, each with half a body.
    let mut half = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(&fixture.http).await.expect("it listens");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: 1000\r\n\r\nhalf"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        half.push(stream);
    }
    let mut client = fixture.client().await;
    let answer = client.request("POST", &path, "none", b"whole").await;
    assert_eq!(answer.status, 202);
    // One that hangs up instead is told why, and leaves no event.
    let mut one = half.pop().expect("a stream");
    one.shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    let mut said = String::new();
    one.read_to_string(&mut said).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    assert!(said.contains("the body could not be read"), "{said}");
    goes_on(&fixture, &flow, "Pass").await;
    let events = quiet(&fixture, &flow).await;
    let entered = events
        .iter()
        .filter(|it| it["parent"].is_null() && it["body"]["method"] == "POST");
    assert_eq!(entered.count(), 1, "{events:#?}");
    drop(half);
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_definition_that_does_not_fit_changes_nothing() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let pass = "type: {appBlock: {block: pass, appInstallation: test}}";
    let good = with(&app.installation, &format!("- {{name: A, {pass}}}\n"));
    let flow = flow(&fixture, "f", &good).await;
    let path = format!("/api/v1/flows/{flow}");
    let before = fixture.get(&path).await["definition"].clone();
    for (blocks, words) in [
        (format!("- {{name: A, {}}}\n", pass.replace("pass", "nope")), "nope"),
        (
            format!("- {{name: A, {pass}, inputs: {{default: {{links: [{{block: B, output: default}}]}}}}}}\n"),
            "block `B`, which does not exist",
        ),
        (
            format!("- {{name: A, {pass}, inputs: {{default: {{config: {{what: !expr outputs.b.x}}}}}}}}\n- {{name: B, {pass}}}\n"),
            "no ancestor",
        ),
        (
            format!("- {{name: A, {pass}, inputs: {{default: {{links: [{{block: A, output: default}}]}}}}}}\n"),
            "cycle",
        ),
        (
            "- {name: A, type: {appBlock: {block: strict, appInstallation: test}}, inputs: {default: {config: {count: many}}}}\n".to_owned(),
            "expected a number",
        ),
        (
            format!("- {{name: A, {pass}, inputs: {{default: {{config: {{what: !expr secrets.NOPE}}}}}}}}\n"),
            "the secret `NOPE`",
        ),
        ("- {name: A, type: {coreBlock: teleport}}\n".to_owned(), "teleport"),
    ] {
        let body = json!({"definition": with(&app.installation, &blocks)});
        let (status, reply) = fixture.call("POST", &format!("{path}/apply"), Some(&body)).await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(words), "{words}: {status} {reply}");
        assert_eq!(fixture.get(&path).await["definition"], before, "{words}");
    }
    // What is there is planned as nothing.
    let plan = fixture
        .post(&format!("{path}/plan"), &json!({"definition": before}))
        .await;
    assert_eq!(plan["operations"], json!([]));
    goes_on(&fixture, &flow, "A").await;
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn an_event_that_does_not_fit_fails_by_itself() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let blocks = "- name: A\n  type: {appBlock: {block: pass, appInstallation: test}}\n  inputs: {default: {config: {what: text}}}\n\
         - name: B\n  type: {appBlock: {block: strict, appInstallation: test}}\n  inputs: {default: {links: [{block: A, output: default}], config: {count: !expr outputs.a.got}}}\n";
    let flow = flow(&fixture, "f", &with(&app.installation, blocks)).await;
    trigger(&fixture, &flow, "A", json!({})).await;
    let events = quiet(&fixture, &flow).await;
    let delivery = &events[1]["deliveries"][0];
    assert_eq!(delivery["state"], "failed");
    let error = delivery["error"].as_str().expect("an error");
    assert_eq!(error, "`count`: expected a number, found a string");
    for (path, status) in [
        ("blocks/Nobody/inputs/default/events", 404),
        ("blocks/A/inputs/other/events", 400),
    ] {
        let path = format!("/api/v1/flows/{flow}/{path}");
        assert_eq!(
            fixture.call("POST", &path, Some(&json!(1))).await.0,
            status,
            "{path}"
        );
    }
    let large = json!("x".repeat(1 << 20));
    let path = format!("/api/v1/flows/{flow}/blocks/A/inputs/default/events");
    let (status, reply) = fixture.call("POST", &path, Some(&large)).await;
    assert_eq!(status, 400);
    assert!(
        reply["error"]
            .as_str()
            .is_some_and(|error| error.contains("more than 1048576")),
        "{reply}"
    );
    goes_on(&fixture, &flow, "A").await;
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn calls_that_do_not_fit_are_refused() {
    let fixture = Fixture::start().await;
    let calls: Script = Arc::new(|seen: &Seen| {
        if seen.block.is_empty() {
            return vec![
                Do::Refused("events.emit", json!([1]), "only a block has events"),
                Do::Return(json!({"newStatus": "ready"})),
            ];
        }
        let large = "x".repeat(1 << 20);
        vec![
            Do::Refused(
                "events.emit",
                json!([1, {"outputKey": "nope"}]),
                "no output `nope`",
            ),
            Do::Refused(
                "events.emit",
                json!([1, {"parentEventId": "nobody"}]),
                "no event `nobody`",
            ),
            Do::Refused("events.emit", json!([large]), "more than 1048576"),
            Do::Refused(
                "events.emit",
                json!([1, {"complete": "nobody"}]),
                "no pending event",
            ),
            Do::Refused(
                "kv.block.set",
                json!([{"key": "k", "value": large}]),
                "more than 1048576",
            ),
            Do::Refused("timers.set", json!(["soon"]), "between 0 seconds"),
            Do::Refused(
                "messaging.sendToBlocks",
                json!([{"blockIds": ["x"], "body": 1}]),
                "no block `x`",
            ),
            Do::Refused("nothing.at.all", json!([]), "no method"),
            Do::Call(
                "messaging.sendToBlocks",
                json!([{"blockIds": [], "body": 1}]),
            ),
            Do::Call("events.emit", json!(["good"])),
        ]
    });
    let worker = Worker::start(&fixture, schema(), calls).await;
    let app = install(&fixture, "test", json!({})).await;
    let blocks = "- {name: A, type: {appBlock: {block: pass, appInstallation: test}}}\n";
    let flow = flow(&fixture, "f", &with(&app.installation, blocks)).await;
    trigger(&fixture, &flow, "A", json!({})).await;
    let events = quiet(&fixture, &flow).await;
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(events[0]["deliveries"][0]["state"], "done", "{events:#?}");
    assert_eq!(worker.answers().len(), 2);
    goes_on(&fixture, &flow, "A").await;
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_secret_that_is_gone_fails_its_events_alone() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let secret = format!("/api/v1/projects/{}/secrets/KEY", fixture.project);
    let value = json!({"value": "s3cret"});
    assert_eq!(fixture.call("PUT", &secret, Some(&value)).await.0, 200);
    let blocks = "- name: A\n  type: {appBlock: {block: pass, appInstallation: test}}\n  inputs: {default: {config: {what: !expr secrets.KEY}}}\n\
         - name: B\n  type: {appBlock: {block: pass, appInstallation: test}}\n";
    let flow = flow(&fixture, "f", &with(&app.installation, blocks)).await;
    assert_eq!(fixture.call("DELETE", &secret, None).await.0, 200);
    trigger(&fixture, &flow, "A", json!({})).await;
    trigger(&fixture, &flow, "B", json!({})).await;
    let events = quiet(&fixture, &flow).await;
    let delivery = &events[0]["deliveries"][0];
    assert_eq!(delivery["state"], "failed", "{events:#?}");
    let error = delivery["error"].as_str().expect("an error");
    assert_eq!(error, "`what`: the secret `KEY` does not exist");
    assert_eq!(
        events[1]["deliveries"][0]["state"], "done",
        "the others go on"
    );
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_handler_that_never_stops_emitting_is_stopped() {
    const MOST: usize = 10_000;
    let fixture = Fixture::start().await;
    let floods: Script =
        Arc::new(
            |seen: &Seen| match seen.given["event"]["inputConfig"]["what"].as_u64() {
                Some(1) => vec![
                    Do::Flood("events.emit", json!([1]), MOST),
                    Do::Refused("events.emit", json!([1]), "has emitted 10000 events"),
                    Do::Refused(
                        "events.createPending",
                        json!([{}]),
                        "has emitted 10000 events",
                    ),
                    Do::Call("kv.block.set", json!([{"key": "k", "value": 1}])),
                ],
                Some(_) => vec![Do::Call("events.emit", json!([2]))],
                None => vec![Do::Return(json!({"newStatus": "ready"}))],
            },
        );
    let _worker = Worker::start(&fixture, schema(), floods).await;
    let app = install(&fixture, "test", json!({})).await;
    let block = |name: &str, what: u32| {
        format!(
            "- {{name: {name}, type: {{appBlock: {{block: pass, appInstallation: test}}}}, inputs: {{default: {{config: {{what: {what}}}}}}}}}\n"
        )
    };
    let blocks = [block("Flood", 1), block("Other", 2)].concat();
    let flow = flow(&fixture, "f", &with(&app.installation, &blocks)).await;
    trigger(&fixture, &flow, "Flood", json!({})).await;
    trigger(&fixture, &flow, "Other", json!({})).await;
    let path = format!("/api/v1/flows/{flow}");
    let start = Instant::now();
    while fixture.get(&path).await["open"] != 0 {
        assert!(start.elapsed() < FLOOD_MAX, "it does not end");
        async_std::task::sleep(Duration::from_millis(50)).await;
    }
    let shown = fixture.get(&path).await;
    assert_eq!(shown["deliveries"], json!({"done": 2}));
    let last = fixture.get(&format!("{path}/events?limit=1")).await;
    assert_eq!(last[0]["body"], 2, "the other goes on afterwards");
    assert_eq!(fixture.stop().await, 0);
}
