//! Whether each accepted job is in exactly one place: pure.
//!
//! Three books are compared: the gateway's (which jobs its agents have), the
//! broker's (how many messages are where) and the workers' (which jobs they
//! hold). They are read one after the other while jobs move, so one look proves
//! nothing: only what two looks find, some seconds apart, is a finding.
//!
//! The broker is never asked which jobs are ready, as that would cost each of
//! them a delivery. What is ready is what the gateway says was accepted and no
//! worker holds; their number must be the broker's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One look at all three books.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Jobs the gateway's agents have, by the gateway's count.
    pub accepted: u64,
    /// The oldest of them, by id; all of them if `listed_all`.
    pub listed: BTreeSet<String>,
    pub listed_all: bool,
    /// Jobs in workers' hands: id → the workers that say so.
    pub held: BTreeMap<String, Vec<String>>,
    /// Messages ready in `jobs` and `jobs.high`.
    pub ready: u64,
    pub retry: u64,
    /// Reports on their way to the gateway: each may be the end of a job.
    pub reports: u64,
    /// Jobs that have a dead letter.
    pub dead: BTreeSet<String>,
    /// What the gateway says of held and dead jobs: id → state; absent: it knows none.
    pub states: BTreeMap<String, String>,
}

/// What two looks agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ok: bool,
    /// Accepted jobs by place, at the second look.
    pub ready: u64,
    pub in_flight: u64,
    pub retry: u64,
    pub dead: u64,
    /// Accepted and not ended, by the gateway.
    pub accepted: u64,
    /// Accepted jobs that are nowhere.
    pub missing: u64,
    /// Messages that stand for no accepted job; a redelivery of one that has ended is one.
    pub surplus: u64,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub job: String,
    /// `missing`, `missing_perhaps`, `held_twice`, `held_but_ended`, `held_but_unknown` or `dead_but_live`.
    pub reason: &'static str,
    pub sentence: String,
}

/// Findings of one report; more of one kind tell no more.
const FINDINGS_MAX: usize = 1_000;

/// Compares two looks.
pub fn check(first: &Look, second: &Look) -> Report {
    let mut missing = first.missing().min(second.missing());
    if first.listed_all && second.listed_all {
        // Of those that are in nobody's hands both times, as an end that the
        // bridge is just passing on is in none of the books.
        missing = missing.min(free_twice(first, second).len() as u64);
    }
    let surplus = first.surplus().min(second.surplus());
    let mut findings: Vec<Finding> = {
        let before = first.findings();
        let both = |finding: &Finding| {
            before
                .iter()
                .any(|old| (&old.job, old.reason) == (&finding.job, finding.reason))
        };
        second.findings().into_iter().filter(both).collect()
    };
    findings.extend(named(first, second, missing));
    findings.sort();
    findings.truncate(FINDINGS_MAX);
    Report {
        ok: findings.is_empty() && missing == 0,
        ready: second.ready,
        in_flight: second.held_live(),
        retry: second.retry,
        dead: second.dead.len() as u64,
        accepted: second.accepted,
        missing,
        surplus,
        findings,
    }
}

/// The jobs that may be the missing ones, oldest first: all candidates if the
/// broker has none, else as many as are missing, as its queue gives out the oldest first.
fn named(first: &Look, second: &Look, missing: u64) -> Vec<Finding> {
    if missing == 0 {
        return Vec::new();
    }
    let certain = second.in_broker() == 0 && second.listed_all;
    let at_most = usize::try_from(missing).unwrap_or(usize::MAX);
    free_twice(first, second)
        .into_iter()
        .take(if certain { usize::MAX } else { at_most })
        .map(|job| {
            let (reason, sentence) = if certain {
                ("missing", "it was accepted, and is in no queue and with no worker")
            } else {
                ("missing_perhaps", "as many jobs are missing as are named so, and this is one of the oldest that no worker holds")
            };
            Finding {
                job,
                reason,
                sentence: sentence.to_owned(),
            }
        })
        .collect()
}

/// Accepted jobs that no worker held and no dead letter named, both times.
fn free_twice(first: &Look, second: &Look) -> BTreeSet<String> {
    let free = |look: &Look| -> BTreeSet<String> {
        let is_free = |job: &&String| !look.held.contains_key(*job) && !look.dead.contains(*job);
        look.listed.iter().filter(is_free).cloned().collect()
    };
    free(first).intersection(&free(second)).cloned().collect()
}

// === impl Look ===

impl Look {
    fn in_broker(&self) -> u64 {
        self.ready + self.retry
    }

    fn is_live(&self, job: &str) -> bool {
        matches!(
            self.states.get(job).map(String::as_str),
            Some("accepted" | "started" | "dispatched")
        )
    }

