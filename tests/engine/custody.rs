//! Nothing is lost and nothing is done twice: restarts, repeats, many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

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
