//! The files of runtimes.
//!
//! ```text
//! MOUNTS_DIR/
//!   harness-HASH/        our JavaScript, read-only, shared: mounted at /sluice
//!   AGENT-N/             one worker's, readable by its user alone
//!     host.json          what the host can enforce, for the worker that follows a killed one
//!     RANDOM/
//!       first            the container's first process, to be ended without Podman
//!       log              the container's standard error, bounded
//!       run/             mounted read-only at /sluice/run
//!         harness.sock
//!         app.mjs        written when the runtime gets its identity
//! ```
//!
//! Node runs under another user id than the worker (a subordinate one), so what
//! it uses is open to all, below a directory that only the worker's user can enter.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_std::os::unix::net::UnixListener;
use sha2::{Digest, Sha256};

use sluice_proto::harness::SOCKET_NAME;

use crate::process::{self, Process};
use crate::runtime::sandbox::Host;
use crate::runtime::{Error, Owner};
use crate::shutdown::unblock;

/// The bundle's name in the runtime's directory.
pub(super) const BUNDLE_NAME: &str = "app.mjs";

/// What is known of the host, in a worker's directory.
const HOST_NAME: &str = "host.json";

/// Who the container's first process is, in a runtime's directory.
const FIRST_NAME: &str = "first";

/// Certificate authorities for apps, below the harness directory; there if the agent has some.
pub(super) const ROOTS_NAME: &str = "roots.pem";

/// The files of one runtime.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) run: PathBuf,
    pub(super) log: PathBuf,
}

/// Writes the harness below `mounts_dir`, once per content, and says where.
/// `roots` are certificates that apps trust beside Node's own.
pub(super) async fn write_harness(
    mounts_dir: &Path,
    mut files: Vec<(String, Cow<'static, str>)>,
    roots: &[String],
) -> Result<PathBuf, Error> {
    let roots = roots.join("\n");
    let mounts_dir = mounts_dir.to_owned();
    unblock(move || {
        if !roots.is_empty() {
            files.push((ROOTS_NAME.to_owned(), roots.into()));
        }
        let mut hash = Sha256::new();
        for (name, text) in &files {
            hash.update(format!("{name} {}\n", text.len()));
            hash.update(text.as_bytes());
        }
        let hash = format!("{:x}", hash.finalize());
        let path = mounts_dir.join(format!("harness-{}", &hash[..16]));
        if path.exists() {
            return Ok(path);
        }
        make_harness(&mounts_dir, &path, &files)
            .map(|()| path.clone())
            .map_err(|source| {
                files_error(
                    "the harness could not be written below",
                    &mounts_dir,
                    source,
                )
            })
    })
    .await
}

/// Where everything of one worker lies.
pub(super) fn of_owner(mounts_dir: &Path, owner: &Owner) -> PathBuf {
    mounts_dir.join(format!("{}-{}", owner.agent_short(), owner.worker))
}

/// What the host can enforce, as long as it is not booted again.
#[derive(serde::Serialize, serde::Deserialize)]
struct Known {
    boot: String,
    host: Host,
}

/// Keeps what is known of the host beside the runtimes, for the worker that
/// follows if this one is killed. An orderly end deletes it with the rest.
pub(super) async fn remember_host(owner_dir: &Path, host: &Host) {
    let (owner_dir, host) = (owner_dir.to_owned(), host.clone());
    let written = unblock(move || {
        let boot = process::boot().unwrap_or_default();
        private(&owner_dir)?;
        let text = serde_json::to_vec(&Known { boot, host })?;
        fs::write(owner_dir.join(HOST_NAME), text)
    });
    if let Err(error) = written.await {
        tracing::debug!(%error, "What the host can enforce could not be kept");
    }
}

pub(super) async fn recall_host(owner_dir: &Path) -> Option<Host> {
    let path = owner_dir.join(HOST_NAME);
    unblock(move || {
        let known: Known = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (Some(known.boot) == process::boot()).then_some(known.host)
    })
    .await
}

/// Writes down who a container's first process is, before anybody talks to it;
/// none if it is not visible from here.
pub(super) async fn write_first(directory: &Path, pid: Option<i32>) -> Result<(), Error> {
    let path = directory.join(FIRST_NAME);
    unblock(move || {
        let written = serde_json::to_vec(&pid.and_then(Process::of))
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&path, text));
        written.map_err(|source| files_error("a runtime could not be noted at", &path, source))
    })
    .await
}

