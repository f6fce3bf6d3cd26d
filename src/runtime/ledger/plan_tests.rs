//! What the plan promises, on a ledger of numbers instead of runtimes.

use std::time::{Duration, Instant};

use sluice_proto::ids::Digest;
use sluice_proto::job::Identity;

use super::*;
use crate::runtime::ledger::{Claim, Limits, Ticket};

const IDLE: Duration = Duration::from_secs(600);
const AGE: Duration = Duration::from_secs(3_600);

fn ledger(runtimes_max: usize, stems_none: usize, stems_app: usize) -> Ledger<u64> {
    let limits = Limits {
        runtimes_max,
        stems_none,
        stems_app,
        app_network: Network::Full,
        idle: IDLE,
        age: AGE,
    };
    let mut ledger = Ledger::new(limits, "not yet".into());
    for network in NETWORKS {
        ledger.accept(network);
    }
    ledger
}

fn flow(name: &str) -> Identity {
    Identity::Flow { flow: name.into() }
}

fn app(name: &str) -> Identity {
    Identity::App {
        installation: name.into(),
        bundle: Digest::from("c".repeat(64)),
    }
}

fn starts(steps: &[Step<u64>]) -> Vec<(Number, Network)> {
    let start = |step: &Step<u64>| match *step {
        Step::Start(number, network) => Some((number, network)),
        _ => None,
    };
    steps.iter().filter_map(start).collect()
}

fn destroys(steps: &[Step<u64>]) -> Vec<Number> {
    let destroy = |step: &Step<u64>| match *step {
        Step::Destroy(number) => Some(number),
        _ => None,
    };
    steps.iter().filter_map(destroy).collect()
}

fn lead(ledger: &mut Ledger<u64>, identity: &Identity, now: Instant) -> Ticket {
    match ledger.claim(identity, now) {
        Claim::Lead(ticket) => ticket,
        other => panic!("{other:?} instead of the lead"),
    }
}

/// Claims, starts what is planned, and loads; gives the runtime's number.
fn go_live(ledger: &mut Ledger<u64>, identity: &Identity, now: Instant) -> Number {
    lead(ledger, identity, now);
    for (number, _) in starts(&ledger.plan(now)) {
        ledger.started(number, number);
    }
    let steps = ledger.plan(now);
    let number = steps.iter().find_map(|step| match step {
        Step::Assign(_, number, _, _) => Some(*number),
        _ => None,
    });
    let number = number.expect("a runtime is assigned");
    ledger.loaded(number, now);
    number
}

#[test]
fn stems_are_refilled_by_network_and_at_most_a_few_at_once() {
    let now = Instant::now();
    let mut ledger = ledger(10, 3, 2);
    let first = starts(&ledger.plan(now));
    assert_eq!(first.len(), CREATIONS_MAX);
    assert!(first.iter().all(|(_, network)| *network == Network::None));
    first
        .iter()
        .for_each(|(number, _)| ledger.started(*number, *number));
    let second = starts(&ledger.plan(now));
    assert_eq!(second.len(), 2);
    assert!(second.iter().all(|(_, network)| *network == Network::Full));
    second
        .iter()
        .for_each(|(number, _)| ledger.started(*number, *number));
    assert_eq!(ledger.plan(now), []);
}

#[test]
fn a_flow_never_gets_a_runtime_with_a_network() {
    let now = Instant::now();
    let mut ledger = ledger(10, 0, 1);
    let stem = starts(&ledger.plan(now))[0].0;
    ledger.started(stem, stem);
    lead(&mut ledger, &flow("one"), now);
    let steps = ledger.plan(now);
    assert_eq!(starts(&steps)[0].1, Network::None, "{steps:?}");
    let ticket = lead(&mut ledger, &app("one"), now);
    let steps = ledger.plan(now);
    assert_eq!(steps[0], Step::Assign(ticket, stem, stem, Origin::Stem));
}

#[test]
fn the_least_recently_used_idle_one_is_evicted_and_a_busy_one_is_not() {
    let now = Instant::now();
    let mut ledger = ledger(3, 0, 0);
    let numbers = ["busy", "old", "new"].map(|name| go_live(&mut ledger, &flow(name), now));
    ledger.released(numbers[1], now + Duration::from_secs(1));
    ledger.released(numbers[2], now + Duration::from_secs(2));
    let later = now + Duration::from_secs(3);
    lead(&mut ledger, &flow("next"), later);
    assert_eq!(destroys(&ledger.plan(later)), [numbers[1]]);
    assert_eq!(ledger.plan(later), [], "one in line makes room for one");
    ledger.destroyed(numbers[1]);
    assert_eq!(starts(&ledger.plan(later)).len(), 1);
}

