//! How bytes leave the host: surf's `HttpClient` over one isahc client.
//!
//! Owns proxy choice, trust and the translation of foreign errors. One isahc
//! client is one thread of its own, so there is one per gateway and it is shared.

use std::path::Path;
use std::time::Duration;

use isahc::AsyncBody;
use isahc::auth::{Authentication, Credentials};
use isahc::config::{Configurable, RedirectPolicy};
use isahc::error::ErrorKind;
use isahc::net::Dialer;
use isahc::tls::{TlsConfig, TrustStore};
use surf::http;
use url::Url;

use crate::api_client::Error;
use crate::config::EgressConfig;
use crate::egress;

/// How long a TCP and TLS handshake may take, the proxy's included.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// No transfer is longer, whatever its caller says: the last guard against a stuck peer.
const TRANSFER_MAX: Duration = Duration::from_secs(120);

/// Idle connections are probed, so that a peer that vanished is noticed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connections to one gateway: as many as a worker has calls in flight.
const CONNECTIONS_MAX: usize = 128;

/// surf's client over isahc.
#[derive(Debug)]
pub(super) struct Transport {
    isahc: isahc::HttpClient,
}

// === impl Transport ===

impl Transport {
    pub(super) fn new(base: &Url, egress: &EgressConfig) -> Result<Self, String> {
        let mut builder = isahc::HttpClient::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(TRANSFER_MAX)
            .tcp_nodelay()
            .tcp_keepalive(KEEPALIVE)
            .max_connections_per_host(CONNECTIONS_MAX)
            .redirect_policy(RedirectPolicy::None);
        if let Some(trust) = trust(egress)? {
            let tls = TlsConfig::builder().trust_store(trust).build();
            builder = builder.tls_config(tls.clone()).proxy_tls_config(tls);
        }
        builder = match proxy_for(base, egress) {
            // Said explicitly, as curl would look into the environment otherwise.
            None => builder.proxy(None),
            Some(proxy) => through(builder, proxy)?,
        };
        let isahc = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { isahc })
    }

    pub(super) fn on_socket(path: &Path) -> Result<Self, String> {
        let isahc = isahc::HttpClient::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(TRANSFER_MAX)
            .redirect_policy(RedirectPolicy::None)
            // Said explicitly, as curl would look into the environment otherwise.
            .proxy(None)
            .dial(Dialer::unix_socket(path))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { isahc })
    }
}

#[async_trait::async_trait]
impl surf::HttpClient for Transport {
    async fn send(&self, mut request: http::Request) -> Result<http::Response, http::Error> {
        let mut builder = isahc::http::Request::builder()
            .method(request.method().to_string().as_str())
            .uri(request.url().as_str());
        for (name, values) in request.iter() {
            for value in values {
                builder = builder.header(name.as_str(), value.as_str());
            }
        }
        // Bytes in one piece can be sent again by curl when a kept connection turns out to be dead.
        let body = request.take_body().into_bytes().await?;
        let body = if body.is_empty() {
            AsyncBody::empty()
        } else {
            AsyncBody::from_bytes_static(body)
        };
        let foreign = builder
            .body(body)
            .map_err(|error| http::Error::new(400, error))?;
        let answer = self
            .isahc
            .send_async(foreign)
            .await
            .map_err(|error| http::Error::new(502, error))?;
        let (parts, body) = answer.into_parts();
        let status = http::StatusCode::try_from(parts.status.as_u16())?;
        let mut response = http::Response::new(status);
        for (name, value) in &parts.headers {
            // A header that is no text is nothing we read.
            if let Ok(value) = value.to_str() {
                response.append_header(name.as_str(), value);
            }
        }
        let len = body.len().and_then(|len| usize::try_from(len).ok());
        let reader = futures::io::BufReader::new(body);
        response.set_body(http::Body::from_reader(reader, len));
        Ok(response)
    }
}

