//! Why a job is where it is: one word for machines, one sentence for people. Pure.

use serde_json::Value;
use sluice_proto::queue::{HeldJob, Presence, RetriedJob, WorkerState};

use crate::pause::Order;
use crate::queue::graves::Grave;

/// Everything known of one job.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// The gateway's job object.
    pub job: Value,
    /// The worker that holds it, and what it says of it.
    pub held: Option<(&'a str, &'a HeldJob)>,
    pub retried: Option<&'a RetriedJob>,
    pub grave: Option<&'a Grave>,
    pub order: Option<Order>,
    /// Workers heard of lately.
    pub workers: &'a [Presence],
    /// Messages ready in the work queues; `None`: the broker cannot be asked.
    pub ready: Option<u64>,
    /// Why the broker cannot be asked, if so.
    pub no_broker: Option<String>,
    pub now_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    pub reason: String,
    pub sentence: String,
}

/// The first thing that explains where the job is.
pub fn why(facts: &Facts<'_>) -> Why {
    let job = &facts.job;
    let state = job["state"].as_str().unwrap_or_default();
    if matches!(state, "succeeded" | "failed" | "cancelled") {
        return ended(facts, state);
    }
    if let Some((worker, held)) = facts.held {
        return in_flight(facts, worker, held);
    }
    if let Some(reason) = job["cancelling"]["reason"].as_str() {
        return say(
            "cancelling",
            format!("its end was asked for ({reason}), and its agent has not answered yet"),
        );
    }
    match state {
        "queued" => say(
            job["waiting"]["reason"].as_str().unwrap_or("queued"),
            job["waiting"]["sentence"]
                .as_str()
                .unwrap_or("it waits in the gateway for an agent")
                .to_owned(),
        ),
        "dispatched" => say(
            "on_its_way",
            "the gateway has handed it to an agent, whose broker has not confirmed it yet"
                .to_owned(),
        ),
        _ => in_queue(facts),
    }
}

fn ended(facts: &Facts<'_>, state: &str) -> Why {
    let outcome = &facts.job["outcome"];
    let grave = match facts.grave {
        Some(_) => "; its message is kept in the dead letters",
        None => "",
    };
    match (state, outcome["cause"].as_str()) {
        ("succeeded", _) => say("succeeded", "it has ended and succeeded".to_owned()),
        ("cancelled", _) => {
            let reason = outcome["reason"].as_str().unwrap_or("no reason was said");
            say("cancelled", format!("it was cancelled: {reason}"))
        }
        (_, cause) => {
            let message = outcome["message"].as_str().unwrap_or("no message");
            say(
                cause.unwrap_or("failed"),
                format!("it failed: {message}{grave}"),
            )
        }
    }
}

fn in_flight(facts: &Facts<'_>, worker: &str, held: &HeldJob) -> Why {
    if !held.running {
        return say(
            "waiting_for_slot",
            format!("worker {worker} holds it, and all its slots are taken"),
        );
    }
    let elapsed_s = facts.now_us.saturating_sub(held.since_us) as f64 / 1e6;
    let Some(runtime) = &held.runtime else {
        let presence = facts.workers.iter().find(|known| known.worker == worker);
        let trouble = presence.and_then(|known| known.refusing.as_deref());
        return say(
            "waiting_for_runtime",
            match trouble {
                Some(why) => {
                    format!("worker {worker} has waited for a runtime for {elapsed_s:.1} s: {why}")
                }
                None => format!("worker {worker} has waited for a runtime for {elapsed_s:.1} s"),
            },
        );
    };
    let line = match &held.last_line {
        Some(line) => format!("; its last line is: {line}"),
        None => "; it has logged nothing".to_owned(),
    };
    let container = &runtime.container;
    let sentence = format!("worker {worker} has run it for {elapsed_s:.1} s in {container}{line}");
    if elapsed_s * 1e3 > f64::from(held.timeout_ms) {
        return say(
            "overdue",
            format!(
                "{sentence}; it is over its time of {} ms and about to be ended",
                held.timeout_ms
            ),
        );
    }
    say("running", sentence)
}

/// The agent's broker took it, and no worker holds it.
fn in_queue(facts: &Facts<'_>) -> Why {
    if let Some(retried) = facts.retried {
        return say(
            "retrying",
            format!(
                "its attempt {} ended with {}, and it is tried again in a moment",
                retried.attempt, retried.cause
            ),
        );
    }
    if let Some(grave) = facts.grave {
        let reason = grave.reason.as_deref().unwrap_or("no reason is noted");
        return say(
            "dead",
            format!(
                "its message is in the dead letters ({}: {reason}), and the gateway has not heard of its end yet",
                grave.cause
            ),
        );
    }
    if let Some(why) = &facts.no_broker {
        return say(
            "broker_unreachable",
            format!("its agent's broker cannot be asked: {why}"),
        );
    }
    if let Some(order) = &facts.order {
        return say("paused", order.sentence());
    }
    let alive: Vec<_> = facts
        .workers
        .iter()
        .filter(|worker| worker.state != WorkerState::Stopped)
        .collect();
    let taking =
        |worker: &&&Presence| worker.state == WorkerState::Running && worker.refusing.is_none();
    if alive.is_empty() {
        return say(
            "no_worker",
            "no worker of the pool is alive on this broker".to_owned(),
        );
    }
    if alive.iter().filter(taking).count() == 0 {
        let why = alive.iter().find_map(|worker| worker.refusing.as_deref());
        return say(
            "workers_take_nothing",
            format!(
                "none of {} workers takes work: {}",
                alive.len(),
                why.unwrap_or("they are starting or draining")
            ),
        );
    }
    let ready = facts.ready.unwrap_or(0);
    if ready > 0 {
        let slots: u32 = alive.iter().map(|worker| worker.slots).sum();
        let busy: u32 = alive.iter().map(|worker| worker.in_flight).sum();
        return say(
            "in_queue",
            format!(
                "it waits in the broker's queue with {ready} jobs ready there; {busy} of {slots} slots of {} workers are busy",
                alive.len()
            ),
        );
    }
    say(
        "unaccounted",
        "no worker holds it and the broker's queue is empty: it moves just now, or is lost; `sluice queue check` looks twice".to_owned(),
    )
}

