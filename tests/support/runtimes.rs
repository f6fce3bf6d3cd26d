//! Pools of runtimes on a Podman service of the test's own.

use std::future::ready;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_std::task;
use serde_json::{Value, json};
use sluice::config::{EgressConfig, Network, RUNTIME_IMAGE_DEFAULT, Reach, RuntimeConfig, Sandbox};
use sluice::runtime::Owner;
use sluice::runtime::invocation::{Ended, Invocation, Running, Said};
use sluice::runtime::pool::{Lease, Pool};
use sluice::runtime::sandbox::gvisor_wrapper;
use sluice::shutdown::{Shutdown, Tasks};
use sluice_proto::harness::Answer;
use sluice_proto::ids::Digest;
use sluice_proto::job::{Identity, Kind};
use sluice_proto::report::{Cause, Failure};

const PATIENCE: Duration = Duration::from_secs(30);

/// A Podman service of the test's own, and a scratch directory.
pub struct Engine {
    pub dir: tempfile::TempDir,
    pub service: Child,
    pub sandbox: Sandbox,
}

impl Engine {
    pub async fn start() -> Self {
        Self::of(Sandbox::Container).await
    }

    pub async fn of(sandbox: Sandbox) -> Self {
        assert!(
            !nix::unistd::Uid::effective().is_root(),
            "this test needs rootless Podman: run it as an ordinary user, as `make test` does"
        );
        let dir = tempfile::Builder::new()
            .prefix("sluice-r-")
            .tempdir()
            .expect("a scratch directory");
        let service = serve(dir.path(), sandbox).await;
        Self {
            dir,
            service,
            sandbox,
        }
    }

    pub fn config(&self) -> RuntimeConfig {
        RuntimeConfig {
            image: RUNTIME_IMAGE_DEFAULT.into(),
            podman_url: format!("unix://{}", socket(self.dir.path()).display()),
            mounts_dir: self.dir.path().join("runtimes"),
            runtimes_max: 4,
            stems: 0,
            memory_bytes: 256 << 20,
            cpus: 1,
            pids: 64,
            idle: Duration::from_secs(600),
            pause: Duration::from_secs(600),
            age: Duration::from_secs(3_600),
            sandbox: self.sandbox,
            network: Network::None,
            reach: Reach::default(),
            egress: EgressConfig::default(),
        }
    }

    pub fn owner(&self) -> Owner {
        let name = self.dir.path().file_name().expect("a name");
        Owner {
            agent: name.to_string_lossy().into_owned(),
            worker: 0,
        }
    }

    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=io.sluice.agent={}", self.owner().agent);
        let output = Command::new("podman")
            .args(["ps", "--all", "--quiet", "--filter", &filter])
            .output()
            .expect("podman runs");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let left = self.containers();
        if !left.is_empty() {
            // A failed test must not be in the way of the next.
            let _ = Command::new("podman")
                .args(["rm", "--force", "--time", "0"])
                .args(&left)
                .output();
        }
        let _ = self.service.kill();
        let _ = self.service.wait();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "containers are left: {left:?}");
        }
    }
}

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("podman.sock")
}

pub async fn serve(dir: &Path, sandbox: Sandbox) -> Child {
    let mut command = Command::new("podman");
    if let Some(runtime) = oci(dir, sandbox) {
        command.arg("--runtime").arg(runtime);
    }
    let service = command
        .args(["system", "service", "--time=0"])
        .arg(format!("unix://{}", socket(dir).display()))
        .stderr(Stdio::null())
        .spawn()
        .expect("podman runs");
    until("Podman's socket", || socket(dir).exists()).await;
    service
}

/// The OCI runtime: runc or Podman's default, or a script around runsc.
fn oci(dir: &Path, sandbox: Sandbox) -> Option<PathBuf> {
    let find = |name: &str| {
        let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
        let mut files = places.iter().map(|place| Path::new(place).join(name));
        files.find(|file| file.exists())
    };
    if sandbox == Sandbox::Container {
        return find("runc");
    }
    let wrapper = dir.join("runsc-sluice");
    let runsc = find("runsc").expect("runsc is installed");
    std::fs::write(&wrapper, gvisor_wrapper(&runsc)).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&wrapper, mode).expect("it is ours");
    Some(wrapper)
}

pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        task::sleep(Duration::from_millis(10)).await;
    }
}

/// A pool with the tasks that it needs.
pub struct House {
    pub pool: Pool,
    pub tasks: Tasks,
}

impl House {
    pub async fn start(config: RuntimeConfig, owner: Owner) -> Self {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new("test", shutdown.clone());
        let pool = Pool::start(config, owner, &shutdown, &tasks)
            .await
            .expect("a pool");
        Self { pool, tasks }
    }

    pub async fn claim(&self, identity: &Identity, bundle: &str) -> Result<Lease, Failure> {
        self.pool
            .claim(identity, ready(Ok(bundle.as_bytes().to_vec())))
            .await
    }

    /// Tries again while Podman is too busy to answer in time, as a worker does.
    pub async fn flow(&self, name: &str) -> Lease {
        let begun = Instant::now();
        loop {
            match self.claim(&flow(name), "").await {
                Err(failure)
                    if failure.cause == Cause::RuntimeUnavailable && begun.elapsed() < PATIENCE =>
                {
                    task::sleep(Duration::from_millis(100)).await;
                }
                claimed => return claimed.expect("a runtime"),
            }
        }
    }

    /// Claims a flow's runtime and evaluates one expression in it.
    pub async fn evaluate(&self, name: &str, expression: &str, timeout_ms: u64) -> Ended {
        let lease = self.flow(name).await;
        end(start(&lease, expression, timeout_ms).await).await
    }

    pub async fn stop(self) {
        self.pool.shutdown().await;
        self.tasks.join().await;
    }
}

pub fn flow(name: &str) -> Identity {
    Identity::Flow { flow: name.into() }
}

pub fn app(name: &str) -> Identity {
    Identity::App {
        installation: name.into(),
        bundle: Digest::from("a".repeat(64)),
    }
}

pub async fn start(lease: &Lease, expression: &str, timeout_ms: u64) -> Running {
    let payload = json!({"expressions": {"value": expression}, "scope": {}});
    let invocation = Invocation {
        kind: Kind::Evaluate,
        payload: payload.to_string().into_bytes(),
        timeout: Duration::from_millis(timeout_ms),
        log_bytes_max: 64 * 1024,
    };
    lease.invoke(invocation).await.expect("it is sent")
}

pub async fn end(mut running: Running) -> Ended {
    loop {
        match running.next().await {
            Said::Ended(ended) => return ended,
            Said::Call { call, .. } => running.answer(
                call,
                Answer::Value {
                    json: b"null".into(),
                },
            ),
            Said::Log { .. } => {}
        }
    }
}

pub fn value(ended: &Ended) -> Value {
    let result = ended.result.as_ref().expect("it succeeded");
    serde_json::from_slice::<Value>(result).expect("JSON")["value"].take()
}

pub fn cause(ended: &Ended) -> Cause {
    ended.result.as_ref().expect_err("it failed").cause
}
