//! Tests of reading, planning and writing definitions.

use std::collections::BTreeMap;

use serde_json::json;

use super::plan::{OperationType, plan};
use super::{Definition, Kind, Link, export};
use crate::gateway::engine::core_blocks::Core;
use crate::gateway::engine::expressions::Expression;

mod checks;
mod round_trip;

pub(super) const SAMPLE: &str = r#"
appInstallations:
  postgresql: { appName: PostgreSQL, appVersion: 0.1.0, id: 019a0c38-e6b7-7e50-bc0a-623717938d42 }
blocks:
  - name: Create Table
    type: { coreBlock: manualTrigger }
  - name: Insert Row
    description: optional
    type:
      appBlock: { block: executeCommand, appInstallation: postgresql, schema: '{"order": 1}' }
      # The above schema can be used if the installation does not exist.
    position: [1163, 455]
    config: { field: value }
    inputs:
      default:
        links: [{ block: Create Table, output: default }]
        config: { command: !expr "'INSERT …'", table: test }
  - name: Pause
    type: { coreBlock: sleep }
    inputs:
      default:
        links:
          - block: Insert Row
            output: default
        config:
          sleep: !expr |-
            ref("signal.env.pause")
              ?? 2
"#;

pub(super) fn parse(text: &str) -> Definition {
    Definition::parse(text).unwrap_or_else(|faults| panic!("{faults}"))
}

#[track_caller]
fn faults(text: &str) -> String {
    Definition::parse(text)
        .expect_err("it does not fit")
        .to_string()
}

#[test]
fn a_definition_says_what_it_says() {
    let flow = parse(SAMPLE);
    assert_eq!(
        flow.installations["postgresql"].app_version.as_deref(),
        Some("0.1.0")
    );
    assert_eq!(flow.blocks.len(), 3);
    let insert = flow.block("Insert Row").expect("the block");
    assert!(
        matches!(&insert.kind, Kind::App { block, installation, schema: Some(schema) }
        if block == "executeCommand" && installation == "postgresql" && schema == "{\"order\": 1}")
    );
    assert_eq!(insert.position, Some((1163.0, 455.0)));
    assert_eq!(insert.config["field"], Expression::Constant(json!("value")));
    let input = &insert.inputs["default"];
    assert_eq!(
        input.config["command"],
        Expression::Source("'INSERT …'".to_owned())
    );
    assert_eq!(input.config["table"], Expression::Constant(json!("test")));
    let link = Link {
        block: "Create Table".to_owned(),
        output: "default".to_owned(),
    };
    assert!(input.links.contains(&link));
    let pause = flow.block("Pause").expect("the block");
    assert_eq!(pause.kind, Kind::Core(Core::Sleep));
    let sleep = "ref(\"signal.env.pause\")\n  ?? 2".to_owned();
    assert_eq!(
        pause.inputs["default"].config["sleep"],
        Expression::Source(sleep)
    );
    assert_eq!(
        flow.installation_of(insert),
        Some("019a0c38-e6b7-7e50-bc0a-623717938d42")
    );
}

#[test]
fn expressions_within_a_list_or_map_become_one_expression() {
    let flow = parse(
        "blocks: [{name: A, type: {coreBlock: sleep}, config: {f: {a: [1, !expr x // y], b: 'q', __proto__: null}}}]",
    );
    let source = "{[\"a\"]: [1, (x // y\n)], [\"b\"]: \"q\", [\"__proto__\"]: null}".to_owned();
    assert_eq!(flow.blocks[0].config["f"], Expression::Source(source));
}

#[test]
fn a_mapping_names_installations_and_overrides_them() {
    let mapping = BTreeMap::from([
        ("postgresql".to_owned(), "other".to_owned()),
        ("new".to_owned(), "n".to_owned()),
    ]);
    let flow = parse(SAMPLE).mapped(&mapping);
    assert_eq!(
        flow.installations["postgresql"].id.as_deref(),
        Some("other")
    );
    assert_eq!(
        flow.installations["postgresql"].app_name.as_deref(),
        Some("PostgreSQL")
    );
    assert_eq!(flow.installations["new"].id.as_deref(), Some("n"));
}

