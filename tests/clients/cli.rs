//! The command line that builds apps: list, create, draft, update, publish.

use std::sync::Arc;

use serde_json::json;
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, until};
use crate::worker::{Do, Worker, status};
use crate::{ask, key_for, refused, text};

#[async_std::test]
async fn an_app_is_made_drafted_updated_and_published() {
    let fixture = Fixture::start().await;
    // The one answer without an envelope.
    let (status, reply) = fixture
        .call("POST", "/cli/projects", Some(&json!({})))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        reply,
        json!({"projects": [{"id": fixture.project, "name": "p"}]})
    );
    let app = app_of(&fixture).await;
    let apps = ask(
        &fixture,
        "/cli/apps/list_apps",
        json!({"projectId": fixture.project}),
    )
    .await;
    assert_eq!(apps, json!({"apps": [{"id": app, "name": "My App"}]}));
    let made = ask(
        &fixture,
        "/cli/apps/create_version",
        json!({"customAppId": app, "version": "1.0.0", "code": "// one", "uiCode": ""}),
    )
    .await;
    let id = text(&made["appVersion"]["id"]);
    let draft = json!({"id": id, "version": "1.0.0", "draft": true});
    let version = ask(&fixture, "/cli/apps/get_version", json!({"id": id})).await;
    assert_eq!(version, json!({"appVersion": draft}));
    let before = fixture.get(&format!("/api/v1/versions/{id}")).await;
    ask(
        &fixture,
        "/cli/apps/update_version",
        json!({"id": id, "code": "// two", "uiCode": "// ui"}),
    )
    .await;
    let after = fixture.get(&format!("/api/v1/versions/{id}")).await;
    assert_ne!(before["digest"], after["digest"]);
    assert!(
        after["ui_digest"].is_string() && after["draft"] == true,
        "{after}"
    );
    let publish = json!({"id": id, "draft": false});
    ask(&fixture, "/cli/apps/update_version", publish.clone()).await;
    ask(&fixture, "/cli/apps/update_version", publish).await;
    let versions = ask(
        &fixture,
        "/cli/apps/list_versions",
        json!({"customAppId": app}),
    )
    .await;
    let published = json!([{"id": id, "version": "1.0.0", "draft": false}]);
    assert_eq!(versions, json!({"versions": published}));
    let change = json!({"id": id, "code": "// three", "uiCode": ""});
    let error = refused(&fixture, "/cli/apps/update_version", change).await;
    assert!(error.contains("not a draft"), "{error}");
    let error = refused(
        &fixture,
        "/cli/apps/update_version",
        json!({"id": id, "draft": true}),
    )
    .await;
    assert!(error.contains("never becomes a draft"), "{error}");
    // Nothing of that has changed it, also for a gateway that starts again.
    let fixture = fixture.restart().await;
    let version = fixture.get(&format!("/api/v1/versions/{id}")).await;
    assert_eq!(version["digest"], after["digest"]);
    assert_eq!(fixture.stop().await, 0);
}

async fn app_of(fixture: &Fixture) -> String {
    let app = ask(
        fixture,
        "/cli/apps/create_app",
        json!({
            "name": "My App", "description": "does things", "projectId": fixture.project,
            "blockStyle": {"color": "#fff", "iconUrl": "/static/empty.svg"},
        }),
    )
    .await;
    text(&app["app"]["id"])
}

