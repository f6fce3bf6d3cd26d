//! The HTTP request block: its request is made by a small app of ours in a
//! runtime of the pool that the block names, never by the gateway itself, which
//! stands in another network.

use serde_json::{Value, json};
use sluice_proto::job::Kind;

use crate::gateway::engine::core_blocks::{self, Request, Response, Step as CoreStep};
use crate::gateway::engine::run::canvas::{Canvas, Node};
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::step::{Step, Work, app_identity, handler};
use crate::gateway::engine::run::{Engine, Fault};
use crate::store::engine::deliveries::{self, Delivery, State};

/// The code of the app.
pub const BUNDLE: &str = include_str!("http_request.mjs");
/// What the handler may take beside the request's own time-out, in milliseconds.
const SLACK_MS: u64 = 5_000;

// === impl Engine ===

impl Engine {
    /// A pool that is named by id or name, if the project may use it; the default
    /// pool when none is named.
    fn pool_for(&self, named: Option<&str>, project: &str) -> Result<String, String> {
        let found = match named {
            None => self.directory.default_pool(),
            Some(named) => {
                let mut pools = self.directory.pools().into_iter();
                pools.find(|pool| pool.id == named || pool.name == named)
            }
        };
        let named = named.unwrap_or("default");
        let pool = found.ok_or_else(|| format!("`agentPool`: there is no pool `{named}`"))?;
        if self.directory.is_exposed(&pool.id, project) {
            return Ok(pool.id);
        }
        Err(format!(
            "`agentPool`: the pool `{named}` is not exposed to the project"
        ))
    }
}

// === impl Step ===

impl Step<'_> {
    /// Hands a request to a runtime. The sentence says why that cannot be.
    pub(super) async fn start_request(
        &mut self,
        canvas: &Canvas,
        node: &Node,
        delivery: &Delivery,
        request: Request,
        pool: Option<&str>,
    ) -> Result<Result<(), String>, Fault> {
        let pool = match self.engine.pool_for(pool, &canvas.project) {
            Ok(pool) => pool,
            Err(why) => return Ok(Err(why)),
        };
        let timeout_ms = u32::try_from(request.timeout_ms.saturating_add(SLACK_MS));
        let config = serde_json::to_value(&request).unwrap_or_default();
        let work = Work {
            kind: Kind::Event,
            identity: app_identity(&format!("http:{}", canvas.id), &self.engine.request_digest),
            pool,
            project: canvas.project.clone(),
            block: Some(node.name.clone()),
            timeout_ms: timeout_ms.unwrap_or(u32::MAX),
            high: false,
            purpose: Purpose::Request {
                delivery: delivery.seq,
            },
            payload: json!({
                "handler": handler(Some("request"), &[("input", "default")]),
                "input": {"event": {"id": delivery.event, "inputConfig": config}},
            }),
        };
        match self.job(work).await? {
            Err(why) => Ok(Err(why)),
            Ok(job) => Ok(Ok(self.started(delivery, job).await?)),
        }
    }

    /// The response is here, or there is none.
    pub(super) async fn requested(
        &mut self,
        delivery: i64,
        job: i64,
        result: Result<Value, String>,
    ) -> Result<(), Fault> {
        let delivery = deliveries::get(self.tx, delivery).await?;
        let current = |it: &Delivery| it.state == State::Started && it.job == Some(job);
        let Some(delivery) = delivery.filter(current) else {
            return Ok(());
        };
        let response = result.and_then(|value| {
            serde_json::from_value::<Response>(value).map_err(|error| error.to_string())
        });
        let response = match response {
            Ok(response) => response,
            Err(why) => return self.fail(delivery, &why).await,
        };
        let canvas = self.canvas(&delivery.flow).await?;
        let node = canvas.as_ref().and_then(|c| c.nodes.get(&delivery.block));
        match (&canvas, node, core_blocks::responded(response)) {
            (Some(canvas), Some(node), CoreStep::Emit { output, body }) => {
                self.emit_core(canvas, node, &delivery, &output, body).await
            }
            _ => self.fail(delivery, "the block was removed").await,
        }
    }
}
