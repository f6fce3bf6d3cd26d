//! The bridge's side: from an address and credentials to a session.

use std::time::Duration;

use async_std::future::timeout;
use async_tungstenite::tungstenite::Error as WsError;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::http::{HeaderValue, Request, Response};
use url::Url;

use sluice_proto::frame::{FromBridge, FromGateway, POOL_HEADER, SESSION_PATH};

use crate::config::EgressConfig;
use crate::wire::egress::{self, Target};
use crate::wire::{Error, Receiver, Sender, halves, limits};

/// How long dialling may take, with every proxy and handshake on the way. Below
/// the 10 s within which a wrong token must be told.
const DIAL_MAX: Duration = Duration::from_secs(8);
/// How much of a refusal's text is repeated, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Opens a session with the gateway at `url` (`http`, `https`, `ws` or `wss`).
///
/// [`Error::Refused`] when the pool or its token is not accepted: trying again
/// changes nothing. Every other error but a bad address may pass.
pub async fn dial(
    url: &Url,
    pool: &str,
    token: &str,
    egress: &EgressConfig,
) -> Result<(Sender<FromBridge>, Receiver<FromGateway>), Error> {
    let target = target_of(url)?;
    let request = request_for(&target, url.path(), pool, token)?;
    let dialling = async {
        let stream = egress::connect(&target, egress).await?;
        let upgraded =
            async_tungstenite::client_async_with_config(request, stream, Some(limits())).await;
        match upgraded {
            Ok((stream, _)) => Ok(halves(stream)),
            Err(WsError::Http(response)) => Err(refusal(&response)),
            Err(error) => Err(error.into()),
        }
    };
    match timeout(DIAL_MAX, dialling).await {
        Ok(dialled) => dialled,
        Err(_) => Err(Error::TimedOut("open a session")),
    }
}

fn target_of(url: &Url) -> Result<Target, Error> {
    let tls = match url.scheme() {
        "http" | "ws" => false,
        "https" | "wss" => true,
        other => {
            return Err(Error::Address(format!(
                "`{other}://` leads to no gateway: write http, https, ws or wss"
            )));
        }
    };
    let host = url
        .host_str()
        .ok_or_else(|| Error::Address(format!("{url} names no host")))?;
    Ok(Target {
        host: host.to_owned(),
        port: url.port().unwrap_or(if tls { 443 } else { 80 }),
        tls,
    })
}

fn request_for(target: &Target, base: &str, pool: &str, token: &str) -> Result<Request<()>, Error> {
    let scheme = if target.tls { "wss" } else { "ws" };
    let base = base.trim_end_matches('/');
    let Target { host, port, .. } = target;
    let mut request = format!("{scheme}://{host}:{port}{base}{SESSION_PATH}")
        .into_client_request()
        .map_err(|error| Error::Address(error.to_string()))?;
    // Neither value is repeated: one of them is a secret.
    let value = |text: &str, what: &str| {
        HeaderValue::from_str(text).map_err(|_| {
            Error::Address(format!(
                "the {what} has characters that no header can carry"
            ))
        })
    };
    let mut bearer = value(&format!("Bearer {token}"), "pool token")?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert("authorization", bearer);
    headers.insert(POOL_HEADER, value(pool, "pool id")?);
    Ok(request)
}

/// What an answer that is no upgrade means.
fn refusal(response: &Response<Option<Vec<u8>>>) -> Error {
    let status = response.status().as_u16();
    let body = response.body().as_deref().unwrap_or_default();
    let sentence = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|body| body["error"].as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let mut reason: String = sentence.trim().chars().take(REASON_CHARS_MAX).collect();
    if reason.is_empty() {
        reason = response.status().to_string();
    }
    match status {
        401 | 403 => Error::Refused { status, reason },
        _ => Error::Unwilling { status, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str) -> Request<()> {
        let url = Url::parse(url).expect("an address");
        let target = target_of(&url).expect("a target");
        request_for(&target, url.path(), "p1", "t1").expect("a request")
    }

    #[test]
    fn the_session_path_stands_below_the_endpoints_own() {
        let plain = request("http://gateway:8081");
        assert_eq!(plain.uri(), "ws://gateway:8081/agent/v1/session");
        let below = request("wss://gateway.example/flows/");
        assert_eq!(
            below.uri(),
            "wss://gateway.example:443/flows/agent/v1/session"
        );
        assert_eq!(below.headers()["authorization"], "Bearer t1");
        assert_eq!(below.headers()[POOL_HEADER], "p1");
    }

    #[test]
    fn what_no_header_can_carry_is_told_without_repeating_it() {
        let url = Url::parse("ws://g").expect("an address");
        let target = target_of(&url).expect("a target");
        let error = request_for(&target, "/", "p", "se\ncret").expect_err("a line break");
        assert!(
            !error.is_transient() && !error.to_string().contains("cret"),
            "{error}"
        );
        let ftp = Url::parse("ftp://g").expect("an address");
        assert!(target_of(&ftp).is_err());
    }
}
