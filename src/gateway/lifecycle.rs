//! What may happen to a job, as a pure function.
//!
//! ```text
//!            ┌────── unplaced ───────┬────── vanished ───────┐
//!            ▼                       │                       │
//!  create ▶ Queued ──dispatched──▶ Dispatched ──accepted──▶ Accepted ──started──▶ Started
//!            │ │                     │                        │ │                  │ │
//!            │ └─expired──▶ Failed   │                        │ └──lost─▶ Failed ◀─┘ │
//!            │                       └──── finished ──────────┴──────────────────────┤
//!            └─cancel asked──▶ Cancelled ◀── cancel overdue, or unplaced ──┐         ▼
//!                                  (elsewhere: marked cancelling) ─────────┘   Succeeded, Failed, Cancelled
//! ```
//!
//! Owns the rules alone: no clock, no lock, no store. Promises: an ended job
//! never changes; attempts never go down; a repeat is `Unchanged`; what an
//! older attempt says is `Denied` (fencing). A report proves custody, so one
//! may come from a job whose acceptance was never heard.

use sluice_proto::job::Attempt;

use crate::store::jobs::State;

/// As much of a job as the rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobState {
    pub phase: State,
    /// The greatest attempt seen; dispatch 0 before the first.
    pub attempt: Attempt,
    /// Somebody asked for its end, and it has not ended yet.
    pub cancelling: bool,
}

/// Everything that can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is handed to a session.
    Dispatched,
    /// The agent's broker has custody of this dispatch.
    Accepted {
        dispatch: u32,
    },
    /// The session ended, or the bridge could not place it.
    Unplaced {
        dispatch: u32,
    },
    /// An attempt logged or called something.
    Seen {
        attempt: Attempt,
    },
    Started {
        attempt: Attempt,
    },
    Finished {
        attempt: Attempt,
        end: End,
    },
    CancelAsked,
    /// The time it was worth waiting for is over.
    Expired,
    /// The agent that holds it has been away for too long, or has it no more.
    Lost,
    /// The agent that accepted it has nothing left to do, and never started it.
    Vanished,
    /// Nobody said how the cancelled job ended.
    CancelOverdue,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Succeeded,
    Failed,
    Cancelled,
}

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Changed(JobState),
    /// Already so.
    Unchanged,
    Denied(Denial),
}

/// Why an event may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// A later attempt has been seen.
    OlderAttempt,
    /// The gateway never made this dispatch.
    NeverDispatched,
    /// The job has ended.
    Ended,
    /// Only a queued job can be handed out.
    NotQueued,
}

// === impl JobState ===

impl JobState {
    /// A job nobody has touched.
    pub const NEW: Self = Self {
        phase: State::Queued,
        attempt: Attempt {
            dispatch: 0,
            delivery: 0,
        },
        cancelling: false,
    };

    /// Applies one event.
    pub fn apply(self, event: Event) -> Applied {
        if self.phase.is_final() {
            return self.after_the_end(event);
        }
        match event {
            Event::Dispatched => self.dispatched(),
            Event::Accepted { dispatch } => self.accepted(dispatch),
            Event::Unplaced { dispatch } => self.unplaced(dispatch),
            Event::Seen { attempt } => self.seen(attempt),
            Event::Started { attempt } => self.started(attempt),
            Event::Finished { attempt, end } => self.finished(attempt, end),
            Event::CancelAsked => self.cancel_asked(),
            Event::Expired => self.end_if(self.phase == State::Queued, State::Failed),
            Event::Lost => {
                let held = matches!(self.phase, State::Accepted | State::Started);
                self.end_if(held, State::Failed)
            }
            Event::Vanished => match (self.phase, self.cancelling) {
                (State::Accepted, true) => self.end_if(true, State::Cancelled),
                (State::Accepted, false) => self.to(State::Queued),
                _ => Applied::Unchanged,
            },
            Event::CancelOverdue => self.end_if(self.cancelling, State::Cancelled),
        }
    }

