//! The wire door over loopback: sessions, refusals, broken peers, proxies and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_std::future::timeout;
use async_std::net::{TcpListener, TcpStream};
use async_std::task;
use futures::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::TlsAcceptor;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring;
use sluice::config::EgressConfig;
use sluice::wire::{self, Error, Pending};
use sluice_proto::codec::FRAME_BYTES_MAX;
use sluice_proto::frame::{FromBridge, FromGateway};
use url::Url;

/// How long anything on loopback may take before it counts as never.
const SOON: Duration = Duration::from_secs(10);

#[async_std::test]
async fn a_session_carries_frames_both_ways_and_ends_with_a_reason() {
    let (url, listener) = listen().await;
    let gateway = spawn(async move {
        let pending = pending(&listener).await;
        assert_eq!((pending.pool.as_str(), pending.token.as_str()), ("p", "t"));
        let (mut sender, mut receiver) = pending.accept().await.expect("open");
        let said = receiver.next().await.expect("a frame");
        sender.send(&FromGateway::Heartbeat).await.expect("written");
        assert!(receiver.next().await.expect("a close").is_none());
        assert_eq!(receiver.parting(), Some("enough"));
        said
    });
    let (mut sender, mut receiver) = dial(&url, "t").await.expect("open");
    let said = FromBridge::Goodbye {
        reason: "a test".into(),
    };
    sender.send(&said).await.expect("written");
    assert_eq!(
        receiver.next().await.expect("a frame"),
        Some(FromGateway::Heartbeat)
    );
    sender.close("enough").await;
    assert_eq!(gateway.await, Some(said));
}

#[async_std::test]
async fn a_refusal_is_final_for_credentials_and_passing_for_the_rest() {
    for status in [401, 403, 503] {
        let (url, listener) = listen().await;
        let gateway = spawn(async move {
            pending(&listener)
                .await
                .refuse(status, "The token is unknown.")
                .await;
        });
        let error = dial(&url, "wrong").await.map(drop).expect_err("refused");
        assert_eq!(error.is_transient(), status == 503, "{error}");
        assert!(
            error.to_string().contains("The token is unknown."),
            "{error}"
        );
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        gateway.await;
    }
    let (url, listener) = listen().await;
    drop(listener);
    let error = dial(&url, "t").await.map(drop).expect_err("nobody there");
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

#[async_std::test]
async fn what_is_no_frame_closes_the_session_with_code_1002() {
    for (name, opcode, payload) in [
        ("garbage", 2u8, &b"\xc1garbage"[..]),
        ("text", 1, b"hello"),
        ("a frame of the other direction", 2, b"\xa9heartbeat"),
    ] {
        let (error, code, reason) = broken_peer(client_frame(opcode, payload)).await;
        assert!(matches!(error, Error::Malformed(_)), "{name}: {error}");
        assert_eq!(code, 1002, "{name}");
        assert!(!reason.is_empty(), "{name}: no sentence");
    }
}

#[async_std::test]
async fn a_frame_over_the_limit_closes_the_session_with_code_1009_before_it_is_read() {
    let mut frame = vec![0x82, 0xff];
    frame.extend((FRAME_BYTES_MAX as u64 + 1).to_be_bytes());
    frame.extend([0; 4]);
    let (error, code, reason) = broken_peer(frame).await;
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    assert_eq!(code, 1009);
    assert!(reason.contains(&FRAME_BYTES_MAX.to_string()), "{reason}");
}

#[async_std::test]
async fn a_frame_that_would_be_too_large_is_not_sent_and_the_session_goes_on() {
    let (url, listener) = listen().await;
    let gateway = spawn(async move {
        let (_sender, mut receiver) = pending(&listener).await.accept().await.expect("open");
        receiver.next().await.expect("a frame")
    });
    let (mut sender, _receiver) = dial(&url, "t").await.expect("open");
    let frame = |length| FromBridge::Goodbye {
        reason: "x".repeat(length),
    };
    let error = sender.send(&frame(FRAME_BYTES_MAX)).await.err();
    assert!(matches!(error, Some(Error::TooLarge(_))), "{error:?}");
    let largest = frame(FRAME_BYTES_MAX - 64);
    sender.send(&largest).await.expect("within the limit");
    assert_eq!(gateway.await, Some(largest));
}

#[async_std::test]
async fn a_stranger_gets_a_status_and_a_sentence() {
    let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(20_000));
    for (request, reply) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
        ("GET /agent/v1/session HTTP/1.1\r\n\r\n", "HTTP/1.1 426"),
        (&upgrade("x: y"), "HTTP/1.1 401"),
        (&long, ""),
    ] {
        let (url, listener) = listen().await;
        let gateway = spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            wire::accept(stream).await.err()
        });
        let mut stream = TcpStream::connect(addr(&url)).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        // A connection that is reset for a head without end says nothing.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(reply), "{answer}");
        assert!(
            reply.is_empty() || answer.contains("{\"error\":\""),
            "{answer}"
        );
        assert!(gateway.await.is_some(), "no session");
    }
}

