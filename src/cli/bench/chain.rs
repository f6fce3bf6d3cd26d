//! What became of events that went through a chain: pure counting.

use std::collections::HashMap;

use serde_json::Value;

/// Executions of a chain that were not as they should.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// Of every event one delivery and one event after it are expected.
    pub lost: usize,
    pub twice: usize,
    pub failed: usize,
}

// === impl Fate ===

impl Fate {
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}

/// Counts over all events of a flow, oldest first, of which `roots` were
/// triggered and went through `blocks` blocks each.
pub fn fate(events: &[Value], roots: usize, blocks: usize) -> Fate {
    let mut fate = Fate::default();
    let mut depths: HashMap<&str, usize> = HashMap::new();
    let mut children: HashMap<&str, usize> = HashMap::new();
    let mut found = 0;
    for event in events {
        let depth = match event["parent"].as_str() {
            None => {
                found += 1;
                0
            }
            Some(parent) => {
                *children.entry(parent).or_default() += 1;
                depths.get(parent).map_or(0, |depth| depth + 1)
            }
        };
        depths.insert(event["id"].as_str().unwrap_or_default(), depth);
    }
    fate.count(found, roots, blocks);
    for event in events {
        let id = event["id"].as_str().unwrap_or_default();
        let depth = depths.get(id).copied().unwrap_or(0);
        let expected = usize::from(depth < blocks);
        let after = children.get(id).copied().unwrap_or(0);
        let deliveries = event["deliveries"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let done = deliveries.iter().filter(|it| it["state"] == "done").count();
        let failed = deliveries
            .iter()
            .filter(|it| it["state"] == "failed")
            .count();
        fate.failed += failed;
        // One that failed is said to have failed, and not to be lost as well.
        let expected = expected.saturating_sub(failed);
        fate.count(done, expected, 1);
        fate.count(after, expected.min(done), blocks.saturating_sub(depth));
    }
    fate
}

impl Fate {
    /// Each one that is missing takes `steps` executions along.
    fn count(&mut self, found: usize, expected: usize, steps: usize) {
        self.lost += expected.saturating_sub(found) * steps;
        self.twice += found.saturating_sub(expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// One root through so many blocks.
    fn whole(blocks: usize) -> Vec<Value> {
        let event = |at: usize| {
            let parent = (at > 0).then(|| format!("e{}", at - 1));
            let deliveries = match at < blocks {
                true => json!([{"state": "done"}]),
                false => json!([]),
            };
            json!({"id": format!("e{at}"), "parent": parent, "deliveries": deliveries})
        };
        (0..=blocks).map(event).collect()
    }

    #[test]
    fn a_whole_chain_is_whole() {
        assert!(fate(&whole(3), 1, 3).is_whole());
        assert_eq!(fate(&[], 1, 3).lost, 3);
    }

    #[test]
    fn what_is_missing_doubled_or_failed_is_counted() {
        let mut events = whole(3);
        events.truncate(2);
        assert_eq!(fate(&events, 1, 3).lost, 2, "from the second block on");
        let mut events = whole(3);
        events.push(json!({"id": "x", "parent": "e2", "deliveries": []}));
        assert_eq!(fate(&events, 1, 3).twice, 1);
        let mut events = whole(3);
        events[1]["deliveries"] = json!([{"state": "done"}, {"state": "done"}]);
        assert_eq!(fate(&events, 1, 3).twice, 1);
        let mut events = whole(1);
        events[0]["deliveries"] = json!([{"state": "failed"}]);
        events.truncate(1);
        let counted = fate(&events, 1, 1);
        assert_eq!((counted.failed, counted.lost, counted.twice), (1, 0, 0));
    }
}
