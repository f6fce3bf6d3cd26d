//! Tests of reading schemas and of the default output.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{App, Block, Error, Output, default_output, effective_outputs, merge_updates, rules};
use crate::gateway::engine::types::fill;

fn outputs(value: Value) -> BTreeMap<String, Output> {
    serde_json::from_value(value).expect("outputs")
}

#[test]
fn a_schema_as_published_definitions_carry_it_comes_back_the_same() {
    let published = json!({
        "order": 1, "name": "Tool", "category": "Definition", "description": "A tool",
        "config": {"schema": {
            "order": 0, "name": "Schema", "description": "…",
            "type": {"type": "object", "additionalProperties": true},
            "fixed": false, "required": true, "default": {"type": "object"},
            "hasValidator": false, "fieldKey": "", "sensitive": false
        }},
        "hasOnInternalMessage": true,
        "inputs": {"result": {"order": 0, "name": "Result", "config": {}, "hasOnEvent": true}},
        "outputs": {"onCall": {
            "order": 0, "name": "On call", "default": true,
            "possiblePrimaryParents": ["result"], "type": {"type": "object"}
        }},
        "signals": {"id": {"order": 0, "name": "Id", "description": "…", "sensitive": false}},
        "hasOnSync": true, "hasOnDrain": false, "hasOnTimer": false
    });
    let block = Block::read(published.to_string().as_bytes()).expect("reads");
    assert_eq!(serde_json::to_value(&block).expect("writes"), published);
    assert!(block.emits_by_itself());
    assert!(block.may_lead("result", "onCall"));
    assert!(!block.may_lead("other", "onCall"));
    assert!(block.may_lead("other", "addedByASync"));
}

#[test]
fn reading_is_lenient_about_what_is_missing_null_or_new() {
    let app = App::read(
        br#"{"blocks": {"a": {"outputs": null, "novelty": 1, "http": {"onRequest": true}}},
            "config": {"k": {"type": "string", "required": null}}, "hasOnSync": null, "fancy": {}}"#,
    )
    .expect("reads");
    assert!(app.blocks["a"].handlers.has_on_request);
    assert!(app.blocks["a"].outputs.is_empty());
    assert!(!app.handlers.has_on_sync);
    assert_eq!(app.config["k"].spec.normalized(), json!({"type": "string"}));
    assert!(App::read(b"{}").is_ok(), "an app without blocks is legal");
}

#[test]
fn limits_hold() {
    let long = vec![b' '; super::SCHEMA_BYTES_MAX + 1];
    assert!(matches!(App::read(&long), Err(Error::TooLarge(_))));
    let fields = (0..=super::SECTION_ENTRIES_MAX)
        .map(|number| (number.to_string(), json!({})))
        .collect::<serde_json::Map<_, _>>();
    let block = json!({"inputs": {"a": {"config": fields}}});
    let error = Block::read(block.to_string().as_bytes()).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "the schema has 1001 input fields, more than 1000"
    );
    assert!(matches!(App::read(b"[]"), Err(Error::Unreadable(_))));
}

#[test]
fn the_default_output_is_flagged_or_called_default_or_first() {
    let flagged = outputs(json!({"default": {"order": 0}, "b": {"order": 1, "default": true}}));
    assert_eq!(default_output(&flagged), Some("b"));
    let named = outputs(json!({"a": {"order": 0}, "default": {"order": 1}}));
    assert_eq!(default_output(&named), Some("default"));
    let only = outputs(json!({"onCall": {}}));
    assert_eq!(default_output(&only), Some("onCall"));
    let first = outputs(json!({"a": {"order": 1}, "z": {"order": 0}}));
    assert_eq!(default_output(&first), Some("z"));
    let secondary = outputs(json!({"log": {"order": 0, "secondary": true}, "z": {"order": 1}}));
    assert_eq!(default_output(&secondary), Some("z"));
    assert_eq!(default_output(&BTreeMap::new()), None);
}

#[test]
fn a_sync_may_change_add_and_reset_outputs() {
    let block = Block {
        outputs: outputs(json!({"default": {"order": 0, "name": "Result"}, "b": {"order": 1}})),
        ..Block::default()
    };
    let mut updates = BTreeMap::new();
    let first = json!({"default": {"type": "string"}, "tool": {"name": "Tool"}, "b": null});
    merge_updates(
        &mut updates,
        serde_json::from_value(first).expect("updates"),
    );
    let (now, modified) = effective_outputs(&block, &updates);
    assert_eq!(now["default"].name.as_deref(), Some("Result"));
    assert_eq!(now["default"].spec.normalized(), json!({"type": "string"}));
    assert_eq!(now["tool"].order, 2);
    assert!(modified.contains("default") && modified.contains("tool") && !modified.contains("b"));

    let second = json!({"default": null, "tool": {"description": "later"}});
    merge_updates(
        &mut updates,
        serde_json::from_value(second).expect("updates"),
    );
    let (now, modified) = effective_outputs(&block, &updates);
    assert_eq!(now["default"], block.outputs["default"]);
    assert_eq!(now["tool"].name.as_deref(), Some("Tool"));
    assert_eq!(now["tool"].description.as_deref(), Some("later"));
    assert_eq!(modified.len(), 1);
}

#[test]
fn fields_become_rules() {
    let block: Block = serde_json::from_value(json!({"config": {
        "port": {"type": "number", "required": true, "default": 22},
        "host": {"type": "string", "required": true},
    }}))
    .expect("a block");
    let given = json!({"host": "a"});
    let filled = fill(&rules(&block.config), given.as_object().expect("an object"));
    assert_eq!(
        filled.map(Value::Object),
        Ok(json!({"host": "a", "port": 22}))
    );
}
