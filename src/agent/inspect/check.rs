//! Whether each accepted job is in exactly one place: pure.
//!
//! Three books are compared: the gateway's (which jobs its agents have), the
//! broker's (how many messages are where) and the workers' (which jobs they
//! hold). They are read one after the other while jobs move, so one look proves
//! nothing: only what two looks find, some seconds apart, is a finding.
//!
//! Which jobs are ready is read from the broker where it can be seen without
//! costing them a delivery (`snapshot`), with a third look behind it. Elsewhere,
//! and beyond what a snapshot reads, what is ready is what the gateway says was
//! accepted and no worker holds; their number must be the broker's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::agent::inspect::snapshot::Snapshot;

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
    /// Messages that were looked at one by one.
    pub read: u64,
    /// Whether those are all, so that what is missing is known by name.
    pub read_all: bool,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub job: String,
    /// `missing`, `missing_perhaps`, `held_twice`, `held_but_ended`, `held_but_unknown`,
    /// `dead_but_live`, `queued_twice`, `queued_and_held`, `queued_but_ended` or `queued_but_unknown`.
    pub reason: &'static str,
    pub sentence: String,
}

/// Findings of one report; more of one kind tell no more.
const FINDINGS_MAX: usize = 1_000;

/// What the broker was seen to hold after the second look, and the look behind that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub snapshot: Snapshot,
    pub look: Look,
    /// What the gateway says of the messages' jobs: id → state; absent: it knows none.
    pub states: BTreeMap<String, String>,
}

/// Compares two looks, and what the broker was seen to hold where that could be seen.
pub fn check(first: &Look, second: &Look, seen: Option<&Seen>) -> Report {
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
    match seen.and_then(|seen| seen.absent(first, second)) {
        Some(absent) => {
            if seen.is_some_and(|seen| seen.look.listed_all) {
                missing = absent.len() as u64;
            }
            findings.extend(absent.into_iter().map(|job| missed(job, true)));
        }
        None => findings.extend(named(first, second, seen, missing)),
    }
    findings.extend(seen.iter().flat_map(|seen| seen.findings(second)));
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
        read: seen.map_or(0, Seen::read),
        read_all: seen.is_some_and(|seen| seen.snapshot.whole),
        findings,
    }
}

/// The jobs that may be the missing ones, oldest first: all candidates if the
/// broker has none, else as many as are missing, as its queue gives out the oldest first.
fn named(first: &Look, second: &Look, seen: Option<&Seen>, missing: u64) -> Vec<Finding> {
    if missing == 0 {
        return Vec::new();
    }
    let certain = second.in_broker() == 0 && second.listed_all;
    let at_most = usize::try_from(missing).unwrap_or(usize::MAX);
    let read: BTreeSet<&String> = seen.iter().flat_map(|seen| seen.ids()).collect();
    free_twice(first, second)
        .into_iter()
        .filter(|job| !read.contains(job))
        .take(if certain { usize::MAX } else { at_most })
        .map(|job| missed(job, certain))
        .collect()
}

fn missed(job: String, certain: bool) -> Finding {
    let (reason, sentence) = if certain {
        (
            "missing",
            "it was accepted, and is in no queue and with no worker",
        )
    } else {
        (
            "missing_perhaps",
            "as many jobs are missing as are named so, and this is one of the oldest that no worker holds",
        )
    };
    Finding {
        job,
        reason,
        sentence: sentence.to_owned(),
    }
}

/// Accepted jobs that no worker held and no dead letter named, both times.
fn free_twice(first: &Look, second: &Look) -> BTreeSet<String> {
    let free = |look: &Look| -> BTreeSet<String> {
        let is_free = |job: &&String| !look.held.contains_key(*job) && !look.dead.contains(*job);
        look.listed.iter().filter(is_free).cloned().collect()
    };
    free(first).intersection(&free(second)).cloned().collect()
}

// === impl Seen ===

impl Seen {
    fn ids(&self) -> impl Iterator<Item = &String> {
        self.snapshot.ready.iter().chain(&self.snapshot.retry)
    }

    fn read(&self) -> u64 {
        self.ids().count() as u64
    }

    /// Accepted jobs that no worker held in any of the three looks and the
    /// broker does not have. `None`: it cannot be told, because not all
    /// messages were read, or some may have moved on between two readings.
    fn absent(&self, first: &Look, second: &Look) -> Option<Vec<String>> {
        let looks = [first, second, &self.look];
        let moving = [second, &self.look].iter().any(|look| look.retry > 0)
            || !self.snapshot.retry.is_empty()
            || looks.iter().all(|look| look.reports > 0);
        if !self.snapshot.whole || moving {
            return None;
        }
        let has: BTreeSet<&String> = self.ids().collect();
        let free = free_twice(first, second);
        let still = free_twice(second, &self.look);
        let absent = |job: &&String| still.contains(*job) && !has.contains(job);
        Some(free.iter().filter(absent).cloned().collect())
    }