    fn after_the_end(self, event: Event) -> Applied {
        match event {
            Event::Dispatched | Event::CancelAsked => Applied::Denied(Denial::Ended),
            Event::Seen { attempt }
            | Event::Started { attempt }
            | Event::Finished { attempt, .. } => match self.fence(attempt) {
                Err(denial) => Applied::Denied(denial),
                Ok(()) if attempt == self.attempt => Applied::Unchanged,
                Ok(()) => Applied::Denied(Denial::Ended),
            },
            Event::Accepted { .. }
            | Event::Unplaced { .. }
            | Event::Expired
            | Event::Lost
            | Event::Vanished
            | Event::CancelOverdue => Applied::Unchanged,
        }
    }

    fn dispatched(self) -> Applied {
        if self.phase != State::Queued || self.cancelling {
            return Applied::Denied(Denial::NotQueued);
        }
        Applied::Changed(Self {
            phase: State::Dispatched,
            attempt: Attempt {
                dispatch: self.attempt.dispatch + 1,
                delivery: 0,
            },
            ..self
        })
    }

    fn accepted(self, dispatch: u32) -> Applied {
        if let Err(denial) = self.fence_dispatch(dispatch) {
            return Applied::Denied(denial);
        }
        match self.phase {
            State::Queued | State::Dispatched => self.to(State::Accepted),
            _ => Applied::Unchanged,
        }
    }

    fn unplaced(self, dispatch: u32) -> Applied {
        if let Err(denial) = self.fence_dispatch(dispatch) {
            return Applied::Denied(denial);
        }
        match (self.phase, self.cancelling) {
            (State::Dispatched, true) => self.end_if(true, State::Cancelled),
            (State::Dispatched, false) => self.to(State::Queued),
            _ => Applied::Unchanged,
        }
    }

    fn seen(self, attempt: Attempt) -> Applied {
        if let Err(denial) = self.fence(attempt) {
            return Applied::Denied(denial);
        }
        let phase = match self.phase {
            State::Queued | State::Dispatched => State::Accepted,
            other => other,
        };
        self.changed(Self {
            phase,
            attempt,
            ..self
        })
    }

    fn started(self, attempt: Attempt) -> Applied {
        if let Err(denial) = self.fence(attempt) {
            return Applied::Denied(denial);
        }
        self.changed(Self {
            phase: State::Started,
            attempt,
            ..self
        })
    }

    fn finished(self, attempt: Attempt, end: End) -> Applied {
        if let Err(denial) = self.fence(attempt) {
            return Applied::Denied(denial);
        }
        let phase = match end {
            End::Succeeded => State::Succeeded,
            End::Failed => State::Failed,
            End::Cancelled => State::Cancelled,
        };
        Applied::Changed(Self {
            phase,
            attempt,
            cancelling: false,
        })
    }

    fn cancel_asked(self) -> Applied {
        if self.phase == State::Queued {
            return self.end_if(true, State::Cancelled);
        }
        self.changed(Self {
            cancelling: true,
            ..self
        })
    }

    fn end_if(self, so: bool, phase: State) -> Applied {
        if !so {
            return Applied::Unchanged;
        }
        Applied::Changed(Self {
            phase,
            cancelling: false,
            ..self
        })
    }

    fn to(self, phase: State) -> Applied {
        Applied::Changed(Self { phase, ..self })
    }

    fn changed(self, new: Self) -> Applied {
        if new == self {
            Applied::Unchanged
        } else {
            Applied::Changed(new)
        }
    }

    fn fence(self, attempt: Attempt) -> Result<(), Denial> {
        if attempt.dispatch > self.attempt.dispatch || attempt.dispatch == 0 {
            Err(Denial::NeverDispatched)
        } else if attempt < self.attempt {
            Err(Denial::OlderAttempt)
        } else {
            Ok(())
        }
    }

    fn fence_dispatch(self, dispatch: u32) -> Result<(), Denial> {
        if dispatch > self.attempt.dispatch || dispatch == 0 {
            Err(Denial::NeverDispatched)
        } else if dispatch < self.attempt.dispatch {
            Err(Denial::OlderAttempt)
        } else {
            Ok(())
        }
    }
}

// === impl Denial ===

