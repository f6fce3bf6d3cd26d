//! Harm done to a rig's own processes, and the moment they are back.
//!
//! ```text
//!  SIGKILL, SIGTERM ─▶ gone ─▶ its supervisor (for the gateway: the rig) starts it ─▶ it answers
//!  SIGSTOP ─▶ a while ─▶ SIGCONT
//! ```
//!
//! Only the rig's own children are touched: the gateway it spawned, what its
//! own agent has recorded in `DATA/agent/pids` (pid and start time, so that no
//! later process with that number is taken for it), and the containers that
//! carry that agent's id.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_process::Command;
use async_std::future::timeout;
use async_std::io::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::podman;
use crate::cli::rig::{LOOK_EVERY, Rig, child, log_tail};
use crate::process::Process;
use crate::telemetry::now_us;

/// How long a process may take to be back: a broker with data takes several seconds.
const RETURN_MAX: Duration = Duration::from_secs(120);
/// How long one knock at a port may take.
const KNOCK_MAX: Duration = Duration::from_secs(2);
/// The AMQP 0-9-1 protocol header; a broker that is ready answers it.
const AMQP_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Who is harmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    Bridge,
    Worker,
    Broker,
    Podman,
    Runtime,
    Gateway,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Harm {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Stop,
    /// SIGTERM, and started again.
    Restart,
}

// === impl Victim ===

impl Victim {
    pub const ALL: [Self; 6] = [
        Self::Bridge,
        Self::Worker,
        Self::Broker,
        Self::Podman,
        Self::Runtime,
        Self::Gateway,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Worker => "worker",
            Self::Broker => "broker",
            Self::Podman => "podman",
            Self::Runtime => "runtime",
            Self::Gateway => "gateway",
        }
    }

    /// The name of its record below `DATA/agent/pids`; `None`: the agent does not supervise it.
    fn record(self) -> Option<&'static str> {
        match self {
            Self::Bridge => Some("bridge"),
            Self::Worker => Some("worker-0"),
            Self::Broker => Some("rabbitmq"),
            Self::Podman => Some("podman"),
            Self::Runtime | Self::Gateway => None,
        }
    }
}

// === impl Harm ===

impl Harm {
    pub const ALL: [Self; 3] = [Self::Kill, Self::Stop, Self::Restart];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::SIGKILL,
            Self::Stop => Signal::SIGSTOP,
            Self::Restart => Signal::SIGTERM,
        }
    }
}

// === impl Rig ===

impl Rig {
    /// Whether there is such a process: an agent that uses somebody else's
    /// broker or Podman service has none of its own.
    pub fn has(&self, victim: Victim) -> bool {
        victim
            .record()
            .is_none_or(|name| self.recorded(name).is_some())
    }

    /// Harms `victim` and waits until it is back; answers with that moment, in
    /// microseconds since the Unix epoch.
    pub async fn harm(
        &mut self,
        victim: Victim,
        harm: Harm,
        stopped: Duration,
    ) -> anyhow::Result<u64> {
        match victim {
            Victim::Runtime => self.harm_runtimes(harm, stopped).await?,
            Victim::Gateway => self.harm_gateway(harm, stopped).await?,
            other => {
                let name = other.record().context("the agent supervises it")?;
                self.harm_child(name, harm, stopped).await?;
            }
        }
        Ok(now_us())
    }

    fn recorded(&self, name: &str) -> Option<Process> {
        Process::recorded(&self.dir.path().join("agent/pids").join(name))
    }

