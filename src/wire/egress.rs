//! The way out of the host: straight, or through a proxy's tunnel; plain, or TLS.

use std::sync::Arc;

use async_std::net::TcpStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::TlsConnector;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::{ClientConfig, RootCertStore};
use url::Url;

use crate::config::EgressConfig;
use crate::egress::{bare, proxy_for};
use crate::shutdown;
use crate::wire::{AnyIo, Error};

/// The longest answer of a proxy that is read, in bytes.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

/// Opens a stream to the target by the way that the settings say.
pub(super) async fn connect(target: &Target, egress: &EgressConfig) -> Result<AnyIo, Error> {
    let stream = match proxy_for(egress, target.tls, &target.host, target.port) {
        None => plain(target).await?,
        Some(proxy) => tunnel(proxy, target, egress).await?,
    };
    if target.tls {
        secure(stream, &target.host, egress).await
    } else {
        Ok(stream)
    }
}

async fn plain(target: &Target) -> Result<AnyIo, Error> {
    let Target { host, port, .. } = target;
    let stream = TcpStream::connect((bare(host), *port))
        .await
        .map_err(|error| Error::Unreachable(format!("{host}:{port}: {error}")))?;
    // Frames are small and somebody waits for each.
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}

/// A tunnel through an HTTP proxy (RFC 9110 section 9.3.6).
async fn tunnel(proxy: &Url, target: &Target, egress: &EgressConfig) -> Result<AnyIo, Error> {
    let hop = Target {
        host: proxy.host_str().unwrap_or_default().to_owned(),
        port: proxy.port_or_known_default().unwrap_or(80),
        tls: proxy.scheme() == "https",
    };
    let at = format!("at {}:{}", hop.host, hop.port);
    let mut stream = plain(&hop)
        .await
        .map_err(|error| Error::Proxy(format!("{at} cannot be reached: {error}")))?;
    if hop.tls {
        stream = secure(stream, &hop.host, egress).await?;
    }
    let authority = format!("{}:{}", target.host, target.port);
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n");
    if !proxy.username().is_empty() {
        let decoded = |text: &str| {
            url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
                .next()
                .map_or_else(String::new, |(_, value)| value.into_owned())
        };
        let (user, password) = (proxy.username(), proxy.password().unwrap_or_default());
        let credentials = BASE64.encode(format!("{}:{}", decoded(user), decoded(password)));
        request.push_str(&format!("proxy-authorization: Basic {credentials}\r\n"));
    }
    request.push_str("\r\n");
    let failed = |error: std::io::Error| Error::Proxy(format!("{at}: {error}"));
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let head = proxy_head(&mut stream).await.map_err(failed)?;
    let first = head.lines().next().unwrap_or_default();
    match first.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(stream),
        Some("407") => Err(Error::Proxy(format!(
            "{at} asks for other credentials (407): put user and password into its address"
        ))),
        _ => Err(Error::Proxy(format!(
            "{at} opens no tunnel to {authority}: {first}"
        ))),
    }
}

/// Reads byte by byte: what follows the head belongs to whoever is behind the proxy.
async fn proxy_head(stream: &mut AnyIo) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await?;
        head.push(byte[0]);
        if head.len() > PROXY_HEAD_BYTES_MAX {
            return Err(std::io::Error::other("its answer does not end"));
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn secure(stream: AnyIo, host: &str, egress: &EgressConfig) -> Result<AnyIo, Error> {
    let failed = |reason: String| Error::Tls {
        host: host.to_owned(),
        reason,
    };
    let roots = roots(egress).await.map_err(failed)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(bare(host).to_owned())
        .map_err(|_| failed("its name fits no certificate".into()))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(stream))
}

/// The system's roots and the additional ones.
async fn roots(egress: &EgressConfig) -> Result<RootCertStore, String> {
    let system = shutdown::unblock(rustls_native_certs::load_native_certs).await;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system.certs);
    for pem in &egress.additional_root_cas {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            certificate
                .map_err(|error| error.to_string())
                .and_then(|der| roots.add(der).map_err(|error| error.to_string()))
                .map_err(|why| format!("an additional root is unusable: {why}"))?;
        }
    }
    if roots.is_empty() {
        return Err(
            "no root certificates: install ca-certificates or set FLOWS_ADDITIONAL_ROOT_CAS".into(),
        );
    }
    Ok(roots)
}
