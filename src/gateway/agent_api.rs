//! What a worker asks over HTTP for the job it holds: its bundle, and the SDK
//! calls of its invocation.
//!
//! A call is fenced like a report: one of an older attempt is refused (410), one
//! of a newer attempt raises the fence. It is compared with those of earlier
//! invocations by the attempt as which its own began, as that does not rise. Calls of the flow engine's jobs are the
//! engine's, the key-value store apart; a job that was made by hand speaks for
//! no block, so its other calls are recorded and have no effect.

use serde_json::{Value, json};
use sluice_proto::job::{Attempt, Identity};

use crate::gateway::Gateway;
use crate::gateway::auth::JobCaller;
use crate::gateway::directory::new_id;
use crate::gateway::engine::expressions::bytes_of;
use crate::gateway::engine::run::{self, Purpose};
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, Json};
use crate::gateway::lifecycle::Denial;
use crate::store::calls::{ARGS_BYTES_KEPT, Call, Effect, Number, Render};
use crate::store::kv::{Answer, Lock, Op, Pair, Set};
use crate::telemetry::{now_ms, now_us};

/// The largest body of one call, in bytes.
pub const CALL_BYTES_MAX: u64 = 5 * 1024 * 1024;
/// Calls recorded per job; later ones are carried out but not kept for views.
const CALLS_KEPT: u32 = 1_000;
/// Keys one call may name.
const KEYS_MAX: usize = 1_000;
/// The largest value of a key, in bytes of JSON: a page of values stays small.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 1_024;

/// `GET /agent/v1/bundles/{digest}`: only the bundle of the job itself.
pub async fn bundle(
    gateway: &Gateway,
    caller: &JobCaller,
    digest: &str,
) -> Result<Reply, ApiError> {
    let own = caller.holder.identity.bundle();
    if own.is_none_or(|own| own.as_str() != digest) {
        return Err(ApiError::forbidden(
            "this is not the bundle of the token's job",
        ));
    }
    let bytes = gateway.bundles.get(digest).await?;
    Ok(Reply::bytes("text/javascript; charset=utf-8", bytes))
}

/// `POST /agent/v1/calls`.
pub async fn call(gateway: &Gateway, caller: &JobCaller, body: &[u8]) -> Result<Reply, ApiError> {
    let mut fields = Fields::read(body)?;
    let job = fields.required_text("job")?;
    let attempt = attempt_of("attempt", fields.object("attempt")?)?;
    let began = match fields.object("began")? {
        Some(began) => attempt_of("began", Some(began))?,
        None => attempt,
    };
    let number = fields
        .whole("number")?
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| ApiError::bad("`number` is missing or too large"))?;
    let method = fields.required_text("method")?;
    let args = match fields.take("args") {
        Some(Json::List(args)) => args,
        _ => return Err(ApiError::bad("`args` is not a list")),
    };
    fields.finish()?;
    let spec = &caller.holder.spec;
    if job != spec.id || attempt.dispatch != caller.dispatch {
        return Err(ApiError::forbidden(
            "the token is for another job or dispatch",
        ));
    }
    let step = purpose(caller).filter(|_| !method.starts_with("kv."));
    let effect = match step {
        Some(_) => Effect::Answer(Value::Null),
        None => plan(caller, &method, &args)?,
    };
    let called = gateway
        .line
        .called(&job, attempt, CALLS_KEPT)
        .map_err(|denial| refused(denial, attempt))?;
    let args = Json::List(args).to_bytes();
    let text = String::from_utf8_lossy(&args).into_owned();
    let call = Call {
        number: Number {
            job: spec.seq,
            dispatch: began.dispatch,
            delivery: began.delivery,
            number,
        },
        at_us: now_us(),
        method,
        args: (text.len() <= ARGS_BYTES_KEPT).then_some(text),
        answer: None,
        error: None,
    };
    if let Some(purpose) = step {
        let call = run::Call {
            record: call,
            began,
            keep: called.record,
            count: called.count,
            args: serde_json::from_slice(&args).map_err(ApiError::internal)?,
            purpose,
        };
        return Ok(Reply::data(&gateway.engine.call(call).await?));
    }
    let render = render_for(&call.method);
    let value = gateway
        .store
        .call(call, effect, render, now_ms(), called.record)
        .await?;
    Ok(Reply::data(&value))
}

