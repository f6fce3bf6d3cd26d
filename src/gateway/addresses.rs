//! Where others find the gateway, and the endpoints of its apps and flows.
//!
//! ```text
//!  without an endpoint domain   BASE/endpoints/ID/…
//!  with one                     SCHEME://ID.endpoints.DOMAIN[:PORT]/…   (and the other one still)
//! ```
//!
//! Text in, text out: whether there is an endpoint of that id is the engine's to say.

use url::Url;

/// Stands between an id and the domain.
const INFIX: &str = ".endpoints.";
/// The longest id in a host's name: a label of DNS, in bytes.
const LABEL_BYTES_MAX: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Without a slash at the end.
    base: String,
    hosts: Option<Hosts>,
}

/// Endpoints with a host each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hosts {
    /// Of the base: a proxy stands before both.
    scheme: String,
    port: Option<u16>,
    /// Lower case.
    domain: String,
}

// === impl Addresses ===

impl Addresses {
    /// `base` is an `http` or `https` address without a slash at the end.
    pub fn new(base: String, endpoint_domain: Option<&str>) -> Self {
        let url = Url::parse(&base).ok();
        let hosts = endpoint_domain.map(|domain| Hosts {
            scheme: url.as_ref().map_or("http", Url::scheme).to_owned(),
            port: url.as_ref().and_then(Url::port),
            domain: domain.to_ascii_lowercase(),
        });
        Self { base, hosts }
    }

    /// Of the gateway, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Of an installation or a flow, without a slash at the end.
    pub fn endpoint(&self, id: &str) -> String {
        let Some(hosts) = &self.hosts else {
            return format!("{}/endpoints/{id}", self.base);
        };
        let (scheme, domain) = (&hosts.scheme, &hosts.domain);
        let port = hosts.port.map(|port| format!(":{port}"));
        format!("{scheme}://{id}{INFIX}{domain}{}", port.unwrap_or_default())
    }

    /// The id in the `Host` of a request, when it is an endpoint's. A proxy may
    /// have changed the port, which says nothing.
    pub fn endpoint_at(&self, host: &str) -> Option<String> {
        let hosts = self.hosts.as_ref()?;
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let id = name.strip_suffix(&hosts.domain)?.strip_suffix(INFIX)?;
        let is_label = !id.is_empty() && id.len() <= LABEL_BYTES_MAX && !id.contains('.');
        is_label.then(|| id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_paths_unless_there_is_a_domain() {
        let paths = Addresses::new("https://flows.example.org/base".to_owned(), None);
        assert_eq!(
            paths.endpoint("a1"),
            "https://flows.example.org/base/endpoints/a1"
        );
        assert_eq!(paths.endpoint_at("a1.endpoints.example.org"), None);
        for (base, endpoint) in [
            (
                "https://flows.example.org",
                "https://a1.endpoints.example.org",
            ),
            (
                "http://127.0.0.1:8080",
                "http://a1.endpoints.example.org:8080",
            ),
        ] {
            let hosts = Addresses::new(base.to_owned(), Some("Example.org"));
            assert_eq!(hosts.endpoint("a1"), endpoint);
            assert_eq!(hosts.base(), base);
        }
    }

    #[test]
    fn a_host_names_an_endpoint_or_none() {
        let hosts = Addresses::new("http://127.0.0.1:8080".to_owned(), Some("example.org"));
        for (host, id) in [
            ("a1.endpoints.example.org", Some("a1")),
            ("A1.Endpoints.Example.ORG:8443", Some("a1")),
            ("a1.endpoints.example.org.", Some("a1")),
            ("endpoints.example.org", None),
            (".endpoints.example.org", None),
            ("b.a1.endpoints.example.org", None),
            ("a1.endpoints.example.org.evil.org", None),
            ("a1.endpoints.notexample.org", None),
            ("127.0.0.1:8080", None),
            ("[::1]:8080", None),
            ("", None),
        ] {
            assert_eq!(hosts.endpoint_at(host).as_deref(), id, "{host}");
        }
    }
}
