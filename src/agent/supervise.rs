//! One child process, kept running until it is told to end.
//!
//! ```text
//!            ┌──────────── back-off ◀── Restart ──┐
//!            ▼                                    │
//!  spawn ─▶ running ──────── it ends ──▶ verdict ─┴─▶ End ─▶ fatal
//!            │ drain: SIGTERM
//!            ▼
//!        draining ── cancel: SIGTERM again ──▶ cancelling ── too long: SIGKILL ──▶ ended
//! ```
//!
//! Owns processes; what they are told is the [`Recipe`]'s, whether an end is
//! fatal is [`Policy`]'s. A child sits in a process group of its own, so that a
//! terminal's Ctrl-C reaches the supervisor alone, which then ends its children
//! in their order. A child ends with its supervisor even when that is killed:
//! either it watches the pipe that is its standard input, or the kernel signals
//! it (`setpriv --pdeathsig`).

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_process::Child;
use async_std::channel;
use futures::FutureExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::files::write_private;
use crate::backoff::{Backoff, jitter};
use crate::process::Process;
use crate::shutdown::{Shutdown, Stage, Tasks};

/// Between two starts of a child that keeps dying.
const RESTART: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// A child that ran this long was well: its next restart is quick again.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// The same for one that a signal ended: it came from outside, and says little of the child.
const WELL_AFTER_SIGNAL: Duration = Duration::from_secs(5);
/// How long a child may take from cancel to its end before it is killed.
const CANCEL_MAX: Duration = Duration::from_secs(20);
/// Where distributions keep `setpriv` of util-linux.
const SETPRIV: [&str; 2] = ["/usr/bin/setpriv", "/bin/setpriv"];

/// How to start one child.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Unique among one supervisor's children; the pid file's name.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Environment,
    pub lifeline: Lifeline,
    /// A file that takes standard output and error, emptied at each start;
    /// `None`: error goes where the supervisor's goes, output nowhere.
    pub output: Option<PathBuf>,
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub enum Environment {
    /// These and nothing else.
    Exactly(Vec<(String, String)>),
    /// The supervisor's own without these names.
    Without(Vec<String>),
}

/// What ends a child whose supervisor was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifeline {
    /// It watches its standard input, which the supervisor holds.
    Pipe,
    /// The kernel sends SIGTERM, where `setpriv` is installed.
    Kernel,
    /// It ends by itself some time after it was last used.
    Idleness,
}

/// Exit codes that end the supervisor too instead of a restart.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub fatal_codes: &'static [i32],
    /// How long it may finish what it holds before it is cancelled.
    pub drain: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Restart { streak: u32 },
    End { code: i32 },
}

/// A child whose end ends the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    pub name: String,
    pub code: i32,
}

/// Children that are stopped together.
pub struct Group {
    stop: Shutdown,
    tasks: Tasks,
    pids: PathBuf,
    fatal: channel::Sender<Fatal>,
}

// === impl Group ===

impl Group {
    /// `pids` is where running children are recorded; `fatal` hears of the first fatal end.
    pub fn new(pids: PathBuf, fatal: channel::Sender<Fatal>) -> Self {
        let stop = Shutdown::new();
        Self {
            tasks: Tasks::new("supervisor", stop.clone()),
            stop,
            pids,
            fatal,
        }
    }

    /// Starts a child and keeps it running until [`Group::stop`].
    pub fn start(&self, recipe: Recipe, policy: Policy) {
        let (stop, fatal) = (self.stop.clone(), self.fatal.clone());
        let record = self.pids.join(&recipe.name);
        self.tasks.spawn("child", async move {
            if let Err(code) = tend(&recipe, policy, &stop, &record).await {
                // A full channel holds an earlier fatal end, and one is enough.
                let _ = fatal.try_send(Fatal {
                    name: recipe.name,
                    code,
                });
            }
        });
    }

    /// Drains all children, or cancels them as soon as `outer` is cancelled; returns once they are gone.
    pub async fn stop(self, outer: &Shutdown) {
        self.stop.drain();
        let ended = self.tasks.join().fuse();
        let cancelled = outer.cancelling().fuse();
        futures::pin_mut!(ended, cancelled);
        // Both futures are kept over the loop, so neither an end nor the signal is missed.
        loop {
            futures::select! {
                () = ended => return,
                () = cancelled => self.stop.cancel(),
            }
        }
    }
}

