//! Closes what no runtime may reach: link-local and metadata addresses.
//!
//! The routes are put into the container's network namespace from outside, by
//! its user namespace's owner, before any user code is there. The container
//! has no capability to take them out again.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_process::Command;
use async_std::future::timeout;
use async_std::io::WriteExt;

use crate::runtime::Error;

/// How long `ip` may take; it needs a few milliseconds.
const ROUTES_MAX: Duration = Duration::from_secs(5);

/// Link-local, and where clouds that do not use it keep their metadata.
const CLOSED_V4: &[&str] = &[
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
];

/// The /64 beside the /10, because the interface's own route is as narrow.
const CLOSED_V6: &[&str] = &["fe80::/10", "fe80::/64", "fd00:ec2::254/128"];

/// Closes the routes of the container whose first process is `pid`.
pub(super) async fn close(pid: i32) -> Result<(), Error> {
    let v6 = async {
        if Path::new("/proc/sys/net/ipv6").exists() {
            add(pid, "-6", CLOSED_V6).await?;
        }
        Ok(())
    };
    futures::try_join!(add(pid, "-4", CLOSED_V4), v6).map(drop)
}

async fn add(pid: i32, family: &str, prefixes: &[&str]) -> Result<(), Error> {
    let lines: String = prefixes
        .iter()
        .map(|prefix| format!("route replace blackhole {prefix} metric 1\n"))
        .collect();
    timeout(ROUTES_MAX, run(pid, family, &lines))
        .await
        .map_err(|_| failed("`ip` did not end"))?
}

async fn run(pid: i32, family: &str, lines: &str) -> Result<(), Error> {
    let mut child = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--user", "--net"])
        .args(["--preserve-credentials", "ip", family, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&format!("nsenter (util-linux) did not start: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(lines.as_bytes())
            .await
            .map_err(|error| failed(&error.to_string()))?;
    }
    let output = child
        .output()
        .await
        .map_err(|error| failed(&error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim()))
}

fn failed(why: &str) -> Error {
    Error::NotSealed(format!(
        "link-local and metadata addresses could not be closed (nsenter and ip are needed): {why}"
    ))
}
