//! What a container is allowed: its specification, as the raw JSON that libpod
//! takes. Pure.
//!
//! Raw, because podman-api cannot say or misspells half of it
//! (`no_new_privileges`, the log driver). Nothing of ours is in the arguments
//! or the mounts but the harness, and nothing in the environment but how an
//! app with a network leaves the host.

use std::path::PathBuf;

use serde_json::{Value, json};
use url::Url;

use sluice_proto::harness::{HARNESS_DIR, RUN_DIR};

use crate::config::{EgressConfig, Network, Reach, RuntimeConfig, Sandbox};
use crate::runtime::Owner;
use crate::runtime::directory::{Directory, ROOTS_NAME};
use crate::runtime::node::{SCRIPT, SECCOMP};

/// Labels every container of an agent carries.
pub(super) const LABEL_AGENT: &str = "io.sluice.agent";
pub(super) const LABEL_WORKER: &str = "io.sluice.worker";

/// How much of a runtime's standard error is kept, in bytes: only its end is
/// ever looked at, to tell how it died.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// The size of `/tmp`, in bytes: the only thing a runtime may write, and it is memory.
const TMP_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The size of `/dev/shm`, in bytes: Node needs none.
const SHM_BYTES_MAX: u64 = 1024 * 1024;

/// Open files: enough for a few hundred connections.
const OPEN_FILES_MAX: u64 = 1_024;

/// What a process may map beside twice its memory, in bytes, where the kernel
/// does not count what it uses: an idle Node maps 50 MiB.
const DATA_BYTES_SPARE: u64 = 256 * 1024 * 1024;

/// Not root, and the `node` user of every stock image.
const USER: &str = "1000:1000";

/// One over the period, in microseconds: the kernel's usual.
const CPU_PERIOD_US: u64 = 100_000;

/// One container to be.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub image: String,
    pub owner: Owner,
    pub sandbox: Sandbox,
    pub network: Network,
    /// What `network` reaches; no matter of the engine's.
    pub reach: Reach,
    pub environment: Vec<(&'static str, String)>,
    pub memory_bytes: u64,
    pub cpus: u32,
    pub pids: u32,
    /// Mounted at [`HARNESS_DIR`].
    pub harness_dir: PathBuf,
    /// Mounted at [`RUN_DIR`].
    pub run_dir: PathBuf,
    /// Where the engine writes standard error.
    pub log_path: PathBuf,
}

/// What the host can enforce.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Host {
    /// cgroup v2 controllers delegated to this user; none on cgroup v1.
    pub controllers: Vec<String>,
    /// User ids in the engine's own user namespace; 0 if unknown.
    pub ids: u64,
}

// === impl Host ===