/// `Err(code)`: the child has ended in a way that ends the supervisor.
async fn tend(recipe: &Recipe, policy: Policy, stop: &Shutdown, record: &Path) -> Result<(), i32> {
    let mut streak = 0;
    while stop.stage() == Stage::Running {
        let started = Instant::now();
        let ended = match spawn(recipe, record) {
            Ok(mut child) => {
                let status = attend(recipe, policy, stop, &mut child).await;
                // A pid file that stays names a process that is gone, which the next start sees.
                let _ = std::fs::remove_file(record);
                if stop.stage() != Stage::Running {
                    return Ok(());
                }
                describe(status)
            }
            Err(error) => {
                tracing::error!(name = %recipe.name, error = format!("{error:#}"), "A child cannot be started");
                (None, "not started".to_owned())
            }
        };
        match verdict(policy, ended.0, started.elapsed(), streak) {
            Verdict::End { code } => {
                tracing::error!(name = %recipe.name, code, "`{}` has ended for good with exit code {code}", recipe.name);
                return Err(code);
            }
            Verdict::Restart { streak: next } => {
                let wait = RESTART.delay(next, jitter());
                streak = next + 1;
                tracing::warn!(
                    name = %recipe.name, end = %ended.1, wait_ms = wait.as_millis(),
                    "`{}` has ended ({}) and is started again", recipe.name, ended.1
                );
                // A time-out is the wait itself; an answer means that nothing is to be restarted.
                let _ = async_std::future::timeout(wait, stop.draining()).await;
            }
        }
    }
    Ok(())
}

/// Waits for the child's end, and brings it about once told to.
async fn attend(
    recipe: &Recipe,
    policy: Policy,
    stop: &Shutdown,
    child: &mut Child,
) -> Option<ExitStatus> {
    let pid = Pid::from_raw(child.id().cast_signed());
    // Held here until the child is gone: the end of this pipe is its sign to end.
    let _lifeline = child.stdin.take();
    let mut status = Box::pin(child.status().map(Result::ok)).fuse();
    {
        let mut draining = Box::pin(stop.draining()).fuse();
        futures::select! {
            status = status => return status,
            () = draining => signal(recipe, pid, Signal::SIGTERM),
        }
    }
    {
        let cancelling = async_std::future::timeout(policy.drain, stop.cancelling());
        let mut cancelling = Box::pin(cancelling).fuse();
        futures::select! {
            status = status => return status,
            _ = cancelling => signal(recipe, pid, Signal::SIGTERM),
        }
    }
    match async_std::future::timeout(CANCEL_MAX, &mut status).await {
        Ok(status) => status,
        Err(_) => {
            tracing::error!(name = %recipe.name, "`{}` does not end: killing it", recipe.name);
            signal(recipe, pid, Signal::SIGKILL);
            status.await
        }
    }
}

// The child is not reaped yet whenever this is called, so the number is still its own.
fn signal(recipe: &Recipe, pid: Pid, signal: Signal) {
    if let Err(error) = kill(pid, signal) {
        tracing::debug!(name = %recipe.name, %error, "A child could not be signalled");
    }
}

/// Whether and how a child that ended by itself goes on.
pub fn verdict(policy: Policy, code: Option<i32>, ran: Duration, streak: u32) -> Verdict {
    match code {
        Some(code) if policy.fatal_codes.contains(&code) => Verdict::End { code },
        _ if ran >= WELL_AFTER => Verdict::Restart { streak: 0 },
        None if ran >= WELL_AFTER_SIGNAL => Verdict::Restart { streak: 0 },
        _ => Verdict::Restart { streak },
    }
}

fn describe(status: Option<ExitStatus>) -> (Option<i32>, String) {
    let Some(status) = status else {
        return (None, "its end is unknown".to_owned());
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => (Some(code), format!("exit code {code}")),
        (None, Some(number)) => (None, format!("signal {number}")),
        (None, None) => (None, "its end is unknown".to_owned()),
    }
}

fn spawn(recipe: &Recipe, record: &Path) -> anyhow::Result<Child> {
    let child = recipe
        .command()?
        .spawn()
        .with_context(|| format!("start {}", recipe.program.display()))?;
    if let Some(identity) = Process::of(child.id().cast_signed())
        && let Err(error) = write_private(record, &identity.to_string())
    {
        tracing::warn!(name = %recipe.name, error = format!("{error:#}"), "A child runs unrecorded");
    }
    Ok(child)
}

// === impl Recipe ===

