//! A signed-webhook app, as outsiders see it.

use std::io::Read;

use flate2::read::GzDecoder;
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::flow::bodies;
use crate::house::{App, House};
use crate::web::{get, request};

const SECRET: &str = "not-to-be-printed";

const BLOCKS: &str = "
- name: Pushes
  type: {appBlock: {block: subscription, appInstallation: app}}
  config: {kind: push}
- name: Other pushes
  type: {appBlock: {block: subscription, appInstallation: app}}
  config: {kind: push}
- name: Pings
  type: {appBlock: {block: subscription, appInstallation: app}}
  config: {kind: ping}
- name: Branch
  type: {coreBlock: transform}
  inputs: {default: {links: [{block: Pushes, output: received}]}}
  outputs: {default: {customization: !expr outputs.pushes.payload.ref.split('/').pop()}}";

async fn installed(house: &std::sync::Arc<House>) -> App {
    let config = json!({"secret": format!("'{SECRET}'")});
    house.install("webhook", config).await
}

fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key");
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[async_std::test]
async fn a_signed_request_reaches_every_block_that_asked_for_its_kind() {
    let house = House::enter().await;
    let app = installed(&house).await;
    let told = app.shown().await["instructions"].clone();
    let told = told.as_str().expect("a text");
    assert!(
        told.contains(&format!("<copyable>{}/webhook", app.url)),
        "{told}"
    );
    let flow = app.flow(BLOCKS).await;
    // Spaces, a line break and a character beyond ASCII: exactly these bytes are signed.
    let body = "{ \"ref\" : \"refs/heads/größe\",\n \"size\": 1 }".as_bytes();
    let signed = signature(body);
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("x-hub-signature-256", signed.as_str()),
        ("X-EVENT-KIND", "push"),
        ("x-delivery", "72d3162e"),
    ];
    let url = format!("{}/webhook", app.url);
    let answer = request("POST", &url, &headers, body).await;
    assert_eq!((answer.status, answer.text()), (202, "accepted"));
    assert_eq!(answer.header("x-took"), Some("it"));

    let branch = flow.emitted("Branch", "default", 1).await;
    assert_eq!(bodies(&branch), [json!("größe")]);
    let received = flow.emitted("Pushes", "received", 1).await;
    let payload = json!({"ref": "refs/heads/größe", "size": 1});
    assert_eq!(
        received[0]["body"],
        json!({"payload": payload, "delivery": "72d3162e", "by": "Pushes"})
    );
    assert!(received[0]["parent"].is_null(), "a new chain: {received:?}");
    flow.emitted("Other pushes", "received", 1).await;
    // What follows the answer is done all the same.
    house
        .until("the app has counted", async || {
            (app.kv("").await == [("received".to_owned(), json!(1))]).then_some(())
        })
        .await;
    let events = flow.quiet().await;
    assert!(flow.of(events, "Pings", "received").is_empty());
}

#[async_std::test]
async fn a_forged_request_changes_nothing_and_its_secret_stays_out_of_the_log() {
    let house = House::enter().await;
    // A field that is not sensitive, with a value that is.
    house.secret("AUDIENCE", "the-hidden-few").await;
    let config = json!({"secret": format!("'{SECRET}'"), "audience": "secrets.AUDIENCE"});
    let app = house.install("webhook", config).await;
    let flow = app.flow(BLOCKS).await;
    let url = format!("{}/webhook", app.url);
    let headers = [
        ("x-hub-signature-256", "sha256=00"),
        ("x-event-kind", "push"),
    ];
    // There is no onSync to wait for: the app takes requests once its config is evaluated.
    let answer = house
        .until("the app takes requests", async || {
            let answer = request("POST", &url, &headers, b"{}").await;
            (answer.status != 409).then_some(answer)
        })
        .await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json(), json!({"error": "the signature is wrong"}));
    let lines = house
        .until("the app has complained", async || {
            let lines = app.log().await;
            (!lines.is_empty()).then_some(lines)
        })
        .await;
    assert_eq!(
        lines,
        ["a request to [redacted] was not signed with [redacted]"]
    );
    assert!(flow.quiet().await.is_empty());
    assert!(app.kv("").await.is_empty());
    // The text of an error is what the caller and the log see.
    let answer = get(&format!("{}/broken", app.url)).await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.text().contains("broke over [redacted]"),
        "{answer:?}"
    );
}

#[async_std::test]
async fn forms_bytes_and_paths_arrive_as_apps_expect_them() {
    let house = House::enter().await;
    let app = installed(&house).await;
    let form = "payload=%7B%22text%22%3A%22caf%C3%A9+au+lait%22%7D&tag=a&tag=b";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let url = format!("{}/command", app.url);
    let answer = request("POST", &url, &headers, form.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({"heard": "café au lait", "all": ["a", "b"], "type": "application/x-www-form-urlencoded"})
    );

    let answer = get(&format!("{}/archive?text=%C3%BCber", app.url)).await;
    assert_eq!(answer.header("content-type"), Some("application/gzip"));
    assert_eq!(
        answer.header("content-disposition"),
        Some("attachment; filename=text.gz")
    );
    let mut text = String::new();
    let mut plain = GzDecoder::new(answer.body.as_slice());
    plain.read_to_string(&mut text).expect("a gzipped text");
    assert_eq!(text, "über");

    let headers = [("user-agent", "test/1"), ("content-type", "text/plain")];
    let url = format!("{}/no/such%20page?a=1&b=", app.url);
    let answer = request("DELETE", &url, &headers, b"gone").await;
    assert_eq!(answer.status, 404);
    let seen = answer.json();
    assert_eq!(seen["method"], "DELETE");
    assert_eq!(seen["query"], json!({"a": "1", "b": ""}));
    assert_eq!(
        (&seen["agent"], &seen["body"]),
        (&json!("test/1"), &json!("gone"))
    );
    let root = get(&app.url).await.json();
    assert_eq!(root["path"], "/", "{root}");
}
