//! Any definition, written and read back; and any noise, read.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Map, Value, json};

use crate::gateway::engine::core_blocks::Core;
use crate::gateway::engine::definition::plan::plan;
use crate::gateway::engine::definition::{
    Block, Definition, Input, Installation, Kind, Link, export,
};
use crate::gateway::engine::expressions::Expression;
use crate::gateway::engine::names;

/// Texts that YAML could take for something else, and any others.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z][a-zA-Z0-9 _]{0,12}",
        "\\PC{0,24}",
        // Every character there is, controls and separators included.
        proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter),
        "[-:#&*!|>'\"%@`{}\\[\\],? \n\t\r\\\\]{0,12}",
        proptest::collection::vec("[a-z: #'\"-]{0,8}", 0..5).prop_map(|lines| lines.join("\n")),
        proptest::sample::select(vec![
            "",
            " ",
            "~",
            "null",
            "true",
            "False",
            "no",
            "1",
            "1.0",
            "-0",
            "0x1f",
            "1e5",
            ".inf",
            "<<",
            "- a",
            "a: b",
            "a #b",
            "!expr x",
            "|-",
            "--- ",
            "...",
            "\u{feff}x",
            "\u{85}",
            "\u{2028}",
            "a\n\nb",
            "a\n b\n",
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        proptest::num::f64::NORMAL.prop_map(|number| json!(number)),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn expression() -> impl Strategy<Value = Expression> {
    prop_oneof![
        value().prop_map(Expression::Constant),
        text()
            .prop_filter("an expression has a text", |source| !source
                .trim()
                .is_empty())
            .prop_map(Expression::Source),
    ]
}

fn config() -> impl Strategy<Value = BTreeMap<String, Expression>> {
    proptest::collection::btree_map(text(), expression(), 0..4)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        proptest::sample::select(Core::ALL.to_vec()).prop_map(Kind::Core),
        (text(), text(), proptest::option::of(text())).prop_map(|(block, installation, schema)| {
            Kind::App {
                block,
                installation,
                schema,
            }
        }),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let link = (text(), text()).prop_map(|(block, output)| Link { block, output });
    let links = proptest::collection::btree_set(link, 0..3);
    (links, config()).prop_map(|(links, config)| Input { links, config })
}

fn block() -> impl Strategy<Value = Block> {
    let name = text().prop_filter("a name is a name", |name| names::complaint(name).is_none());
    let place = -1e6f64..1e6;
    (
        (name, proptest::option::of(text()), kind(), any::<bool>()),
        proptest::option::of((place.clone(), place.prop_map(f64::round))),
        config(),
        proptest::collection::btree_map(text(), input(), 0..3),
        config(),
    )
        .prop_map(
            |((name, description, kind, active), position, config, inputs, outputs)| Block {
                name,
                description,
                kind,
                active,
                position,
                config,
                inputs,
                outputs,
            },
        )
}

fn definition() -> impl Strategy<Value = Definition> {
    let installation = proptest::array::uniform3(proptest::option::of(text()));
    let installation = installation.prop_map(|[app_name, app_version, id]| Installation {
        app_name,
        app_version,
        id,
    });
    let installations = proptest::collection::btree_map(text(), installation, 0..3);
    (installations, proptest::collection::vec(block(), 0..4)).prop_map(|(installations, blocks)| {
        let mut seen = BTreeSet::new();
        let blocks = blocks
            .into_iter()
            .filter(|block| seen.insert(block.name.clone()));
        Definition {
            installations,
            blocks: blocks.collect(),
        }
    })
}

proptest! {
    // A definition is large to make up; the other tests look at its parts.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_definition_survives_its_text(definition in definition()) {
        let text = export(&definition);
        let again = Definition::parse(&text);
        prop_assert!(again.is_ok(), "{:?}\n{}", again, text);
        let again = again.expect("it was read");
        prop_assert_eq!(&again, &definition, "{}", text);
        prop_assert!(plan(&definition, &again).is_empty());
        prop_assert_eq!(export(&again), text);
    }

    #[test]
    fn noise_is_refused_and_breaks_nothing(text in text(), more in "[-:#&*!|>'\"{}\\[\\],? \na-c]{0,80}") {
        let _ = Definition::parse(&text);
        let _ = Definition::parse(&more);
        let _ = Definition::parse(&format!("blocks:\n  - name: {text}\n    type: {more}"));
    }

    #[test]
    fn applying_a_plan_in_thought_leads_to_the_wanted_flow(old in definition(), new in definition()) {
        // Operations are empty exactly when nothing that counts differs.
        let there = plan(&old, &new);
        let back = plan(&new, &old);
        let same = |a: &Definition, b: &Definition| {
            a.blocks.iter().map(|block| &block.name).collect::<BTreeSet<_>>()
                == b.blocks.iter().map(|block| &block.name).collect::<BTreeSet<_>>()
        };
        if there.is_empty() && back.is_empty() {
            prop_assert!(same(&old, &new));
        }
        prop_assert!(plan(&new, &new).is_empty());
    }
}
