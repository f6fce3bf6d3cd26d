//! Expressions: what must be evaluated, what it refers to, what it may see.
//!
//! Owns the decision constant or source, a light scan for references, the
//! complaint about a reference that leads nowhere, and the scope that goes with
//! an evaluation. Does not evaluate: that happens in a runtime, and constants
//! never go there.
//!
//! The scan is light on purpose: it knows strings, comments, templates and
//! regular expressions, not JavaScript. A reference it cannot read (a computed
//! name) makes the scope complete instead of failing.

mod scan;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use scan::references;

/// Longest expression, in bytes: whole scripts are written as one expression.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;

/// Largest scope of one evaluation, in bytes of JSON. It travels with the job,
/// whose payload has 4 MiB, and leaves room for the sources.
pub const SCOPE_BYTES_MAX: usize = 3 << 20;

/// The value of a field as a person wrote it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    Constant(Value),
    /// A JavaScript expression.
    Source(String),
}

/// What an expression refers to, by accessor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// `outputs.<block>`.
    pub outputs: BTreeSet<String>,
    /// `signals.<owner>.<signal>`; without a signal: all of the owner's.
    pub signals: BTreeSet<(String, Option<String>)>,
    /// `secrets.<KEY>`.
    pub secrets: BTreeSet<String>,
    /// `ref("…")` of a kind nobody knows.
    pub unknown: BTreeSet<String>,
    /// Names that are computed: everything of the kind is needed.
    pub all_outputs: bool,
    pub all_signals: bool,
    pub all_secrets: bool,
}

/// What exists around an expression, by accessor.
#[derive(Debug, Clone, Default)]
pub struct Surroundings<'a> {
    /// The blocks whose events may lead here; `None` where no event is handled.
    pub ancestors: Option<&'a BTreeSet<String>>,
    /// All blocks of the flow.
    pub blocks: Option<&'a BTreeSet<String>>,
    /// Blocks and installations that may have signals; `None` when unknown.
    pub signal_owners: Option<&'a BTreeSet<String>>,
    /// Keys of the project's secrets; `None` when unknown.
    pub secrets: Option<&'a BTreeSet<String>>,
}

/// The values an evaluation may see.
#[derive(Debug, Clone, Default)]
pub struct Values<'a> {
    /// By accessor of the block.
    pub outputs: BTreeMap<&'a str, &'a Value>,
    /// By accessor of the owner, then by signal.
    pub signals: BTreeMap<&'a str, &'a Map<String, Value>>,
    pub secrets: BTreeMap<&'a str, &'a str>,
}

/// Why there is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the data that the expressions refer to has {0} bytes, more than {SCOPE_BYTES_MAX}")]
    ScopeTooLarge(usize),
    #[error("the secret `{0}` does not exist")]
    NoSuchSecret(String),
}

impl Error {
    /// The sentence, with the field whose source is the reason where there is one.
    pub fn in_fields(&self, sources: &BTreeMap<String, String>) -> String {
        let Self::NoSuchSecret(key) = self else {
            return self.to_string();
        };
        let mut fields = sources.iter();
        let field = fields.find(|(_, source)| references(source).secrets.contains(key));
        field.map_or_else(
            || self.to_string(),
            |(field, _)| format!("`{field}`: {self}"),
        )
    }
}

/// The fields of one config, divided.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Divided {
    pub constants: Map<String, Value>,
    /// To be evaluated, by field.
    pub sources: BTreeMap<String, String>,
    /// Everything that the sources refer to.
    pub references: References,
}

// === impl Expression ===

impl Expression {
    /// An expression as the API carries it: JavaScript source, of which a
    /// literal is the most frequent kind.
    pub fn from_source(source: &str) -> Self {
        match literal(source) {
            Some(value) => Self::Constant(value),
            None => Self::Source(source.to_owned()),
        }
    }

    /// The source that yields this value again.
    pub fn to_source(&self) -> String {
        match self {
            Self::Constant(value) => value.to_string(),
            Self::Source(source) => source.clone(),
        }
    }

    /// The value when no runtime is needed to know it.
    pub fn constant(&self) -> Option<Value> {
        match self {
            Self::Constant(value) => Some(value.clone()),
            Self::Source(source) => literal(source),
        }
    }

    pub fn references(&self) -> References {
        match self {
            Self::Constant(_) => References::default(),
            Self::Source(source) => references(source),
        }
    }
}

// === impl Divided ===

impl Divided {
    /// The whole config once the sources are evaluated: `answers` is the result
    /// of the evaluation, by field.
    ///
    /// # Errors
    ///
    /// An answer that is missing, which is a bug of the runtime.
    pub fn complete(self, answers: Value) -> Result<Map<String, Value>, String> {
        let mut config = self.constants;
        let Value::Object(mut answers) = answers else {
            return Err("the evaluation answered something else than fields".to_owned());
        };
        for field in self.sources.into_keys() {
            match answers.remove(&field) {
                Some(value) => config.insert(field, value),
                None => return Err(format!("the evaluation did not answer `{field}`")),
            };
        }
        Ok(config)
    }
}

// === impl References ===

impl References {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn merge(&mut self, other: Self) {
        self.outputs.extend(other.outputs);
        self.signals.extend(other.signals);
        self.secrets.extend(other.secrets);
        self.unknown.extend(other.unknown);
        self.all_outputs |= other.all_outputs;
        self.all_signals |= other.all_signals;
        self.all_secrets |= other.all_secrets;
    }

