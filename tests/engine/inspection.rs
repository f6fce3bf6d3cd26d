//! What people may look at, and what they are not shown.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::Fixture;
use crate::worker::{Do, Script, Seen, Worker, apply, flow, install, quiet, status, trigger};

const MASK: &str = "[redacted]";

fn schema() -> Value {
    let fields = json!({
        "token": {"type": "string", "sensitive": true}, "host": {"type": "string"},
    });
    let signals = json!({"key": {"order": 0, "sensitive": true}, "level": {"order": 1}});
    json!({
        "config": fields, "signals": signals, "hasOnSync": true,
        "blocks": {"user": {
            "config": fields, "signals": signals, "hasOnSync": true, "autoconfirm": true,
            "inputs": {"default": {"hasOnEvent": true, "config": fields}},
            "outputs": {"out": {"order": 0}},
        }},
    })
}

fn script() -> Script {
    Arc::new(|seen: &Seen| match seen.kind {
        Kind::Sync => vec![Do::Return(json!({
            "newStatus": "ready", "signalUpdates": {"key": "k3y", "level": 7},
        }))],
        Kind::Event => vec![
            Do::Call("events.emit", json!([{"n": 1}])),
            Do::Call(
                "kv.block.set",
                json!([{"key": "k", "value": {"header": "Bearer s3cret"}}]),
            ),
        ],
        _ => vec![],
    })
}

fn definition(installation: &str) -> String {
    format!(
        "appInstallations:\n  test:\n    id: {installation}\nblocks:\n  - name: User\n    \
         type:\n      appBlock:\n        block: user\n        appInstallation: test\n    \
         config:\n      host: h\n      token: !expr secrets.TOKEN\n    inputs:\n      \
         default:\n        config:\n          host: !expr signals.app.key\n          \
         token: !expr secrets.TOKEN\n"
    )
}

#[async_std::test]
async fn sensitive_values_are_masked_for_whoever_looks() {
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let secret = format!("/api/v1/projects/{}/secrets/TOKEN", fixture.project);
    let value = json!({"value": "s3cret"});
    assert_eq!(fixture.call("PUT", &secret, Some(&value)).await.0, 200);
    let config = json!({"token": "\"s3cret\"", "host": "\"h\""});
    let app = install(&fixture, "app", config).await;
    let path = format!("/api/v1/installations/{}", app.installation);
    let shown = status(&fixture, &path, "ready").await;
    assert_eq!(shown["config"], json!({"token": MASK, "host": "\"h\""}));
    assert_eq!(shown["signals"], json!({"key": MASK, "level": 7}));
    let text = definition(&app.installation)
        + "  - name: Watch\n    type:\n      coreBlock: condition\n    inputs:\n      \
           default:\n        config:\n          condition: !expr secrets.TOKEN\n";
    let flow = flow(&fixture, "f", &text).await;
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    let path = format!(
        "/api/v1/blocks/{}",
        blocks[0]["id"].as_str().expect("an id")
    );
    let shown = status(&fixture, &path, "ready").await;
    assert_eq!(shown["config"], json!({"token": MASK, "host": "h"}));
    assert_eq!(shown["signals"], json!({"key": MASK, "level": 7}));
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    assert_eq!(blocks[0]["signals"]["key"], MASK);

    // Handlers and expressions get what is meant for them.
    trigger(&fixture, &flow, "User", json!({})).await;
    quiet(&fixture, &flow).await;
    let given = &worker.of_kind(Kind::Event)[0].given;
    assert_eq!(given["app"]["config"]["token"], "s3cret");
    assert_eq!(given["block"]["config"]["token"], "s3cret");
    let input = json!({"token": "s3cret", "host": "k3y"});
    assert_eq!(given["event"]["inputConfig"], input);

    // A secret in a field that no app marks, and that does not fit it either.
    let event = trigger(&fixture, &flow, "Watch", json!({})).await;
    quiet(&fixture, &flow).await;
    let event = fixture.get(&format!("/api/v1/events/{event}")).await;
    let error = "`condition`: expected a boolean, found a string";
    assert_eq!(event["deliveries"][0]["error"], error, "{event}");
    no_job_says_it(&fixture).await;

    // Definitions keep what is written in them.
    let exported = json!({"flowId": flow});
    let exported = fixture
        .post("/provider/flows/export_definition", &exported)
        .await;
    let exported = exported["definition"].as_str().expect("a text");
    let plan = json!({"definition": exported});
    let plan = fixture
        .post(&format!("/api/v1/flows/{flow}/plan"), &plan)
        .await;
    assert_eq!(plan["operations"], json!([]), "{exported}");
    assert_eq!(
        apply(&fixture, &flow, exported).await["operations"],
        json!([])
    );
    assert_eq!(fixture.stop().await, 0);
}

