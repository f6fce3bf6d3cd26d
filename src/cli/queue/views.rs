//! How the queue's views look to a person. Pure: values in, text out.

use serde_json::Value;

use crate::cli::print::{cell, list, moment, record, table};

/// The queues of an overview, and what could not be asked.
pub fn queues(overview: &Value) -> String {
    let columns = [
        ("QUEUE", "/role"),
        ("DEPTH", "/depth"),
        ("OLDEST S", "/oldest_s"),
        ("UNACKED", "/unacked"),
        ("CONSUMERS", "/consumers"),
        ("IN/S", "/in_per_s"),
        ("OUT/S", "/out_per_s"),
    ];
    let mut text = table(rows(&overview["queues"], &columns));
    for place in ["queued", "accepted", "started"] {
        let jobs = &overview["gateway"]["states"][place]["jobs"];
        if !jobs.is_null() {
            text.push_str(&format!("\n{place} at the gateway: {jobs}"));
        }
    }
    if let Some(order) = overview["order"].as_object() {
        text.push_str(&format!(
            "\n{}: {}",
            cell(order.get("mode")),
            cell(order.get("reason"))
        ));
    }
    for why in overview["unknown"].as_array().into_iter().flatten() {
        text.push_str(&format!("\nnot known: {}", cell(Some(why))));
    }
    text
}

pub fn peek(json: bool, place: &str, seen: &Value) {
    if json {
        return crate::cli::print::line(seen);
    }
    let columns: &[(&str, &str)] = match place {
        "ready" => &[
            ("JOB", "/id"),
            ("KIND", "/kind"),
            ("ATTEMPT", "/attempt"),
            ("PROJECT", "/project"),
            ("BLOCK", "/block"),
        ],
        "in-flight" => &[
            ("JOB", "/job"),
            ("KIND", "/kind"),
            ("ATTEMPT", "/attempt"),
            ("WORKER", "/worker"),
            ("ELAPSED MS", "/elapsed_ms"),
            ("CONTAINER", "/runtime/container"),
            ("LAST LINE", "/last_line"),
        ],
        "retry" => &[
            ("JOB", "/job"),
            ("ATTEMPT", "/attempt"),
            ("CAUSE", "/cause"),
        ],
        _ => &[
            ("JOB", "/job"),
            ("KIND", "/kind"),
            ("CAUSE", "/cause"),
            ("REASON", "/reason"),
        ],
    };
    list(false, &seen["jobs"], columns);
    for job in seen["jobs"].as_array().into_iter().flatten() {
        if let Some(payload) = job.get("payload") {
            let id = job.get("id").or_else(|| job.get("job"));
            crate::cli::print::line(format!("\n{}\n{payload:#}", cell(id)));
        }
    }
}

pub fn dead(json: bool, grouped: bool, dead: &Value) {
    if grouped {
        return list(json, dead, &[("CAUSE", "/cause"), ("JOBS", "/jobs")]);
    }
    let columns = [
        ("JOB", "/job"),
        ("KIND", "/kind"),
        ("CAUSE", "/cause"),
        ("DELIVERIES", "/deliveries"),
        ("REASON", "/reason"),
    ];
    list(json, dead, &columns);
}

