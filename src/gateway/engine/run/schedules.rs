//! Schedules that people may change, where their app lets them.

use std::sync::Arc;

use serde_json::Value;

use crate::gateway::engine::run::lives::state_of;
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::engine::schedule::Schedule;
use crate::store::engine::components::{self, Component};
use crate::store::engine::schedules;

/// A schedule as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub key: String,
    pub description: Option<String>,
    pub customizable: bool,
    /// The app's.
    pub definition: Value,
    /// Instead of the app's.
    pub customized: Option<Value>,
    /// When it is due, in milliseconds since the Unix epoch; never for a draft.
    pub next_ms: Option<i64>,
}

// === impl Engine ===

impl Engine {
    /// The schedules of an installation's app or of a block, by key.
    pub async fn schedules(self: &Arc<Self>, component: String) -> Result<Vec<Shown>, Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let component = step.scheduling(&component).await?;
                step.schedules_shown(&component).await
            })
        })
        .await
    }

    /// Decides when a schedule is due; `None` leaves it to the app again.
    pub async fn customize_schedule(
        self: &Arc<Self>,
        component: String,
        key: String,
        definition: Option<Value>,
    ) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let component = step.scheduling(&component).await?;
                step.customize_schedule(&component, &key, definition.as_ref())
                    .await
            })
        })
        .await
    }
}

// === impl Step ===

impl Step<'_> {
    async fn scheduling(&mut self, id: &str) -> Result<Component, Fault> {
        let component = components::get(self.tx, id).await?;
        component.ok_or_else(|| Fault::Missing(format!("block or app installation {id}")))
    }

    async fn schedules_shown(&mut self, component: &Component) -> Result<Vec<Shown>, Fault> {
        let mut customized = schedules::customized(self.tx, &component.id).await?;
        let runs = state_of(component)?.takes_events();
        let declared = self.declared_schedules(component).await?.into_iter();
        let shown = declared.map(|(key, declared)| {
            let customized = customized.remove(&key).filter(|_| declared.customizable);
            let definition = customized.as_ref().unwrap_or(&declared.definition);
            let schedule = Schedule::parse(definition).ok().filter(|_| runs);
            let next = |schedule: Schedule| schedule.next_after(self.now_ms, component.created_ms);
            Shown {
                next_ms: schedule.and_then(next),
                description: declared.description,
                customizable: declared.customizable,
                definition: declared.definition,
                customized,
                key,
            }
        });
        Ok(shown.collect())
    }

    async fn customize_schedule(
        &mut self,
        component: &Component,
        key: &str,
        definition: Option<&Value>,
    ) -> Result<(), Fault> {
        let declared = self.declared_schedules(component).await?.remove(key);
        let declared = declared.ok_or_else(|| Fault::Missing(format!("schedule {key}")))?;
        if !declared.customizable {
            let name = &component.name;
            return Err(Fault::Bad(format!(
                "the app of `{name}` does not let its schedule `{key}` be customized"
            )));
        }
        let schedule = Schedule::parse(definition.unwrap_or(&declared.definition))
            .map_err(|error| Fault::Bad(format!("schedule `{key}`: {error}")))?;
        schedules::customize(self.tx, &component.id, key, definition).await?;
        if !state_of(component)?.takes_events() {
            return Ok(());
        }
        self.schedule(component, Some(key.to_owned()), &schedule)
            .await
    }
}
