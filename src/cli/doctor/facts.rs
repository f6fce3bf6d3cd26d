//! Looks at the host: files, programs and addresses. Decides nothing.

use std::path::Path;
use std::time::Duration;

use async_process::Command;
use async_std::future::timeout;
use async_std::io::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use url::Url;

use crate::agent::podman;
use crate::api_client::ApiClient;
use crate::cli::doctor::judge::{Broker, Cgroup, Facts, Gvisor, Reach};
use crate::config::{EgressConfig, Network, Reader, RuntimeConfig};
use crate::disk;
use crate::process::find_program;
use crate::telemetry::now_ms;
use crate::wire;

/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Where distributions put what may be missing from an ordinary user's PATH.
const EXTRA_DIRS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// The AMQP 0-9-1 protocol header; a broker answers it with `Connection.Start`.
const AMQP_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Gathers everything; nothing here fails, what is not found out stays unknown.
pub async fn gather(look_up: &dyn Fn(&str) -> Option<String>) -> Facts {
    let mut reader = Reader::new(look_up);
    let runtime = reader.runtime();
    let egress = reader.egress();
    let data_dir = reader.data_dir();
    // Its complaints are the agent's to make; here the one number is wanted.
    let disk_free_bytes_min = reader.agent().disk_free_bytes_min;
    let path = look_up("PATH").unwrap_or_default();
    let find = |program: &str| find_program(program, &path, &EXTRA_DIRS);
    let uid = nix::unistd::Uid::current();
    let user = nix::unistd::User::from_uid(uid)
        .ok()
        .flatten()
        .map(|user| user.name)
        .unwrap_or_else(|| uid.to_string());
    let (endpoint, clock_skew_ms) = endpoint(look_up, &egress).await;
    let network_needs_nft = network_needs_nft(&runtime);
    Facts {
        uid: uid.as_raw(),
        subuids: subordinate("/etc/subuid", &user, uid.as_raw()),
        subgids: subordinate("/etc/subgid", &user, uid.as_raw()),
        has_newuidmap: find("newuidmap").is_some(),
        cgroup: cgroup(uid.as_raw()),
        podman: first_line("podman", &["--version"]).await,
        podman_entry: podman::entry::look().await,
        oci_runtimes: oci_runtimes(&path).await,
        storage_driver: first_line(
            "podman",
            &["info", "--format", "{{.Store.GraphDriverName}}"],
        )
        .await,
        oci_works: oci_works(&runtime.image).await,
        sandbox: runtime.sandbox,
        gvisor: gvisor(&runtime.image, &path).await,
        image_present: succeeds("podman", &["image", "exists", &runtime.image]).await,
        image: runtime.image,
        rabbitmq: broker(look_up).await,
        gateway: Some(gateway(look_up, &egress).await),
        endpoint: Some(endpoint),
        clock_skew_ms,
        disk_free_bytes: disk::free_bytes(&data_dir),
        disk_free_bytes_min,
        open_files: nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .ok()
            .map(|(soft, _)| soft),
        user_namespaces: read("/proc/sys/user/max_user_namespaces")
            .and_then(|text| text.trim().parse().ok()),
        network: runtime.network,
        network_needs_nft,
        has_ip: find("ip").is_some(),
        has_nsenter: find("nsenter").is_some(),
        has_nft: find("nft").is_some(),
        tun: tun(),
        has_slirp4netns: find("slirp4netns").is_some(),
        user,
    }
}

/// Whether the network helper can make a container's interface, or why not.
fn tun() -> Result<(), String> {
    const TUN: &str = "/dev/net/tun";
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(TUN);
    opened.map(drop).map_err(|error| format!("{TUN}: {error}"))
}

fn network_needs_nft(runtime: &RuntimeConfig) -> bool {
    match runtime.network {
        Network::None => false,
        Network::Private => true,
        Network::Full => runtime
            .reach
            .denied
            .iter()
            .any(|range| range.ports.is_some()),
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The largest range a user has in a file of `name:start:count` lines.
fn subordinate(file: &str, user: &str, uid: u32) -> u64 {
    let uid = uid.to_string();
    read(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(':');
            let name = parts.next()?;
            (name == user || name == uid)
                .then(|| parts.nth(1)?.trim().parse().ok())
                .flatten()
        })
        .max()
        .unwrap_or(0)
}

fn cgroup(uid: u32) -> Option<Cgroup> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        let slice = format!("user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers");
        let delegated = read(root.join(slice)).unwrap_or_default();
        return Some(Cgroup::V2 {
            delegated: delegated.split_whitespace().map(str::to_owned).collect(),
        });
    }
    root.join("memory").exists().then_some(Cgroup::V1)
}

async fn run(program: &str, arguments: &[&str]) -> Option<std::process::Output> {
    timeout(
        LOOK_MAX,
        Command::new(program)
            .args(arguments)
            .kill_on_drop(true)
            .output(),
    )
    .await
    .ok()?
    .ok()
}

async fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = run(program, arguments).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

async fn succeeds(program: &str, arguments: &[&str]) -> Option<bool> {
    Some(run(program, arguments).await?.status.success())
}

async fn oci_runtimes(path: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in ["crun", "runc"] {
        if let Some(file) = find_program(name, path, &EXTRA_DIRS)
            && let Some(line) = first_line(&file.to_string_lossy(), &["--version"]).await
        {
            found.push((name.to_owned(), line));
        }
    }
    found
}

