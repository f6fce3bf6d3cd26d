//! A flow as the engine looks at it: blocks by id, where their events go, and
//! their configs divided into constants and sources. Kept in memory; the
//! revision says whether it is still true.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::gateway::engine::core_blocks::Core;
use crate::gateway::engine::definition::{Block, Definition, Kind};
use crate::gateway::engine::events::Target;
use crate::gateway::engine::expressions::{Divided, Expression, divide};
use crate::gateway::engine::graph::signal_owners;
use crate::gateway::engine::names;
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::schema;
use crate::store::engine::components::Component;
use crate::store::engine::installations::{self, Described};
use crate::store::engine::{components, flows};

pub(super) struct Canvas {
    pub id: String,
    pub project: String,
    pub revision: String,
    pub definition: Definition,
    /// By id.
    pub nodes: HashMap<String, Node>,
    /// Id by name.
    pub ids: HashMap<String, String>,
    /// Id by the accessor that signals are called by.
    owners: HashMap<String, String>,
}

/// One block.
pub(super) struct Node {
    pub id: String,
    pub name: String,
    pub accessor: String,
    pub description: Option<String>,
    pub what: What,
    pub schema: schema::Block,
    pub config: Divided,
    pub inputs: BTreeMap<String, Divided>,
    pub customizations: BTreeMap<String, Expression>,
    /// By output.
    targets: BTreeMap<String, Vec<Target>>,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Core(Core),
    App {
        /// Key of the block type.
        block: String,
        installation: String,
    },
    /// Its installation does not exist: it can be drawn and not run.
    Orphan,
}

// === impl Canvas ===

impl Canvas {
    /// A block by its id or its name.
    pub(super) fn find(&self, name: &str) -> Option<&Node> {
        self.nodes
            .get(name)
            .or_else(|| self.nodes.get(self.ids.get(name)?))
    }

    /// The block whose signals `signals.<accessor>` means.
    pub(super) fn signal_owner(&self, accessor: &str) -> Option<&Node> {
        self.nodes.get(self.owners.get(accessor)?)
    }

    /// The installation that a definition calls so.
    pub(super) fn installation_called(&self, accessor: &str) -> Option<&str> {
        let mut keys = self.definition.installations.iter();
        let (_, installation) =
            keys.find(|(key, _)| *key == accessor || names::accessor(key) == accessor)?;
        installation.id.as_deref()
    }
}

// === impl Node ===

impl Node {
    /// Where an event at `output` goes: ids of blocks, and inputs.
    pub(super) fn targets(&self, output: &str) -> &[Target] {
        self.targets.get(output).map_or(&[], Vec::as_slice)
    }
}

// === impl Step ===

