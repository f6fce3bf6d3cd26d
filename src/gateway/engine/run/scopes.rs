//! What expressions see: of everything that exists, what they refer to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::gateway::engine::events::Lineage;
use crate::gateway::engine::expressions::{Error, References, Values, scope};
use crate::gateway::engine::names;
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::canvas::Canvas;
use crate::gateway::engine::run::step::Step;
use crate::store::engine::{components, events, installations, secrets};

/// Where an evaluation looks.
pub(super) struct View<'a> {
    pub project: &'a str,
    pub canvas: Option<&'a Canvas>,
    /// Of the event that is handled or emitted.
    pub lineage: Option<&'a Lineage>,
}

// === impl Step ===

impl Step<'_> {
    /// The scope for expressions with these references, or why there is none.
    pub(super) async fn scope(
        &mut self,
        references: &References,
        view: &View<'_>,
    ) -> Result<Result<Value, Error>, Fault> {
        let outputs = self.outputs(references, view).await?;
        let signals = self.signals(references, view).await?;
        let mut secrets = BTreeMap::new();
        if references.all_secrets || !references.secrets.is_empty() {
            for (key, kept) in secrets::values(self.tx, view.project).await? {
                if !references.all_secrets && !references.secrets.contains(&key) {
                    continue;
                }
                let value = self.engine.sealing.open(view.project, &key, &kept);
                let value = value.map_err(|error| Fault::Conflict(error.to_string()))?;
                secrets.insert(key, value);
            }
        }
        let values = Values {
            outputs: outputs.iter().map(|(k, v)| (k.as_str(), v)).collect(),
            signals: signals.iter().map(|(k, v)| (k.as_str(), v)).collect(),
            secrets: secrets
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect(),
        };
        Ok(scope(references, &values))
    }

    async fn outputs(
        &mut self,
        references: &References,
        view: &View<'_>,
    ) -> Result<BTreeMap<String, Value>, Fault> {
        let mut outputs = BTreeMap::new();
        let Some(lineage) = view.lineage else {
            return Ok(outputs);
        };
        for (accessor, event) in &lineage.outputs {
            if (references.all_outputs || references.outputs.contains(accessor))
                && let Some(body) = events::body(self.tx, event).await?
            {
                outputs.insert(accessor.clone(), body);
            }
        }
        Ok(outputs)
    }

    async fn signals(
        &mut self,
        references: &References,
        view: &View<'_>,
    ) -> Result<BTreeMap<String, Map<String, Value>>, Fault> {
        let mut signals = BTreeMap::new();
        if references.signals.is_empty() && !references.all_signals {
            return Ok(signals);
        }
        let installed = installations::of_project(self.tx, view.project).await?;
        let mut owners = BTreeMap::<String, String>::new();
        for installation in &installed {
            owners.insert(names::accessor(&installation.name), installation.id.clone());
        }
        let mut wanted: BTreeSet<String> = references
            .signals
            .iter()
            .map(|(owner, _)| owner.clone())
            .collect();
        if references.all_signals {
            wanted.extend(owners.keys().cloned());
            if let Some(canvas) = view.canvas {
                wanted.extend(canvas.nodes.values().map(|node| node.accessor.clone()));
            }
        }
        for accessor in wanted {
            // A block hides an installation of the same name: it is nearer.
            let block = view
                .canvas
                .and_then(|canvas| canvas.signal_owner(&accessor))
                .map(|node| node.id.as_str());
            let named = view
                .canvas
                .and_then(|canvas| canvas.installation_called(&accessor));
            let owner = block
                .or(named)
                .or_else(|| owners.get(&accessor).map(String::as_str));
            let component = match owner {
                Some(owner) => components::get(self.tx, owner).await?,
                None => None,
            };
            if let Some(component) = component {
                signals.insert(accessor, component.signals);
            }
        }
        Ok(signals)
    }
}
