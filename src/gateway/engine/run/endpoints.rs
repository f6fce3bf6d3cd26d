//! HTTP requests to apps and flows.
//!
//! ```text
//!  /endpoints/INSTALLATION/…                 http.onRequest of the app
//!  /endpoints/INSTALLATION/blocks/BLOCK/…    http.onRequest of one of its blocks
//!  /endpoints/FLOW/…                         the HTTP endpoint block whose path and method fit
//! ```
//!
//! A request is open, here in memory, until somebody answers it: its handler,
//! another invocation of the same installation, a flow's respond input, or the
//! time that is over. A gateway that ends takes its connections with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_std::future::timeout;
use futures::channel::oneshot;
use serde_json::Value;
use sluice_proto::job::Kind;

use crate::gateway::engine::core_blocks::{self, Core, RESPOND_INPUT};
use crate::gateway::engine::http_endpoint::{Request, Response, response};
use crate::gateway::engine::run::calls::Call;
use crate::gateway::engine::run::canvas::What;
use crate::gateway::engine::run::purpose::{Purpose, Speaker};
use crate::gateway::engine::run::step::Step;
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::error::ApiError;
use crate::store::engine::components;

/// How long a request may stay open: as long as a tool call of a language model takes.
const OPEN_MAX: Duration = Duration::from_secs(300);
/// Requests that are open at once.
const OPEN_REQUESTS_MAX: usize = 1_000;

/// Requests that nobody has answered yet, by id.
#[derive(Default)]
pub(super) struct OpenRequests {
    // Locked for a look-up, never across an await.
    by_id: Mutex<HashMap<String, Open>>,
}

struct Open {
    /// The installation or flow that may answer it.
    owner: String,
    answer: oneshot::Sender<Response>,
}

/// Takes a request off the list when whoever waits for it is gone.
struct Waiting<'e> {
    engine: &'e Engine,
    request: String,
}

// === impl OpenRequests ===

impl OpenRequests {
    fn open(&self, id: &str, owner: &str) -> Result<oneshot::Receiver<Response>, ApiError> {
        let (answer, answered) = oneshot::channel();
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if by_id.len() >= OPEN_REQUESTS_MAX {
            let sentence = format!("{OPEN_REQUESTS_MAX} requests are open, which is the limit");
            return Err(ApiError::later(503, sentence, 1));
        }
        let owner = owner.to_owned();
        by_id.insert(id.to_owned(), Open { owner, answer });
        Ok(answered)
    }

    /// Whether the owner may answer the request now.
    pub(super) fn is_open(&self, id: &str, owner: &str) -> bool {
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        by_id.get(id).is_some_and(|open| open.owner == owner)
    }

    /// The first answer counts.
    pub(super) fn answer(&self, id: &str, response: Response) {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_id.remove(id) {
            drop(open.answer.send(response));
        }
    }

    fn close(&self, id: &str) {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        by_id.remove(id);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.engine.open.close(&self.request);
    }
}

// === impl Engine ===

impl Engine {
    /// Whether an installation has this block: else the path is the app's own.
    pub async fn has_block(&self, installation: &str, block: &str) -> Result<bool, ApiError> {
        let found = self.store.component(block).await?;
        Ok(found.is_some_and(|block| block.installation.as_deref() == Some(installation)))
    }

    /// Brings a request to whoever it is for, and waits for the answer. `whose`
    /// is the id in the path; `block` is set below `/blocks/`.
    pub async fn request(
        self: &Arc<Self>,
        whose: &str,
        block: Option<&str>,
        request: Request,
    ) -> Result<Response, ApiError> {
        let id = request.request_id.clone();
        let answered = self.open.open(&id, whose)?;
        let _waiting = Waiting {
            engine: self,
            request: id.clone(),
        };
        let (whose, block) = (whose.to_owned(), block.map(str::to_owned));
        let answer_now = self
            .step(move |step| {
                Box::pin(async move { step.request(&whose, block.as_deref(), request).await })
            })
            .await?;
        if let Some(response) = answer_now {
            return Ok(response);
        }
        match timeout(OPEN_MAX, answered).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) | Err(_) => Err(ApiError::new(
                504,
                format!(
                    "nobody answered the request within {} s",
                    OPEN_MAX.as_secs()
                ),
            )),
        }
    }
}

