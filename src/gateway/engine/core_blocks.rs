//! The blocks that belong to the product itself: their schemas, and what each
//! does with an event, as values.
//!
//! | block | config | input | outputs |
//! |---|---|---|---|
//! | `condition` | | `condition` (boolean) | `then`, `else`: the event, passed on |
//! | `sleep` | | `sleep` (seconds) | `default`: the event, passed on later |
//! | `transform` | | | `default`: its customization, else the event passed on |
//! | `httpEndpoint` | `path`, `methods` | `respond`: `statusCode`, `headers`, `body` | `default`: the request |
//! | `httpRequest` | `agentPool` | `url`, `method`, `headers`, `query`, `body`, `timeout` | `default`: the response |
//! | `schedule` | `cron`, `location` or `interval`, `unit` | | `default`: the time |
//! | `manualTrigger` | | `default`: triggered by a person or the API | `default`: the event, passed on |
//!
//! Owns these rules. Does not wait, send or store: a [`Step`] says what to do.

mod request;
mod schemas;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::gateway::engine::definition;
use crate::gateway::engine::schedule::{self, Schedule};
use crate::gateway::engine::schema;
use crate::gateway::engine::types::json_schema::kind;

pub use request::{REQUEST_BODY_BYTES_MAX, REQUEST_TIMEOUT_S_MAX, Request, Response};

/// Longest sleep, in seconds: a year. Longer is a mistake in a unit.
pub const SLEEP_S_MAX: f64 = 366.0 * 24.0 * 3_600.0;

/// The input of the HTTP endpoint block that answers the request.
pub const RESPOND_INPUT: &str = "respond";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Core {
    Condition,
    Sleep,
    Transform,
    HttpEndpoint,
    HttpRequest,
    Schedule,
    ManualTrigger,
}

/// What a core block does with one event.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Emit on this output, with the handled event as the primary parent.
    Emit { output: String, body: Value },
    /// Emit later. The time is milliseconds since 1970.
    EmitAt {
        at_ms: i64,
        output: String,
        body: Value,
    },
    /// Make this request in a runtime of the named pool (none: the default pool),
    /// then call [`responded`].
    Request {
        request: Request,
        pool: Option<String>,
    },
    /// Answer the open HTTP request with these arguments of `http.respond`. Which
    /// one: the endpoint emits its requests as echoes, so it is the `requestId`
    /// in the body of the handled event's echo for this block.
    Respond { args: Value },
}

// === impl Core ===

impl Core {
    pub const ALL: [Self; 7] = [
        Self::Condition,
        Self::Sleep,
        Self::Transform,
        Self::HttpEndpoint,
        Self::HttpRequest,
        Self::Schedule,
        Self::ManualTrigger,
    ];

    /// As definitions write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::Sleep => "sleep",
            Self::Transform => "transform",
            Self::HttpEndpoint => "httpEndpoint",
            Self::HttpRequest => "httpRequest",
            Self::Schedule => "schedule",
            Self::ManualTrigger => "manualTrigger",
        }
    }

    /// Reads a name whatever its separators: `http_request` is `httpRequest`.
    pub fn named(name: &str) -> Option<Self> {
        let plain = |name: &str| {
            let letters = name.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
            letters.flat_map(char::to_lowercase).collect::<String>()
        };
        let name = plain(name);
        Self::ALL
            .into_iter()
            .find(|core| plain(core.name()) == name)
    }

    /// In the shape that an app's blocks have.
    pub fn schema(self) -> &'static schema::Block {
        schemas::of(self)
    }

    /// Whether an event at an input needs a runtime after its config is known.
    pub const fn needs_a_runtime(self) -> bool {
        matches!(self, Self::HttpRequest)
    }
}

// === Steps ===

/// What `core` does with an event at `input`: `inputs` is the evaluated and
/// filled config of the input, `statics` that of the block, `body` the body of
/// the event.
///
/// # Errors
///
/// A sentence that names the field: the event is failed with it.
pub fn step(
    core: Core,
    input: &str,
    statics: &Map<String, Value>,
    inputs: &Map<String, Value>,
    body: &Value,
    now_ms: i64,
) -> Result<Step, String> {
    let pass_on = |output: &str| Step::Emit {
        output: output.to_owned(),
        body: body.clone(),
    };
    match core {
        Core::Condition => match inputs.get("condition") {
            Some(Value::Bool(true)) => Ok(pass_on("then")),
            Some(Value::Bool(false)) => Ok(pass_on("else")),
            other => Err(format!(
                "`condition`: expected a boolean, found {}",
                other.map_or("nothing", kind)
            )),
        },
        Core::Sleep => Ok(Step::EmitAt {
            at_ms: wake_ms(inputs.get("sleep"), now_ms)?,
            output: "default".to_owned(),
            body: body.clone(),
        }),
        Core::Transform | Core::ManualTrigger => Ok(pass_on("default")),
        Core::HttpRequest => Ok(Step::Request {
            request: Request::read(inputs)?,
            pool: pool(statics)?,
        }),
        Core::HttpEndpoint if input == RESPOND_INPUT => Ok(Step::Respond {
            args: Value::Object(inputs.clone()),
        }),
        Core::HttpEndpoint | Core::Schedule => {
            Err(format!("the block has no input `{input}` for events"))
        }
    }
}

