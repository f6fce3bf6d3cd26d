//! Reports in our hands: taken off the queue, not yet in the gateway's custody. Pure.
//!
//! ```text
//!  push ─▶ │ entry │ entry │ entry │ entry │ entry │
//!          └── sent, numbered ─────┘└── unsent ────┘
//!  received(numbers) pops from the front, in order, and hands the receipts out to be acknowledged
//! ```
//!
//! Owns the order, the numbers and what is sent again. A new session begins
//! with everything unsent; the death of a link makes its entries void, as the
//! broker delivers them again.

use std::collections::VecDeque;

use sluice_proto::codec::FRAME_BYTES_MAX;
use sluice_proto::frame::{BATCH_MAX, FromBridge, Numbered};
use sluice_proto::report::Report;

/// How much one frame of several reports may weigh: half a frame, so that one
/// large report does not hold many small ones up for long. One report alone
/// always fits, as a queue message is smaller than a frame.
const BATCH_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// What the number around a report weighs at most, in bytes.
const NUMBER_BYTES: usize = 32;

/// `R` is what settles a report with the broker.
pub struct Outbox<R> {
    entries: VecDeque<Entry<R>>,
    /// The number of the first entry in this session.
    first: u64,
    /// How many entries, from the front, are sent in this session.
    sent: usize,
}

struct Entry<R> {
    /// `None`: void, kept for its number alone.
    held: Option<Held<R>>,
    received: bool,
}

struct Held<R> {
    report: Report,
    bytes: usize,
    generation: u64,
    receipt: R,
}

// === impl Outbox ===

impl<R> Default for Outbox<R> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            first: 1,
            sent: 0,
        }
    }
}

