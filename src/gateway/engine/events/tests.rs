//! Tests of emissions, lineages, pending events and repeats.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::lineage::{CHAIN_EVENTS_MAX, Own};
use super::pending::{self, Change, Outcome, Phase};
use super::repeats::{Repeats, nth};
use super::{Emitter, Fingerprint, Lineage, Target, emission, fan_out};
use crate::gateway::engine::definition::Definition;
use crate::gateway::engine::graph::Graph;
use crate::gateway::engine::schema::Output;

fn outputs(value: Value) -> BTreeMap<String, Output> {
    serde_json::from_value(value).expect("outputs")
}

fn two() -> BTreeMap<String, Output> {
    outputs(
        json!({"default": {"order": 0, "possiblePrimaryParents": ["other"]}, "log": {"order": 1}}),
    )
}

fn handling<'a>(outputs: &'a BTreeMap<String, Output>, handled: Option<&'a str>) -> Emitter<'a> {
    Emitter {
        outputs,
        handled,
        emitted: 0,
    }
}

#[test]
fn an_emission_without_options_goes_out_by_default_from_the_handled_event() {
    let outputs = two();
    let emitted = emission(&[json!({"a": 1})], &handling(&outputs, Some("e1"))).expect("emits");
    assert_eq!(emitted.output, "default");
    assert_eq!(emitted.primary.as_deref(), Some("e1"));
    assert_eq!((emitted.echo, emitted.completes), (false, None));
    let started = emission(&[], &handling(&outputs, None)).expect("emits");
    assert_eq!((started.primary, started.body), (None, Value::Null));
}

#[test]
fn options_name_output_parents_echo_and_what_is_completed() {
    let outputs = two();
    let options = json!({
        "outputKey": "log", "parentEventId": "p", "secondaryParentEventIds": ["s", "p", "s", "t"],
        "echo": true, "complete": "w"
    });
    let emitted = emission(&[json!(1), options], &handling(&outputs, Some("e1"))).expect("emits");
    assert_eq!(emitted.output, "log");
    assert_eq!(emitted.primary.as_deref(), Some("p"));
    assert_eq!(emitted.secondary, ["s", "t"]);
    assert!(emitted.echo);
    assert_eq!(emitted.completes.as_deref(), Some("w"));
}

#[test]
fn what_does_not_fit_is_one_clear_error() {
    let outputs = two();
    let none = BTreeMap::new();
    let from = handling(&outputs, None);
    for (options, why) in [
        (
            json!({"outputKey": "nope"}),
            "the block has no output `nope`; there are: `default`, `log`",
        ),
        (
            json!({"outputKey": 1}),
            "`outputKey`: expected a string, found a number",
        ),
        (json!({"echo": "yes"}), "`echo`: expected a boolean"),
        (json!({"secondaryParentEventIds": "x"}), "expected a list"),
        (json!({"secondaryParentEventIds": [1]}), "expected strings"),
        (
            json!({"secondaryParentEventIds": vec!["x"; 1_001]}),
            "1001 secondary parents, more than 1000",
        ),
        (
            json!({"parentEventId": "x".repeat(2_001)}),
            "more than 2000 bytes",
        ),
        (json!([]), "the options are an object"),
    ] {
        let found = emission(&[Value::Null, options], &from).expect_err("refused");
        assert!(found.contains(why), "{found}");
    }
    let found = emission(&[], &handling(&none, None)).expect_err("refused");
    assert!(found.contains("no output to emit on"));
}

#[test]
fn a_handler_may_emit_ten_thousand_events_of_a_mebibyte() {
    let outputs = two();
    let last = Emitter {
        emitted: 9_999,
        ..handling(&outputs, None)
    };
    let over = Emitter {
        emitted: 10_000,
        ..handling(&outputs, None)
    };
    assert!(emission(&[], &last).is_ok());
    let why = emission(&[], &over).expect_err("refused");
    assert_eq!(
        why,
        "the handler has emitted 10000 events and may not emit more"
    );
    assert!(pending::create(&[], &over).is_err());
    let body = |length: usize| [json!("x".repeat(length))];
    assert!(emission(&body((1 << 20) - 2), &last).is_ok());
    let why = emission(&body((1 << 20) - 1), &last).expect_err("refused");
    assert_eq!(
        why,
        "the body of the event has 1048577 bytes, more than 1048576"
    );
}

