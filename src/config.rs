//! Every setting of every role, and the only reader of the environment.
//!
//! Settings are read through a look-up function, so that a test needs no
//! environment. All complaints are gathered and told at once, before anything
//! is bound; a process that cannot be configured exits with [`EXIT_USAGE`].
//! `docs/config.md` lists each of [`SETTINGS`], and a test compares the two.

mod reach;
mod roles;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use url::Url;

pub use reach::{Network, Range, Reach};
pub use roles::{
    AdminConfig, AgentConfig, BridgeConfig, EgressConfig, GatewayConfig, LogFormat, RuntimeConfig,
    Sandbox, TelemetryConfig, WorkerConfig,
};
pub use settings::{RUNTIME_IMAGE_DEFAULT, SETTINGS, Setting};

/// The shortest token of the agent's local API.
const API_TOKEN_BYTES_MIN: usize = 16;

/// Exit code of a process whose arguments or settings are wrong (`EX_USAGE`).
pub const EXIT_USAGE: i32 = 64;
/// Exit code of a bridge whose pool id or token the gateway refuses (`EX_NOPERM`).
pub const EXIT_REFUSED: i32 = 77;

/// All complaints about the settings of one process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", complaints.join("\n"))]
pub struct Error {
    pub complaints: Vec<String>,
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
            public_url: self.public_url(),
            endpoint_domain: self.endpoint_domain(),
            disk_free_bytes_min: self.megabytes("SLUICE_DISK_FREE_MB_MIN", 512),
            registry_poll: self.seconds("SLUICE_REGISTRY_POLL_S", 3_600),
            egress: self.egress(),
            drain: self.seconds("SLUICE_DRAIN_S", 300),
        }
    }

    fn public_url(&mut self) -> Option<String> {
        const NAME: &str = "SLUICE_PUBLIC_URL";
        let text = self.get(NAME)?;
        let url = Url::parse(&text).ok().filter(|url| {
            ["http", "https"].contains(&url.scheme()) && url.has_host() && url.query().is_none()
        });
        if url.is_none() {
            self.complain(
                NAME,
                &format!("is `{text}`: write an address such as https://flows.example.org"),
            );
        }
        url.map(|url| url.as_str().trim_end_matches('/').to_owned())
    }

    fn endpoint_domain(&mut self) -> Option<String> {
        const NAME: &str = "SLUICE_ENDPOINT_DOMAIN";
        let text = self.get(NAME)?;
        // A host's name and nothing else: what is parsed must be what is written.
        let url = Url::parse(&format!("http://{text}/")).ok();
        let fits = url.and_then(|url| Some(url.domain()? == text.to_lowercase()));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        if fits != Some(true) || !text.bytes().all(is_plain) {
            self.complain(
                NAME,
                &format!("is `{text}`: write a domain such as flows.example.org"),
            );
        }
        Some(text.to_lowercase())
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
        let (network, reach) = self.network();
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
            pause: self.seconds("SLUICE_RUNTIME_PAUSE_S", 10),
            age: self.seconds("SLUICE_RUNTIME_AGE_S", 6 * 3_600),
            sandbox: self.sandbox(),
            network,
            reach,
            egress: self.egress(),
        }
    }

    fn sandbox(&mut self) -> Sandbox {
        const NAME: &str = "FLOWS_RUNTIME_SANDBOX";
        match self.text_or(NAME, "container").as_str() {
            "container" => Sandbox::Container,
            "gvisor" => Sandbox::Gvisor,
            other => {
                self.complain(NAME, &format!("is `{other}`: say `container` or `gvisor`"));
                Sandbox::Gvisor
            }
        }
    }

    pub fn agent(&mut self) -> AgentConfig {
        // What only its children read is checked here too, before anything is started.
        self.executor();
        self.number("SLUICE_SLOTS", 64, 1, 1_000);
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
            sandbox: runtime.sandbox,
            image: runtime.image,
            user_runtime_dir: self.user_runtime_dir(),
            disk_free_bytes_min: self.megabytes("SLUICE_DISK_FREE_MB_MIN", 512),
            broker_memory_bytes: self.megabytes("SLUICE_BROKER_MEMORY_MB", 1_024),
            drain: self.seconds("SLUICE_DRAIN_S", 300),
            api: self.agent_api(),
            egress: self.egress(),
            set: self.set(),
        }
    }

    fn agent_api(&mut self) -> Option<(String, String)> {
        let listen = self.get("SLUICE_AGENT_API_LISTEN")?;
        let token = self.required("SLUICE_AGENT_API_TOKEN");
        if token.len() < API_TOKEN_BYTES_MIN {
            self.complain(
                "SLUICE_AGENT_API_TOKEN",
                &format!("is shorter than {API_TOKEN_BYTES_MIN} characters, which can be guessed"),
            );
        }
        Some((listen, token))
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
mod tests;
