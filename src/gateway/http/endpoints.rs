//! Requests to the endpoints of apps and flows: anybody's, so that everything
//! in them has a limit; who sent them is for the app to judge.

use futures::FutureExt;
use trillium::{Conn, KnownHeaderName};

use crate::gateway::directory::new_id;
use crate::gateway::engine::http_endpoint::{
    Incoming, REQUEST_BODY_BYTES_MAX, Request, Response, below,
};
use crate::gateway::error::ApiError;
use crate::gateway::http::{Place, RETRY_AFTER_S, Service, refuse};

/// Below this path is nothing but endpoints.
const BASE: &str = "/endpoints/";

/// Whether a request is for an app or a flow.
pub(super) fn is_one(conn: &Conn) -> bool {
    conn.path().starts_with(BASE)
}

/// Brings a request to whoever it is for and sends the answer.
pub(super) async fn serve(service: &Service, mut conn: Conn) -> Conn {
    let mut read = false;
    let work = answer(service, &mut conn, &mut read);
    let caught = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    let result = caught.unwrap_or_else(|_| Err(ApiError::internal("a handler panicked")));
    let mut conn = match result {
        Ok(response) => send(conn, response),
        Err(error) => refuse(conn, error),
    };
    if !read {
        conn.insert_response_header(KnownHeaderName::Connection, "close");
    }
    conn.halt()
}

async fn answer(service: &Service, conn: &mut Conn, read: &mut bool) -> Result<Response, ApiError> {
    let Some(_place) = Place::take(&service.in_flight) else {
        let sentence = "too many requests are in flight: try again shortly";
        return Err(ApiError::later(503, sentence, RETRY_AFTER_S));
    };
    if service.gateway.is_draining() {
        return Err(ApiError::later(503, "the gateway is about to stop", 2));
    }
    let target = match conn.querystring() {
        "" => conn.path().to_owned(),
        query => format!("{}?{query}", conn.path()),
    };
    let rest = target.strip_prefix(BASE).unwrap_or_default();
    let whose = rest.split(['/', '?']).next().unwrap_or_default().to_owned();
    let missing = || ApiError::not_found("endpoint");
    let own = below(&format!("{BASE}{whose}"), &target).ok_or_else(missing)?;
    let block = own.strip_prefix("/blocks/");
    let block = block.and_then(|rest| rest.split(['/', '?']).next());
    let block = match block {
        Some(id) if service.gateway.engine.has_block(&whose, id).await? => Some(id.to_owned()),
        _ => None,
    };
    let own = match &block {
        Some(block) => {
            below(&format!("{BASE}{whose}/blocks/{block}"), &target).ok_or_else(missing)?
        }
        None => own,
    };
    let most = u64::try_from(REQUEST_BODY_BYTES_MAX).unwrap_or(u64::MAX);
    let body = service.bodies.read(conn, most).await?;
    *read = true;
    let headers: Vec<(String, Vec<u8>)> = conn
        .request_headers()
        .iter()
        .flat_map(|(name, values)| {
            let name = name.to_string();
            let values = values.iter();
            values.map(move |value| (name.clone(), value.as_ref().to_vec()))
        })
        .collect();
    let headers: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let request = Request::read(&Incoming {
        request_id: &new_id(),
        method: conn.method().as_str(),
        target: &own,
        headers: &headers,
        body: &body,
    })
    .map_err(|refused| ApiError::new(refused.status(), refused.to_string()))?;
    drop(body);
    service
        .gateway
        .engine
        .request(&whose, block.as_deref(), request)
        .await
}

fn send(conn: Conn, response: Response) -> Conn {
    let mut conn = conn.with_status(response.status).with_body(response.body);
    for (name, value) in response.headers {
        conn.response_headers_mut().append(name, value);
    }
    conn
}
