//! Flows: made, applied, planned, exported, removed; and events from outside.
//!
//! A definition that does not fit changes nothing. What fits is applied in one
//! step: blocks come, change and go with their lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::gateway::directory::new_id;
use crate::gateway::engine::component::{Abilities, Effect, Event, Owner, State, Status};
use crate::gateway::engine::definition::check::{Checked, Project, check};
use crate::gateway::engine::definition::plan::{OperationType, Plan, plan};
use crate::gateway::engine::definition::{Block, Definition, Kind, export};
use crate::gateway::engine::events::lineage::Own;
use crate::gateway::engine::events::{EVENT_BODY_BYTES_MAX, Lineage};
use crate::gateway::engine::names;
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::engine::schema;
use crate::store::engine::components::{self, Component};
use crate::store::engine::events::{self as rows, Event as EventRow};
use crate::store::engine::flows::{self, Flow};
use crate::store::engine::installations::{self, Described, Installation};
use crate::store::engine::secrets;

/// `appInstallationMapping`: key in the definition → id of the installation.
pub type Mapping = BTreeMap<String, String>;

/// What applying a definition did.
#[derive(Debug, Clone)]
pub struct Applied {
    pub plan: Plan,
}

/// Without any block.
const EMPTY: &str = "appInstallations: {}\nblocks: []\n";

// === impl Engine ===

impl Engine {
    /// Makes an empty flow; answers its id.
    pub async fn create_flow(
        self: &Arc<Self>,
        project: String,
        name: String,
    ) -> Result<String, Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let flow = Flow {
                    id: new_id(),
                    project,
                    name,
                    definition: EMPTY.to_owned(),
                    revision: new_id(),
                    created_ms: step.now_ms,
                };
                flows::insert(step.tx, &flow).await?;
                Ok(flow.id)
            })
        })
        .await
    }

    pub async fn rename_flow(self: &Arc<Self>, id: String, name: String) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                step.flow(&id).await?;
                Ok(flows::rename(step.tx, &id, &name).await?)
            })
        })
        .await
    }

    /// Brings a flow to a definition, whole or not at all.
    pub async fn apply_flow(
        self: &Arc<Self>,
        id: String,
        definition: String,
        mapping: Mapping,
    ) -> Result<Applied, Fault> {
        self.step(move |step| {
            Box::pin(async move { step.apply_flow(&id, &definition, &mapping).await })
        })
        .await
    }

    /// What applying would do.
    pub async fn plan_flow(
        self: &Arc<Self>,
        id: String,
        definition: String,
        mapping: Mapping,
    ) -> Result<Plan, Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let (plan, ..) = step.plan_flow(&id, &definition, &mapping).await?;
                Ok(plan)
            })
        })
        .await
    }

    /// The flow as text; applying it plans nothing.
    pub async fn export_flow(self: &Arc<Self>, id: String) -> Result<String, Fault> {
        self.step(move |step| Box::pin(async move { Ok(step.flow(&id).await?.definition) }))
            .await
    }

    /// Removes a flow. Blocks that have to drain go on doing so.
    pub async fn delete_flow(self: &Arc<Self>, id: String) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                step.flow(&id).await?;
                for mut block in components::of_flow(step.tx, &id).await? {
                    step.delete_component(&mut block).await?;
                }
                step.look_anew();
                Ok(flows::delete(step.tx, &id).await?)
            })
        })
        .await
    }

    pub async fn confirm_block(self: &Arc<Self>, id: String) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let block = components::get(step.tx, &id).await?;
                let block = block.filter(|block| block.flow.is_some());
                let mut block = block.ok_or_else(|| Fault::Missing(format!("block {id}")))?;
                step.confirm(&mut block).await
            })
        })
        .await
    }

    /// Brings an event from outside to an input of a block, by its id or name;
    /// answers the event's id.
    pub async fn trigger(
        self: &Arc<Self>,
        flow: String,
        block: String,
        input: String,
        body: Value,
    ) -> Result<String, Fault> {
        let text = body.to_string();
        if text.len() > EVENT_BODY_BYTES_MAX {
            return Err(Fault::Bad(format!(
                "the body of the event has {} bytes, more than {EVENT_BODY_BYTES_MAX}",
                text.len()
            )));
        }
        self.step(move |step| {
            Box::pin(async move { step.trigger(&flow, &block, &input, text).await })
        })
        .await
    }

    /// Does a failed delivery once more.
    pub async fn replay(self: &Arc<Self>, delivery: i64) -> Result<(), Fault> {
        self.step(move |step| Box::pin(async move { step.replay(delivery).await }))
            .await
    }
}

