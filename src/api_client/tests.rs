//! The door against a loopback server that says what each test wants.

use std::sync::{Arc, Mutex};

use async_std::channel;
use async_std::net::{TcpListener, TcpStream};
use base64::Engine;
use futures::{AsyncReadExt, AsyncWriteExt};
use sluice_proto::ids::JobId;
use sluice_proto::job::Attempt;

use super::*;
use crate::shutdown::spawn_detached;

/// A server that gives the answers of a list, one per request, and keeps what it read.
struct Server {
    url: Url,
    requests: channel::Receiver<String>,
}

impl Server {
    async fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (sender, requests) = channel::unbounded();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, sender) = (Arc::clone(&answers), sender.clone());
                spawn_detached(async move { serve(stream, &answers, &sender).await });
            }
        });
        Self {
            url: Url::parse(&format!("http://{addr}/")).expect("an address"),
            requests,
        }
    }

    fn client(&self) -> ApiClient {
        ApiClient::new(&self.url, &EgressConfig::default()).expect("a client")
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: &Mutex<std::vec::IntoIter<Vec<u8>>>,
    requests: &channel::Sender<String>,
) {
    while let Some(request) = read_request(&mut stream).await {
        let _ = requests.try_send(request);
        let answer = answers.lock().expect("not poisoned").next();
        match answer {
            Some(answer) if answer == b"close" => return,
            Some(answer) => {
                let _ = stream.write_all(&answer).await;
            }
            // The list is used up: silence, until the client goes away.
            None => return futures::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.trim().parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return Some(text);
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn digest_of(bytes: &[u8]) -> Digest {
    let hex: String = sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Digest(hex)
}

fn call<'a>(job: &'a JobId, args: &'a [u8]) -> Call<'a> {
    Call {
        job,
        attempt: Attempt {
            dispatch: 2,
            delivery: 1,
        },
        began: Attempt {
            dispatch: 1,
            delivery: 3,
        },
        number: 7,
        method: "kv.block.get",
        args,
    }
}

#[async_std::test]
async fn a_request_carries_its_token_and_brings_status_and_json() {
    let server = Server::start(vec![answer("404 Not Found", br#"{"error":"no such job"}"#)]).await;
    let body = json!({"a": 1});
    let (status, reply) = server
        .client()
        .request("POST", "/api/v1/jobs?wait=5", Some("sfapi_x"), Some(&body))
        .await
        .expect("an answer");
    assert_eq!((status, &reply["error"]), (404, &json!("no such job")));
    let request = server.requests.recv().await.expect("one request");
    assert!(
        request.starts_with("POST /api/v1/jobs?wait=5 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request
            .to_lowercase()
            .contains("authorization: bearer sfapi_x"),
        "{request}"
    );
    assert!(request.ends_with(r#"{"a":1}"#), "{request}");
}

#[async_std::test]
async fn a_body_that_is_no_json_becomes_an_error_sentence() {
    let server = Server::start(vec![answer("500 Oops", b"<html>broken</html>")]).await;
    let (status, reply) = server
        .client()
        .request("GET", "/health", None, None)
        .await
        .expect("an answer");
    assert_eq!(
        (status, reply),
        (500, json!({"error": "<html>broken</html>"}))
    );
}

#[async_std::test]
async fn a_busy_gateway_is_asked_again_for_a_read_but_not_for_a_write() {
    let busy = || answer("503 Busy", b"{}");
    let server = Server::start(vec![busy(), answer("200 OK", b"{}"), busy()]).await;
    let client = server.client();
    let read = client
        .request("GET", "/x", None, None)
        .await
        .expect("an answer");
    assert_eq!(read.0, 200);
    let write = client
        .request("POST", "/x", None, None)
        .await
        .expect("an answer");
    assert_eq!(write.0, 503);
    assert_eq!(server.requests.len(), 3);
}

#[async_std::test]
async fn a_redirect_is_not_followed() {
    let away = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let server = Server::start(vec![away.to_vec()]).await;
    let (status, _) = server
        .client()
        .request("GET", "/x", Some("secret"), None)
        .await
        .expect("an answer");
    assert_eq!(status, 302);
}

#[async_std::test]
async fn nobody_listening_is_unreachable_and_transient_and_shows_no_token() {
    let url = Url::parse("http://user:pass@127.0.0.1:1/").expect("an address");
    let client = ApiClient::new(&url, &EgressConfig::default()).expect("a client");
    let error = client
        .request("GET", "/x?key=hidden", Some("secret"), None)
        .await
        .expect_err("nobody listens there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient());
    let text = error.to_string();
    assert!(
        text.starts_with("GET http://127.0.0.1:1/x failed"),
        "{text}"
    );
    for hidden in ["secret", "hidden", "pass"] {
        assert!(!text.contains(hidden), "{text}");
    }
}

#[async_std::test]
async fn silence_is_a_time_out() {
    let server = Server::start(Vec::new()).await;
    let client = server.client();
    let attempted = Attempted {
        what: "Waiting".into(),
        method: Method::Get,
        url: server.url.clone(),
        token: None,
        json: None,
        limit: Duration::from_millis(100),
        bytes_max: 10,
        repeat: Repeat::Harmless,
        tries: 2,
    };
    let error = client
        .send(&attempted)
        .await
        .err()
        .expect("no answer comes");
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    assert_eq!(server.requests.len(), 2, "a read is tried again");
}

#[async_std::test]
async fn an_answer_over_the_limit_is_refused_announced_or_not() {
    let chunked =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n";
    let server = Server::start(vec![answer("200 OK", b"12345678901"), chunked.to_vec()]).await;
    let client = server.client();
    for _ in 0..2 {
        let attempted = Attempted {
            what: "Reading".into(),
            method: Method::Get,
            url: server.url.clone(),
            token: None,
            json: None,
            limit: Duration::from_secs(5),
            bytes_max: 10,
            repeat: Repeat::Harmless,
            tries: 1,
        };
        let error = client.send(&attempted).await.err().expect("too large");
        assert!(
            matches!(error, Error::TooLarge { bytes_max: 10, .. }),
            "{error:?}"
        );
    }
}

#[async_std::test]
async fn a_bundle_is_what_its_digest_says_or_nothing() {
    let bundle = b"export default 1".to_vec();
    let server = Server::start(vec![
        answer("200 OK", &bundle),
        answer("200 OK", b"something else"),
        answer("403 Forbidden", br#"{"error":"not yours"}"#),
    ])
    .await;
    let (client, digest) = (server.client(), digest_of(&bundle));
    assert_eq!(client.bundle(&digest, "token").await.as_ref(), Ok(&bundle));
    let request = server.requests.recv().await.expect("one request");
    assert!(
        request.starts_with(&format!("GET /agent/v1/bundles/{digest} ")),
        "{request}"
    );
    let error = client
        .bundle(&digest, "token")
        .await
        .expect_err("another content");
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    assert!(!error.is_transient());
    let error = client.bundle(&digest, "token").await.expect_err("refused");
    assert!(
        error
            .to_string()
            .ends_with("the gateway answered 403: not yours"),
        "{error}"
    );
    let error = client.bundle(&Digest("../../x".into()), "token").await;
    assert!(matches!(error, Err(Error::Invalid { .. })), "{error:?}");
}

#[async_std::test]
async fn a_call_brings_its_value_byte_for_byte_and_is_repeated_under_its_number() {
    let server = Server::start(vec![
        answer("502 Bad Gateway", b"restarting"),
        b"close".to_vec(),
        answer(
            "200 OK",
            br#"{"data":{"z":1.0,"a":12345678901234567890123}}"#,
        ),
    ])
    .await;
    let job = JobId::from("j-1");
    let value = server
        .client()
        .call("token", &call(&job, br#"["k",{}]"#))
        .await;
    let json = br#"{"z":1.0,"a":12345678901234567890123}"#.to_vec();
    assert_eq!(value, Ok(Answer::Value { json }));
    for _ in 0..2 {
        let request = server.requests.recv().await.expect("a request");
        let (_, body) = request.split_once("\r\n\r\n").expect("a body");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            body,
            json!({"job": "j-1", "attempt": {"dispatch": 2, "delivery": 1},
                   "began": {"dispatch": 1, "delivery": 3}, "number": 7,
                   "method": "kv.block.get", "args": ["k", {}]})
        );
    }
}

#[async_std::test]
async fn a_refused_call_is_an_answer_and_a_broken_one_is_an_error() {
    let server = Server::start(vec![
        answer("409 Conflict", br#"{"error":"the key is locked"}"#),
        answer("200 OK", br#"{"data":1,"more":2}"#),
    ])
    .await;
    let (client, job) = (server.client(), JobId::from("j"));
    let message = "the key is locked".to_owned();
    let refused = client.call("t", &call(&job, b"[]")).await;
    assert_eq!(refused, Ok(Answer::Error { message }));
    let broken = client.call("t", &call(&job, b"[]")).await;
    assert!(matches!(broken, Err(Error::Malformed { .. })), "{broken:?}");
}

#[test]
fn arguments_cannot_end_their_field() {
    let job = JobId::from("j");
    for forged in [&b"[],\"job\":\"other\""[..], b"{}", b"", b"[] []", b"[1"] {
        assert_eq!(call(&job, forged).to_json(), None);
    }
}

#[async_std::test]
async fn a_proxy_gets_its_password_and_no_proxy_goes_round_it() {
    let proxy = Server::start(vec![answer("200 OK", b"{}")]).await;
    let mut address = proxy.url.clone();
    address.set_username("ada").expect("a user fits");
    address
        .set_password(Some("p%40ss"))
        .expect("a password fits");
    let mut egress = EgressConfig {
        http_proxy: Some(address),
        ..EgressConfig::default()
    };
    let base = Url::parse("http://gateway.invalid/").expect("an address");
    let client = ApiClient::new(&base, &egress).expect("a client");
    let (status, _) = client
        .request("GET", "/x", None, None)
        .await
        .expect("an answer");
    assert_eq!(status, 200);
    let request = proxy.requests.recv().await.expect("one request");
    assert!(
        request.starts_with("GET http://gateway.invalid/x "),
        "{request}"
    );
    let basic = base64::engine::general_purpose::STANDARD.encode("ada:p@ss");
    assert!(
        request
            .to_lowercase()
            .contains(&format!("basic {}", basic.to_lowercase())),
        "{request}"
    );

    let direct = Server::start(vec![answer("200 OK", b"{}")]).await;
    egress.no_proxy = vec!["127.0.0.1".into()];
    let client = ApiClient::new(&direct.url, &egress).expect("a client");
    client
        .request("GET", "/x", None, None)
        .await
        .expect("an answer");
    assert_eq!((direct.requests.len(), proxy.requests.len()), (1, 0));
}

#[async_std::test]
async fn https_goes_through_the_proxy_by_connect() {
    let proxy = Server::start(vec![
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
        b"close".to_vec(),
    ])
    .await;
    let egress = EgressConfig {
        https_proxy: Some(proxy.url.clone()),
        ..EgressConfig::default()
    };
    let base = Url::parse("https://gateway.invalid/").expect("an address");
    let client = ApiClient::new(&base, &egress).expect("a client");
    let refused = client.request("POST", "/x", Some("secret"), None).await;
    let text = refused.expect_err("the proxy refuses").to_string();
    assert!(
        text.contains(&format!(
            "through the proxy http://127.0.0.1:{}",
            proxy.url.port().unwrap_or(0)
        )),
        "{text}"
    );
    let request = proxy.requests.recv().await.expect("one request");
    assert!(
        request.starts_with("CONNECT gateway.invalid:443 "),
        "{request}"
    );
    assert!(!request.contains("secret"), "{request}");
}
