//! What a rig's processes need: memory and descriptors, from `/proc`.

use std::collections::BTreeMap;

use crate::cli::rig::{Rig, owners, process_ids};

/// What one role needs at one moment; of several processes the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Resident memory, in MiB. Half of it is the program's own file, which all
    /// processes of the rig share.
    pub rss_mib: f64,
    /// The part of it that is nobody else's (`RssAnon`), in MiB.
    pub private_mib: f64,
    /// Open file descriptors.
    pub fds: u64,
}

// === impl Rig ===

impl Rig {
    /// Every process of the rig, by role.
    pub fn samples(&self) -> BTreeMap<String, Sample> {
        let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
        let mut add = |role: &str, pid: u32| {
            let Some((rss_mib, private_mib)) =
                status_mib(pid, "VmRSS:").zip(status_mib(pid, "RssAnon:"))
            else {
                return;
            };
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
                .map_or(0, |entries| entries.count() as u64);
            let most = samples.entry(role.to_owned()).or_insert(Sample {
                rss_mib,
                private_mib,
                fds,
            });
            most.private_mib = most.private_mib.max(private_mib);
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
        self.by_role(|sample| sample.rss_mib)
    }

    /// The same without what the processes share.
    pub fn private_mib(&self) -> BTreeMap<String, f64> {
        self.by_role(|sample| sample.private_mib)
    }

    fn by_role(&self, of: impl Fn(&Sample) -> f64) -> BTreeMap<String, f64> {
        self.samples()
            .into_iter()
            .map(|(role, sample)| (role, (of(&sample) * 10.0).round() / 10.0))
            .collect()
    }

    /// Processor time that the rig's living processes have used, in milliseconds,
    /// by role; `runtimes` is what ran in containers.
    pub fn cpu_ms(&self) -> BTreeMap<String, f64> {
        let used = self.cpu_us([]).into_iter();
        used.filter(|(role, _)| role != "bench")
            .map(|(role, us)| (role, us as f64 / 1_000.0))
            .collect()
    }

    /// CPU time that the rig's processes have used so far, by role, in
    /// microseconds: `bench` is this process, `runtimes` what runs in containers,
    /// and `workers` are those without a bridge.
    pub fn cpu_us(&self, workers: impl IntoIterator<Item = u32>) -> BTreeMap<String, u64> {
        let mut spent: BTreeMap<String, u64> = BTreeMap::new();
        let mut add = |role: &str, pid: u32| {
            *spent.entry(role.to_owned()).or_default() += spent_us(pid).unwrap_or(0);
        };
        add("bench", std::process::id());
        add("gateway", self.gateway.id());
        if let Some(agent) = &self.agent {
            add("agent", agent.id());
            for (pid, role) in children_of(agent.id()) {
                add(&role, pid);
            }
        }
        workers.into_iter().for_each(|pid| add("worker", pid));
        for pid in self.runtimes_of(&owners(self.dir.path())) {
            add("runtimes", pid);
        }
        spent
    }

    /// How many runtimes are stopped at present.
    pub fn paused_runtimes(&self) -> usize {
        let is_stopped = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')')
                .is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
        };
        let runtimes = self.runtimes_of(&owners(self.dir.path()));
        runtimes.iter().filter(|pid| is_stopped(pid)).count()
    }

    /// Proportional memory of all containers of the rig's agent, with their
    /// monitors, in MiB; and how many containers that are.
    pub fn runtimes_pss_mib(&self) -> (f64, usize) {
        let id = std::fs::read_to_string(self.dir.path().join("agent/id")).unwrap_or_default();
        let agent = [id.trim().to_owned()];
        let (inside, monitors) = (self.runtimes_of(&agent), monitors(&agent));
        let mib = monitors
            .iter()
            .chain(&inside)
            .filter_map(|pid| pss_mib(*pid));
        (mib.sum(), inside.len())
    }

    /// First processes of the containers of the agents with these ids.
    fn runtimes_of(&self, agents: &[String]) -> Vec<u32> {
        let monitors = monitors(agents);
        process_ids()
            .filter(|pid| parent_of(*pid).is_some_and(|parent| monitors.contains(&parent)))
            .collect()
    }
}

/// The monitors of the containers of agents with these ids.
fn monitors(agents: &[String]) -> Vec<u32> {
    let names: Vec<String> = agents
        .iter()
        .map(|id| {
            let mut tail: Vec<char> = id.chars().filter(char::is_ascii_alphanumeric).collect();
            tail.drain(..tail.len().saturating_sub(8));
            format!("sluice-{}-", tail.into_iter().collect::<String>())
        })
        .collect();
    let is_ours = |word: &String| names.iter().any(|name| word.starts_with(name));
    process_ids()
        .filter(|pid| words(*pid).iter().any(is_ours))
        .collect()
}

/// CPU time of a process and its threads, which Linux counts there in
/// hundredths of a second.
fn spent_us(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
    Some((ticks(fields.next())? + ticks(fields.next())?) * 10_000)
}

/// The command line of a process.
fn words(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn pss_mib(pid: u32) -> Option<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kib_in(&rollup, "Pss:").map(|kib| kib / 1024.0)
}

/// Direct children of a process and the role each plays: `bridge`, `worker`, `rabbitmq`, …
fn children_of(parent: u32) -> Vec<(u32, String)> {
    process_ids()
        .filter_map(|pid| {
            if parent_of(pid)? != parent {
                return None;
            }
            let words = words(pid);
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

fn status_mib(pid: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib_in(&status, name).map(|kib| kib / 1024.0)
}

fn kib_in(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
