//! The lives of installations and blocks: what an event does to one, when its
//! config is evaluated, and when a run gets its job.
//!
//! ```text
//!  event ─▶ component::apply ─▶ effects ─▶ rows
//!                    └ a run is due ─▶ config evaluated? ─no─▶ evaluate job ─┐
//!                                          └─yes─▶ sync or drain job ◀───────┘
//! ```

use serde_json::{Map, Value};
use sluice_proto::job::Kind;

use crate::gateway::engine::component::{self, Effect, Event, Outcome, Phase, State};
use crate::gateway::engine::expressions::{Divided, Expression, divide};
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::scopes::View;
use crate::gateway::engine::run::step::{
    HANDLER_MS, Place, Step, Todo, Work, app_identity, handler,
};
use crate::gateway::engine::run::timers::Due;
use crate::gateway::engine::schema::{self, OutputUpdates};
use crate::gateway::engine::types::{fill, sentence};
use crate::store::engine::components::{self, Component};
use crate::store::engine::{deliveries, installations, timers};

/// A component's config and the rules for it.
struct Wanted {
    divided: Divided,
    fields: std::collections::BTreeMap<String, schema::Field>,
}

/// The state at rest as the rules know it.
pub(super) fn state_of(component: &Component) -> Result<State, Fault> {
    serde_json::from_value(component.state.clone())
        .map_err(|error| Fault::Conflict(format!("the stored state of {}: {error}", component.id)))
}

/// The id of the timer that starts a component's next run.
fn run_timer(component: &str) -> String {
    format!("run:{component}")
}

// === impl Step ===

