//! From the body of a job to a job: every field checked, and the payload put
//! together that nobody between here and the Node harness reads again.

use sluice_proto::codec::PAYLOAD_BYTES_MAX;
use sluice_proto::ids::Digest;
use sluice_proto::job::{Identity, Kind};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::json::{Fields, Json};
use crate::gateway::line::NewJob;
use crate::store::apps::Version;
use crate::telemetry::now_ms;

/// How long an invocation may take if nobody says, in milliseconds.
const TIMEOUT_MS: u32 = 60_000;
/// The longest it may be given: a day, for handlers that wait for others.
const TIMEOUT_MS_MAX: u64 = 86_400_000;
/// The longest name of a flow, an installation or a block, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Expressions in one job.
const EXPRESSIONS_MAX: usize = 1_000;

/// What a handler is named by: each a key of the app's definition.
const HANDLER_KEYS: [&str; 4] = ["block", "input", "schedule", "field"];

/// Reads a job's body.
pub async fn read(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<NewJob, ApiError> {
    let mut fields = Fields::read(body)?;
    let project = fields.required_text("project")?;
    caller.existing_project(gateway, "project", &project)?;
    let pool = pool(gateway, &mut fields, &project)?;
    let word = fields.required_text("kind")?;
    let kind = Kind::parse(&word).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.into_iter().map(Kind::as_str).collect();
        ApiError::bad(format!(
            "`kind` is `{word}`: say one of {}",
            known.join(", ")
        ))
    })?;
    let high = match fields.text("priority")?.as_deref() {
        None | Some("normal") => false,
        Some("high") => true,
        Some(other) => {
            return Err(ApiError::bad(format!(
                "`priority` is `{other}`: say `normal` or `high`"
            )));
        }
    };
    let timeout_ms = timeout_ms(&mut fields)?;
    let expires_ms = fields.whole("expires_ms")?;
    if expires_ms.is_some_and(|at| at <= now_ms()) {
        return Err(ApiError::bad(
            "`expires_ms` is in the past: it is a time in milliseconds since the Unix epoch",
        ));
    }
    let block = short(&mut fields, "block")?;
    let (identity, block, payload) = match kind {
        Kind::Evaluate => evaluate(&mut fields, &project, block)?,
        _ => invoke(gateway, &mut fields, kind, &project, block).await?,
    };
    fields.finish()?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(ApiError::new(
            413,
            format!(
                "the job's payload has {} bytes and the limit is {PAYLOAD_BYTES_MAX}",
                payload.len()
            ),
        ));
    }
    Ok(NewJob {
        pool,
        project,
        kind,
        high,
        identity,
        block,
        timeout_ms,
        expires_ms,
        payload,
    })
}

fn pool(gateway: &Gateway, fields: &mut Fields, project: &str) -> Result<String, ApiError> {
    let id = fields.text("pool")?;
    pool_of(gateway, id, project)
}

/// The pool that is named, or the default one, if the project may use it.
pub fn pool_of(gateway: &Gateway, id: Option<String>, project: &str) -> Result<String, ApiError> {
    let directory = &gateway.directory;
    let id = match id {
        Some(id) => id,
        None => match directory.default_pool() {
            Some(pool) => pool.id,
            None => return Err(ApiError::bad("`pool` is missing")),
        },
    };
    if directory.pool(&id).is_none() {
        return Err(ApiError::bad(format!(
            "`pool` names {id}, which does not exist"
        )));
    }
    if !directory.is_exposed(&id, project) {
        return Err(ApiError::forbidden(format!(
            "agent pool {id} is not exposed to project {project}"
        )));
    }
    Ok(id)
}

fn timeout_ms(fields: &mut Fields) -> Result<u32, ApiError> {
    let Some(ms) = fields.whole("timeout_ms")? else {
        return Ok(TIMEOUT_MS);
    };
    match u32::try_from(ms) {
        Ok(short) if (1..=TIMEOUT_MS_MAX).contains(&ms) => Ok(short),
        _ => Err(ApiError::bad(format!(
            "`timeout_ms` is not between 1 and {TIMEOUT_MS_MAX}"
        ))),
    }
}

type Parts = (Identity, Option<String>, Vec<u8>);

