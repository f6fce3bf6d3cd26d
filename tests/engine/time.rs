//! Timers, sleeping events, schedules, polls; messages.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, until};
use crate::worker::{Do, Script, Seen, Worker, flow, install, quiet, trigger};

/// An app whose block sets a timer, announces an event and completes it when
/// the timer comes, and whose own onSync wants to run again.
fn schema() -> Value {
    json!({
        "hasOnSync": true,
        "hasOnInternalMessage": true,
        "blocks": {
            "later": {
                "hasOnTimer": true,
                "inputs": {"default": {"hasOnEvent": true}},
                "outputs": {"done": {"order": 0, "default": true}},
            },
        },
    })
}

fn script(pending: Arc<std::sync::Mutex<Option<String>>>) -> Script {
    Arc::new(move |seen: &Seen| match seen.kind {
        Kind::Sync => vec![Do::Return(
            json!({"newStatus": "ready", "nextScheduleDelay": 1}),
        )],
        Kind::Event => vec![
            Do::Call(
                "events.createPending",
                json!([{"event": {"n": 1}, "statusDescription": "soon"}]),
            ),
            Do::Call(
                "timers.set",
                json!([0.05, {"inputPayload": {"p": 1}, "pendingEventId": "p", "promptKey": "log in"}]),
            ),
            Do::Call(
                "timers.set",
                json!([3600, {"description": "gives up", "promptKey": "log in"}]),
            ),
            Do::Call("messaging.sendToApp", json!([{"body": "hello"}])),
        ],
        Kind::Timer => {
            let id = pending
                .lock()
                .expect("not poisoned")
                .clone()
                .expect("announced");
            vec![Do::Call("events.emit", json!([{"n": 2}, {"complete": id}]))]
        }
        _ => vec![],
    })
}

#[async_std::test]
async fn a_timer_completes_a_pending_event() {
    let fixture = Fixture::start().await;
    let pending = Arc::new(std::sync::Mutex::new(None));
    let worker = Worker::start(&fixture, schema(), script(pending.clone())).await;
    let app = install(&fixture, "test", json!({})).await;
    let definition = format!(
        "appInstallations: {{test: {{id: {}}}}}\n\
         blocks:\n\
         - {{name: Later, type: {{appBlock: {{block: later, appInstallation: test}}}}}}\n\
         - name: Nap\n\
         \x20 type: {{coreBlock: sleep}}\n\
         \x20 inputs: {{default: {{links: [{{block: Later, output: done}}], config: {{sleep: 0.05}}}}}}\n",
        app.installation
    );
    let flow = flow(&fixture, "f", &definition).await;
    let id = trigger(&fixture, &flow, "Later", json!({})).await;
    until("the event is announced", async || {
        let announced = worker.answers().first()?.as_str()?.to_owned();
        *pending.lock().expect("not poisoned") = Some(announced);
        Some(())
    })
    .await;
    let path = format!("/api/v1/flows/{flow}/events?after=0");
    let events = until("the nap is over", async || {
        let events = fixture.get(&path).await;
        (events.as_array()?.len() == 3).then_some(events)
    })
    .await;
    assert_eq!(events[1]["body"], json!({"n": 2}));
    assert_eq!(
        events[1]["parent"],
        id.as_str(),
        "a completion has the parents of what it completes"
    );
    assert_eq!(events[2]["parent"], events[1]["id"]);
    assert_eq!(quiet(&fixture, &flow).await.len(), 3);
    let timer = &worker.of_kind(Kind::Timer)[0].given["timer"];
    let given =
        json!({"payload": {"p": 1}, "pendingEvent": {"id": "p"}, "prompt": {"key": "log in"}});
    assert_eq!(*timer, given);
    let block = &worker.of_kind(Kind::Timer)[0].given["block"]["id"];
    let block = block.as_str().expect("an id");
    let shown = fixture.get(&format!("/api/v1/blocks/{block}")).await;
    let waiting = &shown["timers"][0];
    assert_eq!(shown["timers"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&waiting["description"], &waiting["prompt"]),
        (&json!("gives up"), &json!("log in"))
    );
    assert!(waiting["due_ms"].is_i64() && waiting["id"].is_string());
    let message = &worker.of_kind(Kind::Message)[0];
    assert_eq!(message.given["message"]["body"], "hello");
    assert_eq!(message.block, "", "the app itself gets it");
    let announced = fixture.get(&format!("/api/v1/flows/{flow}/pending")).await;
    assert_eq!(announced[0]["phase"], "completed");
    until("the app has polled", async || {
        (worker.of_kind(Kind::Sync).len() >= 2).then_some(())
    })
    .await;
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_schedule_block_starts_chains() {
    let fixture = Fixture::start().await;
    let definition = "blocks:\n\
         - {name: Tick, type: {coreBlock: schedule}, config: {interval: 1, unit: seconds}}\n\
         - name: Big\n\
         \x20 type: {coreBlock: condition}\n\
         \x20 inputs: {default: {links: [{block: Tick, output: default}], config: {condition: true}}}\n";
    let flow = flow(&fixture, "f", definition).await;
    let path = format!("/api/v1/flows/{flow}/events?after=0");
    let events = until("it has ticked", async || {
        let events = fixture.get(&path).await;
        (events.as_array()?.len() >= 4).then_some(events)
    })
    .await;
    assert_eq!(events[0]["body"]["schedule"], "every 1 seconds");
    assert_eq!(events[1]["output"], "then");
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_person_changes_when_a_schedule_is_due() {
    let fixture = Fixture::start().await;
    let yearly = json!({"type": "cron", "cron": {"expression": "0 0 1 1 *", "location": "UTC"}});
    let schema = json!({
        "schedules": {
            "open": {"order": 0, "customizable": true, "definition": yearly},
            "fixed": {"order": 1, "definition": yearly},
        },
        "blocks": {},
    });
    let nothing: Script = Arc::new(|_: &Seen| vec![]);
    let worker = Worker::start(&fixture, schema, nothing).await;
    let app = install(&fixture, "test", json!({})).await;
    let path = format!("/api/v1/installations/{}/schedules", app.installation);
    let shown = fixture.get(&path).await;
    assert_eq!(shown[1]["key"], "open");
    assert_eq!(shown[1]["customized"], Value::Null);
    let far = shown[1]["next_ms"].as_i64().expect("a time");
    let often = json!({"type": "frequency", "frequency": {"interval": 1, "unit": "seconds"}});
    let wrong = json!({"type": "cron", "cron": {"expression": "0 0 30 2 *"}});
    for (key, definition, status, words) in [
        (
            "fixed",
            &often,
            400,
            "does not let its schedule `fixed` be customized",
        ),
        ("open", &wrong, 400, "never happens"),
        ("nobody", &often, 404, "schedule nobody"),
    ] {
        let path = format!("{path}/{key}");
        let (code, reply) = fixture.call("PUT", &path, Some(definition)).await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(code == status && error.contains(words), "{code} {reply}");
    }
    let open = format!("{path}/open");
    let (code, reply) = fixture.call("PUT", &open, Some(&often)).await;
    assert_eq!(
        (code, &reply["data"][1]["customized"]),
        (200, &often),
        "{reply}"
    );
    until("it is due", async || {
        (worker.of_kind(Kind::Schedule).len() >= 2).then_some(())
    })
    .await;
    assert_eq!(fixture.call("DELETE", &open, None).await.0, 200);
    let shown = fixture.get(&path).await;
    assert_eq!(shown[1]["customized"], Value::Null);
    assert_eq!(shown[1]["next_ms"].as_i64(), Some(far));
    assert_eq!(fixture.stop().await, 0);
}
