//! What bridge and workers are told: an environment of exactly what each
//! needs. Pure. Secrets travel in it and never on a command line, and a worker,
//! which is next to other people's code, is not told the pool's token.

use std::path::{Path, PathBuf};

use crate::agent::supervise::{Environment, Lifeline, Recipe};
use crate::config::AgentConfig;

/// Settings both are given as they are set.
const BOTH: &[&str] = &[
    "PATH",
    "HOME",
    "FLOWS_ADDITIONAL_ROOT_CAS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SLUICE_DISK_FREE_MB_MIN",
    "SLUICE_DRAIN_S",
    "SLUICE_LOG",
    "SLUICE_LOG_FORMAT",
];
const WORKER: &[&str] = &[
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "FLOWS_EXECUTOR",
    "FLOWS_POOL_SIZE",
    "FLOWS_PODMAN_MOUNTS_TEMPDIR",
    "FLOWS_RUNTIME_IMAGE",
    "FLOWS_RUNTIME_SANDBOX",
    "SLUICE_SLOTS",
    "SLUICE_RUNTIMES_MAX",
    "SLUICE_RUNTIME_MEMORY_MB",
    "SLUICE_RUNTIME_CPUS",
    "SLUICE_RUNTIME_PIDS",
    "SLUICE_RUNTIME_IDLE_S",
    "SLUICE_RUNTIME_PAUSE_S",
    "SLUICE_RUNTIME_AGE_S",
    "SLUICE_RUNTIME_NETWORK",
    "SLUICE_RUNTIME_NETWORK_ALLOW",
    "SLUICE_RUNTIME_NETWORK_DENY",
];

/// Where broker and Podman are.
#[derive(Debug, Clone)]
pub struct Services {
    pub amqp_url: String,
    pub podman_url: String,
}

pub fn bridge(exe: &Path, config: &AgentConfig, services: &Services) -> Recipe {
    let mut pairs = chosen(config, &[BOTH]);
    pairs.extend(owned([
        ("FLOWS_GATEWAY_ENDPOINT", config.gateway.as_str()),
        ("FLOWS_AGENT_POOL_ID", &config.pool_id),
        ("FLOWS_AGENT_POOL_TOKEN", &config.pool_token),
        ("AMQP_URL", &services.amqp_url),
    ]));
    role(exe, "bridge", "bridge".into(), config, pairs)
}

pub fn worker(exe: &Path, config: &AgentConfig, services: &Services, number: u32) -> Recipe {
    let mut pairs = chosen(config, &[BOTH, WORKER]);
    pairs.extend(owned([
        ("FLOWS_ENDPOINT", config.endpoint.as_str()),
        ("FLOWS_AGENT_POOL_ID", &config.pool_id),
        ("AMQP_URL", &services.amqp_url),
        ("CONTAINER_HOST", &services.podman_url),
        ("SLUICE_WORKER_NUMBER", &number.to_string()),
    ]));
    role(exe, "worker", format!("worker-{number}"), config, pairs)
}

/// This program in another role, ended by the end of its standard input.
fn role(
    exe: &Path,
    role: &str,
    name: String,
    config: &AgentConfig,
    mut pairs: Vec<(String, String)>,
) -> Recipe {
    let data_dir = config.data_dir.display().to_string();
    pairs.extend(owned([
        ("SLUICE_DATA_DIR", data_dir.as_str()),
        ("SLUICE_PARENT_PIPE", "1"),
        // One executor thread does nearly all of the work, so what glibc would
        // keep apart for the threads beside it is memory without use.
        ("MALLOC_ARENA_MAX", "1"),
    ]));
    Recipe {
        name,
        program: PathBuf::from(exe),
        arguments: vec![role.into()],
        environment: Environment::Exactly(pairs),
        lifeline: Lifeline::Pipe,
        output: None,
        dir: None,
    }
}

