//! Tests of requests as handlers see them, and of answers.

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::{Incoming, Refused, Request, Response, below, body_value, canonical, response};

fn incoming<'a>(
    target: &'a str,
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a [u8],
) -> Incoming<'a> {
    Incoming {
        request_id: "r1",
        method: "post",
        target,
        headers,
        body,
    }
}

#[test]
fn header_names_are_written_as_go_writes_them() {
    for (name, expected) in [
        ("x-hub-signature-256", "X-Hub-Signature-256"),
        ("X-SLACK-SIGNATURE", "X-Slack-Signature"),
        ("authorization", "Authorization"),
        ("x-github-event", "X-Github-Event"),
        ("etag", "Etag"),
        ("www-authenticate", "Www-Authenticate"),
        ("a_b-c.d", "A_b-C.d"),
        ("-x--y-", "-X--Y-"),
        ("has space", "has space"),
        ("", ""),
    ] {
        assert_eq!(canonical(name), expected);
    }
}

#[test]
fn a_signed_json_request_keeps_its_exact_text() {
    let body = br#"{ "b": 1,  "a": [2.50] }"#;
    let headers: [(&str, &[u8]); 3] = [
        ("content-type", b"application/json; charset=utf-8"),
        ("x-hub-signature-256", b"sha256=00"),
        ("X-HUB-signature-256", b"again"),
    ];
    let request =
        Request::read(&incoming("/hook?x=1&x=2&y=a%20b+c", &headers, body)).expect("reads");
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/hook");
    assert_eq!(request.raw_body.as_bytes(), body);
    assert_eq!(request.body, json!({"b": 1, "a": [2.5]}));
    assert_eq!(request.query["x"], "1");
    assert_eq!(request.query["y"], "a b c");
    assert_eq!(request.headers["X-Hub-Signature-256"], "sha256=00, again");
    let seen = serde_json::to_value(&request).expect("writes");
    for key in [
        "requestId",
        "method",
        "path",
        "query",
        "headers",
        "body",
        "rawBody",
    ] {
        assert!(seen.get(key).is_some(), "{key}");
    }
    assert!(seen.get("rawBodyBase64").is_none());
}

#[test]
fn bodies_are_read_by_their_type() {
    let value = |content_type: &str, body: &[u8]| body_value(content_type, body);
    assert_eq!(value("application/json", b""), Value::Null);
    assert_eq!(value("application/vnd.api+json", b"[1]"), json!([1]));
    assert_eq!(value("application/json", b"{broken"), json!("{broken"));
    assert_eq!(
        value(
            "application/x-www-form-urlencoded",
            b"payload=%7B%22a%22%3A1%7D&x=1&x=2&e="
        ),
        json!({"payload": "{\"a\":1}", "x": ["1", "2"], "e": ""})
    );
    assert_eq!(value("text/plain", "grüß".as_bytes()), json!("grüß"));
    assert_eq!(value("", b"plain"), json!("plain"));
    assert_eq!(value("image/png", b"\xff\x00"), json!({"$bytes": "/wA="}));
}

#[test]
fn bytes_that_are_no_text_come_in_base64_too() {
    let request = Request::read(&incoming("", &[], b"\xff\x00")).expect("reads");
    assert_eq!(request.path, "/");
    assert_eq!(request.raw_body_base64.as_deref(), Some("/wA="));
}

#[test]
fn the_path_is_relative_to_the_endpoint() {
    assert_eq!(
        below("/apps/1", "/apps/1/webhook?x").as_deref(),
        Some("/webhook?x")
    );
    assert_eq!(below("/apps/1", "/apps/1").as_deref(), Some("/"));
    assert_eq!(below("/apps/1/", "/apps/1/").as_deref(), Some("/"));
    assert_eq!(below("/apps/1", "/apps/1?x=1").as_deref(), Some("/?x=1"));
    assert_eq!(below("/", "/a").as_deref(), Some("/a"));
    assert_eq!(below("", "").as_deref(), Some("/"));
    assert_eq!(below("/apps/1", "/apps/12"), None);
    assert_eq!(below("/apps/1", "/other"), None);
}