#[test]
fn an_event_goes_to_every_linked_input_of_active_blocks() {
    let definition = Definition::parse(
        "blocks:
  - {name: A, type: {coreBlock: manualTrigger}}
  - {name: B, type: {coreBlock: transform}, inputs: {x: {links: [{block: A, output: o}]}, y: {links: [{block: A, output: o}]}}}
  - {name: C, type: {coreBlock: transform}, active: false, inputs: {x: {links: [{block: A, output: o}]}}}",
    )
    .expect("reads");
    let graph = Graph::of(&definition);
    let target = |input: &str| Target {
        block: "B".to_owned(),
        input: input.to_owned(),
    };
    assert_eq!(
        fan_out(&definition, &graph, "A", "o"),
        [target("x"), target("y")]
    );
    assert!(fan_out(&definition, &graph, "A", "p").is_empty());
    assert!(fan_out(&definition, &graph, "C", "o").is_empty());
    assert!(fan_out(&definition, &graph, "Ghost", "o").is_empty());
}

#[test]
fn a_lineage_remembers_the_nearest_event_of_each_block() {
    let own = |event, block, accessor, echo| Own {
        event,
        block,
        accessor,
        echo,
    };
    let of =
        |own: Own<'_>, primary: Option<&Lineage>| Lineage::of(&own, primary, &[]).expect("short");
    let a = of(own("1", "A", "a", false), None);
    let tool = of(own("2", "T", "tool", true), Some(&a));
    let b = of(own("3", "B", "b", false), Some(&tool));
    let a_again = of(own("4", "A", "a", false), Some(&b));
    assert_eq!(a_again.outputs["a"], "4");
    assert_eq!(a_again.outputs["tool"], "2");
    assert_eq!(a_again.length, 4);
    assert_eq!(a_again.echo_for("T"), Some("2"));
    assert_eq!(a_again.echo_for("A"), None);
    assert_eq!(
        b.outputs["a"], "1",
        "a parent is not changed by its children"
    );
    // An echo also comes back through a secondary parent.
    let other = Lineage::of(&own("5", "C", "c", false), None, &[&b]).expect("short");
    assert_eq!(other.echo_for("T"), Some("2"));
    assert!(!other.outputs.contains_key("tool"));
    let stored = serde_json::to_string(&b).expect("writes");
    assert_eq!(serde_json::from_str::<Lineage>(&stored).expect("reads"), b);
}

#[test]
fn a_chain_that_goes_round_for_ever_ends() {
    let own = Own {
        event: "e",
        block: "B",
        accessor: "b",
        echo: false,
    };
    let mut lineage = Lineage {
        length: CHAIN_EVENTS_MAX - 1,
        ..Lineage::default()
    };
    lineage = Lineage::of(&own, Some(&lineage), &[]).expect("the last one");
    let why = Lineage::of(&own, Some(&lineage), &[]).expect_err("one too many");
    assert!(why.contains("the chain has 10000 events"));
}

#[test]
fn a_pending_event_is_updated_and_completed_once() {
    let outputs = two();
    let args = [json!({"event": {"n": 1}, "outputKey": "log", "statusDescription": "Waiting"})];
    let (created, _) = pending::create(&args, &handling(&outputs, Some("e1"))).expect("creates");
    assert_eq!(created.primary.as_deref(), Some("e1"));
    assert_eq!(created.status.as_deref(), Some("Waiting"));
    // As apps for the first SDK say it.
    let args = [json!({"outputId": "log"})];
    let (early, _) = pending::create(&args, &handling(&outputs, None)).expect("creates");
    assert_eq!(early.output, "log");
    let (id, update) = pending::update(&[json!("p1"), json!({"event": 2})]).expect("reads");
    assert_eq!(id, "p1");
    let Outcome::Changed {
        pending: updated,
        emission: None,
    } = pending::apply(&created, update.clone())
    else {
        panic!("it was open");
    };
    assert_eq!(
        (&updated.body, updated.status.as_deref()),
        (&json!(2), Some("Waiting"))
    );
    assert_eq!(pending::apply(&updated, update.clone()), Outcome::Unchanged);
    let Outcome::Changed {
        pending: done,
        emission: Some(emitted),
    } = pending::apply(&updated, Change::Complete)
    else {
        panic!("it was open");
    };
    assert_eq!(done.phase, Phase::Completed);
    assert_eq!(
        (
            emitted.output.as_str(),
            emitted.body,
            emitted.primary.as_deref()
        ),
        ("log", json!(2), Some("e1"))
    );
    for change in [Change::Complete, update, Change::Cancel { reason: None }] {
        assert_eq!(pending::apply(&done, change), Outcome::Unchanged);
    }
    assert!(matches!(
        pending::apply(&done, Change::Replaced),
        Outcome::Denied(_)
    ));
}

