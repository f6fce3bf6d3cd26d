//! Whether a definition fits the apps, the secrets and itself.
//!
//! Every complaint names block, place and reason, and all are made at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Block, Definition, Fault, Faults, Kind};
use crate::gateway::engine::core_blocks::{Core, schedule_of};
use crate::gateway::engine::expressions::{Expression, Surroundings, divide};
use crate::gateway::engine::graph::{Graph, Passing, signal_cycle};
use crate::gateway::engine::names;
use crate::gateway::engine::schema;

/// What exists around the flow.
#[derive(Debug, Clone, Default)]
pub struct Project<'a> {
    /// Schemas of the installed apps by the id of the installation. An id that
    /// is missing does not exist in the project.
    pub installations: BTreeMap<&'a str, &'a schema::App>,
    /// Accessors of the project's installations, for their signals.
    pub signal_owners: BTreeSet<String>,
    /// Keys of the project's secrets; `None` does not judge them.
    pub secrets: Option<BTreeSet<String>>,
}

/// A definition that fits, with the schema of each block.
#[derive(Debug, Clone)]
pub struct Checked {
    /// By block name.
    pub schemas: BTreeMap<String, schema::Block>,
    /// Blocks that have the schema of the definition alone, because their
    /// installation does not exist: they can be drawn and not run.
    pub without_installation: BTreeSet<String>,
    /// Required fields without a value. Published definitions have such, so they
    /// are told and not refused: the block fails when the value is needed.
    pub incomplete: Vec<Fault>,
}

