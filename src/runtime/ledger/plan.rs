//! What the ledger does about those who wait, about stems and about the idle.

use std::time::Instant;

use sluice_proto::job::Identity;
use sluice_proto::report::Origin;

use crate::config::Network;
use crate::runtime::ledger::{CREATIONS_MAX, Closing, Ledger, NETWORKS, Number, State, Step, TURN};

impl<T: Clone> Ledger<T> {
    /// To be called after every change, and now and then as time passes.
    pub(in crate::runtime) fn plan(&mut self, now: Instant) -> Vec<Step<T>> {
        let mut steps = Vec::new();
        self.assign(&mut steps);
        self.retire_idle(now, &mut steps);
        self.retire_old(now, &mut steps);
        if self.line.is_empty() {
            self.take_turns_back();
        }
        self.serve_line(now, &mut steps);
        self.refill(now, &mut steps);
        steps
    }

    /// Gives stems to those in line, first come first, by network.
    fn assign(&mut self, steps: &mut Vec<Step<T>>) {
        for identity in std::mem::take(&mut self.line) {
            let network = self.limits.network(&identity);
            let stem = self
                .slots
                .iter_mut()
                .find(|(_, slot)| slot.network == network && matches!(slot.state, State::Stem(_)));
            let (Some((&number, slot)), Some(want)) = (stem, self.wants.get(&identity)) else {
                self.line.push_back(identity);
                continue;
            };
            let State::Stem(handle) = &slot.state else {
                continue;
            };
            let handle = handle.clone();
            let origin = if want.cold {
                Origin::Cold
            } else {
                Origin::Stem
            };
            slot.state = State::Loading(identity, handle.clone());
            steps.push(Step::Assign(want.leader, number, handle, origin));
        }
    }

    /// Starts runtimes for those still in line, and makes room for them.
    fn serve_line(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        let mut room_coming = self.count(|state| matches!(state, State::Going))
            + self
                .slots
                .values()
                .filter(|slot| slot.closing == Closing::Yields)
                .count();
        let mut starting = NETWORKS.map(|network| self.starting(network));
        let line: Vec<Identity> = self.line.iter().cloned().collect();
        for identity in line {
            let network = self.limits.network(&identity);
            if self.refusing.contains_key(&network) {
                continue;
            }
            if let Some(want) = self.wants.get_mut(&identity) {
                want.cold = true;
            }
            // One that starts already will be this identity's.
            let promised = &mut starting[network as usize];
            if *promised > 0 {
                *promised -= 1;
                continue;
            }
            if self.slots.len() < self.limits.runtimes_max {
                if self.count(|state| matches!(state, State::Starting)) < CREATIONS_MAX {
                    let step = self.start(network, now);
                    steps.push(step);
                }
            } else if room_coming > 0 {
                room_coming -= 1;
            } else {
                self.make_room(now, steps);
            }
        }
    }

    /// The idle one that is expected last ([`Habits`](super::habits)), else a stem (of the other network, or
    /// it would have been given out), else the busy one that had its turn.
    fn make_room(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        let idle = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.in_use == 0)
            .filter_map(|(&number, slot)| match &slot.state {
                State::Live(identity, _) => Some((number, identity, slot.last_used)),
                State::Starting | State::Stem(_) | State::Loading(..) | State::Going => None,
            })
            .min_by_key(|(_, identity, used)| self.habits.outlook(identity, *used, now))
            .map(|(number, ..)| number);
        let stem = || {
            self.slots
                .iter()
                .find(|(_, slot)| matches!(slot.state, State::Stem(_)))
                .map(|(&number, _)| number)
        };
        if let Some(number) = idle.or_else(stem) {
            self.destroy(number, steps);
            return;
        }
        let longest = self
            .slots
            .iter_mut()
            .filter(|(_, slot)| matches!(slot.state, State::Live(..)))
            .filter(|(_, slot)| slot.closing == Closing::No && now >= slot.since + TURN)
            .min_by_key(|(_, slot)| slot.since);
        if let Some((_, slot)) = longest
            && let State::Live(identity, _) = &slot.state
        {
            slot.closing = Closing::Yields;
            self.live.remove(identity);
        }
    }

    /// Nobody waits any more, so whoever was to yield may go on.
    fn take_turns_back(&mut self) {
        for (&number, slot) in &mut self.slots {
            if slot.closing == Closing::Yields
                && let State::Live(identity, _) = &slot.state
                && !self.live.contains_key(identity)
                && !self.wants.contains_key(identity)
            {
                slot.closing = Closing::No;
                self.live.insert(identity.clone(), number);
            }
        }
    }

    fn retire_idle(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        let idle: Vec<Number> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot.state, State::Live(..)) && slot.in_use == 0)
            .filter(|(_, slot)| now >= slot.last_used + self.limits.idle)
            .map(|(&number, _)| number)
            .collect();
        for number in idle {
            self.destroy(number, steps);
        }
    }

    /// What a runtime gathers over hours, leaks and half-closed connections, goes with it.
    fn retire_old(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        let old: Vec<Number> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot.state, State::Live(..)))
            .filter(|(_, slot)| slot.closing != Closing::Retires)
            .filter(|(_, slot)| now >= slot.since + self.limits.age)
            .map(|(&number, _)| number)
            .collect();
        for number in old {
            steps.extend(self.retire(number));
        }
    }

    fn refill(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        if self.draining {
            return;
        }
        for network in NETWORKS {
            while !self.refusing.contains_key(&network) {
                let stems = self
                    .slots
                    .values()
                    .filter(|slot| slot.network == network)
                    .filter(|slot| matches!(slot.state, State::Starting | State::Stem(_)))
                    .count();
                // Those that start for somebody in line are no stems.
                let waiting = self
                    .line
                    .iter()
                    .filter(|identity| self.limits.network(identity) == network)
                    .count();
                let wanted = stems < self.limits.stems(network) + waiting;
                let starting = self.count(|state| matches!(state, State::Starting));
                let room = self.slots.len() < self.limits.runtimes_max;
                if !wanted || !room || starting >= CREATIONS_MAX {
                    break;
                }
                let step = self.start(network, now);
                steps.push(step);
            }
        }
    }

    fn starting(&self, network: Network) -> usize {
        self.slots
            .values()
            .filter(|slot| slot.network == network && matches!(slot.state, State::Starting))
            .count()
    }

    fn count(&self, is: impl Fn(&State<T>) -> bool) -> usize {
        self.slots.values().filter(|slot| is(&slot.state)).count()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
