//! The person is asked: `/oauth/authorize`, shown and answered.
//!
//! The page carries the request back to us sealed, so that what was shown is what
//! is agreed to, and beside it a random number that a cookie of the same browser
//! must repeat, so that no other site can send the form.

use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::oauth::codes::{Consent, is_challenge};
use crate::gateway::oauth::{Form, Refusal, clients, page, redirect};
use crate::gateway::scopes::Scopes;
use crate::gateway::secrets;
use crate::telemetry::now_ms;

/// What keeps these seals apart from others.
const SEAL: &str = "page";
/// How long a page may be answered, in milliseconds.
const PAGE_MS: u64 = 10 * 60 * 1_000;
/// The longest state that is carried back, in bytes.
const STATE_BYTES_MAX: usize = 1_024;

/// A request that may be shown to a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// Hash of the client's id.
    client: String,
    pub name: String,
    pub redirect_uri: String,
    state: Option<String>,
    challenge: String,
    pub scopes: String,
    /// Hash of the cookie's value.
    browser: String,
    until_ms: u64,
}

/// Shows the page, or sends the browser back with what is wrong.
pub fn show(gateway: &Gateway, query: &[(String, String)]) -> Result<Reply, Refusal> {
    let form = match Form::new(query.to_vec()) {
        Ok(form) => form,
        Err(refusal) => return Ok(page::wrong(&refusal.description)),
    };
    // Until client and address are known, nobody is sent anywhere.
    let id = form.get("client_id").unwrap_or_default();
    let Some(client) = clients::known(gateway, id) else {
        return Ok(page::wrong(
            "The program that asks is not registered here, or was so long ago: start its login again.",
        ));
    };
    let uri = form.get("redirect_uri").unwrap_or_default();
    let Some(url) = redirect::loopback(uri).filter(|_| {
        client
            .uris
            .iter()
            .any(|known| redirect::matches(known, uri))
    }) else {
        return Ok(page::wrong(
            "The address to which the answer should go is not the one that the program has registered.",
        ));
    };
    let state = form.get("state").map(str::to_owned);
    let read = read(&form);
    let (challenge, scopes) = match read {
        Ok(read) => read,
        Err(refusal) => {
            let fields = [
                ("error", refusal.error),
                ("error_description", refusal.description.as_str()),
            ];
            return Ok(back(gateway, url, &fields, state.as_deref()));
        }
    };
    let browser = secrets::token("")?;
    let ask = Ask {
        client: secrets::hash(id),
        name: client.name,
        redirect_uri: uri.to_owned(),
        state,
        challenge,
        scopes: scopes.to_text(),
        browser: secrets::hash(&browser),
        until_ms: now_ms() + PAGE_MS,
    };
    let sealed = gateway.tokens.seal(SEAL, &json!(ask).to_string());
    let shown = page::Page {
        ask: &ask,
        scopes: &scopes,
        sealed: &sealed,
        complaint: None,
        is_secure: gateway.addresses.base().starts_with("https:"),
    };
    Ok(shown.reply(Some(&browser))?)
}

/// Challenge and scopes, of a request whose address is good.
fn read(form: &Form) -> Result<(String, Scopes), Refusal> {
    if form.required("response_type")? != "code" {
        let sentence = "`response_type` is not `code`";
        return Err(Refusal::new("unsupported_response_type", sentence));
    }
    let challenge = form.required("code_challenge")?;
    if form.get("code_challenge_method") != Some("S256") || !is_challenge(challenge) {
        let sentence = "`code_challenge` is no challenge of method S256";
        return Err(Refusal::new("invalid_request", sentence));
    }
    if form
        .get("state")
        .is_some_and(|state| state.len() > STATE_BYTES_MAX)
    {
        let sentence = format!("`state` has more than {STATE_BYTES_MAX} bytes");
        return Err(Refusal::new("invalid_request", sentence));
    }
    let scopes = Scopes::of_login(form.get("scope").unwrap_or_default());
    let scopes = scopes
        .map_err(|word| Refusal::new("invalid_scope", format!("there is no scope `{word}`")))?;
    Ok((challenge.to_owned(), scopes))
}

/// Takes the person's answer.
pub fn answer(gateway: &Gateway, body: &[u8], cookie: Option<&str>) -> Result<Reply, Refusal> {
    let form = Form::read(body)?;
    let sealed = form.get("request").unwrap_or_default();
    let ask = gateway.tokens.unseal(SEAL, sealed);
    let ask: Option<Ask> = ask.and_then(|text| serde_json::from_str(&text).ok());
    let same_browser = |ask: &Ask| {
        cookie.is_some_and(|cookie| secrets::same(&secrets::hash(cookie), &ask.browser))
    };
    let Some(ask) = ask.filter(|ask| ask.until_ms > now_ms() && same_browser(ask)) else {
        return Ok(page::wrong(
            "This page is too old, or another one was opened after it: start the login again.",
        ));
    };
    let Some(url) = redirect::loopback(&ask.redirect_uri) else {
        return Ok(page::wrong("The address of the answer is not good."));
    };
    let state = ask.state.as_deref();
    if form.get("answer") != Some("yes") {
        let fields = [
            ("error", "access_denied"),
            ("error_description", "the person said no"),
        ];
        return Ok(back(gateway, url, &fields, state));
    }
    let key = form.get("key").unwrap_or_default().trim();
    let scopes = Scopes::of_login(&ask.scopes);
    let scopes = scopes.map_err(|word| Refusal::new("invalid_scope", word))?;
    let (caller, granted) = match granted(gateway, key, &scopes) {
        Ok(granted) => granted,
        Err(error) => {
            let shown = page::Page {
                ask: &ask,
                scopes: &scopes,
                sealed,
                complaint: Some(&error.message),
                is_secure: gateway.addresses.base().starts_with("https:"),
            };
            return Ok(shown.reply(None)?);
        }
    };
    let code = secrets::token("sfcode_")?;
    let consent = Consent {
        client: ask.client,
        redirect_uri: ask.redirect_uri,
        challenge: ask.challenge,
        scopes: granted.to_text(),
        api_key: caller.key,
    };
    if !gateway.codes.hold(&code, consent, now_ms()) {
        let fields = [
            ("error", "temporarily_unavailable"),
            (
                "error_description",
                "too many logins at once: try again in a minute",
            ),
        ];
        return Ok(back(gateway, url, &fields, state));
    }
    Ok(back(gateway, url, &[("code", &code)], state))
}

/// Whose key it is, and what of the scopes asked for it can give: at least one.
fn granted(gateway: &Gateway, key: &str, asked: &Scopes) -> Result<(Caller, Scopes), ApiError> {
    let caller = Caller::check(gateway, Some(key))?;
    let granted = asked.within(&caller.scopes);
    if granted.words().is_empty() {
        let sentence = "this API key has none of the scopes that are asked for";
        return Err(ApiError::forbidden(sentence));
    }
    Ok((caller, granted))
}

/// Sends the browser to the client with an answer.
fn back(gateway: &Gateway, mut url: Url, fields: &[(&str, &str)], state: Option<&str>) -> Reply {
    url.query_pairs_mut()
        .extend_pairs(fields)
        .extend_pairs(state.map(|state| ("state", state)))
        .append_pair("iss", gateway.addresses.base());
    let mut headers = page::headers();
    headers.push(("location".to_owned(), url.to_string()));
    // After a form, 303 alone makes sure that the key is not sent along.
    Reply::foreign(303, headers, Vec::new())
}
