//! How jobs look from outside: the job object, its trace, its outcome.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sluice_proto::job::Attempt;
use sluice_proto::report::{Failure, Hops, Outcome};

use crate::gateway::dispatch::Waiting;
use crate::store::calls::Call;
use crate::store::jobs::{Ending, LogSize, Progress, Spec, Tried};

/// The job object without its outcome.
fn object(spec: &Spec, progress: &Progress) -> Map<String, Value> {
    let attempt = Attempt {
        dispatch: progress.dispatch,
        delivery: progress.delivery,
    };
    let value = json!({
        "id": spec.id,
        "kind": spec.kind,
        "state": progress.state.as_str(),
        "pool": spec.pool,
        "project": spec.project,
        "priority": if spec.high { "high" } else { "normal" },
        "block": spec.block,
        "attempt": (progress.dispatch > 0).then(|| attempt.to_string()),
        "worker": progress.worker.as_deref(),
        "container": progress.container.as_deref(),
        "origin": progress.origin,
        "created_us": spec.created_us,
        "finished_us": progress.finished_us,
    });
    match value {
        Value::Object(mut object) => {
            if let Some(original) = &spec.replay_of {
                object.insert("replay_of".into(), json!(original));
            }
            object
        }
        _ => Map::new(),
    }
}

/// A job that has not ended, or an entry of a list.
pub fn live(spec: &Spec, progress: &Progress, waiting: Option<Waiting>) -> Value {
    let mut object = object(spec, progress);
    if !progress.state.is_final()
        && let Some(reason) = progress.cancel_reason.as_deref()
    {
        object.insert("cancelling".into(), json!({"reason": reason}));
    }
    if let Some(waiting) = waiting {
        object.insert(
            "waiting".into(),
            json!({"reason": waiting.reason, "sentence": waiting.sentence}),
        );
    }
    Value::Object(object)
}

/// A job that has ended, as JSON text. The outcome is passed on as it came:
/// nobody parses a result on its way.
pub fn ended(spec: &Spec, progress: &Progress, ending: &Ending) -> Vec<u8> {
    let mut object = object(spec, progress);
    object.insert("log_bytes_dropped".into(), ending.log_bytes_dropped.into());
    object.insert("sdk_calls".into(), ending.sdk_calls.into());
    let mut text = Value::Object(object).to_string().into_bytes();
    text.pop();
    text.extend_from_slice(b",\"outcome\":");
    text.extend_from_slice(&ending.outcome);
    text.push(b'}');
    text
}

/// The outcome at rest. A result that is no JSON has become a failure before.
pub fn outcome(outcome: &Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Succeeded { result } => {
            let mut text = Vec::with_capacity(result.len() + 12);
            text.extend_from_slice(b"{\"result\":");
            text.extend_from_slice(result);
            text.push(b'}');
            text
        }
        Outcome::Failed(failure) => failed(failure).to_string().into_bytes(),
        Outcome::Cancelled { reason } => json!({"reason": reason}).to_string().into_bytes(),
    }
}

fn failed(failure: &Failure) -> Value {
    let mut value = json!({"cause": failure.cause.as_str(), "message": failure.message});
    if let Some(stack) = &failure.stack {
        value["stack"] = json!(stack);
    }
    if let Some(key) = &failure.key {
        value["key"] = json!(key);
    }
    value
}

/// The hops an agent noted, at rest.
pub fn hops(hops: &Hops) -> String {
    let noted = [
        ("received", hops.received_us),
        ("published", hops.published_us),
        ("delivered", hops.delivered_us),
        ("claimed", hops.claimed_us),
        ("started", hops.started_us),
        ("finished", hops.finished_us),
        ("relayed", hops.relayed_us),
    ];
    let object: Map<String, Value> = noted
        .into_iter()
        .filter(|(_, at)| *at > 0)
        .map(|(name, at)| (name.to_owned(), at.into()))
        .collect();
    Value::Object(object).to_string()
}

