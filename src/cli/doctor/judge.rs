//! From what a host is like to what an agent's operator should do. Pure: facts in, verdicts out.

mod oci;

use serde::Serialize;

use crate::agent::podman::entry::Entry;
use crate::config::{Network, Sandbox};

/// Oldest Podman whose API and rootless overlay were tried.
const PODMAN_OLDEST: (u32, u32) = (4, 3);
/// Below this the agent, ten runtimes and RabbitMQ run out of descriptors.
const OPEN_FILES_MIN: u64 = 4_096;
/// Subordinate ids a container with its own users needs.
const SUBORDINATE_IDS_MIN: u64 = 65_536;
/// A clock that is further off makes expiries and certificates lie.
const CLOCK_SKEW_MS_MAX: i64 = 5_000;

/// What was found on the host. `None` means that it could not be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub uid: u32,
    pub user: String,
    pub subuids: u64,
    pub subgids: u64,
    pub has_newuidmap: bool,
    pub cgroup: Option<Cgroup>,
    pub podman: Option<String>,
    pub podman_entry: Entry,
    /// Name and version line of each OCI runtime installed.
    pub oci_runtimes: Vec<(String, String)>,
    /// The one that ran a trial container, or why none did.
    pub oci_works: Option<Result<String, String>>,
    /// What runtimes are to be put into.
    pub sandbox: Sandbox,
    /// `None`: runsc is not installed.
    pub gvisor: Option<Gvisor>,
    pub storage_driver: Option<String>,
    pub image: String,
    pub image_present: Option<bool>,
    pub rabbitmq: Broker,
    pub gateway: Option<Reach>,
    pub endpoint: Option<Reach>,
    /// Host's clock minus gateway's, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    pub disk_free_bytes: Option<u64>,
    pub disk_free_bytes_min: u64,
    pub open_files: Option<u64>,
    pub user_namespaces: Option<u64>,
    pub network: Network,
    /// The policy says something that routes cannot.
    pub network_needs_nft: bool,
    pub has_ip: bool,
    pub has_nsenter: bool,
    pub has_nft: bool,
    pub has_slirp4netns: bool,
    /// Whether this user can open `/dev/net/tun`.
    pub tun: Result<(), String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// One tree; the controllers this user may use.
    V2 {
        delegated: Vec<String>,
    },
    V1,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gvisor {
    pub version: String,
    /// Whether a trial container started in it, or why not; `None`: not tried.
    pub works: Option<Result<(), String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Broker {
    /// `AMQP_URL` is set, and whether somebody speaks AMQP there.
    Given { answers: Result<(), String> },
    /// The private node's program, if installed.
    Private { program: Option<String> },
    #[default]
    Unknown,
}

/// Whether an address of the control plane can be reached as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Unset,
    Ok(String),
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    Ok,
    /// The agent works, with less than it could have.
    Warning,
    /// The agent cannot work.
    Fault,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub name: &'static str,
    pub grade: Grade,
    /// What was found, in one sentence.
    pub found: String,
    /// What mends it: a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// All verdicts, in the order a person would mend things.
pub fn judge(facts: &Facts) -> Vec<Verdict> {
    let mut verdicts = vec![
        user(facts),
        subordinate_ids(facts),
        user_namespaces(facts),
        cgroup(facts),
    ];
    verdicts.push(podman(facts));
    verdicts.extend(oci::oci(facts));
    verdicts.extend(oci::trial(facts));
    verdicts.push(oci::gvisor(facts));
    verdicts.extend([storage(facts), image(facts), network(facts), broker(facts)]);
    verdicts.push(reach(
        "gateway (websocket)",
        "FLOWS_GATEWAY_ENDPOINT",
        facts.gateway.as_ref(),
    ));
    verdicts.push(reach(
        "endpoint (HTTP)",
        "FLOWS_ENDPOINT",
        facts.endpoint.as_ref(),
    ));
    verdicts.extend([clock(facts), disk(facts), open_files(facts)]);
    verdicts
}

fn user(facts: &Facts) -> Verdict {
    if facts.uid == 0 {
        return fault(
            "user",
            "this is root, and runtimes are rootless".into(),
            "run the agent as an ordinary user, for example: runuser -u sluice -- sluice doctor",
        );
    }
    ok("user", format!("{} (uid {})", facts.user, facts.uid))
}

fn subordinate_ids(facts: &Facts) -> Verdict {
    const NAME: &str = "subordinate ids";
    if !facts.has_newuidmap {
        return fault(
            NAME,
            "newuidmap is not installed".into(),
            "apt-get install uidmap",
        );
    }
    if facts.subuids.min(facts.subgids) < SUBORDINATE_IDS_MIN {
        let found = format!(
            "{} uids and {} gids for {}",
            facts.subuids, facts.subgids, facts.user
        );
        let mend = format!(
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
            facts.user
        );
        return fault(NAME, found, &mend);
    }
    ok(
        NAME,
        format!("{} uids, {} gids", facts.subuids, facts.subgids),
    )
}

fn user_namespaces(facts: &Facts) -> Verdict {
    const NAME: &str = "user namespaces";
    match facts.user_namespaces {
        Some(0) => fault(
            NAME,
            "the kernel allows none".into(),
            "sysctl -w user.max_user_namespaces=15000",
        ),
        Some(count) => ok(NAME, format!("up to {count}")),
        None => warning(
            NAME,
            "the kernel does not say how many it allows".into(),
            "check that CONFIG_USER_NS is built in",
        ),
    }
}

fn cgroup(facts: &Facts) -> Verdict {
    const NAME: &str = "cgroup limits";
    match &facts.cgroup {
        Some(Cgroup::V2 { delegated }) => {
            let missing: Vec<_> = ["memory", "pids", "cpu"]
                .into_iter()
                .filter(|wanted| !delegated.iter().any(|have| have == wanted))
                .collect();
            if missing.is_empty() {
                return ok(NAME, "cgroup v2 with memory, pids and cpu delegated".into());
            }
            let found = format!("cgroup v2, but {} not delegated: the worker's substitutes hold these (a watch on memory, a limit of the user namespace, a binding to processors)", missing.join(", "));
            warning(NAME, found, "systemctl edit user@.service  and add  [Service] Delegate=cpu memory pids")
        }
        Some(Cgroup::V1) => warning(
            NAME,
            "cgroup v1: memory is bounded by Node's own heap limit and a watch on resident memory, processes by a limit of their user namespace, processors by binding each runtime to as many as it may use".into(),
            "boot with systemd.unified_cgroup_hierarchy=1 for limits that the kernel enforces",
        ),
        None => warning(NAME, "no cgroup file system found".into(), "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

fn podman(facts: &Facts) -> Verdict {
    const NAME: &str = "podman";
    let Some(text) = &facts.podman else {
        return fault(
            NAME,
            "not installed, or `podman --version` fails".into(),
            "apt-get install podman slirp4netns uidmap",
        );
    };
    match version(text) {
        Some((major, minor, _)) if (major, minor) < PODMAN_OLDEST => fault(
            NAME,
            format!("{text} is older than 4.3"),
            "install Podman 4.3 or later",
        ),
        Some(_) => match &facts.podman_entry {
            Entry::Open => ok(NAME, text.clone()),
            Entry::CutOff => fault(
                NAME,
                format!(
                    "{text}; all of it was killed at once, and it gets into its user namespace no more (an agent mends this at its start)"
                ),
                "podman system migrate",
            ),
            Entry::Failing(why) => fault(NAME, format!("{text}; {why}"), "podman ps"),
        },
        None => warning(
            NAME,
            format!("`{text}` holds no version"),
            "podman --version",
        ),
    }
}

fn storage(facts: &Facts) -> Verdict {
    const NAME: &str = "container storage";
    match facts.storage_driver.as_deref() {
        Some("overlay") => ok(NAME, "overlay".into()),
        Some(driver) => warning(
            NAME,
            format!("{driver}: each runtime copies the image and shares no memory with the others"),
            "set  driver = \"overlay\"  in ~/.config/containers/storage.conf and run `podman system reset`",
        ),
        None => warning(
            NAME,
            "podman does not say which driver it uses".into(),
            "podman info",
        ),
    }
}

fn image(facts: &Facts) -> Verdict {
    const NAME: &str = "runtime image";
    if facts.podman.is_some() && facts.podman_entry != Entry::Open {
        return warning(
            NAME,
            "not looked for, as Podman does not work".into(),
            "mend what is said of podman above",
        );
    }
    match facts.image_present {
        Some(true) => ok(NAME, format!("{} is present", facts.image)),
        _ if facts.image.starts_with("localhost/") => fault(
            NAME,
            format!("{} is missing", facts.image),
            "compose/runtime-image.sh, or set FLOWS_RUNTIME_IMAGE to a public Node image",
        ),
        _ => warning(
            NAME,
            format!("{} is missing; the worker will pull it", facts.image),
            &format!("podman pull {}", facts.image),
        ),
    }
}

fn network(facts: &Facts) -> Verdict {
    const NAME: &str = "app network";
    const OR_NONE: &str = ", or set SLUICE_RUNTIME_NETWORK=none";
    if facts.network == Network::None {
        return ok(NAME, "none, as set".into());
    }
    let missing = |found: &str, mend: &str| fault(NAME, found.into(), &format!("{mend}{OR_NONE}"));
    if !facts.has_slirp4netns {
        return missing(
            "slirp4netns is not installed",
            "apt-get install slirp4netns",
        );
    }
    if let Err(why) = &facts.tun {
        let found = format!("slirp4netns cannot make a network interface: {why}");
        return missing(&found, "as root: modprobe tun; chmod 666 /dev/net/tun");
    }
    if !facts.has_nsenter {
        return missing(
            "nsenter is missing, so no network policy can be applied",
            "apt-get install util-linux",
        );
    }
    if facts.has_nft {
        return ok(NAME, "slirp4netns, its policy by nftables".into());
    }
    if facts.network_needs_nft {
        return missing(
            "nft is missing, and this network policy needs it",
            "apt-get install nftables",
        );
    }
    if !facts.has_ip {
        return missing(
            "neither nft nor ip is installed, so no network policy can be applied",
            "apt-get install nftables",
        );
    }
    warning(
        NAME,
        "slirp4netns, its policy by routes: nft is missing".into(),
        "apt-get install nftables",
    )
}

fn broker(facts: &Facts) -> Verdict {
    const NAME: &str = "rabbitmq";
    match &facts.rabbitmq {
        Broker::Given { answers: Ok(()) } => {
            ok(NAME, "the broker at AMQP_URL speaks AMQP 0-9-1".into())
        }
        Broker::Given { answers: Err(why) } => fault(
            NAME,
            format!("the broker at AMQP_URL does not answer: {why}"),
            "check AMQP_URL, and that the broker listens",
        ),
        Broker::Private {
            program: Some(path),
        } => ok(NAME, format!("the agent starts its own: {path}")),
        Broker::Private { program: None } | Broker::Unknown => fault(
            NAME,
            "AMQP_URL is not set and RabbitMQ is not installed".into(),
            "apt-get install rabbitmq-server, or set AMQP_URL",
        ),
    }
}

fn reach(name: &'static str, setting: &str, found: Option<&Reach>) -> Verdict {
    match found {
        Some(Reach::Ok(text)) => ok(name, text.clone()),
        Some(Reach::Failed(why)) => fault(
            name,
            why.clone(),
            &format!("check {setting}, the proxy settings and FLOWS_ADDITIONAL_ROOT_CAS"),
        ),
        Some(Reach::Unset) | None => warning(
            name,
            format!("{setting} is not set"),
            &format!("export {setting}=…"),
        ),
    }
}

fn clock(facts: &Facts) -> Verdict {
    const NAME: &str = "clock";
    match facts.clock_skew_ms {
        Some(skew) if skew.abs() > CLOCK_SKEW_MS_MAX => warning(
            NAME,
            format!("{skew} ms off the gateway's"),
            "timedatectl set-ntp true",
        ),
        Some(skew) => ok(
            NAME,
            format!("within {} ms of the gateway's", skew.abs().max(1_000)),
        ),
        None => ok(NAME, "not compared: the gateway was not reached".into()),
    }
}

fn disk(facts: &Facts) -> Verdict {
    const NAME: &str = "disk";
    let mib = |bytes: u64| bytes / 1024 / 1024;
    match facts.disk_free_bytes {
        Some(free) if free < facts.disk_free_bytes_min => fault(
            NAME,
            format!(
                "{} MiB free, and work is refused below {} MiB",
                mib(free),
                mib(facts.disk_free_bytes_min)
            ),
            "free some space, or lower SLUICE_DISK_FREE_MB_MIN",
        ),
        Some(free) => ok(NAME, format!("{} MiB free", mib(free))),
        None => warning(
            NAME,
            "free space of the data directory is unknown".into(),
            "df -h",
        ),
    }
}

fn open_files(facts: &Facts) -> Verdict {
    const NAME: &str = "open files";
    match facts.open_files {
        Some(limit) if limit < OPEN_FILES_MIN => warning(
            NAME,
            format!("at most {limit}"),
            "raise it: LimitNOFILE=65536 in the unit, or `ulimit -n 65536`",
        ),
        Some(limit) => ok(NAME, format!("at most {limit}")),
        None => warning(NAME, "the limit is unknown".into(), "ulimit -n"),
    }
}

/// The first `major.minor[.patch]` in a text.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .find_map(|word| {
            let mut parts = word.split('.').map(str::parse);
            let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
            Some((major, minor, parts.next().and_then(Result::ok).unwrap_or(0)))
        })
}

fn ok(name: &'static str, found: String) -> Verdict {
    Verdict {
        name,
        grade: Grade::Ok,
        found,
        mend: None,
    }
}

fn warning(name: &'static str, found: String, mend: &str) -> Verdict {
    Verdict {
        name,
        grade: Grade::Warning,
        found,
        mend: Some(mend.to_owned()),
    }
}

fn fault(name: &'static str, found: String, mend: &str) -> Verdict {
    Verdict {
        name,
        grade: Grade::Fault,
        found,
        mend: Some(mend.to_owned()),
    }
}

#[cfg(test)]
mod tests;