#[test]
fn scalars_follow_the_core_schema() {
    let flow = parse(
        r#"blocks: [{name: 42, type: {coreBlock: sleep}, config: {
            a: 0x1f, b: 0o17, c: -1.5e3, d: 12345678901234567890, e: True, f: ~, g: "true", h: !!str 5,
            i: 2026-01-01, j: 1.2.3, k: +7, l: yes, m: .5, n: ! 8, o: '', p: , q: 0.1}}]"#,
    );
    assert_eq!(flow.blocks[0].name, "42");
    let value = |key: &str| flow.blocks[0].config[key].constant().expect("a constant");
    for (key, expected) in [
        ("a", json!(31)),
        ("b", json!(15)),
        ("c", json!(-1500.0)),
        ("d", json!(12345678901234567890u64)),
        ("e", json!(true)),
        ("f", json!(null)),
        ("g", json!("true")),
        ("h", json!("5")),
        ("i", json!("2026-01-01")),
        ("j", json!("1.2.3")),
        ("k", json!(7)),
        ("l", json!("yes")),
        ("m", json!(0.5)),
        ("o", json!("")),
        ("p", json!(null)),
        ("q", json!(0.1)),
    ] {
        assert_eq!(value(key), expected, "{key}");
    }
    assert!(
        faults("blocks: [{name: A, type: {coreBlock: sleep}, config: {a: .inf}}]")
            .contains("no number that JSON has")
    );
}

/// A text, and what is said of it.
const FAULTS: &[(&str, &str)] = &[
    ("", "the definition: it is empty"),
    ("[]", "the definition: the whole: expected keys and values"),
    ("blocks: {}", "the definition: `blocks`: expected a list"),
    ("flows: []", "there is no key `flows`"),
    (
        "blocks: [{type: {coreBlock: sleep}}]",
        "a block needs a name",
    ),
    ("blocks: [{name: A}]", "block `A`: `type` is missing"),
    (
        "blocks: [{name: A, type: {coreBlock: loop}}]",
        "block `A`, `type`: there is no core block `loop`; there are condition",
    ),
    (
        "blocks: [{name: A, type: {appBlock: {block: x}}}]",
        "block `A`, `type`: `appBlock.appInstallation` is missing",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep, appBlock: {}}}]",
        "either `appBlock` or `coreBlock`",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, colour: red}]",
        "block `A`: there is no key `colour`",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, active: maybe}]",
        "block `A`, `active`: expected true or false",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, position: [1]}]",
        "block `A`, `position`: expected two numbers",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, inputs: {i: {linx: []}}}]",
        "block `A`, input `i`: there is no key `linx`",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, inputs: {i: {links: [{block: B}]}}}]",
        "block `A`, input `i`: a link without `output`",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, inputs: {i: {config: {f: !expr ''}}}}]",
        "block `A`, input `i`, field `f`: the expression is empty",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, outputs: {o: {x: 1}}}]",
        "block `A`, output `o`: there is no key `x`",
    ),
    (
        "blocks: [{name: ' A', type: {coreBlock: sleep}}]",
        "starts or ends with a space",
    ),
    (
        "blocks:\n - {name: A, type: {coreBlock: sleep}}\n - {name: A, type: {coreBlock: sleep}}",
        "block `A`: the name is used more than once",
    ),
    (
        "appInstallations: {a: {ide: x}}",
        "app installation `a`: there is no key `ide`",
    ),
    (
        "blocks: [{name: A, type: {coreBlock: sleep}, config: {a: !env HOME}}]",
        "line 1: the tag `!env` is unknown; an expression is written `!expr",
    ),
    (
        "blocks: !expr [1]",
        "the tag `!expr` stands before a list or a map",
    ),
    (
        "blocks: []\nblocks: []",
        "line 2: the key `blocks` occurs twice",
    ),
    ("blocks: []\n---\nblocks: []", "there is a second document"),
    ("blocks: [", "line 2, column 1: "),
    ("a: &a [*a]", "an alias refers to something around it"),
    ("? [1]\n: 2", "a key is a text"),
];

#[test]
fn each_fault_names_block_place_and_reason() {
    for (text, expected) in FAULTS {
        let found = faults(text);
        assert!(found.contains(expected), "{text}\n  found: {found}");
    }
}

#[test]
fn faults_of_several_blocks_come_together_and_are_counted() {
    let blocks = (0..15).map(|number| format!("- {{name: B{number}}}"));
    let text = format!("blocks:\n{}", blocks.collect::<Vec<_>>().join("\n"));
    let found = faults(&text);
    assert!(found.starts_with("block `B0`: `type` is missing; block `B1`"));
    assert!(found.ends_with("; and 5 more"), "{found}");
}

