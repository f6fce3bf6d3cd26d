//! One chain of events as pages of it come in. Pure.
//!
//! ```text
//!  page ─take─▶ news: an event that is new, a delivery that has failed
//!               unsettled: what is still under way
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The events that follow from one, and what became of them.
pub struct Chain {
    root: String,
    /// Ids of its events, each with its distance from the root.
    depths: BTreeMap<String, usize>,
    /// Events that were told of: not before their output is customized, which
    /// gives them another body.
    told: BTreeSet<String>,
    /// Deliveries whose end is known.
    ended: BTreeSet<String>,
    /// Everything up to this number is settled, so looks begin after it.
    after: i64,
    pub failed: usize,
    /// What of the last look was under way.
    pub unsettled: usize,
}

/// What was not known before.
#[derive(Debug, PartialEq)]
pub enum News<'v> {
    Event {
        depth: usize,
        event: &'v Value,
    },
    /// The error of an event whose body could not be made, or of a delivery.
    Failure {
        depth: usize,
        event: &'v Value,
        delivery: Option<&'v Value>,
    },
}

// === impl Chain ===

impl Chain {
    /// `after` is the number of an event that is older than the root.
    pub fn new(root: &str, after: i64) -> Self {
        Self {
            root: root.to_owned(),
            depths: BTreeMap::new(),
            told: BTreeSet::new(),
            ended: BTreeSet::new(),
            after,
            failed: 0,
            unsettled: 0,
        }
    }

    /// Where the next look begins.
    pub fn after(&self) -> i64 {
        self.after
    }

    pub fn events(&self) -> usize {
        self.depths.len()
    }

    /// A look begins; its pages follow.
    pub fn look(&mut self) {
        self.unsettled = 0;
    }

    /// Takes a page of a look, oldest first; says what is new. The second value
    /// is whether anything has changed since the last look.
    pub fn take<'v>(&mut self, page: &'v [Value]) -> (Vec<News<'v>>, bool) {
        let mut news = Vec::new();
        let mut has_changed = false;
        for event in page {
            if let Some(depth) = self.depth(event) {
                let ended = self.ended.len();
                let before = (news.len(), ended);
                self.take_event(depth, event, &mut news);
                has_changed |= before != (news.len(), self.ended.len());
                self.unsettled += usize::from(!is_settled(event));
            }
            if self.unsettled == 0 {
                self.after = event["seq"].as_i64().unwrap_or(self.after);
            }
        }
        (news, has_changed)
    }

    fn take_event<'v>(&mut self, depth: usize, event: &'v Value, news: &mut Vec<News<'v>>) {
        let id = event["id"].as_str().unwrap_or_default();
        self.depths.insert(id.to_owned(), depth);
        if event["state"] != "customizing" && self.told.insert(id.to_owned()) {
            news.push(News::Event { depth, event });
        }
        // The error of the event itself is remembered by the event's id.
        if event["state"] == "failed" && self.ended.insert(id.to_owned()) {
            self.failed += 1;
            let delivery = None;
            news.push(News::Failure {
                depth,
                event,
                delivery,
            });
        }
        for delivery in event["deliveries"].as_array().into_iter().flatten() {
            let is_failed = delivery["state"] == "failed";
            let has_ended = is_failed || delivery["state"] == "done";
            let id = delivery["id"].as_str().unwrap_or_default();
            if !has_ended || !self.ended.insert(id.to_owned()) || !is_failed {
                continue;
            }
            self.failed += 1;
            let delivery = Some(delivery);
            news.push(News::Failure {
                depth,
                event,
                delivery,
            });
        }
    }

    /// The distance from the root, of an event that belongs to the chain.
    fn depth(&self, event: &Value) -> Option<usize> {
        let id = event["id"].as_str()?;
        if let Some(depth) = self.depths.get(id) {
            return Some(*depth);
        }
        if id == self.root {
            return Some(0);
        }
        let secondary = event["secondary_parents"].as_array().into_iter().flatten();
        std::iter::once(&event["parent"])
            .chain(secondary)
            .find_map(|parent| self.depths.get(parent.as_str()?))
            .map(|depth| depth + 1)
    }
}

fn is_settled(event: &Value) -> bool {
    let deliveries = event["deliveries"].as_array().into_iter().flatten();
    let ended = |it: &Value| matches!(it["state"].as_str(), Some("done" | "failed"));
    matches!(event["state"].as_str(), Some("sent" | "failed")) && deliveries.into_iter().all(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn event(seq: i64, parent: Option<&str>, deliveries: &[&str]) -> Value {
        let deliveries = deliveries.iter().enumerate();
        let deliveries: Vec<_> = deliveries
            .map(|(at, state)| json!({"id": format!("{seq}.{at}"), "state": state, "error": null}))
            .collect();
        json!({"seq": seq, "id": format!("e{seq}"), "parent": parent, "state": "sent", "deliveries": deliveries})
    }

    #[test]
    fn a_chain_is_followed_to_its_end_and_nothing_else_is() {
        let mut chain = Chain::new("e5", 4);
        chain.look();
        let page = [event(5, None, &["started"]), event(6, None, &["started"])];
        let (news, has_changed) = chain.take(&page);
        assert_eq!(
            news,
            [News::Event {
                depth: 0,
                event: &page[0]
            }]
        );
        assert!(has_changed);
        assert_eq!((chain.after(), chain.unsettled), (4, 1));

        chain.look();
        let page = [
            event(5, None, &["done"]),
            event(6, None, &["started"]),
            event(7, Some("e5"), &["ready"]),
        ];
        let (news, _) = chain.take(&page);
        assert_eq!(
            news,
            [News::Event {
                depth: 1,
                event: &page[2]
            }]
        );
        // What is not of the chain does not hold the look back.
        assert_eq!((chain.after(), chain.unsettled), (6, 1));

        chain.look();
        let page = [event(7, Some("e5"), &["failed", "done"])];
        let (news, has_changed) = chain.take(&page);
        assert!(matches!(news[..], [News::Failure { depth: 1, .. }]) && has_changed);
        assert_eq!((chain.failed, chain.unsettled, chain.events()), (1, 0, 2));
        chain.look();
        let (news, has_changed) = chain.take(&page);
        assert!(news.is_empty() && !has_changed);
    }

    #[test]
    fn an_event_is_told_with_the_body_that_it_goes_out_with() {
        let mut chain = Chain::new("e1", 0);
        let mut early = event(1, None, &[]);
        early["state"] = json!("customizing");
        chain.look();
        let page = [early];
        assert!(chain.take(&page).0.is_empty());
        assert_eq!((chain.events(), chain.unsettled), (1, 1));
        chain.look();
        let page = [event(1, None, &[])];
        assert_eq!(chain.take(&page).0.len(), 1);
    }

    #[test]
    fn a_secondary_parent_is_a_parent_and_a_failed_event_fails() {
        let mut chain = Chain::new("e1", 0);
        let mut joined = event(3, Some("elsewhere"), &[]);
        joined["secondary_parents"] = json!(["e1"]);
        joined["state"] = json!("failed");
        let page = [event(1, None, &[]), joined];
        let (news, _) = chain.take(&page);
        assert_eq!(news.len(), 3);
        assert!(matches!(
            news[2],
            News::Failure {
                depth: 1,
                delivery: None,
                ..
            }
        ));
        assert_eq!(chain.failed, 1);
    }
}
