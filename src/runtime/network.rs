//! The network policy of one container, put into its network namespace from
//! outside, by its user namespace's owner, before any user code is there. The
//! container has no capability to take it out again.
//!
//! ```text
//!                      to itself ─────▶ goes
//!                           IPv6 ─────▶ refused
//!      the forwarder's DNS, port 53 ──▶ goes
//!  link-local, metadata, the host ────▶ refused, whatever the settings say
//!               denied by setting ────▶ refused
//!  private: allowed, full: the rest ──▶ goes
//!                everything else ─────▶ refused
//! ```
//!
//! By nftables where `nft` works in the namespace. Where it does not, routes
//! can close ranges, so `full` without ports holds by them; any other policy
//! fails, and the runtime with it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_process::Command;
use async_std::future::timeout;
use async_std::io::WriteExt;

use crate::config::{Network, Range, Reach};
use crate::runtime::Error;
use crate::shutdown::unblock;

/// Switches IPv6 off and loads a rule set. The rules refuse IPv6 by themselves,
/// but the kernel cannot tell a sender so on a link-local address, who then
/// waits for a time-out instead of hearing a refusal.
const NFT: &str = "echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/all/disable_ipv6; exec nft -f -";

/// How long one tool may take; each needs a few milliseconds.
const TOOL_MAX: Duration = Duration::from_secs(5);

/// Where slirp4netns forwards DNS to the host's resolvers.
const DNS: &str = "10.0.2.3";

/// Never reached: link-local, where clouds that do not use it keep their
/// metadata, the forwarder's own network, and what is no destination at all.
const CLOSED_V4: &[&str] = &[
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "10.0.2.0/24",
    "127.0.0.0/8",
    "224.0.0.0/3",
    "0.0.0.0/8",
];

/// The /64 beside the /10, because the interface's own route is as narrow.
const CLOSED_V6: &[&str] = &["::/1", "8000::/1", "fe80::/10", "fe80::/64"];

/// Applies the policy to the container whose first process is `pid`.
pub(super) async fn apply(pid: i32, network: Network, reach: &Reach) -> Result<(), Error> {
    let own = unblock(own_addresses).await?;
    let text = rules(network, reach, &own);
    let Err(nft) = tool(pid, &["sh", "-c", NFT], &text).await else {
        return Ok(());
    };
    let Some(routes) = routes(network, reach, &own) else {
        return Err(Error::NotSealed(format!(
            "this network policy needs nftables, which does not work here (apt-get install nftables): {nft}"
        )));
    };
    let v6 = async {
        if Path::new("/proc/sys/net/ipv6").exists() {
            tool(pid, &["ip", "-6", "-batch", "-"], &closing(CLOSED_V6)).await?;
        }
        Ok(())
    };
    let v4 = tool(pid, &["ip", "-4", "-batch", "-"], &routes);
    futures::try_join!(v4, v6).map(drop).map_err(|ip| {
        Error::NotSealed(format!(
            "its network could be closed neither by nftables ({nft}) nor by routes ({ip})"
        ))
    })
}

/// The policy for `nft`: one table, one chain, first match decides.
fn rules(network: Network, reach: &Reach, own: &[Ipv4Addr]) -> String {
    const REFUSE: &str = "reject with icmpx admin-prohibited";
    let mut lines = vec![
        r#"oifname "lo" accept"#.to_owned(),
        format!("meta nfproto ipv6 {REFUSE}"),
        format!("ip daddr {DNS} meta l4proto {{ tcp, udp }} th dport 53 accept"),
    ];
    let closed = CLOSED_V4.iter().map(|prefix| (*prefix).to_owned());
    let own = own.iter().map(Ipv4Addr::to_string);
    lines.extend(
        closed
            .chain(own)
            .map(|to| format!("ip daddr {to} {REFUSE}")),
    );
    let rule = |range: &Range, verdict: &str| match range.ports {
        None => format!("ip daddr {range} {verdict}"),
        Some((first, last)) => format!(
            "ip daddr {range} meta l4proto {{ tcp, udp }} th dport {first}-{last} {verdict}"
        ),
    };
    lines.extend(reach.denied.iter().map(|range| rule(range, REFUSE)));
    match network {
        Network::None => {}
        Network::Private => {
            lines.extend(reach.allowed.iter().map(|range| rule(range, "accept")));
        }
        Network::Full => lines.push("meta nfproto ipv4 accept".into()),
    }
    lines.push(REFUSE.into());
    format!(
        "table inet sluice {{\n chain out {{\n  type filter hook output priority 0; policy drop;\n  {}\n }}\n}}\n",
        lines.join("\n  ")
    )
}