/// One call of each identity in turn; says how many of them needed a new runtime.
fn round(ledger: &mut Ledger<u64>, identities: usize, now: &mut Instant) -> usize {
    let mut cold = 0;
    for n in 0..identities {
        *now += Duration::from_millis(50);
        let identity = flow(&n.to_string());
        if let Claim::Warm(number, _) = ledger.claim(&identity, *now) {
            ledger.released(number, *now);
            continue;
        }
        cold += 1;
        let mut steps = ledger.plan(*now);
        for number in destroys(&steps) {
            ledger.destroyed(number);
            steps = ledger.plan(*now);
        }
        for (number, _) in starts(&steps) {
            ledger.started(number, number);
        }
        for step in ledger.plan(*now) {
            if let Step::Assign(_, number, ..) = step {
                ledger.loaded(number, *now);
                ledger.released(number, *now);
            }
        }
    }
    cold
}

#[test]
fn of_many_that_take_turns_as_many_stay_as_there_is_room_for() {
    let mut now = Instant::now();
    let mut ledger = ledger(40, 0, 0);
    assert_eq!(
        round(&mut ledger, 100, &mut now),
        100,
        "nobody is known yet"
    );
    round(&mut ledger, 100, &mut now);
    let cold = round(&mut ledger, 100, &mut now);
    assert!(cold <= 65, "{cold} of 100 were cold, and 40 had room");
    // Others come, and those that stay away do not hold their places for long.
    for _ in 0..6 {
        now += Duration::from_secs(2);
        round(&mut ledger, 10, &mut now);
    }
    assert_eq!(round(&mut ledger, 10, &mut now), 0, "ten have room enough");
}

#[test]
fn a_stem_of_the_other_network_makes_room_before_a_busy_one_must_yield() {
    let now = Instant::now();
    let mut ledger = ledger(1, 1, 0);
    let stem = starts(&ledger.plan(now))[0].0;
    ledger.started(stem, stem);
    lead(&mut ledger, &app("one"), now);
    assert_eq!(destroys(&ledger.plan(now)), [stem]);
}

#[test]
fn the_one_that_held_longest_yields_after_its_turn_and_goes_on_if_nobody_waits() {
    let now = Instant::now();
    let mut ledger = ledger(1, 0, 0);
    let number = go_live(&mut ledger, &flow("holds"), now);
    let ticket = lead(&mut ledger, &flow("waits"), now);
    ledger.plan(now);
    assert_eq!(
        ledger.claim(&flow("holds"), now),
        Claim::Warm(number, number)
    );
    let later = now + TURN;
    ledger.plan(later);
    // Not a second runtime for it, but a place behind the one that waits.
    lead(&mut ledger, &flow("holds"), later);
    ledger.released(number, later);
    assert_eq!(destroys(&ledger.released(number, later)), [number]);
    ledger.destroyed(number);
    let next = starts(&ledger.plan(later))[0].0;
    ledger.started(next, next);
    assert_eq!(
        ledger.plan(later)[0],
        Step::Assign(ticket, next, next, Origin::Cold)
    );
}

#[test]
fn a_yielding_one_takes_claims_again_when_the_line_is_empty() {
    let now = Instant::now();
    let mut ledger = ledger(1, 0, 0);
    let number = go_live(&mut ledger, &flow("holds"), now);
    let waits = flow("waits");
    let ticket = lead(&mut ledger, &waits, now);
    ledger.plan(now + TURN);
    ledger.withdraw(&waits, ticket);
    ledger.plan(now + TURN);
    assert_eq!(
        ledger.claim(&flow("holds"), now + TURN),
        Claim::Warm(number, number)
    );
}

