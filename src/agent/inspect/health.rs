//! Whether an agent is well, and why not: pure.

use serde::Serialize;
use sluice_proto::queue::WorkerState;

use crate::agent::inspect::queues::Overview;

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Nothing is wrong.
    pub healthy: bool,
    /// It takes work now.
    pub ready: bool,
    /// `starting`, `running` or `draining`.
    pub state: String,
    /// What is wrong, the first thing to mend first.
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub reason: &'static str,
    pub sentence: String,
    /// False for what somebody wants so: paused is not broken.
    pub wrong: bool,
}

/// Judges an overview; `agent` is this agent's id, by which the gateway knows it.
pub fn judge(overview: &Overview, state: &str, agent: &str) -> Health {
    let mut reasons = Vec::new();
    let mut say = |reason, sentence: String, wrong| {
        reasons.push(Reason {
            reason,
            sentence,
            wrong,
        });
    };
    for why in &overview.unknown {
        say("unreachable", why.clone(), true);
    }
    let agents = overview.gateway["agents"].as_array();
    let ours =
        |agents: &Vec<serde_json::Value>| agents.iter().find(|one| one["agent"] == agent).cloned();
    match agents.map(ours) {
        Some(None) => say(
            "not_connected",
            "the gateway sees no session of this agent: its bridge is not connected".to_owned(),
            true,
        ),
        Some(Some(own)) => {
            if let Some(why) = own["refusing"].as_str() {
                say("refusing", why.to_owned(), overview.order.is_none());
            }
        }
        None => {}
    }
    let workers = &overview.workers;
    let taking = workers
        .iter()
        .filter(|worker| worker.state == WorkerState::Running && worker.refusing.is_none())
        .count();
    if workers.is_empty() {
        say("no_worker", "no worker is alive".to_owned(), true);
    }
    for worker in workers {
        if let Some(why) = &worker.refusing {
            let sentence = format!("worker {} takes no work: {why}", worker.worker);
            say("worker_refuses", sentence, overview.order.is_none());
        }
    }
    if let Some(order) = &overview.order {
        let mode = order["mode"].as_str().unwrap_or("paused");
        say(
            "paused",
            format!("somebody ordered it so ({mode}): {}", order["reason"]),
            false,
        );
    }
    if state != "running" {
        say("not_running", format!("the agent is {state}"), false);
    }
    let healthy = !reasons.iter().any(|reason| reason.wrong);
    let ready = healthy && state == "running" && overview.order.is_none() && taking > 0;
    Health {
        healthy,
        ready,
        state: state.to_owned(),
        reasons,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use sluice_proto::queue::Presence;

    use super::*;

    pub(in crate::agent::inspect) fn overview() -> Overview {
        Overview {
            pool: "p".into(),
            queues: Vec::new(),
            workers: vec![Presence {
                worker: "w".into(),
                state: WorkerState::Running,
                slots: 4,
                in_flight: 1,
                runtimes: 1,
                refusing: None,
                at_us: 0,
                link: 1,
                holds: None,
            }],
            dead: Vec::new(),
            gateway: json!({"agents": [{"agent": "a", "refusing": null}]}),
            accepted_per_s: None,
            ended_per_s: None,
            order: None,
            unknown: Vec::new(),
            now_us: 0,
        }
    }

    #[test]
    fn a_running_agent_that_takes_work_is_healthy_and_ready() {
        let health = judge(&overview(), "running", "a");
        assert!(health.healthy && health.ready, "{health:?}");
        let starting = judge(&overview(), "starting", "a");
        assert!(starting.healthy && !starting.ready, "{starting:?}");
    }

    #[test]
    fn what_is_wrong_is_said_and_what_is_wanted_is_not_wrong() {
        assert_eq!(
            judge(&overview(), "running", "b").reasons[0].reason,
            "not_connected"
        );
        let mut sick = overview();
        sick.workers[0].refusing = Some("no image".into());
        let health = judge(&sick, "running", "a");
        assert!(!health.healthy && health.reasons[0].sentence.contains("no image"));
        sick.order = Some(json!({"mode": "paused", "reason": "upgrade"}));
        let paused = judge(&sick, "running", "a");
        assert!(paused.healthy && !paused.ready, "{paused:?}");
        sick.workers.clear();
        assert!(!judge(&sick, "running", "a").healthy);
    }
}
