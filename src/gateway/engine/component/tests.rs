//! Tests of the life cycle: each step by itself, then random histories.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::{Abilities, Effect, Event, Outcome, Owner, Phase, RunResult, State, Status, apply};

const BOTH: Abilities = Abilities {
    sync: true,
    drain: true,
};
const NONE: Abilities = Abilities {
    sync: false,
    drain: false,
};

fn confirmed(abilities: Abilities) -> State {
    State::created(Owner::Installation, abilities, true).0
}

fn result(value: Value) -> RunResult {
    RunResult::read(value).expect("a result")
}

fn finished(run: u64, value: Value) -> Event {
    Event::RunFinished {
        run,
        result: result(value),
    }
}

#[track_caller]
fn step(state: &State, event: Event) -> (State, Vec<Effect>) {
    match apply(state, event.clone(), 1_000) {
        Outcome::Changed { state, effects } => (state, effects),
        other => panic!("{event:?} gave {other:?}"),
    }
}

#[track_caller]
fn ready() -> State {
    step(&confirmed(BOTH), finished(1, json!({"newStatus": "ready"}))).0
}

#[test]
fn a_draft_waits_for_its_confirmation_and_takes_it_once() {
    let (draft, effects) = State::created(Owner::Installation, BOTH, false);
    assert_eq!((draft.status, effects), (Status::Draft, vec![]));
    assert_eq!(apply(&draft, Event::ConfigChanged, 0), Outcome::Unchanged);
    let (state, effects) = step(&draft, Event::Confirmed);
    assert_eq!(state.status, Status::InProgress);
    assert_eq!(effects, [Effect::RunSync { run: 1 }]);
    assert_eq!(
        apply(&state, Event::Confirmed, 0),
        Outcome::Denied("app installation is not a draft".to_owned())
    );
    let (block, _) = State::created(Owner::Block, BOTH, true);
    assert_eq!(
        apply(&block, Event::Confirmed, 0),
        Outcome::Denied("block is not a draft".to_owned())
    );
}

#[test]
fn autoconfirm_starts_at_once_and_no_life_cycle_is_ready_at_once() {
    let (_, effects) = State::created(Owner::Block, BOTH, true);
    assert_eq!(effects, [Effect::RunSync { run: 1 }]);
    let (state, effects) = State::created(Owner::Block, NONE, true);
    assert_eq!((state.status, effects), (Status::Ready, vec![]));
    assert_eq!(apply(&state, Event::ConfigChanged, 0), Outcome::Unchanged);
    let (state, effects) = step(&state, Event::Delete);
    assert_eq!(
        (state.status, effects),
        (Status::Drained, vec![Effect::Remove])
    );
}

#[test]
fn a_result_sets_status_text_signals_outputs_and_the_next_time() {
    let (state, effects) = step(
        &confirmed(BOTH),
        finished(
            1,
            json!({
                "newStatus": "ready", "customStatusDescription": "All well",
                "signalUpdates": {"a": 1, "b": null}, "outputUpdates": {"x": null},
                "nextScheduleDelay": 30, "novelty": true
            }),
        ),
    );
    assert_eq!(state.status, Status::Ready);
    assert_eq!(state.status_text().as_deref(), Some("All well"));
    assert_eq!(state.due_ms, Some(31_000));
    assert!(matches!(&effects[0], Effect::MergeSignals(signals) if signals.len() == 2));
    assert!(matches!(&effects[1], Effect::MergeOutputs(outputs) if outputs["x"].is_none()));
    assert_eq!(effects[2], Effect::ScheduleAt { at_ms: 31_000 });
    // The poll runs without showing In Progress, and only for the time that was asked for.
    assert_eq!(
        apply(&state, Event::Due { at_ms: 30_999 }, 0),
        Outcome::Unchanged
    );
    let (state, effects) = step(&state, Event::Due { at_ms: 31_000 });
    assert_eq!(state.status, Status::Ready);
    assert_eq!(effects, [Effect::RunSync { run: 2 }]);
}

