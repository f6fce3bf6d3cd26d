//! Nothing is lost and nothing is done twice: restarts, repeats, many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, until};
use crate::flows::{schema, script};
use crate::worker::{Do, Script, Seen, Worker, flow, install, trigger};

/// A chain of so many blocks that pass an event on.
fn chain(installation: &str, blocks: usize) -> String {
    let mut text = format!("appInstallations: {{test: {{id: {installation}}}}}\nblocks:\n");
    for at in 0..blocks {
        text += &format!(
            "- name: B{at}\n  type: {{appBlock: {{block: pass, appInstallation: test}}}}\n  inputs:\n    default:\n      config: {{what: {at}}}\n"
        );
        if at > 0 {
            text += &format!("      links: [{{block: B{}, output: default}}]\n", at - 1);
        }
    }
    text
}

async fn deliveries(fixture: &Fixture, flow: &str) -> Value {
    fixture.get(&format!("/api/v1/flows/{flow}")).await["deliveries"].clone()
}

#[async_std::test]
async fn a_chain_goes_on_after_a_restart() {
    const EVENTS: u64 = 20;
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let flow = flow(&fixture, "f", &chain(&app.installation, 5)).await;
    for n in 0..EVENTS {
        trigger(&fixture, &flow, "B0", json!(n)).await;
    }
    // In the middle, whatever that is.
    until("some have ended", async || {
        (deliveries(&fixture, &flow).await["done"].as_u64()? > EVENTS).then_some(())
    })
    .await;
    let fixture = fixture.restart().await;
    let _worker = worker.back(&fixture).await;
    until("all have ended", async || {
        (deliveries(&fixture, &flow).await == json!({"done": EVENTS * 5})).then_some(())
    })
    .await;
    let events = fixture
        .get(&format!("/api/v1/flows/{flow}/events?after=0&limit=500"))
        .await;
    let events = events.as_array().expect("a list");
    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len() as u64, EVENTS * 6, "each event once");
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_second_attempt_says_nothing_twice() {
    let fixture = Fixture::start().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let emits: Script = Arc::new(move |seen: &Seen| {
        if seen.block.is_empty() {
            return vec![Do::Return(json!({"newStatus": "ready"}))];
        }
        let emit = |n: u32| Do::Call("events.emit", json!([{"n": n}]));
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => vec![emit(1), emit(1), emit(2), Do::Die],
            _ => vec![emit(2), emit(1), emit(1), emit(1)],
        }
    });
    let worker = Worker::start(&fixture, schema(), emits.clone()).await;
    let app = install(&fixture, "test", json!({})).await;
    let flow = flow(&fixture, "f", &chain(&app.installation, 1)).await;
    trigger(&fixture, &flow, "B0", json!(0)).await;
    until("the second attempt has ended", async || {
        (deliveries(&fixture, &flow).await == json!({"done": 1})).then_some(())
    })
    .await;
    assert_eq!(worker.answers().len(), 7);
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    let events = fixture
        .get(&format!("/api/v1/flows/{flow}/events?after=1"))
        .await;
    let bodies: Vec<_> = events
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| e["body"]["n"].clone())
        .collect();
    assert_eq!(bodies, [1, 1, 2, 1], "two were known, one of three is new");
    assert_eq!(fixture.stop().await, 0);
}

/// Everything that leaves something behind, once.
fn effects(app: &Value) -> Vec<Do> {
    let prompt = json!(["Confirm", {"redirect": {"url": "https://x", "method": "GET"}}]);
    vec![
        Do::Call("timers.set", json!([3_600, {"inputPayload": 1}])),
        Do::Call("timers.set", json!([3_600, {"inputPayload": 1}])),
        Do::Call("messaging.sendToApp", json!([{"body": "hello"}])),
        Do::Call(
            "messaging.sendToBlocks",
            json!([{"blockIds": [app], "body": "hello"}]),
        ),
        Do::Call("lifecycle.prompt.create", prompt),
        Do::Call("lifecycle.sync", json!([])),
        Do::Call("events.createPending", json!([{"event": 1}])),
        Do::Call("events.emit", json!([1])),
    ]
}

#[async_std::test]
async fn a_second_attempt_has_no_effect_twice() {
    let fixture = Fixture::start().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let script: Script = Arc::new(move |seen: &Seen| match seen.kind {
        Kind::Sync => vec![Do::Return(json!({"newStatus": "ready"}))],
        Kind::Event => {
            let mut all = effects(&seen.given["block"]["id"]);
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                all.push(Do::Die);
            } else {
                // What the first attempt did not come to is done now.
                all.push(Do::Call("timers.set", json!([3_600, {"inputPayload": 2}])));
            }
            all
        }
        _ => vec![],
    });
    let mut schema = schema();
    schema["hasOnInternalMessage"] = json!(true);
    for handler in [
        "hasOnTimer",
        "hasOnInternalMessage",
        "hasOnSync",
        "autoconfirm",
    ] {
        schema["blocks"]["pass"][handler] = json!(true);
    }
    let worker = Worker::start(&fixture, schema, script).await;
    let app = install(&fixture, "test", json!({})).await;
    let flow = flow(&fixture, "f", &chain(&app.installation, 1)).await;
    trigger(&fixture, &flow, "B0", json!(0)).await;
    until("the second attempt has ended", async || {
        let quiet =
            worker.of_kind(Kind::Message).len() >= 2 && worker.of_kind(Kind::Sync).len() >= 3;
        (deliveries(&fixture, &flow).await == json!({"done": 1}) && quiet).then_some(())
    })
    .await;
    let answers = worker.answers();
    let (first, second) = answers.split_at(8);
    assert_eq!(second.len(), 9);
    assert_eq!(first, &second[..8], "the same answers");
    assert_ne!(
        first[0], first[1],
        "two timers are two, also with the same words"
    );
    assert!(!first.contains(&second[8]), "and a new one is new");
    assert_eq!(worker.of_kind(Kind::Message).len(), 2);
    assert_eq!(
        worker.of_kind(Kind::Sync).len(),
        3,
        "the app, its block, and once more because it asked for it"
    );
    let pending = fixture.get(&format!("/api/v1/flows/{flow}/pending")).await;
    assert_eq!(pending.as_array().expect("a list").len(), 1);
    let block = &fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await[0];
    let block = block["id"].as_str().expect("an id");
    let block = fixture.get(&format!("/api/v1/blocks/{block}")).await;
    assert_eq!(block["prompts"].as_object().expect("by key").len(), 1);
    let events = fixture
        .get(&format!("/api/v1/flows/{flow}/events?after=1"))
        .await;
    assert_eq!(events.as_array().expect("a list").len(), 1);
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn many_events_go_through_a_chain_fast() {
    const EVENTS: u64 = 200;
    const BLOCKS: u64 = 10;
    let fixture = Fixture::start().await;
    let _worker = Worker::of_many(&fixture, 16, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let flow = flow(&fixture, "f", &chain(&app.installation, BLOCKS as usize)).await;
    let start = Instant::now();
    for n in 0..EVENTS {
        trigger(&fixture, &flow, "B0", json!(n)).await;
    }
    until("all have ended", async || {
        (deliveries(&fixture, &flow).await == json!({"done": EVENTS * BLOCKS})).then_some(())
    })
    .await;
    let rate = (EVENTS * BLOCKS) as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} block executions per second");
    assert_eq!(fixture.stop().await, 0);
}
