//! Deliveries: from an event at an input to the end of its handler.
//!
//! ```text
//!  EVALUATING ──config known──▶ READY ──the older ones have started──▶ STARTED ──▶ DONE │ FAILED
//!                                                    └ core blocks: at once, or WAITING ─┘
//! ```
//!
//! Handlers of one input start in the order in which their events came; they
//! may end in any order. A failed one can be replayed.

use serde_json::{Map, Value, json};
use sluice_proto::job::Kind;

use crate::gateway::engine::events::Lineage;
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::canvas::{Canvas, Node, What};
use crate::gateway::engine::run::lives::state_of;
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::scopes::View;
use crate::gateway::engine::run::step::{
    HANDLER_MS, Place, Step, Todo, Work, app_identity, handler,
};
use crate::gateway::engine::schema;
use crate::gateway::engine::types::{fill, sentence};
use crate::store::engine::components::{self, Component};
use crate::store::engine::deliveries::{self, Delivery, State};
use crate::store::engine::{events, installations};

/// What comes of starting one.
pub(super) enum Started {
    /// It runs, sleeps, or has ended.
    On,
    /// Something is not known yet; it is started again when it is.
    Hold,
    /// It cannot: one sentence.
    Failed(String),
}

// === impl Step ===

impl Step<'_> {
    /// Brings an event to an input.
    pub(super) async fn deliver(
        &mut self,
        canvas: &Canvas,
        event: &str,
        lineage: &Lineage,
        block: &str,
        input: &str,
    ) -> Result<i64, Fault> {
        let mut delivery = Delivery {
            seq: 0,
            event: event.to_owned(),
            flow: canvas.id.clone(),
            block: block.to_owned(),
            input: input.to_owned(),
            state: State::Ready,
            error: None,
            job: None,
            config: None,
            tries: 1,
            created_ms: self.now_ms,
            ended_ms: None,
        };
        let has_sources = canvas
            .nodes
            .get(block)
            .and_then(|node| node.inputs.get(input))
            .is_some_and(|config| !config.sources.is_empty());
        if has_sources {
            delivery.state = State::Evaluating;
        }
        delivery.seq = deliveries::insert(self.tx, &delivery).await?;
        if has_sources {
            self.evaluate_input(canvas, delivery.clone(), lineage)
                .await?;
        } else {
            self.later(Todo::Start {
                block: block.to_owned(),
                input: input.to_owned(),
            });
        }
        Ok(delivery.seq)
    }

    async fn evaluate_input(
        &mut self,
        canvas: &Canvas,
        delivery: Delivery,
        lineage: &Lineage,
    ) -> Result<(), Fault> {
        let Some(node) = canvas.nodes.get(&delivery.block) else {
            return Ok(());
        };
        let Some(config) = node.inputs.get(&delivery.input) else {
            return Ok(());
        };
        let view = View {
            project: &canvas.project,
            canvas: Some(canvas),
            lineage: Some(lineage),
        };
        let scope = match self.scope(&config.references, &view).await? {
            Ok(scope) => scope,
            Err(why) => {
                let why = why.in_fields(&config.sources);
                return self.fail(delivery, &why).await;
            }
        };
        let place = Place {
            project: &canvas.project,
            flow: Some(&canvas.id),
            name: &node.name,
        };
        let purpose = Purpose::Inputs {
            delivery: delivery.seq,
        };
        match self
            .evaluate(&place, &config.sources, scope, purpose)
            .await?
        {
            Ok(job) => {
                let delivery = Delivery {
                    job: Some(job),
                    ..delivery
                };
                Ok(deliveries::update(self.tx, &delivery).await?)
            }
            Err(why) => self.fail(delivery, &why).await,
        }
    }

    /// The config of an input is known, or is not.
    pub(super) async fn input_evaluated(
        &mut self,
        seq: i64,
        result: Result<Value, String>,
    ) -> Result<(), Fault> {
        let Some(mut delivery) = deliveries::get(self.tx, seq).await? else {
            return Ok(());
        };
        if delivery.state != State::Evaluating {
            return Ok(());
        }
        match result {
            Ok(Value::Object(config)) => {
                delivery.config = Some(config);
                delivery.state = State::Ready;
                deliveries::update(self.tx, &delivery).await?;
            }
            Ok(_) => return self.fail(delivery, "the evaluation gave no values").await,
            Err(why) => return self.fail(delivery, &why).await,
        }
        self.later(Todo::Start {
            block: delivery.block,
            input: delivery.input,
        });
        Ok(())
    }

    /// Starts what may start at an input, the oldest first.
    pub(super) async fn start_next(&mut self, block: &str, input: &str) -> Result<(), Fault> {
        while let Some(delivery) = deliveries::first_on_hold(self.tx, block, input).await? {
            if delivery.state == State::Evaluating {
                return Ok(());
            }
            match self.start(&delivery).await? {
                Started::On => {}
                Started::Hold => return Ok(()),
                Started::Failed(why) => self.fail(delivery, &why).await?,
            }
        }
        Ok(())
    }

    pub(super) async fn start_all(&mut self, flow: &str, block: &str) -> Result<(), Fault> {
        let Some(canvas) = self.canvas(flow).await? else {
            return Ok(());
        };
        let Some(node) = canvas.nodes.get(block) else {
            return Ok(());
        };
        for input in node.schema.inputs.keys() {
            self.later(Todo::Start {
                block: block.to_owned(),
                input: input.clone(),
            });
        }
        Ok(())
    }

    async fn start(&mut self, delivery: &Delivery) -> Result<Started, Fault> {
        let Some(canvas) = self.canvas(&delivery.flow).await? else {
            return Ok(Started::Failed("the flow was removed".to_owned()));
        };
        let Some(node) = canvas.nodes.get(&delivery.block) else {
            return Ok(Started::Failed("the block was removed".to_owned()));
        };
        let Some(component) = components::get(self.tx, &delivery.block).await? else {
            return Ok(Started::Failed("the block was removed".to_owned()));
        };
        if let Some(held) = not_ready(&component, "the block")? {
            return Ok(held);
        }
        let given = given(node, delivery);
        let rules = node.schema.inputs.get(&delivery.input);
        let rules = rules.map(|input| schema::rules(&input.config));
        let filled = match fill(&rules.unwrap_or_default(), &given) {
            Ok(filled) => filled,
            Err(wrong) => return Ok(Started::Failed(sentence(&wrong))),
        };
        match &node.what {
            What::Core(core) => {
                self.start_core(&canvas, node, *core, &component, delivery, &filled)
                    .await
            }
            What::App {
                block,
                installation,
            } => {
                let block = (block.as_str(), installation.as_str());
                self.start_app(node, block, &component, delivery, filled)
                    .await
            }
            What::Orphan => Ok(Started::Failed(
                "the block's app installation does not exist".to_owned(),
            )),
        }
    }

    async fn start_app(
        &mut self,
        node: &Node,
        (key, installation): (&str, &str),
        component: &Component,
        delivery: &Delivery,
        config: Map<String, Value>,
    ) -> Result<Started, Fault> {
        let installed = installations::get(self.tx, installation).await?;
        let app = components::get(self.tx, installation).await?;
        let (Some(installed), Some(app)) = (installed, app) else {
            let gone = "the block's app installation was removed";
            return Ok(Started::Failed(gone.to_owned()));
        };
        if let Some(held) = not_ready(&app, "the app installation")? {
            return Ok(held);
        }
        let handles = node.schema.inputs.get(&delivery.input);
        if !handles.is_some_and(|input| input.has_on_event) {
            return Ok(Started::Failed(format!(
                "the block has no handler for events at input `{}`",
                delivery.input
            )));
        }
        let mut input = self.handler_input(component, &app).await?;
        let mut event = json!({"id": delivery.event, "inputConfig": config});
        if let Some(echo) = self.echo(delivery).await? {
            event["echo"] = json!({"body": echo});
        }
        input.insert("event".to_owned(), event);
        let handler = handler(Some(key), &[("input", &delivery.input)]);
        let app = (&app, &installed);
        let payload = self.payload(handler, input, component, app).await?;
        let work = Work {
            kind: Kind::Event,
            identity: app_identity(&installed.id, &installed.digest),
            pool: installed.pool,
            project: installed.project,
            block: Some(node.name.clone()),
            timeout_ms: HANDLER_MS,
            high: false,
            purpose: Purpose::Handle {
                delivery: delivery.seq,
                event: delivery.event.clone(),
                flow: delivery.flow.clone(),
                component: component.id.clone(),
            },
            payload,
        };
        match self.job(work).await? {
            Err(why) => Ok(Started::Failed(why)),
            Ok(job) => {
                self.started(delivery, job).await?;
                Ok(Started::On)
            }
        }
    }

    /// Notes the job that a delivery's handler runs in.
    pub(super) async fn started(&mut self, delivery: &Delivery, job: i64) -> Result<(), Fault> {
        let started = Delivery {
            state: State::Started,
            job: Some(job),
            ..delivery.clone()
        };
        Ok(deliveries::update(self.tx, &started).await?)
    }

    /// The body that the block has asked to see again with this event.
    async fn echo(&mut self, delivery: &Delivery) -> Result<Option<Value>, Fault> {
        let json = events::lineage(self.tx, &delivery.flow, &delivery.event).await?;
        let lineage: Option<Lineage> = json.and_then(|json| serde_json::from_str(&json).ok());
        let echo = lineage.and_then(|lineage| lineage.echo_for(&delivery.block).map(str::to_owned));
        match echo {
            Some(event) => Ok(events::body(self.tx, &event).await?),
            None => Ok(None),
        }
    }

    /// Ends a delivery badly: visible, and to be replayed by a person.
    pub(super) async fn fail(&mut self, delivery: Delivery, why: &str) -> Result<(), Fault> {
        let was_on_hold = matches!(delivery.state, State::Evaluating | State::Ready);
        let failed = Delivery {
            state: State::Failed,
            error: Some(why.to_owned()),
            ended_ms: Some(self.now_ms),
            ..delivery
        };
        deliveries::update(self.tx, &failed).await?;
        if was_on_hold {
            self.later(Todo::Start {
                block: failed.block,
                input: failed.input,
            });
        }
        Ok(())
    }

    /// Does a failed delivery once more, from its event on.
    pub(super) async fn replay(&mut self, seq: i64) -> Result<(), Fault> {
        let Some(mut delivery) = deliveries::get(self.tx, seq).await? else {
            return Err(Fault::Missing(format!("delivery {seq}")));
        };
        if delivery.state != State::Failed {
            let state = delivery.state.as_str();
            return Err(Fault::Conflict(format!(
                "delivery {seq} is {state}: only a failed one can be replayed"
            )));
        }
        let canvas = self.canvas(&delivery.flow).await?;
        let lineage = events::lineage(self.tx, &delivery.flow, &delivery.event).await?;
        let (Some(canvas), Some(lineage)) = (canvas, lineage) else {
            return Err(Fault::Conflict(
                "the event or its flow is no longer there".to_owned(),
            ));
        };
        let sources = canvas
            .nodes
            .get(&delivery.block)
            .and_then(|node| node.inputs.get(&delivery.input))
            .is_some_and(|config| !config.sources.is_empty());
        delivery.tries += 1;
        delivery.error = None;
        delivery.ended_ms = None;
        delivery.config = None;
        delivery.state = if sources {
            State::Evaluating
        } else {
            State::Ready
        };
        deliveries::update(self.tx, &delivery).await?;
        if sources {
            let lineage = serde_json::from_str(&lineage).unwrap_or_default();
            return self.evaluate_input(&canvas, delivery, &lineage).await;
        }
        self.later(Todo::Start {
            block: delivery.block,
            input: delivery.input,
        });
        Ok(())
    }
}

/// Why a component takes no events at present, if so.
fn not_ready(component: &Component, who: &str) -> Result<Option<Started>, Fault> {
    let state = state_of(component)?;
    if state.deleting {
        let why = format!("{who} `{}` is being removed", component.name);
        return Ok(Some(Started::Failed(why)));
    }
    if !state.takes_events() {
        let why = format!("{who} `{}` is a draft: confirm it first", component.name);
        return Ok(Some(Started::Failed(why)));
    }
    if component.vals.is_some() {
        return Ok(None);
    }
    Ok(Some(match &component.config_error {
        Some(error) if !component.config_busy => {
            Started::Failed(format!("{who} `{}`: {error}", component.name))
        }
        _ => Started::Hold,
    }))
}

/// The config of the input as it is given: constants, and what was evaluated.
fn given(node: &Node, delivery: &Delivery) -> Map<String, Value> {
    let constants = node.inputs.get(&delivery.input);
    let mut given = constants
        .map(|config| config.constants.clone())
        .unwrap_or_default();
    given.extend(delivery.config.clone().unwrap_or_default());
    given
}
