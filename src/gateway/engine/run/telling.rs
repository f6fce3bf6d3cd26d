//! Handlers that nobody's event leads to: timers, messages, schedules, requests.

use serde_json::{Map, Value, json};
use sluice_proto::job::Kind;

use crate::gateway::engine::events::EVENT_BODY_BYTES_MAX;
use crate::gateway::engine::expressions::bytes_of;
use crate::gateway::engine::run::Fault;
use crate::gateway::engine::run::lives::state_of;
use crate::gateway::engine::run::purpose::{Purpose, Speaker};
use crate::gateway::engine::run::step::{HANDLER_MS, Step, Work, app_identity, handler};
use crate::store::engine::components::{self, Component};
use crate::store::engine::installations;

/// Blocks that one message goes to.
const RECEIVERS_MAX: usize = 1_000;

// === impl Step ===

impl Step<'_> {
    /// Tells a component something. One that cannot take it (a draft, on its
    /// way out) is passed over: nobody waits, and whoever caused it cannot help it.
    pub(super) async fn tell(
        &mut self,
        component: &Component,
        kind: Kind,
        keys: &[(&str, &str)],
        more: Option<(&str, Value)>,
    ) -> Result<(), Fault> {
        let purpose = Purpose::Tell {
            component: component.id.clone(),
            flow: component.flow.clone(),
        };
        let told = self.tell_for(component, kind, keys, more, purpose).await?;
        if let Err(reason) = told {
            let (id, kind) = (&component.id, kind.as_str());
            tracing::info!(block.id = id, reason, "A {kind} does not reach its handler");
        }
        Ok(())
    }

    /// Gives a handler of a component a job. The sentence says why it cannot
    /// have one: it is a draft, goes away, or has no config.
    pub(super) async fn tell_for(
        &mut self,
        component: &Component,
        kind: Kind,
        keys: &[(&str, &str)],
        more: Option<(&str, Value)>,
        purpose: Purpose,
    ) -> Result<Result<(), String>, Fault> {
        let id = component.installation.as_deref().unwrap_or(&component.id);
        let installation = installations::get(self.tx, id).await?;
        let app = components::get(self.tx, id).await?;
        let (Some(installation), Some(app)) = (installation, app) else {
            return Ok(Err("the app installation does not exist".to_owned()));
        };
        for part in [&app, component] {
            let name = &part.name;
            if !state_of(part)?.takes_events() {
                return Ok(Err(format!("`{name}` is a draft or is being removed")));
            }
            if part.vals.is_none() {
                return Ok(Err(format!("the config of `{name}` is not known")));
            }
        }
        let mut input: Map<String, Value> = self.handler_input(component, &app).await?;
        if let Some((key, value)) = more {
            input.insert(key.to_owned(), value);
        }
        let block = component.flow.as_ref().and(component.kind.as_deref());
        let app = (&app, &installation);
        let payload = self.payload(handler(block, keys), input, component, app);
        let payload = payload.await?;
        let work = Work {
            kind,
            identity: app_identity(&installation.id, &installation.digest),
            pool: installation.pool,
            project: installation.project,
            block: component.flow.is_some().then(|| component.name.clone()),
            timeout_ms: HANDLER_MS,
            // Somebody waits for the answer of a request.
            high: kind == Kind::Http,
            purpose,
            payload,
        };
        Ok(self.job(work).await?.map(|_| ()))
    }

    /// `messaging.sendToBlocks({blockIds, body})`: within one installation. A
    /// block that was removed is passed over, so that the others hear of it.
    pub(super) async fn send_to_blocks(
        &mut self,
        speaker: &Speaker<'_>,
        args: &[Value],
    ) -> Result<Result<Value, String>, Fault> {
        let ids = args.first().and_then(|arg| arg.get("blockIds"));
        let ids = ids.and_then(Value::as_array).cloned().unwrap_or_default();
        if ids.len() > RECEIVERS_MAX {
            let found = ids.len();
            return Ok(Err(format!(
                "the message goes to {found} blocks, more than {RECEIVERS_MAX}"
            )));
        }
        let body = match body(args) {
            Ok(body) => body,
            Err(why) => return Ok(Err(why)),
        };
        let Some(sender) = components::get(self.tx, speaker.component).await? else {
            return Ok(Ok(Value::Null));
        };
        let own = sender.installation.unwrap_or(sender.id);
        for id in ids {
            let id = id.as_str().unwrap_or_default();
            let Some(receiver) = components::get(self.tx, id).await? else {
                continue;
            };
            if receiver.installation.as_ref() != Some(&own) {
                return Ok(Err(format!("`{id}` is no block of this app installation")));
            }
            self.message(&receiver, &body).await?;
        }
        Ok(Ok(Value::Null))
    }

    /// `messaging.sendToApp({body})`.
    pub(super) async fn send_to_app(
        &mut self,
        speaker: &Speaker<'_>,
        args: &[Value],
    ) -> Result<Result<Value, String>, Fault> {
        let body = match body(args) {
            Ok(body) => body,
            Err(why) => return Ok(Err(why)),
        };
        let Some(sender) = components::get(self.tx, speaker.component).await? else {
            return Ok(Ok(Value::Null));
        };
        let own = sender.installation.unwrap_or(sender.id);
        if let Some(app) = components::get(self.tx, &own).await? {
            self.message(&app, &body).await?;
        }
        Ok(Ok(Value::Null))
    }

    async fn message(&mut self, receiver: &Component, body: &Value) -> Result<(), Fault> {
        let more = ("message", json!({"body": body}));
        self.tell(receiver, Kind::Message, &[], Some(more)).await
    }
}

fn body(args: &[Value]) -> Result<Value, String> {
    let body = args.first().and_then(|arg| arg.get("body"));
    let body = body.cloned().unwrap_or_default();
    let bytes = bytes_of(&body);
    if bytes <= EVENT_BODY_BYTES_MAX {
        return Ok(body);
    }
    Err(format!(
        "the body of the message has {bytes} bytes, more than {EVENT_BODY_BYTES_MAX}"
    ))
}