impl<R> Outbox<R> {
    /// Takes a report in; `bytes` is what it weighs in the queue.
    pub fn push(&mut self, report: Report, bytes: usize, generation: u64, receipt: R) {
        let held = Held {
            report,
            bytes,
            generation,
            receipt,
        };
        self.entries.push_back(Entry {
            held: Some(held),
            received: false,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The next frame to send, if anything is unsent.
    pub fn batch(&mut self) -> Option<FromBridge> {
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = self.entries.get(self.sent) {
            if let Some(held) = &entry.held {
                bytes += held.bytes + NUMBER_BYTES;
                let full = items.len() >= BATCH_MAX || bytes > BATCH_BYTES_MAX;
                if full && !items.is_empty() {
                    break;
                }
                items.push(Numbered {
                    number: self.first + self.sent as u64,
                    report: held.report.clone(),
                });
            }
            self.sent += 1;
        }
        (!items.is_empty()).then_some(FromBridge::Reports { items })
    }

    /// Notes what the gateway has custody of. Answers with the receipt of the
    /// last report up to which everything is received, if that moved: settling
    /// it settles all before it. Unknown numbers are repeats, and change nothing.
    pub fn received(&mut self, numbers: &[u64]) -> Option<R> {
        for number in numbers {
            let at = number.checked_sub(self.first).map(|at| at as usize);
            if let Some(at) = at.filter(|at| *at < self.sent) {
                self.entries[at].received = true;
            }
        }
        self.pop_received()
    }

    /// A new session begins: everything is unsent, and numbers start again.
    pub fn rewind(&mut self) {
        self.entries.retain_mut(|entry| {
            entry.received = false;
            entry.held.is_some()
        });
        self.first = 1;
        self.sent = 0;
    }

    /// The link of this generation is dead: the broker delivers again what it gave us.
    pub fn forget(&mut self, generation: u64) {
        let mut unsent = self.entries.split_off(self.sent);
        let gone = |held: &Option<Held<R>>| {
            held.as_ref()
                .is_none_or(|held| held.generation <= generation)
        };
        unsent.retain(|entry| !gone(&entry.held));
        for entry in &mut self.entries {
            if gone(&entry.held) {
                entry.held = None;
                entry.received = true;
            }
        }
        self.entries.append(&mut unsent);
        // Void ones at the front hold nothing up; a receipt is never dropped here.
        while self.sent > 0
            && self
                .entries
                .front()
                .is_some_and(|entry| entry.held.is_none())
        {
            self.pop();
        }
    }

    fn pop_received(&mut self) -> Option<R> {
        let mut last = None;
        while self.sent > 0 && self.entries.front().is_some_and(|entry| entry.received) {
            if let Some(held) = self.pop() {
                last = Some(held.receipt);
            }
        }
        last
    }

    fn pop(&mut self) -> Option<Held<R>> {
        self.first += 1;
        self.sent -= 1;
        self.entries.pop_front().and_then(|entry| entry.held)
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::ids::JobId;
    use sluice_proto::job::Attempt;
    use sluice_proto::report::Body;

    use super::*;

    fn outbox(reports: std::ops::Range<u64>, bytes: usize) -> Outbox<u64> {
        let mut outbox = Outbox::default();
        reports.for_each(|n| outbox.push(report(n), bytes, 1, n));
        outbox
    }

    fn report(n: u64) -> Report {
        Report {
            job: JobId(n.to_string()),
            attempt: Attempt::default(),
            worker: "w".into(),
            at_us: 0,
            body: Body::Log { lines: Vec::new() },
        }
    }

    fn sent(outbox: &mut Outbox<u64>) -> Vec<(u64, String)> {
        match outbox.batch() {
            Some(FromBridge::Reports { items }) => items
                .into_iter()
                .map(|item| (item.number, item.report.job.0))
                .collect(),
            other => panic!("no reports: {other:?}"),
        }
    }

    #[test]
    fn a_batch_ends_at_its_count_and_at_its_bytes() {
        let mut many = outbox(0..BATCH_MAX as u64 + 1, 10);
        assert_eq!(sent(&mut many).len(), BATCH_MAX);
        assert_eq!(sent(&mut many), [(BATCH_MAX as u64 + 1, "256".into())]);
        assert_eq!(many.batch(), None);
        let mut heavy = outbox(0..3, BATCH_BYTES_MAX / 2);
        assert_eq!(sent(&mut heavy).len(), 1);
        let mut huge = outbox(0..2, BATCH_BYTES_MAX * 2);
        assert_eq!(sent(&mut huge).len(), 1, "one alone always goes");
        assert_eq!(sent(&mut huge).len(), 1);
    }

    #[test]
    fn receipts_come_out_in_order_and_only_when_all_before_are_received() {
        let mut outbox = outbox(10..14, 1);
        sent(&mut outbox);
        assert_eq!(outbox.received(&[2, 3]), None, "the first is missing");
        assert_eq!(outbox.received(&[1]), Some(12));
        assert_eq!(
            outbox.received(&[1, 2, 99, 0]),
            None,
            "repeats and strangers"
        );
        assert_eq!(outbox.received(&[4]), Some(13));
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_was_never_sent_cannot_be_received() {
        let mut outbox = outbox(0..1, 1);
        assert_eq!(outbox.received(&[1]), None);
        assert!(!outbox.is_empty());
    }

    #[test]
    fn a_new_session_sends_everything_again_from_number_one() {
        let mut outbox = outbox(0..3, 1);
        sent(&mut outbox);
        outbox.received(&[1, 3]);
        outbox.rewind();
        assert_eq!(sent(&mut outbox), [(1, "1".into()), (2, "2".into())]);
        assert_eq!(outbox.received(&[1, 2]), Some(2));
    }

    #[test]
    fn a_dead_links_reports_are_void_and_the_rest_keep_their_numbers() {
        let mut outbox = outbox(0..2, 1);
        sent(&mut outbox);
        outbox.push(report(2), 1, 1, 2);
        outbox.push(report(3), 1, 2, 3);
        outbox.forget(1);
        assert_eq!(sent(&mut outbox), [(3, "3".into())]);
        assert_eq!(outbox.received(&[1, 2]), None, "void already");
        assert_eq!(outbox.received(&[3]), Some(3));
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_void_report_between_others_does_not_hold_them_up() {
        let mut outbox = Outbox::default();
        outbox.push(report(0), 1, 2, 0);
        outbox.push(report(1), 1, 1, 1);
        outbox.push(report(2), 1, 2, 2);
        sent(&mut outbox);
        outbox.forget(1);
        assert_eq!(outbox.received(&[1, 3]), Some(2));
        assert!(outbox.is_empty());
    }
}
