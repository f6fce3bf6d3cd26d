//! The gateway that a run uses: one that is there, or a `sluice up` of its own.
//!
//! Owns that child and, unless a directory was named, its scratch directory.
//! Everything is gone after [`House::stop`].

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_process::{Child, Command};
use futures::FutureExt;
use serde_json::Value;
use url::Url;

use crate::cli::LookUp;
use crate::cli::admin::{Admin, Failure};
use crate::cli::rig;
use crate::config::{AdminConfig, EgressConfig, SETTINGS};
use crate::shutdown::Shutdown;

/// How long everything may take to run; a first start of RabbitMQ takes most of it.
const START_MAX: Duration = Duration::from_secs(210);
/// How long it may take to end, once it was told to.
const STOP_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How much of its log is quoted when it failed.
const LOG_TAIL_LINES: usize = 15;
/// What it says once everything runs, and what it logs.
const TOLD: &str = "flow-run.json";
const LOG: &str = "flow-run.log";

pub struct House {
    child: Child,
    dir: PathBuf,
    scratch: Option<tempfile::TempDir>,
}

/// The gateway that the settings name, or the one that runs on the data directory.
pub async fn running(look_up: LookUp<'_>, config: &AdminConfig) -> Result<Option<Admin>, Failure> {
    if config.url.is_some() {
        return Admin::open(look_up).map(Some);
    }
    if !config.data_dir.join("gateway/listen.json").exists() {
        return Ok(None);
    }
    let admin = Admin::open(look_up)?;
    // A gateway that was killed has left its address behind.
    Ok(admin.get("/health").await.is_ok().then_some(admin))
}

// === impl House ===

impl House {
    /// Starts `sluice up` in `dir`, or in a scratch directory.
    pub fn start(settings: &[(String, String)], dir: Option<&Path>) -> anyhow::Result<Self> {
        let scratch = match dir {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("sluice-")
                    .tempdir()
                    .context("make a scratch directory")?,
            ),
        };
        let dir = match (dir, &scratch) {
            (Some(dir), _) => std::path::absolute(dir)?,
            (None, Some(scratch)) => scratch.path().to_owned(),
            (None, None) => bail!("there is no directory to start in"),
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let file = |name: &str| {
            let path = dir.join(name);
            std::fs::File::create(&path).with_context(|| format!("write {}", path.display()))
        };
        let (told, log) = (file(TOLD)?, file(LOG)?);
        let exe = std::env::current_exe().context("find this program's own file")?;
        let mut command = std::process::Command::new(exe);
        for setting in SETTINGS {
            command.env_remove(setting.name);
            setting.aliases.iter().for_each(|name| {
                command.env_remove(name);
            });
        }
        let settings = settings.iter().map(|(name, value)| (name, value));
        command
            .args(["up", "--json"])
            .envs(settings)
            .env("SLUICE_DATA_DIR", &dir)
            .env("SLUICE_GATEWAY_LISTEN", "127.0.0.1:0")
            .env("SLUICE_GATEWAY_AGENT_LISTEN", "127.0.0.1:0")
            .env("SLUICE_PARENT_PIPE", "1")
            // A terminal's Ctrl-C is this process's to pass on.
            .process_group(0);
        // Streams are set after this step, which forgets any that were set before.
        let child = Command::from(command)
            .stdin(Stdio::piped())
            .stdout(told)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start `sluice up`")?;
        Ok(Self {
            child,
            dir,
            scratch,
        })
    }

    /// Waits until everything runs.
    pub async fn ready(&mut self) -> anyhow::Result<Admin> {
        let until = Instant::now() + START_MAX;
        let told: Value = loop {
            let text = std::fs::read(self.dir.join(TOLD)).unwrap_or_default();
            if let Ok(told) = serde_json::from_slice(&text) {
                break told;
            }
            if let Some(status) = self.child.try_status()? {
                bail!("`sluice up` ended with {status}:\n{}", self.log_tail());
            }
            if Instant::now() > until {
                let limit = START_MAX.as_secs();
                bail!(
                    "`sluice up` is not ready after {limit} s:\n{}",
                    self.log_tail()
                );
            }
            async_std::task::sleep(LOOK_EVERY).await;
        };
        let text = |name: &str| told[name].as_str().unwrap_or_default();
        let url = Url::parse(text("http")).context("the gateway's own address")?;
        let key = std::fs::read_to_string(text("admin_key_file")).context("read the admin key")?;
        Ok(Admin::new(&url, key.trim(), &EgressConfig::default())?)
    }

    /// Ends it in order, at once on a second signal; answers with what was left
    /// behind, which should be nothing.
    pub async fn stop(mut self, shutdown: &Shutdown) -> Vec<String> {
        // `status` would close it, and the child would take that for this process's end.
        let _lifeline = self.child.stdin.take();
        self.signal();
        let mut left = Vec::new();
        let cancelled = {
            let ended = async_std::future::timeout(STOP_MAX, self.child.status()).fuse();
            let cancelling = shutdown.cancelling().fuse();
            futures::pin_mut!(ended, cancelling);
            futures::select_biased! {
                result = ended => {
                    left.extend(result.is_err().then(|| "process `sluice up`, which does not end".to_owned()));
                    false
                }
                () = cancelling => true,
            }
        };
        if cancelled {
            self.signal();
            let ended = async_std::future::timeout(STOP_MAX, self.child.status()).await;
            left.extend(
                ended
                    .is_err()
                    .then(|| "process `sluice up`, which does not end".to_owned()),
            );
        }
        for owner in rig::owners(&self.dir) {
            left.extend(rig::containers_of(&owner).await);
        }
        if let Some(scratch) = self.scratch
            && let Err(error) = crate::shutdown::unblock(move || scratch.close()).await
        {
            left.push(format!("files in {}: {error}", self.dir.display()));
        }
        left
    }

    /// SIGTERM: drain, and the second time cancel.
    fn signal(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        // An error means that it has ended already, which the wait sees.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join(LOG)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}
