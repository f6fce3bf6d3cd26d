//! The door against a TLS server whose certificate a private authority signed.
//! Authority, certificate and server are OpenSSL's command, which stands on
//! every host that has CA certificates.

use std::path::Path;

use async_process::{Child, Command, Stdio};
use futures::io::BufReader;
use futures::{AsyncBufReadExt, StreamExt};

use super::*;

async fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .await
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A server for 127.0.0.1, its address, and the authority's certificate.
async fn server(dir: &Path) -> (Child, Url, String) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(
        dir,
        &format!("req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem"),
    )
    .await;
    openssl(
        dir,
        &format!(
            "req -x509 -CA ca.pem -CAkey ca.key {key} -subj /CN=server \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
             -keyout leaf.key -out leaf.pem"
        ),
    )
    .await;
    let mut child = Command::new("openssl")
        .args("s_server -accept 127.0.0.1:0 -cert leaf.pem -key leaf.key -www".split(' '))
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl is installed");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let address = loop {
        let line = lines.next().await.expect("it listens").expect("text");
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.to_owned();
        }
    };
    // The pipe stays open for as long as the server writes to it.
    crate::shutdown::spawn_detached(lines.for_each(|_| std::future::ready(())));
    let url = Url::parse(&format!("https://{address}/")).expect("an address");
    let authority = std::fs::read_to_string(dir.join("ca.pem")).expect("written");
    (child, url, authority)
}

#[async_std::test]
async fn a_private_authority_is_trusted_only_if_it_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, url, authority) = server(dir.path()).await;

    let stranger = ApiClient::new(&url, &EgressConfig::default()).expect("a client");
    let error = stranger
        .request("GET", "/", None, None)
        .await
        .expect_err("nobody vouches for it");
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
    assert!(!error.is_transient());

    let egress = EgressConfig {
        additional_root_cas: vec![authority],
        ..EgressConfig::default()
    };
    let friend = ApiClient::new(&url, &egress).expect("a client");
    let (status, _) = friend
        .request("GET", "/", None, None)
        .await
        .expect("trusted");
    assert_eq!(status, 200);
}
