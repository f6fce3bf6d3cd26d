//! A private RabbitMQ node: one unprivileged child of the agent.
//!
//! ```text
//!  DATA/agent/rabbitmq/
//!    node.json           ports and password, kept over restarts (0600)
//!    rabbitmq.conf       written at each start (0600)
//!    enabled_plugins     none: no management page, no open port for it
//!    .erlang.cookie      random (0400)
//!    mnesia/ log/ …      the node's own
//!    first-start         there until the node's first start is through
//! ```
//!
//! It listens on loopback alone: one port for AMQP, one for Erlang's own
//! protocol. At its start it asks an epmd (Erlang's name service) for its name
//! and does not go on without an answer, so it has one of its own: the user's
//! would be woken by it and outlive the agent. The node's name never changes, so
//! its data are found again. Owns the node's files and the recipes of both;
//! running them is the supervisor's.

pub mod first_start;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_std::io::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use serde::{Deserialize, Serialize};

use crate::agent::files::{private_dir, write_private};
use crate::agent::supervise::{Environment, Lifeline, Recipe};
use crate::process::find_program;

/// Where Debian and the upstream packages unpack the server.
const INSTALLED: &str = "/usr/lib/rabbitmq/lib";
/// Where it may be otherwise.
const SERVER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/opt/rabbitmq/sbin:/usr/sbin";
const USER: &str = "sluice";
/// How long a first start may take: 4 s on two idle cores, over a minute where
/// many others want them.
const START_MAX: Duration = Duration::from_secs(180);
/// How long a node with data may take: 200,000 queued jobs took 12 s to recover.
const RECOVERY_MAX: Duration = Duration::from_secs(300);
/// How long one knock at the port may take.
const KNOCK_MAX: Duration = Duration::from_secs(2);
const KNOCK_EVERY: Duration = Duration::from_millis(100);
/// The AMQP 0-9-1 protocol header; a broker that is ready answers with `Connection.Start`.
const AMQP_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// The frame type of a method, the first octet of that answer.
const METHOD_FRAME: u8 = 1;
/// The write-ahead log is mirrored in memory up to thrice this size; the default of 512 MiB is for servers.
const WAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A delivery may stay unacknowledged this long before the broker closes the
/// channel. The default of 30 minutes would cut long jobs off.
const CONSUMER_TIMEOUT_MS: u64 = 7 * 24 * 3600 * 1000;
const LOG_FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
const LOG_FILES_MAX: u32 = 3;
/// Lines of the node's own words that are quoted when it does not start.
const QUOTE_LINES: usize = 12;

/// Where Erlang keeps its programs when they are not on the search path.
const ERLANG: [&str; 3] = [
    "/usr/lib/erlang/bin",
    "/usr/lib64/erlang/bin",
    "/usr/local/lib/erlang/bin",
];

/// What keeps over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its first part is this node's alone. `localhost` needs no resolver and
    /// survives a change of the host's name.
    name: String,
    pub amqp_port: u16,
    pub distribution_port: u16,
    /// 0 in the file of a node that was made without one.
    #[serde(default)]
    pub epmd_port: u16,
    password: String,
}

/// What the node must not exceed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Publishers wait while less is free on the disk.
    pub disk_free_bytes_min: u64,
    /// Publishers wait while it holds more.
    pub memory_bytes: u64,
}

/// The server program: the newest below [`INSTALLED`], or `rabbitmq-server` in
/// the usual directories. Debian's wrapper in `/usr/sbin` refuses other users
/// than its own, so the real one is preferred.
pub fn find_server() -> Option<PathBuf> {
    newest_server(Path::new(INSTALLED))
        .or_else(|| find_program("rabbitmq-server", SERVER_PATH, &[]))
}

fn newest_server(below: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(below).ok()?;
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path
                .file_name()?
                .to_str()?
                .strip_prefix("rabbitmq_server-")?;
            let numbers: Vec<u32> = version.split('.').map_while(|n| n.parse().ok()).collect();
            let server = path.join("sbin/rabbitmq-server");
            server.is_file().then_some((numbers, server))
        })
        .max()
        .map(|(_, server)| server)
}

/// Waits until the broker behind `port` speaks AMQP.
pub async fn ready(port: u16, dir: &Path) -> anyhow::Result<()> {
    let limit = if first_start::is_under_way(dir) {
        START_MAX
    } else {
        RECOVERY_MAX
    };
    let until = Instant::now() + limit;
    loop {
        match async_std::future::timeout(KNOCK_MAX, knock(port)).await {
            Ok(Ok(METHOD_FRAME)) => return Ok(()),
            Ok(Ok(_)) => bail!("something else than RabbitMQ listens on 127.0.0.1:{port}"),
            _ if Instant::now() > until => bail!(
                "RabbitMQ does not answer after {} s; it said:\n{}",
                limit.as_secs(),
                last_words(dir)
            ),
            _ => async_std::task::sleep(KNOCK_EVERY).await,
        }
    }
}

