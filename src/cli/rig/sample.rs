//! What a rig's processes need: memory and descriptors, from `/proc`.

use std::collections::BTreeMap;

use crate::cli::rig::{Rig, process_ids};

/// What one role needs at one moment; of several processes the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Resident memory, in MiB.
    pub rss_mib: f64,
    /// Open file descriptors.
    pub fds: u64,
}

// === impl Rig ===

impl Rig {
    /// Every process of the rig, by role.
    pub fn samples(&self) -> BTreeMap<String, Sample> {
        let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
        let mut add = |role: &str, pid: u32| {
            let Some(rss_mib) = process_rss_mib(pid) else {
                return;
            };
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
                .map_or(0, |entries| entries.count() as u64);
            let most = samples
                .entry(role.to_owned())
                .or_insert(Sample { rss_mib, fds });
            most.rss_mib = most.rss_mib.max(rss_mib);
            most.fds = most.fds.max(fds);
        };
        add("gateway", self.gateway.id());
        if let Some(agent) = &self.agent {
            add("agent", agent.id());
            for (pid, role) in children_of(agent.id()) {
                add(&role, pid);
            }
        }
        samples
    }

    /// Resident memory of the rig's processes by role, in MiB.
    pub fn rss_mib(&self) -> BTreeMap<String, f64> {
        self.samples()
            .into_iter()
            .map(|(role, sample)| (role, (sample.rss_mib * 10.0).round() / 10.0))
            .collect()
    }
}

/// Direct children of a process and the role each plays: `bridge`, `worker`, `rabbitmq`, …
fn children_of(parent: u32) -> Vec<(u32, String)> {
    process_ids()
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let after_name = stat.rsplit_once(')')?.1;
            let ppid: u32 = after_name.split_whitespace().nth(1)?.parse().ok()?;
            if ppid != parent {
                return None;
            }
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<_> = line
                .split(|b| *b == 0)
                .map(String::from_utf8_lossy)
                .collect();
            let program = words.first()?.rsplit('/').next()?.to_owned();
            let role = match program.as_str() {
                "sluice" => words.get(1)?.to_string(),
                "beam.smp" => "rabbitmq".to_owned(),
                other => other.to_owned(),
            };
            Some((pid, role))
        })
        .collect()
}

fn process_rss_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
