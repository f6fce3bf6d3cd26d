//! App installations: made, configured, confirmed, given other code, removed.
//!
//! ```text
//!  install ─▶ describe job ─▶ schema known ─▶ (confirmed, or asked to be) ─▶ config ─▶ onSync
//! ```
//!
//! Until its code has said what is in it, an installation has no abilities and
//! stays a draft; a wish to confirm it is kept and done then.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::gateway::directory::new_id;
use crate::gateway::engine::component::{Abilities, Event, Owner, State};
use crate::gateway::engine::expressions::{Expression, SOURCE_BYTES_MAX};
use crate::gateway::engine::run::lives::state_of;
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::step::{DESCRIBE_MS, Step, Work, app_identity};
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::engine::schema;
use crate::gateway::engine::types::{changed_fixed_fields, sentence};
use crate::store::apps::Version;
use crate::store::engine::components::{self, Component};
use crate::store::engine::flows;
use crate::store::engine::installations::{self, Described, Installation};
use crate::store::engine::steps;

/// What an installation is made of.
pub struct Install {
    pub project: String,
    pub name: String,
    pub version: Version,
    /// Id of a pool that is exposed to the project.
    pub pool: String,
    /// Field → JavaScript source.
    pub config: BTreeMap<String, String>,
    pub style: Option<Value>,
    pub confirm: bool,
}

/// Field → source, or `None` to take a field away.
pub type ConfigChange = BTreeMap<String, Option<String>>;

// === impl Engine ===

impl Engine {
    /// Makes an installation; answers its id.
    pub async fn install(self: &Arc<Self>, install: Install) -> Result<String, Fault> {
        install
            .config
            .values()
            .try_for_each(|source| source_fits(source))?;
        self.step(move |step| Box::pin(async move { step.install(install).await }))
            .await
    }

    pub async fn confirm_installation(self: &Arc<Self>, id: String) -> Result<(), Fault> {
        self.step(move |step| Box::pin(async move { step.confirm_installation(&id).await }))
            .await
    }

    /// Changes fields of the config, all or none.
    pub async fn configure(
        self: &Arc<Self>,
        id: String,
        change: ConfigChange,
    ) -> Result<(), Fault> {
        change
            .values()
            .flatten()
            .try_for_each(|source| source_fits(source))?;
        self.step(move |step| Box::pin(async move { step.configure(&id, change).await }))
            .await
    }

    /// Another name or look.
    pub async fn restyle(
        self: &Arc<Self>,
        id: String,
        name: String,
        style: Option<Value>,
    ) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let (mut installation, mut component) = step.installed(&id).await?;
                component.name.clone_from(&name);
                installation.name = name;
                installation.style = style;
                installations::put(step.tx, &installation).await?;
                components::put(step.tx, &component).await?;
                Ok(())
            })
        })
        .await
    }

    /// Other code for an installation.
    pub async fn upgrade(self: &Arc<Self>, id: String, version: Version) -> Result<(), Fault> {
        self.step(move |step| Box::pin(async move { step.upgrade(&id, version).await }))
            .await
    }

    /// Lets an installation sync once more.
    pub async fn sync_component(self: &Arc<Self>, id: String) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let component = components::get(step.tx, &id).await?;
                let mut component = component.ok_or_else(|| Fault::Missing(id.clone()))?;
                step.evaluate_config(&mut component).await?;
                step.happen(&mut component, Event::SyncRequested).await?;
                Ok(())
            })
        })
        .await
    }

    /// Drains and removes an installation. Its blocks must be gone or on their way.
    pub async fn uninstall(self: &Arc<Self>, id: String) -> Result<(), Fault> {
        self.step(move |step| Box::pin(async move { step.uninstall(&id).await }))
            .await
    }
}

// === impl Step ===

