//! Recognising what a retried attempt says again.
//!
//! A job may run twice: its worker died after half of its emissions, and the
//! next attempt emits them once more. What the job has emitted is a multiset of
//! fingerprints; an attempt that says a fingerprint for the n-th time repeats
//! the n-th event recorded for it, if there is one, and makes a new one if not.
//!
//! ```text
//!  recorded by attempt 1:   a#1  b#2  a#3
//!  said by attempt 2:       a → #1,  a → #3,  a → new #4,  b → #2
//! ```
//!
//! The order in which an attempt emits does not matter, so concurrent calls may
//! change places. A body that differs each time (a clock, a random number) is
//! another event: delivery is at least once, and here it shows.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// What an emission says, in 32 bytes: its output, its body and its options.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

/// What older attempts of a job have emitted, and what of it the current one
/// has repeated. Made anew for each attempt.
#[derive(Debug, Clone, Default)]
pub struct Repeats {
    recorded: BTreeMap<Fingerprint, Vec<String>>,
    said: BTreeMap<Fingerprint, usize>,
}

// === impl Fingerprint ===

impl Fingerprint {
    /// `options` as the app gave them: what the engine adds (the handled event
    /// as the parent) is the same for every attempt of a job.
    pub fn of(call: &str, output: &str, body: &Value, options: &Map<String, Value>) -> Self {
        let mut hash = Sha256::new();
        text(&mut hash, call);
        text(&mut hash, output);
        value(&mut hash, body);
        for key in [
            "parentEventId",
            "secondaryParentEventIds",
            "echo",
            "complete",
            "statusDescription",
        ] {
            value(&mut hash, options.get(key).unwrap_or(&Value::Null));
        }
        let digest = hash.finalize();
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// 64 hexadecimal digits, to be stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Fingerprint {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Repeats ===

impl Repeats {
    /// `recorded` are the events of the job in the order they were recorded;
    /// `said` the fingerprints that the current attempt has said already, when
    /// this is made in the middle of it (after a restart of the gateway).
    pub fn new(
        recorded: impl IntoIterator<Item = (Fingerprint, String)>,
        said: impl IntoIterator<Item = Fingerprint>,
    ) -> Self {
        let mut repeats = Self::default();
        for (fingerprint, event) in recorded {
            repeats.recorded.entry(fingerprint).or_default().push(event);
        }
        for fingerprint in said {
            *repeats.said.entry(fingerprint).or_default() += 1;
        }
        repeats
    }

    /// The event that this emission repeats, or nothing when it is a new one:
    /// then [`Repeats::record`] follows.
    pub fn say(&mut self, fingerprint: &Fingerprint) -> Option<String> {
        let said = self.said.entry(fingerprint.clone()).or_default();
        let repeated = nth(self.recorded.get(fingerprint).map(Vec::as_slice), *said);
        *said += 1;
        repeated.map(str::to_owned)
    }

    /// A new event that the current attempt has said.
    pub fn record(&mut self, fingerprint: Fingerprint, event: String) {
        self.recorded.entry(fingerprint).or_default().push(event);
    }
}

/// The rule for callers that count in the store: `recorded` are the events of
/// the job with one fingerprint, `said` how often the current attempt has said
/// it before.
pub fn nth<E: AsRef<str>>(recorded: Option<&[E]>, said: usize) -> Option<&str> {
    recorded
        .and_then(|events| events.get(said))
        .map(AsRef::as_ref)
}

// === Hashing ===

fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// Keys in order, so that two objects that are equal hash equally.
fn value(hash: &mut Sha256, of: &Value) {
    match of {
        Value::Null => hash.update(b"n"),
        Value::Bool(true) => hash.update(b"t"),
        Value::Bool(false) => hash.update(b"f"),
        Value::Number(number) => {
            hash.update(b"#");
            text(hash, &number.to_string());
        }
        Value::String(string) => {
            hash.update(b"s");
            text(hash, string);
        }
        Value::Array(items) => {
            hash.update(b"[");
            hash.update((items.len() as u64).to_le_bytes());
            for item in items {
                value(hash, item);
            }
        }
        Value::Object(object) => {
            hash.update(b"{");
            hash.update((object.len() as u64).to_le_bytes());
            let mut keys = object.keys().collect::<Vec<_>>();
            keys.sort();
            for key in keys {
                text(hash, key);
                value(hash, &object[key]);
            }
        }
    }
}
