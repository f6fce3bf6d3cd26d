//! What a job's log may not show: the values of sensitive fields and signals
//! that its handler is given, and the project's secrets that a config of it
//! refers to. The worker takes them out of whatever the job prints, so they are
//! listed in the payload beside the handler's input.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::gateway::engine::expressions::{Expression, References};
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::canvas::Node;
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::schema::{self, Field, Signal};
use crate::store::engine::components::Component;
use crate::store::engine::installations::Installation;
use crate::store::engine::secrets;

/// Values listed for one job; an app declares a handful.
const VALUES_MAX: usize = 1_000;
/// Where the worker looks for them in a payload.
const KEY: &str = "redact";

/// Secrets by their keys, as configs refer to them.
#[derive(Default)]
struct Named {
    keys: BTreeSet<String>,
    /// A key is computed.
    all: bool,
}

// === impl Step ===

impl Step<'_> {
    /// `{handler, input}` for a handler of a component, with what must not be
    /// printed. The app comes with its installation.
    pub(super) async fn payload(
        &mut self,
        handler: Value,
        given: Map<String, Value>,
        component: &Component,
        (app, installation): (&Component, &Installation),
    ) -> Result<Value, Fault> {
        let (mut found, mut named) = (Vec::new(), Named::default());
        // Most sources name no secret, and need not be read.
        let sources = installation.config.values();
        for source in sources.filter(|source| source.contains("secret")) {
            named.add(&Expression::from_source(source).references());
        }
        if let Some(schema) = self.schema(&installation.digest).await? {
            of_component(&schema.config, &schema.signals, app, &mut found);
        }
        if let Some(flow) = &component.flow
            && let Some(canvas) = self.canvas(flow).await?
            && let Some(node) = canvas.nodes.get(&component.id)
        {
            of_component(
                &node.schema.config,
                &node.schema.signals,
                component,
                &mut found,
            );
            of_event(node, &handler, &given, &mut found);
            named.add(&node.config.references);
            for input in node.inputs.values() {
                named.add(&input.references);
            }
        }
        if named.all || !named.keys.is_empty() {
            for (key, kept) in secrets::values(self.tx, &component.project).await? {
                if named.all || named.keys.contains(&key) {
                    let sealing = &self.engine.sealing;
                    let value = sealing.open(&component.project, &key, &kept);
                    found.push(value.map_err(|error| Fault::Conflict(error.to_string()))?);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(VALUES_MAX);
        let mut payload = Map::new();
        payload.insert("handler".to_owned(), handler);
        payload.insert("input".to_owned(), Value::Object(given));
        if !found.is_empty() {
            payload.insert(KEY.to_owned(), found.into());
        }
        Ok(Value::Object(payload))
    }
}

// === impl Named ===

impl Named {
    fn add(&mut self, references: &References) {
        self.keys.extend(references.secrets.iter().cloned());
        self.all |= references.all_secrets;
    }
}

fn of_component(
    config: &BTreeMap<String, Field>,
    signals: &BTreeMap<String, Signal>,
    component: &Component,
    found: &mut Vec<String>,
) {
    of_fields(config, component.vals.as_ref(), found);
    for (key, signal) in signals {
        if signal.sensitive
            && let Some(value) = component.signals.get(key)
        {
            texts(value, found);
        }
    }
}

fn of_event(node: &Node, handler: &Value, given: &Map<String, Value>, found: &mut Vec<String>) {
    let input = handler.get("input").and_then(Value::as_str);
    let Some(input) = input.and_then(|input| node.schema.inputs.get(input)) else {
        return;
    };
    let event = given.get("event");
    let config = event.and_then(|event| event.get("inputConfig"));
    let config = config.or_else(|| given.get("staticInputConfig"));
    of_fields(&input.config, config.and_then(Value::as_object), found);
}

fn of_fields(
    fields: &BTreeMap<String, schema::Field>,
    values: Option<&Map<String, Value>>,
    found: &mut Vec<String>,
) {
    let Some(values) = values else { return };
    for (key, field) in fields {
        if field.sensitive
            && let Some(value) = values.get(key)
        {
            texts(value, found);
        }
    }
}

/// Every text in a value. Numbers too, as they are printed: a PIN is a secret.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Number(number) => found.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(entries) => entries.values().for_each(|item| texts(item, found)),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_values_of_sensitive_fields_are_found_however_deep() {
        let fields: BTreeMap<String, Field> = serde_json::from_value(json!({
            "keys": {"sensitive": true, "type": {}},
            "pin": {"sensitive": true, "type": {"type": "number"}},
            "host": {"type": {"type": "string"}},
        }))
        .expect("fields");
        let values =
            json!({"keys": {"a": ["one", {"b": "two"}], "c": true}, "pin": 123_456, "host": "h"});
        let mut found = Vec::new();
        of_fields(&fields, values.as_object(), &mut found);
        found.sort_unstable();
        assert_eq!(found, ["123456", "one", "two"]);
    }
}
