//! Signals on their way: who follows one is brought up to date.

use crate::gateway::engine::component::Event;
use crate::gateway::engine::expressions::{Expression, References};
use crate::gateway::engine::names;
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::lives::state_of;
use crate::gateway::engine::run::step::Step;
use crate::store::engine::components::{self, Component};
use crate::store::engine::{flows, installations};

// === impl Step ===

impl Step<'_> {
    /// Brings up to date whose config refers to one of these signals.
    pub(super) async fn follow(&mut self, owner: &str, signals: &[String]) -> Result<(), Fault> {
        let Some(owner) = components::get(self.tx, owner).await? else {
            return Ok(());
        };
        let flows = match &owner.flow {
            Some(flow) => vec![flow.clone()],
            None => {
                self.follow_in_installations(&owner, signals).await?;
                flows::of_project(self.tx, &owner.project).await?
            }
        };
        for flow in flows {
            self.follow_in_flow(&flow, &owner, signals).await?;
        }
        Ok(())
    }

    async fn follow_in_flow(
        &mut self,
        flow: &str,
        owner: &Component,
        signals: &[String],
    ) -> Result<(), Fault> {
        let Some(canvas) = self.canvas(flow).await? else {
            return Ok(());
        };
        let followers: Vec<String> = canvas
            .nodes
            .values()
            .filter(|node| {
                let mut owners = node.config.references.signals.iter();
                let named = owners.any(|(accessor, _)| {
                    let block = canvas.signal_owner(accessor).map(|node| node.id.as_str());
                    let installed = canvas.installation_called(accessor).or_else(|| {
                        (names::accessor(&owner.name) == *accessor).then_some(&*owner.id)
                    });
                    block.or(installed) == Some(&owner.id)
                        && follows(&node.config.references, accessor, signals)
                });
                named || node.config.references.all_signals
            })
            .map(|node| node.id.clone())
            .collect();
        for follower in followers {
            self.refresh(&follower, Event::SignalChanged).await?;
        }
        Ok(())
    }

    async fn follow_in_installations(
        &mut self,
        owner: &Component,
        signals: &[String],
    ) -> Result<(), Fault> {
        let accessor = names::accessor(&owner.name);
        for installation in installations::of_project(self.tx, &owner.project).await? {
            let mut references = References::default();
            for source in installation.config.values() {
                references.merge(Expression::from_source(source).references());
            }
            if installation.id != owner.id && follows(&references, &accessor, signals) {
                self.refresh(&installation.id, Event::SignalChanged).await?;
            }
        }
        Ok(())
    }

    /// Evaluates a component's config anew and lets it sync.
    pub(super) async fn refresh(&mut self, component: &str, event: Event) -> Result<(), Fault> {
        let Some(mut component) = components::get(self.tx, component).await? else {
            return Ok(());
        };
        let state = state_of(&component)?;
        // A draft is evaluated once it is confirmed; what goes away stays as it is.
        if !state.takes_events() {
            return Ok(());
        }
        self.evaluate_config(&mut component).await?;
        self.happen(&mut component, event).await?;
        Ok(())
    }
}

fn follows(references: &References, accessor: &str, signals: &[String]) -> bool {
    signals
        .iter()
        .any(|signal| references.follows(accessor, signal))
}
