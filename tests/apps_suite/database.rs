//! A PostgreSQL server of a test's own, and what is in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use async_std::task;

use crate::support::process::PATIENCE;

/// Where the house lets apps go.
pub const PORT: u16 = 5432;
pub const USER: &str = "flows";
pub const PASSWORD: &str = "pass-of-the-database";

pub struct Database {
    server: Child,
    bin: PathBuf,
    dir: tempfile::TempDir,
}

// === impl Database ===

impl Database {
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sluice-pg-")
            .tempdir()
            .expect("a scratch directory");
        let bin = programs();
        let (data, password) = (dir.path().join("data"), dir.path().join("password"));
        std::fs::write(&password, PASSWORD).expect("a file");
        let made = Command::new(bin.join("initdb"))
            .args([
                "--no-sync",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .args(["--username", USER, "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(&data)
            .output();
        well("initdb", made);
        let log = std::fs::File::create(dir.path().join("log")).expect("a file");
        let server = Command::new(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-p", &PORT.to_string(), "-F", "-k"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        let database = Self { server, bin, dir };
        database.ready().await;
        database
    }

    async fn ready(&self) {
        let start = Instant::now();
        while self.ask("SELECT 1").is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "no database:\n{log}");
            task::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// What a statement answers, as an administrator on the host sees it.
    pub fn sql(&self, statement: &str) -> String {
        self.ask(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    fn ask(&self, statement: &str) -> Result<String, String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-h"])
            .arg(self.dir.path())
            .args(["-p", &PORT.to_string(), "-U", USER, "-d", "postgres"])
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--command",
                statement,
            ])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SIGINT: what is under way ends, and nothing is left.
        let pid = nix::unistd::Pid::from_raw(self.server.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.server.wait();
    }
}

/// Debian keeps the server's programs off the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let mut found: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| on_path("initdb"))
}

fn on_path(program: &str) -> PathBuf {
    let path = crate::support::env("PATH").unwrap_or_default();
    let mut dirs = path.split(':').map(Path::new);
    let found = dirs.find(|dir| dir.join(program).exists());
    let found = found.expect("PostgreSQL: run `make provision`, which installs it");
    found.to_owned()
}

fn well(what: &str, output: std::io::Result<Output>) {
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}
