//! The lives of installations and blocks.

use serde_json::json;
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, until};
use crate::flows::{schema, script};
use crate::worker::{Worker, draft, install, status};

#[async_std::test]
async fn an_installation_waits_for_an_agent_and_says_so() {
    let fixture = Fixture::start().await;
    let app = draft(&fixture, "test", json!({})).await;
    let path = format!("/api/v1/installations/{}", app.installation);
    assert_eq!(fixture.get(&path).await["status"], "draft");
    let confirmed = fixture.post(&format!("{path}/confirm"), &json!({})).await;
    assert_eq!(confirmed["status"], "in_progress");
    let text = confirmed["status_text"].as_str().expect("a text");
    assert!(text.contains("an agent of the pool default"), "{text}");
    let (code, reply) = fixture.call("POST", &format!("{path}/confirm"), None).await;
    assert_eq!(code, 409);
    assert_eq!(reply["error"], "app installation is not a draft");
    let worker = Worker::start(&fixture, schema(), script()).await;
    status(&fixture, &path, "ready").await;
    assert_eq!(worker.of_kind(Kind::Sync).len(), 1);
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn an_installation_syncs_again_and_is_removed() {
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({"url": "\"one\""})).await;
    let path = format!("/api/v1/installations/{}", app.installation);
    let change = json!({"config": {"url": "\"two\""}});
    let (code, reply) = fixture
        .call("PATCH", &format!("{path}/config"), Some(&change))
        .await;
    assert_eq!(code, 200, "{reply}");
    until("the app has synced again", async || {
        let syncs = worker.of_kind(Kind::Sync);
        let last = syncs.last()?;
        (last.given["app"]["config"]["url"] == "two").then_some(())
    })
    .await;
    status(&fixture, &path, "ready").await;
    let wrong = json!({"config": {"url": "12"}});
    let (code, reply) = fixture
        .call("PATCH", &format!("{path}/config"), Some(&wrong))
        .await;
    assert_eq!(code, 400);
    assert!(
        reply["error"]
            .as_str()
            .is_some_and(|error| error.contains("`url`")),
        "{reply}"
    );
    assert_eq!(fixture.call("DELETE", &path, None).await.0, 200);
    assert_eq!(fixture.call("GET", &path, None).await.0, 404);
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn code_is_described_wherever_there_is_an_agent() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let app = json!({"project": fixture.project, "name": "app"});
    let app = fixture.post("/api/v1/apps", &app).await;
    let path = format!(
        "/api/v1/apps/{}/versions",
        app["id"].as_str().expect("an id")
    );
    let version = json!({"version": "1.0.0", "code": "// code"});
    let version = fixture.post(&path, &version).await;
    let install = async |name: &str, pool: Option<&str>| {
        let installation = json!({
            "project": fixture.project, "name": name, "version": version["id"],
            "pool": pool, "confirm": true,
        });
        let made = fixture.post("/api/v1/installations", &installation).await;
        format!(
            "/api/v1/installations/{}",
            made["id"].as_str().expect("an id")
        )
    };
    // The first waits for an agent that does not come; the second need not.
    let first = install("first", Some(&fixture.pool)).await;
    let second = install("second", None).await;
    status(&fixture, &second, "ready").await;
    let shown = fixture.get(&first).await;
    assert_eq!(shown["status"], "in_progress");
    assert_eq!(shown["status_text"], "Waiting for an agent of the pool p");
    assert_eq!(fixture.stop().await, 0);
}
