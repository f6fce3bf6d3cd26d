//! The lives of apps and blocks, and what handlers leave behind.

use serde_json::{Value, json};

use crate::flow::bodies;
use crate::house::House;
use crate::web::request;

#[async_std::test]
async fn an_app_waits_for_its_user_and_goes_on_when_told() {
    let house = House::enter().await;
    let app = house
        .draft("lifecycle", "an app with a login", json!({}))
        .await;
    app.status("draft").await;
    assert_eq!(app.confirm().await["status"], "in_progress");
    let shown = house
        .until("the app asks for its user", async || {
            let shown = app.shown().await;
            (shown["prompts"].as_object()?.len() == 2).then_some(shown)
        })
        .await;
    let prompt = &shown["prompts"]["login"];
    assert_eq!(prompt["description"], "**Log in** to go on");
    let form = json!({"url": format!("{}/login", app.url), "method": "POST", "formFields": {"state": "s1"}});
    assert_eq!(prompt["redirect"], form);
    house
        .until("the app says what it waits for", async || {
            let shown = app.shown().await;
            (shown["status_text"] == "waiting for you to log in").then_some(())
        })
        .await;
    // A sync that names no status leaves it as it was.
    app.sync().await;
    house
        .until("the app has nothing new to say", async || {
            app.log()
                .await
                .contains(&"nothing new".to_owned())
                .then_some(())
        })
        .await;
    let shown = app.shown().await;
    assert_eq!(shown["status"], "in_progress");
    assert_eq!(shown["status_text"], "waiting for you to log in");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let url = format!("{}/login", app.url);
    let answer = request("POST", &url, &headers, b"user=ada&state=s1").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    let ready = app.status("ready").await;
    assert_eq!(
        ready["signals"],
        json!({"user": "ada", "undeclared": "login"})
    );
    let prompts = ready["prompts"].as_object().expect("an object");
    assert_eq!(prompts.keys().collect::<Vec<_>>(), ["read"]);
}

#[async_std::test]
async fn syncs_that_fail_say_why_without_the_secrets_and_recover() {
    let house = House::enter().await;
    let config = json!({"mode": "'throw'", "token": "'tok' + 'en-of-a-user'"});
    let app = house.draft("lifecycle", "an app that fails", config).await;
    app.confirm().await;
    let failed = app.status("failed").await;
    let text = failed["status_text"].as_str().expect("a text");
    assert!(text.contains("a [redacted] was thrown"), "{text}");
    app.configure(json!({"mode": "'fail'"})).await;
    house
        .until("the app fails by its own word", async || {
            let shown = app.shown().await;
            (shown["status_text"] == "it was told to fail").then_some(())
        })
        .await;
    assert_eq!(app.shown().await["status"], "failed");
    app.configure(json!({"mode": null})).await;
    house
        .until("the app asks for its user", async || {
            let shown = app.shown().await;
            (shown["prompts"].get("login").is_some() && shown["status"] == "in_progress")
                .then_some(())
        })
        .await;
}

#[async_std::test]
async fn what_nobody_awaits_is_done_all_the_same() {
    const BLOCKS: &str = "
- name: Counter
  type: {appBlock: {block: counter, appInstallation: app}}
- name: Hasty
  type: {appBlock: {block: hasty, appInstallation: app}}";
    let house = House::enter().await;
    let app = house.install_logged_in("lifecycle").await;
    let flow = app.flow(BLOCKS).await;
    assert_eq!(flow.block("Counter").await["signals"]["syncs"], 1);
    flow.trigger("Counter", "default", json!({})).await;
    house
        .until("the counter has synced again", async || {
            let syncs = flow.block("Counter").await["signals"]["syncs"].clone();
            (syncs == 2).then_some(())
        })
        .await;

    let event = flow.trigger("Hasty", "default", json!({})).await;
    let failed = flow.delivered(&event).await;
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["error"], "TypeError: thrown on purpose");
    assert!(flow.pending().await.is_empty(), "it was cancelled");
    let emitted = flow.emitted("Hasty", "default", 1).await;
    assert_eq!(bodies(&emitted), [json!({"before": "the throw"})]);
    let kept = flow.kv("Hasty", "last").await;
    assert_eq!(
        kept,
        [("last words".to_owned(), Value::from(event.as_str()))]
    );
    assert_eq!(flow.log(&event).await, [format!("about to throw {event}")]);
}

