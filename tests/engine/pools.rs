//! Which pool runs what.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::Fixture;
use crate::flows::{schema, script};
use crate::worker::{Do, Script, Seen, Worker, flow, quiet, status, trigger};

/// Publishes an app and installs it in a pool; answers status and reply.
async fn install_in(fixture: &Fixture, pool: &str) -> (u16, Value) {
    let app = json!({"project": fixture.project, "name": format!("app-{pool}")});
    let app = fixture.post("/api/v1/apps", &app).await;
    let path = format!(
        "/api/v1/apps/{}/versions",
        app["id"].as_str().expect("an id")
    );
    let version = json!({"version": "1.0.0", "code": "// code"});
    let version = fixture.post(&path, &version).await;
    let installation = json!({
        "project": fixture.project, "name": "test", "version": version["id"],
        "pool": pool, "confirm": true,
    });
    fixture
        .call("POST", "/api/v1/installations", Some(&installation))
        .await
}

/// A pool that no project may use.
async fn hidden(fixture: &Fixture) -> String {
    let pool = fixture
        .post("/api/v1/pools", &json!({"name": "hidden"}))
        .await;
    pool["id"].as_str().expect("an id").to_owned()
}

#[async_std::test]
async fn code_runs_in_its_pool_and_expressions_in_the_default_one() {
    let fixture = Fixture::start().await;
    let (code, reply) = install_in(&fixture, &hidden(&fixture).await).await;
    assert_eq!(code, 403, "{reply}");
    let elsewhere = Worker::start(&fixture, schema(), script()).await;
    let (code, reply) = install_in(&fixture, &fixture.pool).await;
    assert_eq!(code, 201, "{reply}");
    let id = reply["data"]["id"].as_str().expect("an id");
    let path = format!("/api/v1/installations/{id}");
    let shown = fixture.get(&path).await;
    assert_eq!(shown["status"], "in_progress");
    let text = shown["status_text"].as_str().expect("a text");
    assert_eq!(text, "Waiting for an agent of the pool p");
    let own = Worker::of_pool(&fixture, &fixture.pool, schema(), script()).await;
    status(&fixture, &path, "ready").await;
    let definition = format!(
        "appInstallations: {{test: {{id: {id}}}}}\n\
         blocks:\n\
         - {{name: First, type: {{appBlock: {{block: pass, appInstallation: test}}}}}}\n\
         - name: Next\n\
         \x20 type: {{appBlock: {{block: pass, appInstallation: test}}}}\n\
         \x20 inputs: {{default: {{links: [{{block: First, output: default}}], config: {{what: !expr outputs.first}}}}}}\n"
    );
    let flow = flow(&fixture, "f", &definition).await;
    trigger(&fixture, &flow, "First", json!({})).await;
    assert_eq!(quiet(&fixture, &flow).await.len(), 3);
    let kinds = |worker: &Worker| worker.seen().iter().map(|it| it.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&elsewhere), [Kind::Evaluate]);
    assert_eq!(
        kinds(&own),
        [Kind::Describe, Kind::Sync, Kind::Event, Kind::Event]
    );
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_request_is_made_in_the_pool_that_its_block_names() {
    let fixture = Fixture::start().await;
    hidden(&fixture).await;
    let answers: Script = Arc::new(|_: &Seen| {
        vec![Do::Return(
            json!({"statusCode": 204, "headers": {}, "rawBody": ""}),
        )]
    });
    let elsewhere = Worker::start(&fixture, json!({"blocks": {}}), answers.clone()).await;
    let own = Worker::of_pool(&fixture, &fixture.pool, json!({"blocks": {}}), answers).await;
    let ask = |name: &str, pool: &str| {
        format!(
            "- name: {name}\n  type: {{coreBlock: httpRequest}}\n  config: {{agentPool: {pool}}}\n  \
             inputs: {{default: {{config: {{url: \"http://h/\"}}}}}}\n"
        )
    };
    let definition = format!(
        "blocks:\n{}{}{}",
        ask("Named", "p"),
        ask("Hidden", "hidden"),
        ask("Nobodys", "nobody")
    );
    let flow = flow(&fixture, "f", &definition).await;
    for block in ["Named", "Hidden", "Nobodys"] {
        trigger(&fixture, &flow, block, json!({})).await;
    }
    let events = quiet(&fixture, &flow).await;
    let first = &events[0]["deliveries"][0];
    assert_eq!(first["state"], "done", "{events:#?}");
    let error = |at: usize| events[at]["deliveries"][0]["error"].clone();
    let failed: Vec<_> = (0..events.len())
        .map(error)
        .filter(|it| !it.is_null())
        .collect();
    assert_eq!(
        failed,
        [
            "`agentPool`: the pool `hidden` is not exposed to the project",
            "`agentPool`: there is no pool `nobody`"
        ]
    );
    assert_eq!(own.of_kind(Kind::Event).len(), 1);
    assert!(elsewhere.seen().is_empty());
    assert_eq!(fixture.stop().await, 0);
}