impl Denial {
    /// The word for logs and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OlderAttempt => "older_attempt",
            Self::NeverDispatched => "never_dispatched",
            Self::Ended => "ended",
            Self::NotQueued => "not_queued",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::*;

    fn attempts() -> impl Strategy<Value = Attempt> {
        (0u32..4, 0u32..4).prop_map(|(dispatch, delivery)| Attempt { dispatch, delivery })
    }

    fn events() -> impl Strategy<Value = Event> {
        let end = prop_oneof![
            Just(End::Succeeded),
            Just(End::Failed),
            Just(End::Cancelled)
        ];
        prop_oneof![
            3 => Just(Event::Dispatched),
            2 => (0u32..4).prop_map(|dispatch| Event::Accepted { dispatch }),
            2 => (0u32..4).prop_map(|dispatch| Event::Unplaced { dispatch }),
            1 => attempts().prop_map(|attempt| Event::Seen { attempt }),
            1 => attempts().prop_map(|attempt| Event::Started { attempt }),
            1 => (attempts(), end).prop_map(|(attempt, end)| Event::Finished { attempt, end }),
            1 => Just(Event::CancelAsked),
            1 => Just(Event::Expired),
            1 => Just(Event::Lost),
            1 => Just(Event::Vanished),
            1 => Just(Event::CancelOverdue),
        ]
    }

    fn step(state: JobState, event: Event) -> JobState {
        match state.apply(event) {
            Applied::Changed(next) => next,
            Applied::Unchanged | Applied::Denied(_) => state,
        }
    }

    proptest! {
        #[test]
        fn an_ended_job_never_changes_and_attempts_never_go_down(
            events in proptest::collection::vec(events(), 0..40)
        ) {
            let mut state = JobState::NEW;
            for event in events {
                let next = step(state, event);
                assert!(!state.phase.is_final() || next == state, "{state:?} {event:?}");
                assert!(next.attempt >= state.attempt, "{state:?} {event:?}");
                assert!(
                    next.attempt.dispatch == state.attempt.dispatch || event == Event::Dispatched,
                    "only the gateway dispatches: {state:?} {event:?}"
                );
                assert!(!next.phase.is_final() || !next.cancelling);
                assert!(next.phase != State::Queued || !next.cancelling, "{state:?} {event:?}");
                state = next;
            }
        }

        #[test]
        fn a_repeat_changes_nothing(
            events in proptest::collection::vec(events(), 0..40), last in events()
        ) {
            let state = events.into_iter().fold(JobState::NEW, step);
            let once = step(state, last);
            let twice = step(once, last);
            // A job put back is one nobody has, so handing it out again is no repeat.
            assert!(twice == once, "{state:?} {last:?} {once:?} {twice:?}");
        }

        #[test]
        fn what_an_older_attempt_says_is_denied(
            events in proptest::collection::vec(events(), 0..40), attempt in attempts(), end in any::<bool>()
        ) {
            let state = events.into_iter().fold(JobState::NEW, step);
            let end = if end { End::Succeeded } else { End::Failed };
            for event in [Event::Seen { attempt }, Event::Started { attempt }, Event::Finished { attempt, end }] {
                if attempt < state.attempt || attempt.dispatch == 0 {
                    assert!(matches!(state.apply(event), Applied::Denied(_)), "{state:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_report_of_the_dispatch_that_was_put_back_still_ends_the_job() {
        let put_back = [Event::Dispatched, Event::Unplaced { dispatch: 1 }]
            .into_iter()
            .fold(JobState::NEW, step);
        assert_eq!(put_back.phase, State::Queued);
        let attempt = Attempt {
            dispatch: 1,
            delivery: 1,
        };
        let end = End::Succeeded;
        assert_eq!(
            step(put_back, Event::Finished { attempt, end }).phase,
            State::Succeeded
        );
    }

    #[test]
    fn a_cancelled_dispatch_that_was_not_placed_ends_at_once() {
        let state = [
            Event::Dispatched,
            Event::CancelAsked,
            Event::Unplaced { dispatch: 1 },
        ]
        .into_iter()
        .fold(JobState::NEW, step);
        assert_eq!(state.phase, State::Cancelled);
    }
}