#[async_std::test]
async fn node_is_there_and_each_line_of_log_is_its_invocations_own() {
    const BLOCKS: &str = "
- name: Builtins
  description: of Node
  type: {appBlock: {block: builtins, appInstallation: app}}
- name: Busy
  type: {appBlock: {block: busy, appInstallation: app}}
  inputs: {default: {links: [{block: Names, output: default}], config: {name: !expr outputs.names}}}
- name: Names
  type: {coreBlock: manualTrigger}";
    let house = House::enter().await;
    let app = house.install_logged_in("lifecycle").await;
    let flow = app.flow(BLOCKS).await;
    flow.trigger("Builtins", "default", json!({})).await;
    let names = ["ada", "bob", "cyd", "dan"];
    for name in names {
        flow.trigger("Names", "default", json!(name)).await;
    }
    let right = flow.emitted("Busy", "default", names.len()).await;
    for event in &right {
        assert_eq!(event["body"], json!({"right": true}));
    }
    flow.quiet().await;
    for event in flow.emitted("Names", "default", names.len()).await {
        let name = event["body"].as_str().expect("a name");
        let mut wanted: Vec<_> = (0..5).map(|line| format!("{name} line {line}")).collect();
        wanted.push(format!("{name} is done {{ of: 100 }}"));
        wanted.push(format!("{name} has 100"));
        let id = event["id"].as_str().expect("an id");
        assert_eq!(flow.log(id).await, wanted, "these and no other");
    }
    assert_eq!(flow.block_log("Busy").await.len(), names.len() * 7);
    let used = flow.emitted("Builtins", "default", 1).await;
    let wanted = json!({
        "same": true, "served": "served", "web": true,
        "hmac": "xdS+GZLVDTtB+aISkvxnoooUhvxkoFF9N/mvhH4HMt4=",
        "uuid": 36, "localhost": "127.0.0.1", "base64": "there and back",
        "url": "https://a.example/b?c=d", "fetch": "function",
        "required": "function", "dirname": "string",
        "about": ["ada", true, "Builtins", "of Node"],
    });
    assert_eq!(used[0]["body"], wanted);
}

#[async_std::test]
async fn a_draft_waits_for_a_person_and_a_drain_that_failed_is_tried_again() {
    const BLOCKS: &str = "
- name: Draft
  type: {appBlock: {block: draft, appInstallation: app}}";
    let house = House::enter().await;
    let app = house.install_logged_in("lifecycle").await;
    let mut flow = app.unready_flow(BLOCKS).await;
    flow.block_status("Draft", "draft").await;
    flow.tell("Draft", "confirm").await;
    let drifted = flow.block_status("Draft", "drifted").await;
    assert_eq!(drifted["status_text"], "not as it was left");
    let (flow_id, id) = (flow.id.clone(), flow.block_id("Draft").to_owned());
    let path = format!("/api/v1/blocks/{id}");
    flow.apply(&app, "").await;
    let shown = house
        .until("the drain has failed", async || {
            let (_, reply) = house.call("GET", &path, None).await;
            (reply["data"]["status"] == "draining_failed").then_some(reply["data"].clone())
        })
        .await;
    assert_eq!(shown["status_text"], "it is in use");
    // Removing the whole flow tries again.
    let path_of_flow = format!("/api/v1/flows/{flow_id}");
    let (status, reply) = house.call("DELETE", &path_of_flow, None).await;
    assert_eq!(status, 200, "{reply}");
    house
        .until("the block is gone", async || {
            (house.call("GET", &path, None).await.0 == 404).then_some(())
        })
        .await;
    assert_eq!(app.kv(&id).await, [(id.clone(), json!(2))]);
}
