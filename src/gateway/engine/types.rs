//! The type of a field: checks that name the field and what was found.
//!
//! Owns [`TypeSpec`] and filling a set of fields (defaults, required, fixed).
//! The rules of one value are in [`json_schema`]. A complaint never repeats a
//! value, because a field may hold a secret.

pub mod json_schema;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Complaints that one sentence carries; the rest is counted.
const COMPLAINTS_SAID_MAX: usize = 10;

/// What an app may write as the type of a field, an output or a signal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub enum TypeSpec {
    #[default]
    Any,
    /// A JSON Schema; `{"type":"string"}` for the short form `"string"`.
    Schema(Map<String, Value>),
}

/// One complaint about one value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {why}")]
pub struct Mismatch {
    /// The way to the value: `rows[3].name`.
    pub path: String,
    /// `expected a number, found a string`.
    pub why: String,
}

/// What the rules of a set of fields need to know about one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldRule<'a> {
    pub spec: &'a TypeSpec,
    pub required: bool,
    /// May not change after the installation.
    pub fixed: bool,
    pub default: Option<&'a Value>,
}

// === impl TypeSpec ===

impl TypeSpec {
    /// The normalized form that published definitions carry: `{}` is `any`.
    pub fn normalized(&self) -> Value {
        match self {
            Self::Any => Value::Object(Map::new()),
            Self::Schema(schema) => Value::Object(schema.clone()),
        }
    }

    /// # Errors
    ///
    /// The first place where `value` does not fit, named from `path` on.
    pub fn check(&self, path: &str, value: &Value) -> Result<(), Mismatch> {
        match self {
            Self::Any => Ok(()),
            Self::Schema(schema) => json_schema::check(schema, path, value),
        }
    }
}

impl From<Value> for TypeSpec {
    /// Lenient: a type nobody knows accepts every value, as a newer app may
    /// name types that are not ours to judge.
    fn from(value: Value) -> Self {
        match value {
            Value::String(name) => match name.as_str() {
                "string" | "number" | "boolean" | "object" | "array" | "integer" | "null" => {
                    Self::Schema(Map::from_iter([("type".to_owned(), Value::String(name))]))
                }
                // The type of a field that holds a JSON Schema itself.
                "jsonSchemaObject" => {
                    let object = Value::String("object".to_owned());
                    Self::Schema(Map::from_iter([("type".to_owned(), object)]))
                }
                _ => Self::Any,
            },
            Value::Object(schema) if schema.is_empty() => Self::Any,
            Value::Object(schema) => Self::Schema(schema),
            _ => Self::Any,
        }
    }
}

impl From<TypeSpec> for Value {
    fn from(spec: TypeSpec) -> Self {
        match spec {
            TypeSpec::Any => Value::Object(Map::new()),
            TypeSpec::Schema(schema) => Value::Object(schema),
        }
    }
}

impl FieldRule<'_> {
    fn allows_null(&self) -> bool {
        self.spec.check("", &Value::Null).is_ok()
    }
}

// === Sets of fields ===

/// The values a handler sees: `given` with defaults filled in, everything
/// checked. A `null` for a field whose type has no `null` counts as not given,
/// because that is what an expression without a value leaves behind.
///
/// # Errors
///
/// Every complaint, in the order of the fields: required fields without a
/// value, values of the wrong type, values of fields that do not exist.
pub fn fill(
    rules: &BTreeMap<&str, FieldRule<'_>>,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, Vec<Mismatch>> {
    let mut filled = Map::new();
    let mut complaints = Vec::new();
    for (&name, rule) in rules {
        let value = given
            .get(name)
            .filter(|value| !value.is_null() || rule.allows_null())
            .or(rule.default);
        match value {
            None if rule.required => complaints.push(mismatch(name, "a value is required")),
            None => {}
            Some(value) => match rule.spec.check(name, value) {
                Ok(()) => {
                    filled.insert(name.to_owned(), value.clone());
                }
                Err(complaint) => complaints.push(complaint),
            },
        }
    }
    for name in given
        .keys()
        .filter(|name| !rules.contains_key(name.as_str()))
    {
        complaints.push(mismatch(name, "there is no such field"));
    }
    if complaints.is_empty() {
        Ok(filled)
    } else {
        Err(complaints)
    }
}