// === impl Step ===

impl Step<'_> {
    /// The response when the request is not to stay open.
    async fn request(
        &mut self,
        whose: &str,
        block: Option<&str>,
        request: Request,
    ) -> Result<Option<Response>, Fault> {
        let missing = || Fault::Missing("endpoint".to_owned());
        let Some(component) = components::get(self.tx, block.unwrap_or(whose)).await? else {
            if block.is_none() {
                return self.request_to_flow(whose, request).await;
            }
            return Err(missing());
        };
        // A block is reached below its own app alone.
        if block.is_some() && component.installation.as_deref() != Some(whose) {
            return Err(missing());
        }
        if block.is_none() && component.flow.is_some() {
            return Err(missing());
        }
        let purpose = Purpose::Http {
            component: component.id.clone(),
            flow: component.flow.clone(),
            request: request.request_id.clone(),
        };
        let more = ("request", serde_json::to_value(request).unwrap_or_default());
        let told = self.tell_for(&component, Kind::Http, &[], Some(more), purpose);
        told.await?.map_err(Fault::Conflict)?;
        Ok(None)
    }

    async fn request_to_flow(
        &mut self,
        flow: &str,
        mut request: Request,
    ) -> Result<Option<Response>, Fault> {
        let missing = || Fault::Missing("endpoint".to_owned());
        let canvas = self.canvas(flow).await?.ok_or_else(missing)?;
        let mut nodes: Vec<_> = canvas.nodes.values().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        for node in nodes {
            if node.what != What::Core(Core::HttpEndpoint) {
                continue;
            }
            let Some(block) = components::get(self.tx, &node.id).await? else {
                continue;
            };
            let statics = block.vals.clone().unwrap_or_default();
            let path = request.path.clone();
            let Some(below) = core_blocks::endpoint_path(&statics, &request.method, &path) else {
                continue;
            };
            request.path = below.to_owned();
            let body = serde_json::to_value(&request).unwrap_or_default();
            self.start_chain(&block, "default", body).await?;
            let answers = canvas
                .definition
                .block(&node.name)
                .and_then(|block| block.inputs.get(RESPOND_INPUT))
                .is_some_and(|input| !input.links.is_empty());
            return Ok((!answers).then(|| Response {
                status: 200,
                headers: Vec::new(),
                body: Vec::new(),
            }));
        }
        Err(missing())
    }

    /// `http.respond(requestId, …)`. A handler whose own client is gone, or has
    /// its answer, goes on: what it does after that must not depend on the client.
    pub(super) async fn respond(
        &mut self,
        call: &Call,
        speaker: &Speaker<'_>,
    ) -> Result<Result<Value, String>, Fault> {
        let Some(component) = components::get(self.tx, speaker.component).await? else {
            return Ok(Err("the app installation was removed".to_owned()));
        };
        let owner = component.installation.unwrap_or(component.id);
        let id = call.args.first().and_then(Value::as_str);
        let id = id.unwrap_or_default();
        let none = Value::Null;
        let given = call.args.get(1).unwrap_or(&none);
        let is_own = matches!(&call.purpose, Purpose::Http { request, .. } if request == id);
        if is_own && !self.engine.open.is_open(id, &owner) {
            return Ok(response(given).map(|_| Value::Null));
        }
        Ok(self.answer(id, &owner, given).map(|()| Value::Null))
    }

    /// Answers an open request once this step is committed.
    pub(super) fn answer(&mut self, id: &str, owner: &str, args: &Value) -> Result<(), String> {
        let response = response(args)?;
        if !self.engine.open.is_open(id, owner) {
            let id = id.chars().take(100).collect::<String>();
            return Err(format!(
                "the request `{id}` is not open: it was answered, or its client is gone"
            ));
        }
        self.reply(id.to_owned(), response);
        Ok(())
    }

    /// The handler of a request has ended badly: nobody will answer it.
    pub(super) fn request_failed(&mut self, request: &str, why: &str) {
        let body = serde_json::json!({"error": format!("the handler failed: {why}")});
        self.reply(
            request.to_owned(),
            Response {
                status: 502,
                headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
                body: body.to_string().into_bytes(),
            },
        );
    }
}
