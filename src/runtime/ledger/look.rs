//! Which runtimes are at work, idle or paused: what the clock and `status` ask.

use std::time::{Duration, Instant};

use crate::runtime::ledger::{Ledger, Slot, State};
use crate::runtime::pool::Status;

impl<T: Clone> Ledger<T> {
    /// Those that talk to somebody now.
    pub(in crate::runtime) fn talking(&self) -> Vec<T> {
        let talks = |slot: &Slot<T>| match &slot.state {
            State::Loading(_, handle) => Some(handle.clone()),
            State::Live(_, handle) if slot.in_use > 0 => Some(handle.clone()),
            State::Starting | State::Stem(_) | State::Live(..) | State::Going => None,
        };
        self.slots.values().filter_map(talks).collect()
    }

    /// Those that nobody has used for `time` count as paused from now on. The
    /// caller stops them before it lets the ledger go, or a claim could come between.
    pub(in crate::runtime) fn pause(&mut self, now: Instant, time: Duration) -> Vec<T> {
        let pauses = |slot: &mut Slot<T>| match &slot.state {
            State::Live(_, handle)
                if slot.in_use == 0 && !slot.paused && now >= slot.last_used + time =>
            {
                slot.paused = true;
                Some(handle.clone())
            }
            _ => None,
        };
        self.slots.values_mut().filter_map(pauses).collect()
    }

    /// Those with an identity that nobody has used for `time`.
    pub(in crate::runtime) fn idle_for(&self, now: Instant, time: Duration) -> Vec<T> {
        let idles = |slot: &Slot<T>| match &slot.state {
            State::Live(_, handle) if slot.in_use == 0 && now >= slot.last_used + time => {
                Some(handle.clone())
            }
            _ => None,
        };
        self.slots.values().filter_map(idles).collect()
    }

    /// Those that hold somebody's code, at work or not.
    pub(in crate::runtime) fn loaded_ones(&self) -> Vec<T> {
        let holds = |slot: &Slot<T>| match &slot.state {
            State::Loading(_, handle) | State::Live(_, handle) => Some(handle.clone()),
            State::Starting | State::Stem(_) | State::Going => None,
        };
        self.slots.values().filter_map(holds).collect()
    }

    pub(in crate::runtime) fn status(&self) -> Status {
        let mut status = Status {
            waiting: u32::try_from(self.line.len()).unwrap_or(u32::MAX),
            ..Status::default()
        };
        for slot in self.slots.values() {
            let counter = match &slot.state {
                State::Starting => &mut status.starting,
                State::Stem(_) => &mut status.stems,
                State::Loading(..) => &mut status.loading,
                State::Live(..) if slot.paused => &mut status.paused,
                State::Live(..) if slot.in_use == 0 => &mut status.idle,
                State::Live(..) => &mut status.busy,
                State::Going => &mut status.going,
            };
            *counter += 1;
        }
        status
    }
}
