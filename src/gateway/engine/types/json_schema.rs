//! The part of JSON Schema that apps use to describe their fields.
//!
//! Understood: `type` (a name or a list), `nullable`, `enum`, `const`,
//! `properties`, `required`, `additionalProperties`, `minProperties`,
//! `maxProperties`, `items`, `minItems`, `maxItems`, `uniqueItems`, `minLength`,
//! `maxLength`, `pattern`, `minimum`, `maximum`, `exclusiveMinimum`,
//! `exclusiveMaximum`, `multipleOf`, `anyOf`, `oneOf`, `allOf`, `not`, and
//! `$ref` within the same schema. Everything else describes and does not
//! constrain (`format`, `title`, …).
//!
//! Our own subset, because a whole validator (`jsonschema`) brings some eighty
//! crates for remote references and formats that no app relies on, and because
//! it repeats values in its messages.

use std::collections::{BTreeMap, HashSet};

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Number, Value};

use super::Mismatch;

/// Schemas nest a dozen levels in published apps; deeper is a loop of `$ref`.
const DEPTH_MAX: usize = 64;

/// Comparisons of one check. A bulk insert has 100,000 cells; `anyOf` within
/// `anyOf` multiplies, and must end.
const STEPS_MAX: usize = 2_000_000;

/// Largest compiled `pattern` and longest text that is held against one, in
/// bytes: the time of a match is their product.
const PATTERN_BYTES_MAX: usize = 64 << 10;
const PATTERN_TEXT_BYTES_MAX: usize = 16 << 10;

/// # Errors
///
/// The first place where `value` does not fit `schema`.
pub fn check(schema: &Map<String, Value>, path: &str, value: &Value) -> Result<(), Mismatch> {
    let mut check = Check {
        root: schema,
        steps: 0,
        patterns: BTreeMap::new(),
    };
    check.value(schema, value, &Path::Root(path), 0)
}

struct Check<'a> {
    root: &'a Map<String, Value>,
    steps: usize,
    /// Compiled once each; `None` is one that cannot be checked here.
    patterns: BTreeMap<&'a str, Option<Regex>>,
}

