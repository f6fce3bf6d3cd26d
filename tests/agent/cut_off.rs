//! A Podman of the test's own, all of whose processes are killed at once.

use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a container needs of the host to run one program, read-only.
const PROGRAMS: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];

/// A store and a runtime directory that no other Podman uses.
pub struct World {
    dir: tempfile::TempDir,
}

/// The process that keeps the user namespace open for the Podman of a runtime directory.
pub fn pause(runtime_dir: &Path) -> Option<i32> {
    let file = runtime_dir.join("libpod/tmp/pause.pid");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

// === impl World ===

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        for name in ["run", "data", "root"] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
        }
        Self { dir }
    }

    /// What puts a program into it.
    pub fn settings(&self) -> [(&'static str, String); 3] {
        let below = |name: &str| self.dir.path().join(name).display().to_string();
        [
            ("XDG_RUNTIME_DIR", below("run")),
            ("XDG_DATA_HOME", below("data")),
            // Copies, so that no mount is left in anybody's namespace.
            ("STORAGE_DRIVER", "vfs".to_owned()),
        ]
    }

    /// Leaves it with a container that was running as everything was killed.
    pub fn cut_off(&self) {
        let root = self.dir.path().join("root").display().to_string();
        let mounts: Vec<_> = PROGRAMS
            .iter()
            .map(|path| format!("--volume={path}:{path}:ro"))
            .collect();
        let mounts: Vec<_> = mounts.iter().map(String::as_str).collect();
        let mut started = Err(Vec::new());
        for runtime in ["crun", "runc"] {
            let run = ["--runtime", runtime, "run", "--detach", "--network=none"];
            let what = ["--rootfs", &root, "/usr/bin/sleep", "600"];
            let output = self.podman(&[&run[..], &mounts[..], &what[..]].concat());
            started = match output.status.success() {
                true => Ok(output.stdout),
                false => Err(output.stderr),
            };
            if started.is_ok() {
                break;
            }
        }
        let id = started.unwrap_or_else(|words| panic!("{}", String::from_utf8_lossy(&words)));
        let id = String::from_utf8_lossy(&id).trim().to_owned();
        let format = "--format={{.State.Pid}} {{.State.ConmonPid}}";
        let pids = self.podman(&["inspect", format, &id]).stdout;
        let pids = String::from_utf8_lossy(&pids).into_owned();
        let pause = self.pause().expect("a pause process");
        let pids = pids.split_whitespace().map(|pid| pid.parse().expect("one"));
        for pid in pids.chain([pause]) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
        }
    }

    /// Whether its Podman answers.
    pub fn answers(&self) -> Result<(), String> {
        let output = self.podman(&["ps"]);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn pause(&self) -> Option<i32> {
        pause(&self.dir.path().join("run"))
    }

    fn podman(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("podman");
        command.args(arguments).envs(self.settings());
        command.output().expect("podman runs")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.podman(&["rm", "--force", "--all", "--time=0"]));
        if let Some(pause) = self.pause() {
            let _ = kill(Pid::from_raw(pause), Signal::SIGKILL);
        }
    }
}
