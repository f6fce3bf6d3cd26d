//! What each event does to a life. The parent draws the picture.

use super::{Abilities, Effect, Outcome, Owner, Phase, RunResult, State, Status, clip};

/// How long a drain that is not finished and names no time waits, in seconds.
const DRAIN_AGAIN_S: f64 = 10.0;

pub(super) fn confirmed(state: &State) -> Outcome {
    if state.status != Status::Draft {
        let owner = match state.owner {
            Owner::Installation => "app installation",
            Owner::Block => "block",
        };
        // Clients look for this text.
        return Outcome::Denied(format!("{owner} is not a draft"));
    }
    change(state, State::confirm)
}

pub(super) fn changed(state: &State) -> Outcome {
    // A draft has nothing to bring up to date, and what is to be removed stays as it is.
    if state.status == Status::Draft || state.deleting || !state.abilities.sync {
        return Outcome::Unchanged;
    }
    if state.run.is_some() {
        if state.dirty {
            return Outcome::Unchanged;
        }
        return change(state, |state, _| state.dirty = true);
    }
    change(state, |state, effects| {
        state.status = Status::InProgress;
        state.start(Phase::Sync, effects);
    })
}

pub(super) fn code_changed(state: &State, abilities: Abilities) -> Outcome {
    let mut next = state.clone();
    next.abilities = abilities;
    if !abilities.sync && state.run.is_none() && !state.deleting && state.status != Status::Draft {
        // The new code has no life cycle: nothing is left that could fail.
        next.error = None;
        next.settle(Status::Ready);
        let unscheduled = next.due_ms.take().map(|_| Effect::Unschedule);
        if next == *state {
            return Outcome::Unchanged;
        }
        return Outcome::Changed {
            state: next,
            effects: unscheduled.into_iter().collect(),
        };
    }
    // A run under way is of the old code, whatever the new one can do.
    if state.run.is_some() && !state.deleting {
        next.dirty = true;
    }
    match changed(&next) {
        Outcome::Unchanged if next != *state => Outcome::Changed {
            state: next,
            effects: Vec::new(),
        },
        outcome => outcome,
    }
}

pub(super) fn sync_requested(state: &State) -> Outcome {
    match state.status {
        Status::Draft => Outcome::Denied("it is a draft: confirm it first".to_owned()),
        _ if state.deleting => Outcome::Denied("it is being removed".to_owned()),
        _ => changed(state),
    }
}

pub(super) fn deleted(state: &State) -> Outcome {
    match state.status {
        Status::Drained => Outcome::Unchanged,
        Status::DrainingFailed => change(state, State::drain_or_remove),
        _ if state.deleting => Outcome::Unchanged,
        Status::Draft => change(state, |state, effects| {
            state.deleting = true;
            state.end(effects);
        }),
        _ => change(state, |state, effects| {
            state.deleting = true;
            if state.run.is_some() {
                // The sync ends first: two handlers of one thing never overlap.
                state.settle(Status::Draining);
            } else {
                state.drain_or_remove(effects);
            }
        }),
    }
}

pub(super) fn due(state: &State, at_ms: i64) -> Outcome {
    if state.due_ms != Some(at_ms) || state.run.is_some() {
        return Outcome::Unchanged;
    }
    change(state, |state, effects| {
        // The time has come, so there is nothing to take back.
        state.due_ms = None;
        if state.deleting {
            state.drain_or_remove(effects);
        } else if state.abilities.sync {
            // A poll is no news: the state is shown as it was meanwhile.
            state.start(Phase::Sync, effects);
        }
    })
}

pub(super) fn waiting(state: &State, pool: Option<String>) -> Outcome {
    if state.run.is_none() || state.waiting_for_pool == pool {
        return Outcome::Unchanged;
    }
    change(state, |state, _| state.waiting_for_pool = pool)
}

pub(super) fn finished(state: &State, phase: Phase, result: RunResult, now_ms: i64) -> Outcome {
    if let Some(status) = result.new_status
        && !may_answer(phase, status)
    {
        let handler = handler(phase);
        let name = serde_json::to_value(status).unwrap_or_default();
        let reason = format!("{handler} answered the status {name}, which it cannot have");
        return failed(state, phase, &reason);
    }
    change(state, |state, effects| {
        state.run = None;
        state.waiting_for_pool = None;
        state.error = None;
        if let Some(signals) = result.signal_updates.filter(|signals| !signals.is_empty()) {
            effects.push(Effect::MergeSignals(signals));
        }
        if let Some(outputs) = result.output_updates.filter(|outputs| !outputs.is_empty()) {
            effects.push(Effect::MergeOutputs(outputs));
        }
        let description = result.custom_status_description.map(|text| clip(&text));
        // With the status the words about it stay: `return {}` says nothing new.
        if description.is_some() || result.new_status.is_some() || phase == Phase::Drain {
            state.description = description;
        }
        let delay = result.next_schedule_delay;
        match phase {
            Phase::Sync => {
                let settled = state.settled;
                synced(state, result.new_status.unwrap_or(settled), effects);
                if state.run.is_none() && !state.deleting && state.abilities.sync {
                    state.schedule(delay, now_ms, effects);
                }
            }
            Phase::Drain => drained(state, result.new_status, delay, now_ms, effects),
        }
    })
}

fn synced(state: &mut State, status: Status, effects: &mut Vec<Effect>) {
    if state.deleting {
        state.drain_or_remove(effects);
        return;
    }
    state.settle(status);
    if state.dirty {
        state.dirty = false;
        if state.abilities.sync {
            state.status = Status::InProgress;
        }
        state.sync_or_be_ready(effects);
    }
}

fn drained(
    state: &mut State,
    status: Option<Status>,
    delay: Option<f64>,
    now_ms: i64,
    effects: &mut Vec<Effect>,
) {
    match status {
        Some(Status::Drained) => state.end(effects),
        Some(Status::DrainingFailed | Status::Failed) => {
            state.settle(Status::DrainingFailed);
            state.schedule(delay, now_ms, effects);
        }
        // An onDrain that says nothing and asks for no second run has done its work.
        None if delay.is_none() => state.end(effects),
        _ => {
            state.settle(Status::Draining);
            // Still draining, and nobody else would ask again.
            let delay = delay.or(Some(DRAIN_AGAIN_S));
            state.schedule(delay, now_ms, effects);
        }
    }
}

pub(super) fn failed(state: &State, phase: Phase, reason: &str) -> Outcome {
    change(state, |state, effects| {
        state.run = None;
        state.waiting_for_pool = None;
        state.description = None;
        state.error = Some(clip(reason));
        match phase {
            Phase::Sync => synced(state, Status::Failed, effects),
            Phase::Drain => state.settle(Status::DrainingFailed),
        }
    })
}

fn may_answer(phase: Phase, status: Status) -> bool {
    match phase {
        Phase::Sync => matches!(
            status,
            Status::InProgress | Status::Ready | Status::Failed | Status::Drifted
        ),
        Phase::Drain => matches!(
            status,
            Status::Draining | Status::Drained | Status::DrainingFailed | Status::Failed
        ),
    }
}

fn handler(phase: Phase) -> &'static str {
    match phase {
        Phase::Sync => "onSync",
        Phase::Drain => "onDrain",
    }
}

fn change(state: &State, with: impl FnOnce(&mut State, &mut Vec<Effect>)) -> Outcome {
    let mut next = state.clone();
    let mut effects = Vec::new();
    with(&mut next, &mut effects);
    Outcome::Changed {
        state: next,
        effects,
    }
}
