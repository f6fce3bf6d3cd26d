//! Shapes in short: `id:s block:s? state:s(open|done) at:i parts:Part[] *note:s`.
//!
//! | written | is |
//! |---|---|
//! | `s` `i` `b` `o` `a` | string, whole number, boolean, object, anything |
//! | `s(x\|y)` | one of these words |
//! | `Name` | another shape |
//! | `X[]`, `X{}` | a list of X, an object whose values are X |
//! | `X?` | or null |
//! | `*name:X` | may be left out |

use serde_json::{Map, Value, json};

/// Any JSON.
pub const ANY: &str = "a";

/// The schema of an object with these fields and no others.
pub fn object(shape: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for text in shape.split_whitespace() {
        let (name, schema, is_required) = field(text);
        if is_required {
            required.push(name.to_owned());
        }
        properties.insert(name.to_owned(), schema);
    }
    let mut schema =
        json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Name, schema, and whether it must be there.
pub fn field(text: &str) -> (&str, Value, bool) {
    let (name, what) = text.split_once(':').unwrap_or((text, ANY));
    match name.strip_prefix('*') {
        Some(name) => (name, of(what), false),
        None => (name, of(what), true),
    }
}

/// The schema of a value.
pub fn of(what: &str) -> Value {
    if let Some(inner) = what.strip_suffix('?') {
        let mut schema = of(inner);
        if schema.get("$ref").is_some() {
            schema = json!({"allOf": [schema]});
        }
        schema["nullable"] = json!(true);
        return schema;
    }
    if let Some(inner) = what.strip_suffix("[]") {
        return json!({"type": "array", "items": of(inner)});
    }
    if let Some(inner) = what.strip_suffix("{}") {
        return json!({"type": "object", "additionalProperties": of(inner)});
    }
    if let Some(words) = what
        .strip_prefix("s(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        return json!({"type": "string", "enum": words.split('|').collect::<Vec<_>>()});
    }
    match what {
        "s" => json!({"type": "string"}),
        "i" => json!({"type": "integer"}),
        "b" => json!({"type": "boolean"}),
        "o" => json!({"type": "object"}),
        ANY => json!({}),
        name => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_read() {
        let schema = object("id:s *note:s? parts:Part[] by:i{} state:s(a|b) next:Part?");
        let want = json!({
            "type": "object", "additionalProperties": false,
            "required": ["id", "parts", "by", "state", "next"],
            "properties": {
                "id": {"type": "string"},
                "note": {"type": "string", "nullable": true},
                "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}},
                "by": {"type": "object", "additionalProperties": {"type": "integer"}},
                "state": {"type": "string", "enum": ["a", "b"]},
                "next": {"allOf": [{"$ref": "#/components/schemas/Part"}], "nullable": true},
            },
        });
        assert_eq!(schema, want);
    }
}
