//! What is not right is refused with its own status and a sentence that names it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::fixture::Fixture;

async fn refused(
    fixture: &Fixture,
    method: &str,
    path: &str,
    body: &Value,
    status: u16,
    word: &str,
) {
    let (got, reply) = fixture.call(method, path, Some(body)).await;
    let sentence = reply["error"].as_str().unwrap_or_default();
    assert!(
        got == status && sentence.contains(word),
        "{method} {path} {body}: {got} {reply}, not {status} {word}"
    );
}

#[async_std::test]
async fn nothing_but_health_answers_without_credentials() {
    let fixture = Fixture::start().await;
    let (status, health) = fixture.call_as("", "GET", "/health", b"").await;
    assert!(status == 200 && health["data"]["ok"] == true, "{health}");
    for path in [
        "projects",
        "pools",
        "keys",
        "apps",
        "jobs",
        "jobs/x",
        "versions/x",
    ] {
        for key in ["", "x", "sfapi_0000", &"sfapi_".repeat(1000)] {
            let (status, reply) = fixture
                .call_as(key, "GET", &format!("/api/v1/{path}"), b"")
                .await;
            assert!(
                status == 401 && reply["error"].is_string(),
                "{path}: {status} {reply}"
            );
        }
    }
    let (status, _) = fixture
        .call_as("sfjob_x.1.00", "POST", "/agent/v1/calls", b"{}")
        .await;
    assert_eq!(status, 401);
    let key = std::fs::metadata(fixture.path().join("gateway/admin.key")).expect("a file");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777,
        0o600
    );
}

#[async_std::test]
async fn a_key_for_one_project_sees_that_project_alone() {
    let fixture = Fixture::start().await;
    let other = fixture
        .post("/api/v1/projects", &json!({"name": "other"}))
        .await;
    let made = fixture
        .post(
            "/api/v1/keys",
            &json!({"name": "limited", "projects": [other["id"]]}),
        )
        .await;
    let key = made["key"].as_str().expect("a key");
    let id = fixture.submit("1").await;
    let get = async |path: &str| fixture.call_as(key, "GET", path, b"").await;
    assert_eq!(get(&format!("/api/v1/jobs/{id}")).await.0, 403);
    assert_eq!(get("/api/v1/jobs").await.1["data"]["jobs"], json!([]));
    assert_eq!(
        get("/api/v1/projects").await.1["data"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(get("/api/v1/keys").await.0, 403);
    assert_eq!(get(&format!("/api/v1/pools/{}", fixture.pool)).await.0, 403);
    let job = fixture.job("1").to_string();
    assert_eq!(
        fixture
            .call_as(key, "POST", "/api/v1/jobs", job.as_bytes())
            .await
            .0,
        403
    );
    let own = json!({"project": other["id"], "kind": "evaluate", "expressions": {"v": "1"}});
    let (status, reply) = fixture
        .call_as(key, "POST", "/api/v1/jobs", own.to_string().as_bytes())
        .await;
    assert!(
        status < 300,
        "the default pool is open to every project: {reply}"
    );
    let path = format!("/api/v1/keys/{}", made["id"].as_str().expect("an id"));
    assert_eq!(fixture.call("DELETE", &path, None).await.0, 200);
    assert_eq!(get("/api/v1/projects").await.0, 401);
}

#[async_std::test]
async fn a_job_that_does_not_fit_is_refused_by_the_name_of_the_field() {
    let fixture = Fixture::start().await;
    let good = fixture.job("1");
    let cases = [
        ("project", json!(null), 400, "`project`"),
        ("project", json!(7), 400, "`project`"),
        ("project", json!("nope"), 400, "`project`"),
        ("pool", json!("nope"), 400, "`pool`"),
        ("kind", json!("dance"), 400, "`kind`"),
        ("priority", json!("urgent"), 400, "`priority`"),
        ("timeout_ms", json!(0), 400, "`timeout_ms`"),
        ("timeout_ms", json!("soon"), 400, "`timeout_ms`"),
        ("expires_ms", json!(5), 400, "`expires_ms`"),
        ("expressions", json!({}), 400, "`expressions`"),
        ("expressions", json!({"a": 1}), 400, "`expressions.a`"),
        ("scope", json!([]), 400, "`scope`"),
        ("flow", json!(""), 400, "`flow`"),
        ("expresions", json!({}), 400, "`expresions`"),
    ];
    for (field, value, status, word) in cases {
        let mut body = good.clone();
        body[field] = value;
        refused(&fixture, "POST", "/api/v1/jobs", &body, status, word).await;
    }
    let hidden = fixture
        .post("/api/v1/pools", &json!({"name": "hidden"}))
        .await;
    let mut body = good.clone();
    body["pool"] = hidden["id"].clone();
    refused(&fixture, "POST", "/api/v1/jobs", &body, 403, "not exposed").await;
    let mut body = good;
    body["kind"] = json!("event");
    refused(&fixture, "POST", "/api/v1/jobs", &body, 400, "`version`").await;
    let (status, reply) = fixture
        .call_as(&fixture.key, "POST", "/api/v1/jobs", b"{")
        .await;
    assert!(
        status == 400 && reply["error"].as_str().is_some_and(|e| e.contains("JSON")),
        "{reply}"
    );
    refused(
        &fixture,
        "GET",
        "/api/v1/jobs/none",
        &json!({}),
        404,
        "not found",
    )
    .await;
    refused(
        &fixture,
        "GET",
        "/api/v1/jobs?state=odd",
        &json!({}),
        400,
        "`state`",
    )
    .await;
    refused(
        &fixture,
        "POST",
        "/api/v1/nothing",
        &json!({}),
        404,
        "not part",
    )
    .await;
}

#[async_std::test]
async fn what_is_too_large_is_refused_unread() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let head = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ncontent-length: 99999999\r\n\r\n",
        fixture.key
    );
    let answer = client.raw(head.as_bytes()).await;
    assert!(
        answer.status == 413 && answer.head.contains("connection: close"),
        "{}",
        answer.head
    );
    let mut body = fixture.job("1");
    body["scope"] = json!({"a": "x".repeat(4 * 1024 * 1024)});
    refused(&fixture, "POST", "/api/v1/jobs", &body, 413, "payload").await;
    let path = "/api/v1/projects";
    refused(
        &fixture,
        "POST",
        path,
        &json!({"name": "x".repeat(70_000)}),
        413,
        "limit",
    )
    .await;
}