    async fn harm_child(&self, name: &str, harm: Harm, stopped: Duration) -> anyhow::Result<()> {
        let before = self
            .recorded(name)
            .with_context(|| format!("`{name}` does not run"))?;
        signal(before.pid, harm.signal())?;
        if harm == Harm::Stop {
            async_std::task::sleep(stopped).await;
            return signal(before.pid, Signal::SIGCONT);
        }
        let until = Instant::now() + RETURN_MAX;
        loop {
            let back = self.recorded(name).is_some_and(|now| now != before);
            if back && self.answers(name).await {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "`{name}` is not back after {} s:\n{}",
                    RETURN_MAX.as_secs(),
                    self.log_tail("agent")
                );
            }
            async_std::task::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a service takes connections; the others are back once they run.
    async fn answers(&self, name: &str) -> bool {
        match name {
            "rabbitmq" => match self.amqp_url() {
                Ok(url) => matches!(timeout(KNOCK_MAX, knock(&url)).await, Ok(Ok(()))),
                Err(_) => false,
            },
            "podman" => match self.podman_url() {
                Ok(url) => podman::ping(&url).await.is_ok(),
                Err(_) => false,
            },
            _ => true,
        }
    }

    async fn harm_gateway(&mut self, harm: Harm, stopped: Duration) -> anyhow::Result<()> {
        let pid = self.gateway.id().cast_signed();
        signal(pid, harm.signal())?;
        if harm == Harm::Stop {
            async_std::task::sleep(stopped).await;
            return signal(pid, Signal::SIGCONT);
        }
        self.await_gateway_end().await?;
        self.start_gateway_again().await
    }

    /// Does something while there is no gateway; it is back, or the error told, afterwards.
    pub async fn without_gateway<T>(
        &mut self,
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        signal(self.gateway.id().cast_signed(), Signal::SIGTERM)?;
        self.await_gateway_end().await?;
        let done = work(self).await?;
        self.start_gateway_again().await?;
        Ok(done)
    }

    async fn await_gateway_end(&mut self) -> anyhow::Result<()> {
        // `status` closes standard input, which is another way of telling it to end.
        timeout(RETURN_MAX, self.gateway.status())
            .await
            .context("the gateway does not end")??;
        Ok(())
    }

    async fn start_gateway_again(&mut self) -> anyhow::Result<()> {
        let address = |url: &str| {
            url.split_once("://")
                .map_or(url, |(_, rest)| rest)
                .to_owned()
        };
        self.gateway = child(
            &self.exe,
            self.dir.path(),
            "gateway",
            &self.options.settings,
            &[
                ("SLUICE_GATEWAY_LISTEN".into(), address(&self.gateway_http)),
                (
                    "SLUICE_GATEWAY_AGENT_LISTEN".into(),
                    address(&self.gateway_agents),
                ),
            ],
        )?;
        let until = Instant::now() + RETURN_MAX;
        while !matches!(timeout(KNOCK_MAX, self.get("/health")).await, Ok(Ok(_))) {
            if let Ok(Some(status)) = self.gateway.try_status() {
                let words = log_tail(self.dir.path(), "gateway");
                bail!("the gateway ended with {status}:\n{words}");
            }
            if Instant::now() > until {
                bail!("the gateway is not back after {} s", RETURN_MAX.as_secs());
            }
            async_std::task::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Harms every runtime of the rig's agent at once, through Podman: their
    /// processes belong to other users of its namespace.
    async fn harm_runtimes(&self, harm: Harm, stopped: Duration) -> anyhow::Result<()> {
        let filter = format!("label=io.sluice.agent={}", self.agent_id()?);
        let listed = run_podman(&["ps", "--quiet", "--filter", &filter]).await?;
        let containers: Vec<&str> = listed.lines().collect();
        if containers.is_empty() {
            bail!("the agent has no runtime");
        }
        tell_containers(harm.signal(), &containers).await;
        if harm == Harm::Stop {
            async_std::task::sleep(stopped).await;
            tell_containers(Signal::SIGCONT, &containers).await;
        }
        Ok(())
    }
}

fn signal(pid: i32, signal: Signal) -> anyhow::Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to process {pid}"))
}

/// One that is gone by now has had its harm.
async fn tell_containers(signal: Signal, containers: &[&str]) {
    let mut arguments = vec!["kill", "--signal", signal.as_str()];
    arguments.extend(containers);
    if let Err(error) = run_podman(&arguments).await {
        eprintln!("  podman kill: {error:#}");
    }
}

async fn run_podman(arguments: &[&str]) -> anyhow::Result<String> {
    let output = timeout(RETURN_MAX, Command::new("podman").args(arguments).output())
        .await
        .context("Podman does not answer")??;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn knock(amqp_url: &str) -> anyhow::Result<()> {
    let url = url::Url::parse(amqp_url)?;
    let host = url.host_str().context("an address with a host")?;
    let mut stream = TcpStream::connect((host, url.port().unwrap_or(5672))).await?;
    stream.write_all(AMQP_HEADER).await?;
    let mut first = [0u8; 1];
    stream.read_exact(&mut first).await?;
    Ok(())
}