/// The first processes of all containers that had one written down; none where
/// it was not visible.
pub(super) async fn firsts(owner_dir: &Path) -> Vec<(PathBuf, Option<Process>)> {
    let owner_dir = owner_dir.to_owned();
    unblock(move || {
        let entries = fs::read_dir(owner_dir).into_iter().flatten().flatten();
        let read = entries.filter_map(|entry| {
            let text = fs::read(entry.path().join(FIRST_NAME)).ok()?;
            // What was cut short by a full disk tells nobody.
            let first = serde_json::from_slice(&text).unwrap_or(None);
            Some((entry.path(), first))
        });
        read.collect()
    })
    .await
}

/// Makes a runtime's directory and listens on its socket.
pub(super) async fn create(
    owner_dir: &Path,
    name: &str,
) -> Result<(Directory, UnixListener), Error> {
    let path = owner_dir.join(name);
    unblock(move || {
        let directory = Directory {
            run: path.join("run"),
            log: path.join("log"),
            path,
        };
        match listen(&directory) {
            Ok(listener) => Ok((directory, listener.into())),
            Err(source) => Err(files_error(
                "a runtime's directory could not be made at",
                &directory.path,
                source,
            )),
        }
    })
    .await
}

/// Puts the bundle where the runtime finds it.
pub(super) async fn write_bundle(run: &Path, text: Vec<u8>) -> Result<(), Error> {
    let path = run.join(BUNDLE_NAME);
    unblock(move || {
        let written = fs::write(&path, text).and_then(|()| permit(&path, 0o444));
        written.map_err(|source| files_error("the bundle could not be written to", &path, source))
    })
    .await
}

/// Deletes a tree; one that is not there is deleted already.
pub(super) async fn delete(path: &Path) {
    let path = path.to_owned();
    unblock(move || match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "A runtime's directory could not be deleted");
        }
        _ => {}
    })
    .await;
}

/// The end of a file, at most `bytes_max` of it; empty if it cannot be read.
pub(super) async fn tail(path: &Path, bytes_max: usize) -> String {
    let path = path.to_owned();
    unblock(move || {
        let bytes = fs::read(&path).unwrap_or_default();
        let start = bytes.len().saturating_sub(bytes_max);
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    })
    .await
}

fn make_harness(
    mounts_dir: &Path,
    path: &Path,
    files: &[(String, Cow<'static, str>)],
) -> io::Result<()> {
    fs::create_dir_all(mounts_dir)?;
    // Made aside and renamed, as several workers may do this at once.
    let aside = tempfile::Builder::new()
        .prefix(".harness-")
        .tempdir_in(mounts_dir)?;
    for (name, text) in files {
        let file = aside.path().join(name);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, text.as_bytes())?;
        permit(&file, 0o444)?;
    }
    // The mount point of each runtime's own directory.
    fs::create_dir_all(aside.path().join("run"))?;
    open_directories(aside.path())?;
    let aside = aside.keep();
    match fs::rename(&aside, path) {
        Err(_) if path.exists() => fs::remove_dir_all(&aside),
        renamed => renamed,
    }
}

fn open_directories(path: &Path) -> io::Result<()> {
    permit(path, 0o755)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_directories(&entry.path())?;
        }
    }
    Ok(())
}

fn listen(directory: &Directory) -> io::Result<std::os::unix::net::UnixListener> {
    let owner_dir = directory.path.parent().unwrap_or(&directory.path);
    private(owner_dir)?;
    fs::create_dir(&directory.path)?;
    fs::create_dir(&directory.run)?;
    permit(&directory.run, 0o755)?;
    // A socket's address holds 107 bytes and data directories can be deep, so
    // it is bound through the open directory.
    let open = fs::File::open(&directory.run)?;
    let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", open.as_raw_fd());
    let listener = std::os::unix::net::UnixListener::bind(short)?;
    permit(&directory.run.join(SOCKET_NAME), 0o666)?;
    Ok(listener)
}

fn private(owner_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(owner_dir)?;
    permit(owner_dir, 0o700)
}

fn permit(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn files_error(what: &str, path: &Path, source: io::Error) -> Error {
    Error::Files {
        what: format!("{what} {}", path.display()),
        source,
    }
}