#[async_std::test]
async fn versions_are_checked_and_never_change() {
    let fixture = Fixture::start().await;
    let app = fixture
        .post(
            "/api/v1/apps",
            &json!({"project": fixture.project, "name": "app"}),
        )
        .await;
    let path = format!(
        "/api/v1/apps/{}/versions",
        app["id"].as_str().expect("an id")
    );
    let body = json!({"version": "0.1.0", "code": "export const app = {}"});
    let first = fixture.post(&path, &body).await;
    refused(&fixture, "POST", &path, &body, 409, "exists already").await;
    refused(
        &fixture,
        "POST",
        &path,
        &json!({"version": "1", "code": "x"}),
        400,
        "`version`",
    )
    .await;
    refused(
        &fixture,
        "POST",
        &path,
        &json!({"version": "1.0.0", "code": " "}),
        400,
        "`code`",
    )
    .await;
    refused(
        &fixture,
        "POST",
        "/api/v1/apps/none/versions",
        &body,
        404,
        "not found",
    )
    .await;
    let listed = fixture.get(&path).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let id = first["id"].as_str().expect("an id");
    assert_eq!(
        fixture.get(&format!("/api/v1/versions/{id}")).await["version"],
        "0.1.0"
    );
}

#[async_std::test]
async fn an_archive_is_unpacked_and_the_same_code_is_stored_once() {
    let fixture = Fixture::start().await;
    let app = fixture
        .post(
            "/api/v1/apps",
            &json!({"project": fixture.project, "name": "app"}),
        )
        .await;
    let path = format!(
        "/api/v1/apps/{}/versions",
        app["id"].as_str().expect("an id")
    );
    let body = json!({"version": "0.1.0", "code": "export const app = {}"});
    let first = fixture.post(&path, &body).await;
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(21);
    header.set_mode(0o644);
    tar.append_data(&mut header, "app.js", b"export const app = {}".as_slice())
        .expect("in memory");
    let archive = tar.into_inner().expect("tar").finish().expect("gzip");
    let versioned = format!("{path}?version=0.2.0");
    let (status, reply) = fixture
        .call_as(&fixture.key, "POST", &versioned, &archive)
        .await;
    assert_eq!(status, 201, "{reply}");
    assert_eq!(
        reply["data"]["digest"], first["digest"],
        "the same code is stored once"
    );
    let (status, _) = fixture.call_as(&fixture.key, "POST", &path, &archive).await;
    assert_eq!(status, 400, "an archive without a version");
    let mut broken = GzEncoder::new(Vec::new(), Compression::fast());
    broken.write_all(b"no tar at all").expect("in memory");
    let broken = broken.finish().expect("gzip");
    let (status, reply) = fixture
        .call_as(&fixture.key, "POST", &versioned, &broken)
        .await;
    assert!(
        status == 400
            && reply["error"]
                .as_str()
                .is_some_and(|e| e.contains("archive")),
        "{reply}"
    );
}

#[async_std::test]
async fn names_are_taken_once() {
    let fixture = Fixture::start().await;
    refused(
        &fixture,
        "POST",
        "/api/v1/projects",
        &json!({"name": "p"}),
        409,
        "exists already",
    )
    .await;
    refused(
        &fixture,
        "POST",
        "/api/v1/pools",
        &json!({"name": "p"}),
        409,
        "exists already",
    )
    .await;
    refused(
        &fixture,
        "POST",
        "/api/v1/pools",
        &json!({"name": "  "}),
        400,
        "`name`",
    )
    .await;
    refused(&fixture, "POST", "/api/v1/pools", &json!({}), 400, "`name`").await;
}
