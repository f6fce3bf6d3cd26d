//! What an agent keeps in `DATA/agent`, and how a later start tells that an
//! earlier one has left something running.
//!
//! | file | holds |
//! |---|---|
//! | `id` | the installation's id, for life |
//! | `lock` | an advisory lock while an agent runs |
//! | `amqp-url`, `podman-url` | where broker and Podman are, while an agent runs |
//! | `agent.sock`, `api-url` | the local API and its address, while an agent runs |
//! | `paused` | the order to take no work, if there is one |
//! | `pool-id` | whose work it does |
//! | `oci` | which OCI runtime works here |
//! | `pids/NAME` | one running child: pid, start time, boot |
//! | `rabbitmq/` | the private node |

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::Process;

/// How long a child of an earlier agent may take to end after SIGTERM. RabbitMQ
/// needs about a second; a worker that cancels its jobs needs a few.
const STALE_END_MAX: Duration = Duration::from_secs(20);
/// How often it is looked at whether such a child has ended.
const STALE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Children that other children use.
const SERVICES: [&str; 3] = ["podman", "rabbitmq", "epmd"];

/// A directory below the data directory, owned by one process at a time.
pub struct Files {
    dir: PathBuf,
    /// Held for its lifetime: a second agent on the same directory is refused.
    _lock: Flock<std::fs::File>,
}

// === impl Files ===

impl Files {
    /// Makes `DATA/role` and takes it; an error when another process has it.
    pub fn open(data_dir: &Path, role: &str) -> anyhow::Result<Self> {
        let dir = data_dir.join(role);
        private_dir(&dir.join("pids"))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("lock"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            anyhow::anyhow!(
                "another `sluice {role}` uses {} ({error}): end it, or set SLUICE_DATA_DIR to another directory",
                dir.display()
            )
        })?;
        Ok(Self { dir, _lock: lock })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        write_private(&self.path(name), text)
    }

    /// Removes a file; one that is not there is removed already.
    pub fn remove(&self, name: &str) {
        if let Err(error) = std::fs::remove_file(self.path(name))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(file = name, %error, "A file of the agent cannot be removed");
        }
    }

    /// Ends what an earlier agent has left running here, and waits for its end:
    /// first what uses the services, which needs them to clean up after itself.
    pub async fn end_stale(&self) -> anyhow::Result<()> {
        let mut stale = Vec::new();
        for entry in std::fs::read_dir(self.path("pids"))? {
            let path = entry?.path();
            match Process::recorded(&path) {
                Some(identity) => stale.push((path, identity)),
                None => std::fs::remove_file(&path)?,
            }
        }
        let is_service =
            |(path, _): &(PathBuf, Process)| SERVICES.iter().any(|name| path.ends_with(name));
        let (services, users): (Vec<_>, Vec<_>) = stale.into_iter().partition(is_service);
        for wave in [users, services] {
            end_wave(wave).await?;
        }
        Ok(())
    }
}

/// Ends these processes together, waits for each, and removes their records.
async fn end_wave(stale: Vec<(PathBuf, Process)>) -> anyhow::Result<()> {
    for (path, identity) in &stale {
        tracing::warn!(
            pid = identity.pid,
            name = %path.file_name().unwrap_or_default().display(),
            "Ending a process that an earlier start has left"
        );
        // An error means that it has ended, which is seen below.
        let _ = kill(Pid::from_raw(identity.pid), Signal::SIGTERM);
    }
    let until = Instant::now() + STALE_END_MAX;
    for (path, identity) in stale {
        while identity.is_alive() {
            if Instant::now() > until {
                let _ = kill(Pid::from_raw(identity.pid), Signal::SIGKILL);
            }
            if Instant::now() > until + STALE_END_MAX {
                bail!("process {} of an earlier start does not end", identity.pid);
            }
            async_std::task::sleep(STALE_LOOK_EVERY).await;
        }
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

/// Makes a directory that only this user can enter, with its parents.
pub fn private_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make the directory {}", path.display()))
}

/// Writes a file that only this user can read; readers see all of it or none.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok::<_, std::io::Error>(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[async_std::test]
    async fn what_an_earlier_agent_left_is_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::open(dir.path(), "agent").expect("made");
        let mut child = async_process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("sleep starts");
        let identity = Process::of(child.id().cast_signed()).expect("it runs");
        files
            .write("pids/sleep", &identity.to_string())
            .expect("written");
        files
            .write("pids/gone", "1 1 another-boot")
            .expect("written");
        // Somebody must reap it, or it stays a zombie, which counts as ended all the same.
        let (ended, status) = futures::join!(files.end_stale(), child.status());
        ended.expect("ended");
        assert!(!status.expect("reaped").success());
        assert_eq!(
            std::fs::read_dir(files.path("pids")).expect("read").count(),
            0
        );
    }

    #[test]
    fn the_directory_is_private_and_has_one_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::open(dir.path(), "agent").expect("made");
        let mode = |path: &Path| {
            let meta = std::fs::metadata(path).expect("it is there");
            meta.permissions().mode() & 0o777
        };
        assert_eq!(mode(files.dir()), 0o700);
        files.write("amqp-url", "secret").expect("written");
        assert_eq!(mode(&files.path("amqp-url")), 0o600);
        let second = Files::open(dir.path(), "agent").err().expect("refused");
        assert!(
            second.to_string().contains("another `sluice agent`"),
            "{second}"
        );
    }
}
