//! Registries: followed, listed, installed from, and refused where they do not
//! keep their word. What is served is served by this test.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::site::{Site, app, archive, checksum};

async fn follow(fixture: &Fixture, site: &Site) -> Value {
    let url = format!("{}/r/registry.json", site.address);
    let body = json!({"name": "ours", "url": url});
    fixture.post("/api/v1/registries", &body).await
}

async fn install(fixture: &Fixture, app: &str, version: Option<&str>) -> (u16, Value) {
    let body = match version {
        Some(version) => json!({"app": app, "version": version}),
        None => json!({"app": app}),
    };
    let path = "/api/v1/registries/ours/install";
    fixture.call("POST", path, Some(&body)).await
}

/// The sentence of an installation that must be refused.
async fn refused(fixture: &Fixture, app: &str, version: Option<&str>) -> (u16, String) {
    let (status, reply) = install(fixture, app, version).await;
    assert!(status >= 400, "{status} {reply}");
    let sentence = reply["error"].as_str().expect("a sentence").to_owned();
    (status, sentence)
}

#[async_std::test]
async fn a_version_comes_from_a_registry_into_a_project() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    site.list(&["mail", "empty"]);
    site.publish("mail", &[("1.2.0", &app("two")), ("1.10.0", &app("ten"))]);
    site.publish("empty", &[]);
    let registry = follow(&fixture, &site).await;
    assert_eq!(
        (&registry["name"], &registry["error"]),
        (&json!("ours"), &Value::Null)
    );
    let apps = fixture.get("/api/v1/registries/ours/apps").await;
    assert_eq!(
        (&apps[0]["key"], &apps[1]["name"]),
        (&json!("empty"), &json!("MAIL"))
    );
    assert_eq!(apps[1]["style"]["color"], "#123");
    let (status, newest) = install(&fixture, "MAIL", None).await;
    assert_eq!(
        (status, &newest["data"]["version"]),
        (200, &json!("1.10.0"))
    );
    assert_eq!(newest["data"]["digest"], json!(checksum(b"ten")[7..]));
    assert!(newest["data"]["ui_digest"].is_string(), "{newest}");
    site.asked();
    let again = install(&fixture, "mail", Some("v1.10.0")).await;
    assert_eq!(again.1, newest, "it is fetched once");
    assert_eq!(site.asked(), Vec::<String>::new());
    let versions = fixture
        .get("/api/v1/registries/ours/apps/mail/versions")
        .await;
    let seen: Vec<_> = versions.as_array().expect("a list").iter().collect();
    assert_eq!(
        (&seen[0]["version"], &seen[0]["id"]),
        (&json!("1.10.0"), &newest["data"]["id"])
    );
    assert_eq!(
        (&seen[1]["state"], &seen[1]["id"]),
        (&json!("listed"), &Value::Null)
    );
    // The provider's users name it, with and without its registry.
    for body in [
        json!({"registry": "ours", "name": "MAIL"}),
        json!({"name": "mail", "version": "1.10.0"}),
    ] {
        let found = fixture.post("/provider/apps/get_version_id", &body).await;
        assert_eq!(found["id"], newest["data"]["id"], "{body}");
    }
    serves_every_project(&fixture, &newest["data"]["id"]).await;
}

async fn serves_every_project(fixture: &Fixture, version: &Value) {
    // Whoever has a key of any project may use it.
    let key = json!({"name": "k", "projects": [fixture.project]});
    let key = fixture.post("/api/v1/keys", &key).await["key"].clone();
    let key = key.as_str().expect("a key");
    let body = json!({"project": fixture.project, "pool": fixture.pool, "name": "Mail",
        "version": version})
    .to_string();
    let (status, made) = fixture
        .call_as(key, "POST", "/api/v1/installations", body.as_bytes())
        .await;
    assert_eq!(status, 201, "{made}");
    let (status, _) = fixture
        .call_as(key, "DELETE", "/api/v1/registries/ours", b"")
        .await;
    assert_eq!(status, 403, "registries are an admin's");
    assert_eq!(
        fixture
            .call("DELETE", "/api/v1/registries/ours", None)
            .await
            .0,
        200
    );
    let id = version.as_str().expect("an id");
    fixture.get(&format!("/api/v1/versions/{id}")).await;
}

