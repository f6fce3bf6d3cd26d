//! What applying a definition would do.
//!
//! Blocks are known by their names: another name is another block. A block
//! whose type or installation changes is replaced, because what it remembers is
//! of the old type. Schemas and the keys of installations are not compared:
//! they say how a block was described, not what it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Block, Definition, Kind, Link};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationType {
    CreateBlock,
    UpdateBlock,
    ReplaceBlock,
    DeleteBlock,
    CreateLink,
    DeleteLink,
}

/// One step; what the API shows of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    #[serde(rename = "type")]
    pub kind: OperationType,
    /// The block it is about; for a link the one that receives.
    pub block: String,
    /// For a person: what changes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The link it is about.
    #[serde(skip)]
    pub link: Option<(Link, String)>,
    /// Whether the static config changes, and with it a sync is due.
    #[serde(skip)]
    pub config_changed: bool,
}

/// All steps: links away first, then blocks, then links.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    pub operations: Vec<Operation>,
}

/// Compares what exists with what is wanted. Empty when they are the same flow.
pub fn plan(current: &Definition, wanted: &Definition) -> Plan {
    let old = by_name(current);
    let new = by_name(wanted);
    let mut operations = Vec::new();
    let (old_links, new_links) = (links(current), links(wanted));
    for (target, input, link) in old_links.difference(&new_links) {
        // The links of a block that goes away go with it, on both ends.
        if new.contains_key(target) && new.contains_key(link.block.as_str()) {
            operations.push(linked(OperationType::DeleteLink, target, input, link));
        }
    }
    for (name, block) in &old {
        if !new.contains_key(name) {
            operations.push(operation(OperationType::DeleteBlock, &block.name, ""));
        }
    }
    for block in &wanted.blocks {
        let Some(before) = old.get(block.name.as_str()) else {
            operations.push(operation(
                OperationType::CreateBlock,
                &block.name,
                &kind(block),
            ));
            continue;
        };
        if !same_kind(current, before, wanted, block) {
            let detail = format!("{} instead of {}", kind(block), kind(before));
            operations.push(operation(OperationType::ReplaceBlock, &block.name, &detail));
            continue;
        }
        let changes = changes(before, block);
        if !changes.is_empty() {
            let detail = changes.join(", ");
            let mut update = operation(OperationType::UpdateBlock, &block.name, &detail);
            update.config_changed = before.config != block.config;
            operations.push(update);
        }
    }
    for (target, input, link) in new_links.difference(&old_links) {
        operations.push(linked(OperationType::CreateLink, target, input, link));
    }
    Plan { operations }
}

// === impl Plan ===

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// A line per step and a sum, as a person reads a diff.
    pub fn readable(&self) -> String {
        if self.is_empty() {
            return "No changes.\n".to_owned();
        }
        let mut out = String::new();
        let (mut added, mut changed, mut removed) = (0, 0, 0);
        for operation in &self.operations {
            let (mark, what) = match operation.kind {
                OperationType::CreateBlock => ("+", "block"),
                OperationType::UpdateBlock => ("~", "block"),
                OperationType::ReplaceBlock => ("±", "block"),
                OperationType::DeleteBlock => ("-", "block"),
                OperationType::CreateLink => ("+", "link"),
                OperationType::DeleteLink => ("-", "link"),
            };
            match mark {
                "+" => added += 1,
                "-" => removed += 1,
                _ => changed += 1,
            }
            let line = match (&operation.link, operation.detail.as_str()) {
                (Some(_), detail) => format!("{mark} {what} {detail}\n"),
                (None, "") => format!("{mark} {what} `{}`\n", operation.block),
                (None, detail) => format!("{mark} {what} `{}`: {detail}\n", operation.block),
            };
            out.push_str(&line);
        }
        out.push_str(&format!(
            "Plan: {added} to add, {changed} to change, {removed} to remove.\n"
        ));
        out
    }
}

// === Comparing ===

fn by_name(definition: &Definition) -> BTreeMap<&str, &Block> {
    let blocks = definition.blocks.iter();
    blocks.map(|block| (block.name.as_str(), block)).collect()
}

fn links(definition: &Definition) -> BTreeSet<(&str, &str, &Link)> {
    let mut links = BTreeSet::new();
    for block in &definition.blocks {
        for (key, input) in &block.inputs {
            links.extend(
                input
                    .links
                    .iter()
                    .map(|link| (block.name.as_str(), key.as_str(), link)),
            );
        }
    }
    links
}

fn same_kind(old: &Definition, before: &Block, new: &Definition, block: &Block) -> bool {
    match (&before.kind, &block.kind) {
        (Kind::Core(before), Kind::Core(core)) => before == core,
        (Kind::App { block: was, .. }, Kind::App { block: is, .. }) => {
            was == is && old.installation_of(before) == new.installation_of(block)
        }
        _ => false,
    }
}

fn kind(block: &Block) -> String {
    match &block.kind {
        Kind::Core(core) => format!("core block {}", core.name()),
        Kind::App {
            block,
            installation,
            ..
        } => format!("{block} of {installation}"),
    }
}

/// What differs between two blocks of one type, links apart.
fn changes(before: &Block, block: &Block) -> Vec<String> {
    let mut changes = Vec::new();
    if before.description != block.description {
        changes.push("description".to_owned());
    }
    if before.active != block.active {
        let word = if block.active {
            "activated"
        } else {
            "deactivated"
        };
        changes.push(word.to_owned());
    }
    // A definition that places nothing leaves blocks where they are.
    if block.position.is_some() && before.position != block.position {
        changes.push("position".to_owned());
    }
    changes.extend(fields("config", &before.config, &block.config));
    let none = BTreeMap::new();
    let keys = before.inputs.keys().chain(block.inputs.keys());
    for key in keys.collect::<BTreeSet<_>>() {
        let config = |block: &Block| block.inputs.get(key).map(|input| input.config.clone());
        let (old, new) = (config(before), config(block));
        changes.extend(fields(
            &format!("input `{key}` config"),
            old.as_ref().unwrap_or(&none),
            new.as_ref().unwrap_or(&none),
        ));
    }
    changes.extend(fields(
        "output customization",
        &before.outputs,
        &block.outputs,
    ));
    changes
}

fn fields<V: PartialEq>(
    what: &str,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
) -> Vec<String> {
    let keys = old.keys().chain(new.keys()).collect::<BTreeSet<_>>();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{what} `{key}`"))
        .collect()
}

fn operation(kind: OperationType, block: &str, detail: &str) -> Operation {
    Operation {
        kind,
        block: block.to_owned(),
        detail: detail.to_owned(),
        link: None,
        config_changed: false,
    }
}

fn linked(kind: OperationType, target: &str, input: &str, link: &Link) -> Operation {
    Operation {
        detail: format!("`{}`.{} → `{target}`.{input}", link.block, link.output),
        link: Some((link.clone(), input.to_owned())),
        ..operation(kind, target, "")
    }
}