#[test]
fn an_omitted_status_stays_as_it_was() {
    let (state, _) = step(&confirmed(BOTH), finished(1, json!({})));
    assert_eq!(state.status, Status::InProgress);
    let (state, _) = step(&ready(), Event::ConfigChanged);
    assert_eq!(state.status, Status::InProgress);
    let (state, _) = step(&state, finished(2, Value::Null));
    assert_eq!(state.status, Status::Ready);
    // Neither do the words about it change, until another status comes.
    let waits = json!({"newStatus": "in_progress", "customStatusDescription": "Log in"});
    let (state, _) = step(&confirmed(BOTH), finished(1, waits));
    let (state, _) = step(&state, Event::SyncRequested);
    let (state, _) = step(&state, finished(2, json!({"signalUpdates": {"a": 1}})));
    assert_eq!(state.status, Status::InProgress);
    assert_eq!(state.status_text().as_deref(), Some("Log in"));
    let (state, _) = step(&state, Event::SyncRequested);
    let (state, _) = step(&state, finished(3, json!({"newStatus": "ready"})));
    assert_eq!(state.status_text(), None);
}

#[test]
fn many_changes_during_a_sync_lead_to_exactly_one_more() {
    let mut state = confirmed(BOTH);
    for event in [
        Event::ConfigChanged,
        Event::SignalChanged,
        Event::SyncRequested,
    ] {
        match apply(&state, event, 0) {
            Outcome::Changed {
                state: next,
                effects,
            } => {
                assert!(effects.is_empty());
                state = next;
            }
            other => assert_eq!(other, Outcome::Unchanged),
        }
    }
    let (state, effects) = step(
        &state,
        finished(1, json!({"newStatus": "ready", "nextScheduleDelay": 5})),
    );
    assert_eq!(effects, [Effect::RunSync { run: 2 }]);
    assert_eq!(state.status, Status::InProgress);
    let (state, effects) = step(&state, finished(2, json!({"newStatus": "ready"})));
    assert_eq!((state.status, effects), (Status::Ready, vec![]));
}

#[test]
fn a_change_takes_back_the_due_time_and_runs_now() {
    let (state, _) = step(
        &confirmed(BOTH),
        finished(1, json!({"newStatus": "ready", "nextScheduleDelay": 60})),
    );
    let (state, effects) = step(&state, Event::SignalChanged);
    assert_eq!(effects, [Effect::Unschedule, Effect::RunSync { run: 2 }]);
    assert_eq!(state.due_ms, None);
}

#[test]
fn an_older_or_repeated_report_changes_nothing() {
    let state = ready();
    for run in [0, 1, 7] {
        assert_eq!(
            apply(&state, finished(run, json!({})), 0),
            Outcome::Unchanged
        );
        let lost = Event::RunFailed {
            run,
            reason: "lost".to_owned(),
        };
        assert_eq!(apply(&state, lost, 0), Outcome::Unchanged);
    }
}

#[test]
fn a_throw_fails_and_the_next_change_tries_again() {
    let boom = Event::RunFailed {
        run: 1,
        reason: "boom".to_owned(),
    };
    let (state, effects) = step(&confirmed(BOTH), boom);
    assert_eq!((state.status, effects), (Status::Failed, vec![]));
    assert_eq!(state.status_text().as_deref(), Some("boom"));
    let (state, _) = step(&state, Event::SyncRequested);
    let (state, _) = step(&state, finished(2, json!({"newStatus": "drifted"})));
    assert_eq!((state.status, state.status_text()), (Status::Drifted, None));
}

#[test]
fn a_status_that_a_handler_cannot_have_is_a_failure() {
    let (state, _) = step(
        &confirmed(BOTH),
        finished(1, json!({"newStatus": "drained"})),
    );
    assert_eq!(state.status, Status::Failed);
    let text = state.status_text().unwrap_or_default();
    assert!(
        text.contains("onSync answered the status \"drained\""),
        "{text}"
    );
    assert!(RunResult::read(json!({"newStatus": "happy"})).is_err());
    assert!(RunResult::read(json!("ready")).is_err());
}