/// The way to a value, written out only when there is something to complain of.
enum Path<'a> {
    Root(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

// === impl Check ===

impl<'a> Check<'a> {
    fn value(
        &mut self,
        schema: &'a Map<String, Value>,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), Mismatch> {
        self.steps += 1;
        if depth > DEPTH_MAX {
            return Err(path.complain(format!("the schema nests deeper than {DEPTH_MAX} levels")));
        }
        if self.steps > STEPS_MAX {
            return Err(path.complain("the value is too large to be checked".to_owned()));
        }
        if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        if let Some(Value::String(pointer)) = schema.get("$ref") {
            return match self.resolve(pointer) {
                Some(target) => self.value(target, value, path, depth + 1),
                // A reference to elsewhere is not ours to fetch: it constrains nothing.
                None => Ok(()),
            };
        }
        check_type(schema, value, path)?;
        check_choice(schema, value, path)?;
        match value {
            Value::String(text) => self.text(schema, text, path)?,
            Value::Number(number) => check_number(schema, number, path)?,
            Value::Array(items) => self.items(schema, items, path, depth)?,
            Value::Object(object) => self.properties(schema, object, path, depth)?,
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(schema, value, path, depth)
    }

    fn resolve(&self, pointer: &str) -> Option<&'a Map<String, Value>> {
        let rest = pointer.strip_prefix('#')?;
        if rest.is_empty() {
            return Some(self.root);
        }
        let mut parts = rest.strip_prefix('/')?.split('/');
        let first = unescape(parts.next()?);
        let mut at = self.root.get(&first)?;
        for part in parts {
            at = at.get(unescape(part))?;
        }
        at.as_object()
    }

    /// A schema may be `true` or `false` wherever a schema is expected.
    fn any_schema(
        &mut self,
        schema: &'a Value,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), Mismatch> {
        match schema {
            Value::Object(schema) => self.value(schema, value, path, depth + 1),
            Value::Bool(false) => Err(path.complain("no value is allowed here".to_owned())),
            _ => Ok(()),
        }
    }

    fn text(
        &mut self,
        schema: &'a Map<String, Value>,
        text: &str,
        path: &Path<'_>,
    ) -> Result<(), Mismatch> {
        if schema.contains_key("minLength") || schema.contains_key("maxLength") {
            let length = text.chars().count();
            bounds(schema, "minLength", "maxLength", length, "characters", path)?;
        }
        let Some(Value::String(pattern)) = schema.get("pattern") else {
            return Ok(());
        };
        if text.len() > PATTERN_TEXT_BYTES_MAX {
            return Ok(());
        }
        self.steps += text.len();
        let compiled = self.patterns.entry(pattern).or_insert_with(|| {
            // One that only JavaScript understands (look-around), or that would
            // be too large, is not checked: the app sees the value in any case.
            let builder = RegexBuilder::new(pattern)
                .size_limit(PATTERN_BYTES_MAX)
                .build();
            builder.ok()
        });
        match compiled {
            Some(expression) if !expression.is_match(text) => {
                Err(path.complain(format!("does not match the pattern {pattern}")))
            }
            _ => Ok(()),
        }
    }

    fn items(
        &mut self,
        schema: &'a Map<String, Value>,
        items: &[Value],
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), Mismatch> {
        bounds(schema, "minItems", "maxItems", items.len(), "items", path)?;
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut seen = HashSet::with_capacity(items.len());
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                return Err(path.complain("the items of the list are not unique".to_owned()));
            }
        }
        let Some(each) = schema.get("items") else {
            return Ok(());
        };
        for (index, item) in items.iter().enumerate() {
            // A list of schemas describes a tuple; items after it are free.
            let each = match each {
                Value::Array(tuple) => match tuple.get(index) {
                    Some(each) => each,
                    None => break,
                },
                each => each,
            };
            self.any_schema(each, item, &Path::Index(path, index), depth)?;
        }
        Ok(())
    }

    fn properties(
        &mut self,
        schema: &'a Map<String, Value>,
        object: &Map<String, Value>,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), Mismatch> {
        let (least, most) = ("minProperties", "maxProperties");
        bounds(schema, least, most, object.len(), "properties", path)?;
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return Err(Path::Key(path, name).complain("a value is required".to_owned()));
            }
        }
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (name, value) in object {
            let path = Path::Key(path, name);
            match (known.and_then(|known| known.get(name)), others) {
                (Some(schema), _) => self.any_schema(schema, value, &path, depth)?,
                (None, Some(Value::Bool(false))) => {
                    return Err(path.complain("there is no such property".to_owned()));
                }
                (None, Some(schema)) => self.any_schema(schema, value, &path, depth)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn combined(
        &mut self,
        schema: &'a Map<String, Value>,
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), Mismatch> {
        for schema in list(schema, "allOf") {
            self.any_schema(schema, value, path, depth)?;
        }
        if schema.contains_key("anyOf") {
            let (fitting, nearest) = self.fitting(list(schema, "anyOf"), value, path, depth);
            if fitting == 0 {
                return Err(nearest.unwrap_or_else(|| none_fits(value, path)));
            }
        }
        if schema.contains_key("oneOf") {
            let (fitting, nearest) = self.fitting(list(schema, "oneOf"), value, path, depth);
            if fitting == 0 {
                return Err(nearest.unwrap_or_else(|| none_fits(value, path)));
            }
            if fitting > 1 {
                let why = format!("fits {fitting} of the alternatives, and may fit only one");
                return Err(path.complain(why));
            }
        }
        if let Some(never) = schema.get("not")
            && self.any_schema(never, value, path, depth).is_ok()
        {
            return Err(path.complain(format!("{} of this kind is not allowed", kind(value))));
        }
        Ok(())
    }

    /// How many alternatives fit; when none does, the complaint of the only
    /// alternative of the value's own type, as it is the one that was meant.
    fn fitting(
        &mut self,
        alternatives: &'a [Value],
        value: &Value,
        path: &Path<'_>,
        depth: usize,
    ) -> (usize, Option<Mismatch>) {
        let mut fitting = 0;
        let mut complaints = Vec::new();
        for schema in alternatives {
            match self.any_schema(schema, value, path, depth) {
                Ok(()) => fitting += 1,
                Err(complaint) => {
                    let of_its_type = schema
                        .as_object()
                        .is_some_and(|schema| check_type(schema, value, path).is_ok());
                    if of_its_type {
                        complaints.push(complaint);
                    }
                }
            }
        }
        let nearest = (complaints.len() == 1).then(|| complaints.remove(0));
        (fitting, nearest)
    }
}

// === impl Path ===

impl Path<'_> {
    fn complain(&self, why: String) -> Mismatch {
        Mismatch {
            path: self.written(),
            why,
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Root(name) => (*name).to_owned(),
            Self::Key(parent, key) => {
                let parent = parent.written();
                if parent.is_empty() {
                    (*key).to_owned()
                } else {
                    format!("{parent}.{key}")
                }
            }
            Self::Index(parent, index) => format!("{}[{index}]", parent.written()),
        }
    }
}

