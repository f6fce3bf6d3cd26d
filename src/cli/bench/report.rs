//! The results of a run for people: a table in Markdown and a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::cli::bench::depth::GROWTH_MIB_MAX;
use crate::cli::bench::flows::EXECUTIONS_PER_S_MIN;
use crate::cli::bench::plot;

/// Name of the table that is written.
const TABLE: &str = "performance.md";
/// Name of the plot.
const PLOT: &str = "performance.svg";

/// One row of "Numbers to hold".
struct Row {
    what: &'static str,
    target: String,
    measured: String,
    /// `None`: there is nothing to compare.
    holds: Option<bool>,
}

/// Writes both files into `dir`, and makes it if need be.
pub async fn write(dir: &Path, summary: &Value, command: &str) -> anyhow::Result<()> {
    let files = [
        (dir.join(TABLE), markdown(summary, command)),
        (dir.join(PLOT), plot::svg(&bars(summary))),
    ];
    let dir = dir.to_owned();
    crate::shutdown::unblock(move || {
        std::fs::create_dir_all(&dir)?;
        files
            .iter()
            .try_for_each(|(path, text)| std::fs::write(path, text))
    })
    .await
    .context("write the report")
}

/// The whole page.
pub fn markdown(summary: &Value, command: &str) -> String {
    let load = shown(number(summary, "/load_average"));
    let mut page = format!(
        "# Performance\n\nEvery figure of one run of `{command}`, a release build, real processes and \
         containers, durable queues and confirms. Client, broker, gateway, workers and Node share the \
         machine, so compare figures of one run with each other. The load average as it began was {load}: \
         anything near or above the number of cores means that others had their share.\n\n\
         | | target | measured | |\n|---|---|---|---|\n"
    );
    for row in rows(summary) {
        let verdict = match row.holds {
            Some(true) => "holds",
            Some(false) => "**missed**",
            None => "not measured",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {verdict} |",
            row.what, row.target, row.measured
        );
    }
    page.push_str(&costs(summary));
    page.push_str(&steps(summary));
    page.push_str(
        "\n![Rates and latencies of the same run](performance.svg)\n\n## All figures\n\n```json\n",
    );
    let _ = writeln!(page, "{summary:#}\n```");
    page
}

