//! What an event inherits: for each block the event that `outputs.<block>`
//! means, and for each block the echo that comes back to it.
//!
//! ```text
//!  A#1 ──▶ B#2 ──▶ C#3 ──▶ B#4        lineage of B#4: {a: #1, b: #4, c: #3}
//! ```
//!
//! A lineage is kept with its event, so that nobody walks a chain: it grows by
//! blocks and not by events, and of several events of one block the nearest
//! counts. Outputs come along the primary parents alone; echoes also along the
//! secondary ones, where the primary chain has none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Events of one chain, from its start along the primary parents: a loop that
/// nobody leaves ends here, long before it fills a disk.
pub const CHAIN_EVENTS_MAX: u32 = 10_000;

/// Kept with each event, as ids of events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// By accessor of the block, the event itself included.
    pub outputs: BTreeMap<String, String>,
    /// By id of the block that asked for the echo.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub echoes: BTreeMap<String, String>,
    /// Events in the chain so far, itself included.
    pub length: u32,
}

/// The event whose lineage is made.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    pub event: &'a str,
    pub block: &'a str,
    /// Accessor of the block; empty when its name has none.
    pub accessor: &'a str,
    pub echo: bool,
}

// === impl Lineage ===

impl Lineage {
    /// The lineage of an event with these parents.
    ///
    /// # Errors
    ///
    /// A sentence for the app when the chain is too long.
    pub fn of(own: &Own<'_>, primary: Option<&Self>, secondary: &[&Self]) -> Result<Self, String> {
        let mut lineage = primary.cloned().unwrap_or_default();
        if lineage.length >= CHAIN_EVENTS_MAX {
            return Err(format!(
                "the chain has {CHAIN_EVENTS_MAX} events: it seems to go round in a circle"
            ));
        }
        lineage.length += 1;
        for parent in secondary {
            for (block, event) in &parent.echoes {
                let known = lineage.echoes.entry(block.clone());
                known.or_insert_with(|| event.clone());
            }
        }
        if !own.accessor.is_empty() {
            lineage
                .outputs
                .insert(own.accessor.to_owned(), own.event.to_owned());
        }
        if own.echo {
            lineage
                .echoes
                .insert(own.block.to_owned(), own.event.to_owned());
        }
        Ok(lineage)
    }

    /// The event whose body `event.echo` shows to a handler of `block` that
    /// handles an event of this lineage.
    pub fn echo_for(&self, block: &str) -> Option<&str> {
        self.echoes.get(block).map(String::as_str)
    }
}
