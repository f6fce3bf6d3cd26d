//! Events: what an emission means, and what it brings with it.
//!
//! ```text
//!  emit(body, options) ─▶ Emission ─▶ event ─fan out─▶ (block, input) ─▶ job ─▶ emit …
//!                            │          │
//!                            │          └ Lineage: outputs by block, echoes by block
//!                            └ Fingerprint: recognised when a retried attempt says it again
//! ```
//!
//! Owns the rules: which output, which parents, which limits; [`lineage`] what
//! an event inherits, [`pending`] the life of a pending event, [`repeats`] how
//! a repeat is recognised. Does not store, deliver or run anything.
//!
//! An output's `possiblePrimaryParents` describes what to expect and serves the
//! checks of a definition. What happened is what counts: an event emitted while
//! another one is handled has that one as its primary parent, unless the app
//! names another.

pub mod lineage;
pub mod pending;
pub mod repeats;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::gateway::engine::definition::Definition;
use crate::gateway::engine::expressions::bytes_of;
use crate::gateway::engine::graph::Graph;
use crate::gateway::engine::schema::{Output, default_output};
use crate::gateway::engine::types::json_schema::kind;

pub use lineage::Lineage;
pub use repeats::Fingerprint;

/// Events that one handler may emit, pending ones included: a loop that never
/// ends stops here and not at the disk.
pub const EVENTS_PER_HANDLER_MAX: usize = 10_000;

/// Largest body of an event, in bytes of JSON: with the other fields of a
/// handler's input it fits into the 4 MiB of a job's payload.
pub const EVENT_BODY_BYTES_MAX: usize = 1 << 20;

/// Secondary parents of one event.
pub const SECONDARY_PARENTS_MAX: usize = 1_000;

/// Longest id, key or status text in the options of an emission, in bytes.
const OPTION_BYTES_MAX: usize = 2_000;

/// Where an emission comes from.
#[derive(Debug, Clone, Copy)]
pub struct Emitter<'a> {
    /// The outputs in force, a sync's updates included.
    pub outputs: &'a BTreeMap<String, Output>,
    /// The event that is handled; `None` in timers, messages, syncs and requests.
    pub handled: Option<&'a str>,
    /// Events that the job has emitted or announced before.
    pub emitted: usize,
}

/// An event to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Emission {
    pub output: String,
    pub body: Value,
    /// `None` starts a new chain.
    pub primary: Option<String>,
    /// Each once, without the primary parent.
    pub secondary: Vec<String>,
    /// Handlers further down the chain see the body again when the chain comes
    /// back to the block.
    pub echo: bool,
    /// The pending event that this one completes.
    pub completes: Option<String>,
    pub fingerprint: Fingerprint,
}

/// One place an event goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub block: String,
    pub input: String,
}

// === Emitting ===

/// Reads the arguments of `events.emit(body, options)`.
///
/// # Errors
///
/// A sentence for the app: its call is rejected with it.
pub fn emission(args: &[Value], from: &Emitter<'_>) -> Result<Emission, String> {
    within_count(from)?;
    let body = args.first().cloned().unwrap_or_default();
    let options = options(args.get(1))?;
    let output = output(&options, from.outputs)?;
    let (primary, secondary) = parents(&options, from.handled)?;
    let completes = text(&options, "complete")?;
    let echo = flag(&options, "echo")?;
    within_size(&body)?;
    let fingerprint = Fingerprint::of("emit", &output, &body, &options);
    Ok(Emission {
        output,
        body,
        primary,
        secondary,
        echo,
        completes,
        fingerprint,
    })
}

/// The inputs that an event goes to, in a stable order. A block that is switched
/// off gets none; neither does an event that a switched-off block emits.
pub fn fan_out(
    definition: &Definition,
    graph: &Graph<'_>,
    block: &str,
    output: &str,
) -> Vec<Target> {
    let is_active = |name: &str| definition.block(name).is_some_and(|block| block.active);
    if !is_active(block) {
        return Vec::new();
    }
    let targets = graph.targets(block, output).into_iter();
    let targets = targets.filter(|(target, _)| is_active(target));
    targets
        .map(|(block, input)| Target {
            block: block.to_owned(),
            input: input.to_owned(),
        })
        .collect()
}

/// For a parent that an app names and that is no event of its flow.
pub fn unknown_parent(id: &str) -> String {
    let id = id.chars().take(100).collect::<String>();
    format!("there is no event `{id}` in this flow that could be a parent")
}

// === Options ===

/// `undefined`, `null` or an object.
fn options(given: Option<&Value>) -> Result<Map<String, Value>, String> {
    match given {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(options)) => Ok(options.clone()),
        Some(other) => Err(format!("the options are an object, not {}", kind(other))),
    }
}

fn output(
    options: &Map<String, Value>,
    outputs: &BTreeMap<String, Output>,
) -> Result<String, String> {
    // The SDK's first versions called it `outputId`.
    let key = match text(options, "outputKey")? {
        None => text(options, "outputId")?,
        key => key,
    };
    match key {
        Some(key) if outputs.contains_key(&key) => Ok(key),
        Some(key) => {
            let known = outputs.keys().take(12).map(|key| format!("`{key}`"));
            let known = known.collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none" } else { &known };
            Err(format!(
                "the block has no output `{key}`; there are: {known}"
            ))
        }
        None => match default_output(outputs) {
            Some(key) => Ok(key.to_owned()),
            None => Err("the block has no output to emit on".to_owned()),
        },
    }
}

fn parents(
    options: &Map<String, Value>,
    handled: Option<&str>,
) -> Result<(Option<String>, Vec<String>), String> {
    let primary = text(options, "parentEventId")?.or_else(|| handled.map(str::to_owned));
    let given = match options.get("secondaryParentEventIds") {
        None | Some(Value::Null) => return Ok((primary, Vec::new())),
        Some(Value::Array(given)) => given,
        Some(other) => {
            return Err(format!(
                "`secondaryParentEventIds`: expected a list, found {}",
                kind(other)
            ));
        }
    };
    if given.len() > SECONDARY_PARENTS_MAX {
        return Err(format!(
            "the event has {} secondary parents, more than {SECONDARY_PARENTS_MAX}",
            given.len()
        ));
    }
    let mut secondary = Vec::<String>::new();
    for id in given {
        let Value::String(id) = id else {
            return Err(format!(
                "`secondaryParentEventIds`: expected strings, found {}",
                kind(id)
            ));
        };
        if primary.as_ref() != Some(id) && !secondary.contains(id) {
            secondary.push(id.clone());
        }
    }
    Ok((primary, secondary))
}

/// A text option; an empty one counts as not given.
fn text(options: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match options.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > OPTION_BYTES_MAX => {
            Err(format!("`{key}` has more than {OPTION_BYTES_MAX} bytes"))
        }
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("`{key}`: expected a string, found {}", kind(other))),
    }
}

fn flag(options: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match options.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(format!(
            "`{key}`: expected a boolean, found {}",
            kind(other)
        )),
    }
}

fn within_count(from: &Emitter<'_>) -> Result<(), String> {
    if from.emitted < EVENTS_PER_HANDLER_MAX {
        return Ok(());
    }
    Err(format!(
        "the handler has emitted {EVENTS_PER_HANDLER_MAX} events and may not emit more"
    ))
}

fn within_size(body: &Value) -> Result<(), String> {
    let bytes = bytes_of(body);
    if bytes <= EVENT_BODY_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "the body of the event has {bytes} bytes, more than {EVENT_BODY_BYTES_MAX}"
    ))
}

#[cfg(test)]
mod tests;
