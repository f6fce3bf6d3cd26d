//! The provider's resources, one request after the other as it sends them.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::{Fixture, until};
use crate::worker::{Do, Script, Seen, Worker};
use crate::{ask, key_for, refused, text};

/// An app with a life cycle, and a block type with one that waits for a person.
fn schema() -> Value {
    json!({
        "config": {"url": {"type": "string", "required": true}, "level": {"type": "number"}},
        "hasOnSync": true, "hasOnDrain": true,
        "blocks": {
            "pass": {
                "inputs": {"default": {"hasOnEvent": true, "config": {"what": {"type": "any"}}}},
                "outputs": {"default": {"order": 0, "possiblePrimaryParents": ["default"]}},
            },
            "stateful": {"hasOnSync": true, "inputs": {}, "outputs": {}},
        },
    })
}

fn script() -> Script {
    Arc::new(|seen: &Seen| match seen.kind {
        Kind::Sync => vec![Do::Return(json!({"newStatus": "ready"}))],
        Kind::Drain => vec![Do::Return(json!({"newStatus": "drained"}))],
        _ => vec![],
    })
}

/// Publishes a version with the command line's requests; answers its id.
async fn published(fixture: &Fixture, app: &str, version: &str) -> String {
    let apps = ask(
        fixture,
        "/cli/apps/list_apps",
        json!({"projectId": fixture.project}),
    )
    .await;
    let apps = apps["apps"].as_array().expect("a list").clone();
    let known = apps.iter().find(|known| known["name"] == app);
    let app = match known {
        Some(known) => text(&known["id"]),
        None => {
            let body = json!({"name": app, "projectId": fixture.project});
            text(&ask(fixture, "/cli/apps/create_app", body).await["app"]["id"])
        }
    };
    let code = format!("// {app} {version}");
    let body = json!({"customAppId": app, "version": version, "code": code, "uiCode": ""});
    let made = ask(fixture, "/cli/apps/create_version", body).await;
    let id = text(&made["appVersion"]["id"]);
    let publish = json!({"id": id, "draft": false});
    ask(fixture, "/cli/apps/update_version", publish).await;
    id
}

async fn installed(fixture: &Fixture, version: &str, name: &str) -> String {
    let body = json!({
        "projectId": fixture.project, "name": name,
        "app": {"versionId": version, "custom": true}, "styleOverride": null,
    });
    let made = ask(fixture, "/provider/apps/create_installation", body).await;
    assert_eq!(made["draft"], true);
    text(&made["id"])
}

async fn reaches(fixture: &Fixture, id: &str, wanted: &str) {
    until(&format!("the installation is {wanted}"), async || {
        let path = "/provider/apps/get_installation_status";
        let shown = ask(fixture, path, json!({"id": id})).await;
        // Whatever else is shown meanwhile, the provider goes on polling.
        let status = text(&shown["status"]);
        assert!(
            status == wanted || ["draft", "in_progress"].contains(&status.as_str()),
            "{status}"
        );
        (status == wanted).then_some(())
    })
    .await;
}

/// The provider's `WaitForDeleted`: anything but these states is an error to it.
async fn goes(fixture: &Fixture, id: &str) {
    until("the installation is gone", async || {
        let path = "/provider/apps/get_installation";
        let (status, reply) = fixture.call("POST", path, Some(&json!({"id": id}))).await;
        if status == 404 {
            assert_eq!(reply["error"], "not found");
            return Some(());
        }
        let status = text(&reply["data"]["status"]);
        assert!(
            ["draining", "drained"].contains(&status.as_str()),
            "{reply}"
        );
        None
    })
    .await;
}

const FLOW: &str = "\
appInstallations:
  test: { appName: Test, appVersion: 1.0.0, id: overridden-by-the-mapping }