#[test]
fn the_idle_go_after_their_time_and_the_busy_stay() {
    let now = Instant::now();
    let mut ledger = ledger(4, 0, 0);
    let busy = go_live(&mut ledger, &flow("busy"), now);
    let idle = go_live(&mut ledger, &flow("idle"), now);
    ledger.released(idle, now);
    assert_eq!(ledger.plan(now + IDLE - Duration::from_secs(1)), []);
    assert_eq!(ledger.plan(now + IDLE), [Step::Destroy(idle)]);
    assert_eq!(ledger.claim(&flow("busy"), now), Claim::Warm(busy, busy));
}

#[test]
fn a_retired_one_takes_no_claim_and_goes_with_its_last_use() {
    let now = Instant::now();
    let mut ledger = ledger(4, 0, 0);
    let number = go_live(&mut ledger, &flow("one"), now);
    assert_eq!(ledger.retire(number), []);
    lead(&mut ledger, &flow("one"), now);
    assert_eq!(ledger.released(number, now), [Step::Destroy(number)]);
    assert_eq!(ledger.released(number, now), [], "it goes once");
}

#[test]
fn a_failed_start_fails_its_network_and_leaves_the_other() {
    let now = Instant::now();
    let mut ledger = ledger(4, 0, 0);
    let of_app = lead(&mut ledger, &app("one"), now);
    let of_flow = lead(&mut ledger, &flow("one"), now);
    let started = starts(&ledger.plan(now));
    let number_of = |network| started.iter().find(|(_, n)| *n == network).expect("both").0;
    let steps = ledger.start_failed(number_of(Network::Full), "no tun device");
    assert!(
        matches!(&steps[..], [Step::Fail(ticket, failure)]
        if *ticket == of_app && failure.message == "no tun device"),
        "{steps:?}"
    );
    assert!(matches!(ledger.claim(&app("two"), now), Claim::Refused(_)));
    let number = number_of(Network::None);
    ledger.started(number, number);
    assert_eq!(
        ledger.plan(now)[0],
        Step::Assign(of_flow, number, number, Origin::Cold)
    );
    ledger.accept(Network::Full);
    assert!(matches!(ledger.claim(&app("two"), now), Claim::Lead(_)));
}

#[test]
fn a_want_passes_to_its_follower_and_keeps_its_place() {
    let now = Instant::now();
    let mut ledger = ledger(1, 0, 0);
    let one = flow("one");
    let leader = lead(&mut ledger, &one, now);
    let Claim::Follow(follower) = ledger.claim(&one, now) else {
        panic!("one leads already");
    };
    lead(&mut ledger, &flow("two"), now);
    assert_eq!(ledger.withdraw(&one, leader), [Step::Lead(follower)]);
    assert_eq!(
        ledger.withdraw(&one, leader),
        [],
        "a repeat changes nothing"
    );
    let number = starts(&ledger.plan(now))[0].0;
    ledger.started(number, number);
    assert_eq!(
        ledger.plan(now)[0],
        Step::Assign(follower, number, number, Origin::Cold)
    );
}

#[test]
fn an_idle_runtime_is_paused_once_and_woken_by_its_next_claim() {
    let now = Instant::now();
    let later = now + Duration::from_secs(11);
    let mut ledger = ledger(2, 0, 0);
    let number = go_live(&mut ledger, &flow("a"), now);
    let pause = Duration::from_secs(10);
    assert!(ledger.pause(later, pause).is_empty(), "it is at work");
    ledger.released(number, now);
    assert!(
        ledger.pause(now, pause).is_empty(),
        "it was at work just now"
    );
    assert_eq!(ledger.pause(later, pause), [number]);
    assert!(ledger.pause(later, pause).is_empty(), "it is paused");
    assert_eq!((ledger.status().paused, ledger.status().idle), (1, 0));
    let claim = ledger.claim(&flow("a"), later);
    assert_eq!(claim, Claim::Paused(number, number));
    let claim = ledger.claim(&flow("a"), later);
    assert_eq!(claim, Claim::Warm(number, number), "it is woken already");
}

#[test]
fn a_runtime_that_is_too_old_goes_when_its_last_use_ends() {
    let now = Instant::now();
    let old = now + AGE;
    let mut ledger = ledger(2, 0, 0);
    let number = go_live(&mut ledger, &flow("a"), now);
    assert!(destroys(&ledger.plan(old)).is_empty(), "it is at work");
    assert!(matches!(ledger.claim(&flow("a"), old), Claim::Lead(_)));
    assert_eq!(destroys(&ledger.released(number, old)), [number]);
}
