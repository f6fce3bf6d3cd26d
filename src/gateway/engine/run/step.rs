//! One step of the engine: a transaction, what is still to be done in it, and
//! what follows once it is committed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sluice_proto::codec::PAYLOAD_BYTES_MAX;
use sluice_proto::ids::Digest;
use sluice_proto::job::{Identity, Kind};

use crate::gateway::directory::new_id;
use crate::gateway::engine::http_endpoint::Response;
use crate::gateway::engine::run::canvas::Canvas;
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::line::Adopted;
use crate::store::Tx;
use crate::store::engine::steps;
use crate::store::jobs::Spec;
use crate::telemetry::now_us;

/// How long the expressions of one job may take, in milliseconds.
pub(super) const EVALUATE_MS: u32 = 60_000;
/// How long a bundle may take to say what is in it, in milliseconds.
pub(super) const DESCRIBE_MS: u32 = 60_000;
/// How long a handler may take, in milliseconds: 15 minutes, as handlers wait for others.
pub(super) const HANDLER_MS: u32 = 900_000;

/// A transaction under way.
pub(super) struct Step<'c> {
    pub tx: &'c mut Tx,
    pub engine: Arc<Engine>,
    pub now_ms: i64,
    // A queue and no recursion: chains of core blocks have any length.
    todo: VecDeque<Todo>,
    after: After,
    /// The flow that was looked at last. What gives a flow another revision forgets it.
    pub(super) seen: Option<Arc<Canvas>>,
}

/// Something that the transaction has yet to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Todo {
    /// Start what may start at this input.
    Start { block: String, input: String },
    /// Start what may start at any input of the block.
    StartAll { flow: String, block: String },
    /// Send out what may go out at this output.
    Send { block: String, output: String },
    /// Give the run that is due its job.
    Pump { component: String },
    /// Bring everything up to date that follows these signals.
    Follow {
        component: String,
        signals: Vec<String>,
    },
}

/// What a committed step leads to.
#[derive(Default)]
pub(super) struct After {
    pub jobs: Vec<Adopted>,
    /// Answers to open HTTP requests, by their ids.
    pub replies: Vec<(String, Response)>,
    pub wakes_clock: bool,
}

/// A job to be made.
pub(super) struct Work {
    pub kind: Kind,
    pub identity: Identity,
    pub pool: String,
    pub project: String,
    /// Name of the block, for views.
    pub block: Option<String>,
    pub timeout_ms: u32,
    pub high: bool,
    pub purpose: Purpose,
    pub payload: Value,
}

// === impl Step ===

impl<'c> Step<'c> {
    pub(super) fn new(tx: &'c mut Tx, engine: Arc<Engine>, now_ms: u64) -> Self {
        Self {
            tx,
            engine,
            now_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
            todo: VecDeque::new(),
            after: After::default(),
            seen: None,
        }
    }

    /// Later in this transaction; what is queued already is not queued twice in a row.
    pub(super) fn later(&mut self, todo: Todo) {
        if self.todo.back() != Some(&todo) {
            self.todo.push_back(todo);
        }
    }

    /// Does everything that is queued, and what that queues.
    pub(super) async fn finish(&mut self) -> Result<(), Fault> {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Start { block, input } => self.start_next(&block, &input).await?,
                Todo::StartAll { flow, block } => self.start_all(&flow, &block).await?,
                Todo::Send { block, output } => self.send_next(&block, &output).await?,
                Todo::Pump { component } => self.pump(&component).await?,
                Todo::Follow { component, signals } => self.follow(&component, &signals).await?,
            }
        }
        Ok(())
    }

    pub(super) fn after(self) -> After {
        self.after
    }

    pub(super) fn reply(&mut self, request: String, response: Response) {
        self.after.replies.push((request, response));
    }

    /// Something is due that the clock does not know of.
    pub(super) fn wake_clock(&mut self) {
        self.after.wakes_clock = true;
    }

    /// Makes a job in this transaction; answers its number. The sentence says
    /// why there can be none.
    pub(super) async fn job(&mut self, work: Work) -> Result<Result<i64, String>, Fault> {
        let payload = work.payload.to_string().into_bytes();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Ok(Err(format!(
                "what the handler is given has {} bytes, more than {PAYLOAD_BYTES_MAX}",
                payload.len()
            )));
        }
        // An app that sends messages for ever stops here.
        if let Err(full) = self.engine.line.has_room(&work.project, &work.pool) {
            return Ok(Err(full.0));
        }
        let spec = Arc::new(Spec {
            seq: self.engine.line.reserve(),
            id: new_id(),
            pool: work.pool,
            project: work.project,
            kind: work.kind.as_str().to_owned(),
            high: work.high,
            identity: serde_json::to_string(&work.identity).unwrap_or_default(),
            block: work.block,
            timeout_ms: work.timeout_ms,
            expires_ms: None,
            created_us: now_us(),
            replay_of: None,
            purpose: Some(work.purpose.write().into()),
        });
        steps::create(self.tx, &spec, &payload).await?;
        let seq = spec.seq;
        self.after.jobs.push(Adopted {
            spec,
            kind: work.kind,
            identity: work.identity,
            payload: Arc::new(payload),
        });
        Ok(Ok(seq))
    }

    /// The id of a job that this transaction makes.
    pub(super) fn job_id(&self, seq: i64) -> Option<String> {
        let mut jobs = self.after.jobs.iter();
        let job = jobs.find(|job| job.spec.seq == seq)?;
        Some(job.spec.id.clone())
    }

    /// A job that evaluates expressions on the default pool.
    pub(super) async fn evaluate(
        &mut self,
        place: &Place<'_>,
        sources: &std::collections::BTreeMap<String, String>,
        scope: Value,
        purpose: Purpose,
    ) -> Result<Result<i64, String>, Fault> {
        let flow = match place.flow {
            Some(flow) => flow.to_owned(),
            // Configs of a project's installations share one runtime.
            None => format!("project:{}", place.project),
        };
        let Some(pool) = self.engine.directory.default_pool() else {
            return Ok(Err("there is no default pool for expressions".to_owned()));
        };
        self.job(Work {
            kind: Kind::Evaluate,
            identity: Identity::Flow { flow },
            pool: pool.id,
            project: place.project.to_owned(),
            block: Some(place.name.to_owned()),
            timeout_ms: EVALUATE_MS,
            high: false,
            purpose,
            payload: json!({"expressions": sources, "scope": scope}),
        })
        .await
    }
}

/// Where expressions stand.
pub(super) struct Place<'a> {
    pub project: &'a str,
    pub flow: Option<&'a str>,
    /// Of the block or the installation.
    pub name: &'a str,
}

/// The runtime of an installation's code.
pub(super) fn app_identity(installation: &str, digest: &str) -> Identity {
    Identity::App {
        installation: installation.to_owned(),
        bundle: Digest(digest.to_owned()),
    }
}

/// A handler of an app or one of its blocks, as a payload names it.
pub(super) fn handler(block: Option<&str>, more: &[(&str, &str)]) -> Value {
    let mut handler = Map::new();
    if let Some(block) = block {
        handler.insert("block".to_owned(), block.into());
    }
    for (key, value) in more {
        handler.insert((*key).to_owned(), (*value).into());
    }
    Value::Object(handler)
}
