//! Clients that register themselves. An id *is* the registration, sealed by the
//! gateway: nothing is stored for it, so nobody can fill anything by registering.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, name};
use crate::gateway::oauth::{Refusal, json_reply, redirect};
use crate::gateway::scopes::{Scope, Scopes};
use crate::telemetry::now_ms;

/// What keeps these seals apart from others.
const SEAL: &str = "client";
/// How long a registration may be used to ask for a login, in milliseconds: a
/// day. Clients register anew for each login; tokens live on without it.
const REGISTRATION_MS: u64 = 24 * 3_600 * 1_000;
/// Addresses in one registration.
const URIS_MAX: usize = 5;
/// The longest id that is looked at, in bytes: all addresses at their longest.
const ID_BYTES_MAX: usize = 4 * 1_024;

/// What a client said of itself. None of it is proven.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Client {
    pub name: String,
    pub uris: Vec<String>,
    until_ms: u64,
}

/// `POST /oauth/register` (RFC 7591).
pub fn register(gateway: &Gateway, body: &[u8]) -> Result<Reply, Refusal> {
    let said = |error: ApiError| Refusal::new("invalid_client_metadata", error.message);
    let mut fields = Fields::read(body).map_err(said)?;
    let uris = fields.texts("redirect_uris").map_err(said)?;
    let uris = uris.unwrap_or_default();
    if uris.is_empty() || uris.len() > URIS_MAX {
        return Err(Refusal::new(
            "invalid_redirect_uri",
            format!("`redirect_uris` has not 1 to {URIS_MAX} addresses"),
        ));
    }
    if let Some(bad) = uris.iter().find(|uri| redirect::loopback(uri).is_none()) {
        let shown: String = bad.chars().take(redirect::URI_BYTES_MAX).collect();
        return Err(Refusal::new(
            "invalid_redirect_uri",
            format!(
                "`{shown}` is no `http` address of this very machine: 127.0.0.1, [::1] or localhost"
            ),
        ));
    }
    let given = fields.text("client_name").map_err(said)?;
    let name = name(given.as_deref().unwrap_or("A program without a name")).map_err(said)?;
    let asked = fields.text("scope").map_err(said)?.unwrap_or_default();
    let scopes = Scopes::of_login(&asked).map_err(|word| {
        Refusal::new(
            "invalid_client_metadata",
            format!("there is no scope `{word}`"),
        )
    })?;
    let client = Client {
        name: name.clone(),
        uris: uris.clone(),
        until_ms: now_ms() + REGISTRATION_MS,
    };
    let id = gateway.tokens.seal(SEAL, &json!(client).to_string());
    Ok(json_reply(
        201,
        &json!({
            "client_id": id,
            "client_id_issued_at": now_ms() / 1_000,
            "client_name": name,
            "redirect_uris": uris,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": scopes.to_text(),
            "token_endpoint_auth_method": "none",
        }),
    ))
}

/// Who has this id, if it is one of ours that has not ended.
pub fn known(gateway: &Gateway, id: &str) -> Option<Client> {
    if id.len() > ID_BYTES_MAX {
        return None;
    }
    let text = gateway.tokens.unseal(SEAL, id)?;
    let client: Client = serde_json::from_str(&text).ok()?;
    (client.until_ms > now_ms()).then_some(client)
}

/// `GET /.well-known/oauth-protected-resource` (RFC 9728).
pub fn resource(gateway: &Gateway) -> Reply {
    let base = gateway.addresses.base();
    json_reply(
        200,
        &json!({
            "resource": base,
            "authorization_servers": [base],
            "scopes_supported": Scope::OF_LOGINS.map(Scope::as_str),
            "bearer_methods_supported": ["header"],
        }),
    )
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414).
pub fn server(gateway: &Gateway) -> Reply {
    let base = gateway.addresses.base();
    json_reply(
        200,
        &json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/oauth/authorize"),
            "token_endpoint": format!("{base}/oauth/token"),
            "registration_endpoint": format!("{base}/oauth/register"),
            "revocation_endpoint": format!("{base}/oauth/revoke"),
            "scopes_supported": Scope::OF_LOGINS.map(Scope::as_str),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": true,
        }),
    )
}