    /// Whether a new value of `signal` of `owner` makes the expression stale.
    pub fn follows(&self, owner: &str, signal: &str) -> bool {
        self.all_signals
            || self
                .signals
                .iter()
                .any(|(of, key)| of == owner && key.as_deref().is_none_or(|key| key == signal))
    }

    /// One sentence per reference that leads nowhere, each to be read after the
    /// name of a field.
    pub fn complaints(&self, around: &Surroundings<'_>) -> Vec<String> {
        let mut complaints = Vec::new();
        let speaks_of_outputs = self.all_outputs || !self.outputs.is_empty();
        match around.ancestors {
            None if speaks_of_outputs => complaints.push(
                "refers to `outputs`, which has no value where no event is handled".to_owned(),
            ),
            None => {}
            Some(ancestors) => {
                for name in self.outputs.difference(ancestors) {
                    let exists = around.blocks.is_none_or(|blocks| blocks.contains(name));
                    complaints.push(if exists {
                        format!("refers to block `{name}`, which is no ancestor")
                    } else {
                        format!("refers to block `{name}`, which does not exist")
                    });
                }
            }
        }
        if let Some(owners) = around.signal_owners {
            let unknown = self.signals.iter().map(|(owner, _)| owner);
            let unknown = unknown.filter(|owner| !owners.contains(*owner));
            complaints.extend(unknown.collect::<BTreeSet<_>>().into_iter().map(|owner| {
                format!("refers to signals of `{owner}`, which is no block of the flow and no app installation")
            }));
        }
        if let Some(secrets) = around.secrets {
            let unknown = self.secrets.difference(secrets);
            complaints.extend(
                unknown.map(|key| format!("refers to the secret `{key}`, which does not exist")),
            );
        }
        complaints.extend(self.unknown.iter().map(|what| {
            format!(
                "refers to `{what}`: a reference is \"signal.<block>.<signal>\", \"secret.<KEY>\" or \"output.<block>\""
            )
        }));
        complaints
    }
}

// === Dividing and scopes ===

/// Divides a config into what is known already and what a runtime must answer.
pub fn divide<'a>(config: impl IntoIterator<Item = (&'a String, &'a Expression)>) -> Divided {
    let mut divided = Divided::default();
    for (field, expression) in config {
        match (expression.constant(), expression) {
            (Some(value), _) => {
                divided.constants.insert(field.clone(), value);
            }
            (None, Expression::Source(source)) => {
                divided.references.merge(references(source));
                divided.sources.insert(field.clone(), source.clone());
            }
            (None, Expression::Constant(_)) => {}
        }
    }
    divided
}

/// The scope of an evaluation: of everything that exists, what the expressions
/// refer to, so that a secret goes only where it is used.
///
/// # Errors
///
/// A secret that does not exist, or more data than a job carries.
pub fn scope(references: &References, values: &Values<'_>) -> Result<Value, Error> {
    if let Some(missing) = references
        .secrets
        .iter()
        .find(|key| !values.secrets.contains_key(key.as_str()))
    {
        return Err(Error::NoSuchSecret(missing.clone()));
    }
    let outputs = values
        .outputs
        .iter()
        .filter(|(name, _)| references.all_outputs || references.outputs.contains(**name))
        .map(|(name, body)| ((*name).to_owned(), (*body).clone()))
        .collect::<Map<_, _>>();
    let mut signals = Map::new();
    for (&owner, &known) in &values.signals {
        let followed = known
            .iter()
            .filter(|(signal, _)| references.follows(owner, signal))
            .map(|(signal, value)| (signal.clone(), value.clone()))
            .collect::<Map<_, _>>();
        // A signal that is named is there even when it has no value yet: the
        // expression sees `null`, and the field decides whether that will do.
        let named = references.signals.iter().filter(|(of, _)| of == owner);
        let mut shown = followed;
        let mut is_named = false;
        for (_, signal) in named {
            is_named = true;
            if let Some(signal) = signal {
                shown.entry(signal.clone()).or_insert(Value::Null);
            }
        }
        if is_named || references.all_signals {
            signals.insert(owner.to_owned(), Value::Object(shown));
        }
    }
    let secrets = values
        .secrets
        .iter()
        .filter(|(key, _)| references.all_secrets || references.secrets.contains(**key))
        .map(|(key, value)| ((*key).to_owned(), Value::String((*value).to_owned())))
        .collect::<Map<_, _>>();
    let scope = json!({"outputs": outputs, "signals": signals, "secrets": secrets});
    let bytes = bytes_of(&scope);
    if bytes > SCOPE_BYTES_MAX {
        return Err(Error::ScopeTooLarge(bytes));
    }
    Ok(scope)
}

/// How many bytes `value` has as JSON, without writing it anywhere.
pub fn bytes_of(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and a value always has a JSON form.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// The value of a source that is a plain literal.
fn literal(source: &str) -> Option<Value> {
    let source = source.trim();
    let first = source.chars().next()?;
    match first {
        // In JavaScript this key of a literal is the prototype, not a property.
        '{' | '[' if source.contains("__proto__") => None,
        '{' | '[' | '"' | '-' | '0'..='9' | 't' | 'f' | 'n' => serde_json::from_str(source).ok(),
        '\'' | '`' => {
            let inner = source.strip_prefix(first)?.strip_suffix(first)?;
            let has_hole = first == '`' && inner.contains("${");
            let plain = !has_hole && !inner.contains([first, '\\', '\n', '\r']);
            plain.then(|| Value::String(inner.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