/// What the HTTP request block emits once the response is here.
pub fn responded(response: Response) -> Step {
    Step::Emit {
        output: "default".to_owned(),
        body: response.into_body(),
    }
}

/// The pool that an HTTP request block names, by id or name.
///
/// # Errors
///
/// Something else than a text.
pub fn pool(statics: &Map<String, Value>) -> Result<Option<String>, String> {
    match statics.get("agentPool") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(pool)) if pool.trim().is_empty() => Ok(None),
        Some(Value::String(pool)) => Ok(Some(pool.clone())),
        Some(other) => Err(format!(
            "`agentPool`: expected the name or the id of a pool, found {}",
            kind(other)
        )),
    }
}

/// The schedule of a schedule block.
///
/// # Errors
///
/// Neither a cron expression nor an interval, both, or one that is none.
pub fn schedule_of(statics: &Map<String, Value>) -> Result<Schedule, schedule::Error> {
    let given = |key: &str| statics.get(key).filter(|value| !value.is_null());
    match (given("cron"), given("interval")) {
        (Some(expression), None) => Schedule::parse(&json!({
            "type": "cron",
            "cron": {"expression": expression, "location": given("location")},
        })),
        (None, Some(interval)) => Schedule::parse(&json!({
            "type": "frequency",
            "frequency": {"interval": interval, "unit": given("unit")},
        })),
        _ => Err(schedule::Error::Shape(
            "give either `cron` or `interval`".to_owned(),
        )),
    }
}

/// The body that a schedule block emits.
pub fn scheduled(at_ms: i64, schedule: &Schedule) -> Step {
    let time = jiff::Timestamp::from_millisecond(at_ms).map(|time| time.to_string());
    Step::Emit {
        output: "default".to_owned(),
        body: json!({"scheduledAt": time.unwrap_or_default(), "schedule": schedule.text()}),
    }
}

/// Whether a request with this method and path belongs to an endpoint block,
/// and the path below it when it does. Paths start with `/`.
pub fn endpoint_path<'p>(
    statics: &Map<String, Value>,
    method: &str,
    path: &'p str,
) -> Option<&'p str> {
    let methods = statics.get("methods").and_then(Value::as_array);
    let allowed = methods.is_none_or(|methods| {
        let mut methods = methods.iter().filter_map(Value::as_str);
        methods.clone().next().is_none() || methods.any(|known| known.eq_ignore_ascii_case(method))
    });
    if !allowed {
        return None;
    }
    let base = statics.get("path").and_then(Value::as_str).unwrap_or("/");
    let base = base.trim_matches('/');
    if base.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix('/')?.strip_prefix(base)?;
    match rest {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        // `/hooks` does not own `/hooksmith`.
        _ => None,
    }
}

/// Whether requests to an endpoint block wait for an event at its response
/// input; without a link to it they are answered at once with [`accepted`].
pub fn waits_for_an_answer(block: &definition::Block) -> bool {
    let respond = block.inputs.get(RESPOND_INPUT);
    respond.is_some_and(|input| !input.links.is_empty())
}

/// Arguments of `http.respond` for a request that nobody in the flow answers.
pub fn accepted(event: &str) -> Value {
    json!({"statusCode": 202, "body": {"eventId": event}})
}

fn wake_ms(seconds: Option<&Value>, now_ms: i64) -> Result<i64, String> {
    let seconds = match seconds {
        Some(Value::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
        other => {
            let found = other.map_or("nothing", kind);
            return Err(format!(
                "`sleep`: expected a number of seconds, found {found}"
            ));
        }
    };
    if !(0.0..=SLEEP_S_MAX).contains(&seconds) {
        return Err("`sleep`: expected between 0 seconds and 366 days".to_owned());
    }
    Ok(now_ms.saturating_add((seconds * 1_000.0).ceil() as i64))
}

#[cfg(test)]
mod tests;