fn say(reason: &str, sentence: String) -> Why {
    Why {
        reason: reason.to_owned(),
        sentence,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_proto::ids::JobId;
    use sluice_proto::job::Attempt;
    use sluice_proto::report::{Cause, Origin, RuntimeUse};

    use super::*;
    use crate::pause::Mode;

    fn worker(refusing: Option<&str>) -> Presence {
        Presence {
            worker: "w".into(),
            state: WorkerState::Running,
            slots: 4,
            in_flight: 4,
            runtimes: 1,
            refusing: refusing.map(str::to_owned),
            at_us: 0,
            link: 1,
            holds: None,
        }
    }

    fn accepted() -> Facts<'static> {
        Facts {
            job: json!({"state": "accepted"}),
            ready: Some(0),
            now_us: 10_000_000,
            ..Facts::default()
        }
    }

    fn held() -> HeldJob {
        HeldJob {
            job: JobId::from("j"),
            attempt: Attempt::default(),
            kind: "event".into(),
            identity: String::new(),
            running: true,
            since_us: 5_000_000,
            timeout_ms: 60_000,
            runtime: Some(RuntimeUse {
                container: "c".into(),
                origin: Origin::Warm,
            }),
            last_line: Some("hello".into()),
        }
    }

    #[test]
    fn what_waits_in_the_gateway_says_the_gateways_reason() {
        let mut facts = accepted();
        facts.job = json!({"state": "queued", "waiting": {"reason": "no_agent_connected", "sentence": "no agent"}});
        assert_eq!(why(&facts).reason, "no_agent_connected");
        facts.job = json!({"state": "dispatched"});
        assert_eq!(why(&facts).reason, "on_its_way");
    }

    #[test]
    fn what_a_worker_holds_says_what_it_does() {
        let mut facts = accepted();
        let job = held();
        facts.held = Some(("w", &job));
        let found = why(&facts);
        assert_eq!(found.reason, "running");
        assert!(
            found
                .sentence
                .contains("5.0 s in c; its last line is: hello"),
            "{}",
            found.sentence
        );
        let late = HeldJob {
            timeout_ms: 1_000,
            ..held()
        };
        facts.held = Some(("w", &late));
        assert_eq!(why(&facts).reason, "overdue");
        let no_runtime = HeldJob {
            runtime: None,
            ..held()
        };
        let workers = [worker(Some("no image"))];
        facts.workers = &workers;
        facts.held = Some(("w", &no_runtime));
        assert!(why(&facts).sentence.contains("no image"));
        let waits = HeldJob {
            running: false,
            ..held()
        };
        facts.held = Some(("w", &waits));
        assert_eq!(why(&facts).reason, "waiting_for_slot");
    }

    #[test]
    fn what_nobody_holds_says_the_first_thing_to_mend() {
        let mut facts = accepted();
        assert_eq!(why(&facts).reason, "no_worker");
        let refusing = [worker(Some("the disk is full"))];
        facts.workers = &refusing;
        assert!(why(&facts).sentence.contains("the disk is full"));
        let taking = [worker(None)];
        facts.workers = &taking;
        assert_eq!(why(&facts).reason, "unaccounted");
        facts.ready = Some(3);
        assert!(why(&facts).sentence.contains("4 of 4 slots"));
        facts.order = Some(Order::new(Mode::Paused, "", 0));
        assert_eq!(why(&facts).reason, "paused");
        facts.no_broker = Some("refused".into());
        assert_eq!(why(&facts).reason, "broker_unreachable");
        let retried = RetriedJob {
            job: JobId::from("j"),
            attempt: Attempt::default(),
            cause: Cause::Collateral,
            at_us: 0,
        };
        facts.retried = Some(&retried);
        assert_eq!(why(&facts).reason, "retrying");
    }

    #[test]
    fn what_has_ended_says_how() {
        let mut facts = accepted();
        facts.job = json!({"state": "failed", "outcome": {"cause": "threw", "message": "boom"}});
        assert_eq!(why(&facts), say("threw", "it failed: boom".into()));
        facts.job = json!({"state": "cancelled", "outcome": {"reason": "enough"}});
        assert_eq!(why(&facts).reason, "cancelled");
    }
}
