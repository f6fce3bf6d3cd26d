//! The demo's database scene: a PostgreSQL server of its own, written to and
//! read from by a flow.
//!
//! Apps reach no address of their host, so the server listens on the loopback
//! and `make demo` puts the whole demo into a network in which another address
//! leads there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use async_process::{Child, Command};
use serde_json::{Value, json};

use crate::cli::demo::Seen;
use crate::cli::demo::flow::{self, Scene};
use crate::cli::rig::Rig;

/// Where it listens; the demo's network allows apps this port alone.
pub const PORT: u16 = 5432;
const USER: &str = "flows";
/// How long the server may take to answer, and to end.
const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where Debian keeps the programs of each version; elsewhere they are on the path.
const DEBIAN: &str = "/usr/lib/postgresql";

struct Server {
    child: Child,
    bin: PathBuf,
}

/// Runs the flow against a server that apps reach at `host`; answers for the summary.
pub async fn run(
    rig: &Rig,
    seen: &mut Seen,
    project: &str,
    (host, app): (&str, &Path),
) -> anyhow::Result<Value> {
    seen.say("Starting a PostgreSQL server");
    let password = uuid::Uuid::now_v7().simple().to_string();
    let server = Server::start(rig.dir(), &password).await?;
    let result = play(rig, seen, project, (host, app), &password).await;
    server.stop().await?;
    result
}

async fn play(
    rig: &Rig,
    seen: &mut Seen,
    project: &str,
    (host, app): (&str, &Path),
    password: &str,
) -> anyhow::Result<Value> {
    let path = format!("/api/v1/projects/{project}/secrets/DB_PASSWORD");
    rig.call("PUT", &path, Some(&json!({"value": password})))
        .await?;
    let config = [
        format!("db.host=\"{host}\""),
        format!("db.port={PORT}"),
        format!("db.user=\"{USER}\""),
        "db.password=secrets.DB_PASSWORD".to_owned(),
    ];
    let scene = Scene {
        name: "postgresql.yaml",
        definition: include_str!("../../../docs/examples/postgresql.yaml"),
        app: ("db", app),
        config: &config,
        body: json!({"names": ["Grace", "Ada"]}),
        blocks: &["Create", "Insert", "Read"],
    };
    let ran = flow::run(rig, seen, project, &scene).await?;
    let rows = &ran.bodies["Read"]["rows"];
    ensure!(
        *rows == json!([{"name": "Ada"}, {"name": "Grace"}]),
        "the database gave back {rows}"
    );
    let mut told = ran.told;
    told["rows"] = rows.clone();
    Ok(told)
}

// === impl Server ===

impl Server {
    async fn start(dir: &Path, password: &str) -> anyhow::Result<Self> {
        let bin = programs();
        let (data, file) = (dir.join("postgresql"), dir.join("postgresql.password"));
        std::fs::write(&file, password).context("write the server's password")?;
        let made = Command::new(bin.join("initdb"))
            .args([
                "--no-sync",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .args(["--username", USER, "--pwfile"])
            .arg(&file)
            .arg("--pgdata")
            .arg(&data)
            .output()
            .await
            .context("start initdb")?;
        std::fs::remove_file(&file).context("remove the file with the server's password")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "initdb failed: {said}");
        let log = std::fs::File::create(dir.join("postgresql.log"))?;
        let child = Command::new(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-p", &PORT.to_string(), "-F", "-k"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start postgres")?;
        let mut server = Self { child, bin };
        server.ready(dir).await?;
        Ok(server)
    }

    async fn ready(&mut self, dir: &Path) -> anyhow::Result<()> {
        let until = Instant::now() + START_MAX;
        let log = || std::fs::read_to_string(dir.join("postgresql.log")).unwrap_or_default();
        loop {
            let asked = Command::new(self.bin.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &PORT.to_string()])
                .status()
                .await
                .context("start pg_isready")?;
            if let Some(status) = self.child.try_status()? {
                bail!("postgres ended with {status}: {}", log());
            }
            if asked.success() {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "postgres does not answer: {}",
                log()
            );
            async_std::task::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends it without waiting for its clients.
    async fn stop(mut self) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        // An error means that it has ended already.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        async_std::future::timeout(STOP_MAX, self.child.status())
            .await
            .context("postgres does not end")?
            .context("wait for postgres")?;
        Ok(())
    }
}

/// The directory of the newest version's programs; empty where the path has them.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let bins = versions.map(|entry| entry.path().join("bin"));
    let found = bins.filter(|bin| bin.join("initdb").exists()).max();
    found.unwrap_or_default()
}
