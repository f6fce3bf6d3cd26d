//! What a person types: the tree of commands, and what each needs to run.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | tried, and failed |
//! | 2, 3, 4 | `flow run`: an event failed; it took too long; the definition is refused |
//! | 64 | the arguments or settings are wrong |
//! | 77 | the gateway refuses the credentials |
//! | 130 | `flow run` was interrupted |
//!
//! Owns arguments, output and exit codes. What is done is the roles' and the gateway's.

mod admin;
mod app;
mod bench;
mod demo;
mod doctor;
mod flow;
mod installation;
mod installed;
mod job;
mod key;
mod pool;
mod print;
mod project;
mod queue;
mod registry;
mod rig;
mod secret;
mod stats;
mod up;

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::cli::admin::Failure;
use crate::config::{self, EXIT_USAGE, Reader};
use crate::shutdown::{self, Shutdown, Threads};
use crate::{agent, bridge, gateway, telemetry, worker};

/// Settings that `demo` and `bench` decide themselves, so their children are not told this process's.
const RIG_DECIDES: &[&str] = &[
    "FLOWS_GATEWAY_ENDPOINT",
    "FLOWS_ENDPOINT",
    "FLOWS_AGENT_POOL_ID",
    "FLOWS_AGENT_POOL_TOKEN",
    "FLOWS_PODMAN_MOUNTS_TEMPDIR",
    "SLUICE_DATA_DIR",
    "SLUICE_WORKERS",
    "SLUICE_WORKER_NUMBER",
    "SLUICE_GATEWAY_LISTEN",
    "SLUICE_GATEWAY_AGENT_LISTEN",
    "SLUICE_PUBLIC_URL",
    "SLUICE_ENDPOINT_DOMAIN",
    "SLUICE_PARENT_PIPE",
    "SLUICE_URL",
    "SLUICE_API_KEY",
];

/// Looks a setting up, in the environment or in a test's list.
pub type LookUp<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Debug, Parser)]
#[command(name = "sluice", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One thing a person can ask for.
#[derive(Debug, Subcommand)]
pub enum Command {
    Up(up::Up),
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
    /// Run the control plane: HTTP API and the agents' websocket.
    ///
    /// Example: SLUICE_GATEWAY_LISTEN=0.0.0.0:8080 sluice gateway
    Gateway,
    /// Run what executes a pool's jobs on this host: RabbitMQ, one bridge, several workers.
    ///
    /// Settings are read from the environment: FLOWS_GATEWAY_ENDPOINT,
    /// FLOWS_ENDPOINT, FLOWS_AGENT_POOL_ID, FLOWS_AGENT_POOL_TOKEN and those in
    /// docs/config.md.
    ///
    /// Example: SLUICE_WORKERS=4 sluice agent
    Agent,
    /// Run a bridge alone, with a broker of your own.
    ///
    /// Example: AMQP_URL=amqp://sluice:secret@broker/ sluice bridge
    Bridge,
    /// Run one worker alone, with a broker of your own.
    ///
    /// Example: AMQP_URL=amqp://sluice:secret@broker/ SLUICE_WORKER_NUMBER=1 sluice worker
    Worker,
    Bench(bench::Bench),
    /// Look into the queue between bridge and workers.
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Manage agent pools.
    #[command(subcommand)]
    Pool(pool::Pool),
    /// Manage projects.
    #[command(subcommand)]
    Project(project::Project),
    /// Manage apps and their versions.
    #[command(subcommand)]
    App(app::App),
    /// Follow registries and fetch app versions from them.
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Manage apps that are installed in projects.
    #[command(subcommand)]
    Installation(installation::Installation),
    /// Manage secrets of projects.
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Manage flows, run one, look at its events.
    #[command(subcommand)]
    Flow(flow::Flow),
    /// Manage API keys.
    #[command(subcommand)]
    Key(key::Key),
    /// Run jobs and look at them.
    #[command(subcommand)]
    Job(job::Job),
}

/// Reads the command line. `Err` is the exit code of a process that has nothing
/// more to do: help was printed, or what is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, i32> {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => Ok(arguments.command),
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            let _ = error.print();
            Err(if error.exit_code() == 0 {
                0
            } else {
                EXIT_USAGE
            })
        }
    }
}

// === impl Command ===

impl Command {
    /// Does what was asked for; answers with the exit code. Blocks.
    pub fn execute(self, look_up: LookUp<'_>) -> i32 {
        shutdown::start_executor(self.threads());
        let outcome = match self.role(look_up) {
            Some(role) => role.map(shutdown::run_role),
            None => async_std::task::block_on(self.dispatch(look_up)),
        };
        match outcome {
            Ok(code) => code,
            Err(failure) => {
                failure.print();
                failure.code()
            }
        }
    }

    fn threads(&self) -> Threads {
        match self {
            Self::Agent | Self::Bridge | Self::Worker => Threads::One,
            _ => Threads::Processors,
        }
    }

