//! What each role is told, once its settings are read. Values only.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::config::{Network, Reach};

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
    /// Where clients of apps' endpoints find this gateway, without a slash at the end.
    pub public_url: Option<String>,
    /// Apps and flows have a host each below `endpoints.` and this.
    pub endpoint_domain: Option<String>,
    /// Below this much free space in the data directory nothing new is taken.
    pub disk_free_bytes_min: u64,
    /// How long what a registry said counts.
    pub registry_poll: Duration,
    pub egress: EgressConfig,
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
    /// After so long without an invocation a runtime is stopped in its tracks.
    pub pause: Duration,
    /// A runtime that is older gets no new invocation.
    pub age: Duration,
    pub sandbox: Sandbox,
    pub network: Network,
    pub reach: Reach,
    /// How apps leave the host, where they have a network.
    pub egress: EgressConfig,
}

/// Which kernel an app's system calls reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// The host's, through a filter.
    Container,
    /// gVisor's own, in a process of its own.
    Gvisor,
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
    pub sandbox: Sandbox,
    pub image: String,
    /// Where the user's own Podman socket would be.
    pub user_runtime_dir: PathBuf,
    /// The private node takes no messages while less is free on its disk.
    pub disk_free_bytes_min: u64,
    /// The private node takes no messages while it holds more.
    pub broker_memory_bytes: u64,
    pub drain: Duration,
    /// `host:port` of the local API beside its unix socket, with the token it takes.
    pub api: Option<(String, String)>,
    pub egress: EgressConfig,
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