/// All complaints as one sentence, for an event or a status; long lists are cut.
pub fn sentence(complaints: &[Mismatch]) -> String {
    let said = complaints.iter().take(COMPLAINTS_SAID_MAX);
    let said = said.map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match complaints.len().saturating_sub(COMPLAINTS_SAID_MAX) {
        0 => said,
        more => format!("{said}; and {more} more"),
    }
}

/// Names the fixed fields that `wanted` would change. A fixed field without a
/// value may still be set, once.
pub fn changed_fixed_fields(
    rules: &BTreeMap<&str, FieldRule<'_>>,
    current: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Vec<Mismatch> {
    rules
        .iter()
        .filter(|(_, rule)| rule.fixed)
        .filter(|(name, _)| {
            let old = current.get(**name).filter(|value| !value.is_null());
            old.is_some_and(|old| wanted.get(**name) != Some(old))
        })
        .map(|(name, _)| mismatch(name, "the field is fixed and cannot change once it is set"))
        .collect()
}

fn mismatch(path: &str, why: &str) -> Mismatch {
    Mismatch {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Map, Value, json};

    use super::{FieldRule, TypeSpec, changed_fixed_fields, fill, sentence};

    fn spec(value: Value) -> TypeSpec {
        TypeSpec::from(value)
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn shorthand_types_are_normalized_as_published_schemas_have_them() {
        assert_eq!(
            spec(json!("string")).normalized(),
            json!({"type": "string"})
        );
        assert_eq!(spec(json!("any")).normalized(), json!({}));
        assert_eq!(spec(json!({})).normalized(), json!({}));
        assert_eq!(
            spec(json!({"type": "array"})).normalized(),
            json!({"type": "array"})
        );
        let round: TypeSpec = serde_json::from_value(json!("number")).expect("reads");
        assert_eq!(
            serde_json::to_value(&round).expect("writes"),
            json!({"type": "number"})
        );
    }

    #[test]
    fn a_complaint_names_the_field_and_what_was_found_but_not_the_value() {
        let complaint = spec(json!("number"))
            .check("port", &json!("hunter2"))
            .expect_err("a string is no number");
        assert_eq!(
            complaint.to_string(),
            "`port`: expected a number, found a string"
        );
    }

    #[test]
    fn defaults_are_filled_and_null_means_not_given() {
        let (string, number, any) = (spec(json!("string")), spec(json!("number")), TypeSpec::Any);
        let default = json!(22);
        let rules = BTreeMap::from([
            ("host", rule(&string, true)),
            (
                "port",
                FieldRule {
                    default: Some(&default),
                    ..rule(&number, true)
                },
            ),
            ("note", rule(&string, false)),
            ("extra", rule(&any, false)),
        ]);
        let filled = fill(
            &rules,
            &object(json!({"host": "a", "port": null, "note": null, "extra": null})),
        );
        assert_eq!(
            filled,
            Ok(object(json!({"host": "a", "port": 22, "extra": null})))
        );
    }

    #[test]
    fn every_complaint_is_made_at_once() {
        let (string, number) = (spec(json!("string")), spec(json!("number")));
        let rules = BTreeMap::from([
            ("host", rule(&string, true)),
            ("port", rule(&number, false)),
        ]);
        let complaints = fill(&rules, &object(json!({"port": [], "hots": 1})))
            .expect_err("three things are wrong");
        assert!(sentence(&complaints).starts_with("`host`: a value is required; `port`: "));
        assert!(sentence(&vec![complaints[0].clone(); 12]).ends_with("; and 2 more"));
        let complaints = complaints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        assert_eq!(
            complaints,
            [
                "`host`: a value is required",
                "`port`: expected a number, found a list",
                "`hots`: there is no such field",
            ]
        );
    }

    #[test]
    fn a_fixed_field_can_be_set_once() {
        let string = spec(json!("string"));
        let rules = BTreeMap::from([(
            "region",
            FieldRule {
                fixed: true,
                ..rule(&string, true)
            },
        )]);
        let set = object(json!({"region": "eu"}));
        let other = object(json!({"region": "us"}));
        assert!(changed_fixed_fields(&rules, &Map::new(), &set).is_empty());
        assert!(changed_fixed_fields(&rules, &set, &set).is_empty());
        assert_eq!(changed_fixed_fields(&rules, &set, &other).len(), 1);
        assert_eq!(changed_fixed_fields(&rules, &set, &Map::new()).len(), 1);
    }

    fn rule(spec: &TypeSpec, required: bool) -> FieldRule<'_> {
        FieldRule {
            spec,
            required,
            fixed: false,
            default: None,
        }
    }
}
