//! What a runtime's network may reach: the setting, its ranges and how they are written.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::config::Reader;

const NETWORK: &str = "SLUICE_RUNTIME_NETWORK";
const ALLOW: &str = "SLUICE_RUNTIME_NETWORK_ALLOW";
const DENY: &str = "SLUICE_RUNTIME_NETWORK_DENY";

/// The addresses that no network on the internet has (RFC 1918).
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

/// What an app's runtime can reach. A flow's runtime reaches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    None,
    /// What [`Reach::allowed`] names.
    Private,
    /// The internet and the networks around the host.
    Full,
}

/// Ranges of a network policy. Link-local and metadata addresses, the host's
/// own and other containers are closed whatever stands here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// For [`Network::Private`] alone.
    pub allowed: Vec<Range>,
    /// Comes before what is allowed.
    pub denied: Vec<Range>,
}

/// Addresses, and ports where not all are meant: `10.1.0.0/16:443-450`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub address: Ipv4Addr,
    /// How many of its bits count, 0 to 32.
    pub prefix: u8,
    /// First and last, of TCP and UDP.
    pub ports: Option<(u16, u16)>,
}

// === impl Reader ===

impl Reader<'_> {
    /// The network policy. One that says something without effect is complained about.
    pub(super) fn network(&mut self) -> (Network, Reach) {
        let network = match self.text_or(NETWORK, "full").as_str() {
            "none" => Network::None,
            "private" => Network::Private,
            "full" => Network::Full,
            other => {
                let what = format!("is `{other}`: say `none`, `private` or `full`");
                self.complain(NETWORK, &what);
                Network::None
            }
        };
        if network != Network::Private && self.get(ALLOW).is_some() {
            let what = format!("has no effect unless {NETWORK} is `private`: unset one of them");
            self.complain(ALLOW, &what);
        }
        if network == Network::None && self.get(DENY).is_some() {
            let what = format!("has no effect while {NETWORK} is `none`: unset one of them");
            self.complain(DENY, &what);
        }
        let allowed = self.text_or(ALLOW, &PRIVATE.join(","));
        let denied = self.text_or(DENY, "");
        let reach = Reach {
            allowed: self.ranges(ALLOW, &allowed),
            denied: self.ranges(DENY, &denied),
        };
        (network, reach)
    }

    fn ranges(&mut self, name: &str, text: &str) -> Vec<Range> {
        let mut ranges = Vec::new();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match word.parse() {
                Ok(range) => ranges.push(range),
                Err(why) => self.complain(name, &format!("holds `{word}`: {why}")),
            }
        }
        ranges
    }
}

// === impl Range ===

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const HOW: &str =
            "write an IPv4 range such as 10.1.0.0/16, 10.1.2.3:443 or 10.0.0.0/8:8000-8999";
        if text.matches(':').count() > 1 {
            return Err("runtimes have no IPv6: it is closed in every policy");
        }
        let (addresses, ports) = match text.split_once(':') {
            Some((addresses, ports)) => (addresses, Some(ports)),
            None => (text, None),
        };
        let (address, prefix) = addresses.split_once('/').unwrap_or((addresses, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| HOW)?;
        let prefix: u8 = prefix.parse().map_err(|_| HOW)?;
        if prefix > 32 {
            return Err(HOW);
        }
        let ports = match ports {
            None => None,
            Some(ports) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let first: u16 = first.parse().map_err(|_| HOW)?;
                let last: u16 = last.parse().map_err(|_| HOW)?;
                if first == 0 || last < first {
                    return Err("its ports run from a lower to a higher number, above 0");
                }
                Some((first, last))
            }
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Ok(Self {
            // What is beyond the prefix means nothing, and some tools refuse it.
            address: Ipv4Addr::from_bits(address.to_bits() & mask),
            prefix,
            ports,
        })
    }
}

impl fmt::Display for Range {
    /// The addresses alone, as `ip` and `nft` read them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<(Network, Reach), crate::config::Error> {
        let look_up = |name: &str| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let mut reader = Reader::new(&look_up);
        let policy = reader.network();
        reader.finish(policy)
    }

    #[test]
    fn ranges_are_read_with_and_without_prefix_and_ports() {
        let range = |text: &str| text.parse::<Range>();
        assert_eq!(
            range("10.1.2.3/16:80-90"),
            Ok(Range {
                address: Ipv4Addr::new(10, 1, 0, 0),
                prefix: 16,
                ports: Some((80, 90)),
            })
        );
        assert_eq!(
            range("0.0.0.0/0").map(|all| all.to_string()),
            Ok("0.0.0.0/0".into())
        );
        assert_eq!(
            range("10.0.0.1:443").map(|one| one.ports),
            Ok(Some((443, 443)))
        );
        for wrong in [
            "10.0.0/8",
            "10.0.0.0/33",
            "10.0.0.1:0",
            "10.0.0.1:9-8",
            "host:80",
            "fd00::/8",
        ] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn private_means_rfc_1918_unless_told_otherwise() {
        let (network, reach) = read(&[(NETWORK, "private")]).expect("it fits");
        assert_eq!((network, reach.allowed.len()), (Network::Private, 3));
        let (_, reach) = read(&[
            (NETWORK, "private"),
            (ALLOW, "10.0.0.0/8:443, 192.168.1.1"),
            (DENY, "10.9.0.0/16"),
        ])
        .expect("it fits");
        assert_eq!((reach.allowed.len(), reach.denied.len()), (2, 1));
    }

    #[test]
    fn a_policy_without_effect_is_refused() {
        for vars in [
            [(NETWORK, "full"), (ALLOW, "10.0.0.0/8")],
            [(NETWORK, "none"), (DENY, "10.0.0.0/8")],
            [(NETWORK, "private"), (DENY, "somewhere")],
            [(NETWORK, "half"), (DENY, "10.0.0.0/8")],
        ] {
            let error = read(&vars).expect_err("it makes no sense");
            assert!(
                error.complaints[0].starts_with("SLUICE_RUNTIME_NETWORK"),
                "{error}"
            );
        }
    }
}