/// The step that a job of the engine belongs to.
fn purpose(caller: &JobCaller) -> Option<Purpose> {
    Purpose::read(caller.holder.spec.purpose.as_deref()?)
}

fn render_for(method: &str) -> Render {
    match method.rsplit('.').next() {
        Some("get") => render_one,
        Some("set" | "setMany") => render_done,
        Some("delete" | "releaseLock") => render_nothing,
        _ => render_many,
    }
}

fn attempt_of(field: &str, object: Option<Json>) -> Result<Attempt, ApiError> {
    let part = |name: &str| match object.as_ref().and_then(|object| object.get(name)) {
        Some(Json::Number(number)) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    match (part("dispatch"), part("delivery")) {
        (Some(dispatch), Some(delivery)) => Ok(Attempt { dispatch, delivery }),
        _ => Err(ApiError::bad(format!(
            "`{field}` is not {{dispatch, delivery}}"
        ))),
    }
}

/// 410: the attempt is over, and nothing that its code does can change that.
fn refused(denial: Denial, attempt: Attempt) -> ApiError {
    match denial {
        Denial::OlderAttempt => ApiError::gone(format!(
            "attempt {attempt} is no longer the one that counts: a later attempt of the job has begun"
        )),
        Denial::Ended => ApiError::gone("the job has ended"),
        Denial::NeverDispatched | Denial::NotQueued => ApiError::conflict(format!(
            "the gateway knows no attempt {attempt} of this job"
        )),
    }
}

/// What a call asks for. Errors become rejected promises in the app.
fn plan(caller: &JobCaller, method: &str, args: &[Json]) -> Result<Effect, ApiError> {
    let first = args.first();
    match method {
        "events.createPending" | "timers.set" => Ok(Effect::Answer(new_id().into())),
        "blocks.list" => Ok(Effect::Answer(json!({"blocks": []}))),
        "events.emit"
        | "events.updatePending"
        | "events.completePending"
        | "events.cancelPending"
        | "timers.unset"
        | "messaging.sendToBlocks"
        | "messaging.sendToApp"
        | "lifecycle.sync"
        | "lifecycle.proceed"
        | "lifecycle.prompt.create"
        | "lifecycle.prompt.delete"
        | "http.respond"
        | "ui.widget.set" => Ok(Effect::Answer(Value::Null)),
        _ => match method
            .strip_prefix("kv.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((scope, op)) => Ok(Effect::Kv {
                scope: kv_scope(caller, scope)?,
                op: kv_op(op, first)?,
            }),
            None => Err(unknown(method)),
        },
    }
}

fn unknown(method: &str) -> ApiError {
    ApiError::bad(format!("the SDK has no method `{method}`"))
}

fn kv_scope(caller: &JobCaller, scope: &str) -> Result<String, ApiError> {
    let Identity::App { installation, .. } = &caller.holder.identity else {
        return Err(ApiError::bad(
            "expressions of a flow have no key-value store",
        ));
    };
    match scope {
        "app" => Ok(format!("app:{installation}")),
        "block" => match block_of(caller) {
            Some(block) => Ok(format!("block:{installation}:{block}")),
            None => Err(ApiError::bad(
                "kv.block is not available here: the job is not for a block",
            )),
        },
        other => Err(unknown(&format!("kv.{other}"))),
    }
}

/// The block whose store a job may use: an engine's job says so by id, one made
/// by hand by whatever name it was given.
fn block_of(caller: &JobCaller) -> Option<String> {
    let spec = &caller.holder.spec;
    match purpose(caller) {
        Some(purpose) => {
            let speaker = purpose.speaker()?;
            speaker.flow.map(|_| speaker.component.to_owned())
        }
        None => spec.block.clone(),
    }
}

