//! What handlers are given: the app, the block, and what happened.

use serde_json::{Map, Value, json};

use crate::gateway::engine::run::canvas::Node;
use crate::gateway::engine::run::lives::state_of;
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::engine::schema::{OutputUpdates, effective_outputs};
use crate::store::Error;
use crate::store::engine::components::{self, Component};
use crate::store::engine::installations::Installation;

// === impl Engine ===

impl Engine {
    /// Where an installation is reached over HTTP.
    pub fn app_url(&self, installation: &str) -> String {
        self.addresses.endpoint(installation)
    }

    /// Where a block of an app is reached over HTTP: below its app.
    pub fn block_url(&self, installation: &str, block: &str) -> String {
        format!("{}/blocks/{block}", self.app_url(installation))
    }

    /// What an app tells whoever installs it, in Markdown with the addresses of
    /// this installation.
    pub async fn instructions(&self, it: &Installation) -> Result<Option<String>, Error> {
        let app = self.schema_of(&it.digest).await?;
        let text = app.and_then(|app| app.installation_instructions.clone());
        Ok(text.map(|text| addressed(&text, &self.app_url(&it.id))))
    }
}

/// A text with an endpoint's address in the places that are kept for it.
fn addressed(text: &str, url: &str) -> String {
    let (_, host) = url.split_once("://").unwrap_or(("", url));
    let host = host.split('/').next().unwrap_or_default();
    text.replace("{appEndpointUrl}", url)
        .replace("{appEndpointHost}", host)
}

// === impl Step ===

impl Step<'_> {
    /// `{app}` or `{app, block}` for a handler of a component; `app` is its
    /// installation's.
    pub(super) async fn handler_input(
        &mut self,
        component: &Component,
        app: &Component,
    ) -> Result<Map<String, Value>, Fault> {
        let mut input = Map::new();
        input.insert("app".to_owned(), self.app_context(app).await?);
        if let Some(flow) = &component.flow {
            let canvas = self.canvas(flow).await?;
            let node = canvas.as_ref().and_then(|c| c.nodes.get(&component.id));
            let block = block_context(&self.engine, component, node)?;
            input.insert("block".to_owned(), block);
        }
        Ok(input)
    }

    async fn app_context(&mut self, app: &Component) -> Result<Value, Fault> {
        let prompts = components::prompts(self.tx, &app.id).await?;
        Ok(json!({
            "config": app.vals.clone().unwrap_or_default(),
            "signals": app.signals,
            "prompts": prompts,
            "http": {"url": self.engine.app_url(&app.id)},
            "installationUrl": format!("{}/ui/installations/{}", self.engine.addresses.base(), app.id),
        }))
    }
}

/// A block that is no longer in its flow (it drains) has no node.
fn block_context(engine: &Engine, block: &Component, node: Option<&Node>) -> Result<Value, Fault> {
    let state = state_of(block)?;
    let mut context = json!({
        "id": block.id,
        "name": block.name,
        "config": block.vals.clone().unwrap_or_default(),
    });
    if let Some(description) = node.and_then(|node| node.description.as_ref()) {
        context["description"] = json!(description);
    }
    if let Some(installation) = &block.installation {
        context["http"] = json!({"url": engine.block_url(installation, &block.id)});
    }
    // Undefined before the first sync: apps ask for it with `?.`.
    let lifecycle = if state.runs > 0 {
        json!({"status": state.status, "signals": block.signals})
    } else {
        json!({"status": state.status})
    };
    context["lifecycle"] = lifecycle;
    if let Some(node) = node {
        let updates: OutputUpdates =
            serde_json::from_value(block.outputs.clone()).unwrap_or_default();
        let (outputs, modified) = effective_outputs(&node.schema, &updates);
        let outputs: Map<String, Value> = outputs
            .into_iter()
            .map(|(key, output)| {
                let mut value = serde_json::to_value(output).unwrap_or_default();
                value["modified"] = modified.contains(&key).into();
                (key, value)
            })
            .collect();
        context["outputs"] = Value::Object(outputs);
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_name_the_address_of_the_installation() {
        let text = "<copyable>{appEndpointUrl}/hook</copyable> at {appEndpointHost}";
        for (url, wanted) in [
            (
                "http://g:3000/endpoints/i",
                "<copyable>http://g:3000/endpoints/i/hook</copyable> at g:3000",
            ),
            (
                "https://i.endpoints.e.org",
                "<copyable>https://i.endpoints.e.org/hook</copyable> at i.endpoints.e.org",
            ),
        ] {
            assert_eq!(addressed(text, url), wanted);
        }
    }
}