// === Leaves ===

/// What a person calls a value of this type; never the value itself.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn check_type(schema: &Map<String, Value>, value: &Value, path: &Path<'_>) -> Result<(), Mismatch> {
    let names = match schema.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    if names.is_empty() || names.iter().any(|name| is_of(name, value)) {
        return Ok(());
    }
    let expected = names.iter().map(|name| said(name)).collect::<Vec<_>>();
    let found = kind(value);
    Err(path.complain(format!("expected {}, found {found}", expected.join(" or "))))
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value
            .as_f64()
            .is_some_and(|number| number.fract() == 0.0 && number.is_finite()),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => true,
    }
}

fn said(name: &str) -> &str {
    match name {
        "string" => "a string",
        "number" => "a number",
        "integer" => "a whole number",
        "boolean" => "a boolean",
        "object" => "an object",
        "array" => "a list",
        other => other,
    }
}

fn check_choice(
    schema: &Map<String, Value>,
    value: &Value,
    path: &Path<'_>,
) -> Result<(), Mismatch> {
    if let Some(Value::Array(choices)) = schema.get("enum")
        && !choices.iter().any(|choice| same(choice, value))
    {
        let choices = choices.iter().take(20).map(Value::to_string);
        let choices = choices.collect::<Vec<_>>().join(", ");
        return Err(path.complain(format!("expected one of {choices}")));
    }
    match schema.get("const") {
        Some(only) if !same(only, value) => Err(path.complain(format!("expected {only}"))),
        _ => Ok(()),
    }
}

/// `1` and `1.0` are one number in JSON.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn check_number(
    schema: &Map<String, Value>,
    number: &Number,
    path: &Path<'_>,
) -> Result<(), Mismatch> {
    let Some(number) = number.as_f64() else {
        return Ok(());
    };
    let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let Some(least) = limit("minimum").filter(|least| number < *least) {
        return Err(path.complain(format!("expected at least {least}")));
    }
    if let Some(most) = limit("maximum").filter(|most| number > *most) {
        return Err(path.complain(format!("expected at most {most}")));
    }
    if let Some(above) = limit("exclusiveMinimum").filter(|above| number <= *above) {
        return Err(path.complain(format!("expected more than {above}")));
    }
    if let Some(below) = limit("exclusiveMaximum").filter(|below| number >= *below) {
        return Err(path.complain(format!("expected less than {below}")));
    }
    let step = limit("multipleOf").filter(|step| *step > 0.0);
    if let Some(step) = step.filter(|step| ((number / step) - (number / step).round()).abs() > 1e-9)
    {
        return Err(path.complain(format!("expected a multiple of {step}")));
    }
    Ok(())
}

fn bounds(
    schema: &Map<String, Value>,
    least: &str,
    most: &str,
    found: usize,
    unit: &str,
    path: &Path<'_>,
) -> Result<(), Mismatch> {
    let found = found as u64;
    let limit = |key: &str| schema.get(key).and_then(Value::as_u64);
    if let Some(least) = limit(least).filter(|least| found < *least) {
        return Err(path.complain(format!("expected at least {least} {unit}, found {found}")));
    }
    if let Some(most) = limit(most).filter(|most| found > *most) {
        return Err(path.complain(format!("expected at most {most} {unit}, found {found}")));
    }
    Ok(())
}

fn list<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    schema
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn none_fits(value: &Value, path: &Path<'_>) -> Mismatch {
    path.complain(format!("{} fits none of the alternatives", kind(value)))
}

fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests;
