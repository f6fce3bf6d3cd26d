//! API keys: an admin's, or one for some projects or scopes. None gives what it
//! has not itself.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::directory::Grant;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, Json, name};
use crate::gateway::scopes::Scopes;
use crate::store::directory::ApiKey;
use crate::telemetry::now_ms;

/// Keys at once; each request looks through them.
const KEYS_MAX: usize = 1_000;

pub fn list(gateway: &Gateway, caller: &Caller) -> Result<Reply, ApiError> {
    caller.admin()?;
    let keys: Vec<Value> = gateway
        .directory
        .keys()
        .iter()
        .map(|key| {
            json!({
                "id": key.id,
                "name": key.name,
                "projects": key.projects,
                "scopes": shown(key),
                "expires_ms": key.expires_ms,
                "created_us": key.created_us,
            })
        })
        .collect();
    Ok(Reply::data(&keys))
}

pub async fn create(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    caller.admin()?;
    let mut fields = Fields::read(body)?;
    let name = name(&fields.required_text("name")?)?;
    let projects = fields.texts("projects")?;
    let scopes = scopes_of(caller, fields.texts("scopes")?)?;
    let expires_ms = fields
        .take("expires")
        .map(|value| moment(&value))
        .transpose()?;
    fields.finish()?;
    for project in projects.iter().flatten() {
        if !gateway.directory.has_project(project) {
            return Err(ApiError::bad(format!(
                "`projects` names {project}, which does not exist"
            )));
        }
    }
    if gateway.directory.keys().len() >= KEYS_MAX {
        return Err(ApiError::conflict(format!(
            "there are {KEYS_MAX} API keys, which is the limit: remove some"
        )));
    }
    let grant = Grant {
        projects,
        scopes,
        expires_ms,
    };
    let (key, credential) = gateway.directory.add_key(&name, grant).await?;
    Ok(Reply::created(&json!({
        "id": key.id, "name": key.name, "key": credential, "scopes": shown(&key),
    })))
}

/// The scopes of a new key: those asked for, and without any word the maker's own.
fn scopes_of(caller: &Caller, asked: Option<Vec<String>>) -> Result<Option<String>, ApiError> {
    let asked = match &asked {
        None if caller.scopes == Scopes::all() => return Ok(None),
        None => caller.scopes.clone(),
        Some(words) if words.is_empty() => {
            let sentence = "`scopes` is empty: name some, or leave it out for all of this key's";
            return Err(ApiError::bad(sentence));
        }
        Some(words) => Scopes::of_key(words.iter().map(String::as_str)).map_err(|word| {
            let known = Scopes::all().words().join("`, `");
            ApiError::bad(format!(
                "`scopes` names `{word}`, which is none of `{known}`"
            ))
        })?,
    };
    match asked.beyond(&caller.scopes) {
        None => Ok(Some(asked.to_text())),
        Some(scope) => Err(ApiError::forbidden(format!(
            "this API key lacks the scope `{}` and so cannot give it",
            scope.as_str()
        ))),
    }
}

/// The words of a key's scopes.
fn shown(key: &ApiKey) -> Vec<&str> {
    match &key.scopes {
        None => Scopes::all().words(),
        Some(words) => words.split_ascii_whitespace().collect(),
    }
}

pub async fn delete(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    caller.admin()?;
    if id == caller.key {
        return Err(ApiError::conflict(
            "a key cannot remove itself: use another admin key",
        ));
    }
    gateway.directory.remove_key(id).await?;
    Ok(Reply::data(&json!({"id": id})))
}

/// Milliseconds since the Unix epoch, or an RFC 3339 time.
fn moment(value: &Json) -> Result<u64, ApiError> {
    let at = match value {
        Json::Number(number) => number.as_u64(),
        Json::Text(text) => text
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|at| u64::try_from(at.as_millisecond()).ok()),
        _ => None,
    };
    match at {
        Some(at) if at > now_ms() => Ok(at),
        Some(_) => Err(ApiError::bad("`expires` is in the past")),
        None => Err(ApiError::bad(
            "`expires` is neither milliseconds since the Unix epoch nor a time such as 2030-01-31T12:00:00Z",
        )),
    }
}