/// Every hop of a job by time. Gateway and agent may stand on hosts whose clocks differ.
pub fn trace(spec: &Spec, progress: &Progress, ending: Option<&Ending>) -> Value {
    let mut hops = vec![("created".to_owned(), spec.created_us)];
    let mut note = |name: &str, at: Option<u64>| hops.extend(at.map(|at| (name.to_owned(), at)));
    note("dispatched", progress.dispatched_us);
    note("accepted", progress.accepted_us);
    note("reported", progress.finished_us);
    let noted = ending
        .and_then(|ending| serde_json::from_str::<Map<String, Value>>(&ending.hops).ok())
        .unwrap_or_default();
    if !noted.contains_key("started") {
        note("started", progress.started_us);
    }
    for (name, at) in &noted {
        note(name, at.as_u64());
    }
    hops.sort_by_key(|(_, at)| *at);
    let attempt = Attempt {
        dispatch: progress.dispatch,
        delivery: progress.delivery,
    };
    let mut previous = spec.created_us;
    let hops: Vec<Value> = hops
        .into_iter()
        .map(|(name, at)| {
            let since = at.saturating_sub(previous);
            previous = at;
            let mut hop = json!({"name": name, "at_us": at, "since_previous_us": since});
            if name != "created" {
                hop["attempt"] = json!(attempt.to_string());
            }
            hop
        })
        .collect();
    json!({
        "job": spec.id,
        "kind": spec.kind,
        "state": progress.state.as_str(),
        "attempt": (progress.dispatch > 0).then(|| attempt.to_string()),
        "worker": progress.worker.as_deref(),
        "container": progress.container.as_deref(),
        "origin": progress.origin,
        "replay_of": spec.replay_of,
        "log_bytes_dropped": ending.map(|ending| ending.log_bytes_dropped),
        "hops": hops,
    })
}

/// Adds the starts of earlier attempts to the hops, each in its place.
pub fn add_tried(trace: &mut Value, tried: &[Tried]) {
    let Some(hops) = trace["hops"].as_array_mut() else {
        return;
    };
    hops.extend(tried.iter().map(|tried| {
        json!({
            "name": "started",
            "at_us": tried.started_us,
            "attempt": format!("{}.{}", tried.dispatch, tried.delivery),
            "worker": tried.worker.as_deref(),
            "container": tried.container.as_deref(),
            "origin": tried.origin,
        })
    }));
    hops.sort_by_key(|hop| hop["at_us"].as_u64());
    let mut previous = None;
    for hop in hops {
        let at = hop["at_us"].as_u64().unwrap_or(0);
        hop["since_previous_us"] = at.saturating_sub(previous.unwrap_or(at)).into();
        previous = Some(at);
    }
}

/// Adds what each attempt of a job left behind: its SDK calls and its log.
pub fn add_traces(trace: &mut Value, calls: &[Call], logs: &[LogSize]) {
    let mut attempts = BTreeMap::<(u32, u32), (u64, u64, u64)>::new();
    for log in logs {
        let entry = attempts.entry((log.dispatch, log.delivery)).or_default();
        (entry.0, entry.1) = (log.lines, log.bytes);
    }
    let mut listed = Vec::with_capacity(calls.len());
    for call in calls {
        let number = &call.number;
        let entry = attempts.entry((number.dispatch, number.delivery));
        entry.or_default().2 += 1;
        listed.push(json!({
            "number": number.number,
            "attempt": format!("{}.{}", number.dispatch, number.delivery),
            "method": call.method,
            "at_us": call.at_us,
            "error": call.error,
        }));
    }
    trace["calls"] = listed.into();
    trace["log_bytes"] = logs.iter().map(|log| log.bytes).sum::<u64>().into();
    trace["attempts"] = attempts
        .into_iter()
        .map(|((dispatch, delivery), (lines, bytes, calls))| {
            json!({
                "attempt": format!("{dispatch}.{delivery}"),
                "log_lines": lines,
                "log_bytes": bytes,
                "calls": calls,
            })
        })
        .collect();
}

#[cfg(test)]
mod tests {
    use sluice_proto::report::Cause;

    use crate::store::calls::Number;

    use super::*;