/// A trace as lines: time since the previous hop, moment, attempt, name; then what was left behind.
pub fn trace(trace: &Value) -> String {
    let mut rows = vec![
        ["SINCE PREVIOUS", "AT", "ATTEMPT", "HOP"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut moments: Vec<(u64, Vec<String>)> = Vec::new();
    for hop in items(&trace["hops"]) {
        let name = hop_name(hop, trace);
        moments.push((
            hop["at_us"].as_u64().unwrap_or(0),
            vec![cell(hop.get("attempt")), name],
        ));
    }
    for call in items(&trace["calls"]) {
        let failed = if call["error"].is_null() {
            ""
        } else {
            ", refused"
        };
        let name = format!("  SDK call {}{failed}", cell(call.get("method")));
        moments.push((
            call["at_us"].as_u64().unwrap_or(0),
            vec![cell(call.get("attempt")), name],
        ));
    }
    moments.sort_by_key(|(at, _)| *at);
    let mut previous = moments.first().map_or(0, |(at, _)| *at);
    for (at, cells) in moments {
        let since = at.saturating_sub(previous) as f64 / 1_000.0;
        previous = at;
        let mut row = vec![format!("{since:>11.3} ms"), moment(i64::try_from(at).ok())];
        row.extend(cells);
        rows.push(row);
    }
    let mut text = table(rows);
    let facts = [
        "state",
        "worker",
        "container",
        "replay_of",
        "log_bytes",
        "log_bytes_dropped",
    ];
    for name in facts {
        if !trace[name].is_null() {
            text.push_str(&format!(
                "\n{}: {}",
                name.replace('_', " "),
                cell(trace.get(name))
            ));
        }
    }
    for attempt in items(&trace["attempts"]) {
        text.push_str(&format!(
            "\nattempt {}: {} lines of log ({} bytes), {} SDK calls",
            cell(attempt.get("attempt")),
            attempt["log_lines"],
            attempt["log_bytes"],
            attempt["calls"]
        ));
    }
    text
}

pub fn why(why: &Value) -> String {
    format!("{}: {}", cell(why.get("reason")), cell(why.get("sentence")))
}

fn hop_name(hop: &Value, trace: &Value) -> String {
    match (hop["name"].as_str(), trace["origin"].as_str()) {
        (Some("claimed"), Some(origin)) => format!("claimed ({origin} runtime)"),
        // An attempt that was given up ran elsewhere than the trace's own.
        (Some(name), _) if hop["worker"].is_string() => format!(
            "{name} ({} runtime {} of {})",
            cell(hop.get("origin")),
            cell(hop.get("container")),
            cell(hop.get("worker"))
        ),
        (name, _) => name.unwrap_or_default().to_owned(),
    }
}

pub fn check(report: &Value) -> String {
    let places = ["ready", "in_flight", "retry", "dead"];
    let counts = places.map(|place| format!("{} {}", report[place], place.replace('_', " ")));
    let verdict = if report["ok"] == true {
        "Each is in one place."
    } else {
        "Not all are in one place."
    };
    let mut text = format!(
        "{} accepted jobs: {}. {} missing, {} too many. {verdict}",
        report["accepted"],
        counts.join(", "),
        report["missing"],
        report["surplus"],
    );
    for finding in items(&report["findings"]) {
        text.push_str(&format!(
            "\n{}  {}: {}",
            cell(finding.get("job")),
            cell(finding.get("reason")),
            cell(finding.get("sentence"))
        ));
    }
    text
}

pub fn event(event: &Value) -> String {
    format!(
        "{}  {}  {:10}  {:8}  {}",
        moment(event["at_us"].as_i64()),
        cell(event.get("job")),
        cell(event.get("state")),
        cell(event.get("kind")),
        cell(event.get("attempt")),
    )
}

/// Jobs that this host has not finished; `None` when it is not known.
pub fn left(overview: &Value) -> Option<u64> {
    let queues = items(&overview["queues"]);
    let mut left = 0;
    for role in ["jobs", "jobs.high", "retry", "retry.high", "reports"] {
        left += queues.iter().find(|view| view["role"] == role)?["depth"].as_u64()?;
    }
    for worker in items(&overview["workers"]) {
        left += worker["holds"]["jobs_total"].as_u64()?;
    }
    Some(left)
}

/// One dead letter's fate.
pub fn fates(json: bool, answers: &Value) {
    let columns = [
        ("JOB", "/job"),
        ("REPLAYED AS", "/replayed_as"),
        ("REMOVED", "/removed"),
        ("ERROR", "/error"),
    ];
    list(json, answers, &columns);
}

pub fn one_run(json: bool, run: &Value) {
    let fields = [
        ("job", "/job"),
        ("result", "/outcome/result"),
        ("cause", "/outcome/cause"),
        ("message", "/outcome/message"),
        ("container", "/container"),
        ("runtime", "/origin"),
        ("took ms", "/took_ms"),
    ];
    record(json, run, &fields);
}

fn rows(items_: &Value, columns: &[(&str, &str)]) -> Vec<Vec<String>> {
    let titles = columns
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    let rows = items(items_).iter().map(|item| {
        let cells = columns.iter().map(|(_, path)| match item.pointer(path) {
            Some(Value::Number(number)) if number.is_f64() => {
                format!("{:.1}", number.as_f64().unwrap_or(0.0))
            }
            value => cell(value),
        });
        cells.collect()
    });
    std::iter::once(titles).chain(rows).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trace_shows_each_hop_and_call_in_order() {
        let value = json!({
            "origin": "warm",
            "hops": [
                {"name": "created", "at_us": 1_000_000},
                {"name": "claimed", "at_us": 1_001_500, "attempt": "1.1"},
                {"name": "finished", "at_us": 1_003_500, "attempt": "1.1"},
            ],
            "calls": [{"method": "kv.app.get", "at_us": 1_002_000, "attempt": "1.1", "error": null}],
            "attempts": [{"attempt": "1.1", "log_lines": 2, "log_bytes": 9, "calls": 1}],
        });
        let text = trace(&value);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[2].contains("1.500 ms") && lines[2].ends_with("claimed (warm runtime)"),
            "{text}"
        );
        assert!(
            lines[3].ends_with("SDK call kv.app.get") && lines[4].ends_with("finished"),
            "{text}"
        );
        assert!(
            text.ends_with("attempt 1.1: 2 lines of log (9 bytes), 1 SDK calls"),
            "{text}"
        );
    }

    #[test]
    fn what_is_left_is_known_only_when_everybody_was_asked() {
        let queue = |role: &str, depth: u64| json!({"role": role, "depth": depth});
        let roles = ["jobs", "jobs.high", "retry", "retry.high", "reports"];
        let mut overview = json!({
            "queues": roles.map(|role| queue(role, 2)),
            "workers": [{"holds": {"jobs_total": 5}}],
        });
        assert_eq!(left(&overview), Some(15));
        overview["workers"][0]["holds"] = Value::Null;
        assert_eq!(left(&overview), None);
    }

    #[test]
    fn a_check_names_what_is_wrong() {
        let report = json!({
            "ok": false, "accepted": 2, "ready": 0, "in_flight": 1, "retry": 0, "dead": 0,
            "missing": 1, "surplus": 0,
            "findings": [{"job": "j", "reason": "missing", "sentence": "nowhere"}],
        });
        let text = check(&report);
        assert!(
            text.contains("Not all") && text.ends_with("j  missing: nowhere"),
            "{text}"
        );
    }
}
