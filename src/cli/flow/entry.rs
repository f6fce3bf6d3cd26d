//! Where a flow is started by hand. Pure.

use crate::gateway::engine::core_blocks::Core;
use crate::gateway::engine::definition::{Block, Definition, Kind};

/// Names in one sentence; the rest is counted.
const NAMES_MAX: usize = 20;
/// The input of a block that does not say otherwise.
const INPUT: &str = "default";

/// The block and the input that a first event goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub block: String,
    pub input: String,
}

/// The block that is named; else the only manual trigger; else the only block
/// that nothing links to and that takes events. The error is one sentence.
pub fn choose(
    definition: &Definition,
    block: Option<&str>,
    input: Option<&str>,
) -> Result<Entry, String> {
    let block = match block {
        Some(name) => definition.block(name).ok_or_else(|| {
            let all = names(definition.blocks.iter());
            format!("there is no block `{name}` in the definition; there are: {all}")
        })?,
        None => only(definition)?,
    };
    let sole = match block.inputs.len() {
        1 => block.inputs.keys().next().map(String::as_str),
        _ => None,
    };
    Ok(Entry {
        block: block.name.clone(),
        input: input.or(sole).unwrap_or(INPUT).to_owned(),
    })
}

fn only(definition: &Definition) -> Result<&Block, String> {
    let active = || definition.blocks.iter().filter(|block| block.active);
    let manual: Vec<_> = active()
        .filter(|block| block.kind == Kind::Core(Core::ManualTrigger))
        .collect();
    let first: Vec<_> = active().filter(|block| is_entry(block)).collect();
    let candidates = if manual.is_empty() { first } else { manual };
    match candidates[..] {
        [one] => Ok(one),
        [] => Err(format!(
            "no block of this flow starts it by hand: say with --block which of these gets the event: {}",
            names(active())
        )),
        _ => Err(format!(
            "several blocks start this flow: say which with --block: {}",
            names(candidates.iter().copied())
        )),
    }
}

/// Nothing links to it, and it is not one that starts by itself.
fn is_entry(block: &Block) -> bool {
    let starts_itself = matches!(block.kind, Kind::Core(Core::Schedule | Core::HttpEndpoint));
    !starts_itself && block.inputs.values().all(|input| input.links.is_empty())
}

fn names<'a>(blocks: impl Iterator<Item = &'a Block>) -> String {
    let mut names: Vec<_> = blocks.map(|block| format!("`{}`", block.name)).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (_, 0) => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(blocks: &str, block: Option<&str>) -> Result<Entry, String> {
        let definition = Definition::parse(&format!("blocks:\n{blocks}")).expect("it parses");
        choose(&definition, block, None)
    }

    const MANUAL: &str = "- {name: Start, type: {coreBlock: manualTrigger}}\n";
    const CLOCK: &str =
        "- {name: Clock, type: {coreBlock: schedule}, config: {cron: '0 0 * * *'}}\n";
    const NEXT: &str = "- {name: Next, type: {coreBlock: transform}, inputs: {default: {links: [{block: Clock, output: default}]}}}\n";
    const LOOSE: &str =
        "- {name: Loose, type: {coreBlock: sleep}, inputs: {default: {config: {sleep: 1}}}}\n";

    #[test]
    fn the_only_manual_trigger_is_the_entry() {
        let entry = chosen(&format!("{LOOSE}{MANUAL}"), None).expect("an entry");
        assert_eq!((&*entry.block, &*entry.input), ("Start", "default"));
        let error = chosen(&format!("{MANUAL}{}", MANUAL.replace("Start", "Two")), None);
        assert!(error.expect_err("two").ends_with("--block: `Start`, `Two`"));
    }

    #[test]
    fn without_one_the_only_block_that_nothing_links_to() {
        let entry = chosen(&format!("{CLOCK}{NEXT}{LOOSE}"), None).expect("an entry");
        assert_eq!(entry.block, "Loose");
        let error = chosen(&format!("{CLOCK}{NEXT}"), None).expect_err("none");
        assert!(error.contains("`Clock`, `Next`"), "{error}");
    }

    #[test]
    fn a_block_that_is_named_must_be_there() {
        let error = chosen(MANUAL, Some("Stop")).expect_err("it is not there");
        assert!(
            error.contains("no block `Stop`") && error.contains("`Start`"),
            "{error}"
        );
        assert_eq!(
            chosen(NEXT.replace("Clock", "Next").as_str(), Some("Next"))
                .expect("it is there")
                .block,
            "Next"
        );
    }
}
