//! Values that an app suggests for its fields.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, until};
use crate::worker::{Do, Script, Seen, Worker, draft, flow, install};

fn schema() -> Value {
    json!({
        "config": {
            "region": {"type": "string", "hasSuggestValues": true},
            "plain": {"type": "string"},
        },
        "blocks": {"pick": {
            "config": {"table": {"type": "string", "hasSuggestValues": true}},
            "inputs": {"default": {"hasOnEvent": true, "config": {
                "column": {"type": "string", "hasSuggestValues": true},
                "schema": {"type": "string"},
            }}},
        }},
    })
}

/// Answers with what it was given; some words make it do something else.
fn script() -> Script {
    Arc::new(|seen: &Seen| {
        if seen.kind != Kind::Suggest {
            return vec![];
        }
        match seen.given["searchPhrase"].as_str() {
            Some("throw") => return vec![Do::Throw("the database is closed")],
            Some("odd") => return vec![Do::Return(json!(["a"]))],
            _ => {}
        }
        let value = json!({"label": "seen", "value": {
            "search": seen.given["searchPhrase"], "app": seen.given["app"]["config"],
            "block": seen.given["block"]["config"], "input": seen.given["staticInputConfig"],
        }});
        vec![Do::Return(json!({"suggestedValues": [value], "more": 1}))]
    })
}

#[async_std::test]
async fn fields_of_apps_and_blocks_suggest_values() {
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({"region": "'eu'"})).await;
    let path = format!("/api/v1/installations/{}/suggestions", app.installation);
    let ask = json!({"field": "region", "searchPhrase": "e"});
    let said = fixture.post(&path, &ask).await;
    let seen = json!({"search": "e", "app": {"region": "eu"}, "block": null, "input": null});
    let value = json!({"label": "seen", "value": seen});
    assert_eq!(said, json!({"suggestedValues": [value]}));
    let definition = format!(
        "appInstallations: {{test: {{id: {}}}}}\n\
         blocks:\n\
         - name: Pick\n\
         \x20 type: {{appBlock: {{block: pick, appInstallation: test}}}}\n\
         \x20 config: {{table: letters}}\n\
         \x20 inputs: {{default: {{config: {{schema: public}}}}}}\n\
         - {{name: Start, type: {{coreBlock: manualTrigger}}}}\n",
        app.installation
    );
    let flow = flow(&fixture, "f", &definition).await;
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    let block = |name: &str| {
        let mut blocks = blocks.as_array().expect("a list").iter();
        let block = blocks.find(|block| block["name"] == name).expect("there");
        format!(
            "/api/v1/blocks/{}/suggestions",
            block["id"].as_str().expect("an id")
        )
    };
    let pick = block("Pick");
    let said = fixture.post(&pick, &json!({"field": "table"})).await;
    let seen = &said["suggestedValues"][0]["value"];
    assert_eq!(seen["block"], json!({"table": "letters"}), "{said}");
    let column = json!({"input": "default", "field": "column"});
    let said = fixture.post(&pick, &column).await;
    let seen = &said["suggestedValues"][0]["value"];
    assert_eq!(seen["input"], json!({"schema": "public"}), "{said}");
    let column =
        json!({"input": "default", "field": "column", "staticInputConfig": {"schema": "x"}});
    let said = fixture.post(&pick, &column).await;
    let seen = &said["suggestedValues"][0]["value"];
    assert_eq!(seen["input"], json!({"schema": "x"}), "{said}");

    refused(&fixture, [&path, &pick, &block("Start")]).await;
    drop(worker);
    until("the pool has no agent", async || {
        let ask = json!({"field": "region"});
        let (code, reply) = fixture.call("POST", &path, Some(&ask)).await;
        let error = reply["error"].as_str().unwrap_or_default().to_owned();
        (code == 503 && error.contains("has no agent")).then_some(())
    })
    .await;
    assert_eq!(fixture.stop().await, 0);
}

/// Each with one clear sentence.
async fn refused(fixture: &Fixture, [app, pick, start]: [&str; 3]) {
    for (path, ask, status, words) in [
        (app, json!({"field": "plain"}), 400, "suggests no values"),
        (app, json!({"field": "no"}), 400, "no such config field"),
        (
            app,
            json!({"field": "region", "input": "i"}),
            400,
            "for blocks",
        ),
        (
            pick,
            json!({"field": "table", "input": "i"}),
            400,
            "no such input",
        ),
        (start, json!({"field": "x"}), 400, "no such config field"),
        (
            pick,
            json!({"field": "table", "searchPhrase": "throw"}),
            502,
            "database is closed",
        ),
        (
            pick,
            json!({"field": "table", "searchPhrase": "odd"}),
            502,
            "no list",
        ),
    ] {
        let (code, reply) = fixture.call("POST", path, Some(&ask)).await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(
            code == status && error.contains(words),
            "{ask}: {code} {reply}"
        );
    }
}

#[async_std::test]
async fn a_draft_is_asked_with_what_is_written() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let app = draft(&fixture, "test", json!({"plain": "'p'"})).await;
    let path = format!("/api/v1/installations/{}/suggestions", app.installation);
    let ask = json!({"field": "region"});
    let said = until("the app has said what is in it", async || {
        let (code, mut reply) = fixture.call("POST", &path, Some(&ask)).await;
        assert!(code == 200 || code == 409, "{code} {reply}");
        (code == 200).then(|| reply["data"].take())
    })
    .await;
    let seen = &said["suggestedValues"][0]["value"];
    assert_eq!(seen["app"], json!({"plain": "p"}), "{said}");
    assert_eq!(fixture.stop().await, 0);
}