async fn knock(port: u16) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(AMQP_HEADER).await?;
    let mut first = [0u8; 1];
    stream.read_exact(&mut first).await?;
    Ok(first[0])
}

/// The end of what the node printed and logged.
pub fn last_words(dir: &Path) -> String {
    let mut quoted = Vec::new();
    for name in ["console.log", "log/rabbit.log"] {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let from = lines.len().saturating_sub(QUOTE_LINES);
        quoted.extend(lines[from..].iter().map(|line| format!("  {line}")));
    }
    quoted.join("\n")
}

// === impl Node ===

impl Node {
    /// The node of this directory, with the ports it had if they are free, else others.
    pub fn prepare(dir: &Path) -> anyhow::Result<Self> {
        private_dir(dir)?;
        let file = dir.join("node.json");
        let kept = match std::fs::read(&file) {
            Ok(text) => Some(
                serde_json::from_slice::<Self>(&text)
                    .with_context(|| format!("{} is damaged", file.display()))?,
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        };
        let node = Self::with_free_ports(kept.as_ref())?;
        if kept.as_ref() != Some(&node) {
            write_private(&file, &serde_json::to_string(&node)?)?;
        }
        Ok(node)
    }

    /// The node that an agent runs, or ran, in this directory.
    pub fn kept(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join("node.json")).ok()?).ok()
    }

    fn with_free_ports(kept: Option<&Self>) -> anyhow::Result<Self> {
        // All are held until all are chosen, so that they differ.
        let amqp = listener(kept.map(|node| node.amqp_port))?;
        let distribution = listener(kept.map(|node| node.distribution_port))?;
        let epmd = listener(kept.map(|node| node.epmd_port))?;
        Ok(Self {
            amqp_port: amqp.local_addr()?.port(),
            distribution_port: distribution.local_addr()?.port(),
            epmd_port: epmd.local_addr()?.port(),
            name: match kept {
                Some(node) => node.name.clone(),
                None => format!("sluice-{}@localhost", &random_hex()?[..12]),
            },
            password: match kept {
                Some(node) => node.password.clone(),
                None => random_hex()?,
            },
        })
    }

    /// The node's name in Erlang, which is also that of its directories.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> String {
        format!(
            "amqp://{USER}:{}@127.0.0.1:{}/%2f",
            self.password, self.amqp_port
        )
    }

    /// Writes the node's files and says how to start its name service and it.
    ///
    /// `path` is the search path of the agent; Erlang's programs are looked up in it.
    pub fn recipes(
        &self,
        server: &Path,
        dir: &Path,
        limits: Limits,
        path: &str,
    ) -> anyhow::Result<[Recipe; 2]> {
        let epmd = find_program("epmd", path, &ERLANG).context(
            "RabbitMQ is installed, but Erlang's `epmd` is not found: add its directory to PATH, or set AMQP_URL",
        )?;
        for name in ["mnesia", "log", "config", "schema"] {
            private_dir(&dir.join(name))?;
        }
        write_private(&dir.join("rabbitmq.conf"), &self.conf(dir, limits))?;
        write_private(&dir.join("enabled_plugins"), "[].\n")?;
        cookie(&dir.join(".erlang.cookie"))?;
        let recipe = |name: &str, program: &Path, arguments: Vec<_>, environment, output| Recipe {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            environment: Environment::Exactly(environment),
            lifeline: Lifeline::Kernel,
            output: Some(dir.join(output)),
            dir: Some(dir.to_owned()),
        };
        let port = self.epmd_port.to_string();
        let arguments = ["-address", "127.0.0.1", "-port", &port].map(Into::into);
        Ok([
            recipe("epmd", &epmd, arguments.into(), Vec::new(), "epmd.log"),
            recipe(
                "rabbitmq",
                server,
                Vec::new(),
                self.environment(dir, path),
                "console.log",
            ),
        ])
    }

    fn conf(&self, dir: &Path, limits: Limits) -> String {
        format!(
            "# Written by the agent at each start.\n\
             listeners.tcp.1 = 127.0.0.1:{port}\n\
             default_user = {USER}\n\
             default_pass = {password}\n\
             loopback_users.{USER} = true\n\
             vm_memory_high_watermark.absolute = {memory}\n\
             disk_free_limit.absolute = {disk}\n\
             raft.wal_max_size_bytes = {WAL_BYTES_MAX}\n\
             consumer_timeout = {CONSUMER_TIMEOUT_MS}\n\
             heartbeat = 10\n\
             log.console = false\n\
             log.file = {log}\n\
             log.file.level = info\n\
             log.file.rotation.size = {LOG_FILE_BYTES_MAX}\n\
             log.file.rotation.count = {LOG_FILES_MAX}\n",
            port = self.amqp_port,
            password = self.password,
            memory = limits.memory_bytes,
            disk = limits.disk_free_bytes_min,
            log = dir.join("log/rabbit.log").display(),
        )
    }

    fn environment(&self, dir: &Path, path: &str) -> Vec<(String, String)> {
        let below = |name: &str| dir.join(name).display().to_string();
        let distribution = self.distribution_port;
        let pairs = [
            ("HOME", dir.display().to_string()),
            ("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin")),
            ("LANG", "C.UTF-8".into()),
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_MNESIA_BASE", below("mnesia")),
            ("RABBITMQ_LOG_BASE", below("log")),
            ("RABBITMQ_CONFIG_FILE", below("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", below("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", below("enabled_plugins")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", below("config")),
            ("RABBITMQ_SCHEMA_DIR", below("schema")),
            ("RABBITMQ_PID_FILE", below("pid")),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            // Without a shell in between the child is the Erlang machine itself.
            ("RABBITMQ_ALLOW_INPUT", "1".into()),
            ("ERL_CRASH_DUMP", below("erl_crash.dump")),
            ("ERL_CRASH_DUMP_SECONDS", "0".into()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("-noinput -eval {}", first_start::WRITE_NAMES),
            ),
            ("ERL_EPMD_PORT", self.epmd_port.to_string()),
            // For every Erlang of the node: its start-up runs a second one, only to
            // wake an epmd.
            (
                "ERL_FLAGS",
                format!(
                    "-kernel inet_dist_use_interface {{127,0,0,1}} \
                     -start_epmd false -erl_epmd_port {distribution}"
                ),
            ),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

// The port a node had may belong to somebody else by now; then any free one does.
fn listener(preferred: Option<u16>) -> std::io::Result<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match preferred.map(bind) {
        Some(Ok(listener)) => Ok(listener),
        _ => bind(0),
    }
}

/// Erlang demands a cookie that only its owner can read; one that is there is kept.
fn cookie(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if !path.exists() {
        write_private(path, &random_hex()?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400))?;
    }
    Ok(())
}

/// 32 random bytes.
fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("draw a random password: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            name: "sluice-1@localhost".into(),
            amqp_port: 1111,
            distribution_port: 2222,
            epmd_port: 3333,
            password: "secret".into(),
        }
    }

    const LIMITS: Limits = Limits {
        disk_free_bytes_min: 512,
        memory_bytes: 1024,
    };

    #[test]
    fn the_node_listens_on_loopback_alone_within_its_limits() {
        let conf = node().conf(Path::new("/d"), LIMITS);
        let lines: Vec<_> = conf.lines().collect();
        let listeners: Vec<_> = lines
            .iter()
            .filter(|l| l.starts_with("listeners"))
            .collect();
        assert_eq!(listeners, [&"listeners.tcp.1 = 127.0.0.1:1111"]);
        assert!(lines.contains(&"disk_free_limit.absolute = 512"), "{conf}");
        assert!(
            lines.contains(&"vm_memory_high_watermark.absolute = 1024"),
            "{conf}"
        );
        assert!(!conf.contains("management"), "{conf}");
        let environment = node().environment(Path::new("/d"), "/bin");
        let flags = &environment.last().expect("there are some").1;
        for part in ["inet_dist_use_interface {127,0,0,1}", "-start_epmd false"] {
            assert!(flags.contains(part), "{flags}");
        }
        assert!(environment.contains(&("ERL_EPMD_PORT".into(), "3333".into())));
        assert!(
            environment
                .iter()
                .all(|(_, value)| !value.contains("secret"))
        );
    }

    #[test]
    fn ports_and_password_are_kept_while_the_ports_are_free() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Node::prepare(dir.path()).expect("prepared");
        assert_ne!(first.amqp_port, first.distribution_port);
        assert_eq!(Node::prepare(dir.path()).expect("again"), first);
        let _taken = listener(Some(first.amqp_port)).expect("it is free");
        let moved = Node::prepare(dir.path()).expect("moved");
        assert_ne!(moved.amqp_port, first.amqp_port);
        assert_eq!(moved.name, first.name, "the data belong to this name");
        assert_eq!(
            moved.password, first.password,
            "the data know only this one"
        );
    }

    #[test]
    fn a_damaged_file_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("node.json"), "{").expect("written");
        let error = Node::prepare(dir.path()).expect_err("damaged");
        assert!(
            error.to_string().contains("node.json is damaged"),
            "{error}"
        );
    }

    #[test]
    fn the_newest_server_is_found_by_number_not_by_letter() {
        let dir = tempfile::tempdir().expect("a directory");
        for version in ["3.9.13", "3.13.7", "3.10.8"] {
            let sbin = dir.path().join(format!("rabbitmq_server-{version}/sbin"));
            std::fs::create_dir_all(&sbin).expect("made");
            std::fs::write(sbin.join("rabbitmq-server"), "").expect("written");
        }
        let newest = newest_server(dir.path()).expect("found");
        assert!(
            newest.display().to_string().contains("3.13.7"),
            "{newest:?}"
        );
        assert_eq!(newest_server(Path::new("/nowhere")), None);
    }
}
