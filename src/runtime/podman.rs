//! The engine: Podman's service on a unix socket, versions 4.3 to 5.x.
//!
//! Owns every call, each with its own time-out. podman-api carries the plain
//! ones, inside async-compat because it stands on tokio. Where it says too
//! little (`create`, the exit code of `wait`) or types an answer that changed
//! between Podman 4 and 5 (`inspect`, `info`, `list`), raw JSON goes over the same socket.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_compat::CompatExt;
use async_std::future::timeout;
use futures::StreamExt;
use isahc::config::Configurable;
use isahc::http::{Method, Request};
use isahc::net::Dialer;
use isahc::{AsyncReadResponseExt, HttpClient};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podman_api::opts::{ContainerDeleteOpts, PullOpts};
use serde_json::Value;
use url::form_urlencoded;

use crate::backoff::{Backoff, jitter};
use crate::config::{RuntimeConfig, Sandbox};
use crate::runtime::death::Exit;
use crate::runtime::sandbox::{Host, LABEL_AGENT, LABEL_WORKER, Spec};
use crate::runtime::{Error, Owner, Runtime};

/// The oldest API that 4.3 and 5.x both serve.
const API: &str = "http://podman/v4.0.0/libpod";

// Measured: create 8 to 40 ms, start 50 ms, remove 40 to 120 ms, all of it more
// when Podman's lock is contended; the limits are for one that hangs.
const PING_MAX: Duration = Duration::from_secs(3);
const INFO_MAX: Duration = Duration::from_secs(10);
const CREATE_MAX: Duration = Duration::from_secs(20);
const START_MAX: Duration = Duration::from_secs(20);
const INSPECT_MAX: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_secs(20);
const REMOVE_MAX: Duration = Duration::from_secs(30);
const LIST_MAX: Duration = Duration::from_secs(10);
const PULL_MAX: Duration = Duration::from_secs(600);

/// The largest answer read, in bytes: a list of a thousand containers has about one million.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How often a call that may succeed next time is made.
const TRIES: u32 = 3;
const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

#[derive(Debug, Clone)]
pub struct Podman {
    api: podman_api::Podman,
    raw: HttpClient,
    socket: PathBuf,
    sandbox: Sandbox,
}

// === impl Podman ===

impl Podman {
    /// Nothing is connected yet.
    pub fn new(config: &RuntimeConfig) -> Result<Self, Error> {
        let socket = config.podman_url.strip_prefix("unix://").ok_or_else(|| {
            Error::Settings(format!(
                "CONTAINER_HOST is `{}`: write unix:// and the path of Podman's socket",
                config.podman_url
            ))
        })?;
        let raw = HttpClient::builder()
            .dial(Dialer::unix_socket(socket))
            // A connection of before a restart of the service is of no use.
            .max_connections(8)
            .build()
            .map_err(|error| Error::Settings(format!("no HTTP client can be made: {error}")))?;
        Ok(Self {
            api: podman_api::Podman::unix(socket),
            raw,
            socket: PathBuf::from(socket),
            sandbox: config.sandbox,
        })
    }

    /// Lets a container go on. gVisor ends one by asking it, and a paused one
    /// hears nothing: removing it would wait for ever.
    async fn wake(&self, name: &str) {
        let Ok(state) = self.state(name).await else {
            return;
        };
        let pid = state["Pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.filter(|pid| *pid > 0) {
            // One that is gone needs no waking.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }

    /// One call through podman-api.
    async fn call<T>(
        &self,
        what: &'static str,
        limit: Duration,
        call: impl Future<Output = podman_api::Result<T>>,
    ) -> Result<T, Error> {
        match timeout(limit, call.compat()).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.api_error(what, &error)),
            Err(_) => Err(too_slow(what, limit)),
        }
    }

