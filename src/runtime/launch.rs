//! One container from nothing to a sealed Hello, and back to nothing.

use std::path::Path;
use std::time::Duration;

use async_std::future::timeout;
use async_std::os::unix::net::UnixListener;
use futures::FutureExt;

use crate::config::{Network, Sandbox};
use crate::runtime::death::Exit;
use crate::runtime::directory::{self, Directory};
use crate::runtime::harness::Greeted;
use crate::runtime::harness::greet::greet;
use crate::runtime::sandbox::{Host, Spec};
use crate::runtime::{Error, Runtime, network, processors};
use crate::shutdown::unblock;

/// How long Node may take to connect: it needs 100 ms, and 50 times that on a host out of CPU.
const HELLO_MAX: Duration = Duration::from_secs(15);

/// After this long without a Hello, the container is looked at: it may be gone.
const HELLO_SUSPICIOUS: Duration = Duration::from_secs(1);

/// Starts a container, waits for its Hello, applies its network policy and binds it to
/// `processors`, if given. What is there after an error is the caller's to discard.
pub(super) async fn launch<R: Runtime>(
    runtime: &R,
    spec: &Spec,
    host: &Host,
    listener: &UnixListener,
    directory: &Directory,
    processors: Option<Vec<usize>>,
) -> Result<(Greeted, Option<i32>), Error> {
    runtime.start(spec, host).await?;
    // Node boots while Podman is asked for its process and the policy is
    // applied; no user code is there before the Load.
    let closed = async {
        let pid = runtime.process(&spec.name).await?;
        directory::write_first(&directory.path, pid).await?;
        if let Some(pid) = pid {
            let sandbox = spec.sandbox;
            unblock(move || apart(pid, sandbox)).await?;
        }
        apply_policy(spec, pid).await?;
        Ok(pid)
    };
    let (greeted, pid) = futures::try_join!(greeted(runtime, spec, listener, directory), closed)?;
    if let (Some(pid), Some(processors)) = (pid, processors) {
        // Only now: until here every thread of it is ours, and it boots faster on all.
        unblock(move || processors::bind(pid, &processors)).await?;
    }
    Ok((greeted, pid))
}

async fn greeted<R: Runtime>(
    runtime: &R,
    spec: &Spec,
    listener: &UnixListener,
    directory: &Directory,
) -> Result<Greeted, Error> {
    let greeting = timeout(HELLO_MAX, greet(listener, spec.sandbox)).fuse();
    let ending = async {
        async_std::task::sleep(HELLO_SUSPICIOUS).await;
        match runtime.wait(&spec.name).await {
            Ok(exit) => exit,
            // Whether it lives is not known, so the greeting's own limit decides.
            Err(_) => futures::future::pending().await,
        }
    }
    .fuse();
    futures::pin_mut!(greeting, ending);
    // Whichever comes first decides; the other has nothing to lose.
    futures::select! {
        greeted = greeting => greeted.map_err(|_| {
            let limit = HELLO_MAX.as_secs();
            Error::Handshake(format!("Node did not connect within {limit} s"))
        })?,
        exit = ending => Err(died_early(&exit, directory).await),
    }
}

/// What only this side can see: that the container has a network namespace of
/// its own, and, for gVisor, that the process which is its kernel is filtered.
fn apart(pid: i32, sandbox: Sandbox) -> Result<(), Error> {
    let namespace = |of: &str| {
        std::fs::read_link(format!("/proc/{of}/ns/net"))
            .map_err(|error| Error::NotSealed(format!("its network namespace is unknown: {error}")))
    };
    if namespace(&pid.to_string())? == namespace("self")? {
        return Err(Error::NotSealed(
            "it is in this host's network namespace".into(),
        ));
    }
    if sandbox == Sandbox::Gvisor {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let filtered = status.lines().any(|line| line == "Seccomp:\t2");
        let bound = status.lines().any(|line| line == "NoNewPrivs:\t1");
        if !filtered || !bound {
            return Err(Error::NotSealed(
                "gVisor's own process has no filter on".into(),
            ));
        }
    }
    Ok(())
}

async fn apply_policy(spec: &Spec, pid: Option<i32>) -> Result<(), Error> {
    match (spec.network, pid) {
        (Network::None, _) => Ok(()),
        (network, Some(pid)) => network::apply(pid, network, &spec.reach).await,
        (_, None) => Err(Error::NotSealed(
            "its process is not visible to this worker, so its network cannot be closed".into(),
        )),
    }
}

async fn died_early(exit: &Exit, directory: &Directory) -> Error {
    let tail = directory::tail(&directory.log, 1_000).await;
    let code = exit.code.unwrap_or_default();
    Error::Handshake(format!(
        "its process ended with code {code} before it connected; it said: {}",
        tail.trim()
    ))
}

/// Kills and removes a container and deletes its directory, as far as that can be had.
pub(super) async fn discard<R: Runtime>(runtime: &R, name: &str, path: &Path) {
    if let Err(error) = runtime.remove(name).await {
        // The next look at Podman's list finds it.
        tracing::warn!(container = %name, %error, "A runtime could not be removed");
    }
    directory::delete(path).await;
}

/// Eight hexadecimal digits.
pub(super) fn random_name() -> String {
    let mut bytes = [0u8; 4];
    // Without a random source the clock is as good: names only need to differ.
    if getrandom::fill(&mut bytes).is_err() {
        let now = crate::telemetry::now_us().to_le_bytes();
        bytes.copy_from_slice(&now[..4]);
    }
    format!("{:08x}", u32::from_le_bytes(bytes))
}
