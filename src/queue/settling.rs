//! Which deliveries of one channel are done with, and how few messages say so. Pure.
//!
//! ```text
//!  taken ─▶ open ──done──▶ done ──due──▶ said: one message for all up to the first
//!            │                           that is open, one for each behind it
//!            └──gone (given back, or said otherwise)
//! ```

use std::collections::BTreeMap;

/// The deliveries of a channel that are not settled, by their tags.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Whether each is done with.
    unsettled: BTreeMap<u64, bool>,
    done: usize,
}

/// What is to be said now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// This one and all before it.
    pub(super) through: Option<u64>,
    pub(super) single: Vec<u64>,
}

// === impl Settling ===

impl Settling {
    /// A delivery came.
    pub(super) fn taken(&mut self, tag: u64) {
        self.unsettled.insert(tag, false);
    }

    /// A delivery is done with. Says whether it is the first of which nothing
    /// has been said: whoever is told so has to ask what is due, in a moment.
    pub(super) fn done(&mut self, tag: u64) -> bool {
        let Some(done) = self.unsettled.get_mut(&tag) else {
            return false;
        };
        if !std::mem::replace(done, true) {
            self.done += 1;
        }
        self.done == 1
    }

    /// It is settled in another way.
    pub(super) fn gone(&mut self, tag: u64) {
        if self.unsettled.remove(&tag) == Some(true) {
            self.done -= 1;
        }
    }

    /// It and all before it are settled.
    pub(super) fn gone_through(&mut self, tag: u64) {
        self.unsettled = self.unsettled.split_off(&(tag + 1));
        self.done = self.unsettled.values().filter(|done| **done).count();
    }

    /// What is done and not said. It counts as said from now on.
    pub(super) fn due(&mut self) -> Due {
        let mut due = Due::default();
        while let Some(first) = self.unsettled.first_entry()
            && *first.get()
        {
            due.through = Some(*first.key());
            first.remove();
            self.done -= 1;
        }
        if self.done > 0 {
            let done = self.unsettled.extract_if(.., |_, done| *done);
            due.single = done.map(|(tag, _)| tag).collect();
            self.done = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(tags: std::ops::RangeInclusive<u64>) -> Settling {
        let mut settling = Settling::default();
        tags.for_each(|tag| settling.taken(tag));
        settling
    }

    #[test]
    fn one_message_settles_all_that_are_done_before_the_first_open_one() {
        let mut settling = taken(1..=5);
        assert!(settling.done(2), "the first of this turn");
        assert!(!settling.done(1) && !settling.done(4));
        let due = settling.due();
        assert_eq!((due.through, due.single), (Some(2), vec![4]));
        assert_eq!(settling.due(), Due::default(), "nothing is said twice");
        assert!(settling.done(3), "another turn");
        assert!(!settling.done(5));
        assert_eq!(settling.due().through, Some(5));
    }

    #[test]
    fn what_is_open_is_never_settled_along_with_later_ones() {
        let mut settling = taken(1..=3);
        settling.done(2);
        settling.done(3);
        let due = settling.due();
        assert_eq!((due.through, due.single), (None, vec![2, 3]));
    }

    #[test]
    fn what_was_given_back_holds_nothing_up_and_is_not_settled_again() {
        let mut settling = taken(1..=3);
        settling.gone(1);
        assert!(!settling.done(1), "it is not ours any more");
        settling.done(2);
        assert_eq!(settling.due().through, Some(2));
        let mut settling = taken(1..=3);
        settling.done(1);
        settling.gone_through(2);
        assert!(settling.done(3), "nothing waits to be said");
        assert_eq!(settling.due().through, Some(3));
    }
}
