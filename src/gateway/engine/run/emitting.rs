//! Events on their way out: recorded with what they inherit, customized where
//! the output says so, and delivered to every input that is linked.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::gateway::directory::new_id;
use crate::gateway::engine::events::lineage::Own;
use crate::gateway::engine::events::{Emission, Lineage, unknown_parent};
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::canvas::{Canvas, Node};
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::scopes::View;
use crate::gateway::engine::run::step::{Place, Step, Todo};
use crate::store::engine::events::{self, Event, State};

/// The key of the one expression of a customization job.
const CUSTOMIZED: &str = "body";

// === impl Step ===

impl Step<'_> {
    /// Records an emission of a block as an event and sends it out; answers its
    /// id. The sentence is for whoever emits.
    pub(super) async fn record(
        &mut self,
        canvas: &Canvas,
        node: &Node,
        emission: Emission,
        job: Option<i64>,
    ) -> Result<Result<String, String>, Fault> {
        let id = new_id();
        let own = Own {
            event: &id,
            block: &node.id,
            accessor: &node.accessor,
            echo: emission.echo,
        };
        let lineage = match self.inherit(canvas, &emission, &own).await? {
            Ok(lineage) => lineage,
            Err(why) => return Ok(Err(why)),
        };
        let customization = node.customizations.get(&emission.output);
        let constant = customization.and_then(|customization| customization.constant());
        let body = constant.as_ref().unwrap_or(&emission.body);
        let is_customized = customization.is_some() && constant.is_none();
        let mut event = Event {
            seq: 0,
            id: id.clone(),
            flow: canvas.id.clone(),
            block: Some(node.id.clone()),
            output: Some(emission.output.clone()),
            body: body.to_string(),
            parent: emission.primary,
            secondary: (!emission.secondary.is_empty()).then_some(emission.secondary),
            lineage: serde_json::to_string(&lineage).unwrap_or_default(),
            echo: emission.echo,
            state: State::Sent,
            error: None,
            job,
            fingerprint: job.map(|_| emission.fingerprint.as_str().to_owned()),
            created_ms: self.now_ms,
        };
        if is_customized {
            event.state = State::Customizing;
        } else if self.has_customization(node, &emission.output)
            && events::first_on_hold(self.tx, &node.id, &emission.output)
                .await?
                .is_some()
        {
            event.state = State::Customized;
        }
        events::insert(self.tx, &event).await?;
        match event.state {
            State::Sent => self.fan_out(canvas, &event, &lineage).await?,
            State::Customizing => self.customize(canvas, node, &event, &lineage).await?,
            State::Customized | State::Failed => {}
        }
        Ok(Ok(id))
    }

    /// Whether events of this output may ever wait for one another.
    fn has_customization(&self, node: &Node, output: &str) -> bool {
        node.customizations.contains_key(output)
    }

    async fn inherit(
        &mut self,
        canvas: &Canvas,
        emission: &Emission,
        own: &Own<'_>,
    ) -> Result<Result<Lineage, String>, Fault> {
        let mut primary = None;
        if let Some(parent) = &emission.primary {
            match self.lineage(&canvas.id, parent).await? {
                Some(lineage) => primary = Some(lineage),
                None => return Ok(Err(unknown_parent(parent))),
            }
        }
        let mut secondary = Vec::new();
        for parent in &emission.secondary {
            match self.lineage(&canvas.id, parent).await? {
                Some(lineage) => secondary.push(lineage),
                None => return Ok(Err(unknown_parent(parent))),
            }
        }
        let secondary: Vec<&Lineage> = secondary.iter().collect();
        Ok(Lineage::of(own, primary.as_ref(), &secondary))
    }

    async fn lineage(&mut self, flow: &str, event: &str) -> Result<Option<Lineage>, Fault> {
        let json = events::lineage(self.tx, flow, event).await?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    async fn customize(
        &mut self,
        canvas: &Canvas,
        node: &Node,
        event: &Event,
        lineage: &Lineage,
    ) -> Result<(), Fault> {
        let output = event.output.as_deref().unwrap_or_default();
        let Some(expression) = node.customizations.get(output) else {
            return Ok(());
        };
        let view = View {
            project: &canvas.project,
            canvas: Some(canvas),
            lineage: Some(lineage),
        };
        let scope = match self.scope(&expression.references(), &view).await? {
            Ok(scope) => scope,
            Err(why) => return self.customized(&event.id, Err(why.to_string())).await,
        };
        let sources = BTreeMap::from([(CUSTOMIZED.to_owned(), expression.to_source())]);
        let place = Place {
            project: &canvas.project,
            flow: Some(&canvas.id),
            name: &node.name,
        };
        let purpose = Purpose::Customize {
            event: event.id.clone(),
        };
        match self.evaluate(&place, &sources, scope, purpose).await? {
            Ok(_) => Ok(()),
            Err(why) => self.customized(&event.id, Err(why)).await,
        }
    }

    /// The customization of an event has ended.
    pub(super) async fn customized(
        &mut self,
        id: &str,
        result: Result<Value, String>,
    ) -> Result<(), Fault> {
        let Some(event) = events::get(self.tx, id).await? else {
            return Ok(());
        };
        if event.state != State::Customizing {
            return Ok(());
        }
        match result {
            Ok(value) => {
                let body = value.get(CUSTOMIZED).cloned().unwrap_or_default();
                events::customized(self.tx, id, Some(&body.to_string()), None).await?;
            }
            Err(why) => {
                let why = format!("output customization: {why}");
                events::customized(self.tx, id, None, Some(&why)).await?;
            }
        }
        if let (Some(block), Some(output)) = (event.block, event.output) {
            self.later(Todo::Send { block, output });
        }
        Ok(())
    }

    /// Sends out what may go at an output: the oldest first, up to one that
    /// still waits for its body.
    pub(super) async fn send_next(&mut self, block: &str, output: &str) -> Result<(), Fault> {
        while let Some(event) = events::first_on_hold(self.tx, block, output).await? {
            if event.state == State::Customizing {
                return Ok(());
            }
            events::sent(self.tx, &event.id).await?;
            let Some(canvas) = self.canvas(&event.flow).await? else {
                continue;
            };
            let lineage = serde_json::from_str(&event.lineage).unwrap_or_default();
            self.fan_out(&canvas, &event, &lineage).await?;
        }
        Ok(())
    }

    async fn fan_out(
        &mut self,
        canvas: &Canvas,
        event: &Event,
        lineage: &Lineage,
    ) -> Result<(), Fault> {
        let block = event.block.as_deref().unwrap_or_default();
        let output = event.output.as_deref().unwrap_or_default();
        let Some(node) = canvas.nodes.get(block) else {
            return Ok(());
        };
        for target in node.targets(output) {
            self.deliver(canvas, &event.id, lineage, &target.block, &target.input)
                .await?;
        }
        Ok(())
    }
}