    /// Jobs in workers' hands that the gateway has not seen the end of.
    fn held_live(&self) -> u64 {
        self.held.keys().filter(|job| self.is_live(job)).count() as u64
    }

    fn dead_live(&self) -> u64 {
        let dead = self.dead.iter();
        dead.filter(|job| self.is_live(job) && !self.held.contains_key(*job))
            .count() as u64
    }

    /// Accepted jobs for which there is nothing anywhere. A report on its way may be one's end.
    fn missing(&self) -> u64 {
        let found = self.held_live() + self.in_broker() + self.reports + self.dead_live();
        self.accepted.saturating_sub(found)
    }

    fn surplus(&self) -> u64 {
        let expected = self
            .accepted
            .saturating_sub(self.held_live() + self.dead_live());
        self.in_broker().saturating_sub(expected)
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |job: &str, reason, sentence: String| {
            findings.push(Finding {
                job: job.to_owned(),
                reason,
                sentence,
            });
        };
        for (job, workers) in &self.held {
            let all = workers.join(" and ");
            if workers.len() > 1 {
                find(job, "held_twice", format!("{all} hold it at the same time"));
            }
            match self.states.get(job).map(String::as_str) {
                Some("succeeded" | "failed" | "cancelled") => find(
                    job,
                    "held_but_ended",
                    format!("{all} holds it, and the gateway has its end"),
                ),
                None => find(
                    job,
                    "held_but_unknown",
                    format!("{all} holds it, and the gateway knows no such job of this pool"),
                ),
                Some(_) => {}
            }
        }
        // Its end was reported before its message was put away, and is on its way at most.
        for job in self
            .dead
            .iter()
            .filter(|job| self.reports == 0 && self.is_live(job))
        {
            if !self.held.contains_key(job) {
                let sentence =
                    "its message is in the dead letters, and the gateway counts it as live";
                find(job, "dead_but_live", sentence.to_owned());
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(accepted: u64, ready: u64, held: &[(&str, &str)]) -> Look {
        let mut look = Look {
            accepted,
            ready,
            listed: (0..accepted).map(|n| format!("j{n}")).collect(),
            listed_all: true,
            ..Look::default()
        };
        for (job, worker) in held {
            let holders = look.held.entry((*job).to_owned()).or_default();
            holders.push((*worker).to_owned());
        }
        look.states = look
            .listed
            .iter()
            .map(|job| (job.clone(), "accepted".to_owned()))
            .collect();
        look
    }

    #[test]
    fn everything_in_its_place_is_right() {
        let look = look(3, 2, &[("j0", "w")]);
        let report = check(&look, &look);
        assert!(report.ok, "{report:?}");
        assert_eq!((report.ready, report.in_flight, report.accepted), (2, 1, 3));
    }

    #[test]
    fn a_job_that_is_nowhere_in_both_looks_is_named() {
        let look = look(2, 0, &[("j0", "w")]);
        let report = check(&look, &look);
        assert_eq!((report.ok, report.missing), (false, 1));
        assert_eq!(
            (report.findings[0].job.as_str(), report.findings[0].reason),
            ("j1", "missing")
        );
    }

    #[test]
    fn a_job_that_moves_between_two_looks_is_no_finding() {
        let before = look(2, 0, &[("j0", "w")]);
        let after = look(2, 0, &[("j0", "w"), ("j1", "w")]);
        assert!(check(&before, &after).ok);
        let ended = look(1, 0, &[("j0", "w")]);
        assert!(check(&before, &ended).ok);
    }

    #[test]
    fn a_report_on_its_way_may_be_the_end_of_a_job() {
        let mut look = look(1, 0, &[]);
        look.reports = 1;
        assert!(check(&look, &look).ok);
    }

    #[test]
    fn where_the_queue_is_not_empty_the_oldest_are_suspected() {
        let look = look(5, 3, &[("j4", "w")]);
        let report = check(&look, &look);
        assert_eq!(report.missing, 1);
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|f| (f.job.as_str(), f.reason))
            .collect();
        assert_eq!(found, [("j0", "missing_perhaps")]);
    }

    #[test]
    fn what_is_held_wrongly_is_named() {
        let mut look = look(1, 0, &[("j0", "v"), ("j0", "w"), ("x", "w"), ("y", "w")]);
        look.states.insert("x".into(), "succeeded".into());
        let report = check(&look, &look);
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|f| (f.job.as_str(), f.reason))
            .collect();
        let expected = [
            ("j0", "held_twice"),
            ("x", "held_but_ended"),
            ("y", "held_but_unknown"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dead_letter_of_a_live_job_and_a_message_too_many_are_seen() {
        let mut look = look(1, 2, &[]);
        look.dead.insert("j0".into());
        let report = check(&look, &look);
        assert_eq!(report.findings[0].reason, "dead_but_live");
        assert_eq!(report.surplus, 2);
    }
}
