//! Where an answer may be sent: to a program on the person's own machine and
//! nowhere else, so that nobody can ask for a key in another site's name. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The longest address, in bytes.
pub const URI_BYTES_MAX: usize = 256;

/// A client's address, if it is one that a client may have.
pub fn loopback(text: &str) -> Option<Url> {
    if text.len() > URI_BYTES_MAX {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_local = match url.host()? {
        Host::Ipv4(ip) => ip == Ipv4Addr::LOCALHOST,
        Host::Ipv6(ip) => ip == Ipv6Addr::LOCALHOST,
        Host::Domain(name) => name == "localhost",
    };
    let is_plain = url.username().is_empty() && url.password().is_none();
    let fits = is_local && is_plain && url.scheme() == "http" && url.fragment().is_none();
    fits.then_some(url)
}

/// Whether the address of a request is one that was registered: the very same,
/// or the same at another port of a loopback address (RFC 8252, section 7.3).
pub fn matches(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    let (Some(mut registered), Some(mut asked)) = (loopback(registered), loopback(asked)) else {
        return false;
    };
    let is_literal = !matches!(registered.host(), Some(Host::Domain(_)) | None);
    is_literal
        && registered.set_port(None).is_ok()
        && asked.set_port(None).is_ok()
        && registered == asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_gets_answers() {
        for good in [
            "http://127.0.0.1:4000/callback",
            "http://[::1]:4000/callback",
            "http://localhost/cb?x=1",
        ] {
            assert!(loopback(good).is_some(), "{good}");
        }
        for bad in [
            "https://evil.example/callback",
            "http://evil.example:80/callback",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.2/",
            "http://0.0.0.0/",
            "http://me@127.0.0.1/",
            "http://127.0.0.1/#fragment",
            "https://127.0.0.1/",
            "javascript:alert(1)",
            "callback",
            "",
        ] {
            assert!(loopback(bad).is_none(), "{bad}");
        }
        assert!(loopback(&format!("http://127.0.0.1/{}", "x".repeat(300))).is_none());
    }

    #[test]
    fn a_loopback_address_may_have_any_port_and_nothing_else_may_differ() {
        let registered = "http://127.0.0.1:4000/callback";
        assert!(matches(registered, registered));
        assert!(matches(registered, "http://127.0.0.1:5000/callback"));
        for other in [
            "http://127.0.0.1:4000/other",
            "http://127.0.0.1:4000/callback?x",
            "http://[::1]:4000/callback",
            "http://localhost:4000/callback",
            "http://evil.example:4000/callback",
            "http://127.0.0.1:4000@evil.example/callback",
        ] {
            assert!(!matches(registered, other), "{other}");
        }
        assert!(!matches("http://localhost:1/c", "http://localhost:2/c"));
    }
}