fn chosen(config: &AgentConfig, lists: &[&[&str]]) -> Vec<(String, String)> {
    let wanted = |name: &str| lists.iter().any(|list| list.contains(&name));
    let set = config.set.iter().filter(|(name, _)| wanted(name));
    set.cloned().collect()
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> [(String, String); N] {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BridgeConfig, Reader, SETTINGS, WorkerConfig};

    const TOKEN: &str = "the-pool-token";

    // Every setting is set, so that one which leaks is seen.
    fn value(name: &str) -> Option<String> {
        let value = match name {
            "FLOWS_GATEWAY_ENDPOINT" => "ws://gateway:1",
            "FLOWS_ENDPOINT" => "http://gateway:2",
            "FLOWS_AGENT_POOL_TOKEN" => TOKEN,
            "FLOWS_EXECUTOR" => "podman",
            "FLOWS_RUNTIME_SANDBOX" => "gvisor",
            "HTTP_PROXY" | "HTTPS_PROXY" | "SLUICE_URL" => "http://proxy:3",
            "FLOWS_ADDITIONAL_ROOT_CAS" => return None,
            "SLUICE_RUNTIME_NETWORK" => "private",
            "SLUICE_RUNTIME_NETWORK_ALLOW" => "10.1.0.0/16:443",
            "SLUICE_RUNTIME_NETWORK_DENY" => "10.1.2.3",
            "SLUICE_SLOTS" => "17",
            "FLOWS_POOL_SIZE" | "SLUICE_WORKERS" => "2",
            "SLUICE_LOG" => "debug",
            "SLUICE_LOG_FORMAT" => "json",
            "AMQP_URL" => "amqp://as-given",
            "SLUICE_API_KEY" => "the-api-key",
            "SLUICE_AGENT_API_TOKEN" => "the-local-apis-token",
            "SLUICE_RUNTIME_PIDS" => "99",
            name if name.ends_with("_S") || name.ends_with("_MB") || name.ends_with("_MB_MIN") => {
                "33"
            }
            "SLUICE_RUNTIME_CPUS" | "SLUICE_RUNTIMES_MAX" | "SLUICE_WORKER_NUMBER" => "5",
            _ => "/some/where",
        };
        Some(value.to_owned())
    }

    fn config() -> AgentConfig {
        let mut reader = Reader::new(&value);
        let config = reader.agent();
        reader.finish(config).expect("all fits")
    }

    fn environment(recipe: &Recipe) -> Vec<(String, String)> {
        match &recipe.environment {
            Environment::Exactly(pairs) => pairs.clone(),
            Environment::Without(_) => panic!("{} is given everything", recipe.name),
        }
    }

    fn services() -> Services {
        Services {
            amqp_url: "amqp://private".into(),
            podman_url: "unix:///podman".into(),
        }
    }

    fn look_up(pairs: &[(String, String)], name: &str) -> Option<String> {
        let found: Vec<_> = pairs.iter().filter(|(key, _)| key == name).collect();
        assert!(found.len() <= 1, "{name} is given twice");
        found.first().map(|(_, value)| value.clone())
    }

    #[test]
    fn a_worker_is_not_told_the_token_and_nothing_secret_is_an_argument() {
        let worker = worker(Path::new("/sluice"), &config(), &services(), 3);
        let pairs = environment(&worker);
        assert!(
            pairs
                .iter()
                .all(|(_, value)| !value.contains(TOKEN) && !value.starts_with("the-"))
        );
        assert_eq!(worker.arguments, ["worker"]);
        let bridge = bridge(Path::new("/sluice"), &config(), &services());
        assert_eq!(bridge.arguments, ["bridge"]);
        assert!(
            environment(&bridge)
                .iter()
                .all(|(_, value)| value != "the-api-key")
        );
    }

    #[test]
    fn the_children_understand_what_they_are_told() {
        let pairs = environment(&bridge(Path::new("/sluice"), &config(), &services()));
        let look = |name: &str| look_up(&pairs, name);
        let mut reader = Reader::new(&look);
        let bridge: BridgeConfig = reader.bridge();
        let bridge = reader.finish(bridge).expect("complete");
        assert_eq!(
            (bridge.amqp_url.as_str(), bridge.pool_token.as_str()),
            ("amqp://private", TOKEN)
        );
        assert_eq!(bridge.disk_free_bytes_min, 33 * 1024 * 1024);
        assert_eq!(bridge.drain.as_secs(), 33);

        let pairs = environment(&worker(Path::new("/sluice"), &config(), &services(), 3));
        let look = |name: &str| look_up(&pairs, name);
        let mut reader = Reader::new(&look);
        let worker: WorkerConfig = reader.worker();
        assert!(reader.parent_pipe());
        let worker = reader.finish(worker).expect("complete");
        assert_eq!((worker.number, worker.slots), (3, 17));
        assert_eq!(worker.runtime.podman_url, "unix:///podman");
        assert_eq!(worker.runtime.pids, 99);
        assert_eq!(
            worker.egress.http_proxy.map(String::from).as_deref(),
            Some("http://proxy:3/")
        );
    }

    #[test]
    fn the_lists_name_settings_that_exist() {
        for name in [BOTH, WORKER].concat() {
            assert!(
                SETTINGS.iter().any(|setting| setting.name == name),
                "{name}"
            );
        }
    }
}
