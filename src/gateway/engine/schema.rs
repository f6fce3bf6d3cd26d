//! The normalized schema of a bundle: what `describe` reports and what
//! published definitions carry beside each block.
//!
//! Owns the shape, reading it leniently (unknown keys are left out, a missing
//! flag is false) within limits, and the rule which output is meant when none
//! is named. Does not judge values: that is `types`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::gateway::engine::types::{FieldRule, TypeSpec};

/// The largest published schema of an app has 600 kB; ten times that.
pub const SCHEMA_BYTES_MAX: usize = 8 << 20;

/// Block types of one app. Generated apps have thousands.
pub const BLOCK_TYPES_MAX: usize = 20_000;

/// Fields, inputs, outputs, signals or schedules in one section of one block.
pub const SECTION_ENTRIES_MAX: usize = 1_000;

/// A whole app.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct App {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Markdown with the placeholders `{appEndpointUrl}` and `{appEndpointHost}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation_instructions: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub autoconfirm: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub config: BTreeMap<String, Field>,
    #[serde(deserialize_with = "null_is_empty")]
    pub signals: BTreeMap<String, Signal>,
    #[serde(deserialize_with = "null_is_empty")]
    pub blocks: BTreeMap<String, Block>,
    #[serde(deserialize_with = "null_is_empty")]
    pub schedules: BTreeMap<String, Schedule>,
    #[serde(flatten)]
    pub handlers: Handlers,
}

/// One block type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Block {
    /// The place among its siblings as the app declares them.
    #[serde(deserialize_with = "null_is_empty")]
    pub order: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_false")]
    pub autoconfirm: bool,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_false")]
    pub entrypoint: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub config: BTreeMap<String, Field>,
    #[serde(deserialize_with = "null_is_empty")]
    pub inputs: BTreeMap<String, Input>,
    #[serde(deserialize_with = "null_is_empty")]
    pub outputs: BTreeMap<String, Output>,
    #[serde(deserialize_with = "null_is_empty")]
    pub signals: BTreeMap<String, Signal>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub schedules: BTreeMap<String, Schedule>,
    #[serde(flatten)]
    pub handlers: Handlers,
}

/// Which functions the app or block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Handlers {
    #[serde(deserialize_with = "null_is_empty")]
    pub has_on_internal_message: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub has_on_sync: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub has_on_drain: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub has_on_timer: bool,
    /// `http.onRequest`.
    #[serde(
        alias = "hasOnHttpRequest",
        alias = "hasOnHTTPRequest",
        alias = "hasHTTP",
        alias = "http",
        deserialize_with = "presence",
        skip_serializing_if = "is_false"
    )]
    pub has_on_request: bool,
}

/// A config field of an app, a block or an input.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Field {
    #[serde(deserialize_with = "null_is_empty")]
    pub order: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(rename = "type")]
    pub spec: TypeSpec,
    #[serde(deserialize_with = "null_is_empty")]
    pub fixed: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    #[serde(deserialize_with = "null_is_empty")]
    pub has_validator: bool,
    #[serde(deserialize_with = "null_is_empty")]
    pub field_key: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub sensitive: bool,
    /// `suggestValues`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_false")]
    pub has_suggest_values: bool,
}

/// A place where events come in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Input {
    #[serde(deserialize_with = "null_is_empty")]
    pub order: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub config: BTreeMap<String, Field>,
    #[serde(deserialize_with = "null_is_empty")]
    pub has_on_event: bool,
}

/// A place where events come out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Output {
    #[serde(deserialize_with = "null_is_empty")]
    pub order: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_false")]
    pub default: bool,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_false")]
    pub secondary: bool,
    /// Keys of the inputs whose events may be the primary parent. Empty: the
    /// app did not say.
    #[serde(deserialize_with = "null_is_empty")]
    pub possible_primary_parents: Vec<String>,
    #[serde(rename = "type")]
    pub spec: TypeSpec,
}

/// A value that others may follow.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Signal {
    #[serde(deserialize_with = "null_is_empty")]
    pub order: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub sensitive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<String>,
}

/// A schedule as the app declares it; `schedule::Schedule::parse` reads the definition.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedule {
    #[serde(deserialize_with = "null_is_empty")]
    pub order: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub customizable: bool,
    pub definition: Value,
}

/// What a result of `onSync` says about outputs: a partial output, or `null`
/// to go back to what the app declares.
pub type OutputUpdates = BTreeMap<String, Option<Map<String, Value>>>;

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the schema has {0} bytes, more than {SCHEMA_BYTES_MAX}")]
    TooLarge(usize),
    #[error("the schema is not what a bundle reports: {0}")]
    Unreadable(String),
    #[error("the schema has {found} {what}, more than {most}")]
    TooMany {
        what: String,
        found: usize,
        most: usize,
    },
}

// === impl App ===

impl App {
    /// # Errors
    ///
    /// Not JSON of this shape, or over a limit.
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        let app: Self = read(json)?;
        limit("block types", app.blocks.len(), BLOCK_TYPES_MAX)?;
        limit("config fields", app.config.len(), SECTION_ENTRIES_MAX)?;
        limit("signals", app.signals.len(), SECTION_ENTRIES_MAX)?;
        limit("schedules", app.schedules.len(), SECTION_ENTRIES_MAX)?;
        app.blocks.values().try_for_each(Block::within_limits)?;
        Ok(app)
    }
}

// === impl Block ===

