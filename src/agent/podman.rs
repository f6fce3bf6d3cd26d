//! Which Podman the workers use, and with which OCI runtime.
//!
//! ```text
//!  CONTAINER_HOST set ───────────────────────────────▶ that one
//!  SLUICE_RUNTIME_OCI set ───────────────────────────▶ an own service with that runtime
//!  the default runtime works, the user's socket answers ▶ the user's
//!  the default runtime works ────────────────────────▶ an own service
//!  crun or runc works ───────────────────────────────▶ an own service with that runtime
//! ```
//!
//! Podman ignores a runtime named in a request, so a runtime other than the
//! default one needs a service of its own. Which one works is found out by
//! running a container, once per boot and Podman version.

pub mod entry;
pub mod watch;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_process::Command;
use async_std::future::timeout;
use async_std::io::{ReadExt, WriteExt};
use async_std::os::unix::net::UnixStream;
use serde::{Deserialize, Serialize};

use crate::agent::supervise::{Environment, Lifeline, Recipe};
use crate::config::SETTINGS;
use crate::process;
use crate::runtime::sandbox::gvisor_wrapper;

/// Longest socket path the kernel takes, less what Podman may append.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// How long a service may take to answer after its start; a first start makes the user's store.
pub const START_MAX: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(5);
const PING_START_EVERY: Duration = Duration::from_millis(50);
/// How long the service lives unused. It outlives a killed agent by this, so
/// that the workers can remove their containers, and not longer.
const IDLE_S: u32 = 20;
/// How often the agent uses it, so that it does live: a third of that and a bit.
pub const PING_EVERY: Duration = Duration::from_secs(6);
/// The name of an own service among the agent's children.
pub const SERVICE: &str = "podman";
/// How long one trial of an OCI runtime may take.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// How long fetching the image may take.
const PULL_MAX: Duration = Duration::from_secs(900);
/// Settings of ours that Podman reads too and has to keep.
const KEPT: [&str; 8] = [
    "PATH",
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
];

/// An OCI runtime: the default one of this Podman, or one by name or path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oci {
    Default,
    Named(String),
}

/// What was found out, and under which circumstances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    circumstances: String,
    oci: Oci,
}

/// What the agent has to do to have a Podman.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It is there, at this `unix://` address.
    Use(String),
    /// Start a service with this runtime.
    Serve(Oci),
}

// === impl Verdict ===

impl Verdict {
    /// What was found out earlier, if it still holds.
    pub fn recall(file: &Path, circumstances: &str) -> Option<Oci> {
        let text = std::fs::read(file).ok()?;
        let verdict: Self = serde_json::from_slice(&text).ok()?;
        (verdict.circumstances == circumstances).then_some(verdict.oci)
    }

    pub fn text(circumstances: &str, oci: &Oci) -> anyhow::Result<String> {
        Ok(serde_json::to_string(&Self {
            circumstances: circumstances.to_owned(),
            oci: oci.clone(),
        })?)
    }
}

/// The plan, once it is known what works. Pure.
pub fn plan(given: Option<&str>, oci: Oci, users_socket: Option<&str>) -> Plan {
    match (given, oci, users_socket) {
        (Some(url), _, _) => Plan::Use(url.to_owned()),
        (None, Oci::Default, Some(url)) => Plan::Use(url.to_owned()),
        (None, oci, _) => Plan::Serve(oci),
    }
}

/// Under which circumstances a verdict holds: this boot, this Podman, this image.
pub async fn circumstances(image: &str) -> anyhow::Result<String> {
    let version = run(&["--version"], PING_MAX)
        .await
        .context("Podman is not usable here: `sluice doctor` says what is missing")?;
    let boot = process::boot().unwrap_or_default();
    Ok(format!("{} {boot} {image}", version.trim()))
}

/// Tries the default runtime, then crun, then runc, by running a container of
/// `image`; `None` when that image cannot be had, so nothing can be tried.
pub async fn try_runtimes(image: &str) -> anyhow::Result<Option<Oci>> {
    if run(&["image", "exists", image], TRIAL_MAX).await.is_err() {
        if image.starts_with("localhost/") {
            return Ok(None);
        }
        tracing::info!(image, "Fetching the runtime image");
        if let Err(error) = run(&["pull", "--quiet", image], PULL_MAX).await {
            tracing::warn!(
                image,
                error = format!("{error:#}"),
                "The runtime image cannot be fetched"
            );
            return Ok(None);
        }
    }
    let mut faults = Vec::new();
    let named = |name: &str| Oci::Named(name.to_owned());
    for oci in [Oci::Default, named("crun"), named("runc")] {
        match try_runtime(&oci, image).await {
            Ok(()) => return Ok(Some(oci)),
            Err(error) => faults.push(format!("{oci}: {error:#}")),
        }
    }
    bail!("no OCI runtime works here: {}", faults.join("; "))
}