// === impl Step ===

impl Step<'_> {
    pub(super) async fn flow(&mut self, id: &str) -> Result<Flow, Fault> {
        let flow = flows::get(self.tx, id).await?;
        flow.ok_or_else(|| Fault::Missing(format!("flow {id}")))
    }

    async fn plan_flow(
        &mut self,
        id: &str,
        definition: &str,
        mapping: &Mapping,
    ) -> Result<(Plan, Flow, Definition, Checked), Fault> {
        let flow = self.flow(id).await?;
        let bad =
            |faults: crate::gateway::engine::definition::Faults| Fault::Bad(faults.to_string());
        let current = Definition::parse(&flow.definition).map_err(bad)?;
        let wanted = Definition::parse(definition).map_err(bad)?.mapped(mapping);
        let checked = self.check_flow(&flow, &wanted).await?;
        Ok((plan(&current, &wanted), flow, wanted, checked))
    }

    async fn check_flow(&mut self, flow: &Flow, wanted: &Definition) -> Result<Checked, Fault> {
        let installed = installations::of_project(self.tx, &flow.project).await?;
        let used: BTreeSet<&str> = wanted
            .installations
            .values()
            .filter_map(|installation| installation.id.as_deref())
            .collect();
        let mut schemas = Vec::new();
        for installation in &installed {
            match self.schema(&installation.digest).await? {
                Some(app) => schemas.push((installation.id.as_str(), app)),
                None if used.contains(installation.id.as_str()) => {
                    return Err(self.undescribed(installation).await?);
                }
                None => {}
            }
        }
        let keys = secrets::values(self.tx, &flow.project).await?.into_keys();
        let project = Project {
            installations: schemas.iter().map(|(id, app)| (*id, &**app)).collect(),
            signal_owners: installed
                .iter()
                .map(|installation| names::accessor(&installation.name))
                .collect(),
            secrets: Some(keys.collect()),
        };
        check(wanted, &project).map_err(|faults| Fault::Bad(faults.to_string()))
    }

    /// Why nothing is known of the blocks of an installation.
    async fn undescribed(&mut self, installation: &Installation) -> Result<Fault, Fault> {
        let name = &installation.name;
        let known = installations::described(self.tx, &installation.digest).await?;
        Ok(match known {
            Described::Error(error) => Fault::Bad(format!(
                "the code of app installation `{name}` cannot say which blocks it has: {error}"
            )),
            _ => Fault::Undescribed(format!(
                "app installation `{name}` has not said yet which blocks it has: wait until an agent of its pool has described it"
            )),
        })
    }

    async fn apply_flow(
        &mut self,
        id: &str,
        definition: &str,
        mapping: &Mapping,
    ) -> Result<Applied, Fault> {
        let (plan, flow, mut wanted, checked) = self.plan_flow(id, definition, mapping).await?;
        if plan.is_empty() {
            return Ok(Applied { plan });
        }
        let current = Definition::parse(&flow.definition).unwrap_or_default();
        keep_positions(&current, &mut wanted);
        flows::define(self.tx, id, &export(&wanted), &new_id()).await?;
        self.look_anew();
        let mut blocks: BTreeMap<String, Component> = components::of_flow(self.tx, id)
            .await?
            .into_iter()
            .filter(|block| block.state["deleting"] != true)
            .map(|block| (block.name.clone(), block))
            .collect();
        let mut made = Vec::new();
        for operation in &plan.operations {
            let name = &operation.block;
            let is_gone = matches!(
                operation.kind,
                OperationType::DeleteBlock | OperationType::ReplaceBlock
            );
            if is_gone && let Some(mut block) = blocks.remove(name) {
                self.delete_component(&mut block).await?;
            }
            let is_new = matches!(
                operation.kind,
                OperationType::CreateBlock | OperationType::ReplaceBlock
            );
            if is_new && let Some(block) = wanted.block(name) {
                let schema = checked.schemas.get(name).cloned().unwrap_or_default();
                made.push(self.create_block(&flow, &wanted, block, &schema).await?);
            }
            if operation.kind == OperationType::UpdateBlock
                && operation.config_changed
                && let Some(block) = blocks.get(name)
            {
                self.refresh(&block.id.clone(), Event::ConfigChanged)
                    .await?;
            }
        }
        // What was read of the flow meanwhile does not know the new blocks.
        flows::touch(self.tx, id, &new_id()).await?;
        self.look_anew();
        for (mut block, state, effects) in made {
            if state.status != Status::Draft {
                self.evaluate_config(&mut block).await?;
            }
            self.become_(&mut block, &state, effects).await?;
        }
        Ok(Applied { plan })
    }

    /// A new block, and the start of its life.
    async fn create_block(
        &mut self,
        flow: &Flow,
        definition: &Definition,
        block: &Block,
        schema: &schema::Block,
    ) -> Result<(Component, State, Vec<Effect>), Fault> {
        let (kind, abilities) = match &block.kind {
            Kind::Core(core) => (core.name().to_owned(), Abilities::default()),
            Kind::App { block, .. } => (block.clone(), Abilities::from(schema.handlers)),
        };
        // Without onSync there is no life cycle, and nothing to confirm.
        let confirmed = schema.autoconfirm || !abilities.sync;
        let (state, effects) = State::created(Owner::Block, abilities, confirmed);
        let component = Component {
            id: new_id(),
            project: flow.project.clone(),
            flow: Some(flow.id.clone()),
            installation: definition.installation_of(block).map(str::to_owned),
            kind: Some(kind),
            name: block.name.clone(),
            state: serde_json::to_value(&state).unwrap_or_default(),
            vals: None,
            config_number: 0,
            config_busy: false,
            config_error: None,
            started_run: 0,
            signals: Map::new(),
            outputs: json!({}),
            widget: None,
            created_ms: self.now_ms,
        };
        components::put(self.tx, &component).await?;
        Ok((component, state, effects))
    }

    async fn trigger(
        &mut self,
        flow: &str,
        block: &str,
        input: &str,
        body: String,
    ) -> Result<String, Fault> {
        let canvas = self.canvas(flow).await?;
        let canvas = canvas.ok_or_else(|| Fault::Missing(format!("flow {flow}")))?;
        let node = canvas
            .find(block)
            .ok_or_else(|| Fault::Missing(format!("block {block}")))?;
        if !node.schema.inputs.contains_key(input) {
            let known: Vec<_> = node.schema.inputs.keys().map(String::as_str).collect();
            return Err(Fault::Bad(format!(
                "block `{}` has no input `{input}`; it has: {}",
                node.name,
                known.join(", ")
            )));
        }
        let id = new_id();
        let own = Own {
            event: &id,
            block: "",
            accessor: "",
            echo: false,
        };
        let lineage = Lineage::of(&own, None, &[]).map_err(Fault::Bad)?;
        let event = EventRow {
            seq: 0,
            id: id.clone(),
            flow: flow.to_owned(),
            block: None,
            output: None,
            body,
            parent: None,
            secondary: None,
            lineage: serde_json::to_string(&lineage).unwrap_or_default(),
            echo: false,
            state: rows::State::Sent,
            error: None,
            job: None,
            fingerprint: None,
            created_ms: self.now_ms,
        };
        rows::insert(self.tx, &event).await?;
        let target = node.id.clone();
        self.deliver(&canvas, &id, &lineage, &target, input).await?;
        Ok(id)
    }
}

/// A definition that places nothing leaves blocks where they are.
fn keep_positions(current: &Definition, wanted: &mut Definition) {
    for block in &mut wanted.blocks {
        if block.position.is_none() {
            block.position = current.block(&block.name).and_then(|known| known.position);
        }
    }
}
