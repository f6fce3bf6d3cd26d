//! `sluice queue …`: a look between bridge and workers that changes nothing.

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;
use serde_json::Value;

use sluice_proto::ids::PoolId;
use sluice_proto::queue::Names;

use crate::cli::admin::{Admin, Failure, segment};
use crate::cli::{LookUp, configure, print};
use crate::queue::inspect;

#[derive(Debug, Subcommand)]
pub enum Queue {
    /// Show the queues of a pool on this agent's broker.
    ///
    /// Reads the broker's address from AMQP_URL, or from the data directory of
    /// an agent that runs here.
    ///
    /// Example: sluice queue ls --json
    Ls {
        /// The pool's id; without it FLOWS_AGENT_POOL_ID, or the pool of the agent here.
        #[arg(long, value_name = "ID")]
        pool: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one job's way over every hop, with the time each took.
    ///
    /// Example: sluice queue trace 0198c0de-0000-7000-8000-000000000000
    Trace {
        /// The job's id.
        job: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

// === impl Queue ===

impl Queue {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        match self {
            Self::Ls { pool, json } => {
                let (amqp_url, pool) = place(look_up, pool)?;
                let views = inspect::ls(&amqp_url, &Names::of(&PoolId::from(pool)))
                    .await
                    .map_err(anyhow::Error::from)?;
                let views = serde_json::to_value(&views).context("write the queues as JSON")?;
                ls(json, &views);
            }
            Self::Trace { job, json } => {
                let admin = Admin::open(look_up)?;
                let path = format!("/api/v1/jobs/{}/trace", segment(&job));
                let trace = admin.get(&path).await?;
                if json {
                    print::line(&trace);
                } else {
                    print::line(hops(&trace));
                }
            }
        }
        Ok(0)
    }
}

/// The broker and the pool: as said, as set, or as the agent of the data directory keeps them.
fn place(look_up: LookUp<'_>, pool: Option<String>) -> Result<(String, String), Failure> {
    let (set, data_dir) = configure(look_up, |reader| (reader.set(), reader.data_dir()))?;
    let set = |name: &str| {
        let found = set.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let kept = |name: &str| kept(&data_dir, name);
    let amqp_url = set("AMQP_URL").or_else(|| kept("amqp-url")).ok_or_else(|| {
        Failure::Usage(format!(
            "AMQP_URL is not set, and no agent runs on {}: set one of AMQP_URL and SLUICE_DATA_DIR",
            data_dir.display()
        ))
    })?;
    let pool = pool
        .or_else(|| set("FLOWS_AGENT_POOL_ID"))
        .or_else(|| kept("pool-id"))
        .ok_or_else(|| Failure::Usage("say which pool with --pool ID".to_owned()))?;
    Ok((amqp_url, pool))
}

fn kept(data_dir: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join("agent").join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn ls(json: bool, views: &Value) {
    let columns = [
        ("QUEUE", "/role"),
        ("DEPTH", "/depth"),
        ("OLDEST S", "/oldest_s"),
        ("UNACKED", "/unacked"),
        ("CONSUMERS", "/consumers"),
        ("IN/S", "/in_per_s"),
        ("OUT/S", "/out_per_s"),
    ];
    print::list(json, views, &columns);
}

/// A trace as lines: time since the previous hop, moment, name.
fn hops(trace: &Value) -> String {
    let hops = trace["hops"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut rows = vec![
        ["SINCE PREVIOUS", "AT", "ATTEMPT", "HOP"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(hops.iter().map(|hop| {
        let since = hop["since_previous_us"].as_f64().unwrap_or(0.0) / 1_000.0;
        vec![
            format!("{since:>11.3} ms"),
            print::moment(hop["at_us"].as_i64()),
            print::cell(hop.get("attempt")),
            print::cell(hop.get("name")),
        ]
    }));
    print::table(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trace_shows_each_hop_with_its_time() {
        let trace = json!({"hops": [
            {"name": "created", "at_us": 1_000_000},
            {"name": "published", "at_us": 1_001_500, "since_previous_us": 1_500, "attempt": "1.1"},
        ]});
        let text = hops(&trace);
        let last = text.lines().last().expect("lines");
        assert!(
            last.contains("1.500 ms") && last.contains("1.1") && last.ends_with("published"),
            "{text}"
        );
    }

    #[test]
    fn the_place_is_told_or_found_in_the_agents_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().display().to_string();
        let look_up = |name: &str| (name == "SLUICE_DATA_DIR").then(|| data.clone());
        let failure = place(&look_up, None).expect_err("no agent");
        assert!(
            failure.to_string().contains("AMQP_URL is not set"),
            "{failure}"
        );
        std::fs::create_dir(dir.path().join("agent")).expect("made");
        std::fs::write(dir.path().join("agent/amqp-url"), "amqp://x\n").expect("written");
        std::fs::write(dir.path().join("agent/pool-id"), "p").expect("written");
        let found = place(&look_up, None).expect("found");
        assert_eq!(found, ("amqp://x".to_owned(), "p".to_owned()));
        let said = place(&look_up, Some("q".into())).expect("said");
        assert_eq!(said.1, "q");
    }
}