impl Step<'_> {
    async fn install(&mut self, install: Install) -> Result<String, Fault> {
        let id = new_id();
        let installation = Installation {
            id: id.clone(),
            project: install.project.clone(),
            name: install.name.clone(),
            version: install.version.id,
            digest: install.version.digest,
            pool: install.pool,
            config: install.config,
            style: install.style,
            confirm_wanted: install.confirm,
            delete_wanted: false,
            created_ms: self.now_ms,
        };
        installations::put(self.tx, &installation).await?;
        let (state, _) = State::created(Owner::Installation, Abilities::default(), false);
        let mut component = Component {
            id: id.clone(),
            project: install.project,
            flow: None,
            installation: None,
            kind: None,
            name: install.name,
            state: serde_json::to_value(&state).unwrap_or_default(),
            vals: None,
            config_number: 0,
            config_busy: false,
            config_error: None,
            started_run: 0,
            signals: serde_json::Map::new(),
            outputs: json!({}),
            widget: None,
            created_ms: self.now_ms,
        };
        components::put(self.tx, &component).await?;
        match self.schema(&installation.digest).await? {
            Some(app) => self.code_known(installation, &mut component, &app).await?,
            None => self.describe(&installation).await?,
        }
        Ok(id)
    }

    pub(super) async fn installed(&mut self, id: &str) -> Result<(Installation, Component), Fault> {
        let missing = || Fault::Missing(format!("app installation {id}"));
        let installation = installations::get(self.tx, id).await?.ok_or_else(missing)?;
        let component = components::get(self.tx, id).await?.ok_or_else(missing)?;
        Ok((installation, component))
    }

    /// Asks the code what is in it, on the installation's own pool: elsewhere it
    /// has no business.
    async fn describe(&mut self, installation: &Installation) -> Result<(), Fault> {
        let known = installations::described(self.tx, &installation.digest).await?;
        // Another installation may have asked in a pool that has no agent.
        if known == Described::Asked
            && steps::is_being_described(self.tx, &installation.digest, &installation.pool).await?
        {
            return Ok(());
        }
        installations::describe(self.tx, &installation.digest, &Described::Asked).await?;
        let work = Work {
            kind: Kind::Describe,
            identity: app_identity(&installation.id, &installation.digest),
            pool: installation.pool.clone(),
            project: installation.project.clone(),
            block: None,
            timeout_ms: DESCRIBE_MS,
            high: false,
            purpose: Purpose::Describe {
                digest: installation.digest.clone(),
            },
            payload: json!({}),
        };
        self.job(work).await?.map_err(Fault::Bad)?;
        Ok(())
    }

    /// Code has said what is in it, or could not.
    pub(super) async fn described(
        &mut self,
        digest: &str,
        result: Result<Value, String>,
    ) -> Result<(), Fault> {
        let known = installations::described(self.tx, digest).await?;
        if matches!(known, Described::Schema(_)) {
            return Ok(());
        }
        let read = result.and_then(|value| {
            let json = value.to_string();
            let app = schema::App::read(json.as_bytes()).map_err(|error| error.to_string())?;
            Ok((json, app))
        });
        let (known, app) = match read {
            Ok((json, app)) => (Described::Schema(json), Some(app)),
            Err(why) => (Described::Error(why), None),
        };
        installations::describe(self.tx, digest, &known).await?;
        let Some(app) = app else {
            return Ok(());
        };
        for installation in installations::of_digest(self.tx, digest).await? {
            if let Some(mut component) = components::get(self.tx, &installation.id).await? {
                self.code_known(installation, &mut component, &app).await?;
            }
        }
        Ok(())
    }

    /// An installation has code whose schema is known: for the first time, or other code.
    async fn code_known(
        &mut self,
        mut installation: Installation,
        component: &mut Component,
        app: &schema::App,
    ) -> Result<(), Fault> {
        flows::touch_users(self.tx, &installation.id, &new_id()).await?;
        self.look_anew();
        let abilities = Abilities::from(app.handlers);
        if state_of(component)?.status == crate::gateway::engine::component::Status::Draft {
            let confirm = installation.confirm_wanted || app.autoconfirm;
            let (state, effects) = State::created(Owner::Installation, abilities, confirm);
            installation.confirm_wanted = false;
            installations::put(self.tx, &installation).await?;
            self.become_(component, &state, effects).await?;
            // After that: a draft has no schedules yet.
            if confirm {
                self.evaluate_config(component).await?;
            }
            return Ok(());
        }
        self.evaluate_config(component).await?;
        self.happen(component, Event::CodeChanged(abilities))
            .await?;
        for mut block in components::of_installation(self.tx, &installation.id).await? {
            self.block_code_changed(&mut block, app).await?;
        }
        Ok(())
    }

    async fn block_code_changed(
        &mut self,
        block: &mut Component,
        app: &schema::App,
    ) -> Result<(), Fault> {
        let handlers = block.kind.as_ref().and_then(|kind| app.blocks.get(kind));
        let abilities = Abilities::from(handlers.map(|block| block.handlers).unwrap_or_default());
        if state_of(block)?.takes_events() {
            self.evaluate_config(block).await?;
        }
        self.happen(block, Event::CodeChanged(abilities)).await?;
        Ok(())
    }

    async fn confirm_installation(&mut self, id: &str) -> Result<(), Fault> {
        let (mut installation, mut component) = self.installed(id).await?;
        if self.schema(&installation.digest).await?.is_none() {
            if installation.confirm_wanted {
                return Err(Fault::Conflict(
                    "app installation is not a draft".to_owned(),
                ));
            }
            installation.confirm_wanted = true;
            installations::put(self.tx, &installation).await?;
            // A description that failed is tried again: perhaps it was the agent.
            let known = installations::described(self.tx, &installation.digest).await?;
            if matches!(known, Described::Error(_)) {
                self.describe(&installation).await?;
            }
            return Ok(());
        }
        self.confirm(&mut component).await
    }

    /// Confirms a draft: its config is evaluated and it syncs.
    pub(super) async fn confirm(&mut self, component: &mut Component) -> Result<(), Fault> {
        self.happen(component, Event::Confirmed).await?;
        // After that: a draft has no schedules yet.
        self.evaluate_config(component).await
    }

    async fn configure(&mut self, id: &str, change: ConfigChange) -> Result<(), Fault> {
        let (mut installation, mut component) = self.installed(id).await?;
        if let Some(app) = self.schema(&installation.digest).await? {
            fits(&app, &component, &change)?;
        }
        for (field, source) in change {
            match source {
                Some(source) => installation.config.insert(field, source),
                None => installation.config.remove(&field),
            };
        }
        installations::put(self.tx, &installation).await?;
        if state_of(&component)?.takes_events() {
            self.evaluate_config(&mut component).await?;
            self.happen(&mut component, Event::ConfigChanged).await?;
        }
        Ok(())
    }

    pub(super) async fn upgrade(&mut self, id: &str, version: Version) -> Result<(), Fault> {
        let (mut installation, mut component) = self.installed(id).await?;
        if installation.version == version.id && installation.digest == version.digest {
            return Ok(());
        }
        installation.version = version.id;
        installation.digest = version.digest;
        installations::put(self.tx, &installation).await?;
        match self.schema(&installation.digest).await? {
            Some(app) => self.code_known(installation, &mut component, &app).await,
            None => self.describe(&installation).await,
        }
    }

    async fn uninstall(&mut self, id: &str) -> Result<(), Fault> {
        let (mut installation, mut component) = self.installed(id).await?;
        let blocks = components::of_installation(self.tx, id).await?;
        for block in &blocks {
            let Some(flow) = &block.flow else { continue };
            if !state_of(block)?.deleting {
                let flow = flows::get(self.tx, flow).await?;
                let flow = flow.map(|flow| flow.name).unwrap_or_default();
                return Err(Fault::Conflict(format!(
                    "block `{}` of flow `{flow}` uses this app installation: remove the block first",
                    block.name
                )));
            }
        }
        if !blocks.is_empty() {
            installation.delete_wanted = true;
            return Ok(installations::put(self.tx, &installation).await?);
        }
        self.happen(&mut component, Event::Delete).await?;
        Ok(())
    }

    /// Goes on with a removal that waited for the last block.
    pub(super) async fn delete_if_wanted(&mut self, id: &str) -> Result<(), Fault> {
        let Some(installation) = installations::get(self.tx, id).await? else {
            return Ok(());
        };
        if installation.delete_wanted
            && components::of_installation(self.tx, id).await?.is_empty()
            && let Some(mut component) = components::get(self.tx, id).await?
        {
            self.delete_component(&mut component).await?;
        }
        Ok(())
    }

    /// Boxed: what is removed may be the last that another removal waits for.
    pub(super) fn delete_component<'s>(
        &'s mut self,
        component: &'s mut Component,
    ) -> futures::future::BoxFuture<'s, Result<bool, Fault>> {
        Box::pin(self.happen(component, Event::Delete))
    }
}

