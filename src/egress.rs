//! Which way out of the host a connection takes: pure, and the same for every door.

use std::net::IpAddr;

use url::Url;

use crate::config::EgressConfig;

/// The proxy for a connection to `host`, if it needs one. `tls` is what the
/// scheme says: `https` and `wss` have a proxy of their own.
pub fn proxy_for<'a>(
    egress: &'a EgressConfig,
    tls: bool,
    host: &str,
    port: u16,
) -> Option<&'a Url> {
    let proxy = if tls {
        egress.https_proxy.as_ref()
    } else {
        egress.http_proxy.as_ref()
    };
    proxy.filter(|_| !goes_straight(&egress.no_proxy, host, port))
}

/// Whether `NO_PROXY` covers a host. An entry is `*`, a name (which covers its
/// subdomains, with or without a leading dot), an address, or a range such as
/// `10.0.0.0/8`; each may end in `:port`. Entries are lower case.
fn goes_straight(no_proxy: &[String], host: &str, port: u16) -> bool {
    let host = bare(host).to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    no_proxy.iter().any(|entry| {
        if entry == "*" {
            return true;
        }
        let (entry, entry_port) = split_port(entry);
        if entry_port.is_some_and(|entry_port| entry_port != port) {
            return false;
        }
        let entry = bare(entry);
        match (ip, entry.split_once('/')) {
            (Some(ip), Some((network, bits))) => in_range(ip, network, bits),
            (Some(ip), None) => entry.parse() == Ok(ip),
            (None, _) => {
                let name = entry.trim_start_matches("*.").trim_start_matches('.');
                !name.is_empty()
                    && (host == name
                        || host
                            .strip_suffix(name)
                            .is_some_and(|rest| rest.ends_with('.')))
            }
        }
    })
}

fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        // More colons before: a bare IPv6 address, whose last group is no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => port
            .parse()
            .map_or((entry, None), |port| (host, Some(port))),
        _ => (entry, None),
    }
}

/// An address without the brackets that IPv6 has in URLs.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn in_range(ip: IpAddr, network: &str, bits: &str) -> bool {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let ((ip, width), (network, network_width)) = (wide(ip), wide(network));
    if width != network_width || bits > width {
        return false;
    }
    bits == 0 || (ip ^ network) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn straight(entries: &str, host: &str, port: u16) -> bool {
        let entries: Vec<_> = entries.split(',').map(str::to_owned).collect();
        goes_straight(&entries, host, port)
    }

    #[test]
    fn no_proxy_covers_names_with_their_subdomains() {
        for entry in ["example.org", ".example.org", "*.example.org"] {
            assert!(straight(entry, "example.org", 443), "{entry}");
            assert!(straight(entry, "a.EXAMPLE.org", 443), "{entry}");
            assert!(!straight(entry, "notexample.org", 443), "{entry}");
        }
        assert!(straight("a,b,*", "anything", 1));
        assert!(!straight("", "anything", 1));
        assert!(straight("host:8081", "host", 8081));
        assert!(!straight("host:8081", "host", 443));
    }

    #[test]
    fn no_proxy_covers_addresses_and_ranges() {
        assert!(straight("127.0.0.1", "127.0.0.1", 80));
        assert!(straight("10.0.0.0/8", "10.200.1.1", 80));
        assert!(!straight("10.0.0.0/8", "11.0.0.1", 80));
        assert!(straight("::1", "[::1]", 80));
        assert!(straight("[::1]:80", "::1", 80));
        assert!(!straight("[::1]:81", "::1", 80));
        assert!(straight("fd00::/8", "fd12::1", 80));
        assert!(!straight("0.0.0.0/0", "::1", 80));
        assert!(!straight("10.0.0.0/99", "10.0.0.1", 80));
        assert!(
            !straight("0.0.1", "127.0.0.1", 80),
            "no suffix of an address"
        );
    }

    #[test]
    fn the_proxy_is_chosen_by_the_scheme() {
        let proxy = |text: &str| Some(Url::parse(text).expect("an address"));
        let egress = EgressConfig {
            http_proxy: proxy("http://plain:1"),
            https_proxy: proxy("http://tls:2"),
            no_proxy: vec!["inside".into()],
            additional_root_cas: Vec::new(),
        };
        let to = |host: &str, tls| {
            proxy_for(&egress, tls, host, 1).and_then(|proxy| proxy.host_str().map(str::to_owned))
        };
        assert_eq!(to("outside", false).as_deref(), Some("plain"));
        assert_eq!(to("outside", true).as_deref(), Some("tls"));
        assert_eq!(to("inside", true), None);
    }
}
