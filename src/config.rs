//! Every setting of every role, and the only reader of the environment.
//!
//! Settings are read through a look-up function, so that a test needs no
//! environment. All complaints are gathered and told at once, before anything
//! is bound; a process that cannot be configured exits with [`EXIT_USAGE`].
//! `docs/config.md` lists each of [`SETTINGS`], and a test compares the two.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use url::Url;

/// Exit code of a process whose arguments or settings are wrong (`EX_USAGE`).
pub const EXIT_USAGE: i32 = 64;
/// Exit code of a bridge whose pool id or token the gateway refuses (`EX_NOPERM`).
pub const EXIT_REFUSED: i32 = 77;

/// The image used when `FLOWS_RUNTIME_IMAGE` is not set: what
/// `compose/runtime-image.sh` builds.
pub const RUNTIME_IMAGE_DEFAULT: &str = "localhost/sluice-runtime:latest";

/// One setting, as documented.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// Older or foreign names that mean the same; the first that is set wins, `name` before all.
    pub aliases: &'static [&'static str],
    /// What holds when it is not set, as a person would say it.
    pub default: &'static str,
    pub secret: bool,
}

const fn setting(name: &'static str, default: &'static str) -> Setting {
    Setting {
        name,
        aliases: &[],
        default,
        secret: false,
    }
}

const fn secret(name: &'static str, default: &'static str) -> Setting {
    Setting {
        name,
        aliases: &[],
        default,
        secret: true,
    }
}

const fn aliased(
    name: &'static str,
    aliases: &'static [&'static str],
    default: &'static str,
) -> Setting {
    Setting {
        name,
        aliases,
        default,
        secret: false,
    }
}

/// Every setting there is. A look-up of a name that is not here panics, so the list cannot lag behind.
pub const SETTINGS: &[Setting] = &[
    setting("FLOWS_GATEWAY_ENDPOINT", "required by an agent"),
    setting("FLOWS_ENDPOINT", "required by an agent"),
    setting("FLOWS_AGENT_POOL_ID", "required by an agent"),
    secret("FLOWS_AGENT_POOL_TOKEN", "required by an agent"),
    setting("FLOWS_EXECUTOR", "podman"),
    setting("FLOWS_POOL_SIZE", "3"),
    aliased(
        "FLOWS_PODMAN_MOUNTS_TEMPDIR",
        &["FLOWS_DOCKER_MOUNTS_TEMPDIR"],
        "`runtimes` below the data directory",
    ),
    aliased(
        "FLOWS_RUNTIME_IMAGE",
        &["FLOWS_DOCKER_RUNTIME_IMAGE"],
        RUNTIME_IMAGE_DEFAULT,
    ),
    setting("FLOWS_ADDITIONAL_ROOT_CAS", "none"),
    aliased("HTTP_PROXY", &["http_proxy"], "none"),
    aliased("HTTPS_PROXY", &["https_proxy"], "the value of HTTP_PROXY"),
    aliased("NO_PROXY", &["no_proxy"], "none"),
    secret("AMQP_URL", "a private RabbitMQ that the agent starts"),
    setting(
        "CONTAINER_HOST",
        "the user's Podman socket, or a service that the agent starts",
    ),
    setting("XDG_RUNTIME_DIR", "`/run/user/UID`"),
    setting("XDG_DATA_HOME", "`~/.local/share`"),
    setting("HOME", "the user's, from the password database"),
    setting("PATH", "the system's"),
    setting("SSL_CERT_FILE", "the system's roots"),
    setting("SSL_CERT_DIR", "the system's roots"),
    setting("SLUICE_DATA_DIR", "`sluice` below XDG_DATA_HOME"),
    setting("SLUICE_WORKERS", "2"),
    setting("SLUICE_WORKER_NUMBER", "0"),
    setting("SLUICE_SLOTS", "64"),
    setting("SLUICE_RUNTIMES_MAX", "20"),
    setting("SLUICE_RUNTIME_MEMORY_MB", "256"),
    setting("SLUICE_RUNTIME_CPUS", "1"),
    setting("SLUICE_RUNTIME_PIDS", "64"),
    setting("SLUICE_RUNTIME_IDLE_S", "600"),
    setting("SLUICE_RUNTIME_NETWORK", "full"),
    setting(
        "SLUICE_RUNTIME_OCI",
        "the first of crun and runc that works",
    ),
    setting("SLUICE_DRAIN_S", "300"),
    setting("SLUICE_DISK_FREE_MB_MIN", "512"),
    setting("SLUICE_BROKER_MEMORY_MB", "1024"),
    setting(
        "SLUICE_PARENT_PIPE",
        "off; an agent sets it to `1` for its children, which end with their standard input",
    ),
    setting("SLUICE_GATEWAY_LISTEN", "127.0.0.1:8080"),
    setting("SLUICE_GATEWAY_AGENT_LISTEN", "127.0.0.1:8081"),
    setting("SLUICE_URL", "the gateway that `sluice up` started here"),
    secret("SLUICE_API_KEY", "the admin key in the data directory"),
    setting("SLUICE_LOG", "info"),
    setting("SLUICE_LOG_FORMAT", "text"),
];