fn source_fits(source: &str) -> Result<(), Fault> {
    if source.len() <= SOURCE_BYTES_MAX {
        return Ok(());
    }
    Err(Fault::Bad(format!(
        "an expression has {} bytes, more than {SOURCE_BYTES_MAX}",
        source.len()
    )))
}

/// Whether a change of the config names fields that exist, with constants that
/// fit, and leaves what is fixed as it is.
fn fits(app: &schema::App, component: &Component, change: &ConfigChange) -> Result<(), Fault> {
    let mut wanted = component.vals.clone().unwrap_or_default();
    for (field, source) in change {
        let Some(declared) = app.config.get(field) else {
            return Err(Fault::Bad(format!(
                "`{field}` is no field of the app's config"
            )));
        };
        let constant = source
            .as_ref()
            .and_then(|source| Expression::from_source(source).constant());
        if let Some(value) = constant.filter(|value| !value.is_null()) {
            declared
                .spec
                .check(field, &value)
                .map_err(|wrong| Fault::Bad(wrong.to_string()))?;
            wanted.insert(field.clone(), value);
        }
    }
    let current = component.vals.clone().unwrap_or_default();
    let fixed = changed_fixed_fields(&schema::rules(&app.config), &current, &wanted);
    if fixed.is_empty() {
        return Ok(());
    }
    Err(Fault::Bad(sentence(&fixed)))
}