impl Recipe {
    fn command(&self) -> anyhow::Result<async_process::Command> {
        let setpriv = SETPRIV.iter().map(Path::new).find(|path| path.is_file());
        let mut command = match (self.lifeline, setpriv) {
            (Lifeline::Kernel, Some(setpriv)) => {
                let mut command = std::process::Command::new(setpriv);
                command
                    .args(["--pdeathsig", "SIGTERM", "--"])
                    .arg(&self.program);
                command
            }
            _ => std::process::Command::new(&self.program),
        };
        command.args(&self.arguments);
        match &self.environment {
            Environment::Exactly(pairs) => {
                command.env_clear().envs(pairs.iter().cloned());
            }
            Environment::Without(names) => {
                names.iter().for_each(|name| {
                    command.env_remove(name);
                });
            }
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.process_group(0);
        // Streams are set after this step, which forgets any that were set before.
        let mut command = async_process::Command::from(command);
        command.stdin(match self.lifeline {
            Lifeline::Pipe => Stdio::piped(),
            Lifeline::Kernel | Lifeline::Idleness => Stdio::null(),
        });
        match &self.output {
            Some(path) => {
                let file = std::fs::File::create(path)
                    .with_context(|| format!("make {}", path.display()))?;
                command.stdout(file.try_clone()?).stderr(file);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::inherit());
            }
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        fatal_codes: &[64, 77],
        drain: Duration::from_secs(60),
    };

    fn shell(name: &str, script: &str, lifeline: Lifeline) -> Recipe {
        Recipe {
            name: name.to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: Environment::Exactly(vec![("PATH".into(), "/usr/bin:/bin".into())]),
            lifeline,
            output: None,
            dir: None,
        }
    }

    fn group(dir: &Path) -> (Group, channel::Receiver<Fatal>) {
        let (sender, receiver) = channel::bounded(1);
        (Group::new(dir.to_owned(), sender), receiver)
    }

    async fn recorded(path: &Path) -> Process {
        loop {
            if let Ok(text) = std::fs::read_to_string(path) {
                return Process::parse(&text).expect("a whole record");
            }
            async_std::task::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn refusals_and_usage_end_all_and_everything_else_is_restarted() {
        let short = Duration::from_secs(1);
        assert_eq!(
            verdict(POLICY, Some(77), short, 3),
            Verdict::End { code: 77 }
        );
        assert_eq!(
            verdict(POLICY, Some(64), short, 0),
            Verdict::End { code: 64 }
        );
        assert_eq!(
            verdict(POLICY, Some(1), short, 3),
            Verdict::Restart { streak: 3 }
        );
        assert_eq!(
            verdict(POLICY, Some(0), short, 0),
            Verdict::Restart { streak: 0 }
        );
        assert_eq!(
            verdict(POLICY, None, WELL_AFTER_SIGNAL, 9),
            Verdict::Restart { streak: 0 }
        );
        assert_eq!(
            verdict(POLICY, None, short, 9),
            Verdict::Restart { streak: 9 }
        );
        assert_eq!(
            verdict(POLICY, Some(1), WELL_AFTER_SIGNAL, 9),
            Verdict::Restart { streak: 9 }
        );
        assert_eq!(
            verdict(POLICY, Some(1), WELL_AFTER, 9),
            Verdict::Restart { streak: 0 }
        );
    }

    #[async_std::test]
    async fn a_fatal_exit_code_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let (group, fatal) = group(dir.path());
        group.start(shell("b", "exit 77", Lifeline::Pipe), POLICY);
        let told = fatal.recv().await.expect("told");
        assert_eq!((told.name.as_str(), told.code), ("b", 77));
        group.stop(&Shutdown::new()).await;
    }

    #[async_std::test]
    async fn a_killed_child_is_started_again_and_stopped_at_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let (group, _fatal) = group(dir.path());
        group.start(shell("w", "exec sleep 1000", Lifeline::Kernel), POLICY);
        let first = recorded(&dir.path().join("w")).await;
        kill(Pid::from_raw(first.pid), Signal::SIGKILL).expect("it runs");
        let second = loop {
            if dir.path().join("w").exists() {
                let now = recorded(&dir.path().join("w")).await;
                if now != first {
                    break now;
                }
            }
            async_std::task::sleep(Duration::from_millis(5)).await;
        };
        assert!(second.is_alive());
        group.stop(&Shutdown::new()).await;
        assert!(!second.is_alive(), "the second one is gone");
        assert!(!dir.path().join("w").exists(), "and its record too");
    }

    #[async_std::test]
    async fn a_child_holds_the_streams_its_recipe_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let (group, _fatal) = group(dir.path());
        let output = dir.path().join("output");
        let mut recipe = shell("w", "echo said; exec sleep 1000", Lifeline::Pipe);
        recipe.output = Some(output.clone());
        group.start(recipe, POLICY);
        let child = recorded(&dir.path().join("w")).await;
        while std::fs::read_to_string(&output).unwrap_or_default() != "said\n" {
            async_std::task::sleep(Duration::from_millis(5)).await;
        }
        let stream = |number: u8| {
            let link = std::fs::read_link(format!("/proc/{}/fd/{number}", child.pid));
            link.expect("an open stream").display().to_string()
        };
        assert!(
            stream(0).starts_with("pipe:"),
            "its lifeline: {}",
            stream(0)
        );
        assert_eq!(stream(2), output.display().to_string());
        group.stop(&Shutdown::new()).await;
    }

    #[async_std::test]
    async fn the_second_signal_is_passed_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let (group, _fatal) = group(dir.path());
        let ready = dir.path().join("ready");
        let script = format!(
            "n=0; trap 'n=$((n+1)); [ $n = 2 ] && exit 0' TERM; touch {}; while :; do sleep 0.05; done",
            ready.display()
        );
        group.start(shell("w", &script, Lifeline::Pipe), POLICY);
        let child = recorded(&dir.path().join("w")).await;
        while !ready.exists() {
            async_std::task::sleep(Duration::from_millis(5)).await;
        }
        let outer = Shutdown::new();
        let stopping = group.stop(&outer);
        futures::pin_mut!(stopping);
        let early = async_std::future::timeout(Duration::from_millis(300), &mut stopping).await;
        assert!(early.is_err() && child.is_alive(), "one signal drains only");
        outer.cancel();
        stopping.await;
        assert!(!child.is_alive());
    }
}