#[test]
fn deleting_drains_until_it_is_drained() {
    let (state, effects) = step(&ready(), Event::Delete);
    assert_eq!(state.status, Status::Draining);
    assert_eq!(effects, [Effect::RunDrain { run: 2 }]);
    assert_eq!(apply(&state, Event::Delete, 0), Outcome::Unchanged);
    assert_eq!(apply(&state, Event::ConfigChanged, 0), Outcome::Unchanged);
    assert!(matches!(
        apply(&state, Event::SyncRequested, 0),
        Outcome::Denied(_)
    ));

    let (state, effects) = step(
        &state,
        finished(2, json!({"newStatus": "draining", "nextScheduleDelay": 3})),
    );
    assert_eq!(effects, [Effect::ScheduleAt { at_ms: 4_000 }]);
    let (state, effects) = step(&state, Event::Due { at_ms: 4_000 });
    assert_eq!(effects, [Effect::RunDrain { run: 3 }]);

    let (state, _) = step(&state, finished(3, json!({"newStatus": "failed"})));
    assert_eq!(state.status, Status::DrainingFailed);
    let (state, effects) = step(&state, Event::Delete);
    assert_eq!(effects, [Effect::RunDrain { run: 4 }]);
    let done = json!({"newStatus": "drained", "signalUpdates": {"a": null}});
    let (state, effects) = step(&state, finished(4, done));
    assert!(state.is_over());
    assert!(matches!(
        effects[..],
        [Effect::MergeSignals(_), Effect::Remove]
    ));
    assert_eq!(apply(&state, Event::Delete, 0), Outcome::Unchanged);
}

#[test]
fn a_drain_that_names_no_time_is_asked_again() {
    let (state, _) = step(&ready(), Event::Delete);
    let (state, effects) = step(&state, finished(2, json!({"newStatus": "draining"})));
    assert_eq!(effects, [Effect::ScheduleAt { at_ms: 11_000 }]);
    let (state, _) = step(&state, Event::Due { at_ms: 11_000 });
    let (_, effects) = step(&state, finished(3, json!({})));
    assert_eq!(effects, [Effect::Remove]);
}

#[test]
fn deleting_during_a_sync_lets_it_end_first() {
    let (state, effects) = step(&confirmed(BOTH), Event::Delete);
    assert_eq!((state.status, effects), (Status::Draining, vec![]));
    let (state, effects) = step(
        &state,
        finished(1, json!({"newStatus": "ready", "nextScheduleDelay": 1})),
    );
    assert_eq!(effects, [Effect::RunDrain { run: 2 }]);
    assert_eq!(state.status, Status::Draining);
}

#[test]
fn a_run_without_an_agent_stays_in_progress_and_says_so() {
    let state = confirmed(BOTH);
    let (state, _) = step(
        &state,
        Event::PoolHasNoAgent {
            pool: "eu".to_owned(),
        },
    );
    assert_eq!(state.status, Status::InProgress);
    assert_eq!(
        state.status_text().as_deref(),
        Some("Waiting for an agent of the pool eu")
    );
    let again = Event::PoolHasNoAgent {
        pool: "eu".to_owned(),
    };
    assert_eq!(apply(&state, again, 0), Outcome::Unchanged);
    let (state, _) = step(&state, Event::AgentArrived);
    assert_eq!(state.status_text(), None);
    let (state, _) = step(&state, finished(1, json!({"newStatus": "ready"})));
    assert_eq!(state.status, Status::Ready);
}

#[test]
fn new_code_may_gain_or_lose_a_life_cycle() {
    let state = confirmed(NONE);
    let (state, effects) = step(&state, Event::CodeChanged(BOTH));
    assert_eq!(effects, [Effect::RunSync { run: 1 }]);
    // The code changes again during the run: whatever comes out is of old code.
    let (state, effects) = step(&state, Event::CodeChanged(NONE));
    assert!(effects.is_empty() && state.dirty);
    let boom = Event::RunFailed {
        run: 1,
        reason: "boom".to_owned(),
    };
    let (state, effects) = step(&state, boom);
    assert_eq!((state.status, effects), (Status::Ready, vec![]));
    assert_eq!(state.status_text(), None);
    assert_eq!(
        apply(&state, Event::CodeChanged(NONE), 0),
        Outcome::Unchanged
    );
}