    /// What one process does until it is told to end; `None` for everything else.
    fn role(&self, look_up: LookUp<'_>) -> Option<Result<BoxFuture<'static, i32>, Failure>> {
        Some(match self {
            Self::Gateway => start(look_up, |reader| reader.gateway(), gateway::run),
            Self::Agent => start(look_up, |reader| reader.agent(), agent::run),
            Self::Bridge => start(look_up, |reader| reader.bridge(), bridge::run),
            Self::Worker => start(look_up, |reader| reader.worker(), worker::run),
            _ => return None,
        })
    }

    async fn dispatch(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        match self {
            Self::Gateway | Self::Agent | Self::Bridge | Self::Worker => match self.role(look_up) {
                Some(role) => Ok(role?.await),
                None => Ok(EXIT_USAGE),
            },
            Self::Up(up) => up.run(look_up).await,
            Self::Demo(demo) => {
                let (settings, shutdown) = role(look_up, rig_settings)?;
                Ok(demo.run(settings, shutdown).await)
            }
            Self::Bench(bench) => {
                let (settings, shutdown) = role(look_up, rig_settings)?;
                Ok(Box::pin(bench.run(settings, shutdown)).await)
            }
            Self::Doctor(doctor) => {
                configure(look_up, |_| ())?;
                Ok(doctor.run(look_up).await)
            }
            Self::Queue(queue) => queue.run(look_up).await,
            Self::Pool(pool) => pool.run(look_up).await,
            Self::Project(project) => project.run(look_up).await,
            Self::App(app) => app.run(look_up).await,
            Self::Registry(registry) => registry.run(look_up).await,
            Self::Installation(installation) => installation.run(look_up).await,
            Self::Secret(secret) => secret.run(look_up).await,
            Self::Flow(flow) => Box::pin(flow.run(look_up)).await,
            Self::Key(key) => key.run(look_up).await,
            Self::Job(job) => job.run(look_up).await,
        }
    }
}

/// Reads all settings of one command, tells all complaints at once, and starts telemetry.
fn configure<T>(
    look_up: LookUp<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> T,
) -> Result<T, config::Error> {
    let mut reader = Reader::new(look_up);
    let telemetry = reader.telemetry();
    let config = read(&mut reader);
    let (telemetry, config) = reader.finish((telemetry, config))?;
    telemetry::start(&telemetry);
    Ok(config)
}

/// The same for what runs until it is told to end.
fn role<T>(
    look_up: LookUp<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> T,
) -> Result<(T, Shutdown), Failure> {
    let (config, parent_pipe) = configure(look_up, |reader| (read(reader), reader.parent_pipe()))?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(anyhow::Error::from)?;
    if parent_pipe {
        shutdown.on_parent_end();
    }
    Ok((config, shutdown))
}

/// A role with its settings, ready to run.
fn start<T, F>(
    look_up: LookUp<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> T,
    run: impl FnOnce(T, Shutdown) -> F,
) -> Result<BoxFuture<'static, i32>, Failure>
where
    F: Future<Output = i32> + Send + 'static,
{
    let (config, shutdown) = role(look_up, read)?;
    let running = run(config, shutdown.clone());
    Ok(async move { shutdown.exit_code(running.await) }.boxed())
}

fn rig_settings(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let mut set = reader.set();
    set.retain(|(name, _)| !RIG_DECIDES.contains(&name.as_str()));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        let path = format!("{path} {}", command.get_name());
        let mut children = command.get_subcommands().peekable();
        if children.peek().is_none() {
            let about = command.get_long_about().unwrap_or_default().to_string();
            found.push((path.trim().to_owned(), about));
        }
        children.for_each(|child| leaves(child, &path, found));
    }

    /// The words of a shell line without its leading assignments; only single quotes quote.
    fn words(line: &str) -> Vec<OsString> {
        let mut words = Vec::new();
        for (index, part) in line.split('\'').enumerate() {
            if index % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        let from = words.iter().position(|word| word == "sluice").unwrap_or(0);
        words.drain(from..).map(OsString::from).collect()
    }

    #[test]
    fn verify_cli() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_text_has_an_example_that_parses() {
        let mut found = Vec::new();
        leaves(&Arguments::command(), "", &mut found);
        assert!(found.len() > 25, "{found:?}");
        for (command, about) in found {
            let example = about.split_once("Example: ").map(|(_, example)| example);
            let example = example.unwrap_or_else(|| panic!("`{command} --help` has no example"));
            assert!(
                example.contains(&command),
                "`{example}` is none of `{command}`"
            );
            assert!(parse(words(example)).is_ok(), "`{example}` does not parse");
        }
    }

    fn code(line: &str) -> i32 {
        match parse(line.split(' ').map(OsString::from)) {
            Ok(_) => 0,
            Err(code) => code,
        }
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        assert_eq!(code("sluice pool create"), EXIT_USAGE);
        assert_eq!(code("sluice nonsense"), EXIT_USAGE);
        assert_eq!(code("sluice job run --project p"), EXIT_USAGE);
        assert_eq!(code("sluice job run --project p --expression 1"), 0);
    }

    #[async_std::test]
    async fn all_complaints_come_at_once_with_the_usage_code() {
        let look_up = |name: &str| (name == "HOME").then(|| "/nowhere".to_owned());
        let command = parse(["sluice", "agent"].map(OsString::from)).expect("it parses");
        let failure = command
            .dispatch(&look_up)
            .await
            .expect_err("nothing is set");
        assert_eq!(failure.code(), EXIT_USAGE);
        let text = failure.to_string();
        for name in [
            "FLOWS_GATEWAY_ENDPOINT",
            "FLOWS_ENDPOINT",
            "FLOWS_AGENT_POOL_ID",
            "FLOWS_AGENT_POOL_TOKEN",
        ] {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn the_rig_decides_settings_that_exist() {
        for name in RIG_DECIDES {
            assert!(
                config::SETTINGS.iter().any(|setting| setting.name == *name),
                "{name}"
            );
        }
    }
}
