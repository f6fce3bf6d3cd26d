//! The graph of a flow: who may lead to whom, and cycles that cannot be.
//!
//! ```text
//!  block.output ─link─▶ block.input ─(the block passes events on)─▶ block.output ─▶ …
//! ```
//!
//! Owns ancestors and the two kinds of illegal cycle:
//!
//! - **Links that pass an event around for ever.** A cycle of links is legal in
//!   itself: published flows define a tool or a subroutine as a block whose
//!   output leads, through other blocks, back to its own result input. Such a
//!   cycle ends because some block on it decides by itself whether to emit. It
//!   is illegal when every block on it hands on each event it gets.
//! - **Configs that follow each other's signals.** Each sync would change what
//!   the other depends on, and neither would ever come to rest.
//!
//! In a legal cycle `outputs.<block>` stays unambiguous: of several events of
//! one block the nearest ancestor counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::gateway::engine::definition::{Definition, Kind};
use crate::gateway::engine::names;
use crate::gateway::engine::schema;

/// The links of a flow, by block name.
#[derive(Debug, Clone, Default)]
pub struct Graph<'a> {
    places: BTreeMap<&'a str, usize>,
    nodes: Vec<Node<'a>>,
}

#[derive(Debug, Clone)]
struct Node<'a> {
    name: &'a str,
    accessor: String,
    /// The links that leave it: output, place of the target, input.
    leaving: Vec<(&'a str, usize, &'a str)>,
    /// The places of the blocks that link to it.
    sources: BTreeSet<usize>,
}

/// What a cycle search needs to know about a block.
#[derive(Debug, Clone, Copy)]
pub enum Passing<'a> {
    /// Decides by itself whether to emit: a cycle through it can end.
    Decides,
    /// Each event at an input leads to one at each output it may lead to.
    Always,
    /// As the schema says.
    Schema(&'a schema::Block),
}

// === impl Graph ===

impl<'a> Graph<'a> {
    /// Links to blocks that do not exist are left out.
    pub fn of(definition: &'a Definition) -> Self {
        let mut graph = Self::default();
        for block in &definition.blocks {
            graph.places.insert(&block.name, graph.nodes.len());
            graph.nodes.push(Node {
                name: &block.name,
                accessor: names::accessor(&block.name),
                leaving: Vec::new(),
                sources: BTreeSet::new(),
            });
        }
        for (target, block) in definition.blocks.iter().enumerate() {
            for (input, link) in block
                .inputs
                .iter()
                .flat_map(|(key, input)| input.links.iter().map(move |link| (key, link)))
            {
                if let Some(&source) = graph.places.get(link.block.as_str()) {
                    let leaving = (link.output.as_str(), target, input.as_str());
                    graph.nodes[source].leaving.push(leaving);
                    graph.nodes[target].sources.insert(source);
                }
            }
        }
        graph
    }

    pub fn contains(&self, block: &str) -> bool {
        self.places.contains_key(block)
    }

    /// Every block whose event may be an ancestor of one that `block` handles.
    /// A block on a cycle is its own ancestor.
    pub fn ancestors(&self, block: &str) -> BTreeSet<&'a str> {
        self.ancestor_nodes(block).map(|node| node.name).collect()
    }

    /// The accessors of [`Graph::ancestors`].
    pub fn ancestor_accessors(&self, block: &str) -> BTreeSet<String> {
        let ancestors = self.ancestor_nodes(block);
        ancestors.map(|node| node.accessor.clone()).collect()
    }

    /// The inputs that an event at `output` of `block` goes to, in a stable order.
    pub fn targets(&self, block: &str, output: &str) -> Vec<(&'a str, &'a str)> {
        let node = self.places.get(block).map(|place| &self.nodes[*place]);
        let leaving = node.into_iter().flat_map(|node| &node.leaving);
        leaving
            .filter(|(key, _, _)| *key == output)
            .map(|(_, target, input)| (self.nodes[*target].name, *input))
            .collect()
    }

    /// The blocks of a cycle on which every event goes around for ever, first
    /// and last the same.
    pub fn endless_cycle<'p>(&self, passing: impl Fn(&str) -> Passing<'p>) -> Option<Vec<&'a str>> {
        let passing = self.nodes.iter().map(|node| passing(node.name));
        let passing = passing.collect::<Vec<_>>();
        // A node is an event at an input; its successors are where it leads to.
        let successors = |&(place, input): &(usize, &'a str)| {
            let leaving = self.nodes[place].leaving.iter();
            leaving
                .filter(|(output, _, _)| passing[place].leads(input, output))
                .map(|(_, target, input)| (*target, *input))
                .collect::<Vec<_>>()
        };
        let starts = self.nodes.iter().flat_map(|node| &node.leaving);
        let starts = starts.map(|(_, target, input)| (*target, *input));
        let cycle = find_cycle(starts, successors)?;
        let cycle = cycle.into_iter().map(|(place, _)| self.nodes[place].name);
        Some(cycle.collect())
    }

    fn ancestor_nodes(&self, block: &str) -> impl Iterator<Item = &Node<'a>> {
        let mut found = vec![false; self.nodes.len()];
        let mut open = self
            .places
            .get(block)
            .copied()
            .into_iter()
            .collect::<Vec<_>>();
        while let Some(place) = open.pop() {
            for &source in &self.nodes[place].sources {
                if !found[source] {
                    found[source] = true;
                    open.push(source);
                }
            }
        }
        let nodes = self.nodes.iter().zip(found);
        nodes.filter(|(_, found)| *found).map(|(node, _)| node)
    }
}

