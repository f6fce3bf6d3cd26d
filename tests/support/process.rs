//! A child process of a test, and waiting for something to become visible.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_std::task;

use crate::support::{env, exe};

/// How long anything in a test may take before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child that dies with the test.
pub struct Process {
    pub role: String,
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    pub fn spawn(dir: &Path, name: &str, role: &str, settings: &[(&str, String)]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let pass = [
            "PATH",
            "HOME",
            "XDG_RUNTIME_DIR",
            "FLOWS_RUNTIME_IMAGE",
            "SLUICE_RUNTIME_OCI",
        ];
        let child = Command::new(exe())
            .arg(role)
            .env_clear()
            .envs(pass.iter().filter_map(|name| Some((*name, env(name)?))))
            .env("SLUICE_DATA_DIR", dir)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Self {
            role: name.to_owned(),
            child,
            log,
        }
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The exit code, once it has ended.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child
            .try_wait()
            .ok()
            .flatten()
            .map(|status| status.code().unwrap_or(-1))
    }

    pub fn assert_alive(&mut self) {
        assert!(
            self.alive(),
            "{} has ended:\n{}",
            self.role,
            self.log_tail()
        );
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and gone within reason; answers with the exit code.
    pub fn end(&mut self) -> Option<i32> {
        let _ = nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM);
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.code(),
                Ok(None) if start.elapsed() < PATIENCE => pause(),
                _ => {
                    self.kill();
                    return None;
                }
            }
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        format!(
            "--- {}\n{}",
            self.role,
            lines[lines.len().saturating_sub(12)..].join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks until there is something to see.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "not within {} s: {what}",
            PATIENCE.as_secs()
        );
        task::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "waiting for a child's end in a destructor, where nothing can be awaited"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