#[test]
fn each_limit_has_its_status() {
    let big = vec![b'x'; super::REQUEST_BODY_BYTES_MAX + 1];
    let refused = Request::read(&incoming("/", &[], &big)).expect_err("too large");
    assert_eq!((refused.status(), &refused), (413, &Refused::BodyTooLarge));
    assert!(Request::read(&incoming("/", &[], &big[1..])).is_ok());

    let many = vec![("a", &b"b"[..]); super::HEADERS_MAX + 1];
    let refused = Request::read(&incoming("/", &many, b"")).expect_err("too many");
    assert_eq!(refused.status(), 431);
    let wide = vec![b'x'; super::HEADER_BYTES_MAX];
    let refused = Request::read(&incoming("/", &[("a", &wide)], b"")).expect_err("too large");
    assert_eq!(refused, Refused::HeadersTooLarge);

    let long = format!("/{}", "x".repeat(super::TARGET_BYTES_MAX));
    let refused = Request::read(&incoming(&long, &[], b"")).expect_err("too long");
    assert_eq!(refused.status(), 414);
    let pairs = format!("/?{}", "a&".repeat(super::PAIRS_MAX + 1));
    let refused = Request::read(&incoming(&pairs, &[], b"")).expect_err("too many");
    assert_eq!(refused, Refused::TooManyPairs);
    // A form over its limit is still a text.
    let form = "a&".repeat(super::PAIRS_MAX + 1);
    let form = body_value("application/x-www-form-urlencoded", form.as_bytes());
    assert!(form.is_string());
}

#[test]
fn an_answer_has_defaults() {
    assert_eq!(
        response(&Value::Null),
        Ok(Response {
            status: 200,
            headers: vec![],
            body: vec![]
        })
    );
    let json = response(&json!({"body": {"ok": true}})).expect("an answer");
    assert_eq!(json.body, br#"{"ok":true}"#);
    assert_eq!(
        json.headers,
        [("Content-Type".to_owned(), "application/json".to_owned())]
    );
    let text = response(
        &json!({"statusCode": 201, "body": "hi", "headers": {"content-type": "text/html"}}),
    )
    .expect("an answer");
    assert_eq!((text.status, text.body.as_slice()), (201, &b"hi"[..]));
    assert_eq!(
        text.headers,
        [("Content-Type".to_owned(), "text/html".to_owned())]
    );
    let zip = response(&json!({"body": {"$bytes": "/wA="}})).expect("an answer");
    assert_eq!(zip.body, [0xff, 0]);
    let list = response(&json!({"body": [1]})).expect("an answer");
    assert_eq!(list.body, b"[1]");
    let none = response(&json!({"statusCode": 204, "body": "x"})).expect("an answer");
    assert!(none.body.is_empty());
}

#[test]
fn an_answer_cannot_break_the_connection() {
    let split = json!({"headers": {"x": "a\r\nSet-Cookie: b"}});
    assert!(response(&split).is_err_and(|why| why.contains("no header")));
    let framing = json!({"headers": {
        "content-length": "5", "Transfer-Encoding": "chunked", "connection": "upgrade",
        "set-cookie": ["a=1", "b=2"], "x-count": 3, "x-none": null
    }});
    let headers = response(&framing).expect("an answer").headers;
    let names = headers
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["Set-Cookie=a=1", "Set-Cookie=b=2", "X-Count=3"]
    );
    for (args, why) in [
        (json!({"statusCode": 101}), "200 to 599"),
        (json!({"statusCode": 200.5}), "200 to 599"),
        (json!({"statusCode": "200"}), "expected a number"),
        (json!({"headers": []}), "expected an object"),
        (json!({"headers": {"x": {}}}), "`headers.X`"),
        (json!({"headers": {"x y": "1"}}), "no header"),
        (json!({"body": {"$bytes": "*"}}), "no base64"),
        (json!("text"), "an object"),
    ] {
        let found = response(&args).expect_err("refused");
        assert!(found.contains(why), "{args}: {found}");
    }
    let big = json!({"body": "x".repeat(super::RESPONSE_BODY_BYTES_MAX + 1)});
    assert!(response(&big).is_err_and(|why| why.contains("more than")));
}

proptest! {
    #[test]
    fn canonical_is_stable_and_ignores_case(name in "[a-zA-Z0-9-]{0,30}") {
        let once = canonical(&name);
        prop_assert_eq!(canonical(&once), once.clone());
        prop_assert_eq!(canonical(&name.to_uppercase()), once);
    }

    #[test]
    fn any_request_is_read_or_refused(target in "\\PC{0,40}", name in "\\PC{0,10}", body in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
        let headers = [(name.as_str(), body.as_slice()), ("content-type", &b"application/json"[..])];
        let request = Request::read(&incoming(&target, &headers, &body)).expect("within the limits");
        prop_assert!(request.path.starts_with('/'));
    }
}