/// No job of the engine shows the secret, in its outcome or its calls.
async fn no_job_says_it(fixture: &Fixture) {
    let jobs = fixture.get("/api/v1/jobs?limit=100").await;
    let jobs = jobs["jobs"].as_array().expect("a list").clone();
    let (mut evaluated, mut synced, mut called, mut watched) = (0, 0, 0, 0);
    for job in jobs {
        let path = format!("/api/v1/jobs/{}", job["id"].as_str().expect("an id"));
        for path in [path.clone(), format!("{path}?wait=5")] {
            let shown = fixture.get(&path).await;
            let result = &shown["outcome"]["result"];
            watched += usize::from(result["condition"] == MASK);
            evaluated += usize::from(result["token"] == MASK);
            synced += usize::from(result["signalUpdates"] == json!({"key": MASK, "level": 7}));
            assert!(!shown.to_string().contains("s3cret"), "{shown}");
        }
        let calls = fixture.get(&format!("{path}/calls")).await;
        assert!(!calls.to_string().contains("s3cret"), "{calls}");
        called += usize::from(calls[1]["args"][0]["value"]["header"] == "Bearer [redacted]");
    }
    assert_eq!((evaluated, synced, called, watched), (4, 4, 1, 2));
}

#[async_std::test]
async fn events_are_read_in_pages_with_all_that_became_of_them() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "app", json!({})).await;
    let text = definition(&app.installation).replace("!expr secrets.TOKEN", "t");
    let flow = flow(&fixture, "f", &text).await;
    let first = trigger(&fixture, &flow, "User", json!({"by": "hand"})).await;
    trigger(&fixture, &flow, "User", json!({})).await;
    let all = quiet(&fixture, &flow).await;
    assert_eq!(all.len(), 4, "{all:#?}");
    let path = format!("/api/v1/flows/{flow}/events?limit=3");
    let newest = fixture.get(&path).await;
    let newest = newest.as_array().expect("a list").clone();
    let seqs = |events: &[Value]| {
        events
            .iter()
            .map(|it| it["seq"].as_i64())
            .collect::<Vec<_>>()
    };
    let backwards: Vec<Value> = all.iter().rev().cloned().collect();
    assert_eq!(seqs(&newest), seqs(&backwards[..3]));
    let before = newest[2]["seq"].as_i64().expect("a number");
    let rest = fixture.get(&format!("{path}&before={before}")).await;
    assert_eq!(seqs(rest.as_array().expect("a list")), seqs(&all[..1]));
    let after = all[0]["seq"].as_i64().expect("a number");
    let rest = fixture.get(&format!("{path}&after={after}")).await;
    assert_eq!(seqs(rest.as_array().expect("a list")), seqs(&all[1..]));

    let shown = fixture.get(&format!("/api/v1/events/{first}")).await;
    assert_eq!(shown["body"], json!({"by": "hand"}));
    let delivery = &shown["deliveries"][0];
    assert_eq!(delivery["state"], "done");
    let (from, to) = (&delivery["created_ms"], &delivery["ended_ms"]);
    assert!(from.as_i64() <= to.as_i64() && to.is_i64(), "{delivery}");
    let job = delivery["job"].as_str().expect("an id");
    let emitted = all.iter().find(|event| event["parent"] == first.as_str());
    let emitted = emitted.expect("an event of the block");
    assert_eq!(
        (&emitted["output"], &emitted["job"]),
        (&json!("out"), &json!(job))
    );
    assert_eq!(all[0]["job"], Value::Null, "it came from outside");
    assert_eq!(fixture.stop().await, 0);
}
