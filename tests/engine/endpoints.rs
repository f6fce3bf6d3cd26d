//! HTTP endpoints of apps, blocks and flows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::fixture::Fixture;
use crate::worker::{Do, Script, Seen, Worker, flow, install, quiet};

fn schema() -> Value {
    json!({"hasOnRequest": true, "blocks": {}})
}

fn script() -> Script {
    Arc::new(|seen: &Seen| {
        let request = &seen.given["request"];
        match request["path"].as_str() {
            Some("/hook") => vec![
                Do::Call(
                    "http.respond",
                    json!([request["requestId"], {
                        "statusCode": 201,
                        "headers": {"x-seen": request["headers"]["X-Hub-Signature-256"]},
                        "body": {"raw": request["rawBody"], "body": request["body"], "q": request["query"]},
                    }]),
                ),
                // Nobody waits any more, which is no failure of the handler.
                Do::Call(
                    "http.respond",
                    json!([request["requestId"], {"statusCode": 500}]),
                ),
            ],
            Some("/foreign") => vec![Do::Refused(
                "http.respond",
                json!(["nobody", {}]),
                "not open",
            )],
            _ => vec![Do::Throw("no such page")],
        }
    })
}

#[async_std::test]
async fn an_app_answers_requests() {
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let app = install(&fixture, "test", json!({})).await;
    let base = format!("/endpoints/{}", app.installation);
    let mut client = fixture.client().await;
    let request = format!(
        "POST {base}/hook?a=1 HTTP/1.1\r\nhost: g\r\nx-hub-signature-256: sha\r\n\
         content-type: application/json\r\ncontent-length: 8\r\n\r\n{{\"a\": 1}}"
    );
    let answer = client.raw(request.as_bytes()).await;
    assert_eq!(answer.status, 201);
    assert!(answer.head.contains("x-seen: sha"), "{}", answer.head);
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        body,
        json!({"raw": "{\"a\": 1}", "body": {"a": 1}, "q": {"a": "1"}})
    );
    // A handler that throws leaves nobody waiting.
    let answer = client
        .request("GET", &format!("{base}/x"), "none", b"")
        .await;
    assert_eq!(answer.status, 502);
    assert!(String::from_utf8_lossy(&answer.body).contains("no such page"));
    let answer = client
        .request("GET", "/endpoints/nobody/x", "none", b"")
        .await;
    assert_eq!(answer.status, 404);
    assert_eq!(worker.of_kind(Kind::Http).len(), 2);
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_flow_answers_requests() {
    let fixture = Fixture::start().await;
    let _worker = Worker::start(&fixture, schema(), script()).await;
    let definition = "blocks:\n\
         - name: In\n\
         \x20 type: {coreBlock: httpEndpoint}\n\
         \x20 config: {path: /orders, methods: [POST]}\n\
         \x20 inputs: {respond: {links: [{block: Pass, output: default}], config: {statusCode: 202, body: !expr outputs.pass.body}}}\n\
         - name: Pass\n\
         \x20 type: {coreBlock: transform}\n\
         \x20 inputs: {default: {links: [{block: In, output: default}]}}\n";
    let flow = flow(&fixture, "f", definition).await;
    let mut client = fixture.client().await;
    let path = format!("/endpoints/{flow}/orders/7");
    let answer = client.request("POST", &path, "none", b"text").await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (202, b"text".as_slice())
    );
    let answer = client.request("GET", &path, "none", b"").await;
    assert_eq!(answer.status, 404);
    let events = quiet(&fixture, &flow).await;
    assert_eq!(events[0]["body"]["path"], "/7");
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_block_answers_below_its_app() {
    let fixture = Fixture::start().await;
    let schema = json!({"hasOnRequest": true, "blocks": {"door": {"hasOnRequest": true}}});
    let attempts = AtomicUsize::new(0);
    let answers: Script = Arc::new(move |seen: &Seen| {
        let request = &seen.given["request"];
        let body = json!({
            "block": seen.block, "path": request["path"], "url": seen.given["block"]["http"]["url"],
        });
        let respond = json!([request["requestId"], {"body": body}]);
        let mut all = vec![Do::Call("http.respond", respond.clone())];
        if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            // Twice is once too often, but a second attempt does not know of the first.
            all.push(Do::Refused("http.respond", respond, "not open"));
            all.push(Do::Die);
        }
        all
    });
    let _worker = Worker::start(&fixture, schema, answers).await;
    let app = install(&fixture, "test", json!({})).await;
    let definition = format!(
        "appInstallations: {{test: {{id: {}}}}}\n\
         blocks:\n\
         - {{name: Front Door, type: {{appBlock: {{block: door, appInstallation: test}}}}}}\n",
        app.installation
    );
    let flow = flow(&fixture, "f", &definition).await;
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    let id = blocks[0]["id"].as_str().expect("an id");
    let base = format!("/endpoints/{}", app.installation);
    let mut client = fixture.client().await;
    let path = format!("{base}/blocks/{id}/in/7?x=1");
    let answer = client.request("GET", &path, "none", b"").await;
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (&body["block"], &body["path"]),
        (&json!("door"), &json!("/in/7"))
    );
    let url = body["url"].as_str().expect("an address");
    assert!(url.ends_with(&format!("{base}/blocks/{id}")), "{url}");
    // Another path below the app, and the block below another app.
    let answer = client
        .request("GET", &format!("{base}/blocks/nobody"), "none", b"")
        .await;
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (&body["block"], &body["path"]),
        (&json!(""), &json!("/blocks/nobody"))
    );
    let other = install(&fixture, "other", json!({})).await;
    let path = format!("/endpoints/{}/blocks/{id}", other.installation);
    let answer = client.request("GET", &path, "none", b"").await;
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["block"], "", "it is the other app's own path");
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn an_app_and_its_block_have_a_host_of_their_own() {
    let fixture = Fixture::start_at(Some("flows.test")).await;
    let schema = json!({"hasOnRequest": true, "blocks": {"door": {"hasOnRequest": true}}});
    let answers: Script = Arc::new(|seen: &Seen| {
        let (request, app) = (&seen.given["request"], &seen.given["app"]);
        let body = json!({
            "block": seen.block, "path": request["path"], "query": request["query"],
            "app": app["http"]["url"], "url": seen.given["block"]["http"]["url"],
        });
        vec![Do::Call(
            "http.respond",
            json!([request["requestId"], {"body": body}]),
        )]
    });
    let _worker = Worker::start(&fixture, schema, answers).await;
    let app = install(&fixture, "test", json!({})).await.installation;
    let definition = format!(
        "appInstallations: {{test: {{id: {app}}}}}\n\
         blocks:\n\
         - {{name: Door, type: {{appBlock: {{block: door, appInstallation: test}}}}}}\n",
    );
    let flow = flow(&fixture, "f", &definition).await;
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    let block = blocks[0]["id"].as_str().expect("an id");
    let host = format!("{app}.endpoints.flows.test");
    let (_, port) = fixture.http.rsplit_once(':').expect("a port");
    let url = format!("http://{host}:{port}");
    let shown = fixture.get(&format!("/api/v1/installations/{app}")).await;
    assert_eq!(shown["url"], url.as_str());
    let mut client = fixture.client().await;
    let mut ask = async |host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = client.raw(request.as_bytes()).await;
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, body)
    };
    // Its paths are its own, whatever they mean elsewhere.
    for (path, block, meant) in [
        ("/".to_owned(), "", "/"),
        ("/hook/7?a=1".to_owned(), "", "/hook/7"),
        ("/health".to_owned(), "", "/health"),
        ("/api/v1/projects".to_owned(), "", "/api/v1/projects"),
        (format!("/blocks/{block}"), "door", "/"),
        (format!("/blocks/{block}/in?a=1"), "door", "/in"),
    ] {
        let (status, body) = ask(&host, &path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let seen = (&body["block"], &body["path"]);
        assert_eq!(seen, (&json!(block), &json!(meant)), "{path}");
        assert_eq!(body["app"], url.as_str());
        if path.contains('?') {
            assert_eq!(body["query"], json!({"a": "1"}), "{path}");
        }
        if block == "door" {
            let below = path.split("/in").next().expect("a path");
            assert_eq!(body["url"], format!("{url}{below}"));
        }
    }
    let upper = format!("{}:80", host.to_uppercase());
    assert_eq!(ask(&upper, "/x").await.1["path"], "/x");
    // By path as before; on another host the gateway is the gateway.
    let (_, body) = ask("g", &format!("/endpoints/{app}/x")).await;
    assert_eq!(body["path"], "/x");
    assert_eq!(ask("g", "/health").await.1["data"]["ok"], true);
    assert_eq!(ask("nobody.endpoints.flows.test", "/x").await.0, 404);
    assert_eq!(fixture.stop().await, 0);
}
