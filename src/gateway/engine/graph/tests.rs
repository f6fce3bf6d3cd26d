//! Tests of ancestors and cycles.

use std::collections::BTreeMap;

use proptest::prelude::{prop_assert, proptest};
use serde_json::json;

use super::{Graph, Passing, signal_cycle, signal_owners};
use crate::gateway::engine::core_blocks::Core;
use crate::gateway::engine::definition::{Block, Definition, Kind, Link};
use crate::gateway::engine::expressions::Expression;
use crate::gateway::engine::schema;

/// `("B", "in", "A", "out")`: the input `in` of B takes what A emits on `out`.
fn flow(blocks: &[&str], links: &[(&str, &str, &str, &str)]) -> Definition {
    let mut definition = Definition::default();
    for name in blocks {
        let mut block = Block::new(name, Kind::Core(Core::Transform));
        for (_, input, source, output) in links.iter().filter(|link| link.0 == *name) {
            let input = block.inputs.entry((*input).to_owned()).or_default();
            input.links.insert(Link {
                block: (*source).to_owned(),
                output: (*output).to_owned(),
            });
        }
        definition.blocks.push(block);
    }
    definition
}

fn always(_: &str) -> Passing<'static> {
    Passing::Always
}

#[test]
fn ancestors_are_everything_upstream() {
    let flow = flow(
        &["A", "B", "C", "D", "Other"],
        &[
            ("B", "i", "A", "o"),
            ("C", "i", "B", "o"),
            ("C", "i", "D", "o"),
            ("C", "j", "Ghost", "o"),
        ],
    );
    let graph = Graph::of(&flow);
    assert_eq!(
        graph.ancestors("C").into_iter().collect::<Vec<_>>(),
        ["A", "B", "D"]
    );
    assert!(graph.ancestors("A").is_empty());
    assert!(graph.ancestors("Nobody").is_empty());
    assert_eq!(graph.targets("A", "o"), [("B", "i")]);
    assert!(graph.targets("A", "other").is_empty());
    assert_eq!(graph.endless_cycle(always), None);
}

#[test]
fn one_output_goes_to_many_inputs_in_a_stable_order() {
    let flow = flow(
        &["C", "B", "A"],
        &[
            ("B", "i", "A", "o"),
            ("C", "j", "A", "o"),
            ("C", "i", "A", "o"),
        ],
    );
    assert_eq!(
        Graph::of(&flow).targets("A", "o"),
        [("C", "i"), ("C", "j"), ("B", "i")]
    );
}

#[test]
fn a_cycle_of_blocks_that_pass_everything_on_is_endless() {
    let flow = flow(
        &["A", "B", "C"],
        &[
            ("B", "i", "A", "o"),
            ("C", "i", "B", "o"),
            ("B", "i", "C", "o"),
        ],
    );
    assert_eq!(
        Graph::of(&flow).endless_cycle(always),
        Some(vec!["B", "C", "B"])
    );
    let itself = self::flow(&["A"], &[("A", "i", "A", "o")]);
    assert_eq!(
        Graph::of(&itself).endless_cycle(always),
        Some(vec!["A", "A"])
    );
}

#[test]
fn a_block_that_decides_breaks_the_cycle() {
    let flow = flow(&["A", "B"], &[("B", "i", "A", "o"), ("A", "i", "B", "o")]);
    let graph = Graph::of(&flow);
    let decides = |name: &str| {
        if name == "A" {
            Passing::Decides
        } else {
            Passing::Always
        }
    };
    assert_eq!(graph.endless_cycle(decides), None);
    // A block on a cycle is its own ancestor.
    assert!(graph.ancestors("A").contains("A"));
}

#[test]
fn the_pattern_of_published_tools_and_subroutines_is_legal() {
    // A tool calls out, others work, and the result comes back to the tool.
    let flow = flow(
        &["Tool", "Sleep", "Transform"],
        &[
            ("Sleep", "i", "Tool", "onCall"),
            ("Transform", "i", "Sleep", "o"),
            ("Tool", "result", "Transform", "o"),
        ],
    );
    let tool = |messages: bool, parents: serde_json::Value| -> schema::Block {
        serde_json::from_value(json!({
            "inputs": {"result": {"hasOnEvent": true}},
            "outputs": {"onCall": {"possiblePrimaryParents": parents}},
            "hasOnInternalMessage": messages,
        }))
        .expect("a schema")
    };
    let cycle = |tool: &schema::Block| {
        let passing = |name: &str| match name {
            "Tool" => Passing::Schema(tool),
            _ => Passing::Always,
        };
        Graph::of(&flow).endless_cycle(passing).is_some()
    };
    assert!(
        !cycle(&tool(true, json!(["result"]))),
        "it emits when it is called"
    );
    assert!(
        !cycle(&tool(false, json!(["other"]))),
        "a result leads to nothing"
    );
    assert!(cycle(&tool(false, json!(["result"]))));
    assert!(
        cycle(&tool(false, json!([]))),
        "nothing is said about parents"
    );
}

#[test]
fn configs_that_follow_each_other_are_found() {
    let follow = |definition: &mut Definition, at: usize, source: &str| {
        definition.blocks[at].kind = Kind::App {
            block: "b".to_owned(),
            installation: "i".to_owned(),
            schema: None,
        };
        let field = Expression::Source(source.to_owned());
        definition.blocks[at].config = BTreeMap::from([("f".to_owned(), field)]);
    };
    let mut flow = flow(&["One", "Two", "Three"], &[]);
    follow(&mut flow, 0, "signals.two.x");
    follow(&mut flow, 1, "ref('signal.three.x')");
    assert_eq!(signal_cycle(&flow), None);
    follow(&mut flow, 2, "1 + signals.one.x");
    assert_eq!(
        signal_cycle(&flow),
        Some(vec!["One", "Two", "Three", "One"])
    );
    follow(&mut flow, 2, "signals.three.y");
    assert_eq!(signal_cycle(&flow), Some(vec!["Three", "Three"]));
    follow(&mut flow, 2, "signals.installation.y");
    assert_eq!(signal_cycle(&flow), None);
}

#[test]
fn of_blocks_with_one_accessor_the_plain_name_owns_the_signals() {
    let flow = flow(&["Env (1)", "Env", "Env (2)"], &[]);
    let owners = signal_owners(&flow);
    assert_eq!(
        owners.into_iter().collect::<Vec<_>>(),
        [("env".to_owned(), "Env")]
    );
}

proptest! {
    #[test]
    fn a_cycle_is_found_if_and_only_if_a_block_is_its_own_ancestor(links in proptest::collection::vec((0usize..7, 0usize..7), 0..14)) {
        let names = ["0", "1", "2", "3", "4", "5", "6"];
        let links = links.into_iter().map(|(from, to)| (names[to], "i", names[from], "o"));
        let flow = flow(&names, &links.collect::<Vec<_>>());
        let graph = Graph::of(&flow);
        let own = names.iter().any(|name| graph.ancestors(name).contains(name));
        let cycle = graph.endless_cycle(always);
        prop_assert!(cycle.is_some() == own);
        if let Some(cycle) = cycle {
            prop_assert!(cycle.len() > 1 && cycle.first() == cycle.last());
            for pair in cycle.windows(2) {
                prop_assert!(graph.targets(pair[0], "o").contains(&(pair[1], "i")));
            }
        }
    }
}