/// The policy for `ip`, where routes can say it.
fn routes(network: Network, reach: &Reach, own: &[Ipv4Addr]) -> Option<String> {
    if network != Network::Full || reach.denied.iter().any(|range| range.ports.is_some()) {
        return None;
    }
    // The DNS forwarder's network stays: its gateway is closed by the forwarder itself.
    let closed = CLOSED_V4
        .iter()
        .filter(|prefix| **prefix != "10.0.2.0/24" && **prefix != "127.0.0.0/8");
    let mut prefixes: Vec<String> = closed.map(|prefix| (*prefix).to_owned()).collect();
    prefixes.extend(own.iter().map(|address| format!("{address}/32")));
    prefixes.extend(reach.denied.iter().map(Range::to_string));
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    Some(closing(&prefixes))
}

fn closing(prefixes: &[&str]) -> String {
    let line = |prefix: &&str| format!("route replace blackhole {prefix} metric 1\n");
    prefixes.iter().map(line).collect()
}

/// The addresses of this host, which is where broker and gateway may listen.
fn own_addresses() -> Result<Vec<Ipv4Addr>, Error> {
    const TABLE: &str = "/proc/net/fib_trie";
    let text = std::fs::read_to_string(TABLE).map_err(|source| Error::Files {
        what: format!("this host's addresses could not be read from {TABLE}"),
        source,
    })?;
    Ok(local_addresses(&text))
}

/// What the kernel's routing table calls local, each once.
fn local_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in fib_trie.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last
        {
            found.push(address);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Runs one tool in the namespaces of `pid` with `text` as its input.
async fn tool(pid: i32, command: &[&str], text: &str) -> Result<(), String> {
    let run = async {
        let mut child = Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--user", "--net"])
            .arg("--preserve-credentials")
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("nsenter (util-linux) did not start: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A tool that is not there reads nothing; its own words say more.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let output = child.output().await.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    };
    timeout(TOOL_MAX, run)
        .await
        .unwrap_or_else(|_| Err(format!("`{}` did not end", command[0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(allowed: &[&str], denied: &[&str]) -> Reach {
        let ranges = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().expect("a range"))
                .collect()
        };
        Reach {
            allowed: ranges(allowed),
            denied: ranges(denied),
        }
    }

    fn place(text: &str, line: &str) -> usize {
        text.find(line)
            .unwrap_or_else(|| panic!("`{line}` is missing:\n{text}"))
    }

    #[test]
    fn what_is_closed_comes_first_then_what_is_denied_then_what_is_allowed() {
        let reach = reach(&["10.0.0.0/8:443"], &["10.9.0.0/16"]);
        let own = [Ipv4Addr::new(192, 0, 2, 7)];
        for network in [Network::Private, Network::Full] {
            let text = rules(network, &reach, &own);
            let denied = place(&text, "ip daddr 10.9.0.0/16 reject");
            for closed in CLOSED_V4.iter().chain(&["192.0.2.7"]) {
                assert!(
                    place(&text, &format!("ip daddr {closed} reject")) < denied,
                    "{text}"
                );
            }
            let last = match network {
                Network::Full => place(&text, "meta nfproto ipv4 accept"),
                _ => place(
                    &text,
                    "ip daddr 10.0.0.0/8 meta l4proto { tcp, udp } th dport 443-443 accept",
                ),
            };
            assert!(denied < last, "{text}");
            assert!(place(&text, "policy drop") < denied, "{text}");
        }
        let text = rules(Network::Private, &reach, &own);
        assert!(!text.contains("nfproto ipv4 accept"), "{text}");
    }

    #[test]
    fn routes_say_only_what_they_can() {
        let none = reach(&[], &[]);
        assert_eq!(routes(Network::Private, &none, &[]), None);
        assert_eq!(
            routes(Network::Full, &reach(&[], &["10.0.0.1:80"]), &[]),
            None
        );
        let own = [Ipv4Addr::new(192, 0, 2, 7)];
        let text = routes(Network::Full, &reach(&[], &["10.9.0.0/16"]), &own).expect("it can");
        for prefix in ["169.254.0.0/16", "192.0.2.7/32", "10.9.0.0/16"] {
            place(
                &text,
                &format!("route replace blackhole {prefix} metric 1\n"),
            );
        }
    }

    #[test]
    fn local_addresses_are_found_once_each() {
        let table = "Main:\n  |-- 0.0.0.0\n     /0 universe UNICAST\nLocal:\n  +-- 127.0.0.0/8 2 0 2\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n     |-- 192.0.2.2\n        /32 host LOCAL\n";
        assert_eq!(
            local_addresses(table),
            [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 2)]
        );
    }
}