impl Step<'_> {
    /// Lets something happen to a life, and carries out what follows. `false`:
    /// it changed nothing.
    pub(super) async fn happen(
        &mut self,
        component: &mut Component,
        event: Event,
    ) -> Result<bool, Fault> {
        let state = state_of(component)?;
        match component::apply(&state, event, self.now_ms) {
            Outcome::Unchanged => Ok(false),
            Outcome::Denied(reason) => Err(Fault::Conflict(reason)),
            Outcome::Changed { state, effects } => {
                self.become_(component, &state, effects).await?;
                Ok(true)
            }
        }
    }

    /// Stores a state and carries out its effects.
    pub(super) async fn become_(
        &mut self,
        component: &mut Component,
        state: &State,
        effects: Vec<Effect>,
    ) -> Result<(), Fault> {
        component.state = serde_json::to_value(state).unwrap_or_default();
        let mut removed = false;
        for effect in effects {
            match effect {
                Effect::RunSync { .. } | Effect::RunDrain { .. } => self.later(Todo::Pump {
                    component: component.id.clone(),
                }),
                Effect::ScheduleAt { at_ms } => {
                    let id = run_timer(&component.id);
                    let due = Due::Run { at_ms };
                    self.set_timer(id, &component.id, &due, at_ms).await?;
                }
                Effect::Unschedule => {
                    timers::unset(self.tx, &component.id, &run_timer(&component.id)).await?;
                }
                Effect::MergeSignals(updates) => self.merge_signals(component, updates),
                Effect::MergeOutputs(updates) => merge_outputs(component, updates),
                Effect::Remove => removed = true,
            }
        }
        if removed {
            return self.remove(component).await;
        }
        components::put(self.tx, component).await?;
        Ok(())
    }

    fn merge_signals(&mut self, component: &mut Component, updates: Map<String, Value>) {
        let mut changed = Vec::new();
        for (key, value) in updates {
            if component.signals.get(&key) == Some(&value) {
                continue;
            }
            changed.push(key.clone());
            if value.is_null() {
                component.signals.remove(&key);
            } else {
                component.signals.insert(key, value);
            }
        }
        if !changed.is_empty() {
            self.later(Todo::Follow {
                component: component.id.clone(),
                signals: changed,
            });
        }
    }

    async fn remove(&mut self, component: &Component) -> Result<(), Fault> {
        let installation = component.installation.as_deref();
        components::delete(self.tx, &component.id, installation).await?;
        if component.flow.is_none() {
            installations::delete(self.tx, &component.id).await?;
            return Ok(());
        }
        let gone = "the block was removed";
        deliveries::fail_all_of(self.tx, &component.id, gone, self.now_ms).await?;
        match installation {
            Some(installation) => self.delete_if_wanted(installation).await,
            None => Ok(()),
        }
    }

    // === Config ===

    /// Evaluates the static config anew. Constants are known at once; with
    /// expressions a job answers.
    pub(super) async fn evaluate_config(&mut self, component: &mut Component) -> Result<(), Fault> {
        let Some(wanted) = self.wanted(component).await? else {
            return Ok(());
        };
        component.config_number += 1;
        component.config_busy = false;
        if wanted.divided.sources.is_empty() {
            return self.config_known(component, &wanted, Ok(Map::new())).await;
        }
        let canvas = match &component.flow {
            Some(flow) => self.canvas(flow).await?,
            None => None,
        };
        let view = View {
            project: &component.project,
            canvas: canvas.as_deref(),
            lineage: None,
        };
        let scope = match self.scope(&wanted.divided.references, &view).await? {
            Ok(scope) => scope,
            Err(why) => {
                let why = why.in_fields(&wanted.divided.sources);
                return self.config_known(component, &wanted, Err(why)).await;
            }
        };
        let place = Place {
            project: &component.project,
            flow: component.flow.as_deref(),
            name: &component.name,
        };
        let purpose = Purpose::Config {
            component: component.id.clone(),
            number: component.config_number,
        };
        let sources = &wanted.divided.sources;
        match self.evaluate(&place, sources, scope, purpose).await? {
            Ok(_) => {
                component.config_busy = true;
                components::put(self.tx, component).await?;
                Ok(())
            }
            Err(why) => self.config_known(component, &wanted, Err(why)).await,
        }
    }

    /// An evaluation has ended.
    pub(super) async fn config_evaluated(
        &mut self,
        component: &str,
        number: i64,
        result: Result<Value, String>,
    ) -> Result<(), Fault> {
        let Some(mut component) = components::get(self.tx, component).await? else {
            return Ok(());
        };
        // A later one is under way, or was known at once.
        if component.config_number != number || !component.config_busy {
            return Ok(());
        }
        let Some(wanted) = self.wanted(&component).await? else {
            return Ok(());
        };
        component.config_busy = false;
        let result = result.map(|value| match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        });
        self.config_known(&mut component, &wanted, result).await
    }

    async fn config_known(
        &mut self,
        component: &mut Component,
        wanted: &Wanted,
        evaluated: Result<Map<String, Value>, String>,
    ) -> Result<(), Fault> {
        let filled = evaluated.and_then(|evaluated| {
            let mut given = wanted.divided.constants.clone();
            given.extend(evaluated);
            fill(&schema::rules(&wanted.fields), &given).map_err(|wrong| sentence(&wrong))
        });
        match filled {
            Ok(vals) => {
                component.config_error = None;
                component.vals = Some(vals);
            }
            Err(why) => component.config_error = Some(format!("config: {why}")),
        }
        components::put(self.tx, component).await?;
        self.later(Todo::Pump {
            component: component.id.clone(),
        });
        self.config_settled(component).await
    }

    /// Lets everything go on that waited for this config.
    async fn config_settled(&mut self, component: &mut Component) -> Result<(), Fault> {
        self.schedules(component).await?;
        if let Some(flow) = &component.flow {
            self.later(Todo::StartAll {
                flow: flow.clone(),
                block: component.id.clone(),
            });
            return Ok(());
        }
        for block in components::of_installation(self.tx, &component.id).await? {
            if let Some(flow) = &block.flow {
                self.later(Todo::Pump {
                    component: block.id.clone(),
                });
                self.later(Todo::StartAll {
                    flow: flow.clone(),
                    block: block.id.clone(),
                });
            }
        }
        Ok(())
    }

    /// What is written as constants in a config. `None`: there is no schema yet.
    pub(super) async fn constants(
        &mut self,
        component: &Component,
    ) -> Result<Option<Map<String, Value>>, Fault> {
        let wanted = self.wanted(component).await?;
        Ok(wanted.map(|wanted| wanted.divided.constants))
    }

    /// The config as it is written, and its fields. `None`: there is no schema yet.
    async fn wanted(&mut self, component: &Component) -> Result<Option<Wanted>, Fault> {
        if let Some(flow) = &component.flow {
            let Some(canvas) = self.canvas(flow).await? else {
                return Ok(None);
            };
            return Ok(canvas.nodes.get(&component.id).map(|node| Wanted {
                divided: node.config.clone(),
                fields: node.schema.config.clone(),
            }));
        }
        let Some(installation) = installations::get(self.tx, &component.id).await? else {
            return Ok(None);
        };
        let Some(app) = self.schema(&installation.digest).await? else {
            return Ok(None);
        };
        let config: std::collections::BTreeMap<String, Expression> = installation
            .config
            .iter()
            .map(|(key, source)| (key.clone(), Expression::from_source(source)))
            .collect();
        Ok(Some(Wanted {
            divided: divide(&config),
            fields: app.config.clone(),
        }))
    }

    // === Runs ===

    /// Gives a run that is due its job, once it can have one.
    pub(super) async fn pump(&mut self, component: &str) -> Result<(), Fault> {
        let Some(mut component) = components::get(self.tx, component).await? else {
            return Ok(());
        };
        let Some(run) = state_of(&component)?.run else {
            return Ok(());
        };
        let number = i64::try_from(run.number).unwrap_or(i64::MAX);
        if component.started_run >= number || component.config_busy {
            return Ok(());
        }
        if run.phase == Phase::Sync {
            let fault = component.config_error.clone();
            if let Some(reason) = fault {
                let event = Event::RunFailed {
                    run: run.number,
                    reason,
                };
                component.started_run = number;
                self.happen(&mut component, event).await?;
                return Ok(());
            }
            if component.vals.is_none() {
                return self.evaluate_config(&mut component).await;
            }
        }
        let Some(work) = self.run_work(&component, run).await? else {
            return Ok(());
        };
        component.started_run = number;
        components::put(self.tx, &component).await?;
        if let Err(reason) = self.job(work).await? {
            let run = run.number;
            self.happen(&mut component, Event::RunFailed { run, reason })
                .await?;
        }
        Ok(())
    }

    /// `None`: the installation is not there yet.
    async fn run_work(
        &mut self,
        component: &Component,
        run: component::Run,
    ) -> Result<Option<Work>, Fault> {
        let installation = component.installation.as_deref().unwrap_or(&component.id);
        let Some(installation) = installations::get(self.tx, installation).await? else {
            return Ok(None);
        };
        let Some(app) = components::get(self.tx, &installation.id).await? else {
            return Ok(None);
        };
        // A block syncs once its app has a config; it drains with what there is.
        let ready = app.vals.is_some() && state_of(&app)?.takes_events();
        if component.flow.is_some() && run.phase == Phase::Sync && !ready {
            return Ok(None);
        }
        let input = self.handler_input(component, &app).await?;
        let key = component
            .flow
            .is_some()
            .then_some(component.kind.as_deref())
            .flatten();
        let app = (&app, &installation);
        let payload = self.payload(handler(key, &[]), input, component, app);
        let payload = payload.await?;
        Ok(Some(Work {
            kind: match run.phase {
                Phase::Sync => Kind::Sync,
                Phase::Drain => Kind::Drain,
            },
            identity: app_identity(&installation.id, &installation.digest),
            pool: installation.pool,
            project: installation.project,
            block: component.flow.is_some().then(|| component.name.clone()),
            timeout_ms: HANDLER_MS,
            high: false,
            purpose: Purpose::Run {
                component: component.id.clone(),
                flow: component.flow.clone(),
                run: run.number,
            },
            payload,
        }))
    }
}

fn merge_outputs(component: &mut Component, updates: OutputUpdates) {
    let mut known: OutputUpdates =
        serde_json::from_value(component.outputs.clone()).unwrap_or_default();
    schema::merge_updates(&mut known, updates);
    component.outputs = serde_json::to_value(known).unwrap_or_default();
}