/// Which OCI runtime the agent would choose; nothing as root or without the image.
async fn oci_works(image: &str) -> Option<Result<String, String>> {
    if nix::unistd::Uid::effective().is_root()
        || succeeds("podman", &["image", "exists", image]).await != Some(true)
    {
        return None;
    }
    match podman::try_runtimes(image).await {
        Ok(oci) => Some(Ok(oci?.to_string())),
        Err(error) => Some(Err(format!("{error:#}"))),
    }
}

/// gVisor's version, and whether a container started in it; not tried as root
/// or without the image.
async fn gvisor(image: &str, path: &str) -> Option<Gvisor> {
    let program = find_program("runsc", path, &EXTRA_DIRS)?;
    let version = first_line(&program.to_string_lossy(), &["--version"]).await?;
    let can_try = !nix::unistd::Uid::effective().is_root()
        && succeeds("podman", &["image", "exists", image]).await == Some(true);
    let works = match can_try {
        true => {
            let tried = podman::try_gvisor(image, path).await;
            Some(tried.map_err(|error| format!("{error:#}")))
        }
        false => None,
    };
    Some(Gvisor { version, works })
}

async fn broker(look_up: &dyn Fn(&str) -> Option<String>) -> Broker {
    let Some(url) = look_up("AMQP_URL").filter(|url| !url.is_empty()) else {
        return Broker::Private {
            program: crate::agent::rabbitmq::find_server().map(|path| path.display().to_string()),
        };
    };
    Broker::Given {
        answers: amqp_answers(&url).await,
    }
}

async fn amqp_answers(url: &str) -> Result<(), String> {
    let url = Url::parse(url)
        .map_err(|_| "it is no address such as amqp://user:password@host:5672/".to_owned())?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port().unwrap_or(5672);
    let talk = async {
        let mut stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.write_all(AMQP_HEADER).await?;
        let mut first = [0u8; 1];
        stream.read_exact(&mut first).await?;
        Ok::<_, std::io::Error>(first[0])
    };
    match timeout(LOOK_MAX, talk).await {
        Ok(Ok(1)) => Ok(()),
        Ok(Ok(_)) => Err(format!("{host}:{port} speaks something else")),
        Ok(Err(error)) => Err(format!("{host}:{port}: {error}")),
        Err(_) => Err(format!(
            "{host}:{port}: no answer in {} s",
            LOOK_MAX.as_secs()
        )),
    }
}

/// Dials the agents' websocket as a bridge would. A refused token proves that
/// the way is open; it is a fault all the same.
async fn gateway(look_up: &dyn Fn(&str) -> Option<String>, egress: &EgressConfig) -> Reach {
    let get = |name: &str| look_up(name).filter(|value| !value.is_empty());
    let Some(text) = get("FLOWS_GATEWAY_ENDPOINT") else {
        return Reach::Unset;
    };
    let Ok(url) = Url::parse(&text) else {
        return Reach::Failed(format!("`{text}` is no address"));
    };
    let pool = get("FLOWS_AGENT_POOL_ID").unwrap_or_default();
    let token = get("FLOWS_AGENT_POOL_TOKEN").unwrap_or_default();
    match timeout(LOOK_MAX, wire::dial(&url, &pool, &token, egress)).await {
        Ok(Ok((mut sender, _))) => {
            sender.close("a check by sluice doctor").await;
            Reach::Ok(format!("{text} takes the pool's token"))
        }
        Ok(Err(error)) => Reach::Failed(format!("{text}: {error}")),
        Err(_) => Reach::Failed(format!("{text}: no answer in {} s", LOOK_MAX.as_secs())),
    }
}

async fn endpoint(
    look_up: &dyn Fn(&str) -> Option<String>,
    egress: &EgressConfig,
) -> (Reach, Option<i64>) {
    let Some(text) = look_up("FLOWS_ENDPOINT").filter(|value| !value.is_empty()) else {
        return (Reach::Unset, None);
    };
    let client = match Url::parse(&text)
        .map_err(|e| e.to_string())
        .and_then(|url| ApiClient::new(&url, egress).map_err(|e| e.to_string()))
    {
        Ok(client) => client,
        Err(error) => return (Reach::Failed(format!("{text}: {error}")), None),
    };
    match timeout(LOOK_MAX, client.request("GET", "/health", None, None)).await {
        Ok(Ok((200, reply))) => {
            let theirs = reply["data"]["now_ms"].as_i64();
            let ours = i64::try_from(now_ms()).unwrap_or(i64::MAX);
            (
                Reach::Ok(format!("{text} is healthy")),
                theirs.map(|theirs| ours - theirs),
            )
        }
        Ok(Ok((status, _))) => (
            Reach::Failed(format!("{text}/health answers {status}")),
            None,
        ),
        Ok(Err(error)) => (Reach::Failed(format!("{text}: {error}")), None),
        Err(_) => (
            Reach::Failed(format!("{text}: no answer in {} s", LOOK_MAX.as_secs())),
            None,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_found_by_name_or_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("subuid");
        std::fs::write(&file, "ada:100000:65536\nbob:1:2\n1007:5:70000\n").expect("written");
        let file = file.to_str().expect("a path");
        assert_eq!(subordinate(file, "ada", 1), 65_536);
        assert_eq!(subordinate(file, "eve", 1007), 70_000);
        assert_eq!(subordinate(file, "eve", 1), 0);
    }
}