impl Step<'_> {
    /// The flow as this transaction sees it.
    pub(super) async fn canvas(&mut self, flow: &str) -> Result<Option<Arc<Canvas>>, Fault> {
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.id == flow) {
            return Ok(Some(seen.clone()));
        }
        let canvas = self.canvas_of_revision(flow).await?;
        self.seen.clone_from(&canvas);
        Ok(canvas)
    }

    /// What changes a flow's revision is followed by this.
    pub(super) fn look_anew(&mut self) {
        self.seen = None;
    }

    async fn canvas_of_revision(&mut self, flow: &str) -> Result<Option<Arc<Canvas>>, Fault> {
        let Some(revision) = flows::revision(self.tx, flow).await? else {
            return Ok(None);
        };
        let held = self.engine.held_canvas(flow);
        if let Some(held) = held.filter(|held| held.revision == revision) {
            return Ok(Some(held));
        }
        let Some(row) = flows::get(self.tx, flow).await? else {
            return Ok(None);
        };
        let definition = Definition::parse(&row.definition)
            .map_err(|faults| Fault::Conflict(format!("the stored flow {flow}: {faults}")))?;
        let blocks = components::of_flow(self.tx, flow).await?;
        let ids: HashMap<String, String> = blocks
            .iter()
            .filter(|block| !is_leaving(block))
            .map(|block| (block.name.clone(), block.id.clone()))
            .collect();
        let mut targets = targets_of(&definition, &ids);
        let mut nodes = HashMap::new();
        for block in &definition.blocks {
            let Some(id) = ids.get(&block.name) else {
                continue;
            };
            let (what, schema) = self.what(&definition, block).await?;
            let node = Node {
                id: id.clone(),
                name: block.name.clone(),
                accessor: names::accessor(&block.name),
                description: block.description.clone(),
                what,
                schema,
                config: divide(&block.config),
                inputs: divide_inputs(block),
                customizations: block.outputs.clone(),
                targets: targets.remove(&block.name).unwrap_or_default(),
            };
            nodes.insert(id.clone(), node);
        }
        let owners = signal_owners(&definition).into_iter();
        let owners = owners.filter_map(|(accessor, name)| Some((accessor, ids.get(name)?.clone())));
        let canvas = Arc::new(Canvas {
            owners: owners.collect(),
            id: row.id,
            project: row.project,
            revision: row.revision,
            definition,
            nodes,
            ids,
        });
        self.engine.hold_canvas(canvas.clone());
        Ok(Some(canvas))
    }

    async fn what(
        &mut self,
        definition: &Definition,
        block: &Block,
    ) -> Result<(What, schema::Block), Fault> {
        let key = match &block.kind {
            Kind::Core(core) => return Ok((What::Core(*core), core.schema().clone())),
            Kind::App { block, .. } => block,
        };
        if let Some(id) = definition.installation_of(block)
            && let Some(installation) = installations::get(self.tx, id).await?
            && let Some(app) = self.schema(&installation.digest).await?
            && let Some(schema) = app.blocks.get(key)
        {
            let what = What::App {
                block: key.clone(),
                installation: installation.id,
            };
            return Ok((what, schema.clone()));
        }
        let embedded = match &block.kind {
            Kind::App {
                schema: Some(schema),
                ..
            } => schema::Block::read(schema.as_bytes()).unwrap_or_default(),
            _ => schema::Block::default(),
        };
        Ok((What::Orphan, embedded))
    }

    /// What a bundle says about itself, once it has.
    pub(super) async fn schema(&mut self, digest: &str) -> Result<Option<Arc<schema::App>>, Fault> {
        if let Some(held) = self.engine.held_schema(digest) {
            return Ok(Some(held));
        }
        let Described::Schema(json) = installations::described(self.tx, digest).await? else {
            return Ok(None);
        };
        let Ok(app) = schema::App::read(json.as_bytes()) else {
            return Ok(None);
        };
        let app = Arc::new(app);
        self.engine.hold_schema(digest, app.clone());
        Ok(Some(app))
    }
}

fn divide_inputs(block: &Block) -> BTreeMap<String, Divided> {
    let inputs = block.inputs.iter();
    inputs
        .map(|(key, input)| (key.clone(), divide(&input.config)))
        .collect()
}

/// For each block and output the inputs that its events go to. Blocks that are
/// switched off neither send nor get any.
fn targets_of(
    definition: &Definition,
    ids: &HashMap<String, String>,
) -> HashMap<String, BTreeMap<String, Vec<Target>>> {
    let active = definition.blocks.iter().filter(|block| block.active);
    let active: HashMap<&str, &Block> = active.map(|block| (block.name.as_str(), block)).collect();
    let mut targets = HashMap::<String, BTreeMap<String, Vec<Target>>>::new();
    for block in active.values() {
        let Some(id) = ids.get(&block.name) else {
            continue;
        };
        for (key, input) in &block.inputs {
            for link in &input.links {
                if !active.contains_key(link.block.as_str()) {
                    continue;
                }
                let of_block = targets.entry(link.block.clone()).or_default();
                of_block
                    .entry(link.output.clone())
                    .or_default()
                    .push(Target {
                        block: id.clone(),
                        input: key.clone(),
                    });
            }
        }
    }
    let lists = targets.values_mut().flat_map(BTreeMap::values_mut);
    lists.for_each(|list| list.sort());
    targets
}

/// Whether a block is no longer in its flow's definition.
pub(super) fn is_leaving(component: &Component) -> bool {
    component.state["deleting"] == true
}
