//! The table of every setting: name, older names, default.

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
    setting("FLOWS_RUNTIME_SANDBOX", "container"),
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
    setting("SLUICE_RUNTIME_PAUSE_S", "10"),
    setting("SLUICE_RUNTIME_AGE_S", "21600"),
    setting("SLUICE_RUNTIME_NETWORK", "full"),
    setting(
        "SLUICE_RUNTIME_NETWORK_ALLOW",
        "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
    ),
    setting("SLUICE_RUNTIME_NETWORK_DENY", "none"),
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
    setting("SLUICE_AGENT_API_LISTEN", "off; a unix socket alone"),
    secret(
        "SLUICE_AGENT_API_TOKEN",
        "required with SLUICE_AGENT_API_LISTEN",
    ),
    setting("SLUICE_GATEWAY_LISTEN", "127.0.0.1:8080"),
    setting("SLUICE_GATEWAY_AGENT_LISTEN", "127.0.0.1:8081"),
    setting("SLUICE_PUBLIC_URL", "the address of SLUICE_GATEWAY_LISTEN"),
    setting("SLUICE_ENDPOINT_DOMAIN", "none; endpoints are paths"),
    setting("SLUICE_REGISTRY_POLL_S", "3600"),
    setting("SLUICE_URL", "the gateway that `sluice up` started here"),
    secret("SLUICE_API_KEY", "the admin key in the data directory"),
    setting("SLUICE_LOG", "info"),
    setting("SLUICE_LOG_FORMAT", "text"),
];