#[test]
fn a_cancelled_pending_event_is_not_completed() {
    let outputs = two();
    let (created, _) = pending::create(&[], &handling(&outputs, None)).expect("creates");
    let (_, cancel) = pending::cancel(&[json!("p1"), json!("Timeout")]).expect("reads");
    let Outcome::Changed {
        pending: cancelled,
        emission: None,
    } = pending::apply(&created, cancel.clone())
    else {
        panic!("it was open");
    };
    assert_eq!(cancelled.reason.as_deref(), Some("Timeout"));
    assert_eq!(pending::apply(&cancelled, cancel), Outcome::Unchanged);
    assert!(matches!(
        pending::apply(&cancelled, Change::Complete),
        Outcome::Denied(_)
    ));
    assert!(pending::complete(&[]).is_err());
    assert!(pending::cancel(&[json!(5)]).is_err());
}

#[test]
fn an_emission_that_completes_has_the_parents_of_what_it_completes() {
    let outputs = two();
    let (waiting, _) = pending::create(&[], &handling(&outputs, Some("e1"))).expect("creates");
    let args = [json!(1), json!({"complete": "p1"})];
    let mut emitted = emission(&args, &handling(&outputs, None)).expect("emits");
    waiting.lend_parents(&mut emitted);
    assert_eq!(emitted.primary.as_deref(), Some("e1"));
    let mut named = emission(&args, &handling(&outputs, Some("e2"))).expect("emits");
    waiting.lend_parents(&mut named);
    assert_eq!(named.primary.as_deref(), Some("e2"));
}

#[test]
fn a_fingerprint_is_of_what_was_said() {
    let of = |body: Value, options: Value| {
        Fingerprint::of("emit", "o", &body, options.as_object().expect("an object"))
    };
    let one = of(json!({"a": 1, "b": [2]}), json!({}));
    assert_eq!(
        one,
        of(json!({"b": [2], "a": 1}), json!({"outputKey": "o"}))
    );
    assert_eq!(one.as_str().len(), 64);
    for other in [
        of(json!({"a": 1, "b": [3]}), json!({})),
        of(json!({"a": 1, "b": [2]}), json!({"echo": true})),
        of(json!({"a": 1, "b": [2]}), json!({"parentEventId": "p"})),
        of(json!({"a": 1, "b": 2}), json!({})),
        Fingerprint::of(
            "emit",
            "p",
            &json!({"a": 1, "b": [2]}),
            &serde_json::Map::new(),
        ),
    ] {
        assert_ne!(one, other);
    }
    // The parts cannot be shifted into each other.
    assert_ne!(
        of(json!(["ab", "c"]), json!({})),
        of(json!(["a", "bc"]), json!({}))
    );
}

#[test]
fn repeats_are_recognised_as_a_multiset() {
    let of = |name: &str| Fingerprint::from(name.to_owned());
    let event = |id: &str| Some(id.to_owned());
    let recorded = [
        (of("a"), "1".to_owned()),
        (of("b"), "2".to_owned()),
        (of("a"), "3".to_owned()),
    ];
    let mut second = Repeats::new(recorded.clone(), []);
    assert_eq!(second.say(&of("a")), event("1"));
    assert_eq!(second.say(&of("a")), event("3"));
    assert_eq!(second.say(&of("a")), None);
    second.record(of("a"), "4".to_owned());
    assert_eq!(second.say(&of("a")), None);
    assert_eq!(second.say(&of("b")), event("2"));
    assert_eq!(second.say(&of("c")), None);
    // Made again in the middle of the attempt, it goes on where it was.
    let mut resumed = Repeats::new(recorded, [of("a")]);
    assert_eq!(resumed.say(&of("a")), event("3"));
    assert_eq!(nth(Some(&["1", "3"]), 1), Some("3"));
    assert_eq!(nth::<&str>(None, 0), None);
}