impl Block {
    /// Reads the schema that a definition carries beside a block.
    ///
    /// # Errors
    ///
    /// Not JSON of this shape, or over a limit.
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        let block: Self = read(json)?;
        block.within_limits()?;
        Ok(block)
    }

    /// Whether the block may emit without an event at an input: from a
    /// message, a timer, a request, a schedule or a sync.
    pub fn emits_by_itself(&self) -> bool {
        let handlers = self.handlers;
        handlers.has_on_internal_message
            || handlers.has_on_timer
            || handlers.has_on_sync
            || handlers.has_on_request
            || !self.schedules.is_empty()
    }

    /// Whether an event at `input` may be the primary parent of one at `output`.
    pub fn may_lead(&self, input: &str, output: &str) -> bool {
        let Some(output) = self.outputs.get(output) else {
            // An output that a sync added: nothing is known about it.
            return true;
        };
        let parents = &output.possible_primary_parents;
        parents.is_empty() || parents.iter().any(|parent| parent == input)
    }

    fn within_limits(&self) -> Result<(), Error> {
        let inputs = self.inputs.iter();
        let sections = [
            ("config fields", self.config.len()),
            ("inputs", self.inputs.len()),
            ("outputs", self.outputs.len()),
            ("signals", self.signals.len()),
            ("schedules", self.schedules.len()),
        ];
        sections
            .into_iter()
            .chain(inputs.map(|(_, input)| ("input fields", input.config.len())))
            .try_for_each(|(what, found)| limit(what, found, SECTION_ENTRIES_MAX))
    }
}

// === Rules ===

/// The rules of a set of fields, as `types::fill` wants them.
pub fn rules(fields: &BTreeMap<String, Field>) -> BTreeMap<&str, FieldRule<'_>> {
    fields
        .iter()
        .map(|(key, field)| {
            let rule = FieldRule {
                spec: &field.spec,
                required: field.required,
                fixed: field.fixed,
                default: field.default.as_ref(),
            };
            (key.as_str(), rule)
        })
        .collect()
}

/// The output that is meant when an app names none: the flagged one, else the
/// one called `default`, else the first in the order of declaration.
pub fn default_output(outputs: &BTreeMap<String, Output>) -> Option<&str> {
    // A secondary output is meant only when it is named.
    let primary = || outputs.iter().filter(|(_, output)| !output.secondary);
    let flagged = primary().filter(|(_, output)| output.default);
    let first = |outputs: &mut dyn Iterator<Item = (&'_ String, &'_ Output)>| {
        outputs
            .min_by_key(|(key, output)| (output.order, (*key).clone()))
            .map(|(key, _)| key.clone())
    };
    let key = first(&mut flagged.into_iter())
        .or_else(|| {
            outputs
                .contains_key("default")
                .then(|| "default".to_owned())
        })
        .or_else(|| first(&mut primary()))
        .or_else(|| first(&mut outputs.iter()))?;
    outputs.get_key_value(&key).map(|(key, _)| key.as_str())
}

/// The outputs of a block after all updates its syncs reported, and which of
/// them are modified (`block.outputs[key].modified`).
pub fn effective_outputs(
    block: &Block,
    updates: &OutputUpdates,
) -> (BTreeMap<String, Output>, BTreeSet<String>) {
    let mut outputs = block.outputs.clone();
    let mut modified = BTreeSet::new();
    for (key, update) in updates {
        let Some(update) = update else {
            continue;
        };
        let next = outputs.len() as i64;
        let base = outputs.entry(key.clone()).or_insert_with(|| Output {
            order: next,
            ..Output::default()
        });
        // Each property by itself: one that does not fit leaves the others in force.
        for (property, value) in update {
            merge_property(base, property, value);
        }
        modified.insert(key.clone());
    }
    (outputs, modified)
}

/// The updates in force after a sync that reported `new`: later properties win,
/// `null` takes a whole output back.
pub fn merge_updates(current: &mut OutputUpdates, new: OutputUpdates) {
    for (key, update) in new {
        match update {
            None => {
                current.remove(&key);
            }
            Some(update) => {
                let known = current.entry(key).or_default();
                known.get_or_insert_default().extend(update);
            }
        }
    }
}

fn merge_property(output: &mut Output, property: &str, value: &Value) {
    let text = || value.as_str().map(str::to_owned);
    match property {
        "name" => output.name = text(),
        "description" => output.description = text(),
        "default" => output.default = value.as_bool().unwrap_or(output.default),
        "secondary" => output.secondary = value.as_bool().unwrap_or(output.secondary),
        "order" => output.order = value.as_i64().unwrap_or(output.order),
        "type" => output.spec = TypeSpec::from(value.clone()),
        "possiblePrimaryParents" => {
            let parents = value.as_array().into_iter().flatten();
            output.possible_primary_parents = parents
                .filter_map(|parent| parent.as_str().map(str::to_owned))
                .collect();
        }
        _ => {}
    }
}

// === Reading ===

fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, Error> {
    if json.len() > SCHEMA_BYTES_MAX {
        return Err(Error::TooLarge(json.len()));
    }
    serde_json::from_slice(json).map_err(|error| Error::Unreadable(error.to_string()))
}

fn limit(what: &str, found: usize, most: usize) -> Result<(), Error> {
    if found <= most {
        return Ok(());
    }
    Err(Error::TooMany {
        what: what.to_owned(),
        found,
        most,
    })
}

/// JavaScript writes `null` where it means "none".
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// `true`, or an object that stands for the thing itself.
fn presence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(present) => present,
        Value::Null => false,
        _ => true,
    })
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests;