impl Host {
    /// What is not enforced by the kernel, as a person would say it.
    pub fn lacks(&self) -> Vec<&'static str> {
        ["memory", "pids", "cpu"]
            .into_iter()
            .filter(|name| !self.can(name))
            .collect()
    }

    /// Whether the kernel holds a container to what this controller bounds.
    pub(super) fn can(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

// === impl Spec ===

impl Spec {
    pub(super) fn new(
        config: &RuntimeConfig,
        owner: &Owner,
        name: String,
        network: Network,
        harness_dir: PathBuf,
        directory: &Directory,
    ) -> Self {
        Self {
            name,
            image: config.image.clone(),
            owner: owner.clone(),
            sandbox: config.sandbox,
            network,
            reach: config.reach.clone(),
            environment: environment(network, &config.egress),
            memory_bytes: config.memory_bytes,
            cpus: config.cpus,
            pids: config.pids,
            harness_dir,
            run_dir: directory.run.clone(),
            log_path: directory.log.clone(),
        }
    }

    /// The body of libpod's `containers/create`.
    pub fn to_json(&self, host: &Host) -> Value {
        let mut body = json!({
            "name": self.name,
            "image": self.image,
            "labels": {
                LABEL_AGENT: self.owner.agent,
                LABEL_WORKER: self.owner.worker.to_string(),
            },
            "entrypoint": ["node"],
            "command": self.command(),
            "user": USER,
            "hostname": "runtime",
            "work_dir": "/",
            // The host's environment and its proxies, which may hold a password, stay outside.
            "env_host": false,
            "httpproxy": false,
            "systemd": "false",
            "cap_drop": ["ALL"],
            "no_new_privileges": true,
            "privileged": false,
            "seccomp_profile_path": self.harness_dir.join(SECCOMP),
            "read_only_filesystem": true,
            "image_volume_mode": "ignore",
            "restart_policy": "no",
            "stop_timeout": 0,
            // Before anything of the host's own, if memory runs out.
            "oom_score_adj": 500,
            "shm_size": SHM_BYTES_MAX,
            "mounts": self.mounts(),
            "r_limits": self.rlimits(host),
            "log_configuration": {
                "driver": "k8s-file",
                "path": self.log_path,
                "size": LOG_BYTES_MAX,
            },
        });
        if !self.environment.is_empty() {
            let pairs = self.environment.iter();
            let pairs = pairs.map(|(name, value)| ((*name).to_owned(), value.clone().into()));
            body["env"] = Value::Object(pairs.collect());
        }
        if self.sandbox == Sandbox::Gvisor {
            // From 5.0 on Podman makes /dev read-only as well, and gVisor then lets
            // nobody write to /dev/null. What else this opens, `mounts` closes.
            body["read_write_tmpfs"] = true.into();
        }
        self.add_network(&mut body);
        self.add_user_namespace(&mut body, host);
        self.add_resource_limits(&mut body, host);
        body
    }

    /// V8's heap gets three quarters: buffers, code and stacks need the rest.
    fn command(&self) -> Vec<String> {
        let heap_mib = (self.memory_bytes >> 20) * 3 / 4;
        vec![
            format!("--max-old-space-size={}", heap_mib.max(32)),
            format!("{HARNESS_DIR}/{SCRIPT}"),
        ]
    }

    fn mounts(&self) -> Value {
        let sealed = ["ro", "rbind", "nosuid", "nodev", "noexec"];
        let mut mounts = vec![
            json!({"destination": HARNESS_DIR, "source": self.harness_dir, "type": "bind", "options": sealed}),
            json!({"destination": RUN_DIR, "source": self.run_dir, "type": "bind", "options": sealed}),
            json!({
                "destination": "/tmp", "source": "tmpfs", "type": "tmpfs",
                "options": [format!("size={TMP_BYTES_MAX}"), "mode=1777", "nosuid", "nodev", "noexec"],
            }),
        ];
        if self.sandbox == Sandbox::Gvisor {
            mounts.extend(["/run", "/var/tmp"].map(|path| {
                json!({
                    "destination": path, "source": "tmpfs", "type": "tmpfs",
                    "options": ["ro", "size=4k", "nosuid", "nodev", "noexec"],
                })
            }));
        }
        Value::Array(mounts)
    }

    fn rlimits(&self, host: &Host) -> Value {
        let limit = |kind: &str, max: u64| json!({"type": kind, "soft": max, "hard": max});
        let mut limits = vec![
            limit("NOFILE", OPEN_FILES_MAX),
            // A core would hold an app's secrets, and fill the disk.
            limit("CORE", 0),
        ];
        // Counted per user and user namespace, so it needs a namespace of its own.
        if !host.can("pids") && host.ids > 0 {
            limits.push(limit("NPROC", u64::from(self.pids)));
        }
        if !host.can("memory") {
            // Memory is watched from outside, and this is what one process may
            // take between two looks. Room for the stacks of threads is in it.
            limits.push(limit("DATA", 2 * self.memory_bytes + DATA_BYTES_SPARE));
        }
        Value::Array(limits)
    }

    fn add_network(&self, body: &mut Value) {
        match self.network {
            Network::None => body["netns"] = json!({"nsmode": "none"}),
            Network::Private | Network::Full => {
                body["netns"] = json!({"nsmode": "slirp4netns"});
                body["network_options"] =
                    json!({"slirp4netns": ["allow_host_loopback=false", "enable_ipv6=false"]});
            }
        }
    }

    /// A user namespace for each container, with the ids of the engine's own:
    /// another mapping would copy the image for each.
    fn add_user_namespace(&self, body: &mut Value, host: &Host) {
        if host.ids == 0 {
            return;
        }
        let map = json!([{"container_id": 0, "host_id": 0, "size": host.ids}]);
        body["userns"] = json!({"nsmode": "private"});
        body["idmappings"] = json!({
            "HostUIDMapping": false, "HostGIDMapping": false, "UIDMap": map, "GIDMap": map,
        });
    }

    fn add_resource_limits(&self, body: &mut Value, host: &Host) {
        let mut limits = json!({});
        if host.can("memory") {
            // No swap beside it, or the limit would only slow a hog down.
            limits["memory"] = json!({"limit": self.memory_bytes, "swap": self.memory_bytes});
        }
        if host.can("pids") {
            limits["pids"] = json!({"limit": self.pids});
        }
        if host.can("cpu") {
            limits["cpu"] = json!({
                "quota": u64::from(self.cpus) * CPU_PERIOD_US,
                "period": CPU_PERIOD_US,
            });
        }
        if limits != json!({}) {
            body["resource_limits"] = limits;
        }
    }
}

/// What Node must know to leave the host as the agent does. An agent's password
/// for its proxy is not an app's, so it stays here.
fn environment(network: Network, egress: &EgressConfig) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    if network == Network::None {
        return pairs;
    }
    let proxies = [
        ("HTTP_PROXY", &egress.http_proxy),
        ("HTTPS_PROXY", &egress.https_proxy),
    ];
    for (name, proxy) in proxies {
        if let Some(proxy) = proxy {
            pairs.push((name, without_password(proxy)));
        }
    }
    if !pairs.is_empty() {
        pairs.push(("NODE_USE_ENV_PROXY", "1".into()));
        if !egress.no_proxy.is_empty() {
            pairs.push(("NO_PROXY", egress.no_proxy.join(",")));
        }
    }
    if !egress.additional_root_cas.is_empty() {
        pairs.push(("NODE_EXTRA_CA_CERTS", format!("{HARNESS_DIR}/{ROOTS_NAME}")));
    }
    pairs
}