#[test]
fn delays_have_bounds_and_the_state_survives_storage() {
    for (delay, expected) in [
        (0.0, Some(2_000)),
        (-5.0, Some(2_000)),
        (1e300, Some(31_622_401_000)),
    ] {
        let (state, _) = step(
            &confirmed(BOTH),
            finished(1, json!({"newStatus": "ready", "nextScheduleDelay": delay})),
        );
        assert_eq!(state.due_ms, expected);
        let stored = serde_json::to_string(&state).expect("writes");
        assert_eq!(
            serde_json::from_str::<State>(&stored).expect("reads"),
            state
        );
    }
}

/// What a random history does; runs are answered by the test itself.
#[derive(Debug, Clone)]
enum Move {
    Apply(Event),
    Finish(Value),
    Fail,
    Due,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        Just(Move::Apply(Event::Confirmed)),
        Just(Move::Apply(Event::ConfigChanged)),
        Just(Move::Apply(Event::SignalChanged)),
        Just(Move::Apply(Event::SyncRequested)),
        Just(Move::Apply(Event::CodeChanged(BOTH))),
        Just(Move::Apply(Event::PoolHasNoAgent {
            pool: "p".to_owned()
        })),
        Just(Move::Apply(Event::AgentArrived)),
        Just(Move::Apply(Event::Delete)),
        Just(Move::Fail),
        Just(Move::Due),
        any::<u8>().prop_map(|pick| Move::Finish(match pick % 6 {
            0 => json!({}),
            1 => json!({"newStatus": "failed"}),
            2 => json!({"newStatus": "in_progress", "nextScheduleDelay": 1}),
            3 => json!({"newStatus": "drained"}),
            _ => json!({"newStatus": "ready"}),
        })),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn no_change_is_lost_and_runs_never_overlap(moves in moves(), autoconfirm: bool) {
        let (mut state, effects) = State::created(Owner::Block, BOTH, autoconfirm);
        let mut history = History::default();
        history.note(&effects);
        for one in moves {
            let event = match one {
                Move::Apply(event) => event,
                Move::Due => match state.due_ms {
                    Some(at_ms) => Event::Due { at_ms },
                    None => continue,
                },
                Move::Finish(value) => match state.run {
                    Some(run) => finished(run.number, value),
                    None => continue,
                },
                Move::Fail => match state.run {
                    Some(run) => Event::RunFailed { run: run.number, reason: "x".to_owned() },
                    None => continue,
                },
            };
            history.happened(&state, &event);
            if let Outcome::Changed { state: next, effects } = apply(&state, event, 1_000) {
                history.note(&effects);
                state = next;
            }
            prop_assert_eq!(history.under_way, state.run.map(|run| run.number));
            prop_assert!(!(history.removed && state.run.is_some()));
            if state.deleting {
                prop_assert!(matches!(state.status, Status::Draining | Status::Drained | Status::DrainingFailed));
            }
        }
        // Let everything under way end.
        for _ in 0..3 {
            let Some(run) = state.run else { break };
            let end = match run.phase {
                Phase::Sync => json!({"newStatus": "ready"}),
                Phase::Drain => json!({"newStatus": "drained"}),
            };
            let event = finished(run.number, end);
            history.happened(&state, &event);
            let (next, effects) = step(&state, event);
            history.note(&effects);
            state = next;
        }
        prop_assert!(state.run.is_none());
        if !state.deleting && state.status != Status::Draft {
            prop_assert!(history.last_sync >= history.last_change, "{:?}", history);
        }
    }
}

#[derive(Debug, Default)]
struct History {
    clock: u64,
    last_change: u64,
    last_sync: u64,
    under_way: Option<u64>,
    removed: bool,
}

impl History {
    fn happened(&mut self, state: &State, event: &Event) {
        self.clock += 1;
        match event {
            Event::ConfigChanged
            | Event::SignalChanged
            | Event::SyncRequested
            | Event::CodeChanged(_)
                if state.status != Status::Draft =>
            {
                self.last_change = self.clock;
            }
            Event::RunFinished { .. } | Event::RunFailed { .. } => self.under_way = None,
            _ => {}
        }
    }

    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::RunSync { run } | Effect::RunDrain { run } => {
                    assert!(self.under_way.is_none(), "two runs at once");
                    self.under_way = Some(*run);
                    self.last_sync = self.clock;
                }
                Effect::Remove => self.removed = true,
                _ => {}
            }
        }
    }
}