    /// Messages that are one too many for their jobs.
    fn findings(&self, before: &Look) -> Vec<Finding> {
        let mut messages: BTreeMap<&String, u64> = BTreeMap::new();
        for job in &self.snapshot.ready {
            *messages.entry(job).or_default() += 1;
        }
        let mut findings = Vec::new();
        for (job, count) in messages {
            let mut find = |reason, sentence: String| {
                findings.push(Finding {
                    job: job.clone(),
                    reason,
                    sentence,
                });
            };
            if count > 1 {
                find("queued_twice", format!("{count} messages of it are ready"));
            }
            let holders = |look: &Look| look.held.get(job).cloned().unwrap_or_default();
            let held = holders(&self.look);
            if holders(before).iter().any(|worker| held.contains(worker)) {
                let all = held.join(" and ");
                find(
                    "queued_and_held",
                    format!("{all} holds it, and a message of it is ready"),
                );
            }
            match self.states.get(job).map(String::as_str) {
                Some("succeeded" | "failed") => find(
                    "queued_but_ended",
                    "a message of it is ready, and the gateway has its end: whoever takes it drops it".to_owned(),
                ),
                None => find(
                    "queued_but_unknown",
                    "a message of it is ready, and the gateway knows no such job of this pool".to_owned(),
                ),
                Some(_) => {}
            }
        }
        findings
    }
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
        let report = check(&look, &look, None);
        assert!(report.ok, "{report:?}");
        assert_eq!((report.ready, report.in_flight, report.accepted), (2, 1, 3));
    }

    #[test]
    fn a_job_that_is_nowhere_in_both_looks_is_named() {
        let look = look(2, 0, &[("j0", "w")]);
        let report = check(&look, &look, None);
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
        assert!(check(&before, &after, None).ok);
        let ended = look(1, 0, &[("j0", "w")]);
        assert!(check(&before, &ended, None).ok);
    }

    #[test]
    fn a_report_on_its_way_may_be_the_end_of_a_job() {
        let mut look = look(1, 0, &[]);
        look.reports = 1;
        assert!(check(&look, &look, None).ok);
    }

    #[test]
    fn where_the_queue_is_not_empty_the_oldest_are_suspected() {
        let look = look(5, 3, &[("j4", "w")]);
        let report = check(&look, &look, None);
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
        let report = check(&look, &look, None);
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
        let report = check(&look, &look, None);
        assert_eq!(report.findings[0].reason, "dead_but_live");
        assert_eq!(report.surplus, 2);
    }

    fn seen(look: &Look, ready: &[&str]) -> Seen {
        Seen {
            snapshot: Snapshot {
                ready: ready.iter().map(|id| (*id).to_owned()).collect(),
                retry: Vec::new(),
                whole: true,
            },
            look: look.clone(),
            states: look.states.clone(),
        }
    }

    fn found(report: &Report) -> Vec<(&str, &str)> {
        let findings = report.findings.iter();
        findings.map(|f| (f.job.as_str(), f.reason)).collect()
    }

    #[test]
    fn a_missing_job_is_named_although_others_wait_and_numbers_agree() {
        let look = look(4, 3, &[("j3", "w")]);
        let report = check(&look, &look, Some(&seen(&look, &["j0", "j2", "j2"])));
        assert_eq!(found(&report), [("j1", "missing"), ("j2", "queued_twice")]);
        assert_eq!((report.missing, report.read, report.read_all), (1, 3, true));
    }

    #[test]
    fn a_job_that_moves_while_the_broker_is_read_is_no_finding() {
        let before = look(2, 1, &[("j0", "w")]);
        let after = look(2, 0, &[("j0", "w"), ("j1", "w")]);
        assert!(check(&before, &before, Some(&seen(&after, &[]))).ok);
        assert!(check(&before, &before, Some(&seen(&after, &["j1"]))).ok);
    }

    #[test]
    fn a_message_beside_its_holder_and_one_without_a_job_are_named() {
        let mut look = look(1, 3, &[("j0", "w")]);
        look.states.insert("old".into(), "succeeded".into());
        look.states.insert("ended".into(), "cancelled".into());
        let seen = seen(&look, &["ended", "j0", "old", "stranger"]);
        let expected = [
            ("j0", "queued_and_held"),
            ("old", "queued_but_ended"),
            ("stranger", "queued_but_unknown"),
        ];
        assert_eq!(found(&check(&look, &look, Some(&seen))), expected);
    }

    #[test]
    fn while_reports_or_retries_are_on_their_way_nothing_is_certain() {
        let mut look = look(2, 1, &[]);
        look.retry = 1;
        let report = check(&look, &look, Some(&seen(&look, &["j0"])));
        assert!(
            report.ok,
            "j1 may be the one that is tried again: {report:?}"
        );
    }
}