fn kv_op(op: &str, first: Option<&Json>) -> Result<Op, ApiError> {
    let field = |name: &str| first.and_then(|first| first.get(name));
    match op {
        "get" => Ok(Op::GetMany(vec![key(first)?])),
        "getMany" => Ok(Op::GetMany(keys(first)?)),
        "set" => Ok(Op::SetMany(vec![set(first)?])),
        "setMany" => match first {
            Some(Json::List(pairs)) if pairs.len() <= KEYS_MAX => pairs
                .iter()
                .map(|pair| set(Some(pair)))
                .collect::<Result<_, _>>()
                .map(Op::SetMany),
            _ => Err(ApiError::bad(format!(
                "setMany takes a list of at most {KEYS_MAX} pairs"
            ))),
        },
        "list" => Ok(Op::List {
            prefix: field("keyPrefix")
                .and_then(Json::as_str)
                .unwrap_or_default()
                .to_owned(),
            starting_key: field("startingKey")
                .and_then(Json::as_str)
                .map(str::to_owned),
        }),
        "delete" => Ok(Op::Delete(keys(first)?)),
        "releaseLock" => match field("lockId").and_then(Json::as_str) {
            Some(lock) => Ok(Op::Release {
                key: key(field("key"))?,
                lock: lock.to_owned(),
            }),
            None => Err(ApiError::bad("releaseLock takes {key, lockId}")),
        },
        other => Err(unknown(&format!("kv.….{other}"))),
    }
}

fn key(value: Option<&Json>) -> Result<String, ApiError> {
    match value.and_then(Json::as_str) {
        Some(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => Ok(key.to_owned()),
        _ => Err(ApiError::bad(format!(
            "a key is a string of 1 to {KEY_BYTES_MAX} bytes"
        ))),
    }
}

fn keys(value: Option<&Json>) -> Result<Vec<String>, ApiError> {
    match value {
        Some(Json::List(list)) if list.len() <= KEYS_MAX => {
            list.iter().map(|item| key(Some(item))).collect()
        }
        _ => Err(ApiError::bad(format!(
            "keys are a list of at most {KEYS_MAX} strings"
        ))),
    }
}

fn set(pair: Option<&Json>) -> Result<Set, ApiError> {
    let field = |name: &str| {
        pair.and_then(|pair| pair.get(name))
            .filter(|value| **value != Json::Null)
    };
    let seconds = |value: Option<&Json>, name: &str| match value {
        None => Ok(None),
        Some(Json::Number(number)) => Ok(number.as_f64()),
        Some(_) => Err(ApiError::bad(format!(
            "`{name}` is not a number of seconds"
        ))),
    };
    let lock = match field("lock") {
        None => None,
        Some(lock) => Some(Lock {
            id: lock
                .get("id")
                .and_then(Json::as_str)
                .ok_or_else(|| ApiError::bad("`lock` has no `id`"))?
                .to_owned(),
            timeout_s: seconds(lock.get("timeout"), "timeout")?,
        }),
    };
    // `null` is a value, `undefined` is none.
    let value = pair.and_then(|pair| pair.get("value"));
    let value = value.map(serde_json::to_value).transpose();
    let value = value.map_err(ApiError::internal)?;
    let bytes = value.as_ref().map_or(0, bytes_of);
    if bytes > VALUE_BYTES_MAX {
        return Err(ApiError::bad(format!(
            "the value has {bytes} bytes, more than {VALUE_BYTES_MAX}"
        )));
    }
    Ok(Set {
        key: key(field("key"))?,
        value,
        ttl_s: seconds(field("ttl"), "ttl")?,
        lock,
    })
}

/// A pair of the key-value store as the SDK and the API show it.
pub fn pair(pair: &Pair) -> Value {
    let mut value = json!({"key": pair.key});
    let mut put = |name: &str, what: Option<Value>| {
        if let Some(what) = what {
            value[name] = what;
        }
    };
    put("value", pair.value.clone());
    put("updatedAt", pair.updated_ms.map(Value::from));
    put("ttl", pair.ttl_s.map(Value::from));
    put(
        "lock",
        pair.lock
            .as_ref()
            .map(|lock| json!({"id": lock.id, "timeout": lock.timeout_s})),
    );
    value
}

fn render_one(answer: Answer) -> Value {
    match answer {
        Answer::Pairs(pairs) => pairs.first().map_or(Value::Null, pair),
        other => render_many(other),
    }
}

fn render_many(answer: Answer) -> Value {
    match answer {
        Answer::Pairs(pairs) => pairs.iter().map(pair).collect(),
        Answer::Page { pairs, next } => {
            let pairs: Value = pairs.iter().map(pair).collect();
            match next {
                Some(next) => json!({"pairs": pairs, "nextStartingKey": next}),
                None => json!({"pairs": pairs}),
            }
        }
        Answer::Done(done) => done.into(),
    }
}

fn render_done(answer: Answer) -> Value {
    match answer {
        Answer::Done(done) => done.into(),
        other => render_many(other),
    }
}

fn render_nothing(_: Answer) -> Value {
    Value::Null
}
