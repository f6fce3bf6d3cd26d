//! A flow over an app of a test: applied, triggered, watched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::house::{App, House, id, pairs, texts};

/// Names of flows differ within a project.
static FLOWS: AtomicU32 = AtomicU32::new(0);

pub struct Flow {
    house: Arc<House>,
    pub id: String,
    /// Ids of its blocks by their names.
    blocks: BTreeMap<String, String>,
}

// === impl App ===

impl App {
    /// Makes a flow of blocks (YAML, below `blocks:`) in which this app is
    /// called `app`; waits until all of them are ready.
    pub async fn flow(&self, blocks: &str) -> Flow {
        let flow = self.unready_flow(blocks).await;
        for name in flow.blocks.keys() {
            flow.block_status(name, "ready").await;
        }
        flow
    }

    /// The same, without waiting for the blocks.
    pub async fn unready_flow(&self, blocks: &str) -> Flow {
        let name = format!("flow {}", FLOWS.fetch_add(1, Ordering::Relaxed));
        let flow = json!({"project": self.house.project, "name": name});
        let flow = self.house.post("/api/v1/flows", &flow).await;
        let mut flow = Flow {
            house: self.house.clone(),
            id: id(&flow),
            blocks: BTreeMap::new(),
        };
        flow.apply(self, blocks).await;
        flow
    }
}

// === impl Flow ===

impl Flow {
    pub async fn apply(&mut self, app: &App, blocks: &str) {
        let definition = format!(
            "appInstallations:\n  app: {{id: {}}}\nblocks:{}\n",
            app.id,
            if blocks.is_empty() { " []" } else { blocks }
        );
        let path = format!("/api/v1/flows/{}/apply", self.id);
        self.house
            .post(&path, &json!({"definition": definition}))
            .await;
        let shown = self
            .house
            .get(&format!("/api/v1/flows/{}/blocks", self.id))
            .await;
        let shown = shown.as_array().expect("a list").iter();
        let named = |block: &Value| block["name"].as_str().expect("a name").to_owned();
        self.blocks = shown.map(|block| (named(block), id(block))).collect();
    }

    pub fn block_id(&self, name: &str) -> &str {
        let found = self.blocks.get(name);
        found.unwrap_or_else(|| panic!("the flow has no block {name}: {:?}", self.blocks))
    }

    fn block_path(&self, name: &str) -> String {
        format!("/api/v1/blocks/{}", self.block_id(name))
    }

    /// What is shown of a block.
    pub async fn block(&self, name: &str) -> Value {
        self.house.get(&self.block_path(name)).await
    }

    pub async fn block_status(&self, name: &str, wanted: &str) -> Value {
        let what = format!("block {name} is {wanted}");
        let look = async || {
            let shown = self.block(name).await;
            (shown["status"] == wanted).then_some(shown)
        };
        self.house.until(&what, look).await
    }

    /// Confirms a block that is a draft, or syncs it once more.
    pub async fn tell(&self, name: &str, what: &str) {
        let path = format!("{}/{what}", self.block_path(name));
        self.house.post(&path, &json!({})).await;
    }

    /// The values that a block keeps, by key, in the order of the API.
    pub async fn kv(&self, name: &str, prefix: &str) -> Vec<(String, Value)> {
        let path = format!("{}/kv?prefix={prefix}", self.block_path(name));
        pairs(&self.house, &path).await
    }

    /// Brings an event to an input; answers its id.
    pub async fn trigger(&self, block: &str, input: &str, body: Value) -> String {
        let (flow, block) = (&self.id, self.block_id(block));
        let path = format!("/api/v1/flows/{flow}/blocks/{block}/inputs/{input}/events");
        id(&self.house.post(&path, &body).await)
    }

    /// Every event so far, oldest first.
    pub async fn events(&self) -> Vec<Value> {
        let path = format!("/api/v1/flows/{}/events?after=0&limit=500", self.id);
        let events = self.house.get(&path).await;
        events.as_array().expect("a list").clone()
    }

    /// Waits until nothing is under way; answers every event, oldest first.
    pub async fn quiet(&self) -> Vec<Value> {
        let path = format!("/api/v1/flows/{}", self.id);
        let is_quiet = async || (self.house.get(&path).await["open"] == 0).then_some(());
        self.house.until("the flow is quiet", is_quiet).await;
        self.events().await
    }

    /// Waits until a block has emitted so many events on an output; answers them.
    pub async fn emitted(&self, block: &str, output: &str, count: usize) -> Vec<Value> {
        let what = format!("block {block} has emitted {count} times on {output}");
        let look = async || {
            let found = self.of(self.events().await, block, output);
            (found.len() >= count).then_some(found)
        };
        let found = self.house.until(&what, look).await;
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// The events of a block that have gone out on an output.
    pub fn of(&self, events: Vec<Value>, block: &str, output: &str) -> Vec<Value> {
        let block = self.block_id(block);
        let mut events = events;
        events.retain(|event| {
            event["block"] == block && event["output"] == output && event["state"] == "sent"
        });
        events
    }

    /// Events that are announced and may still come.
    pub async fn pending(&self) -> Vec<Value> {
        self.announced("open").await
    }

    /// Announced events in a phase.
    pub async fn announced(&self, phase: &str) -> Vec<Value> {
        let path = format!("/api/v1/flows/{}/pending", self.id);
        let announced = self.house.get(&path).await;
        let mut announced = announced.as_array().expect("a list").clone();
        announced.retain(|event| event["phase"] == phase);
        announced
    }

    /// Waits until the handling of an event has ended; answers its one delivery.
    pub async fn delivered(&self, event: &str) -> Value {
        let path = format!("/api/v1/events/{event}");
        let look = async || {
            let delivery = self.house.get(&path).await["deliveries"][0].clone();
            delivery["ended_ms"].is_number().then_some(delivery)
        };
        self.house.until("the event is handled", look).await
    }

    /// What the handlers of an event wrote.
    pub async fn log(&self, event: &str) -> Vec<String> {
        texts(&self.house.get(&format!("/api/v1/events/{event}/log")).await)
    }

    /// What the handlers of a block wrote.
    pub async fn block_log(&self, name: &str) -> Vec<String> {
        texts(
            &self
                .house
                .get(&format!("{}/log", self.block_path(name)))
                .await,
        )
    }
}

/// The bodies of events.
pub fn bodies(events: &[Value]) -> Vec<Value> {
    events.iter().map(|event| event["body"].clone()).collect()
}
