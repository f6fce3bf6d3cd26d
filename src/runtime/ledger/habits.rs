//! When an identity is expected again, from when it came before: what decides
//! who goes when room is needed. Pure.
//!
//! Least recently used is the worst choice where identities take turns: it lets
//! go the one whose turn is next. So whoever is expected last goes first, and
//! before all who are expected those of whom nothing is known, or who did not
//! come when they should have.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sluice_proto::job::Identity;

/// Identities that are remembered: a hundred times what a host holds.
const REMEMBERED_MAX: usize = 4_096;

/// Calls that are closer are one visit: jobs come in bursts, and their distance
/// within one says nothing of the next.
const VISIT: Duration = Duration::from_secs(1);

/// When identities came.
#[derive(Debug, Default)]
pub(super) struct Habits {
    known: HashMap<Identity, Habit>,
}

#[derive(Debug)]
struct Habit {
    last: Instant,
    /// Between the beginnings of its last two visits.
    interval: Option<Duration>,
}

/// Who goes first; the smaller goes sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outlook {
    /// It is not expected any more, or nothing is known of it; last seen then.
    Unexpected(Instant),
    /// It is expected at this moment; the later one goes sooner.
    Expected(std::cmp::Reverse<Instant>),
}

// === impl Habits ===

impl Habits {
    /// An identity came.
    pub(super) fn came(&mut self, identity: &Identity, now: Instant) {
        if let Some(habit) = self.known.get_mut(identity) {
            let since = now.saturating_duration_since(habit.last);
            if since >= VISIT {
                habit.interval = Some(since);
                habit.last = now;
            }
            return;
        }
        if self.known.len() >= REMEMBERED_MAX {
            let oldest = self.known.iter().min_by_key(|(_, habit)| habit.last);
            if let Some(oldest) = oldest.map(|(identity, _)| identity.clone()) {
                self.known.remove(&oldest);
            }
        }
        let habit = Habit {
            last: now,
            interval: None,
        };
        self.known.insert(identity.clone(), habit);
    }

    /// When it is expected again, as things are `now`.
    pub(super) fn outlook(&self, identity: &Identity, last_used: Instant, now: Instant) -> Outlook {
        let interval = self.known.get(identity).and_then(|habit| {
            let interval = habit.interval?;
            // Twice its usual time, and it is taken for gone.
            (now < habit.last + interval * 2).then_some(habit.last + interval)
        });
        match interval {
            Some(expected) => Outlook::Expected(std::cmp::Reverse(expected)),
            None => Outlook::Unexpected(last_used),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(n: usize) -> Identity {
        Identity::Flow {
            flow: n.to_string(),
        }
    }

    #[test]
    fn who_is_expected_last_goes_first_and_who_is_not_expected_before_that() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut habits = Habits::default();
        for (identity, seconds) in [(1, [0, 10]), (2, [4, 12]), (3, [0, 2])] {
            for s in seconds {
                habits.came(&flow(identity), at(s));
            }
        }
        habits.came(&flow(4), at(13));
        let outlook = |n| habits.outlook(&flow(n), at(13), at(14));
        // 2 is expected after 20 s, 1 after 20 s too, but it came earlier.
        let mut order = [1, 2, 3, 4];
        order.sort_by_key(|n| outlook(*n));
        assert_eq!(order[2..], [1, 2], "both are expected at 20 s");
        assert!(
            outlook(3) < outlook(1),
            "it did not come when it should have"
        );
        assert!(outlook(4) < outlook(1), "nothing is known of it");
    }

    #[test]
    fn calls_of_one_visit_are_no_interval() {
        let now = Instant::now();
        let mut habits = Habits::default();
        for ms in [0, 5, 900] {
            habits.came(&flow(1), now + Duration::from_millis(ms));
        }
        let outlook = habits.outlook(&flow(1), now, now);
        assert_eq!(outlook, Outlook::Unexpected(now));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten() {
        let now = Instant::now();
        let mut habits = Habits::default();
        for n in 0..=REMEMBERED_MAX {
            habits.came(&flow(n), now + Duration::from_secs(n as u64));
        }
        assert_eq!(habits.known.len(), REMEMBERED_MAX);
        assert!(!habits.known.contains_key(&flow(0)));
    }
}