/// Processor time of one job by process. On busy processors the throughput is
/// their number divided by the sum, whoever else uses the machine.
fn costs(summary: &Value) -> String {
    let of = |key: &str| summary[key].as_object();
    let (Some(pipeline), api) = (of("pipeline_cpu_us_per_job"), of("api_cpu_us_per_job")) else {
        return String::new();
    };
    let mut text = String::from(
        "\n## What one job costs\n\nProcessor time in microseconds. On busy processors the throughput \
         is their number divided by the last row.\n\n| | broker to report | API to result |\n|---|---|---|\n",
    );
    let mut roles: Vec<&String> = pipeline
        .keys()
        .chain(api.into_iter().flat_map(|api| api.keys()))
        .collect();
    roles.sort_by_key(|role| (role.as_str() == "all", role.as_str()));
    roles.dedup();
    for role in roles {
        let us = |figures: Option<&serde_json::Map<String, Value>>| {
            figures
                .and_then(|figures| figures.get(role))
                .map_or_else(String::new, Value::to_string)
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {role} | {} | {} |", us(Some(pipeline)), us(api));
    }
    text
}

/// The parts of a cold start.
fn steps(summary: &Value) -> String {
    const WHAT: [(&str, &str); 5] = [
        ("create", "Podman makes the container"),
        ("start", "Podman starts it: runc, namespaces, mounts"),
        (
            "boot",
            "Node boots and loads the harness, until it connects",
        ),
        (
            "hello",
            "the harness looks at its own posture and says Hello",
        ),
        (
            "load",
            "the identity is loaded, with its bundle if it has one",
        ),
    ];
    if summary["cold_steps_ms"].is_null() {
        return String::new();
    }
    let mut text =
        String::from("\n## Where a cold start's time goes\n\n| step | p50, ms |\n|---|---|\n");
    for (step, what) in WHAT {
        let ms = shown(number(summary, &format!("/cold_steps_ms/{step}")));
        let _ = writeln!(text, "| {what} | {ms} |");
    }
    text
}

fn number(summary: &Value, path: &str) -> Option<f64> {
    summary.pointer(path)?.as_f64()
}

fn rows(summary: &Value) -> Vec<Row> {
    let of = |path: &str| number(summary, path);
    let latency = |what, key: &str, p50_max: f64, p99_max: f64| {
        let (p50, p99) = (of(&format!("/{key}/p50")), of(&format!("/{key}/p99")));
        Row {
            what,
            target: format!("p50 ≤ {p50_max} ms, p99 ≤ {p99_max} ms"),
            measured: format!("p50 {} ms, p99 {} ms", shown(p50), shown(p99)),
            holds: p50
                .zip(p99)
                .map(|(p50, p99)| p50 <= p50_max && p99 <= p99_max),
        }
    };
    let mut rows = vec![
        latency(
            "warm job, broker to confirmed report",
            "broker_to_report_ms",
            2.5,
            10.0,
        ),
        latency(
            "warm job, API to result, stored durably",
            "api_to_result_ms",
            5.0,
            25.0,
        ),
        most(
            summary,
            "first call of an installation, p50",
            "/stem_first_call_ms/p50",
            20.0,
            "ms",
        ),
        cold(summary),
        pipeline(summary),
        Row {
            what: "throughput through the gateway's store",
            target: "≥ 2,500 jobs/s".into(),
            measured: format!("{} jobs/s", shown(of("/api_jobs_per_s"))),
            holds: of("/api_jobs_per_s").map(|rate| rate >= 2_500.0),
        },
        chain(summary),
        killed_chain(summary),
    ];
    rows.extend(memory(summary));
    rows.push(most(
        summary,
        "call on a paused runtime, p50",
        "/resume_ms/p50",
        30.0,
        "ms",
    ));
    rows.push(crowd(summary));
    rows.extend(depth(summary));
    rows.push(faults(summary));
    rows
}

/// A row whose figure is to be at most `limit`.
fn most(summary: &Value, what: &'static str, path: &str, limit: f64, unit: &str) -> Row {
    let value = number(summary, path);
    Row {
        what,
        target: format!("≤ {limit} {unit}"),
        measured: format!("{} {unit}", shown(value)),
        holds: value.map(|value| value <= limit),
    }
}

fn memory(summary: &Value) -> Vec<Row> {
    vec![
        most(
            summary,
            "resident memory of the bridge",
            "/rss_mib/bridge",
            25.0,
            "MiB",
        ),
        most(
            summary,
            "resident memory of a worker",
            "/rss_mib/worker",
            25.0,
            "MiB",
        ),
        most(
            summary,
            "private memory of the bridge",
            "/private_mib/bridge",
            25.0,
            "MiB",
        ),
        most(
            summary,
            "private memory of a worker",
            "/private_mib/worker",
            25.0,
            "MiB",
        ),
        most(
            summary,
            "resident memory of the gateway",
            "/rss_mib/gateway",
            80.0,
            "MiB",
        ),
        most(
            summary,
            "one of ten idle runtimes, PSS",
            "/runtime_pss_mib",
            15.0,
            "MiB",
        ),
    ]
}

fn cold(summary: &Value) -> Row {
    let cold = number(summary, "/cold_ms/p50");
    let floor = number(summary, "/podman_run_ms/p50");
    Row {
        what: "cold runtime, job to report, p50",
        target: format!("≤ 0.6 × `podman run` ({} ms)", shown(floor)),
        measured: format!("{} ms", shown(cold)),
        holds: cold.zip(floor).map(|(cold, floor)| cold <= 0.6 * floor),
    }
}

fn pipeline(summary: &Value) -> Row {
    let rate = number(summary, "/pipeline_jobs_per_s");
    let share = number(summary, "/pipeline_share_of_two_hop");
    Row {
        what: "throughput, broker to confirmed report",
        target: "≥ 6,000 jobs/s and ≥ 0.5 of two bare hops".into(),
        measured: format!("{} jobs/s, {} of two hops", shown(rate), shown(share)),
        holds: rate
            .zip(share)
            .map(|(rate, share)| rate >= 6_000.0 && share >= 0.5),
    }
}

fn crowd(summary: &Value) -> Row {
    let share = number(summary, "/crowd/longest_by_mean");
    Row {
        what: "100 identities with 20 jobs each on 12 runtimes",
        target: "all end, none waits more than 3 × the mean".into(),
        measured: format!(
            "{} jobs/s, the longest wait {} × the mean",
            shown(number(summary, "/crowd/jobs_per_s")),
            shown(share)
        ),
        holds: share.map(|share| share <= 3.0),
    }
}

/// Measured by `--all` alone.
fn depth(summary: &Value) -> Vec<Row> {
    let start = number(summary, "/depth/urgent_start_ms_max");
    let queued = number(summary, "/depth/queued");
    let growth =
        ["bridge", "worker"].map(|role| number(summary, &format!("/depth/growth_mib/{role}")));
    let most = growth.into_iter().flatten().reduce(f64::max);
    vec![
        Row {
            what: "memory of bridge and workers with 1,000,000 queued jobs",
            target: format!("does not grow (≤ {GROWTH_MIB_MAX} MiB)"),
            measured: format!("by {} MiB with {} jobs", shown(most), shown(queued)),
            holds: most.map(|mib| mib <= GROWTH_MIB_MAX),
        },
        Row {
            what: "start of an urgent job past all of them, slowest",
            target: "≤ 1 s".into(),
            measured: format!("{} ms", shown(start)),
            holds: start.map(|ms| ms <= 1_000.0),
        },
    ]
}

/// Measured by `--all` alone.
fn faults(summary: &Value) -> Row {
    let lost = number(summary, "/faults/lost");
    let recovery = number(summary, "/faults/recovery_s_max");
    Row {
        what: "every process killed while jobs run",
        target: "0 jobs lost, consuming again ≤ 5 s".into(),
        measured: format!(
            "{} lost of {}, again after {} s",
            shown(lost),
            shown(number(summary, "/faults/jobs")),
            shown(recovery)
        ),
        holds: lost.zip(recovery).map(|(lost, s)| lost == 0.0 && s <= 5.0),
    }
}

fn chain(summary: &Value) -> Row {
    let rate = number(summary, "/flow_executions_per_s");
    Row {
        what: "flow: 1,000 events through a chain of ten blocks",
        target: format!("≥ {EXECUTIONS_PER_S_MIN} block executions/s"),
        measured: format!("{}/s", shown(rate)),
        holds: rate.map(|rate| rate >= EXECUTIONS_PER_S_MIN),
    }
}

fn killed_chain(summary: &Value) -> Row {
    let of = |key: &str| number(summary, &format!("/flow_killed/{key}"));
    let (rate, lost, repeated) = (of("per_s"), of("lost"), of("repeated"));
    Row {
        what: "the same with the gateway killed half way",
        target: format!("≥ {EXECUTIONS_PER_S_MIN}/s, none lost, none twice"),
        measured: format!(
            "{}/s, {} lost and {} twice of {}, again after {} s",
            shown(rate),
            shown(lost),
            shown(repeated),
            shown(of("executions")),
            shown(of("recovery_s"))
        ),
        holds: rate
            .zip(lost)
            .zip(repeated)
            .map(|((rate, lost), twice)| rate >= EXECUTIONS_PER_S_MIN && lost + twice == 0.0),
    }
}

fn shown(value: Option<f64>) -> String {
    match value {
        None => "?".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{}", (value * 100.0).round() / 100.0),
    }
}

fn bars(summary: &Value) -> Vec<plot::Chart> {
    let bar = |name: &str, path: &str| {
        number(summary, path).map(|value| plot::Bar {
            name: name.to_owned(),
            value,
        })
    };
    let chart = |title: &str, unit: &'static str, bars: Vec<Option<plot::Bar>>| plot::Chart {
        title: title.to_owned(),
        unit,
        bars: bars.into_iter().flatten().collect(),
    };
    vec![
        chart(
            "Throughput",
            "per second",
            vec![
                bar("two bare hops", "/two_hop_per_s"),
                bar("broker to report", "/pipeline_jobs_per_s"),
                bar("API to result", "/api_jobs_per_s"),
                bar("blocks of a flow", "/flow_executions_per_s"),
                bar("BullMQ, sandboxed", "/floors/bullmq/per_s"),
            ],
        ),
        chart(
            "Latency, p50",
            "ms",
            vec![
                bar("warm, broker to report", "/broker_to_report_ms/p50"),
                bar("warm, API to result", "/api_to_result_ms/p50"),
                bar("first call, on a stem", "/stem_first_call_ms/p50"),
                bar("first call, cold", "/cold_ms/p50"),
                bar("podman run, Node hello", "/podman_run_ms/p50"),
            ],
        ),
        chart(
            "API to result with so many identities, p50",
            "ms",
            vec![
                bar("1", "/identities/1/p50"),
                bar("10", "/identities/10/p50"),
                bar("100", "/identities/100/p50"),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_whether_its_target_holds() {
        let summary = json!({
            "broker_to_report_ms": {"p50": 2.0, "p99": 12.0},
            "cold_ms": {"p50": 90.0}, "podman_run_ms": {"p50": 200.0},
            "pipeline_jobs_per_s": 6_100.0, "pipeline_share_of_two_hop": 0.6,
            "pipeline_cpu_us_per_job": {"all": 200.0, "worker": 60.0},
            "api_cpu_us_per_job": {"all": 500.0, "gateway": 150.0},
            "cold_steps_ms": {"create": 8.0, "start": 50.0},
            "flow_executions_per_s": 900.0,
            "flow_killed": {"executions": 10_000, "per_s": 700.0, "lost": 0, "repeated": 1, "recovery_s": 1.2},
        });
        let rows = rows(&summary);
        let holds = |what: &str| {
            let row = rows.iter().find(|row| row.what.contains(what));
            row.expect("there is such a row").holds
        };
        assert_eq!(
            holds("broker to confirmed report"),
            Some(false),
            "the p99 is over"
        );
        assert_eq!(holds("cold"), Some(true));
        assert_eq!(holds("throughput, broker"), Some(true));
        assert_eq!(holds("bridge"), None, "it was not measured");
        assert_eq!(holds("chain of ten blocks"), Some(true));
        assert_eq!(holds("gateway killed half way"), Some(false), "one twice");
        let page = markdown(&summary, "sluice bench");
        assert!(
            page.contains("**missed**") && page.contains("p99 12 ms"),
            "{page}"
        );
        let (gateway, all) = ("| gateway |  | 150.0 |", "| all | 200.0 | 500.0 |");
        assert!(
            page.find(gateway) < page.find(all) && page.contains(gateway),
            "{page}"
        );
        assert!(
            page.contains("| Podman makes the container | 8 |"),
            "{page}"
        );
    }
}