    /// One call in raw JSON; the answer's status is good.
    async fn raw(
        &self,
        what: &'static str,
        limit: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{API}{path}"))
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| engine(what, error.to_string(), false))?;
        let exchange = async {
            let mut response = self.raw.send_async(request).await?;
            let length = response.body().len().unwrap_or_default();
            if length > ANSWER_BYTES_MAX {
                return Ok((response.status().as_u16(), Vec::new()));
            }
            let bytes = response.bytes().await?;
            Ok::<_, isahc::Error>((response.status().as_u16(), bytes))
        };
        let (status, bytes) = timeout(limit, exchange)
            .await
            .map_err(|_| too_slow(what, limit))?
            .map_err(|error| self.unreachable(what, &error.to_string()))?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status < 300 {
            return Ok(value);
        }
        let said = value["message"].as_str().unwrap_or("no reason given");
        Err(fault(what, status, said))
    }

    async fn create(&self, spec: &Spec, host: &Host) -> Result<(), Error> {
        let body = spec.to_json(host);
        self.raw(
            "create a container",
            CREATE_MAX,
            Method::POST,
            "/containers/create",
            Some(&body),
        )
        .await
        .map(drop)
    }

    async fn state(&self, name: &str) -> Result<Value, Error> {
        let path = format!("/containers/{name}/json");
        let mut inspected = self
            .raw("inspect a container", INSPECT_MAX, Method::GET, &path, None)
            .await?;
        Ok(inspected["State"].take())
    }

    async fn try_start(&self, spec: &Spec, host: &Host) -> Result<(), Error> {
        let begun = Instant::now();
        self.create(spec, host).await?;
        let created = begun.elapsed();
        let container = self.api.containers().get(&spec.name);
        self.call("start a container", START_MAX, container.start(None))
            .await?;
        let create_us = created.as_micros() as u64;
        let start_us = (begun.elapsed() - created).as_micros() as u64;
        tracing::debug!(container = %spec.name, create_us, start_us, "A container runs");
        Ok(())
    }

    async fn pull(&self, image: &str) -> Result<(), Error> {
        tracing::info!(image, "Pulling the runtime image");
        let opts = PullOpts::builder().reference(image).build();
        let images = self.api.images();
        let pulling = async {
            let mut reports = images.pull(&opts);
            while let Some(report) = reports.next().await {
                if let Some(error) = report?.error {
                    return Err(podman_api::Error::InvalidResponse(error));
                }
            }
            Ok(())
        };
        self.call("pull the runtime image", PULL_MAX, pulling)
            .await
            .map_err(|error| {
                Error::ImageMissing(format!("the runtime image {image} is missing, and {error}"))
            })
    }

    fn api_error(&self, what: &'static str, error: &podman_api::Error) -> Error {
        match error {
            podman_api::Error::Fault { code, message } => fault(what, code.as_u16(), message),
            podman_api::Error::Error(_) | podman_api::Error::IO(_) => {
                self.unreachable(what, &error.to_string())
            }
            other => engine(what, other.to_string(), false),
        }
    }

    fn unreachable(&self, what: &'static str, why: &str) -> Error {
        let socket = self.socket.display();
        Error::Away {
            what,
            message: format!("its socket {socket} does not answer: {why}"),
        }
    }
}

impl Runtime for Podman {
    async fn ready(&self, image: &str) -> Result<(), Error> {
        self.call("be reached", PING_MAX, self.api.ping()).await?;
        let images = self.api.images();
        let present = images.get(image);
        let present = self
            .call("look for the runtime image", INFO_MAX, present.exists())
            .await?;
        if !present {
            if image.starts_with("localhost/") {
                return Err(Error::ImageMissing(format!(
                    "the runtime image {image} is missing: build it with compose/runtime-image.sh, or set FLOWS_RUNTIME_IMAGE to a public Node image"
                )));
            }
            self.pull(image).await?;
        }
        Ok(())
    }

    async fn host(&self) -> Result<Host, Error> {
        let info = self
            .raw("describe its host", INFO_MAX, Method::GET, "/info", None)
            .await?;
        Ok(read_host(&info))
    }