#[async_std::test]
async fn a_version_that_was_changed_is_refused() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    site.list(&["mail"]);
    site.publish("mail", &[("1.0.0", &app("good")), ("1.1.0", &app("next"))]);
    follow(&fixture, &site).await;
    assert_eq!(install(&fixture, "mail", Some("1.0.0")).await.0, 200);
    site.publish(
        "mail",
        &[("1.0.0", &app("evil")), ("1.1.0", &app("evil too"))],
    );
    // The archive is another one than the registry's list says.
    let (status, sentence) = refused(&fixture, "mail", Some("1.1.0")).await;
    assert_eq!(status, 502);
    assert!(sentence.contains(&checksum(&app("next"))), "{sentence}");
    assert!(sentence.contains(&checksum(&app("evil too"))), "{sentence}");
    // And now the list says so too.
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    for number in ["1.0.0", "1.1.0"] {
        let (status, sentence) = refused(&fixture, "mail", Some(number)).await;
        assert_eq!(status, 409);
        assert!(sentence.contains("when it was first seen"), "{sentence}");
    }
    let (status, sentence) = refused(&fixture, "mail", None).await;
    assert_eq!(
        (status, sentence.contains("not found")),
        (404, true),
        "{sentence}"
    );
    let versions = fixture
        .get("/api/v1/registries/ours/apps/mail/versions")
        .await;
    assert_eq!(versions[0]["state"], "changed", "{versions}");
    // A version that was withdrawn and comes back is compared with what it was.
    site.publish("mail", &[]);
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    let versions = fixture
        .get("/api/v1/registries/ours/apps/mail/versions")
        .await;
    assert_eq!(versions[0]["state"], "gone", "{versions}");
    site.publish(
        "mail",
        &[("1.0.0", &app("good")), ("1.1.0", &app("evil too"))],
    );
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    assert_eq!(
        install(&fixture, "mail", None).await.1["data"]["version"],
        "1.0.0"
    );
    assert_eq!(refused(&fixture, "mail", Some("1.1.0")).await.0, 409);
}

#[async_std::test]
async fn an_archive_that_is_none_or_too_much_is_refused() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1024 * 1024];
    for _ in 0..34 {
        bomb.write_all(&zeros).expect("in memory");
    }
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("out", archive(&[("../app.js", b"x")]), "leads out"),
        ("text", b"no archive".to_vec(), "cannot be read"),
        ("none", archive(&[("index.js", b"x")]), "no `app.js`"),
        (
            "bomb",
            bomb.finish().expect("in memory"),
            "cannot be installed",
        ),
        ("large", vec![1; 17 * 1024 * 1024], "over the limit"),
    ];
    let keys: Vec<_> = cases.iter().map(|(key, _, _)| *key).collect();
    site.list(&keys);
    for (key, bytes, _) in &cases {
        site.publish(key, &[("1.0.0", bytes)]);
    }
    follow(&fixture, &site).await;
    for (key, _, says) in &cases {
        let (status, sentence) = refused(&fixture, key, Some("1.0.0")).await;
        assert_eq!(status, 502, "{key}: {sentence}");
        assert!(sentence.contains(says), "{key}: {sentence}");
    }
    let apps = fixture.get("/api/v1/apps").await;
    assert_eq!(apps, json!([]), "nothing is left of them");
}

#[async_std::test]
async fn a_registry_is_asked_sparingly_and_says_what_is_wrong() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    let url = format!("{}/r/registry.json", site.address);
    let body = json!({"name": "ours", "url": url});
    let (status, reply) = fixture
        .call("POST", "/api/v1/registries", Some(&body))
        .await;
    assert_eq!(status, 502, "{reply}");
    assert!(
        reply["error"]
            .as_str()
            .expect("why")
            .contains("answered 404"),
        "{reply}"
    );
    assert_eq!(
        fixture.get("/api/v1/registries").await,
        json!([]),
        "it is not followed"
    );
    site.list(&["mail", "bad", "away"]);
    site.publish("mail", &[("1.0.0", &app("x"))]);
    site.say("bad", &[("1.0.0", "md5:1".to_owned())]);
    site.redirect(
        "/r/apps/away/versions.json",
        "http://127.0.0.2:1/versions.json",
    );
    follow(&fixture, &site).await;
    let apps = fixture.get("/api/v1/registries/ours/apps").await;
    let error = |at: usize| apps[at]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(0).contains("own place"), "away: {apps}");
    assert!(
        error(1).contains("checksum of version 1.0.0"),
        "bad: {apps}"
    );
    assert_eq!(apps[2]["error"], Value::Null, "mail: {apps}");
    site.asked();
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    let asked = site.asked();
    assert!(
        asked.contains(&"/r/registry.json 304".to_owned()),
        "{asked:?}"
    );
    assert!(
        asked.contains(&"/r/apps/mail/versions.json 304".to_owned()),
        "{asked:?}"
    );
    // Its list is kept while it is away.
    site.put("/r/registry.json", b"<html>");
    let state = fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    assert!(
        state["error"]
            .as_str()
            .expect("why")
            .contains("registry.json"),
        "{state}"
    );
    let wait_ms =
        state["next_ms"].as_i64().expect("a time") - state["checked_ms"].as_i64().expect("a time");
    assert!((59_000..=121_000).contains(&wait_ms), "{wait_ms}");
    assert_eq!(install(&fixture, "mail", None).await.0, 200);
}

#[async_std::test]
async fn a_name_or_address_is_followed_once_and_must_be_one() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    site.list(&[]);
    let registry = follow(&fixture, &site).await;
    let url = registry["url"].as_str().expect("an address");
    for body in [
        json!({"name": "ours", "url": format!("{}/other.json", site.address)}),
        json!({"name": "other", "url": url}),
    ] {
        let (status, reply) = fixture
            .call("POST", "/api/v1/registries", Some(&body))
            .await;
        assert_eq!(status, 409, "{reply}");
    }
    for bad in [
        "ftp://x/y",
        "registry",
        "https://user:word@example.org/r.json",
    ] {
        let body = json!({"name": "other", "url": bad});
        let (status, reply) = fixture
            .call("POST", "/api/v1/registries", Some(&body))
            .await;
        assert_eq!(status, 400, "{reply}");
    }
}