/// Walks the ancestors as the rule says, without any lineage.
fn walked(
    events: &[(Vec<usize>, usize, bool)],
    at: usize,
) -> (BTreeMap<usize, usize>, BTreeMap<usize, usize>) {
    let mut outputs = BTreeMap::new();
    let mut echoes = BTreeMap::new();
    let mut next = Some(at);
    while let Some(event) = next {
        let (parents, block, echo) = &events[event];
        outputs.entry(*block).or_insert(event);
        if *echo {
            echoes.entry(*block).or_insert(event);
        }
        next = parents.first().copied();
    }
    (outputs, echoes)
}

proptest! {
    #[test]
    fn a_lineage_is_what_a_walk_finds(raw in proptest::collection::vec((any::<u16>(), 0usize..4, any::<bool>(), any::<bool>()), 1..40)) {
        let mut events = Vec::new();
        let mut lineages = Vec::<Lineage>::new();
        for (index, (pick, block, echo, root)) in raw.into_iter().enumerate() {
            let parents = if root || index == 0 { vec![] } else { vec![usize::from(pick) % index] };
            let (event, name) = (index.to_string(), block.to_string());
            let own = Own { event: &event, block: &name, accessor: &name, echo };
            let primary = parents.first().map(|parent: &usize| &lineages[*parent]);
            let lineage = Lineage::of(&own, primary, &[]).expect("short");
            lineages.push(lineage);
            events.push((parents, block, echo));
        }
        for (at, lineage) in lineages.iter().enumerate() {
            let (outputs, echoes) = walked(&events, at);
            let named = |found: BTreeMap<usize, usize>| {
                found.into_iter().map(|(block, event)| (block.to_string(), event.to_string())).collect::<BTreeMap<_, _>>()
            };
            prop_assert_eq!(&lineage.outputs, &named(outputs));
            prop_assert_eq!(&lineage.echoes, &named(echoes));
        }
    }

    #[test]
    fn however_often_an_attempt_dies_nothing_is_emitted_twice_and_nothing_is_lost(
        script in proptest::collection::vec(0u8..4, 0..30),
        deaths in proptest::collection::vec((any::<u8>(), any::<u64>()), 0..5),
    ) {
        // Each attempt says the same things, in its own order, and dies somewhere.
        let mut recorded = Vec::<(Fingerprint, String)>::new();
        let of = |what: u8| Fingerprint::from(what.to_string());
        let whole = (u8::MAX, 0);
        for (death, shuffle) in deaths.into_iter().chain([whole]) {
            let mut repeats = Repeats::new(recorded.clone(), []);
            let mut open = script.iter().copied().collect::<VecDeque<_>>();
            let turn = usize::try_from(shuffle % 31).expect("small") % open.len().max(1);
            open.rotate_left(turn);
            let alive = if death == u8::MAX { open.len() } else { usize::from(death) % (open.len() + 1) };
            let mut answered = BTreeSet::new();
            for what in open.into_iter().take(alive) {
                let id = repeats.say(&of(what)).unwrap_or_else(|| {
                    let id = recorded.len().to_string();
                    recorded.push((of(what), id.clone()));
                    repeats.record(of(what), id.clone());
                    id
                });
                prop_assert!(answered.insert(id), "one event answered two emissions");
            }
        }
        let mut wanted = script.iter().map(u8::to_string).collect::<Vec<_>>();
        let mut made = recorded.iter().map(|(what, _)| what.as_str().to_owned()).collect::<Vec<_>>();
        wanted.sort();
        made.sort();
        prop_assert_eq!(made, wanted);
    }
}
