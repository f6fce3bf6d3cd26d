//! The first start of a private node, until all that it made is written down.
//!
//! ```text
//!  no data ──begin──▶ marked ──finish: queues declared and registered──▶ done
//!                       │
//!                       └──agent or node killed──▶ begin: data removed, marked again
//! ```
//!
//! A node registers its quorum queues and the coordinator of its streams in
//! files (`names.dets`, of its library ra) that it writes up to three seconds
//! later. One that is killed before that knows of such a queue and does not find
//! its data again: the queue waits for a leader for ever (seen with 3.10). So no
//! job is taken before all is registered, and a node whose first start was cut
//! off is made anew, which loses nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_std::task;
use sluice_proto::queue::Names;

use crate::agent::files::write_private;
use crate::queue::{Link, quorum_queues};
use crate::shutdown::unblock;

/// What an Erlang node of ours runs beside RabbitMQ: it has those files written
/// ten times a second, if anything in them changed. Without a space, as the
/// start script splits at spaces.
pub const WRITE_NAMES: &str = "spawn(fun()->F=fun(S)->timer:sleep(100),\
    dets:sync(ra_directory_reverse),dets:sync(ra_coordination_directory_reverse),S(S)end,F(F)end).";

/// Says that a first start is under way.
const MARK: &str = "first-start";
/// How long a node that answers may take to declare everything.
const DECLARE_MAX: Duration = Duration::from_secs(60);
const DECLARE_EVERY: Duration = Duration::from_millis(500);
/// How long until all is written where nobody asks for it: thrice what it takes.
const WRITE_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The coordinator of streams, as a node registers it.
const COORDINATOR: &str = "rabbit_stream_coordinator";

/// Before a start: marks one that will be the first, and makes way for it where
/// the last one was cut off.
pub fn begin(dir: &Path) -> anyhow::Result<()> {
    let data = data(dir);
    if is_under_way(dir) && data.exists() {
        tracing::warn!(
            dir = %data.display(),
            "The first start of RabbitMQ was cut off before any job was taken; it is made anew"
        );
        std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
    }
    if is_empty(&data).with_context(|| format!("look into {}", data.display()))? {
        write_private(&dir.join(MARK), "")?;
    }
    Ok(())
}

// What cannot be looked into is not empty: it may hold jobs.
fn is_empty(dir: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the node that runs here is at its first start.
pub fn is_under_way(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

/// Declares what the pool needs, waits until it is registered, and takes the
/// mark away.
pub async fn finish(dir: &Path, node: &str, amqp_url: &str, names: &Names) -> anyhow::Result<()> {
    declare(amqp_url, names).await?;
    let queues = quorum_queues(names).map(str::to_owned).to_vec();
    let mut wanted = vec![
        (registry(dir, node, "quorum"), queues),
        (
            registry(dir, node, "coordination"),
            vec![COORDINATOR.to_owned()],
        ),
    ];
    let since = Instant::now();
    while !wanted.is_empty() && since.elapsed() < WRITE_MAX {
        task::sleep(LOOK_EVERY).await;
        wanted = unblock(move || {
            wanted.retain(|(file, names)| !has_all(file, names));
            wanted
        })
        .await;
    }
    if !wanted.is_empty() {
        tracing::debug!(?wanted, "It is not seen that these are registered");
    }
    std::fs::remove_file(dir.join(MARK)).context("take the mark of the first start away")
}

async fn declare(amqp_url: &str, names: &Names) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        match Link::connect(amqp_url, "agent, first start", names).await {
            Ok(link) => {
                link.close().await;
                return Ok(());
            }
            Err(error) if since.elapsed() >= DECLARE_MAX || !error.is_transient() => {
                return Err(error).context("declare the pool's queues");
            }
            Err(error) => {
                tracing::debug!(%error, "Not all is declared yet; trying again");
                task::sleep(DECLARE_EVERY).await;
            }
        }
    }
}

fn data(dir: &Path) -> PathBuf {
    dir.join("mnesia")
}

fn registry(dir: &Path, node: &str, system: &str) -> PathBuf {
    data(dir)
        .join(node)
        .join(system)
        .join(node)
        .join("names.dets")
}

fn has_all(file: &Path, names: &[String]) -> bool {
    let content = std::fs::read(file).unwrap_or_default();
    names.iter().all(|name| {
        let mut places = content.windows(name.len());
        places.any(|place| place == name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_data(dir: &Path) {
        std::fs::create_dir_all(data(dir).join("node")).expect("made");
    }

    #[test]
    fn only_a_node_without_data_is_at_its_first_start() {
        let dir = tempfile::tempdir().expect("a directory");
        with_data(dir.path());
        begin(dir.path()).expect("looked at");
        assert!(!is_under_way(dir.path()), "one from before this was known");
        assert!(data(dir.path()).join("node").exists(), "it keeps its data");
    }

    #[test]
    fn data_that_cannot_be_looked_at_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(data(dir.path()), "").expect("a file in its place");
        begin(dir.path()).expect_err("it is no directory");
        assert!(!is_under_way(dir.path()), "a later start removes nothing");
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        begin(dir.path()).expect("begun");
        assert!(is_under_way(dir.path()));
        with_data(dir.path());
        begin(dir.path()).expect("begun again");
        assert!(!data(dir.path()).exists(), "half of what it needs");
        assert!(is_under_way(dir.path()));
    }

    #[test]
    fn a_name_is_found_among_what_a_node_has_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = registry(dir.path(), "n@h", "quorum");
        let has = |name: &str| has_all(&file, &[name.to_owned()]);
        assert!(!has("sluice.p.jobs"), "there is no file");
        std::fs::create_dir_all(file.parent().expect("it has one")).expect("made");
        std::fs::write(&file, b"\x00w\x11%2F_sluice.p.jobsm\x00").expect("written");
        assert!(has("sluice.p.jobs"));
        assert!(!has("sluice.p.reports"));
    }

    #[test]
    fn the_start_script_takes_the_expression_as_one_word() {
        assert!(!WRITE_NAMES.contains(char::is_whitespace), "{WRITE_NAMES}");
        assert!(WRITE_NAMES.ends_with('.'), "{WRITE_NAMES}");
    }
}
