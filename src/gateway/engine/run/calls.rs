//! The SDK calls of the engine's own jobs: each is carried out and recorded in
//! one step, and answered after its commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sluice_proto::job::Attempt;

use crate::gateway::directory::new_id;
use crate::gateway::engine::component::Event;
use crate::gateway::engine::events::pending::{self, Change, Outcome, Pending};
use crate::gateway::engine::events::{
    EVENTS_PER_HANDLER_MAX, Emission, Emitter, Fingerprint, emission,
};
use crate::gateway::engine::run::canvas::{Canvas, Node};
use crate::gateway::engine::run::purpose::{Purpose, Speaker};
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::engine::schema::{Output, OutputUpdates, effective_outputs};
use crate::store::calls::{self as records, Earlier};
use crate::store::engine::{components, events, pendings, timers};

/// The largest widget, in bytes of JSON: a drawing on a canvas.
const WIDGET_BYTES_MAX: usize = 256 * 1024;

/// A call as it came.
pub struct Call {
    /// What is recorded of it.
    pub record: records::Call,
    /// The attempt as which the invocation began.
    pub began: Attempt,
    /// Whether its arguments are kept for views.
    pub keep: bool,
    /// How many calls the job has made.
    pub count: u32,
    pub args: Vec<Value>,
    pub purpose: Purpose,
}

/// What an app is told when its call does not fit.
type Refused = String;

/// Methods that leave something behind each time they are called, events apart,
/// which are recognised by themselves.
const ONCE: [&str; 7] = [
    "timers.set",
    "messaging.sendToBlocks",
    "messaging.sendToApp",
    "lifecycle.sync",
    "lifecycle.proceed",
    "lifecycle.prompt.create",
    "http.respond",
];

/// Whether an earlier attempt of the job has made a call.
enum Known {
    /// It has: the answer it was given.
    Repeat(Value),
    /// It has not. What the call is recognised by, if it is to be.
    New(Option<Fingerprint>),
}

/// The place that a block's job emits from.
struct Emitting {
    canvas: Arc<Canvas>,
    outputs: BTreeMap<String, Output>,
    emitted: usize,
}

// === impl Emitting ===

impl Emitting {
    fn emitter<'e>(&'e self, speaker: &Speaker<'e>) -> Emitter<'e> {
        Emitter {
            outputs: &self.outputs,
            handled: speaker.event,
            emitted: self.emitted,
        }
    }
}

// === impl Engine ===

impl Engine {
    /// Carries a call out; the answer stands after the commit.
    ///
    /// # Errors
    ///
    /// A sentence for the app, which sees its promise rejected.
    pub async fn call(self: &Arc<Self>, mut call: Call) -> Result<Value, Fault> {
        self.step(move |step| {
            Box::pin(async move {
                if let Earlier::Answered(answer) =
                    records::answered(step.tx, &call.record.number).await?
                {
                    return Ok(answer);
                }
                let (answer, said) = match step.repeated(&call).await? {
                    Known::Repeat(answer) => (answer, None),
                    Known::New(said) => (step.call(&call).await?.map_err(Fault::Bad)?, said),
                };
                if !call.keep {
                    call.record.args = None;
                }
                let said = said.as_ref().map(Fingerprint::as_str);
                // Always recorded: the same call sent twice must not count twice.
                let text = Some(answer.to_string());
                records::record(step.tx, call.record, text, said).await?;
                Ok(answer)
            })
        })
        .await
    }
}

// === impl Step ===

