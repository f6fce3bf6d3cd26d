//! What people are not shown of components: the values of config fields and
//! signals that their app marks as sensitive. Handlers get them, expressions may
//! use them, and definitions keep what was written in them; whoever only looks
//! sees [`MASK`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::gateway::engine::expressions::{Expression, References};
use crate::gateway::engine::run::Engine;
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::schema::{self, Field, Signal};
use crate::store::Error;
use crate::store::engine::components::Component;
use crate::store::engine::installations::Described;

/// Stands for a value; the log of a job says the same.
pub const MASK: &str = "[redacted]";

/// What is sensitive of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sensitive {
    /// Its code has not said, or no longer does: anything may be.
    Unknown,
    Known {
        fields: BTreeSet<String>,
        signals: BTreeSet<String>,
    },
}

// === impl Sensitive ===

impl Sensitive {
    fn of(fields: &BTreeMap<String, Field>, signals: &BTreeMap<String, Signal>) -> Self {
        let fields = fields.iter().filter(|(_, field)| field.sensitive);
        let signals = signals.iter().filter(|(_, signal)| signal.sensitive);
        Self::Known {
            fields: fields.map(|(key, _)| key.clone()).collect(),
            signals: signals.map(|(key, _)| key.clone()).collect(),
        }
    }

    fn has_field(&self, key: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Known { fields, .. } => fields.contains(key),
        }
    }

    fn has_signal(&self, key: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Known { signals, .. } => signals.contains(key),
        }
    }

    /// The evaluated config as people see it.
    pub fn config(&self, mut values: Map<String, Value>) -> Map<String, Value> {
        mask(&mut values, |key| self.has_field(key));
        values
    }

    /// Signals as people see them.
    pub fn signals(&self, mut values: Map<String, Value>) -> Map<String, Value> {
        mask(&mut values, |key| self.has_signal(key));
        values
    }

    /// Sources of fields as people see them: one that refers to something says
    /// where the value is and not what it is.
    pub fn sources(&self, mut sources: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let none = References::default();
        for (key, source) in &mut sources {
            if self.has_field(key) && Expression::from_source(source).references() == none {
                MASK.clone_into(source);
            }
        }
        sources
    }
}

/// What has no value shows that it has none.
fn mask(values: &mut Map<String, Value>, is_hidden: impl Fn(&str) -> bool) {
    for (key, value) in values {
        if !value.is_null() && is_hidden(key) {
            *value = MASK.into();
        }
    }
}

// === impl Engine ===

impl Engine {
    /// What is sensitive of an installation or a block.
    pub async fn sensitive(&self, component: &Component) -> Result<Sensitive, Error> {
        self.sensitive_at(component, None).await
    }

    /// The same with the fields of one of its inputs.
    async fn sensitive_at(
        &self,
        component: &Component,
        input: Option<&str>,
    ) -> Result<Sensitive, Error> {
        let installation = match (&component.flow, &component.installation) {
            (None, _) => &component.id,
            (Some(_), Some(installation)) => installation,
            // A core block: nothing of it is.
            (Some(_), None) => return Ok(Sensitive::of(&BTreeMap::new(), &BTreeMap::new())),
        };
        let Some(installation) = self.store.installation(installation).await? else {
            return Ok(Sensitive::Unknown);
        };
        let Some(app) = self.schema_of(&installation.digest).await? else {
            return Ok(Sensitive::Unknown);
        };
        if component.flow.is_none() {
            return Ok(Sensitive::of(&app.config, &app.signals));
        }
        let block = component.kind.as_ref().and_then(|it| app.blocks.get(it));
        let Some(block) = block else {
            return Ok(Sensitive::Unknown);
        };
        Ok(match input.map(|input| block.inputs.get(input)) {
            None => Sensitive::of(&block.config, &block.signals),
            Some(Some(input)) => Sensitive::of(&input.config, &block.signals),
            Some(None) => Sensitive::Unknown,
        })
    }

    pub(super) async fn schema_of(&self, digest: &str) -> Result<Option<Arc<schema::App>>, Error> {
        if let Some(held) = self.held_schema(digest) {
            return Ok(Some(held));
        }
        let Described::Schema(json) = self.store.described(digest).await? else {
            return Ok(None);
        };
        let Ok(app) = schema::App::read(json.as_bytes()) else {
            return Ok(None);
        };
        let app = Arc::new(app);
        self.hold_schema(digest, app.clone());
        Ok(Some(app))
    }

    /// The outcome of one of the engine's own jobs as people see it; `None`: as
    /// it is. Configs are evaluated by jobs, and a sync answers with signals.
    pub async fn outcome_shown(
        &self,
        purpose: &str,
        outcome: &[u8],
    ) -> Result<Option<Value>, Error> {
        let purpose = Purpose::read(purpose);
        let is_run = matches!(purpose, Some(Purpose::Run { .. }));
        let (component, input) = match purpose {
            Some(Purpose::Config { component, .. } | Purpose::Run { component, .. }) => {
                (component, None)
            }
            Some(Purpose::Inputs { delivery }) => match self.store.delivery(delivery).await? {
                Some(delivery) => (delivery.block, Some(delivery.input)),
                None => (String::new(), None),
            },
            _ => return Ok(None),
        };
        let sensitive = match self.store.component(&component).await? {
            Some(component) => self.sensitive_at(&component, input.as_deref()).await?,
            None => Sensitive::Unknown,
        };
        let mut outcome: Value = serde_json::from_slice(outcome).unwrap_or_default();
        let masked = match is_run {
            true => outcome.pointer_mut("/result/signalUpdates"),
            false => outcome.get_mut("result"),
        };
        if let Some(values) = masked.and_then(Value::as_object_mut) {
            match is_run {
                true => mask(values, |key| sensitive.has_signal(key)),
                false => mask(values, |key| sensitive.has_field(key)),
            }
        }
        Ok(Some(outcome))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn what_is_sensitive_is_masked_and_nothing_else() {
        let marked = json!({"token": {"sensitive": true, "type": {}}, "host": {"type": {}}});
        let fields = serde_json::from_value(marked.clone()).expect("fields");
        let signals = serde_json::from_value(marked).expect("signals");
        let known = Sensitive::of(&fields, &signals);
        let values = map(json!({"token": {"a": 1}, "host": "h"}));
        let masked = map(json!({"token": MASK, "host": "h"}));
        assert_eq!(known.config(values.clone()), masked);
        assert_eq!(known.signals(values.clone()), masked);
        let all = map(json!({"token": MASK, "host": MASK}));
        assert_eq!(Sensitive::Unknown.config(values), all);
        let none = map(json!({"token": null}));
        assert_eq!(known.config(none.clone()), none);
    }

    #[test]
    fn a_source_that_refers_to_something_is_shown() {
        let fields = json!({"token": {"sensitive": true, "type": {}}, "host": {"type": {}}});
        let fields = serde_json::from_value(fields).expect("fields");
        let known = Sensitive::of(&fields, &BTreeMap::new());
        for (field, source, shown) in [
            ("token", "\"s3cret\"", MASK),
            ("token", "'s3cret'", MASK),
            ("token", "12345", MASK),
            ("token", "['s3', 'cret'].join('')", MASK),
            ("token", "secrets.TOKEN", "secrets.TOKEN"),
            ("host", "\"h\"", "\"h\""),
        ] {
            let sources = BTreeMap::from([(field.to_owned(), source.to_owned())]);
            assert_eq!(known.sources(sources)[field], shown, "{source}");
        }
    }
}