async fn try_runtime(oci: &Oci, image: &str) -> anyhow::Result<()> {
    let mut arguments = oci.arguments();
    arguments.extend(
        [
            "run",
            "--rm",
            "--pull=never",
            "--network=none",
            "--read-only",
            "--cap-drop=all",
        ]
        .map(str::to_owned),
    );
    arguments.extend([image, "node", "--version"].map(str::to_owned));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    run(&arguments, TRIAL_MAX).await.map(drop)
}

/// How to start a service of the agent's own, which listens on `socket`.
pub fn recipe(oci: &Oci, socket: &Path) -> Recipe {
    let mut arguments = oci.arguments();
    arguments.extend(["system", "service"].map(str::to_owned));
    arguments.push(format!("--time={IDLE_S}"));
    arguments.push(format!("unix://{}", socket.display()));
    Recipe {
        name: SERVICE.into(),
        program: "podman".into(),
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: Environment::Without(service_leaves_out()),
        lifeline: Lifeline::Idleness,
        output: None,
        dir: None,
    }
}

/// Where the own service listens: in the agent's directory, or, where that
/// path is too long for a socket, in the user's runtime directory.
pub fn socket(agent_dir: &Path, user_runtime_dir: &Path, id: &str) -> anyhow::Result<PathBuf> {
    let short = id.rsplit('-').next().unwrap_or(id);
    [
        agent_dir.join("podman.sock"),
        user_runtime_dir.join(format!("sluice-{short}.sock")),
    ]
    .into_iter()
    .find(|path| path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX)
    .context("the data directory's path is too long for a socket, and so is XDG_RUNTIME_DIR")
}

/// Waits until the service behind a socket answers.
pub async fn ready(url: &str) -> anyhow::Result<()> {
    let until = Instant::now() + START_MAX;
    loop {
        match ping(url).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => {
                return Err(error).with_context(|| {
                    format!("Podman does not answer after {} s", START_MAX.as_secs())
                });
            }
            Err(_) => async_std::task::sleep(PING_START_EVERY).await,
        }
    }
}

/// Writes the script that makes runsc an OCI runtime for this agent, and names it.
pub fn gvisor(agent_dir: &Path, path: &str) -> anyhow::Result<Oci> {
    let runsc = process::find_program("runsc", path, &["/usr/bin", "/usr/local/bin"])
        .context("FLOWS_RUNTIME_SANDBOX is `gvisor` and runsc is not installed: `apt-get install runsc`, or unset it")?;
    let wrapper = agent_dir.join("runsc-sluice");
    std::fs::write(&wrapper, gvisor_wrapper(&runsc))?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o700))?;
    Ok(Oci::Named(wrapper.display().to_string()))
}

/// Runs a trial container in gVisor, as an agent with `FLOWS_RUNTIME_SANDBOX=gvisor` would.
pub async fn try_gvisor(image: &str, path: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("make a scratch directory")?;
    try_runtime(&gvisor(dir.path(), path)?, image).await
}

/// Asks a Podman service whether it is there.
pub async fn ping(url: &str) -> anyhow::Result<()> {
    let path = url
        .strip_prefix("unix://")
        .with_context(|| format!("`{url}` is no unix:// address"))?;
    let talk = async {
        let mut stream = UnixStream::connect(path).await?;
        stream
            .write_all(b"GET /_ping HTTP/1.0\r\nHost: d\r\n\r\n")
            .await?;
        let mut reply = Vec::new();
        stream.take(4_096).read_to_end(&mut reply).await?;
        Ok::<_, std::io::Error>(reply)
    };
    let reply = timeout(PING_MAX, talk)
        .await
        .with_context(|| format!("{url} does not answer"))?
        .with_context(|| format!("ask {url}"))?;
    let text = String::from_utf8_lossy(&reply);
    let status = text.split(' ').nth(1).unwrap_or("nothing");
    if status != "200" {
        bail!("{url} answers {status}");
    }
    Ok(())
}

