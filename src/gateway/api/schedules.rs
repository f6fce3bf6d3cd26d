//! Schedules of app installations and blocks: looked at, and customized where
//! the app lets them be.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::{blocks, installations};
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;

/// Whose schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Installation,
    Block,
}

// === impl Of ===

impl Of {
    pub(super) async fn check(
        self,
        gateway: &Gateway,
        caller: &Caller,
        id: &str,
    ) -> Result<(), ApiError> {
        match self {
            Self::Installation => installations::find(gateway, caller, id).await.map(drop),
            Self::Block => blocks::find(gateway, caller, id).await.map(drop),
        }
    }
}

pub async fn list(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    of: Of,
    id: &str,
) -> Result<Reply, ApiError> {
    of.check(gateway, caller, id).await?;
    let schedules = gateway.engine.schedules(id.to_owned()).await?;
    let shown = schedules.into_iter().map(|it| {
        json!({
            "key": it.key,
            "description": it.description,
            "customizable": it.customizable,
            "definition": it.definition,
            "customized": it.customized,
            "next_ms": it.next_ms,
        })
    });
    Ok(Reply::data(&shown.collect::<Vec<_>>()))
}

/// `{type: "cron", cron: {expression, location}}` or `{type: "frequency", …}`.
pub async fn customize(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    (of, id, key): (Of, &str, &str),
    body: &[u8],
) -> Result<Reply, ApiError> {
    let definition: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?;
    change(gateway, caller, (of, id, key), Some(definition)).await
}

/// Leaves it to the app again.
pub async fn reset(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    whose: (Of, &str, &str),
) -> Result<Reply, ApiError> {
    change(gateway, caller, whose, None).await
}

async fn change(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    (of, id, key): (Of, &str, &str),
    definition: Option<Value>,
) -> Result<Reply, ApiError> {
    of.check(gateway, caller, id).await?;
    let (component, key) = (id.to_owned(), key.to_owned());
    let engine = &gateway.engine;
    engine
        .customize_schedule(component, key, definition)
        .await?;
    list(gateway, caller, of, id).await
}
