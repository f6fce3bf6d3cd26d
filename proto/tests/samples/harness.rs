//! Worker ⇄ Node harness.

use sluice_proto::codec::HARNESS_MESSAGE_BYTES_MAX;
use sluice_proto::harness::{Answer, FromRuntime, Posture, ToRuntime};
use sluice_proto::job::Kind;
use sluice_proto::report::{Cause, Failure, Level};

use super::{Sample, sample};

pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (suffix, message) in to_runtime() {
        let name = format!("harness.to_runtime.{}{suffix}", to_variant(&message));
        samples.push(sample(&name, &message, HARNESS_MESSAGE_BYTES_MAX));
    }
    for message in from_runtime() {
        let name = format!("harness.from_runtime.{}", from_variant(&message));
        samples.push(sample(&name, &message, HARNESS_MESSAGE_BYTES_MAX));
    }
    samples
}

/// Exhaustive, so that a new variant cannot be forgotten here.
fn to_variant(message: &ToRuntime) -> &'static str {
    match message {
        ToRuntime::Load { .. } => "load",
        ToRuntime::Invoke { .. } => "invoke",
        ToRuntime::Abort { .. } => "abort",
        ToRuntime::Called { .. } => "called",
        ToRuntime::Ping { .. } => "ping",
    }
}

fn from_variant(message: &FromRuntime) -> &'static str {
    match message {
        FromRuntime::Hello { .. } => "hello",
        FromRuntime::Loaded => "loaded",
        FromRuntime::LoadFailed { .. } => "load_failed",
        FromRuntime::Done { .. } => "done",
        FromRuntime::Failed { .. } => "failed",
        FromRuntime::Call { .. } => "call",
        FromRuntime::Log { .. } => "log",
        FromRuntime::Pong { .. } => "pong",
    }
}

fn to_runtime() -> Vec<(&'static str, ToRuntime)> {
    let app = Some("/sluice/run/app.mjs".to_owned());
    vec![
        ("_app", ToRuntime::Load { bundle: app }),
        ("_flow", ToRuntime::Load { bundle: None }),
        (
            "",
            ToRuntime::Invoke {
                invocation: 1,
                kind: Kind::Evaluate,
                log_bytes_max: 1_048_576,
                payload: br#"{"expressions":{"value":"1 + 1"},"scope":{"outputs":{}}}"#.to_vec(),
            },
        ),
        ("", ToRuntime::Abort { invocation: 200 }),
        (
            "_value",
            ToRuntime::Called {
                invocation: 1,
                call: 1,
                answer: Answer::Value {
                    json: br#"{"key":"k","value":[1,2]}"#.to_vec(),
                },
            },
        ),
        (
            "_error",
            ToRuntime::Called {
                invocation: 1,
                call: 2,
                answer: Answer::Error {
                    message: "a value is over 1 MiB".to_owned(),
                },
            },
        ),
        ("", ToRuntime::Ping { number: 70_000 }),
    ]
}

fn from_runtime() -> Vec<FromRuntime> {
    let failure = Failure {
        cause: Cause::Syntax,
        message: "expression `value` does not parse: SyntaxError: Unexpected end of input (line 1)"
            .to_owned(),
        stack: None,
        key: Some("value".to_owned()),
    };
    vec![
        FromRuntime::Hello {
            protocol: 1,
            node: "v22.23.3".to_owned(),
            posture: Posture {
                uid: 1000,
                no_new_privileges: true,
                capabilities: 0,
                seccomp: 2,
                root_writable: false,
                gvisor: false,
            },
        },
        FromRuntime::Loaded,
        FromRuntime::LoadFailed {
            failure: Failure::new(Cause::NoSuchHandler, "the bundle exports no app"),
        },
        FromRuntime::Done {
            invocation: 1,
            log_bytes_dropped: 5_000_000_000,
            result: br#"{"value":2}"#.to_vec(),
        },
        FromRuntime::Failed {
            invocation: 2,
            log_bytes_dropped: 0,
            failure,
        },
        FromRuntime::Call {
            invocation: 1,
            call: 1,
            method: "kv.block.get".to_owned(),
            args: br#"["k"]"#.to_vec(),
        },
        FromRuntime::Log {
            invocation: 1,
            level: Level::Info,
            text: "a line of forty characters, which takes more than a fixstr".to_owned(),
        },
        FromRuntime::Pong { number: 70_000 },
    ]
}