/// All complaints about the settings of one process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", complaints.join("\n"))]
pub struct Error {
    pub complaints: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// An `EnvFilter` directive list.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// How every outgoing connection leaves the host: HTTP and websocket alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressConfig {
    /// For `http` and `ws` addresses.
    pub http_proxy: Option<Url>,
    /// For `https` and `wss` addresses.
    pub https_proxy: Option<Url>,
    /// Hosts, domain suffixes or `*` that go without a proxy.
    pub no_proxy: Vec<String>,
    /// PEM texts trusted beside the system's roots.
    pub additional_root_cas: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    pub data_dir: PathBuf,
    /// `host:port` of the HTTP API; port 0 takes any free one.
    pub listen: String,
    /// `host:port` of the agents' listener; port 0 takes any free one.
    pub agent_listen: String,
    pub drain: Duration,
}

#[derive(Debug, Clone)]
pub struct BridgeConfig {
    pub gateway: Url,
    pub pool_id: String,
    pub pool_token: String,
    pub amqp_url: String,
    pub data_dir: PathBuf,
    pub egress: EgressConfig,
    /// Below this much free space in the data directory no work is taken.
    pub disk_free_bytes_min: u64,
    pub drain: Duration,
}

#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The gateway's HTTP address, for bundles and SDK calls.
    pub endpoint: Url,
    pub pool_id: String,
    pub amqp_url: String,
    pub data_dir: PathBuf,
    /// Which of the workers on this host it is, from 0.
    pub number: u32,
    /// Jobs held at once.
    pub slots: u32,
    pub egress: EgressConfig,
    pub runtime: RuntimeConfig,
    /// Below this much free space in the data directory no work is taken.
    pub disk_free_bytes_min: u64,
    pub drain: Duration,
}

/// What a runtime is made of and may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    pub image: String,
    /// `unix:///…` of the Podman service.
    pub podman_url: String,
    /// Where per-runtime directories are made.
    pub mounts_dir: PathBuf,
    /// Most containers this worker holds.
    pub runtimes_max: u32,
    /// Runtimes kept started without an identity.
    pub stems: u32,
    pub memory_bytes: u64,
    pub cpus: u32,
    pub pids: u32,
    pub idle: Duration,
    pub network: Network,
}

/// What an app's runtime can reach. A flow's runtime reaches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    None,
    /// Everything but link-local and metadata addresses, the host's loopback and other containers.
    Full,
}