fn evaluate(fields: &mut Fields, project: &str, block: Option<String>) -> Result<Parts, ApiError> {
    let expressions = fields.object("expressions")?.ok_or_else(|| {
        ApiError::bad("`expressions` is missing: {name: \"JavaScript expression\", …}")
    })?;
    if let Json::Object(entries) = &expressions {
        if entries.is_empty() || entries.len() > EXPRESSIONS_MAX {
            return Err(ApiError::bad(format!(
                "`expressions` has not 1 to {EXPRESSIONS_MAX} entries"
            )));
        }
        if let Some((key, _)) = entries.iter().find(|(_, source)| source.as_str().is_none()) {
            return Err(ApiError::bad(format!(
                "`expressions.{key}` is not a string of JavaScript"
            )));
        }
    }
    let scope = fields.object("scope")?.unwrap_or(Json::Object(Vec::new()));
    // A flow is named within its project: nobody shares a runtime with another project's.
    let flow = match short(fields, "flow")? {
        Some(flow) => format!("{project}/{flow}"),
        None => format!("project:{project}"),
    };
    let payload = Json::Object(vec![
        ("expressions".to_owned(), expressions),
        ("scope".to_owned(), scope),
    ]);
    Ok((Identity::Flow { flow }, block, payload.to_bytes()))
}

async fn invoke(
    gateway: &Gateway,
    fields: &mut Fields,
    kind: Kind,
    project: &str,
    block: Option<String>,
) -> Result<Parts, ApiError> {
    let id = fields.required_text("version")?;
    let version = gateway.version(&id).await?;
    let version = version
        .filter(|version| version.is_for(project))
        .ok_or_else(|| {
            ApiError::bad(format!(
                "`version` names {id}, which is no app version of this project"
            ))
        })?;
    let installation = match short(fields, "installation")? {
        Some(name) => format!("{project}/{name}"),
        None => version.id.clone(),
    };
    let identity = identity(installation, &version);
    if kind == Kind::Describe {
        return Ok((identity, block, b"{}".to_vec()));
    }
    let handler = fields
        .object("handler")?
        .unwrap_or(Json::Object(Vec::new()));
    check_handler(kind, &handler)?;
    let input = fields
        .object("input")?
        .ok_or_else(|| ApiError::bad("`input` is missing: what the handler is given"))?;
    // The block's id tells its key-value store from those of its siblings.
    let block = block.or_else(|| {
        let id = input.get("block").and_then(|block| block.get("id"))?;
        id.as_str()
            .filter(|id| id.len() <= NAME_BYTES_MAX)
            .map(str::to_owned)
    });
    let payload = Json::Object(vec![
        ("handler".to_owned(), handler),
        ("input".to_owned(), input),
    ]);
    Ok((identity, block, payload.to_bytes()))
}

fn identity(installation: String, version: &Version) -> Identity {
    Identity::App {
        installation,
        bundle: Digest(version.digest.clone()),
    }
}

fn check_handler(kind: Kind, handler: &Json) -> Result<(), ApiError> {
    let Json::Object(entries) = handler else {
        return Err(ApiError::bad("`handler` is not an object"));
    };
    for (key, value) in entries {
        if !HANDLER_KEYS.contains(&key.as_str()) {
            return Err(ApiError::bad(format!(
                "`handler.{key}` is not known: a handler is named by {}",
                HANDLER_KEYS.join(", ")
            )));
        }
        if value.as_str().is_none() {
            return Err(ApiError::bad(format!("`handler.{key}` is not a string")));
        }
    }
    let needed: &[&str] = match kind {
        Kind::Event => &["block", "input"],
        Kind::Schedule => &["schedule"],
        Kind::Suggest => &["field"],
        _ => &[],
    };
    match needed.iter().find(|key| handler.get(key).is_none()) {
        None => Ok(()),
        Some(key) => Err(ApiError::bad(format!(
            "`handler.{key}` is missing, which a job of kind `{kind}` needs"
        ))),
    }
}

fn short(fields: &mut Fields, name: &str) -> Result<Option<String>, ApiError> {
    match fields.text(name)? {
        Some(text) if text.is_empty() || text.len() > NAME_BYTES_MAX => Err(ApiError::bad(
            format!("`{name}` must have 1 to {NAME_BYTES_MAX} bytes"),
        )),
        other => Ok(other),
    }
}
