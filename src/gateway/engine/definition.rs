//! Flow definitions: the text a person or a client writes, and what it means.
//!
//! ```text
//!  YAML ─read─▶ Definition ─mapped─▶ ─check─▶ ─plan─▶ operations
//!    ▲                │
//!    └────export──────┘      parse(export(d)) == d, plan(d, parse(export(d))) is empty
//! ```
//!
//! Owns the shape of a definition and its text. [`check`] judges it against the
//! schemas of the apps, [`plan`] compares it with what exists. Nothing here
//! changes anything: a definition that does not fit is refused whole.

pub mod check;
pub mod plan;
mod read;
mod write;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::gateway::engine::core_blocks::Core;
use crate::gateway::engine::expressions::Expression;

pub use write::export;
pub use yaml::{DEFINITION_BYTES_MAX, DEPTH_MAX, NODES_MAX};

/// Blocks of one flow: a canvas of more is not drawn by hand, and graph walks stay short.
pub const BLOCKS_MAX: usize = 2_000;

/// Links of one flow.
pub const LINKS_MAX: usize = 20_000;

/// Complaints that one refusal carries; the rest is counted.
const FAULTS_SAID_MAX: usize = 10;

/// A whole flow.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Definition {
    /// By the key that blocks use.
    pub installations: BTreeMap<String, Installation>,
    /// In the order of the text; the order means nothing.
    pub blocks: Vec<Block>,
}

/// What stands for an app installation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installation {
    pub app_name: Option<String>,
    pub app_version: Option<String>,
    /// Missing when `appInstallationMapping` is to name it.
    pub id: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Unique in the flow: links and the API use it.
    pub name: String,
    pub description: Option<String>,
    pub kind: Kind,
    /// Off: events are not delivered to it.
    pub active: bool,
    pub position: Option<(f64, f64)>,
    /// Static config, evaluated outside of any event.
    pub config: BTreeMap<String, Expression>,
    pub inputs: BTreeMap<String, Input>,
    /// Customizations by output: what is emitted instead of the body.
    pub outputs: BTreeMap<String, Expression>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Core(Core),
    App {
        /// Key of the block type.
        block: String,
        /// Key in [`Definition::installations`].
        installation: String,
        /// JSON; used when the installation does not exist (yet).
        schema: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Input {
    pub links: BTreeSet<Link>,
    /// Evaluated for each event.
    pub config: BTreeMap<String, Expression>,
}

/// Where the events of an input come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    pub block: String,
    pub output: String,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub block: Option<String>,
    /// ``input `default`, field `command` ``; how to find the place in the block.
    pub place: Option<String>,
    pub why: String,
}

/// Everything that does not fit; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

// === impl Definition ===

impl Definition {
    /// Reads a definition. Only the text is judged, not what it refers to.
    ///
    /// # Errors
    ///
    /// Not YAML, over a limit, or not of this shape.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        read::definition(text)
    }

    /// With the installations of `appInstallationMapping`, which names them
    /// where the text does not and overrides it where it does.
    #[must_use]
    pub fn mapped(mut self, mapping: &BTreeMap<String, String>) -> Self {
        for (key, id) in mapping {
            self.installations.entry(key.clone()).or_default().id = Some(id.clone());
        }
        self
    }

    pub fn block(&self, name: &str) -> Option<&Block> {
        self.blocks.iter().find(|block| block.name == name)
    }

    /// The id of the installation that `block` belongs to.
    pub fn installation_of(&self, block: &Block) -> Option<&str> {
        match &block.kind {
            Kind::Core(_) => None,
            Kind::App { installation, .. } => self
                .installations
                .get(installation)
                .and_then(|installation| installation.id.as_deref()),
        }
    }
}

// === impl Block ===

impl Block {
    /// A block with nothing set.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            description: None,
            kind,
            active: true,
            position: None,
            config: BTreeMap::new(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }
}

// === impl Fault ===

impl Fault {
    /// A fault of the definition as a whole.
    pub fn whole(why: String) -> Self {
        Self {
            block: None,
            place: None,
            why,
        }
    }

    /// A fault of one block.
    pub fn of(block: &str, place: &str, why: impl Into<String>) -> Self {
        Self {
            block: Some(block.to_owned()),
            place: (!place.is_empty()).then(|| place.to_owned()),
            why: why.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.block, &self.place) {
            (Some(block), Some(place)) => write!(f, "block `{block}`, {place}: {}", self.why),
            (Some(block), None) => write!(f, "block `{block}`: {}", self.why),
            (None, _) => write!(f, "the definition: {}", self.why),
        }
    }
}

// === impl Faults ===

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().take(FAULTS_SAID_MAX).enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{fault}")?;
        }
        match self.0.len().saturating_sub(FAULTS_SAID_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests;