/// Removes every container of this agent; answers with how many there were.
pub async fn remove_containers(given: Option<&str>, agent: &str) -> anyhow::Result<usize> {
    let host: Vec<&str> = given.map_or_else(Vec::new, |url| vec!["--url", url]);
    let label = format!("label=io.sluice.agent={agent}");
    let list = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &label];
    let listed = run(&[&host[..], &list[..]].concat(), TRIAL_MAX).await?;
    let ids: Vec<_> = listed.split_whitespace().collect();
    if !ids.is_empty() {
        let remove = ["rm", "--force", "--time", "0"];
        run(&[&host[..], &remove[..], &ids[..]].concat(), TRIAL_MAX).await?;
    }
    Ok(ids.len())
}

/// Runs the podman program; its standard output, or an error with its last line.
async fn run(arguments: &[&str], max: Duration) -> anyhow::Result<String> {
    let mut command = Command::new("podman");
    for name in leaves_out(&KEPT) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let shown = arguments.iter().find(|word| !word.starts_with("--"));
    let shown = shown.unwrap_or(&"--version");
    let output = timeout(max, command.output())
        .await
        .with_context(|| format!("`podman {shown}` takes longer than {} s", max.as_secs()))?
        .context("run podman")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let line = errors.lines().rfind(|line| !line.trim().is_empty());
        bail!(
            "`podman {shown}` failed: {}",
            line.unwrap_or("without a word").trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Our settings that Podman must not see: tokens and broker passwords among them.
fn leaves_out(kept: &[&str]) -> Vec<String> {
    SETTINGS
        .iter()
        .filter(|setting| !kept.contains(&setting.name))
        .flat_map(|setting| std::iter::once(&setting.name).chain(setting.aliases))
        .map(|name| (*name).to_owned())
        .collect()
}

// Podman hands a proxy's address on to containers, and it may hold a password.
fn service_leaves_out() -> Vec<String> {
    let kept: Vec<_> = KEPT
        .into_iter()
        .filter(|name| !name.ends_with("_PROXY"))
        .collect();
    leaves_out(&kept)
}

// === impl Oci ===

impl Oci {
    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Default => Vec::new(),
            Self::Named(name) => vec!["--runtime".into(), name.clone()],
        }
    }
}

impl std::fmt::Display for Oci {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("the default runtime"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_service_is_started_only_where_it_must_be() {
        let runc = || Oci::Named("runc".into());
        let socket = "unix:///run/user/1/podman/podman.sock";
        let user = Some(socket);
        let given = Some("unix:///x");
        assert_eq!(plan(given, runc(), user), Plan::Use("unix:///x".into()));
        assert_eq!(plan(None, Oci::Default, user), Plan::Use(socket.into()));
        assert_eq!(plan(None, Oci::Default, None), Plan::Serve(Oci::Default));
        assert_eq!(plan(None, runc(), user), Plan::Serve(runc()));
    }

    #[test]
    fn a_verdict_holds_under_its_circumstances_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("oci");
        let runc = Oci::Named("runc".into());
        std::fs::write(&file, Verdict::text("boot 1", &runc).expect("text")).expect("written");
        assert_eq!(Verdict::recall(&file, "boot 1"), Some(runc));
        assert_eq!(Verdict::recall(&file, "boot 2"), None);
        std::fs::write(&file, "{").expect("written");
        assert_eq!(Verdict::recall(&file, "boot 1"), None);
    }

    #[test]
    fn the_service_sees_no_secret_and_no_proxy() {
        let without = service_leaves_out();
        for name in [
            "FLOWS_AGENT_POOL_TOKEN",
            "AMQP_URL",
            "SLUICE_API_KEY",
            "HTTP_PROXY",
            "https_proxy",
        ] {
            assert!(without.iter().any(|left| left == name), "{name}");
        }
        assert!(!without.iter().any(|name| name == "HOME"));
    }

    #[test]
    fn a_long_data_directory_moves_the_socket() {
        let long = PathBuf::from(format!("/{}", "d".repeat(120)));
        let path = socket(&long, Path::new("/run/user/1"), "a-b-c0ffee").expect("a path");
        assert_eq!(path, Path::new("/run/user/1/sluice-c0ffee.sock"));
        assert!(socket(&long, &long, "x").is_err());
    }

    #[test]
    fn gvisor_is_a_script_around_the_runsc_that_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("runsc"), "").expect("written");
        let path = dir.path().display().to_string();
        let Oci::Named(wrapper) = gvisor(dir.path(), &path).expect("it is found") else {
            panic!("it has a name");
        };
        let text = std::fs::read_to_string(wrapper).expect("it is there");
        assert!(
            text.contains(&format!("'{path}/runsc' --ignore-cgroups")),
            "{text}"
        );
    }
}