/// What the agent supervises; bridge and workers are configured through their own environment.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    pub gateway: Url,
    pub endpoint: Url,
    pub pool_id: String,
    pub pool_token: String,
    pub data_dir: PathBuf,
    pub workers: u32,
    /// `None`: a private node.
    pub amqp_url: Option<String>,
    /// `None`: the user's socket if it answers, else a service of the agent's own.
    pub podman_url: Option<String>,
    /// `None`: the first that works.
    pub oci: Option<String>,
    pub image: String,
    /// Where the user's own Podman socket would be.
    pub user_runtime_dir: PathBuf,
    /// The private node takes no messages while less is free on its disk.
    pub disk_free_bytes_min: u64,
    /// The private node takes no messages while it holds more.
    pub broker_memory_bytes: u64,
    pub drain: Duration,
    /// Every setting that is set, under its first name: what children are given is chosen from it.
    pub set: Vec<(String, String)>,
}

/// How the admin commands find the gateway.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// `None`: what the data directory says.
    pub url: Option<Url>,
    pub api_key: Option<String>,
    pub data_dir: PathBuf,
    pub egress: EgressConfig,
}

/// Reads settings and gathers complaints.
pub struct Reader<'a> {
    look_up: &'a dyn Fn(&str) -> Option<String>,
    complaints: Vec<String>,
}

