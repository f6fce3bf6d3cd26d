//! `sluice up` with everything behind it: a first start, a job, a second start
//! that goes on where the first ended, and nothing running afterwards.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use support::process::until;
use support::{env, exe};

/// A child that is killed with a test that fails; its own children end with it.
struct Up(Child);

#[async_std::test]
async fn up_runs_a_first_job_and_a_second_start_goes_on() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (mut up, first) = start(dir.path()).await;
    assert_eq!(run(dir.path(), "20 + 1"), (Some(0), 21.into()));
    let (code, _) = run(dir.path(), "nobody.name");
    assert_eq!(code, Some(1), "a job that fails is told by the exit code");
    assert_eq!(end(&mut up).await, Some(0), "{}", log(dir.path()));

    let (mut up, second) = start(dir.path()).await;
    assert_eq!(second["http"], first["http"], "the same port again");
    assert_eq!(run(dir.path(), "20 + 2"), (Some(0), 22.into()));
    let listed = sluice(dir.path(), &["job", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(3), "{listed}");
    let pools = sluice(dir.path(), &["pool", "list", "--json"]);
    let pools: Value = serde_json::from_slice(&pools.stdout).expect("JSON");
    assert_eq!(pools.as_array().map(Vec::len), Some(1), "{pools}");
    assert_eq!(end(&mut up).await, Some(0), "{}", log(dir.path()));
    nothing_is_left(dir.path());
}

/// The agent's own Podman service, its OCI runtime, the harness's socket and the
/// flow of the demo, all with gVisor's kernel below the apps: a runtime that is
/// not on it is destroyed, and the demo fails.
#[test]
fn the_whole_line_runs_behind_gvisor_where_it_is_installed() {
    let places = ["/usr/bin/runsc", "/usr/local/bin/runsc"];
    if !places.iter().any(|place| Path::new(place).exists()) {
        println!("runsc is not installed: gVisor is not tested on this machine");
        return;
    }
    let dir = tempfile::tempdir().expect("a scratch directory");
    let app = dir.path().join("sample.mjs");
    std::fs::write(&app, support::sample_app()).expect("written");
    let output = command(dir.path())
        .env("FLOWS_RUNTIME_SANDBOX", "gvisor")
        .args(["demo", "--json", "--app"])
        .arg(&app)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let told = String::from_utf8_lossy(&output.stdout);
    let summary: Value = told
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("no summary: {told}\n{said}"));
    assert_eq!(summary["ok"], true, "{summary}");
}

#[test]
fn usage_errors_and_help_have_their_exit_codes() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let output = sluice(dir.path(), &["pool", "list"]);
    assert_eq!(output.status.code(), Some(64), "no gateway is named");
    let help = sluice(dir.path(), &["job", "run", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Example: sluice job run"));
}

fn command(dir: &Path) -> Command {
    let pass = [
        "PATH",
        "HOME",
        "XDG_RUNTIME_DIR",
        "FLOWS_RUNTIME_IMAGE",
        "SLUICE_RUNTIME_OCI",
    ];
    let mut command = Command::new(exe());
    command
        .env_clear()
        .envs(pass.iter().filter_map(|name| Some((*name, env(name)?))))
        .env("SLUICE_DATA_DIR", dir)
        .env("FLOWS_POOL_SIZE", "1")
        .stdin(Stdio::null());
    command
}

async fn start(dir: &Path) -> (Up, Value) {
    let file = |name: &str| std::fs::File::create(dir.join(name)).expect("a file");
    let mut up = Up(command(dir)
        .args(["up", "--json"])
        .stdout(file("up.json"))
        .stderr(file("up.log"))
        .spawn()
        .expect("it starts"));
    let told = until("everything runs", || {
        let ended = up.0.try_wait().expect("a child");
        assert!(ended.is_none(), "{ended:?}: {}", log(dir));
        serde_json::from_slice(&std::fs::read(dir.join("up.json")).ok()?).ok()
    })
    .await;
    (up, told)
}

/// SIGTERM, and its exit code.
async fn end(up: &mut Up) -> Option<i32> {
    kill(Pid::from_raw(up.0.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    let status = until("it drains", || up.0.try_wait().expect("a child")).await;
    status.code()
}

fn sluice(dir: &Path, arguments: &[&str]) -> std::process::Output {
    command(dir).args(arguments).output().expect("it runs")
}

/// Runs an expression: exit code and value.
fn run(dir: &Path, expression: &str) -> (Option<i32>, Value) {
    let arguments = [
        "job",
        "run",
        "--project",
        "default",
        "--json",
        "-e",
        expression,
    ];
    let output = sluice(dir, &arguments);
    let mut job: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}\n{}", String::from_utf8_lossy(&output.stderr), log(dir)));
    (
        output.status.code(),
        job["outcome"]["result"]["value"].take(),
    )
}

fn nothing_is_left(dir: &Path) {
    let agent = std::fs::read_to_string(dir.join("agent/id")).expect("an agent was here");
    let label = format!("label=io.sluice.agent={}", agent.trim());
    let listed = Command::new("podman")
        .args(["ps", "--all", "--quiet", "--filter", &label])
        .output()
        .expect("podman lists containers");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "", "containers");
    for role in ["up", "agent"] {
        let pids = std::fs::read_dir(dir.join(role).join("pids")).expect("a directory");
        assert_eq!(pids.count(), 0, "processes of {role}");
    }
}

fn log(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("up.log")).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