    fn spec() -> Spec {
        Spec {
            seq: 1,
            id: "j".into(),
            pool: "p".into(),
            project: "r".into(),
            kind: "evaluate".into(),
            high: false,
            identity: "{}".into(),
            block: None,
            timeout_ms: 1,
            expires_ms: None,
            created_us: 10,
            purpose: None,
            replay_of: None,
        }
    }

    #[test]
    fn an_earlier_attempt_s_start_stands_where_it_was() {
        let mut trace = json!({"hops": [
            {"name": "created", "at_us": 10}, {"name": "started", "at_us": 90, "attempt": "1.2"},
        ]});
        let tried = Tried {
            job: 1,
            dispatch: 1,
            delivery: 1,
            started_us: 40,
            worker: Some("w".into()),
            container: None,
            origin: Some("cold"),
        };
        add_tried(&mut trace, &[tried]);
        let hops = trace["hops"].as_array().expect("hops");
        let seen: Vec<_> = hops
            .iter()
            .map(|hop| (hop["at_us"].clone(), hop["since_previous_us"].clone()))
            .collect();
        let expected = [(10, 0), (40, 30), (90, 50)].map(|(at, since)| (json!(at), json!(since)));
        assert_eq!(seen, expected);
        assert_eq!(
            (&hops[1]["attempt"], &hops[1]["worker"]),
            (&json!("1.1"), &json!("w"))
        );
    }

    #[test]
    fn a_result_is_passed_on_as_it_came() {
        let ending = Ending {
            outcome: outcome(&Outcome::Succeeded {
                result: br#"{"z":1,"a":[1.0]}"#.to_vec(),
            })
            .into(),
            hops: "{}".into(),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        };
        let text = ended(&spec(), &Progress::queued(), &ending);
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(
            text.ends_with(r#","outcome":{"result":{"z":1,"a":[1.0]}}}"#),
            "{text}"
        );
        serde_json::from_str::<Value>(&text).expect("JSON");
    }

    #[test]
    fn a_trace_is_sorted_and_holds_what_was_noted() {
        let progress = Progress {
            dispatch: 2,
            delivery: 1,
            dispatched_us: Some(11),
            accepted_us: Some(15),
            finished_us: Some(20),
            ..Progress::queued()
        };
        let ending = Ending {
            outcome: outcome(&Outcome::Failed(Failure::new(Cause::Threw, "x"))).into(),
            hops: hops(&Hops {
                received_us: 12,
                published_us: 12,
                delivered_us: 13,
                claimed_us: 14,
                started_us: 16,
                finished_us: 17,
                relayed_us: 18,
            }),
            log_bytes_dropped: 0,
            sdk_calls: 0,
        };
        let trace = trace(&spec(), &progress, Some(&ending));
        let hops = trace["hops"].as_array().expect("a list");
        let times: Vec<_> = hops.iter().map(|hop| hop["at_us"].as_u64()).collect();
        assert!(times.is_sorted() && times.len() == 11, "{trace}");
        assert_eq!(hops[3]["attempt"], "2.1");
    }

    #[test]
    fn a_trace_tells_attempts_apart_by_what_they_left() {
        let mut trace = json!({});
        let number = |dispatch, number| Number {
            job: 1,
            dispatch,
            delivery: 1,
            number,
        };
        let calls = [number(1, 0), number(2, 0), number(2, 1)].map(|number| Call {
            number,
            at_us: 5,
            method: "kv.app.get".into(),
            args: None,
            answer: None,
            error: None,
        });
        let log = LogSize {
            dispatch: 1,
            delivery: 1,
            lines: 3,
            bytes: 40,
        };
        add_traces(&mut trace, &calls, &[log]);
        let expected = json!([
            {"attempt": "1.1", "log_lines": 3, "log_bytes": 40, "calls": 1},
            {"attempt": "2.1", "log_lines": 0, "log_bytes": 0, "calls": 2},
        ]);
        assert_eq!(
            (&trace["attempts"], &trace["log_bytes"]),
            (&expected, &json!(40))
        );
    }
}