/// Looks a setting up in the environment of this process.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub fn from_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub fn new(look_up: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            look_up,
            complaints: Vec::new(),
        }
    }

    /// Hands `config` out if nothing was complained about, else all complaints.
    pub fn finish<T>(self, config: T) -> Result<T, Error> {
        if self.complaints.is_empty() {
            Ok(config)
        } else {
            Err(Error {
                complaints: self.complaints,
            })
        }
    }

    pub fn telemetry(&mut self) -> TelemetryConfig {
        let filter = self.text_or("SLUICE_LOG", "info");
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
            self.complain(
                "SLUICE_LOG",
                &format!("is no filter such as `info` or `sluice=debug`: {error}"),
            );
        }
        let format = match self.text_or("SLUICE_LOG_FORMAT", "text").as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                self.complain(
                    "SLUICE_LOG_FORMAT",
                    &format!("is `{other}`: say `text` or `json`"),
                );
                LogFormat::Text
            }
        };
        TelemetryConfig { filter, format }
    }

    pub fn gateway(&mut self) -> GatewayConfig {
        GatewayConfig {
            data_dir: self.data_dir(),
            listen: self.text_or("SLUICE_GATEWAY_LISTEN", "127.0.0.1:8080"),
            agent_listen: self.text_or("SLUICE_GATEWAY_AGENT_LISTEN", "127.0.0.1:8081"),
            drain: self.seconds("SLUICE_DRAIN_S", 300),
        }
    }

    pub fn bridge(&mut self) -> BridgeConfig {
        BridgeConfig {
            gateway: self.gateway_endpoint(),
            pool_id: self.required("FLOWS_AGENT_POOL_ID"),
            pool_token: self.required("FLOWS_AGENT_POOL_TOKEN"),
            amqp_url: self.required("AMQP_URL"),
            data_dir: self.data_dir(),
            egress: self.egress(),
            disk_free_bytes_min: self.megabytes("SLUICE_DISK_FREE_MB_MIN", 512),
            drain: self.seconds("SLUICE_DRAIN_S", 300),
        }
    }

    pub fn worker(&mut self) -> WorkerConfig {
        self.executor();
        WorkerConfig {
            endpoint: self.url("FLOWS_ENDPOINT", &["http", "https"]),
            pool_id: self.required("FLOWS_AGENT_POOL_ID"),
            amqp_url: self.required("AMQP_URL"),
            data_dir: self.data_dir(),
            number: self.number("SLUICE_WORKER_NUMBER", 0, 0, 999),
            slots: self.number("SLUICE_SLOTS", 64, 1, 1_000),
            egress: self.egress(),
            runtime: self.runtime(),
            disk_free_bytes_min: self.megabytes("SLUICE_DISK_FREE_MB_MIN", 512),
            drain: self.seconds("SLUICE_DRAIN_S", 300),
        }
    }

    fn executor(&mut self) {
        let executor = self.text_or("FLOWS_EXECUTOR", "podman");
        if executor != "podman" {
            self.complain(
                "FLOWS_EXECUTOR",
                &format!("is `{executor}`: this agent runs jobs with `podman` alone"),
            );
        }
    }

    pub fn runtime(&mut self) -> RuntimeConfig {
        let data_dir = self.data_dir();
        let network = match self.text_or("SLUICE_RUNTIME_NETWORK", "full").as_str() {
            "none" => Network::None,
            "full" => Network::Full,
            other => {
                self.complain(
                    "SLUICE_RUNTIME_NETWORK",
                    &format!("is `{other}`: say `none` or `full`"),
                );
                Network::None
            }
        };
        RuntimeConfig {
            image: self.text_or("FLOWS_RUNTIME_IMAGE", RUNTIME_IMAGE_DEFAULT),
            podman_url: self.get("CONTAINER_HOST").unwrap_or_else(|| {
                format!(
                    "unix://{}/podman/podman.sock",
                    self.user_runtime_dir().display()
                )
            }),
            mounts_dir: self
                .get("FLOWS_PODMAN_MOUNTS_TEMPDIR")
                .map_or_else(|| data_dir.join("runtimes"), PathBuf::from),
            runtimes_max: self.number("SLUICE_RUNTIMES_MAX", 20, 1, 10_000),
            stems: self.number("FLOWS_POOL_SIZE", 3, 0, 1_000),
            memory_bytes: self.megabytes("SLUICE_RUNTIME_MEMORY_MB", 256),
            cpus: self.number("SLUICE_RUNTIME_CPUS", 1, 1, 1_024),
            pids: self.number("SLUICE_RUNTIME_PIDS", 64, 16, 100_000),
            idle: self.seconds("SLUICE_RUNTIME_IDLE_S", 600),
            network,
        }
    }

    pub fn agent(&mut self) -> AgentConfig {
        // What only its children read is checked here too, before anything is started.
        self.executor();
        self.number("SLUICE_SLOTS", 64, 1, 1_000);
        self.egress();
        let runtime = self.runtime();
        AgentConfig {
            gateway: self.gateway_endpoint(),
            endpoint: self.url("FLOWS_ENDPOINT", &["http", "https"]),
            pool_id: self.required("FLOWS_AGENT_POOL_ID"),
            pool_token: self.required("FLOWS_AGENT_POOL_TOKEN"),
            data_dir: self.data_dir(),
            workers: self.number("SLUICE_WORKERS", 2, 1, 64),
            amqp_url: self.get("AMQP_URL"),
            podman_url: self.get("CONTAINER_HOST"),
            oci: self.get("SLUICE_RUNTIME_OCI"),
            image: runtime.image,
            user_runtime_dir: self.user_runtime_dir(),
            disk_free_bytes_min: self.megabytes("SLUICE_DISK_FREE_MB_MIN", 512),
            broker_memory_bytes: self.megabytes("SLUICE_BROKER_MEMORY_MB", 1_024),
            drain: self.seconds("SLUICE_DRAIN_S", 300),
            set: self.set(),
        }
    }

    /// Every setting that is set, under its first name.
    pub fn set(&self) -> Vec<(String, String)> {
        SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.name.to_owned(), self.get(setting.name)?)))
            .collect()
    }

    /// Whether this process ends when its standard input does.
    pub fn parent_pipe(&mut self) -> bool {
        self.get("SLUICE_PARENT_PIPE").is_some()
    }

    pub fn admin(&mut self) -> AdminConfig {
        AdminConfig {
            url: self
                .get("SLUICE_URL")
                .map(|_| self.url("SLUICE_URL", &["http", "https"])),
            api_key: self.get("SLUICE_API_KEY"),
            data_dir: self.data_dir(),
            egress: self.egress(),
        }
    }

    pub fn egress(&mut self) -> EgressConfig {
        let http_proxy = self.optional_url("HTTP_PROXY");
        EgressConfig {
            https_proxy: self
                .optional_url("HTTPS_PROXY")
                .or_else(|| http_proxy.clone()),
            http_proxy,
            no_proxy: self
                .text_or("NO_PROXY", "")
                .split(',')
                .map(|host| host.trim().to_ascii_lowercase())
                .filter(|host| !host.is_empty())
                .collect(),
            additional_root_cas: self.root_cas(),
        }
    }

    pub fn data_dir(&mut self) -> PathBuf {
        if let Some(dir) = self.get("SLUICE_DATA_DIR") {
            return PathBuf::from(dir);
        }
        if let Some(dir) = self.get("XDG_DATA_HOME") {
            return PathBuf::from(dir).join("sluice");
        }
        let home = self.get("HOME").map(PathBuf::from).or_else(|| {
            nix::unistd::User::from_uid(nix::unistd::Uid::current())
                .ok()
                .flatten()
                .map(|user| user.dir)
        });
        match home {
            Some(home) => home.join(".local/share/sluice"),
            None => {
                self.complain(
                    "SLUICE_DATA_DIR",
                    "is not set, and this user has no home directory to fall back to",
                );
                PathBuf::new()
            }
        }
    }

    /// `XDG_RUNTIME_DIR`, or where systemd would put it.
    pub fn user_runtime_dir(&self) -> PathBuf {
        self.get("XDG_RUNTIME_DIR").map_or_else(
            || PathBuf::from(format!("/run/user/{}", nix::unistd::Uid::current())),
            PathBuf::from,
        )
    }

    // `https://` and `wss://` mean the same here, as do `http://` and `ws://`.
    fn gateway_endpoint(&mut self) -> Url {
        self.url("FLOWS_GATEWAY_ENDPOINT", &["http", "https", "ws", "wss"])
    }

    // base64(JSON {"caCertificates": ["<base64 PEM>", …]}), the format users have.
    fn root_cas(&mut self) -> Vec<String> {
        const NAME: &str = "FLOWS_ADDITIONAL_ROOT_CAS";
        #[derive(serde::Deserialize)]
        struct Bundle {
            #[serde(rename = "caCertificates")]
            ca_certificates: Vec<String>,
        }
        let Some(text) = self.get(NAME) else {
            return Vec::new();
        };
        let Some(bundle) = BASE64
            .decode(text.trim())
            .ok()
            .and_then(|json| serde_json::from_slice::<Bundle>(&json).ok())
        else {
            self.complain(
                NAME,
                "is not base64 of JSON {\"caCertificates\": [\"<base64 of a PEM file>\", …]}",
            );
            return Vec::new();
        };
        let mut pems = Vec::new();
        for (index, entry) in bundle.ca_certificates.iter().enumerate() {
            let pem = BASE64
                .decode(entry.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .filter(|pem| pem.contains("-----BEGIN CERTIFICATE-----"));
            match pem {
                Some(pem) => pems.push(pem),
                None => self.complain(
                    NAME,
                    &format!("has an entry {index} that is not base64 of a PEM certificate"),
                ),
            }
        }
        pems
    }

    fn get(&self, name: &str) -> Option<String> {
        let setting = SETTINGS
            .iter()
            .find(|setting| setting.name == name)
            .unwrap_or_else(|| panic!("{name} is missing from config::SETTINGS"));
        std::iter::once(&setting.name)
            .chain(setting.aliases)
            .find_map(|name| (self.look_up)(name).filter(|value| !value.is_empty()))
    }

    fn text_or(&self, name: &str, default: &str) -> String {
        self.get(name).unwrap_or_else(|| default.to_owned())
    }

    fn required(&mut self, name: &str) -> String {
        let value = self.get(name);
        if value.is_none() {
            self.complain(name, "is not set");
        }
        value.unwrap_or_default()
    }

    fn url(&mut self, name: &str, schemes: &[&str]) -> Url {
        let text = self.required(name);
        match Url::parse(&text) {
            Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => return url,
            _ if text.is_empty() => {}
            _ => self.complain(
                name,
                &format!(
                    "is `{text}`: write an address that begins with {}",
                    scheme_list(schemes)
                ),
            ),
        }
        Url::parse("http://unset.invalid").expect("a constant address parses")
    }

    fn optional_url(&mut self, name: &str) -> Option<Url> {
        let text = self.get(name)?;
        match Url::parse(&text) {
            Ok(url) if url.has_host() => Some(url),
            // A proxy's address may hold a password, so it is not repeated.
            _ => {
                self.complain(name, "is not an address such as http://proxy.example:3128");
                None
            }
        }
    }

    fn number(&mut self, name: &str, default: u32, min: u32, max: u32) -> u32 {
        let Some(text) = self.get(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.complain(
                    name,
                    &format!("is `{text}`: write a whole number from {min} to {max}"),
                );
                default
            }
        }
    }

    fn seconds(&mut self, name: &str, default: u32) -> Duration {
        Duration::from_secs(u64::from(self.number(name, default, 0, 7 * 24 * 3600)))
    }

    fn megabytes(&mut self, name: &str, default: u32) -> u64 {
        u64::from(self.number(name, default, 0, 1_000_000)) * 1024 * 1024
    }

    fn complain(&mut self, name: &str, what: &str) {
        let complaint = format!("{name} {what}");
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }
}