#[test]
fn limits_hold_against_hostile_documents() {
    let large = format!("# {}", "x".repeat(super::DEFINITION_BYTES_MAX));
    assert!(faults(&large).contains("bytes, more than"));
    let deep = format!("a: {}{}", "[".repeat(70), "]".repeat(70));
    assert!(faults(&deep).contains("nests deeper than 64"));
    let block_deep = (0..200).map(|level| format!("{}- \n", " ".repeat(level)));
    assert!(Definition::parse(&block_deep.collect::<String>()).is_err());
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let items = vec![before; 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(faults(&laughs).contains("values, aliases included"));
    let text = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), "*a, ".repeat(100));
    assert!(faults(&text).contains("bytes of text, aliases included"));
    let many = (0..=super::BLOCKS_MAX)
        .map(|number| format!("- {{name: B{number}, type: {{coreBlock: sleep}}}}\n"));
    let many = format!("blocks:\n{}", many.collect::<String>());
    assert!(faults(&many).contains("2001 blocks, more than 2000"));
    let source = format!(
        "blocks: [{{name: A, type: {{coreBlock: sleep}}, config: {{f: !expr \"{}\"}}}}]",
        "1+".repeat(200_000)
    );
    assert!(faults(&source).contains("the expression has 400000 bytes"));
    let key = format!("{}: 1", "k".repeat(501));
    assert!(faults(&key).contains("longer than 500"));
}

#[test]
fn aliases_are_read_as_what_they_stand_for() {
    let flow = parse(
        "blocks:\n - {name: A, type: &t {coreBlock: sleep}, config: &c {x: !expr y}}\n - {name: B, type: *t, config: *c}",
    );
    assert_eq!(flow.blocks[1].config, flow.blocks[0].config);
}

#[test]
fn a_plan_lists_what_applying_would_do() {
    let current = parse(SAMPLE);
    assert!(plan(&current, &current).is_empty());
    assert_eq!(plan(&current, &current).readable(), "No changes.\n");
    let wanted = parse(
        r#"
appInstallations:
  pg: { id: 019a0c38-e6b7-7e50-bc0a-623717938d42 }
blocks:
  - name: Pause
    type: { coreBlock: condition }
  - name: Insert Row
    type: { appBlock: { block: executeCommand, appInstallation: pg } }
    config: { field: other, more: 1 }
    active: false
    inputs: { default: { config: { table: test, command: !expr "'INSERT …'" } } }
  - name: Fresh
    type: { coreBlock: transform }
    outputs: { default: { customization: !expr outputs.insertRow } }
    inputs: { default: { links: [ { block: Insert Row, output: default } ] } }
"#,
    );
    let planned = plan(&current, &wanted);
    let kinds = planned
        .operations
        .iter()
        .map(|operation| (operation.kind, operation.block.as_str()));
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            (OperationType::DeleteLink, "Pause"),
            (OperationType::DeleteBlock, "Create Table"),
            (OperationType::ReplaceBlock, "Pause"),
            (OperationType::UpdateBlock, "Insert Row"),
            (OperationType::CreateBlock, "Fresh"),
            (OperationType::CreateLink, "Fresh"),
        ]
    );
    assert!(planned.operations[3].config_changed);
    let text = planned.readable();
    assert!(
        text.contains(
            "~ block `Insert Row`: description, deactivated, config `field`, config `more`\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("± block `Pause`: core block condition instead of core block sleep\n"),
        "{text}"
    );
    assert!(
        text.contains("+ link `Insert Row`.default → `Fresh`.default\n"),
        "{text}"
    );
    assert!(
        text.ends_with("Plan: 2 to add, 2 to change, 2 to remove.\n"),
        "{text}"
    );
    let shown = serde_json::to_value(&planned).expect("writes");
    assert_eq!(shown["operations"][0]["type"], "delete_link");
    // Back again is a plan too, and the other installation is another block.
    assert!(!plan(&wanted, &current).is_empty());
    let moved = current
        .clone()
        .mapped(&BTreeMap::from([("postgresql".to_owned(), "x".to_owned())]));
    let operations = plan(&current, &moved).operations;
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].kind, OperationType::ReplaceBlock);
}

#[test]
fn the_order_of_blocks_means_nothing() {
    let flow = parse(SAMPLE);
    let mut turned = flow.clone();
    turned.blocks.reverse();
    assert!(plan(&flow, &turned).is_empty());
}

#[test]
fn an_export_is_readable_and_the_same_again() {
    let flow = parse(SAMPLE);
    let text = export(&flow);
    assert_eq!(parse(&text), flow);
    assert_eq!(export(&parse(&text)), text);
    assert!(text.contains("    position: [1163, 455]\n"), "{text}");
    assert!(
        text.contains("      appBlock:\n        block: executeCommand\n"),
        "{text}"
    );
    assert!(
        text.contains("        schema: '{\"order\": 1}'\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "          sleep: !expr |-\n            ref(\"signal.env.pause\")\n              ?? 2\n"
        ),
        "{text}"
    );
    assert_eq!(
        parse(&export(&Definition::default())),
        Definition::default()
    );
}

#[test]
fn the_example_of_the_documentation_is_read() {
    let page = include_str!("../../../../docs/flows.md");
    let (_, rest) = page.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let flow = parse(example);
    assert_eq!(flow.blocks.len(), 2);
    assert_eq!(parse(&export(&flow)), flow);
}