impl Step<'_> {
    /// Recognises a call that a later attempt of its job makes again.
    async fn repeated(&mut self, call: &Call) -> Result<Known, Fault> {
        let method = call.record.method.as_str();
        if !ONCE.contains(&method) {
            return Ok(Known::New(None));
        }
        let args = Value::Array(call.args.clone());
        let said = Fingerprint::of(method, "", &args, &Map::new());
        if let Some(nth) = self.said_before(call, &said).await? {
            let job = call.record.number.job;
            let earlier = records::nth_said(self.tx, job, said.as_str(), nth).await?;
            if let Some(answer) = earlier {
                return Ok(Known::Repeat(answer));
            }
        }
        Ok(Known::New(Some(said)))
    }

    async fn call(&mut self, call: &Call) -> Result<Result<Value, Refused>, Fault> {
        let Some(speaker) = call.purpose.speaker() else {
            return Ok(Err("expressions make no calls".to_owned()));
        };
        match call.record.method.as_str() {
            "events.emit" => self.emit(call, &speaker).await,
            "events.createPending" => self.create_pending(call, &speaker).await,
            "events.updatePending" => {
                self.change_pending(call, &speaker, pending::update(&call.args))
                    .await
            }
            "events.completePending" => {
                self.change_pending(call, &speaker, pending::complete(&call.args))
                    .await
            }
            "events.cancelPending" => {
                self.change_pending(call, &speaker, pending::cancel(&call.args))
                    .await
            }
            "lifecycle.sync" | "lifecycle.proceed" => self.sync(&speaker).await,
            "lifecycle.prompt.create" => self.create_prompt(call, &speaker).await,
            "lifecycle.prompt.delete" => {
                let key = call.args.first().and_then(Value::as_str);
                let key = key.unwrap_or_default();
                components::delete_prompt(self.tx, speaker.component, key).await?;
                Ok(Ok(Value::Null))
            }
            "blocks.list" => self.list_blocks(call, &speaker).await,
            "timers.set" => {
                let owner = self.timer_owner(&call.args, &speaker).await?;
                self.set_app_timer(&owner, &call.args).await
            }
            "timers.unset" => {
                let owner = self.timer_owner(&call.args, &speaker).await?;
                let id = call.args.first().and_then(Value::as_str);
                timers::unset(self.tx, &owner, id.unwrap_or_default()).await?;
                Ok(Ok(Value::Null))
            }
            "messaging.sendToBlocks" => self.send_to_blocks(&speaker, &call.args).await,
            "messaging.sendToApp" => self.send_to_app(&speaker, &call.args).await,
            "http.respond" => self.respond(call, &speaker).await,
            "ui.widget.set" => self.set_widget(call, &speaker).await,
            other => Ok(Err(format!("the SDK has no method `{other}`"))),
        }
    }

    // === Events ===

    async fn emit(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<Value, Refused>, Fault> {
        let place = match self.emitting(call, speaker).await? {
            Ok(place) => place,
            Err(why) => return Ok(Err(why)),
        };
        let (canvas, from) = (&place.canvas, place.emitter(speaker));
        let Some(node) = canvas.nodes.get(speaker.component) else {
            return Ok(Err(not_in_flow()));
        };
        let mut emission = match emission(&call.args, &from) {
            Ok(emission) => emission,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(nth) = self.said_before(call, &emission.fingerprint).await? {
            let job = call.record.number.job;
            let fingerprint = emission.fingerprint.as_str();
            if events::nth_said(self.tx, job, fingerprint, nth)
                .await?
                .is_some()
            {
                return Ok(Ok(Value::Null));
            }
        }
        if let Some(id) = emission.completes.clone() {
            let completed = self
                .apply_pending(canvas, &id, Change::Replaced, Some(&mut emission))
                .await?;
            if let Err(why) = completed {
                return Ok(Err(why));
            }
        }
        let job = Some(call.record.number.job);
        let recorded = self.record(canvas, node, emission, job).await?;
        Ok(recorded.map(|_| Value::Null))
    }

    async fn create_pending(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<Value, Refused>, Fault> {
        let place = match self.emitting(call, speaker).await? {
            Ok(place) => place,
            Err(why) => return Ok(Err(why)),
        };
        let (canvas, from) = (&place.canvas, place.emitter(speaker));
        let Some(node) = canvas.nodes.get(speaker.component) else {
            return Ok(Err(not_in_flow()));
        };
        let (made, fingerprint) = match pending::create(&call.args, &from) {
            Ok(made) => made,
            Err(why) => return Ok(Err(why)),
        };
        let job = call.record.number.job;
        if let Some(nth) = self.said_before(call, &fingerprint).await?
            && let Some(id) = pendings::nth_said(self.tx, job, fingerprint.as_str(), nth).await?
        {
            return Ok(Ok(id.into()));
        }
        let row = pendings::Pending {
            id: new_id(),
            flow: canvas.id.clone(),
            block: node.id.clone(),
            pending: serde_json::to_value(made).unwrap_or_default(),
            open: true,
            job: Some(job),
            fingerprint: Some(fingerprint.as_str().to_owned()),
            created_ms: self.now_ms,
        };
        pendings::put(self.tx, &row).await?;
        Ok(Ok(row.id.into()))
    }

    async fn change_pending(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
        change: Result<(String, Change), Refused>,
    ) -> Result<Result<Value, Refused>, Fault> {
        let (id, change) = match change {
            Ok(change) => change,
            Err(why) => return Ok(Err(why)),
        };
        let (canvas, _) = match self.emitter(call, speaker).await? {
            Ok(known) => known,
            Err(why) => return Ok(Err(why)),
        };
        let changed = self.apply_pending(&canvas, &id, change, None).await?;
        Ok(changed.map(|()| Value::Null))
    }

    /// Changes a pending event, and emits it when that completes it. An emission
    /// that takes its place gets its parents.
    pub(super) async fn apply_pending(
        &mut self,
        canvas: &Canvas,
        id: &str,
        change: Change,
        replaced_by: Option<&mut Emission>,
    ) -> Result<Result<(), Refused>, Fault> {
        let row = pendings::get(self.tx, id).await?;
        let Some(mut row) = row.filter(|row| row.flow == canvas.id) else {
            let id = id.chars().take(100).collect::<String>();
            return Ok(Err(format!(
                "there is no pending event `{id}` in this flow"
            )));
        };
        let Ok(known) = serde_json::from_value::<Pending>(row.pending.clone()) else {
            return Ok(Err(format!("the pending event `{id}` cannot be read")));
        };
        let (next, completed) = match pending::apply(&known, change) {
            Outcome::Unchanged => return Ok(Ok(())),
            Outcome::Denied(why) => return Ok(Err(why)),
            Outcome::Changed { pending, emission } => (pending, emission),
        };
        if let Some(emission) = replaced_by {
            known.lend_parents(emission);
        }
        row.open = next.phase == pending::Phase::Open;
        row.pending = serde_json::to_value(next).unwrap_or_default();
        pendings::put(self.tx, &row).await?;
        let (Some(emission), Some(node)) = (completed, canvas.nodes.get(&row.block)) else {
            return Ok(Ok(()));
        };
        let recorded = self.record(canvas, node, *emission, None).await?;
        Ok(recorded.map(|_| ()))
    }

    /// Where a block's job emits from.
    async fn emitting(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<Emitting, Refused>, Fault> {
        let (canvas, emitted) = match self.emitter(call, speaker).await? {
            Ok(known) => known,
            Err(why) => return Ok(Err(why)),
        };
        let outputs = match canvas.nodes.get(speaker.component) {
            Some(node) => self.outputs_of(node).await?,
            None => return Ok(Err(not_in_flow())),
        };
        Ok(Ok(Emitting {
            canvas,
            outputs,
            emitted,
        }))
    }

    /// The flow of a block's job, and how much the job has emitted.
    async fn emitter(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<(Arc<Canvas>, usize), Refused>, Fault> {
        let Some(flow) = speaker.flow else {
            return Ok(Err(
                "only a block has events: this is a handler of the app itself".to_owned(),
            ));
        };
        let Some(canvas) = self.canvas(flow).await? else {
            return Ok(Err("the flow was removed".to_owned()));
        };
        // Who has made fewer calls cannot have emitted more: the count costs a query.
        let most = EVENTS_PER_HANDLER_MAX as u32;
        let emitted = if call.count <= most {
            0
        } else {
            events::count_of_job(self.tx, call.record.number.job).await?
        };
        let emitted = usize::try_from(emitted).unwrap_or(usize::MAX);
        Ok(Ok((canvas, emitted)))
    }

    async fn outputs_of(&mut self, node: &Node) -> Result<BTreeMap<String, Output>, Fault> {
        if !node.schema.handlers.has_on_sync {
            return Ok(node.schema.outputs.clone());
        }
        let component = components::get(self.tx, &node.id).await?;
        let updates: OutputUpdates = component
            .and_then(|component| serde_json::from_value(component.outputs).ok())
            .unwrap_or_default();
        Ok(effective_outputs(&node.schema, &updates).0)
    }

    /// How often this attempt has said the same before; `None` for a first
    /// attempt, which repeats nothing.
    async fn said_before(
        &mut self,
        call: &Call,
        fingerprint: &Fingerprint,
    ) -> Result<Option<i64>, Fault> {
        let attempt = (call.began.dispatch, call.began.delivery);
        if attempt == (1, 1) {
            return Ok(None);
        }
        let job = call.record.number.job;
        let said = events::say(self.tx, job, attempt, fingerprint.as_str()).await?;
        Ok(Some(said))
    }

    // === Life cycle and view ===

    async fn sync(&mut self, speaker: &Speaker<'_>) -> Result<Result<Value, Refused>, Fault> {
        let Some(mut component) = components::get(self.tx, speaker.component).await? else {
            return Ok(Ok(Value::Null));
        };
        // Handlers ask for it without waiting: that one is being removed meanwhile
        // is no reason for them to fail.
        match self.happen(&mut component, Event::SyncRequested).await {
            Ok(_) | Err(Fault::Conflict(_)) => Ok(Ok(Value::Null)),
            Err(fault) => Err(fault),
        }
    }

    /// Whose a timer is: the block's in a block's handler, unless it says otherwise.
    async fn timer_owner(
        &mut self,
        args: &[Value],
        speaker: &Speaker<'_>,
    ) -> Result<String, Fault> {
        let scope = args.get(1).and_then(|options| options.get("scope"));
        if scope.and_then(Value::as_str) == Some("app")
            && let Some(component) = components::get(self.tx, speaker.component).await?
        {
            return Ok(component.installation.unwrap_or(component.id));
        }
        Ok(speaker.component.to_owned())
    }

    /// `(key, description, {redirect})`; older apps leave the key out and get an id.
    async fn create_prompt(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<Value, Refused>, Fault> {
        let text = |at: usize| call.args.get(at).and_then(Value::as_str);
        let keyed = text(1).is_some();
        let (key, description, options) = match (text(0), text(1)) {
            (Some(key), Some(description)) => (key.to_owned(), description, call.args.get(2)),
            (Some(description), None) => (new_id(), description, call.args.get(1)),
            _ => return Ok(Err("a prompt has a key and a description".to_owned())),
        };
        let redirect = options.and_then(|options| options.get("redirect"));
        let prompt = json!({
            "key": key, "description": description, "redirect": redirect,
            "createdAt": self.now_ms,
        });
        components::set_prompt(self.tx, speaker.component, &key, &prompt).await?;
        Ok(Ok(if keyed { Value::Null } else { key.into() }))
    }

    async fn list_blocks(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<Value, Refused>, Fault> {
        let Some(component) = components::get(self.tx, speaker.component).await? else {
            return Ok(Ok(json!({"blocks": []})));
        };
        let installation = component.installation.unwrap_or(component.id);
        let wanted = call.args.first().and_then(|arg| arg.get("typeIds"));
        let wanted = wanted.and_then(Value::as_array);
        let blocks: Vec<Value> = components::of_installation(self.tx, &installation)
            .await?
            .into_iter()
            .filter(|block| {
                let kind = block.kind.as_deref();
                wanted.is_none_or(|types| types.iter().any(|id| id.as_str() == kind))
            })
            .map(|block| {
                json!({
                    "id": block.id, "typeId": block.kind, "name": block.name,
                    // Apps look into it unguarded, also when it is not known yet.
                    "config": block.vals.unwrap_or_default(),
                })
            })
            .collect();
        Ok(Ok(json!({"blocks": blocks})))
    }

    async fn set_widget(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<Value, Refused>, Fault> {
        let widget = call.args.first().cloned().unwrap_or_default();
        let bytes = crate::gateway::engine::expressions::bytes_of(&widget);
        if bytes > WIDGET_BYTES_MAX {
            return Ok(Err(format!(
                "the widget has {bytes} bytes, more than {WIDGET_BYTES_MAX}"
            )));
        }
        if let Some(mut component) = components::get(self.tx, speaker.component).await? {
            component.widget = Some(widget);
            components::put(self.tx, &component).await?;
        }
        Ok(Ok(Value::Null))
    }
}

fn not_in_flow() -> Refused {
    "the block is no longer part of its flow".to_owned()
}
