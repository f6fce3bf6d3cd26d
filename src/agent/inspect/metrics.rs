//! The metrics as Prometheus reads them: pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use sluice_proto::queue::{TALLY_BUCKETS_MS, Tally, WorkerState};

use crate::agent::inspect::queues::Overview;

/// What is counted beside an overview.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    pub tallies: Vec<Tally>,
    /// To the broker, and to the gateway.
    pub reconnects: (u64, u64),
    /// `starting`, `running` or `draining`; `None`: no agent runs here.
    pub state: Option<String>,
    /// The agent's children, and whether each runs.
    pub processes: Vec<(String, bool)>,
}

/// The content type that goes with [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One exposition.
pub fn text(overview: &Overview, counted: &Counted) -> String {
    let mut page = Page::default();
    queues(&mut page, overview);
    jobs(&mut page, &counted.tallies);
    workers(&mut page, overview);
    page.family(
        "sluice_reconnects_total",
        "counter",
        "Connections that were made again.",
    );
    page.line(
        "sluice_reconnects_total",
        &[("to", "broker")],
        counted.reconnects.0,
    );
    page.line(
        "sluice_reconnects_total",
        &[("to", "gateway")],
        counted.reconnects.1,
    );
    if let Some(now) = &counted.state {
        page.family(
            "sluice_agent_state",
            "gauge",
            "1 for the state the agent is in.",
        );
        for state in ["starting", "running", "draining"] {
            page.line(
                "sluice_agent_state",
                &[("state", state)],
                u64::from(state == now),
            );
        }
    }
    page.family(
        "sluice_process_up",
        "gauge",
        "Whether a process of the agent runs.",
    );
    for (process, up) in &counted.processes {
        page.line("sluice_process_up", &[("process", process)], u64::from(*up));
    }
    page.text
}

fn queues(page: &mut Page, overview: &Overview) {
    page.family("sluice_queue_depth", "gauge", "Messages ready in a queue.");
    for view in &overview.queues {
        if let Some(depth) = view.depth {
            page.line("sluice_queue_depth", &[("queue", view.role)], depth);
        }
    }
    page.family(
        "sluice_queue_unacked",
        "gauge",
        "Messages in the hands of a consumer.",
    );
    for view in &overview.queues {
        if let Some(unacked) = view.unacked {
            page.line("sluice_queue_unacked", &[("queue", view.role)], unacked);
        }
    }
    let help = "Age of the oldest job that waits, the signal to scale by; 0 if none does.";
    page.family("sluice_queue_oldest_age_seconds", "gauge", help);
    for (place, state) in [("gateway", "queued"), ("agent", "accepted")] {
        let oldest = overview.gateway["states"][state]["oldest_us"].as_u64();
        let age = oldest.map_or(0.0, |at| overview.now_us.saturating_sub(at) as f64 / 1e6);
        page.line("sluice_queue_oldest_age_seconds", &[("at", place)], age);
    }
    page.family(
        "sluice_pool_jobs",
        "gauge",
        "Jobs of the pool that have not ended, by state.",
    );
    for (state, value) in overview.gateway["states"].as_object().into_iter().flatten() {
        let jobs = value["jobs"].as_u64().unwrap_or(0);
        page.line("sluice_pool_jobs", &[("state", state)], jobs);
    }
    page.family("sluice_dead_letters", "gauge", "Dead letters, by cause.");
    for cause in &overview.dead {
        let name = cause["cause"].as_str().unwrap_or_default();
        page.line(
            "sluice_dead_letters",
            &[("cause", name)],
            cause["jobs"].as_u64().unwrap_or(0),
        );
    }
}

fn jobs(page: &mut Page, tallies: &[Tally]) {
    page.family(
        "sluice_jobs_ended_total",
        "counter",
        "Jobs that ended, by kind and outcome.",
    );
    for tally in tallies {
        let labels = [("kind", tally.kind.as_str()), ("outcome", &tally.outcome)];
        page.line("sluice_jobs_ended_total", &labels, tally.jobs);
    }
    const NAME: &str = "sluice_job_duration_seconds";
    page.family(NAME, "histogram", "From delivery to a worker to the end.");
    let mut kinds = BTreeMap::<&str, (Vec<u64>, u64, u64)>::new();
    for tally in tallies {
        let sum = kinds.entry(&tally.kind).or_default();
        sum.0.resize(TALLY_BUCKETS_MS.len() + 1, 0);
        for (sum, more) in sum.0.iter_mut().zip(&tally.buckets) {
            *sum += more;
        }
        sum.1 += tally.took_us;
        sum.2 += tally.jobs;
    }
    for (kind, (buckets, took_us, jobs)) in kinds {
        let mut below = 0;
        for (border_ms, count) in TALLY_BUCKETS_MS.iter().zip(&buckets) {
            below += count;
            let border = (*border_ms as f64 / 1e3).to_string();
            page.line(
                &format!("{NAME}_bucket"),
                &[("kind", kind), ("le", &border)],
                below,
            );
        }
        page.line(
            &format!("{NAME}_bucket"),
            &[("kind", kind), ("le", "+Inf")],
            jobs,
        );
        page.line(
            &format!("{NAME}_sum"),
            &[("kind", kind)],
            took_us as f64 / 1e6,
        );
        page.line(&format!("{NAME}_count"), &[("kind", kind)], jobs);
    }
}

