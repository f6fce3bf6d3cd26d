//! Who works: the last word of each worker, and what all of them together are. Pure.

use std::collections::HashMap;

use sluice_proto::queue::{PRESENCE_MS_MAX, Presence, WorkerState};

/// Most workers remembered; far more than a host runs. Whoever comes on top is not counted.
const WORKERS_MAX: usize = 1_000;

/// Workers by name, with when they were heard last, in milliseconds.
#[derive(Debug, Default)]
pub struct Roster {
    workers: HashMap<String, (Presence, u64)>,
}

/// All workers together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Crew {
    /// Heard of lately, and not stopped.
    pub alive: u32,
    /// Those of them that take work.
    pub taking: u32,
    pub in_flight: u32,
    /// Why one that should take work does not.
    pub refusing: Option<String>,
}

// === impl Roster ===

impl Roster {
    /// Notes what a worker says; answers whether it had not been heard of.
    pub fn hear(&mut self, mut presence: Presence, now_ms: u64) -> bool {
        // That is for whoever asked.
        presence.holds = None;
        let new = !self.workers.contains_key(&presence.worker);
        if presence.state == WorkerState::Stopped {
            self.workers.remove(&presence.worker);
        } else if self.workers.len() < WORKERS_MAX || self.workers.contains_key(&presence.worker) {
            self.workers
                .insert(presence.worker.clone(), (presence, now_ms));
        }
        new
    }

    /// Forgets who was silent for too long, and adds the rest up.
    pub fn crew(&mut self, now_ms: u64) -> Crew {
        self.workers
            .retain(|_, (_, heard_ms)| now_ms.saturating_sub(*heard_ms) <= PRESENCE_MS_MAX);
        let mut crew = Crew::default();
        let mut refusals = Vec::new();
        for (presence, _) in self.workers.values() {
            crew.alive += 1;
            crew.in_flight += presence.in_flight;
            match &presence.refusing {
                Some(reason) => refusals.push(reason),
                None if presence.state == WorkerState::Running => crew.taking += 1,
                None => {}
            }
        }
        // The same one each time, whatever the order of the map.
        crew.refusing = refusals.into_iter().min().cloned();
        crew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(worker: &str, state: WorkerState, refusing: Option<&str>) -> Presence {
        Presence {
            worker: worker.into(),
            state,
            slots: 4,
            in_flight: 2,
            runtimes: 0,
            refusing: refusing.map(str::to_owned),
            at_us: 0,
            link: 1,
            holds: None,
        }
    }

    #[test]
    fn a_silent_worker_is_not_counted_and_a_stopped_one_at_once() {
        let mut roster = Roster::default();
        assert!(roster.hear(presence("a", WorkerState::Running, None), 0));
        roster.hear(presence("b", WorkerState::Running, None), 1_000);
        assert!(!roster.hear(presence("b", WorkerState::Running, None), 1_000));
        assert_eq!(roster.crew(PRESENCE_MS_MAX).alive, 2);
        assert_eq!(roster.crew(PRESENCE_MS_MAX + 1).alive, 1);
        roster.hear(presence("b", WorkerState::Stopped, None), 2_000);
        assert_eq!(roster.crew(2_000), Crew::default());
    }

    #[test]
    fn only_a_running_worker_without_a_complaint_takes_work() {
        let mut roster = Roster::default();
        roster.hear(presence("a", WorkerState::Running, None), 0);
        roster.hear(presence("b", WorkerState::Running, Some("no image")), 0);
        roster.hear(presence("c", WorkerState::Starting, None), 0);
        roster.hear(presence("d", WorkerState::Draining, None), 0);
        let crew = roster.crew(0);
        assert_eq!((crew.alive, crew.taking, crew.in_flight), (4, 1, 8));
        assert_eq!(crew.refusing.as_deref(), Some("no image"));
    }
}