#[async_std::test]
async fn what_does_not_fit_is_refused() {
    let fixture = Fixture::start().await;
    let app = json!({"name": "A", "description": "", "projectId": fixture.project, "blockStyle": {"color": "#fff", "iconUrl": ""}});
    let app = text(&ask(&fixture, "/cli/apps/create_app", app).await["app"]["id"]);
    for (path, body, words) in [
        ("/cli/apps/list_apps", json!({}), "`projectId` is missing"),
        (
            "/cli/apps/list_apps",
            json!({"projectId": "x"}),
            "`projectId` names x, which does not exist",
        ),
        (
            "/cli/apps/create_app",
            json!({"projectId": "x", "name": "A"}),
            "does not exist",
        ),
        (
            "/cli/apps/create_app",
            json!({"projectId": fixture.project, "name": "A", "description": "x".repeat(2_001)}),
            "more than 2000",
        ),
        (
            "/cli/apps/create_app",
            json!({"projectId": fixture.project, "name": "A", "blockStyle": {"color": 7}}),
            "`blockStyle.color`",
        ),
        (
            "/cli/apps/list_versions",
            json!({"customAppId": "x"}),
            "not found",
        ),
        ("/cli/apps/get_version", json!({"id": "x"}), "not found"),
        (
            "/cli/apps/update_version",
            json!({"id": "x", "draft": false}),
            "not found",
        ),
        (
            "/cli/apps/create_version",
            json!({"customAppId": app, "version": "1", "code": "//"}),
            "not a semantic version",
        ),
        (
            "/cli/apps/create_version",
            json!({"customAppId": app, "version": "1.0.0", "code": " \n"}),
            "empty",
        ),
        ("/cli/apps/nothing", json!({}), "not part of this API"),
    ] {
        let error = refused(&fixture, path, body).await;
        assert!(error.contains(words), "{path}: {error}");
    }
    a_stranger_sees_nothing(&fixture, &app).await;
    assert_eq!(fixture.stop().await, 0);
}

/// A key of another project sees neither the project nor what is in it.
async fn a_stranger_sees_nothing(fixture: &Fixture, app: &str) {
    let other = fixture
        .post("/api/v1/projects", &json!({"name": "other"}))
        .await;
    let other = text(&other["id"]);
    let key = key_for(fixture, &[&other]).await;
    let (_, reply) = fixture.call_as(&key, "POST", "/cli/projects", b"{}").await;
    assert_eq!(reply, json!({"projects": [{"id": other, "name": "other"}]}));
    for (path, body) in [
        ("/cli/apps/list_apps", json!({"projectId": fixture.project})),
        ("/cli/apps/list_versions", json!({"customAppId": app})),
    ] {
        let body = body.to_string();
        let (status, reply) = fixture.call_as(&key, "POST", path, body.as_bytes()).await;
        assert_eq!(status, 403, "{path}: {reply}");
    }
    let (status, _) = fixture
        .call_as("sfapi_wrong", "POST", "/cli/projects", b"{}")
        .await;
    assert_eq!(status, 401);
}

#[async_std::test]
async fn an_installed_draft_runs_its_newest_code() {
    let fixture = Fixture::start().await;
    let schema = json!({"hasOnSync": true, "config": {}, "blocks": {}});
    let script = Arc::new(|_: &_| vec![Do::Return(json!({"newStatus": "ready"}))]);
    let worker = Worker::start(&fixture, schema, script).await;
    let app = json!({"name": "A", "projectId": fixture.project});
    let app = text(&ask(&fixture, "/cli/apps/create_app", app).await["app"]["id"]);
    let version = json!({"customAppId": app, "version": "0.1.0", "code": "// one"});
    let version = ask(&fixture, "/cli/apps/create_version", version).await;
    let version = text(&version["appVersion"]["id"]);
    let installation = json!({
        "project": fixture.project, "name": "a", "version": version, "confirm": true,
    });
    let installation = fixture.post("/api/v1/installations", &installation).await;
    let path = format!("/api/v1/installations/{}", text(&installation["id"]));
    status(&fixture, &path, "ready").await;
    let (described, synced) = (
        worker.of_kind(Kind::Describe).len(),
        worker.of_kind(Kind::Sync).len(),
    );
    let update = json!({"id": version, "code": "// two", "uiCode": ""});
    ask(&fixture, "/cli/apps/update_version", update).await;
    until("the new code was asked and has run", async || {
        let is_new = worker.of_kind(Kind::Describe).len() > described
            && worker.of_kind(Kind::Sync).len() > synced;
        is_new.then_some(())
    })
    .await;
    status(&fixture, &path, "ready").await;
    assert_eq!(fixture.stop().await, 0);
}
