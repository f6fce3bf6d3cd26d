//! What is due at a time: timers of apps, sleeping events, next runs, schedules.
//!
//! The store is the clock's memory: one task sleeps until the earliest time in
//! it and takes out what is due, many in one step. What was due while the
//! gateway was away is done at its start; of a schedule only the next time counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_std::future::timeout;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sluice_proto::job::Kind;

use crate::gateway::directory::new_id;
use crate::gateway::engine::component::Event;
use crate::gateway::engine::core_blocks::{self, Core, Step as CoreStep};
use crate::gateway::engine::events::{EVENT_BODY_BYTES_MAX, Emission, Fingerprint};
use crate::gateway::engine::expressions::bytes_of;
use crate::gateway::engine::run::canvas::What;
use crate::gateway::engine::run::lives::state_of;
use crate::gateway::engine::run::step::{Step, Todo};
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::engine::schedule::Schedule;
use crate::gateway::engine::schema;
use crate::store::Error;
use crate::store::engine::components::{self, Component};
use crate::store::engine::deliveries::{self, State};
use crate::store::engine::installations;
use crate::store::engine::schedules as custom;
use crate::store::engine::timers::{self, Timer};
use crate::telemetry::now_ms;

/// Timers taken out in one step.
const DUE_MAX: u32 = 128;
/// Timers of one component that wait: an app that sets more has lost count.
const TIMERS_MAX: i64 = 10_000;
/// Longest timer, in seconds: a year, as for the sleep block.
const TIMER_S_MAX: f64 = core_blocks::SLEEP_S_MAX;
/// Timers of one component that are shown.
const SHOWN_MAX: u32 = 100;
/// Longest text among a timer's options, in characters: it is one line.
const TEXT_CHARS_MAX: usize = 2_000;
/// How long the clock sleeps at most, and how long it waits after a failure.
const SLEEP_MAX: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

/// What is due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "due", rename_all = "snake_case")]
pub(super) enum Due {
    /// The next run of a life.
    Run { at_ms: i64 },
    /// An event of a sleep block goes on.
    Wake {
        delivery: i64,
        output: String,
        body: Value,
    },
    /// `onTimer`.
    App {
        payload: Option<Value>,
        pending: Option<String>,
        prompt: Option<String>,
        /// Shown to people.
        description: Option<String>,
    },
    /// A schedule of an app or a block, by its key; a schedule block has none.
    Schedule { key: Option<String> },
}

// === impl Engine ===

impl Engine {
    /// Does what is due, until the engine is stopped.
    pub async fn keep_time(self: Arc<Self>) {
        while !self.ended.is_closed() {
            let pause = match self.do_due().await {
                Ok(pause) => pause,
                Err(fault) => {
                    if !self.ended.is_closed() {
                        tracing::warn!(error = %fault, "What is due could not be done");
                    }
                    AGAIN
                }
            };
            // Woken early by a new timer or the end.
            let _ = timeout(pause, self.wake.1.recv()).await;
        }
    }

    /// The timers that an app or a block has set and that wait, the next first.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn app_timers(&self, component: &str) -> Result<Vec<Value>, Error> {
        let timers = self.store.app_timers(component, SHOWN_MAX).await?;
        let shown = |timer: &Timer| match serde_json::from_str(&timer.due) {
            Ok(Due::App {
                pending,
                prompt,
                description,
                ..
            }) => Some(json!({
                "id": timer.id, "due_ms": timer.due_ms, "description": description,
                "pending_event": pending, "prompt": prompt,
            })),
            _ => None,
        };
        Ok(timers.iter().filter_map(shown).collect())
    }

    /// Answers how long nothing will be due.
    async fn do_due(self: &Arc<Self>) -> Result<Duration, Fault> {
        loop {
            let (done, next) = self
                .step(|step| {
                    Box::pin(async move {
                        let due = timers::take_due(step.tx, step.now_ms, DUE_MAX).await?;
                        let done = due.len();
                        for timer in due {
                            step.fire(timer).await?;
                            step.finish().await?;
                        }
                        Ok((done, timers::next(step.tx).await?))
                    })
                })
                .await?;
            if done == 0 {
                let now_ms = i64::try_from(now_ms()).unwrap_or(i64::MAX);
                let left = next.map(|at| u64::try_from(at - now_ms).unwrap_or(0));
                return Ok(left.map_or(SLEEP_MAX, Duration::from_millis).min(SLEEP_MAX));
            }
        }
    }
}