// === impl Passing ===

impl Passing<'_> {
    fn leads(&self, input: &str, output: &str) -> bool {
        match self {
            Self::Decides => false,
            Self::Always => true,
            Self::Schema(block) => {
                let handles = block.inputs.get(input);
                let handles = handles.is_none_or(|input| input.has_on_event);
                handles && !block.emits_by_itself() && block.may_lead(input, output)
            }
        }
    }
}

// === Signals ===

/// The block that each `signals.<accessor>` means: the one whose name is the
/// plain form of the accessor before a numbered copy, then the first by name.
pub fn signal_owners(definition: &Definition) -> BTreeMap<String, &str> {
    let mut owners = BTreeMap::<String, &str>::new();
    for block in &definition.blocks {
        let rank = |name: &str| (name.contains('('), name.to_owned());
        let owner = owners
            .entry(names::accessor(&block.name))
            .or_insert(&block.name);
        if rank(&block.name) < rank(owner) {
            *owner = &block.name;
        }
    }
    owners
}

/// Blocks whose static configs follow each other's signals in a circle.
pub fn signal_cycle(definition: &Definition) -> Option<Vec<&str>> {
    let owners = signal_owners(definition);
    let mut follows = BTreeMap::<&str, BTreeSet<&str>>::new();
    for block in &definition.blocks {
        // Without a life cycle no sync can change what others follow.
        if matches!(block.kind, Kind::Core(_)) {
            continue;
        }
        let references = block.config.values().map(|field| field.references());
        let followed = references.flat_map(|references| references.signals);
        let followed = followed.filter_map(|(owner, _)| owners.get(&owner).copied());
        follows.insert(&block.name, followed.collect());
    }
    let successors = |name: &&str| {
        let followed = follows.get(*name).into_iter().flatten();
        followed.copied().collect::<Vec<_>>()
    };
    find_cycle(follows.keys().copied(), successors)
}

/// A cycle, first and last node the same, found without recursion.
fn find_cycle<N: Copy + Ord>(
    nodes: impl Iterator<Item = N>,
    successors: impl Fn(&N) -> Vec<N>,
) -> Option<Vec<N>> {
    let mut done = BTreeSet::new();
    for start in nodes {
        if done.contains(&start) {
            continue;
        }
        let mut path = vec![start];
        let mut on_path = BTreeSet::from([start]);
        let mut open = vec![successors(&start)];
        while let Some(next) = open.last_mut().map(Vec::pop) {
            match next {
                Some(node) if on_path.contains(&node) => {
                    let from = path.iter().position(|known| *known == node)?;
                    let mut cycle = path.split_off(from);
                    // The same cycle is always told from the same node on.
                    let first = (0..cycle.len()).min_by_key(|at| cycle[*at])?;
                    cycle.rotate_left(first);
                    cycle.push(cycle[0]);
                    return Some(cycle);
                }
                Some(node) if done.contains(&node) => {}
                Some(node) => {
                    path.push(node);
                    on_path.insert(node);
                    open.push(successors(&node));
                }
                None => {
                    open.pop();
                    if let Some(node) = path.pop() {
                        on_path.remove(&node);
                        done.insert(node);
                    }
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