/// What a failed request means.
pub(super) fn explain(what: &str, limit: Duration, error: &http::Error) -> Error {
    match error.downcast_ref::<isahc::Error>() {
        Some(error) => translate(what, limit, error),
        None => Error::Invalid {
            what: what.to_owned(),
            why: error.to_string(),
        },
    }
}

/// What a body that broke off means.
pub(super) fn explain_io(what: &str, limit: Duration, error: &std::io::Error) -> Error {
    match error
        .get_ref()
        .and_then(|e| e.downcast_ref::<isahc::Error>())
    {
        Some(error) => translate(what, limit, error),
        None => Error::Broken {
            what: what.to_owned(),
            why: error.to_string(),
        },
    }
}

fn translate(what: &str, limit: Duration, error: &isahc::Error) -> Error {
    let (what, why) = (what.to_owned(), reasons(error));
    match error.kind() {
        ErrorKind::ConnectionFailed | ErrorKind::NameResolution => Error::Unreachable { what, why },
        ErrorKind::Timeout => Error::TimedOut {
            what,
            limit_s: limit.min(CONNECT_MAX).as_secs(),
        },
        ErrorKind::BadServerCertificate => Error::Untrusted { what, why },
        ErrorKind::ClientInitialization
        | ErrorKind::InvalidTlsConfiguration
        | ErrorKind::TlsEngine
        | ErrorKind::BadClientCertificate => Error::Setup { what, why },
        ErrorKind::InvalidRequest => Error::Invalid { what, why },
        _ => Error::Broken { what, why },
    }
}

/// The error and what lies under it: isahc calls some of curl's errors merely unknown.
fn reasons(error: &isahc::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}

/// The system's roots and the additional ones in one store, or `None` where
/// the system's own verifier is enough: a store of our own replaces it.
fn trust(egress: &EgressConfig) -> Result<Option<TrustStore>, String> {
    if egress.additional_root_cas.is_empty() {
        return Ok(None);
    }
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "Some of the system's root certificates cannot be read");
    }
    let mut store = TrustStore::builder();
    for certificate in &system.certs {
        store = store.certificate_from_der(certificate);
    }
    for pem in &egress.additional_root_cas {
        // A text without a final line end would run into the next one.
        store = store.certificate_from_pem(format!("\n{}\n", pem.trim()));
    }
    Ok(Some(store.build()))
}

fn through(
    builder: isahc::HttpClientBuilder,
    proxy: &Url,
) -> Result<isahc::HttpClientBuilder, String> {
    let mut address = proxy.clone();
    // Neither can fail for an address that has a host, and a proxy without one is refused below.
    let _ = address.set_username("");
    let _ = address.set_password(None);
    let uri: isahc::http::Uri = address
        .as_str()
        .parse()
        .map_err(|_| "the proxy's address is no address".to_owned())?;
    let builder = builder.proxy(Some(uri));
    if proxy.username().is_empty() {
        return Ok(builder);
    }
    let plain = |text: &str| percent_decoded(text);
    let (user, password) = (
        plain(proxy.username()),
        plain(proxy.password().unwrap_or("")),
    );
    Ok(builder
        .proxy_authentication(Authentication::basic())
        .proxy_credentials(Credentials::new(user, password)))
}

/// The proxy for this address, if it needs one.
pub(super) fn proxy_for<'a>(url: &Url, egress: &'a EgressConfig) -> Option<&'a Url> {
    let port = url.port_or_known_default()?;
    egress::proxy_for(egress, url.scheme() == "https", url.host_str()?, port)
}

fn percent_decoded(text: &str) -> String {
    // The one decoder at hand is the form decoder, which gives `+` and `&` a meaning of their own.
    let query = format!("v={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(query.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_a_plus_and_an_escape_is_read_as_written() {
        assert_eq!(percent_decoded("a+b%40c&d=e"), "a+b@c&d=e");
    }
}