// === impl Step ===

impl Step<'_> {
    pub(super) async fn set_timer(
        &mut self,
        id: String,
        component: &str,
        due: &Due,
        due_ms: i64,
    ) -> Result<(), Fault> {
        let timer = Timer {
            id,
            component: component.to_owned(),
            due: serde_json::to_string(due).unwrap_or_default(),
            due_ms,
        };
        timers::set(self.tx, &timer).await?;
        self.wake_clock();
        Ok(())
    }

    /// `timers.set(seconds, options)` for a component; answers the timer's id.
    pub(super) async fn set_app_timer(
        &mut self,
        component: &str,
        args: &[Value],
    ) -> Result<Result<Value, String>, Fault> {
        let seconds = args.first().and_then(Value::as_f64).unwrap_or(f64::NAN);
        if !(0.0..=TIMER_S_MAX).contains(&seconds) {
            let sentence = "a timer is set for between 0 seconds and 366 days";
            return Ok(Err(sentence.to_owned()));
        }
        if timers::count(self.tx, component).await? >= TIMERS_MAX {
            return Ok(Err(format!(
                "{TIMERS_MAX} timers are set, which is the limit"
            )));
        }
        let option = |key: &str| args.get(1).and_then(|options| options.get(key));
        let text = |key: &str| option(key).and_then(Value::as_str).map(clip);
        let bytes = option("inputPayload").map_or(0, bytes_of);
        if bytes > EVENT_BODY_BYTES_MAX {
            return Ok(Err(format!(
                "the payload of the timer has {bytes} bytes, more than {EVENT_BODY_BYTES_MAX}"
            )));
        }
        let due = Due::App {
            payload: option("inputPayload").cloned(),
            pending: text("pendingEventId"),
            prompt: text("promptKey"),
            description: text("description"),
        };
        let id = new_id();
        let at_ms = self.now_ms.saturating_add((seconds * 1_000.0) as i64);
        self.set_timer(id.clone(), component, &due, at_ms).await?;
        Ok(Ok(id.into()))
    }

    async fn fire(&mut self, timer: Timer) -> Result<(), Fault> {
        let Ok(due) = serde_json::from_str::<Due>(&timer.due) else {
            tracing::error!(timer = timer.id, "A timer cannot be read and is dropped");
            return Ok(());
        };
        let Some(mut component) = components::get(self.tx, &timer.component).await? else {
            return Ok(());
        };
        match due {
            Due::Run { at_ms } => {
                self.happen(&mut component, Event::Due { at_ms }).await?;
                self.later(Todo::Pump {
                    component: component.id,
                });
                Ok(())
            }
            Due::Wake {
                delivery,
                output,
                body,
            } => self.awake(delivery, &output, body).await,
            Due::App {
                payload,
                pending,
                prompt,
                ..
            } => {
                let mut timer = Map::new();
                payload.map(|payload| timer.insert("payload".to_owned(), payload));
                pending.map(|id| timer.insert("pendingEvent".to_owned(), json!({"id": id})));
                prompt.map(|key| timer.insert("prompt".to_owned(), json!({"key": key})));
                let more = ("timer", Value::Object(timer));
                self.tell(&component, Kind::Timer, &[], Some(more)).await
            }
            Due::Schedule { key } => self.scheduled(&component, key, timer.due_ms).await,
        }
    }

    async fn awake(&mut self, seq: i64, output: &str, body: Value) -> Result<(), Fault> {
        let delivery = deliveries::get(self.tx, seq).await?;
        let Some(delivery) = delivery.filter(|it| it.state == State::Waiting) else {
            return Ok(());
        };
        let canvas = self.canvas(&delivery.flow).await?;
        let node = canvas.as_ref().and_then(|c| c.nodes.get(&delivery.block));
        match (&canvas, node) {
            (Some(canvas), Some(node)) => {
                self.emit_core(canvas, node, &delivery, output, body).await
            }
            _ => self.fail(delivery, "the block was removed").await,
        }
    }

    // === Schedules ===

    /// Sets the next times of a component's schedules. Doing it again changes nothing.
    pub(super) async fn schedules(&mut self, component: &mut Component) -> Result<(), Fault> {
        if !state_of(component)?.takes_events() {
            return Ok(());
        }
        for (key, schedule) in self.schedules_of(component).await? {
            match schedule {
                Ok(schedule) => self.schedule(component, key, &schedule).await?,
                Err(why) => {
                    component.config_error = Some(match key {
                        Some(key) => format!("schedule `{key}`: {why}"),
                        None => format!("config: {why}"),
                    });
                    components::put(self.tx, component).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn schedule(
        &mut self,
        component: &Component,
        key: Option<String>,
        schedule: &Schedule,
    ) -> Result<(), Fault> {
        let id = format!("schedule:{}:{}", component.id, key.as_deref().unwrap_or(""));
        match schedule.next_after(self.now_ms, component.created_ms) {
            Some(at_ms) => {
                let due = Due::Schedule { key };
                self.set_timer(id, &component.id, &due, at_ms).await
            }
            None => Ok(timers::unset(self.tx, &component.id, &id).await?),
        }
    }

    async fn schedules_of(
        &mut self,
        component: &Component,
    ) -> Result<Vec<(Option<String>, Result<Schedule, String>)>, Fault> {
        if let Some(flow) = &component.flow {
            let canvas = self.canvas(flow).await?;
            let node = canvas.as_ref().and_then(|c| c.nodes.get(&component.id));
            if node.is_some_and(|node| node.what == What::Core(Core::Schedule)) {
                let none = Map::new();
                let statics = component.vals.as_ref().unwrap_or(&none);
                let schedule = core_blocks::schedule_of(statics);
                return Ok(vec![(None, schedule.map_err(|error| error.to_string()))]);
            }
        }
        let declared = self.declared_schedules(component).await?;
        if declared.is_empty() {
            return Ok(Vec::new());
        }
        let customized = custom::customized(self.tx, &component.id).await?;
        let parse = |(key, schedule): (String, schema::Schedule)| {
            let own = customized.get(&key).filter(|_| schedule.customizable);
            let read = Schedule::parse(own.unwrap_or(&schedule.definition));
            (Some(key), read.map_err(|error| error.to_string()))
        };
        Ok(declared.into_iter().map(parse).collect())
    }

    /// What the code of an installation or a block declares.
    pub(super) async fn declared_schedules(
        &mut self,
        component: &Component,
    ) -> Result<BTreeMap<String, schema::Schedule>, Fault> {
        if let Some(flow) = &component.flow {
            let canvas = self.canvas(flow).await?;
            let node = canvas.as_ref().and_then(|c| c.nodes.get(&component.id));
            return Ok(node
                .map(|node| node.schema.schedules.clone())
                .unwrap_or_default());
        }
        let installation = installations::get(self.tx, &component.id).await?;
        let Some(installation) = installation else {
            return Ok(BTreeMap::new());
        };
        let app = self.schema(&installation.digest).await?;
        Ok(app.map(|app| app.schedules.clone()).unwrap_or_default())
    }

    /// A schedule is due: it is set anew, and its handler or block is told.
    async fn scheduled(
        &mut self,
        component: &Component,
        key: Option<String>,
        at_ms: i64,
    ) -> Result<(), Fault> {
        if !state_of(component)?.takes_events() {
            return Ok(());
        }
        let schedules = self.schedules_of(component).await?;
        let found = schedules.into_iter().find(|(known, _)| *known == key);
        let Some((_, Ok(schedule))) = found else {
            return Ok(());
        };
        self.schedule(component, key.clone(), &schedule).await?;
        match key {
            Some(key) => {
                let keys = [("schedule", key.as_str())];
                self.tell(component, Kind::Schedule, &keys, None).await
            }
            None => match core_blocks::scheduled(at_ms, &schedule) {
                CoreStep::Emit { output, body } => self.start_chain(component, &output, body).await,
                _ => Ok(()),
            },
        }
    }

    /// A core block emits by itself.
    pub(super) async fn start_chain(
        &mut self,
        component: &Component,
        output: &str,
        body: Value,
    ) -> Result<(), Fault> {
        let Some(flow) = &component.flow else {
            return Ok(());
        };
        let canvas = self.canvas(flow).await?;
        let Some(canvas) = canvas else { return Ok(()) };
        let Some(node) = canvas.nodes.get(&component.id) else {
            return Ok(());
        };
        let emission = Emission {
            output: output.to_owned(),
            fingerprint: Fingerprint::of("core", output, &Value::Null, &Map::new()),
            body,
            primary: None,
            secondary: Vec::new(),
            echo: false,
            completes: None,
        };
        let recorded = self.record(&canvas, node, emission, None).await?;
        recorded.map(|_| ()).map_err(Fault::Bad)
    }
}

fn clip(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