/// # Errors
///
/// Everything that does not fit, blocks in the order of the text.
pub fn check(definition: &Definition, project: &Project<'_>) -> Result<Checked, Faults> {
    let mut faults = Vec::new();
    let mut schemas = BTreeMap::new();
    let mut without_installation = BTreeSet::new();
    for block in &definition.blocks {
        match schema_of(definition, block, project) {
            Ok((schema, installed)) => {
                schemas.insert(block.name.clone(), schema);
                if !installed {
                    without_installation.insert(block.name.clone());
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    let accessors = definition.blocks.iter();
    let accessors = accessors.map(|block| names::accessor(&block.name));
    let mut check = Check {
        definition,
        schemas: &schemas,
        graph: Graph::of(definition),
        signal_owners: project.signal_owners.clone(),
        accessors: accessors.collect(),
        secrets: project.secrets.as_ref(),
        faults,
        incomplete: Vec::new(),
    };
    check.signal_owners.extend(check.accessors.iter().cloned());
    let keys = definition.installations.keys();
    check
        .signal_owners
        .extend(keys.map(|key| names::accessor(key)));
    check
        .signal_owners
        .extend(definition.installations.keys().cloned());
    for block in &definition.blocks {
        check.block(block);
    }
    check.cycles();
    let Check {
        faults, incomplete, ..
    } = check;
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    Ok(Checked {
        schemas,
        without_installation,
        incomplete,
    })
}

/// The schema of a block, and whether its installation exists.
fn schema_of(
    definition: &Definition,
    block: &Block,
    project: &Project<'_>,
) -> Result<(schema::Block, bool), Fault> {
    let fault = |why: String| Err(Fault::of(&block.name, "`type`", why));
    let (key, installation, embedded) = match &block.kind {
        Kind::Core(core) => return Ok((core.schema().clone(), true)),
        Kind::App {
            block,
            installation,
            schema,
        } => (block, installation, schema),
    };
    if !definition.installations.contains_key(installation) {
        return fault(format!(
            "app installation `{installation}` is not in `appInstallations`"
        ));
    }
    let id = definition.installation_of(block);
    if let Some(app) = id.and_then(|id| project.installations.get(id)) {
        return match app.blocks.get(key) {
            Some(schema) => Ok((schema.clone(), true)),
            None => fault(format!(
                "app installation `{installation}` has no block type `{key}`"
            )),
        };
    }
    match (embedded, id) {
        (Some(embedded), _) => match schema::Block::read(embedded.as_bytes()) {
            Ok(schema) => Ok((schema, false)),
            Err(error) => fault(error.to_string()),
        },
        (None, Some(id)) => fault(format!(
            "app installation `{installation}` ({id}) not found"
        )),
        (None, None) => fault(format!(
            "app installation `{installation}` has no id: give it one in the definition or in the mapping"
        )),
    }
}

struct Check<'a> {
    definition: &'a Definition,
    schemas: &'a BTreeMap<String, schema::Block>,
    graph: Graph<'a>,
    signal_owners: BTreeSet<String>,
    /// Of all blocks.
    accessors: BTreeSet<String>,
    secrets: Option<&'a BTreeSet<String>>,
    faults: Vec<Fault>,
    incomplete: Vec<Fault>,
}

/// One config of a block, where it stands, and what its expressions may see.
struct Section<'a> {
    block: &'a Block,
    /// `""`, or ``input `default`, ``.
    of: String,
    ancestors: Option<&'a BTreeSet<String>>,
}

// === impl Check ===

impl Check<'_> {
    fn block(&mut self, block: &Block) {
        let ancestors = self.graph.ancestor_accessors(&block.name);
        let Some(schema) = self.schemas.get(&block.name) else {
            return;
        };
        let statics = Section {
            block,
            of: String::new(),
            ancestors: None,
        };
        self.config(&statics, &block.config, &schema.config);
        self.schedule(block);
        for (key, input) in &block.inputs {
            let of = format!("input `{key}`");
            let Some(declared) = schema.inputs.get(key) else {
                let why = format!(
                    "there is no such input; there {}",
                    list(schema.inputs.keys())
                );
                self.faults.push(Fault::of(&block.name, &of, why));
                continue;
            };
            for link in &input.links {
                self.link(block, &of, link);
            }
            let section = Section {
                block,
                of: format!("{of}, "),
                ancestors: Some(&ancestors),
            };
            // Nothing comes in at an input that is not linked, so nothing is missing there.
            if input.links.is_empty() {
                self.given(&section, &input.config, &declared.config);
            } else {
                self.config(&section, &input.config, &declared.config);
            }
        }
        self.outputs(block, schema, &ancestors);
    }

    /// A schedule that is known now is judged now.
    fn schedule(&mut self, block: &Block) {
        if block.kind != Kind::Core(Core::Schedule) {
            return;
        }
        let divided = divide(&block.config);
        if divided.sources.is_empty()
            && let Err(error) = schedule_of(&divided.constants)
        {
            let fault = Fault::of(&block.name, "`config`", error.to_string());
            self.faults.push(fault);
        }
    }

    /// Fields that are given and fields that are missing.
    fn config(
        &mut self,
        section: &Section<'_>,
        config: &BTreeMap<String, Expression>,
        declared: &BTreeMap<String, schema::Field>,
    ) {
        self.given(section, config, declared);
        for (field, declared) in declared {
            if declared.required && declared.default.is_none() && !config.contains_key(field) {
                let place = format!("{}field `{field}`", section.of);
                let fault = Fault::of(&section.block.name, &place, "a value is required");
                self.incomplete.push(fault);
            }
        }
    }

    fn given(
        &mut self,
        section: &Section<'_>,
        config: &BTreeMap<String, Expression>,
        declared: &BTreeMap<String, schema::Field>,
    ) {
        for (field, expression) in config {
            let Some(declared) = declared.get(field) else {
                let why = format!("there is no such field; there {}", list(declared.keys()));
                self.fault(section, field, &why);
                continue;
            };
            // A value that is known now is judged now; `null` is "not given".
            let value = expression.constant().filter(|value| *value != Value::Null);
            if let Some(value) = value
                && let Err(complaint) = declared.spec.check(field, &value)
            {
                let deeper = complaint
                    .path
                    .strip_prefix(field.as_str())
                    .unwrap_or_default();
                let why = match deeper.trim_start_matches('.') {
                    "" => complaint.why,
                    path => format!("`{path}`: {}", complaint.why),
                };
                self.fault(section, field, &why);
            }
            self.references(section, &format!("field `{field}`"), expression);
        }
    }

    fn references(&mut self, section: &Section<'_>, place: &str, expression: &Expression) {
        let complaints = expression.references().complaints(&Surroundings {
            ancestors: section.ancestors,
            blocks: Some(&self.accessors),
            signal_owners: Some(&self.signal_owners),
            secrets: self.secrets,
        });
        for why in complaints {
            let place = format!("{}{place}", section.of);
            self.faults
                .push(Fault::of(&section.block.name, &place, why));
        }
    }

    fn link(&mut self, block: &Block, of: &str, link: &super::Link) {
        let why = if !self.graph.contains(&link.block) {
            format!("links to block `{}`, which does not exist", link.block)
        } else {
            match self.schemas.get(&link.block) {
                // The block itself has a fault already.
                None => return,
                Some(schema) if schema.outputs.contains_key(&link.output) => return,
                // A sync may add outputs.
                Some(schema) if schema.handlers.has_on_sync => return,
                Some(schema) => format!(
                    "links to output `{}` of block `{}`, which does not exist; there {}",
                    link.output,
                    link.block,
                    list(schema.outputs.keys())
                ),
            }
        };
        self.faults.push(Fault::of(&block.name, of, why));
    }

    fn outputs(&mut self, block: &Block, schema: &schema::Block, ancestors: &BTreeSet<String>) {
        // A customization also sees the event it customizes, under the block's own name.
        let mut visible = ancestors.clone();
        visible.insert(names::accessor(&block.name));
        let section = Section {
            block,
            of: String::new(),
            ancestors: Some(&visible),
        };
        for (key, expression) in &block.outputs {
            if !schema.outputs.contains_key(key) && !schema.handlers.has_on_sync {
                let why = format!(
                    "there is no such output; there {}",
                    list(schema.outputs.keys())
                );
                let place = format!("output `{key}`");
                self.faults.push(Fault::of(&block.name, &place, why));
            }
            self.references(&section, &format!("output `{key}`"), expression);
        }
    }

    fn cycles(&mut self) {
        let blocks = self.definition.blocks.iter();
        let kinds = blocks.map(|block| (block.name.as_str(), &block.kind));
        let kinds = kinds.collect::<BTreeMap<_, _>>();
        let endless = self.graph.endless_cycle(|name| match kinds.get(name) {
            // An answer to a request leads to nothing.
            Some(Kind::Core(Core::Condition | Core::HttpEndpoint)) | None => Passing::Decides,
            Some(Kind::Core(_)) => Passing::Always,
            Some(Kind::App { .. }) => match self.schemas.get(name) {
                Some(schema) => Passing::Schema(schema),
                None => Passing::Decides,
            },
        });
        if let Some(cycle) = endless {
            let why = format!(
                "the links form a cycle that no event can leave: {}",
                cycle.join(" → ")
            );
            self.faults.push(Fault::of(cycle[0], "", why));
        }
        if let Some(cycle) = signal_cycle(self.definition) {
            let why = format!(
                "the configs follow each other's signals in a circle: {}",
                cycle.join(" → ")
            );
            self.faults.push(Fault::of(cycle[0], "`config`", why));
        }
    }

    fn fault(&mut self, section: &Section<'_>, field: &str, why: &str) {
        let place = format!("{}field `{field}`", section.of);
        self.faults
            .push(Fault::of(&section.block.name, &place, why));
    }
}

/// ``are `a`, `b` ``, for a person who mistyped one; long lists are cut.
fn list<'k>(keys: impl Iterator<Item = &'k String>) -> String {
    let keys = keys.collect::<Vec<_>>();
    if keys.is_empty() {
        return "are none".to_owned();
    }
    let shown = keys.iter().take(12).map(|key| format!("`{key}`"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if keys.len() > 12 { ", …" } else { "" };
    format!("are {shown}{more}")
}