fn workers(page: &mut Page, overview: &Overview) {
    let workers = &overview.workers;
    page.family(
        "sluice_workers",
        "gauge",
        "Workers heard of lately, by state.",
    );
    let states = [
        ("starting", WorkerState::Starting),
        ("running", WorkerState::Running),
        ("draining", WorkerState::Draining),
    ];
    for (name, state) in states {
        let count = workers
            .iter()
            .filter(|worker| worker.state == state && worker.refusing.is_none());
        page.line("sluice_workers", &[("state", name)], count.count());
    }
    let refusing = workers.iter().filter(|worker| worker.refusing.is_some());
    page.line("sluice_workers", &[("state", "refusing")], refusing.count());
    let sum = |of: fn(&sluice_proto::queue::Presence) -> u32| -> u64 {
        workers.iter().map(|worker| u64::from(of(worker))).sum()
    };
    page.family(
        "sluice_slots",
        "gauge",
        "Jobs that workers can run at once.",
    );
    page.line("sluice_slots", &[], sum(|worker| worker.slots));
    page.family(
        "sluice_jobs_in_flight",
        "gauge",
        "Jobs that workers run now.",
    );
    page.line("sluice_jobs_in_flight", &[], sum(|worker| worker.in_flight));
    page.family("sluice_runtimes", "gauge", "Runtimes, by state.");
    let mut runtimes = BTreeMap::<&str, u64>::new();
    let (mut memory, mut cpu_us) = (0, 0);
    for holds in workers.iter().filter_map(|worker| worker.holds.as_ref()) {
        for (state, count) in &holds.runtimes {
            *runtimes.entry(state).or_default() += u64::from(*count);
        }
        for container in &holds.containers {
            memory += container.memory_bytes;
            cpu_us += container.cpu_us;
        }
    }
    for (state, count) in runtimes {
        page.line("sluice_runtimes", &[("state", state)], count);
    }
    page.family(
        "sluice_busy_runtimes_memory_bytes",
        "gauge",
        "Memory of runtimes at work.",
    );
    page.line("sluice_busy_runtimes_memory_bytes", &[], memory);
    page.family(
        "sluice_busy_runtimes_cpu_seconds",
        "gauge",
        "CPU time of runtimes at work.",
    );
    page.line("sluice_busy_runtimes_cpu_seconds", &[], cpu_us as f64 / 1e6);
}

#[derive(Default)]
struct Page {
    text: String,
}

// === impl Page ===

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::inspect::health::tests::overview;

    #[test]
    fn a_histogram_is_cumulative_and_sums_up_all_outcomes() {
        let tally = |outcome: &str, buckets: [u64; 3]| Tally {
            kind: "event".into(),
            outcome: outcome.into(),
            jobs: buckets.iter().sum(),
            took_us: 1_500_000,
            buckets: buckets.to_vec(),
        };
        let counted = Counted {
            tallies: vec![tally("succeeded", [1, 2, 0]), tally("threw", [0, 0, 4])],
            reconnects: (2, 1),
            state: Some("running".into()),
            processes: vec![("bridge".into(), true)],
        };
        let mut overview = overview();
        overview.now_us = 5_000_000;
        overview.gateway["states"] = json!({"accepted": {"jobs": 3, "oldest_us": 1_000_000}});
        let text = text(&overview, &counted);
        for line in [
            "sluice_jobs_ended_total{kind=\"event\",outcome=\"threw\"} 4",
            "sluice_job_duration_seconds_bucket{kind=\"event\",le=\"0.001\"} 1",
            "sluice_job_duration_seconds_bucket{kind=\"event\",le=\"0.005\"} 7",
            "sluice_job_duration_seconds_bucket{kind=\"event\",le=\"+Inf\"} 7",
            "sluice_job_duration_seconds_sum{kind=\"event\"} 3",
            "sluice_queue_oldest_age_seconds{at=\"agent\"} 4",
            "sluice_queue_oldest_age_seconds{at=\"gateway\"} 0",
            "sluice_reconnects_total{to=\"broker\"} 2",
            "sluice_agent_state{state=\"running\"} 1",
            "sluice_agent_state{state=\"draining\"} 0",
            "sluice_process_up{process=\"bridge\"} 1",
            "sluice_workers{state=\"running\"} 1",
            "sluice_slots 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_family_is_described_once_before_its_lines() {
        let text = text(&overview(), &Counted::default());
        let types: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let unique: std::collections::BTreeSet<_> = types.iter().collect();
        assert_eq!(types.len(), unique.len());
        assert_eq!(escaped("a\"b\\\n"), "a\\\"b\\\\\\n");
    }
}
