//! The interactive login, as the command line and a browser walk through it.

use serde_json::{Value, json};
use url::Url;

use crate::fixture::{Answer, Fixture};
use crate::{key_for, text};

// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1:40123/callback";
const SCOPES: &str = "api apps:admin apps:view flows:edit";

/// What a browser has after it has opened the page.
struct Opened {
    page: String,
    head: String,
    cookie: String,
    sealed: String,
}

/// A pair of tokens.
struct Tokens {
    access: String,
    refresh: String,
}

async fn http(fixture: &Fixture, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: g\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    fixture.client().await.raw(request.as_bytes()).await
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields).finish()
}

/// A form that needs no cookie.
async fn post(fixture: &Fixture, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let kind = "content-type: application/x-www-form-urlencoded\r\n";
    let answer = http(fixture, "POST", path, kind, &form(fields)).await;
    let value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    (answer.status, value)
}

async fn get(fixture: &Fixture, path: &str) -> Value {
    let answer = http(fixture, "GET", path, "", "").await;
    assert_eq!(answer.status, 200, "{path}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// What the command line sends to register.
async fn register(fixture: &Fixture) -> String {
    let body = json!({
        "client_name": "Spaceflows <CLI>", "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "scope": SCOPES, "token_endpoint_auth_method": "none",
    });
    let body = body.to_string();
    let answer = http(fixture, "POST", "/oauth/register", "", &body).await;
    assert_eq!(answer.status, 201);
    let reply: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(reply["redirect_uris"], json!([REDIRECT]));
    text(&reply["client_id"])
}

fn request<'a>(client: &'a str, redirect: &'a str, scope: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("client_id", client),
        ("redirect_uri", redirect),
        ("response_type", "code"),
        ("scope", scope),
        ("state", "s-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]
}

async fn authorize(fixture: &Fixture, fields: &[(&str, &str)]) -> Answer {
    let path = format!("/oauth/authorize?{}", form(fields));
    http(fixture, "GET", &path, "", "").await
}

async fn open(fixture: &Fixture, fields: &[(&str, &str)]) -> Opened {
    let answer = authorize(fixture, fields).await;
    let page = String::from_utf8(answer.body).expect("text");
    assert_eq!(answer.status, 200, "{page}");
    let between = |text: &str, start: &str, end: &str| {
        let (_, rest) = text.split_once(start).expect(start);
        rest.split_once(end).expect(end).0.to_owned()
    };
    Opened {
        cookie: between(&answer.head, "set-cookie: ", ";"),
        sealed: between(&page, "name=\"request\" value=\"", "\""),
        head: answer.head,
        page,
    }
}

async fn answer(fixture: &Fixture, cookie: &str, fields: &[(&str, &str)]) -> Answer {
    let headers =
        format!("content-type: application/x-www-form-urlencoded\r\ncookie: a=b; {cookie}\r\n");
    http(fixture, "POST", "/oauth/authorize", &headers, &form(fields)).await
}

/// Where the browser is sent, with the query it brings.
fn sent(answer: &Answer) -> (Url, Vec<(String, String)>) {
    assert_eq!(
        answer.status,
        303,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let line = answer
        .head
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    let url = Url::parse(line.expect("a location")).expect("an address");
    let query = url.query_pairs().into_owned().collect();
    (url, query)
}

fn named(query: &[(String, String)], name: &str) -> String {
    let found = query.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// From the page to the code.
async fn code(fixture: &Fixture, client: &str, key: &str, scope: &str) -> String {
    let opened = open(fixture, &request(client, REDIRECT, scope)).await;
    let fields = [
        ("request", opened.sealed.as_str()),
        ("key", key),
        ("answer", "yes"),
    ];
    let (_, query) = sent(&answer(fixture, &opened.cookie, &fields).await);
    assert_eq!(named(&query, "state"), "s-1");
    named(&query, "code")
}

async fn redeem(fixture: &Fixture, client: &str, code: &str, verifier: &str) -> (u16, Value) {
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("client_id", client),
        ("code_verifier", verifier),
    ];
    post(fixture, "/oauth/token", &fields).await
}

async fn refresh(fixture: &Fixture, client: &str, token: &str) -> (u16, Value) {
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
        ("client_id", client),
    ];
    post(fixture, "/oauth/token", &fields).await
}

fn tokens((status, reply): (u16, Value)) -> Tokens {
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["token_type"], "Bearer");
    assert!(
        reply["expires_in"]
            .as_u64()
            .is_some_and(|seconds| seconds > 60)
    );
    Tokens {
        access: text(&reply["access_token"]),
        refresh: text(&reply["refresh_token"]),
    }
}

async fn login(fixture: &Fixture, client: &str, key: &str, scope: &str) -> Tokens {
    let code = code(fixture, client, key, scope).await;
    tokens(redeem(fixture, client, &code, VERIFIER).await)
}

fn is_invalid((status, reply): &(u16, Value)) -> bool {
    *status == 400 && reply["error"] == "invalid_grant"
}

async fn status(fixture: &Fixture, token: &str, method: &str, path: &str) -> u16 {
    fixture.call_as(token, method, path, b"{}").await.0
}

#[async_std::test]
async fn a_person_logs_in_and_the_client_stays_logged_in() {
    let fixture = Fixture::start().await;
    let resource = get(&fixture, "/.well-known/oauth-protected-resource").await;
    assert_eq!(
        resource["authorization_servers"],
        json!([format!("http://{}", fixture.http)])
    );
    let server = get(&fixture, "/.well-known/oauth-authorization-server").await;
    for (endpoint, path) in [
        ("authorization_endpoint", "authorize"),
        ("token_endpoint", "token"),
        ("registration_endpoint", "register"),
    ] {
        let address = format!("http://{}/oauth/{path}", fixture.http);
        assert_eq!(server[endpoint], address.as_str());
    }
    assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]));
    let client = register(&fixture).await;
    let opened = open(&fixture, &request(&client, REDIRECT, SCOPES)).await;
    assert!(
        opened.page.contains("Spaceflows &lt;CLI&gt;"),
        "{}",
        opened.page
    );
    assert!(opened.page.contains("http://127.0.0.1:40123"));
    for header in [
        "frame-ancestors 'none'",
        "default-src 'none'",
        "form-action 'self' http://127.0.0.1:40123",
        "cache-control: no-store",
        "httponly; samesite=strict",
    ] {
        assert!(opened.head.contains(header), "{header}: {}", opened.head);
    }
    let first = login(&fixture, &client, &fixture.key, SCOPES).await;
    assert_eq!(
        status(&fixture, &first.access, "POST", "/cli/projects").await,
        200
    );
    assert_eq!(
        status(&fixture, &first.access, "GET", "/api/v1/flows").await,
        200
    );
    // Nothing of it is readable at rest, and it holds after a restart.
    let fixture = fixture.restart().await;
    let mut rest = Vec::new();
    for file in ["sluice.db", "sluice.db-wal"] {
        rest.extend(std::fs::read(fixture.path().join("gateway").join(file)).unwrap_or_default());
    }
    for secret in [&first.access, &first.refresh] {
        let secret = secret.as_bytes();
        assert!(!rest.windows(secret.len()).any(|part| part == secret));
    }
    let second = tokens(refresh(&fixture, &client, &first.refresh).await);
    assert_eq!(
        status(&fixture, &second.access, "POST", "/cli/projects").await,
        200
    );
    // A refresh token that is used twice was stolen by one of the two.
    assert!(is_invalid(
        &refresh(&fixture, &client, &first.refresh).await
    ));
    for token in [&first.access, &second.access] {
        assert_eq!(status(&fixture, token, "POST", "/cli/projects").await, 401);
    }
    assert!(is_invalid(
        &refresh(&fixture, &client, &second.refresh).await
    ));
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_code_is_for_its_client_once() {
    let fixture = Fixture::start().await;
    let (client, other) = (register(&fixture).await, register(&fixture).await);
    let wrong = VERIFIER.replace('d', "e");
    let stolen = code(&fixture, &client, &fixture.key, SCOPES).await;
    assert!(is_invalid(
        &redeem(&fixture, &client, &stolen, &wrong).await
    ));
    let again = redeem(&fixture, &client, &stolen, VERIFIER).await;
    assert!(is_invalid(&again), "a wrong verifier costs the code");
    // Clients that register alike within a millisecond have the same id.
    if client != other {
        let foreign = code(&fixture, &client, &fixture.key, SCOPES).await;
        assert!(is_invalid(
            &redeem(&fixture, &other, &foreign, VERIFIER).await
        ));
    }
    let good = code(&fixture, &client, &fixture.key, SCOPES).await;
    let pair = tokens(redeem(&fixture, &client, &good, VERIFIER).await);
    assert_eq!(
        status(&fixture, &pair.access, "POST", "/cli/projects").await,
        200
    );
    assert!(is_invalid(
        &redeem(&fixture, &client, &good, VERIFIER).await
    ));
    let after = status(&fixture, &pair.access, "POST", "/cli/projects").await;
    assert_eq!(after, 401, "a code that is replayed ends its login");
    let pair = login(&fixture, &client, &fixture.key, SCOPES).await;
    let revoke = [("token", pair.refresh.as_str())];
    assert_eq!(post(&fixture, "/oauth/revoke", &revoke).await.0, 200);
    assert_eq!(post(&fixture, "/oauth/revoke", &revoke).await.0, 200);
    assert_eq!(
        status(&fixture, &pair.access, "POST", "/cli/projects").await,
        401
    );
    let fields = [("grant_type", "password"), ("username", "x")];
    let (status, reply) = post(&fixture, "/oauth/token", &fields).await;
    assert_eq!(
        (status, &reply["error"]),
        (400, &json!("unsupported_grant_type"))
    );
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn answers_go_to_the_clients_own_address_alone() {
    let fixture = Fixture::start().await;
    for uris in [
        json!(["https://evil.example/callback"]),
        json!([REDIRECT, "http://127.0.0.1.evil.example/"]),
        json!(["myapp:/callback"]),
        json!([]),
    ] {
        let body = json!({"client_name": "x", "redirect_uris": uris}).to_string();
        let answer = http(&fixture, "POST", "/oauth/register", "", &body).await;
        let reply: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let refused = (answer.status, &reply["error"]);
        assert_eq!(refused, (400, &json!("invalid_redirect_uri")), "{uris}");
    }
    let client = register(&fixture).await;
    for (client, uri) in [
        (client.as_str(), "https://evil.example/callback"),
        (client.as_str(), "http://127.0.0.1:40123/other"),
        (client.as_str(), "http://localhost:40123/callback"),
        ("nobody", REDIRECT),
        (&client[1..], REDIRECT),
    ] {
        let answer = authorize(&fixture, &request(client, uri, SCOPES)).await;
        assert_eq!(answer.status, 400, "{uri}");
        assert!(!answer.head.contains("location:"), "{}", answer.head);
    }
    // Another port is the same program, started again.
    let moved = "http://127.0.0.1:1/callback";
    open(&fixture, &request(&client, moved, SCOPES)).await;
    // What is wrong with the rest, the client is told.
    for (name, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("scope", "api root", "invalid_scope"),
    ] {
        let mut fields = request(&client, REDIRECT, SCOPES);
        for field in fields.iter_mut().filter(|field| field.0 == name) {
            field.1 = value;
        }
        let (url, query) = sent(&authorize(&fixture, &fields).await);
        assert!(url.as_str().starts_with(REDIRECT), "{url}");
        assert_eq!(named(&query, "error"), error, "{name}");
        assert_eq!(named(&query, "state"), "s-1");
    }
    let mut twice = request(&client, REDIRECT, SCOPES);
    twice.push(("redirect_uri", "https://evil.example/"));
    assert_eq!(authorize(&fixture, &twice).await.status, 400);
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_page_is_answered_by_the_browser_that_was_asked() {
    let fixture = Fixture::start().await;
    let client = register(&fixture).await;
    let opened = open(&fixture, &request(&client, REDIRECT, SCOPES)).await;
    let other = open(&fixture, &request(&client, REDIRECT, SCOPES)).await;
    let key = fixture.key.as_str();
    let yes = |sealed| [("request", sealed), ("key", key), ("answer", "yes")];
    let changed = opened.sealed.replacen('a', "b", 1);
    for (cookie, sealed) in [
        ("", opened.sealed.as_str()),
        (other.cookie.as_str(), opened.sealed.as_str()),
        (opened.cookie.as_str(), changed.as_str()),
        (opened.cookie.as_str(), client.as_str()),
    ] {
        let answer = answer(&fixture, cookie, &yes(sealed)).await;
        assert_eq!(answer.status, 400);
        assert!(!answer.head.contains("location:"), "{}", answer.head);
    }
    // A wrong key may be corrected, and the page does not repeat it.
    let wrong = [
        ("request", opened.sealed.as_str()),
        ("key", "sfapi_wrong"),
        ("answer", "yes"),
    ];
    let refused = answer(&fixture, &opened.cookie, &wrong).await;
    let page = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(
        refused.status == 403 && page.contains("not known"),
        "{page}"
    );
    assert!(!page.contains("sfapi_wrong"), "{page}");
    let no = [("request", opened.sealed.as_str()), ("answer", "no")];
    let (_, query) = sent(&answer(&fixture, &opened.cookie, &no).await);
    assert_eq!(named(&query, "error"), "access_denied");
    let (url, query) = sent(&answer(&fixture, &opened.cookie, &yes(&opened.sealed)).await);
    assert!(url.as_str().starts_with(REDIRECT) && !url.as_str().contains(key));
    assert!(named(&query, "code").starts_with("sfcode_"));
    assert_eq!(named(&query, "iss"), format!("http://{}", fixture.http));
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_login_may_do_what_its_key_and_its_scopes_may() {
    let fixture = Fixture::start().await;
    let other = fixture
        .post("/api/v1/projects", &json!({"name": "other"}))
        .await;
    let other = text(&other["id"]);
    let client = register(&fixture).await;
    let key = key_for(&fixture, &[&other]).await;
    let viewer = login(&fixture, &client, &key, "apps:view").await;
    let (_, reply) = fixture
        .call_as(&viewer.access, "POST", "/cli/projects", b"{}")
        .await;
    assert_eq!(reply, json!({"projects": [{"id": other, "name": "other"}]}));
    for (project, wanted) in [(&other, 200), (&fixture.project, 403)] {
        let body = json!({"projectId": project}).to_string();
        let path = "/cli/apps/list_apps";
        let (status, reply) = fixture
            .call_as(&viewer.access, "POST", path, body.as_bytes())
            .await;
        assert_eq!(status, wanted, "{reply}");
    }
    let path = "/cli/apps/create_app";
    let (status_, reply) = fixture.call_as(&viewer.access, "POST", path, b"{}").await;
    assert_eq!(status_, 403);
    assert!(text(&reply["error"]).contains("`apps:admin`"), "{reply}");
    assert_eq!(
        status(&fixture, &viewer.access, "GET", "/api/v1/flows").await,
        403
    );
    a_login_gets_no_scope_that_its_key_lacks(&fixture, &client).await;
    // Not even all scopes of an admin's key make or show keys.
    let all = login(&fixture, &client, &fixture.key, SCOPES).await;
    for (method, path) in [
        ("GET", "/api/v1/keys"),
        ("POST", "/api/v1/keys"),
        ("POST", "/api/v1/projects"),
        ("POST", "/provider/flows/get"),
    ] {
        assert_eq!(
            status(&fixture, &all.access, method, path).await,
            403,
            "{path}"
        );
    }
    // The key goes, and with it what stands on it.
    let keys = fixture.get("/api/v1/keys").await;
    let keys = keys.as_array().expect("a list");
    let id = keys
        .iter()
        .find(|key| key["name"] == "limited")
        .expect("the key");
    let path = format!("/api/v1/keys/{}", text(&id["id"]));
    assert_eq!(fixture.call("DELETE", &path, None).await.0, 200);
    assert_eq!(
        status(&fixture, &viewer.access, "POST", "/cli/projects").await,
        401
    );
    assert!(is_invalid(
        &refresh(&fixture, &client, &viewer.refresh).await
    ));
    assert_eq!(
        status(&fixture, &all.access, "POST", "/cli/projects").await,
        200
    );
    assert_eq!(fixture.stop().await, 0);
}

/// Scopes that the key lacks are not granted, and none at all is no login.
async fn a_login_gets_no_scope_that_its_key_lacks(fixture: &Fixture, client: &str) {
    let body = json!({"name": "scoped", "scopes": ["api", "apps:view"]});
    let scoped = text(&fixture.post("/api/v1/keys", &body).await["key"]);
    let granted = code(fixture, client, &scoped, "api flows:edit").await;
    let (_, reply) = redeem(fixture, client, &granted, VERIFIER).await;
    assert_eq!(reply["scope"], "api");
    let opened = open(fixture, &request(client, REDIRECT, "flows:edit")).await;
    let fields = [
        ("request", opened.sealed.as_str()),
        ("answer", "yes"),
        ("key", &scoped),
    ];
    let told = answer(fixture, &opened.cookie, &fields).await;
    let page = String::from_utf8_lossy(&told.body).into_owned();
    assert!(page.contains("has none of the scopes"), "{page}");
}