    async fn start(&self, spec: &Spec, host: &Host) -> Result<(), Error> {
        let mut attempt = 0;
        loop {
            match self.try_start(spec, host).await {
                Err(error) if error.is_transient() && attempt + 1 < TRIES => {
                    tracing::debug!(container = %spec.name, %error, "Starting a runtime is tried again");
                    // Half of it may be there, and the name with it.
                    self.remove(&spec.name).await?;
                    async_std::task::sleep(RETRY.delay(attempt, jitter())).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn process(&self, name: &str) -> Result<Option<i32>, Error> {
        let state = self.state(name).await?;
        let pid = state["Pid"].as_i64();
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        // A worker in a container of its own does not see the processes of others.
        Ok(pid.filter(|pid| *pid > 0 && std::path::Path::new(&format!("/proc/{pid}")).exists()))
    }

    async fn wait(&self, name: &str) -> Result<Exit, Error> {
        // Both words, because a container that is through with its clean-up is no longer `stopped`.
        let path =
            format!("/containers/{name}/wait?condition=stopped&condition=exited&interval=20ms");
        let code = self
            .raw("wait for a container", WAIT_MAX, Method::POST, &path, None)
            .await?
            .as_i64();
        let state = self.state(name).await?;
        Ok(Exit {
            code,
            oom_killed: state["OOMKilled"].as_bool().unwrap_or(false),
            log_tail: String::new(),
        })
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        if self.sandbox == Sandbox::Gvisor {
            self.wake(name).await;
        }
        let opts = ContainerDeleteOpts::builder()
            .force(true)
            .timeout(0)
            .volumes(true)
            .build();
        let mut attempt = 0;
        loop {
            let container = self.api.containers().get(name);
            let deleted = self
                .call("remove a container", REMOVE_MAX, container.delete(&opts))
                .await;
            match deleted {
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) if error.is_transient() && attempt + 1 < TRIES => {
                    async_std::task::sleep(RETRY.delay(attempt, jitter())).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn list(&self, owner: &Owner) -> Result<Vec<String>, Error> {
        let labels = [
            format!("{LABEL_AGENT}={}", owner.agent),
            format!("{LABEL_WORKER}={}", owner.worker),
        ];
        let filters = serde_json::json!({ "label": labels }).to_string();
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("all", "true")
            .append_pair("filters", &filters)
            .finish();
        let path = format!("/containers/json?{query}");
        let listed = self
            .raw("list containers", LIST_MAX, Method::GET, &path, None)
            .await?;
        let name = |container: &Value| container["Names"][0].as_str().map(str::to_owned);
        Ok(listed
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(name)
            .collect())
    }
}

/// Reads libpod's `info`.
fn read_host(info: &Value) -> Host {
    let host = &info["host"];
    let controllers = match host["cgroupVersion"].as_str() {
        Some("v2") => host["cgroupControllers"].as_array(),
        _ => None,
    };
    let sizes = host["idMappings"]["uidmap"].as_array();
    Host {
        controllers: controllers
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
        ids: sizes
            .into_iter()
            .flatten()
            .filter_map(|range| range["size"].as_u64())
            .sum(),
    }
}

fn fault(what: &'static str, status: u16, said: &str) -> Error {
    // 409 is another operation in progress on the same container.
    engine(
        what,
        format!("{said} (status {status})"),
        status >= 500 || status == 409,
    )
}

fn engine(what: &'static str, message: String, transient: bool) -> Error {
    Error::Engine {
        what,
        message,
        transient,
    }
}

fn too_slow(what: &'static str, limit: Duration) -> Error {
    engine(
        what,
        format!("it did not answer within {} s", limit.as_secs()),
        true,
    )
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Engine { message, .. } if message.ends_with("(status 404)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_trusted_on_cgroup_v2_alone() {
        let info = |version: &str| {
            read_host(&serde_json::json!({"host": {
                "cgroupVersion": version, "cgroupControllers": ["memory", "pids"],
                "idMappings": {"uidmap": [{"size": 1}, {"size": 65536}]},
            }}))
        };
        assert_eq!(info("v2").controllers, ["memory", "pids"]);
        assert_eq!(info("v2").lacks(), ["cpu"]);
        assert_eq!(info("v1").lacks().len(), 3);
        assert_eq!(info("v1").ids, 65_537);
    }
}