#[async_std::test]
async fn a_session_goes_through_a_connect_proxy_that_wants_a_password() {
    let (url, listener) = listen().await;
    let gateway = spawn(async move {
        let (mut sender, _receiver) = pending(&listener).await.accept().await.expect("open");
        sender.send(&FromGateway::Heartbeat).await.expect("written");
    });
    let proxy = proxy(addr(&url)).await;
    // A name that only the proxy knows.
    let inside = Url::parse("ws://gateway.inside:8081").expect("an address");
    let egress = |user: &str| EgressConfig {
        http_proxy: Some(Url::parse(&format!("http://{user}@{proxy}")).expect("an address")),
        ..EgressConfig::default()
    };
    let error = wire::dial(&inside, "p", "t", &egress("ann:wrong"))
        .await
        .err();
    let error = error.expect("the proxy says no");
    assert!(matches!(error, Error::Proxy(_)), "{error}");
    assert!(error.to_string().contains("407"), "{error}");
    assert!(
        !error.to_string().contains("wrong"),
        "it tells the password"
    );
    let dialled = wire::dial(&inside, "p", "t", &egress("ann:se%20cret")).await;
    let (_sender, mut receiver) = dialled.expect("open");
    let heard = receiver.next().await.expect("a frame");
    assert_eq!(heard, Some(FromGateway::Heartbeat));
    gateway.await;
}

#[async_std::test]
async fn tls_trusts_the_additional_roots_and_nobody_else() {
    let (plain, listener) = listen().await;
    let gateway = spawn(async move {
        let (mut sender, _receiver) = pending(&listener).await.accept().await.expect("open");
        sender.send(&FromGateway::Heartbeat).await.expect("written");
    });
    let url = tls_front(addr(&plain)).await;
    let error = wire::dial(&url, "p", "t", &EgressConfig::default())
        .await
        .err();
    assert!(matches!(error, Some(Error::Tls { .. })), "{error:?}");
    let egress = EgressConfig {
        additional_root_cas: vec![include_str!("support/tls/ca.pem").into()],
        ..EgressConfig::default()
    };
    let (_sender, mut receiver) = wire::dial(&url, "p", "t", &egress).await.expect("open");
    let heard = receiver.next().await.expect("a frame");
    assert_eq!(heard, Some(FromGateway::Heartbeat));
    gateway.await;
}

/// What the gateway makes of raw bytes after the upgrade, and the close code
/// and reason that the peer gets.
async fn broken_peer(bytes: Vec<u8>) -> (Error, u16, String) {
    let (url, listener) = listen().await;
    let gateway = spawn(async move {
        let (_sender, mut receiver) = pending(&listener).await.accept().await.expect("open");
        receiver.next().await.expect_err("no frame")
    });
    let mut stream = TcpStream::connect(addr(&url)).await.expect("connected");
    let head = upgrade("x-sluice-pool: p\r\nauthorization: Bearer t");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = [0u8; 1];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut answer).await.expect("an answer");
        head.extend(answer);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream.write_all(&bytes).await.expect("written");
    let mut close = [0u8; 4];
    let reading = timeout(SOON, stream.read_exact(&mut close));
    reading.await.expect("a close in time").expect("a close");
    assert_eq!(close[0], 0x88, "a close message");
    let mut reason = vec![0u8; usize::from(close[1]) - 2];
    stream.read_exact(&mut reason).await.expect("a reason");
    let code = u16::from_be_bytes([close[2], close[3]]);
    let reason = String::from_utf8(reason).expect("a text");
    (gateway.await, code, reason)
}

/// A masked frame with a zero mask.
fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

fn upgrade(headers: &str) -> String {
    format!(
        "GET /agent/v1/session HTTP/1.1\r\nhost: g\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n\r\n"
    )
}

async fn dial(
    url: &Url,
    token: &str,
) -> Result<(wire::Sender<FromBridge>, wire::Receiver<FromGateway>), Error> {
    wire::dial(url, "p", token, &EgressConfig::default()).await
}

async fn pending(listener: &TcpListener) -> Pending {
    let (stream, _) = listener.accept().await.expect("a connection");
    wire::accept(stream).await.expect("a request")
}

async fn listen() -> (Url, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let url = Url::parse(&format!("http://{addr}")).expect("an address");
    (url, listener)
}

fn addr(url: &Url) -> SocketAddr {
    url.socket_addrs(|| None).expect("an address")[0]
}

/// A proxy that opens tunnels to one place, for those who know the password.
async fn proxy(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    drop(spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = vec![0u8; 4096];
            let read = client.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            // ann:se cret
            let known = head.contains("proxy-authorization: Basic YW5uOnNlIGNyZXQ=");
            if !known || !head.starts_with("CONNECT gateway.inside:8081 HTTP/1.1\r\n") {
                let no = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                let _ = client.write_all(no).await;
                continue;
            }
            let server = TcpStream::connect(upstream).await.expect("upstream");
            let _ = client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await;
            join(client, server).await;
        }
    }));
    addr
}

/// Ends TLS in front of a plain listener.
async fn tls_front(upstream: SocketAddr) -> Url {
    let certificate = include_bytes!("support/tls/server.pem");
    let key = include_bytes!("support/tls/server.key");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(client) = acceptor.accept(client).await else {
                continue;
            };
            let server = TcpStream::connect(upstream).await.expect("upstream");
            join(client, server).await;
        }
    }));
    Url::parse(&format!("https://127.0.0.1:{port}")).expect("an address")
}

async fn join(
    a: impl futures::AsyncRead + futures::AsyncWrite + Unpin,
    b: impl futures::AsyncRead + futures::AsyncWrite + Unpin,
) {
    let ((mut a_in, mut a_out), (mut b_in, mut b_out)) = (a.split(), b.split());
    let up = futures::io::copy(&mut a_in, &mut b_out);
    let down = futures::io::copy(&mut b_in, &mut a_out);
    futures::future::select(up, down).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests own their tasks by awaiting them or ending"
)]
fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> task::JoinHandle<T> {
    task::spawn(future)
}
