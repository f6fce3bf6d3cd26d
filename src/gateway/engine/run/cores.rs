//! What core blocks do with an event: at once, later, or in a runtime.

use serde_json::{Map, Value};

use crate::gateway::engine::core_blocks::{self, Core, Step as CoreStep};
use crate::gateway::engine::events::{Emission, Fingerprint, Lineage};
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::canvas::{Canvas, Node};
use crate::gateway::engine::run::deliveries::Started;
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::run::timers::Due;
use crate::store::engine::components::Component;
use crate::store::engine::deliveries::{self, Delivery, State};
use crate::store::engine::events;

// === impl Step ===

impl Step<'_> {
    pub(super) async fn start_core(
        &mut self,
        canvas: &Canvas,
        node: &Node,
        core: Core,
        component: &Component,
        delivery: &Delivery,
        config: &Map<String, Value>,
    ) -> Result<Started, Fault> {
        let none = Map::new();
        let statics = component.vals.as_ref().unwrap_or(&none);
        let body = events::body(self.tx, &delivery.event).await?;
        let body = body.unwrap_or_default();
        let input = &delivery.input;
        match core_blocks::step(core, input, statics, config, &body, self.now_ms) {
            Err(why) => Ok(Started::Failed(why)),
            Ok(CoreStep::Emit { output, body }) => {
                self.emit_core(canvas, node, delivery, &output, body)
                    .await?;
                Ok(Started::On)
            }
            Ok(CoreStep::EmitAt {
                at_ms,
                output,
                body,
            }) => {
                let due = Due::Wake {
                    delivery: delivery.seq,
                    output,
                    body,
                };
                let id = format!("wake:{}", delivery.seq);
                self.set_timer(id, &delivery.block, &due, at_ms).await?;
                let waiting = Delivery {
                    state: State::Waiting,
                    ..delivery.clone()
                };
                deliveries::update(self.tx, &waiting).await?;
                Ok(Started::On)
            }
            Ok(CoreStep::Request { request, pool }) => {
                let pool = pool.as_deref();
                let started = self.start_request(canvas, node, delivery, request, pool);
                Ok(match started.await? {
                    Ok(()) => Started::On,
                    Err(why) => Started::Failed(why),
                })
            }
            Ok(CoreStep::Respond { args }) => self.start_respond(node, delivery, &args).await,
        }
    }

    /// Answers the open request that the chain of this event began with.
    async fn start_respond(
        &mut self,
        node: &Node,
        delivery: &Delivery,
        args: &Value,
    ) -> Result<Started, Fault> {
        let json = events::lineage(self.tx, &delivery.flow, &delivery.event).await?;
        let lineage: Option<Lineage> = json.and_then(|json| serde_json::from_str(&json).ok());
        let event = lineage.and_then(|lineage| lineage.outputs.get(&node.accessor).cloned());
        let request = match event {
            Some(event) => events::body(self.tx, &event).await?,
            None => None,
        };
        let id = request.as_ref().and_then(|body| body["requestId"].as_str());
        let Some(id) = id else {
            return Ok(Started::Failed(
                "the event does not come from a request to this block".to_owned(),
            ));
        };
        if let Err(why) = self.answer(id, &delivery.flow, args) {
            return Ok(Started::Failed(why));
        }
        let done = Delivery {
            state: State::Done,
            ended_ms: Some(self.now_ms),
            ..delivery.clone()
        };
        deliveries::update(self.tx, &done).await?;
        Ok(Started::On)
    }

    /// Ends the delivery of a core block with the event it emits.
    pub(super) async fn emit_core(
        &mut self,
        canvas: &Canvas,
        node: &Node,
        delivery: &Delivery,
        output: &str,
        body: Value,
    ) -> Result<(), Fault> {
        let emission = Emission {
            output: output.to_owned(),
            fingerprint: Fingerprint::of("core", output, &Value::Null, &Map::new()),
            body,
            primary: Some(delivery.event.clone()),
            secondary: Vec::new(),
            echo: false,
            completes: None,
        };
        match self.record(canvas, node, emission, None).await? {
            Ok(_) => {
                let done = Delivery {
                    state: State::Done,
                    ended_ms: Some(self.now_ms),
                    ..delivery.clone()
                };
                Ok(deliveries::update(self.tx, &done).await?)
            }
            Err(why) => self.fail(delivery.clone(), &why).await,
        }
    }
}