blocks:
  - name: First
    type: { appBlock: { block: pass, appInstallation: test } }
    position: [10, 20]
    inputs: { default: { config: { what: !expr \"1 + 1\" } } }
  - name: Keeper
    type: { appBlock: { block: stateful, appInstallation: test } }
  - name: Pause
    type: { coreBlock: sleep }
    inputs: { default: { links: [{ block: First, output: default }], config: { sleep: 1 } } }
";

#[async_std::test]
async fn an_installation_and_a_flow_live_and_go() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    published(&fixture, "Test", "1.0.0").await;
    let body = json!({"name": "Test"});
    let version = ask(&fixture, "/provider/apps/get_version_id", body).await;
    let id = installed(&fixture, &text(&version["id"]), "test").await;
    let config = json!({"id": id, "configFields": {"url": "'http://x'", "level": "1"}});
    let changed = ask(
        &fixture,
        "/provider/apps/update_installation_config",
        config,
    )
    .await;
    assert!(changed["draft"].is_boolean());
    ask(
        &fixture,
        "/provider/apps/confirm_installation",
        json!({"id": id}),
    )
    .await;
    let path = "/provider/apps/confirm_installation";
    let error = refused(&fixture, path, json!({"id": id})).await;
    assert_eq!(error, "app installation is not a draft");
    reaches(&fixture, &id, "ready").await;
    let shown = ask(
        &fixture,
        "/provider/apps/get_installation",
        json!({"id": id}),
    )
    .await;
    assert_eq!(
        shown,
        json!({
            "name": "test", "status": "ready", "styleOverride": null,
            "app": {"versionId": version["id"], "custom": true},
            "configFields": {"url": "'http://x'", "level": "1"},
        })
    );
    let flow = the_flow(&fixture, &id).await;
    // As it is destroyed: what depends on something goes before it.
    let path = "/provider/apps/delete_installation";
    let error = refused(&fixture, path, json!({"id": id})).await;
    assert!(error.contains("remove the block first"), "{error}");
    ask(&fixture, "/provider/flows/delete", json!({"id": flow})).await;
    let error = refused(&fixture, "/provider/flows/get", json!({"flowId": flow})).await;
    assert_eq!(error, "not found");
    ask(&fixture, path, json!({"id": id})).await;
    goes(&fixture, &id).await;
    assert_eq!(fixture.stop().await, 0);
}

/// A flow made, planned, exported, and its block confirmed.
async fn the_flow(fixture: &Fixture, installation: &str) -> String {
    let body = json!({"projectId": fixture.project, "name": "f"});
    let flow = ask(fixture, "/provider/flows/create", body).await;
    let flow = text(&flow["flow"]["id"]);
    let wanted = json!({
        "flowId": flow, "definition": FLOW, "appInstallationMapping": {"test": installation},
    });
    let plan = ask(fixture, "/provider/flows/plan_changes", wanted.clone()).await;
    let operations = plan["plan"]["operations"].as_array().expect("a list");
    assert!(
        operations.len() == 4 && operations.iter().all(|one| one["type"].is_string()),
        "{plan}"
    );
    assert!(text(&plan["readablePlan"]).contains("First"));
    let applied = ask(fixture, "/provider/flows/apply_config", wanted.clone()).await;
    assert_eq!(applied, json!({}));
    let nothing = json!({"plan": {"operations": []}, "readablePlan": null});
    let plan = ask(fixture, "/provider/flows/plan_changes", wanted).await;
    assert_eq!(plan, nothing);
    let path = "/provider/flows/export_definition";
    let exported = ask(fixture, path, json!({"flowId": flow})).await;
    let again = json!({"flowId": flow, "definition": exported["definition"]});
    let plan = ask(fixture, "/provider/flows/plan_changes", again).await;
    assert_eq!(plan, nothing);
    let shown = ask(fixture, "/provider/flows/get", json!({"flowId": flow})).await;
    let blocks = shown["blocks"].as_object().expect("a map");
    let names: Vec<_> = blocks.keys().map(String::as_str).collect();
    assert_eq!(
        (&shown["name"], names),
        (&json!("f"), vec!["First", "Keeper", "Pause"])
    );
    confirmed(fixture, &text(&blocks["Keeper"]["id"])).await;
    ask(
        fixture,
        "/provider/flows/update",
        json!({"id": flow, "name": "g"}),
    )
    .await;
    let shown = ask(fixture, "/provider/flows/get", json!({"flowId": flow})).await;
    assert_eq!(shown["name"], "g");
    flow
}

async fn confirmed(fixture: &Fixture, block: &str) {
    let status = async || {
        let path = "/provider/flows/get_entity_lifecycle_status";
        let shown = ask(fixture, path, json!({"entityId": block})).await;
        text(&shown["status"])
    };
    assert_eq!(status().await, "draft");
    let path = "/provider/flows/confirm_entity_lifecycle";
    assert_eq!(ask(fixture, path, json!({"id": block})).await, json!({}));
    until("the block is ready", async || {
        (status().await == "ready").then_some(())
    })
    .await;
    let error = refused(fixture, path, json!({"id": block})).await;
    assert_eq!(error, "block is not a draft");
}

/// With `wait_for_ready = false` the provider applies at once, while the app
/// has not said yet which blocks it has.
#[async_std::test]
async fn a_flow_waits_for_an_app_that_was_installed_a_moment_ago() {
    let fixture = Fixture::start().await;
    let version = published(&fixture, "Test", "1.0.0").await;
    let id = installed(&fixture, &version, "test").await;
    let body = json!({"projectId": fixture.project, "name": "f"});
    let flow = ask(&fixture, "/provider/flows/create", body).await;
    let wanted = json!({
        "flowId": flow["flow"]["id"], "definition": FLOW, "appInstallationMapping": {"test": id},
    });
    // The agent comes while the request waits.
    let applied = ask(&fixture, "/provider/flows/apply_config", wanted);
    let coming = async {
        async_std::task::yield_now().await;
        Worker::start(&fixture, schema(), script()).await
    };
    let (applied, _worker) = futures::join!(applied, coming);
    assert_eq!(applied, json!({}));
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn an_installation_is_changed() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let first = published(&fixture, "Test", "1.0.0").await;
    let second = published(&fixture, "Test", "1.1.0").await;
    let id = installed(&fixture, &first, "test").await;
    let configure = async |fields: Value| {
        let body = json!({"id": id, "configFields": fields});
        ask(&fixture, "/provider/apps/update_installation_config", body).await
    };
    configure(json!({"url": "'a'", "level": "2"})).await;
    ask(
        &fixture,
        "/provider/apps/confirm_installation",
        json!({"id": id}),
    )
    .await;
    reaches(&fixture, &id, "ready").await;
    assert_eq!(
        configure(json!({"level": null})).await,
        json!({"draft": false})
    );
    let field = async |key: &str| {
        let path = "/provider/apps/get_installation_config_field";
        ask(&fixture, path, json!({"id": id, "key": key})).await
    };
    assert_eq!(field("url").await, json!({"value": "'a'"}));
    assert_eq!(field("level").await, json!({"value": null}));
    let style = json!({"iconUrl": "https://x/y.svg", "color": ""});
    let body = json!({"id": id, "name": "other", "styleOverride": style});
    let path = "/provider/apps/update_installation_metadata";
    assert_eq!(ask(&fixture, path, body).await, json!({"draft": false}));
    let body = json!({"id": id, "app": {"versionId": second, "custom": true}});
    let path = "/provider/apps/update_installation_version";
    assert_eq!(ask(&fixture, path, body).await, json!({"draft": false}));
    reaches(&fixture, &id, "ready").await;
    let shown = ask(
        &fixture,
        "/provider/apps/get_installation",
        json!({"id": id}),
    )
    .await;
    assert_eq!(
        (&shown["name"], &shown["styleOverride"]),
        (&json!("other"), &style)
    );
    assert_eq!(shown["app"]["versionId"], second.as_str());
    assert_eq!(shown["configFields"], json!({"url": "'a'"}));
    ask(
        &fixture,
        "/provider/apps/delete_installation",
        json!({"id": id}),
    )
    .await;
    goes(&fixture, &id).await;
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_name_means_the_newest_published_version() {
    let fixture = Fixture::start().await;
    published(&fixture, "Test", "1.2.0").await;
    let newest = published(&fixture, "Test", "1.10.0").await;
    let older = published(&fixture, "Test", "1.9.0").await;
    published(&fixture, "Test", "2.0.0-rc.1").await;
    let path = "/provider/apps/get_version_id";
    let found = ask(&fixture, path, json!({"name": "Test"})).await;
    assert_eq!(found, json!({"id": newest}));
    let found = ask(&fixture, path, json!({"name": "Test", "version": "1.9.0"})).await;
    assert_eq!(found, json!({"id": older}));
    for body in [
        json!({"name": "Nobody"}),
        json!({"name": "Test", "version": "3.0.0"}),
        json!({"name": "Test", "registry": "nowhere"}),
    ] {
        let error = refused(&fixture, path, body).await;
        assert!(error.contains("not found"), "{error}");
    }
    // The key decides whose app it is.
    let other = fixture
        .post("/api/v1/projects", &json!({"name": "other"}))
        .await;
    let other = text(&other["id"]);
    let key = key_for(&fixture, &[&other]).await;
    let (status, _) = fixture
        .call_as(&key, "POST", path, br#"{"name": "Test"}"#)
        .await;
    assert_eq!(status, 404);
    let app = json!({"project": other, "name": "Test"});
    let app = text(&fixture.post("/api/v1/apps", &app).await["id"]);
    let version = json!({"version": "0.0.1", "code": "// other"});
    fixture
        .post(&format!("/api/v1/apps/{app}/versions"), &version)
        .await;
    let error = refused(&fixture, path, json!({"name": "Test"})).await;
    assert!(error.contains("2 custom apps"), "{error}");
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn what_does_not_fit_is_refused() {
    let fixture = Fixture::start().await;
    let version = published(&fixture, "Test", "1.0.0").await;
    let id = installed(&fixture, &version, "test").await;
    let p = &fixture.project;
    let app = json!({"versionId": version, "custom": true});
    for (path, body, words) in [
        (
            "apps/create_installation",
            json!({"projectId": "x", "name": "n", "app": app}),
            "`projectId` names x, which does not exist",
        ),
        (
            "apps/create_installation",
            json!({"projectId": p, "name": "test", "app": app}),
            "`test` exists",
        ),
        (
            "apps/create_installation",
            json!({"projectId": p, "name": "n"}),
            "`app` is missing",
        ),
        (
            "apps/create_installation",
            json!({"projectId": p, "name": "n", "app": {"versionId": "v", "custom": true}}),
            "app version v does not exist",
        ),
        (
            "apps/create_installation",
            json!({"projectId": p, "name": "n", "app": {"versionId": version, "custom": false}}),
            "`custom`",
        ),
        (
            "apps/update_installation_config",
            json!({"id": id, "configFields": {"url": 1}}),
            "`configFields`",
        ),
        (
            "apps/update_installation_config",
            json!({"id": id, "configFields": {"url": "x".repeat(300_000)}}),
            "more than",
        ),
        (
            "flows/create",
            json!({"projectId": "x", "name": "f"}),
            "`projectId` names x, which does not exist",
        ),
        (
            "flows/apply_config",
            json!({"flowId": "x", "definition": ""}),
            "not found",
        ),
        ("nothing/at_all", json!({}), "not part of this API"),
    ] {
        let error = refused(&fixture, &format!("/provider/{path}"), body).await;
        assert!(error.contains(words), "{path}: {error}");
    }
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn what_is_gone_is_said_in_the_words_the_provider_knows() {
    let fixture = Fixture::start().await;
    for (path, field) in [
        ("apps/get_installation", "id"),
        ("apps/get_installation_status", "id"),
        ("apps/update_installation_config", "id"),
        ("apps/confirm_installation", "id"),
        ("apps/delete_installation", "id"),
        ("flows/get", "flowId"),
        ("flows/delete", "id"),
        ("flows/plan_changes", "flowId"),
        ("flows/export_definition", "flowId"),
        ("flows/get_entity_lifecycle_status", "entityId"),
        ("flows/confirm_entity_lifecycle", "id"),
    ] {
        let body = json!({field: "nobody"});
        let error = refused(&fixture, &format!("/provider/{path}"), body).await;
        assert_eq!(error, "not found", "{path}");
    }
    let (status, _) = fixture.call("GET", "/provider/flows/get", None).await;
    assert_eq!(status, 404);
    assert_eq!(fixture.stop().await, 0);
}
