//! What a key with scopes may do, by every door that takes a key.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::text;

const ALL: [&str; 5] = ["api", "apps:admin", "apps:view", "flows:edit", "org:admin"];

/// A key with these scopes, made by the fixture's own.
async fn scoped(fixture: &Fixture, scopes: &[&str]) -> String {
    let body = json!({"name": "scoped", "scopes": scopes});
    let made = fixture.post("/api/v1/keys", &body).await;
    assert_eq!(made["scopes"], json!(scopes));
    text(&made["key"])
}

/// The status of a request, and the error if there is one.
async fn send(fixture: &Fixture, key: &str, request: &str, body: &Value) -> (u16, String) {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let body = body.to_string();
    let (status, reply) = fixture.call_as(key, method, path, body.as_bytes()).await;
    let error = reply["error"].as_str().unwrap_or_default();
    (status, error.to_owned())
}

#[async_std::test]
async fn a_key_does_what_its_scopes_open_and_no_more() {
    let fixture = Fixture::start().await;
    let named = json!({"project": fixture.project, "name": "f"});
    let flow = text(&fixture.post("/api/v1/flows", &named).await["id"]);
    let another = json!({"project": fixture.project, "name": "another"});
    let (get, rename) = (json!({"flowId": flow}), json!({"id": flow, "name": "g"}));
    let apps = json!({"projectId": fixture.project});
    let app = json!({"projectId": fixture.project, "name": "a"});
    let secret = json!({"projectId": fixture.project, "key": "K", "value": "v"});
    let pool = format!("GET /agent/v1/pool/{}/jobs", fixture.pool);
    let rotate = format!("POST /api/v1/pools/{}/rotate", fixture.pool);
    let none = json!({});
    // With scopes that are just enough; the last one is missed when it is not there.
    let cases = [
        ("api", "GET /api/v1/flows", &none),
        ("api", "GET /api/v1/jobs", &none),
        ("api", &pool, &none),
        ("api flows:edit", "POST /api/v1/flows", &another),
        ("api apps:view", "GET /api/v1/apps", &none),
        ("api apps:view", "GET /api/v1/registries", &none),
        ("api org:admin", "GET /api/v1/keys", &none),
        ("api org:admin", &rotate, &none),
        ("apps:view", "POST /cli/apps/list_apps", &apps),
        ("apps:admin", "POST /cli/apps/create_app", &app),
        ("api", "POST /provider/flows/get", &get),
        ("api flows:edit", "POST /provider/flows/update", &rename),
        (
            "api flows:edit",
            "POST /provider/organization/create_secret",
            &secret,
        ),
    ];
    for (scopes, request, body) in cases {
        let scopes: Vec<_> = scopes.split(' ').collect();
        is_refused(&fixture, request, body, scopes[scopes.len() - 1]).await;
        let key = scoped(&fixture, &scopes).await;
        let (status, error) = send(&fixture, &key, request, body).await;
        assert!(status < 300, "{request} with {scopes:?}: {status} {error}");
    }
    let key = scoped(&fixture, &["apps:view"]).await;
    let (status, _) = send(&fixture, &key, "POST /cli/projects", &none).await;
    assert_eq!(status, 200, "every key may ask what it sees");
    assert_eq!(fixture.stop().await, 0);
}

/// A key with all scopes but one is told which.
async fn is_refused(fixture: &Fixture, request: &str, body: &Value, missed: &str) {
    // Seeing apps comes with making them.
    let gives = |known: &str| known == missed || missed == "apps:view" && known == "apps:admin";
    let others: Vec<_> = ALL.into_iter().filter(|known| !gives(known)).collect();
    let key = scoped(fixture, &others).await;
    let wanted = format!("this API key lacks the scope `{missed}`");
    let refused = send(fixture, &key, request, body).await;
    assert_eq!(refused, (403, wanted), "{request}");
}

#[async_std::test]
async fn a_key_gives_no_more_than_it_has_and_keeps_it_over_a_restart() {
    let fixture = Fixture::start().await;
    let path = "POST /api/v1/keys";
    let admin = scoped(&fixture, &["api", "org:admin"]).await;
    let asked = json!({"name": "more", "scopes": ["api", "flows:edit"]});
    let sentence = "this API key lacks the scope `flows:edit` and so cannot give it";
    let refused = send(&fixture, &admin, path, &asked).await;
    assert_eq!(refused, (403, sentence.to_owned()));
    for (scopes, words) in [(json!(["root"]), "names `root`"), (json!([]), "is empty")] {
        let asked = json!({"name": "odd", "scopes": scopes});
        let (status, error) = send(&fixture, &fixture.key, path, &asked).await;
        assert!(status == 400 && error.contains(words), "{status} {error}");
    }
    // Without a word it gives what it has.
    let asked = json!({"name": "same"}).to_string();
    let made = fixture.call_as(&admin, "POST", "/api/v1/keys", asked.as_bytes());
    let (status, made) = made.await;
    assert_eq!(
        (status, &made["data"]["scopes"]),
        (201, &json!(["api", "org:admin"]))
    );
    // A key for some projects makes none, whatever its scopes.
    let body = json!({"name": "narrow", "projects": [fixture.project]});
    let narrow = fixture.post("/api/v1/keys", &body).await;
    assert_eq!(narrow["scopes"], json!(ALL));
    let (status, error) = send(&fixture, &text(&narrow["key"]), path, &json!({"name": "x"})).await;
    assert!(
        status == 403 && error.contains("needs an admin key"),
        "{error}"
    );

    let fixture = fixture.restart().await;
    let keys = fixture.get("/api/v1/keys").await;
    let keys = keys.as_array().expect("a list");
    let of = |name: &str| keys.iter().find(|key| key["name"] == name).expect("a key");
    assert_eq!(of("first admin key")["scopes"], json!(ALL));
    assert_eq!(of("scoped")["scopes"], json!(["api", "org:admin"]));
    assert_eq!(of("same")["scopes"], json!(["api", "org:admin"]));
    let (status, _) = send(&fixture, &admin, "GET /api/v1/apps", &json!({})).await;
    assert_eq!(status, 403);
    assert_eq!(fixture.stop().await, 0);
}
