//! Requests to the endpoints of apps and flows: anybody's, so that everything
//! in them has a limit; who sent them is for the app to judge.

use std::sync::Arc;

use crate::gateway::Gateway;
use crate::gateway::directory::new_id;
use crate::gateway::engine::http_endpoint::{self, Incoming, REQUEST_BODY_BYTES_MAX, below};
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::http::Request;

/// Below this path is nothing but endpoints.
const BASE: &str = "/endpoints";

/// A request whose path says whose endpoint it is for.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    request: Request<'_>,
    whose: &str,
) -> Result<Reply, ApiError> {
    serve_at(gateway, request, whose, &format!("{BASE}/{whose}")).await
}

/// Brings a request to whoever it is for and answers with what they say. Their
/// endpoint begins at the path `base`: nothing, on a host of its own.
pub(super) async fn serve_at(
    gateway: &Arc<Gateway>,
    mut request: Request<'_>,
    whose: &str,
    base: &str,
) -> Result<Reply, ApiError> {
    if gateway.is_draining() {
        return Err(ApiError::later(503, "the gateway is about to stop", 2));
    }
    let missing = || ApiError::not_found("endpoint");
    let target = request.target();
    let own = below(base, &target).ok_or_else(missing)?;
    let block = own.strip_prefix("/blocks/");
    let block = block.and_then(|rest| rest.split(['/', '?']).next());
    let block = match block {
        Some(id) if gateway.engine.has_block(whose, id).await? => Some(id.to_owned()),
        _ => None,
    };
    let own = match &block {
        Some(id) => below(&format!("{base}/blocks/{id}"), &target).ok_or_else(missing)?,
        None => own,
    };
    let most = u64::try_from(REQUEST_BODY_BYTES_MAX).unwrap_or(u64::MAX);
    let body = request.body(most).await?;
    let headers = request.headers();
    let headers: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let read = http_endpoint::Request::read(&Incoming {
        request_id: &new_id(),
        method: &request.head.method,
        target: &own,
        headers: &headers,
        body: &body,
    })
    .map_err(|refused| ApiError::new(refused.status(), refused.to_string()))?;
    // Its share of the memory for bodies goes back before the long wait.
    drop(body);
    let response = gateway
        .engine
        .request(whose, block.as_deref(), read)
        .await?;
    Ok(Reply::foreign(
        response.status,
        response.headers,
        response.body,
    ))
}
