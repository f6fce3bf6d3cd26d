//! Tests of each keyword, and of values and schemas that nobody meant.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};
use serde_json::{Map, Value, json};

use super::check;

fn complaint(schema: Value, value: Value) -> Option<String> {
    let schema = schema.as_object().cloned().expect("a schema is an object");
    check(&schema, "field", &value)
        .err()
        .map(|complaint| complaint.to_string())
}

/// Schema, a value that fits, one that does not, and what is said of it.
const KEYWORDS: &[[&str; 4]] = &[
    [
        r#"{"type": "string"}"#,
        r#""a""#,
        "1",
        "expected a string, found a number",
    ],
    [
        r#"{"type": "integer"}"#,
        "2.0",
        "2.5",
        "expected a whole number",
    ],
    [
        r#"{"type": ["string", "null"]}"#,
        "null",
        "[]",
        "a string or null, found a list",
    ],
    [
        r#"{"type": "string", "nullable": true}"#,
        "null",
        "true",
        "found a boolean",
    ],
    [
        r#"{"enum": ["url", 1]}"#,
        "1.0",
        r#""ulr""#,
        r#"expected one of "url", 1"#,
    ],
    [r#"{"const": 3}"#, "3", "4", "expected 3"],
    [
        r#"{"minLength": 2, "maxLength": 3}"#,
        r#""äö""#,
        r#""ä""#,
        "at least 2 characters, found 1",
    ],
    [
        r#"{"maxLength": 3}"#,
        r#""abc""#,
        r#""abcd""#,
        "at most 3 characters, found 4",
    ],
    [
        r#"{"pattern": "^[0-7]{4}$"}"#,
        r#""0644""#,
        r#""rw""#,
        "does not match the pattern",
    ],
    [r#"{"minimum": 1}"#, "1", "0", "at least 1"],
    [r#"{"maximum": 1}"#, "1", "1.5", "at most 1"],
    [r#"{"exclusiveMinimum": 1}"#, "2", "1", "more than 1"],
    [r#"{"exclusiveMaximum": 1}"#, "0", "1", "less than 1"],
    [r#"{"multipleOf": 0.1}"#, "0.3", "0.35", "multiple of 0.1"],
    [r#"{"minItems": 1}"#, "[1]", "[]", "at least 1 items"],
    [r#"{"maxItems": 1}"#, "[1]", "[1, 2]", "at most 1 items"],
    [r#"{"uniqueItems": true}"#, "[1, 2]", "[1, 1]", "not unique"],
    [
        r#"{"items": {"type": "string"}}"#,
        r#"["a"]"#,
        r#"["a", 1]"#,
        "`field[1]`",
    ],
    [
        r#"{"items": [{"type": "string"}]}"#,
        r#"["a", 1]"#,
        "[1]",
        "`field[0]`",
    ],
    [
        r#"{"required": ["a"]}"#,
        r#"{"a": 1}"#,
        "{}",
        "`field.a`: a value is required",
    ],
    [
        r#"{"minProperties": 1}"#,
        r#"{"a": 1}"#,
        "{}",
        "at least 1 properties",
    ],
    [
        r#"{"maxProperties": 1}"#,
        r#"{"a": 1}"#,
        r#"{"a": 1, "b": 1}"#,
        "at most 1 properties",
    ],
    [
        r#"{"additionalProperties": {"type": "string"}}"#,
        r#"{"a": "b"}"#,
        r#"{"a": 1}"#,
        "`field.a`",
    ],
    [r#"{"not": {"type": "null"}}"#, "1", "null", "not allowed"],
    [
        r#"{"allOf": [{"minimum": 1}, {"maximum": 2}]}"#,
        "2",
        "3",
        "at most 2",
    ],
    [
        r#"{"anyOf": [{"type": "string"}, {"type": "boolean"}]}"#,
        "true",
        "1",
        "fits none",
    ],
    [
        r#"{"oneOf": [{"type": "number"}, {"minimum": 5}]}"#,
        "4",
        "6",
        "fits 2 of",
    ],
];

#[test]
fn each_keyword_accepts_and_refuses() {
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    for [schema, good, bad, why] in KEYWORDS {
        assert_eq!(complaint(read(schema), read(good)), None, "{schema}");
        let found = complaint(read(schema), read(bad)).unwrap_or_default();
        assert!(found.contains(why), "{schema}: {found}");
    }
}

#[test]
fn the_path_leads_to_the_value_in_depth() {
    let schema = json!({
        "type": "object",
        "properties": {"rows": {"items": {"properties": {"name": {"type": "string"}}}}},
        "additionalProperties": false,
    });
    let value = json!({"rows": [{"name": "a"}, {"name": {}}]});
    assert_eq!(
        complaint(schema.clone(), value).as_deref(),
        Some("`field.rows[1].name`: expected a string, found an object")
    );
    assert_eq!(
        complaint(schema, json!({"row": []})).as_deref(),
        Some("`field.row`: there is no such property")
    );
}

#[test]
fn the_alternative_that_was_meant_gives_the_complaint() {
    let schema = json!({"anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"port": {"type": "number"}}},
    ]});
    assert_eq!(
        complaint(schema, json!({"port": "x"})).as_deref(),
        Some("`field.port`: expected a number, found a string")
    );
}

#[test]
fn references_within_the_schema_are_followed_and_loops_end() {
    let tree = json!({
        "$defs": {"node": {"properties": {"child": {"$ref": "#/$defs/node"}, "n": {"type": "number"}}}},
        "$ref": "#/$defs/node",
    });
    assert_eq!(complaint(tree.clone(), json!({"child": {"n": 1}})), None);
    assert!(complaint(tree, json!({"child": {"n": "1"}})).is_some());
    let endless = json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
    let found = complaint(endless, json!(1)).unwrap_or_default();
    assert!(found.contains("64 levels"), "{found}");
    let elsewhere = json!({"$ref": "https://example.com/schema.json"});
    assert_eq!(complaint(elsewhere, json!(1)), None);
}

#[test]
fn a_check_that_would_explode_ends_with_a_complaint() {
    let mut schema = json!({"type": "string"});
    for _ in 0..20 {
        schema = json!({"anyOf": [schema.clone(), schema.clone(), schema]});
        if schema.to_string().len() > 400_000 {
            break;
        }
    }
    assert!(complaint(schema.clone(), json!(1)).is_some());
    let items = json!({"items": schema});
    let value = Value::Array(vec![json!(1); 1_000]);
    assert!(complaint(items, value).is_some());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|number| json!(number)),
        "[a-z]{0,4}".prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn no_schema_and_no_value_can_break_the_check(schema in json_value(), value in json_value()) {
        if let Value::Object(schema) = schema {
            // Whatever the answer is, there is one.
            let _ = check(&schema, "field", &value);
        }
    }

    #[test]
    fn a_value_is_what_its_own_description_says(value in json_value()) {
        let schema = describe(&value);
        prop_assert!(complaint(schema, value).is_none());
    }
}

fn describe(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let properties = object
                .iter()
                .map(|(key, value)| (key.clone(), describe(value)));
            json!({
                "type": "object",
                "properties": properties.collect::<Map<_, _>>(),
                "required": object.keys().collect::<Vec<_>>(),
                "additionalProperties": false,
            })
        }
        Value::Array(items) => {
            let items = items.iter().map(describe).collect::<Vec<_>>();
            json!({"type": "array", "items": items})
        }
        other => json!({"const": other}),
    }
}