fn scheme_list(schemes: &[&str]) -> String {
    let schemes: Vec<_> = schemes
        .iter()
        .map(|scheme| format!("{scheme}://"))
        .collect();
    schemes.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(vars: &[(&str, &str)], of: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, Error> {
        let look_up = |name: &str| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let mut reader = Reader::new(&look_up);
        let config = of(&mut reader);
        reader.finish(config)
    }

    #[test]
    fn all_complaints_come_at_once_and_name_the_setting() {
        let error = read(
            &[
                ("HOME", "/home/u"),
                ("FLOWS_GATEWAY_ENDPOINT", "ftp://x"),
                ("SLUICE_DRAIN_S", "soon"),
            ],
            |reader| reader.bridge(),
        )
        .expect_err("nothing of it fits");
        let names: Vec<_> = error
            .complaints
            .iter()
            .filter_map(|c| c.split(' ').next())
            .collect();
        assert_eq!(
            names,
            [
                "FLOWS_GATEWAY_ENDPOINT",
                "FLOWS_AGENT_POOL_ID",
                "FLOWS_AGENT_POOL_TOKEN",
                "AMQP_URL",
                "SLUICE_DRAIN_S"
            ]
        );
    }

    #[test]
    fn the_names_that_docker_users_have_still_work() {
        let config = read(
            &[
                ("HOME", "/home/u"),
                ("FLOWS_DOCKER_RUNTIME_IMAGE", "node:24"),
                ("FLOWS_DOCKER_MOUNTS_TEMPDIR", "/m"),
            ],
            |reader| reader.runtime(),
        )
        .expect("all defaults");
        assert_eq!(
            (config.image.as_str(), config.mounts_dir),
            ("node:24", PathBuf::from("/m"))
        );
    }

    #[test]
    fn additional_roots_are_unpacked_and_a_bad_entry_is_named() {
        let pem = BASE64.encode("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
        let json = format!("{{\"caCertificates\":[\"{pem}\",\"AAAA\"]}}");
        let error = read(
            &[("FLOWS_ADDITIONAL_ROOT_CAS", &BASE64.encode(json))],
            |reader| reader.egress(),
        )
        .expect_err("the second entry is no certificate");
        assert!(error.complaints[0].contains("entry 1"), "{error}");
    }

    #[test]
    fn a_proxy_for_http_serves_https_too_unless_told_otherwise() {
        let config = read(
            &[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "a.b, .C")],
            |reader| reader.egress(),
        )
        .expect("fits");
        assert_eq!(config.https_proxy, config.http_proxy);
        assert_eq!(config.no_proxy, ["a.b", ".c"]);
    }
}