/// The script that Podman calls as its OCI runtime for gVisor. A user's cgroups
/// are not runsc's to make; `host` is the container's own network namespace,
/// where the policy is; and the harness's socket is the host's, mounted into it.
pub fn gvisor_wrapper(runsc: &std::path::Path) -> String {
    format!(
        "#!/bin/sh\nexec '{}' --ignore-cgroups --network=host --host-uds=open \"$@\"\n",
        runsc.display()
    )
}

fn without_password(proxy: &Url) -> String {
    let mut bare = proxy.clone();
    // Neither can fail: what has a host can have a user, and none.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORKS: [Network; 3] = [Network::None, Network::Private, Network::Full];

    fn spec(network: Network) -> Spec {
        Spec {
            name: "sluice-a-0-x".into(),
            image: "localhost/sluice-runtime:latest".into(),
            owner: Owner {
                agent: "agent-id".into(),
                worker: 3,
            },
            sandbox: Sandbox::Container,
            network,
            reach: Reach::default(),
            environment: Vec::new(),
            memory_bytes: 256 << 20,
            cpus: 2,
            pids: 64,
            harness_dir: "/m/harness".into(),
            run_dir: "/m/a/run".into(),
            log_path: "/m/a/log".into(),
        }
    }

    fn full_host() -> Host {
        Host {
            controllers: ["cpu", "memory", "pids"].map(String::from).to_vec(),
            ids: 65_537,
        }
    }

    #[test]
    fn every_container_is_sealed_on_every_host_and_network() {
        let cases = [
            (Host::default(), Sandbox::Container),
            (Host::default(), Sandbox::Gvisor),
            (full_host(), Sandbox::Container),
            (full_host(), Sandbox::Gvisor),
        ];
        for (host, sandbox) in cases {
            for network in NETWORKS {
                let body = Spec {
                    sandbox,
                    ..spec(network)
                }
                .to_json(&host);
                assert_eq!(body["no_new_privileges"], true);
                assert_eq!(body["cap_drop"], json!(["ALL"]));
                assert_eq!(body["read_only_filesystem"], true);
                assert_eq!(body["user"], "1000:1000");
                assert_eq!(
                    (&body["env_host"], &body["httpproxy"]),
                    (&json!(false), &json!(false))
                );
                assert_eq!(
                    body.get("env"),
                    None,
                    "nothing of ours is in the environment"
                );
                assert_eq!(body["seccomp_profile_path"], "/m/harness/seccomp.json");
                for mount in body["mounts"].as_array().expect("a list") {
                    let options = mount["options"].as_array().expect("a list");
                    let has = |option: &str| options.contains(&json!(option));
                    assert!(has("nosuid") && has("nodev") && has("noexec"), "{mount}");
                    assert!(has("ro") || mount["destination"] == "/tmp", "{mount}");
                }
            }
        }
    }

    #[test]
    fn limits_are_the_kernels_where_it_can_and_substitutes_where_not() {
        let body = spec(Network::None).to_json(&full_host());
        let limits = &body["resource_limits"];
        assert_eq!(
            limits["memory"],
            json!({"limit": 256 << 20, "swap": 256 << 20})
        );
        assert_eq!(limits["cpu"]["quota"], 200_000);
        assert_eq!(limits["pids"]["limit"], 64);
        assert!(!body["r_limits"].to_string().contains("NPROC"));
        assert!(!body["r_limits"].to_string().contains("DATA"));
        let old = Host {
            ids: 65_537,
            ..Host::default()
        };
        let body = spec(Network::None).to_json(&old);
        assert_eq!(body.get("resource_limits"), None);
        assert!(body["r_limits"].to_string().contains("NPROC"));
        assert!(body["r_limits"].to_string().contains("DATA"));
        assert_eq!(body["command"][0], "--max-old-space-size=192");
    }

    #[test]
    fn without_a_network_there_is_none_and_with_one_the_hosts_loopback_is_not_in_it() {
        let none = spec(Network::None).to_json(&Host::default());
        assert_eq!(none["netns"]["nsmode"], "none");
        let full = spec(Network::Full).to_json(&Host::default());
        assert!(
            full["network_options"]
                .to_string()
                .contains("allow_host_loopback=false")
        );
    }

    #[test]
    fn an_app_leaves_the_host_as_the_agent_does_but_without_its_password() {
        let egress = EgressConfig {
            http_proxy: Url::parse("http://user:secret@proxy:3128").ok(),
            https_proxy: None,
            no_proxy: vec!["a.b".into(), "10.0.0.0/8".into()],
            additional_root_cas: vec!["pem".into()],
        };
        assert_eq!(environment(Network::None, &egress), []);
        let pairs = environment(Network::Private, &egress);
        let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "HTTP_PROXY",
                "NODE_USE_ENV_PROXY",
                "NO_PROXY",
                "NODE_EXTRA_CA_CERTS"
            ]
        );
        let mut spec = spec(Network::Private);
        spec.environment = pairs;
        let env = spec.to_json(&full_host())["env"].take();
        assert_eq!(env["HTTP_PROXY"], "http://proxy:3128/");
        assert_eq!(env["NODE_EXTRA_CA_CERTS"], "/sluice/roots.pem");
        assert!(!env.to_string().contains("secret"), "{env}");
    }
}
