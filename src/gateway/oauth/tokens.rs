//! Codes and refresh tokens for access tokens: `/oauth/token`, `/oauth/revoke`.

use serde_json::json;

use crate::gateway::Gateway;
use crate::gateway::directory::new_id;
use crate::gateway::http::Reply;
use crate::gateway::oauth::codes::Redeemed;
use crate::gateway::oauth::{Form, Refusal, json_reply};
use crate::gateway::secrets::{self, ACCESS_TOKEN_PREFIX, CREDENTIAL_BYTES_MAX};
use crate::store::logins::{Kind, Login, Renewal, Token};
use crate::telemetry::now_ms;

/// How long an access token is good, in milliseconds.
const ACCESS_MS: u64 = 3_600 * 1_000;
/// How long a refresh token is good, in milliseconds: a month without use.
const REFRESH_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// How long a login lasts at most, in milliseconds; then the person is asked again.
const LOGIN_MS: u64 = 180 * 24 * 3_600 * 1_000;
/// Logins of one API key; the oldest ends when there is one more.
const LOGINS_MAX: u32 = 100;

/// A pair of tokens, told once.
struct Pair {
    access: String,
    refresh: String,
}

/// `POST /oauth/token`.
pub async fn issue(gateway: &Gateway, body: &[u8]) -> Result<Reply, Refusal> {
    let form = Form::read(body)?;
    match form.required("grant_type")? {
        "authorization_code" => redeem(gateway, &form).await,
        "refresh_token" => renew(gateway, &form).await,
        _ => Err(Refusal::new(
            "unsupported_grant_type",
            "`grant_type` is neither `authorization_code` nor `refresh_token`",
        )),
    }
}

async fn redeem(gateway: &Gateway, form: &Form) -> Result<Reply, Refusal> {
    let client = secrets::hash(form.required("client_id")?);
    let (id, now_ms) = (new_id(), now_ms());
    let redeemed = gateway.codes.redeem(
        form.required("code")?,
        &client,
        form.required("redirect_uri")?,
        form.required("code_verifier")?,
        &id,
        now_ms,
    );
    let consent = match redeemed {
        Redeemed::Good(consent) => consent,
        Redeemed::Unknown => {
            return Err(invalid(
                "the code is not known, too old, or for another request",
            ));
        }
        Redeemed::Replayed(login) => {
            gateway.store.delete_login(&login).await?;
            tracing::warn!(login, "A code was shown twice, so its login is over");
            return Err(invalid("the code was used before, so its login is over"));
        }
    };
    // It was good a minute ago; what has become of it since counts.
    if !gateway.directory.has_key(&consent.api_key, now_ms) {
        return Err(invalid("the API key of this login is gone"));
    }
    let login = Login {
        id,
        client,
        api_key: consent.api_key,
        scopes: consent.scopes,
        created_ms: now_ms,
        until_ms: now_ms + LOGIN_MS,
    };
    let pair = Pair::new()?;
    let store = &gateway.store;
    store
        .create_login(login.clone(), pair.stored(now_ms), LOGINS_MAX)
        .await?;
    tracing::info!(
        login = login.id,
        key = login.api_key,
        "A person has logged in"
    );
    Ok(pair.reply(&login.scopes))
}

async fn renew(gateway: &Gateway, form: &Form) -> Result<Reply, Refusal> {
    let client = secrets::hash(form.required("client_id")?);
    let hash = secrets::hash(form.required("refresh_token")?);
    let (pair, now_ms) = (Pair::new()?, now_ms());
    let tokens = pair.stored(now_ms);
    match gateway
        .store
        .renew_login(hash, client, tokens, now_ms)
        .await?
    {
        Renewal::Renewed(login) if gateway.directory.has_key(&login.api_key, now_ms) => {
            Ok(pair.reply(&login.scopes))
        }
        Renewal::Renewed(login) => {
            gateway.store.delete_login(&login.id).await?;
            Err(invalid("the API key of this login is gone"))
        }
        Renewal::Unknown => Err(invalid("the refresh token is not known, or has ended")),
        Renewal::Replayed(login) => {
            tracing::warn!(
                login,
                "A refresh token was used twice, so its login is over"
            );
            Err(invalid(
                "the refresh token was used before, so its login is over",
            ))
        }
    }
}

/// `POST /oauth/revoke` (RFC 7009): ends the login of either token. What is not
/// known is over already.
pub async fn revoke(gateway: &Gateway, body: &[u8]) -> Result<Reply, Refusal> {
    let form = Form::read(body)?;
    let token = form.required("token")?;
    if token.len() <= CREDENTIAL_BYTES_MAX {
        let hash = secrets::hash(token);
        for kind in [Kind::Refresh, Kind::Access] {
            if let Some((login, _)) = gateway.store.login_of(&hash, kind).await? {
                gateway.store.delete_login(&login.id).await?;
            }
        }
    }
    Ok(json_reply(200, &json!({})))
}

fn invalid(description: &str) -> Refusal {
    Refusal::new("invalid_grant", description)
}

// === impl Pair ===

impl Pair {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            access: secrets::token(ACCESS_TOKEN_PREFIX)?,
            refresh: secrets::token("sfrefresh_")?,
        })
    }

    fn stored(&self, now_ms: u64) -> [Token; 2] {
        let token = |text: &str, kind: Kind, how_long_ms: u64| Token {
            hash: secrets::hash(text),
            kind,
            until_ms: now_ms + how_long_ms,
        };
        [
            token(&self.access, Kind::Access, ACCESS_MS),
            token(&self.refresh, Kind::Refresh, REFRESH_MS),
        ]
    }

    fn reply(&self, scopes: &str) -> Reply {
        json_reply(
            200,
            &json!({
                "access_token": self.access,
                "token_type": "Bearer",
                "expires_in": ACCESS_MS / 1_000,
                "refresh_token": self.refresh,
                "scope": scopes,
            }),
        )
    }
}
