//! The schemas of the core blocks, in the shape that an app's blocks have.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Core;
use crate::gateway::engine::schema::Block;

static SCHEMAS: LazyLock<Vec<(Core, Block)>> = LazyLock::new(|| {
    let read = |core| {
        let block = serde_json::from_value(described(core));
        (
            core,
            block.expect("the schema of a core block is written here"),
        )
    };
    Core::ALL.into_iter().map(read).collect()
});

pub fn of(core: Core) -> &'static Block {
    let found = SCHEMAS.iter().find(|(known, _)| *known == core);
    &found.expect("every core block is listed in ALL").1
}

fn described(core: Core) -> Value {
    match core {
        Core::Condition => json!({
            "name": "Condition", "category": "Control",
            "description": "Passes the event on by one of two ways.",
            "inputs": {"default": {"hasOnEvent": true, "config": {
                "condition": field("Condition", "Whether the event takes the way `then`.", "boolean", true),
            }}},
            "outputs": {
                "then": output(0, "Then", true),
                "else": output(1, "Else", false),
            },
        }),
        Core::Sleep => json!({
            "name": "Sleep", "category": "Time",
            "description": "Passes the event on after a while.",
            "inputs": {"default": {"hasOnEvent": true, "config": {
                "sleep": field("Seconds", "How long to wait.", "number", true),
            }}},
            "outputs": {"default": output(0, "Awake", true)},
        }),
        Core::Transform => json!({
            "name": "Transform", "category": "Data",
            "description": "Emits what the customization of its output says, else what came in.",
            "inputs": {"default": {"hasOnEvent": true}},
            "outputs": {"default": output(0, "Result", true)},
        }),
        Core::ManualTrigger => json!({
            "name": "Manual trigger", "category": "Start", "entrypoint": true,
            "description": "Starts a chain by hand or through the API.",
            "inputs": {"default": {"hasOnEvent": true}},
            "outputs": {"default": output(0, "Triggered", true)},
        }),
        Core::HttpEndpoint => http_endpoint(),
        Core::HttpRequest => http_request(),
        Core::Schedule => json!({
            "name": "Schedule", "category": "Start", "entrypoint": true,
            "description": "Emits at the times of a schedule.",
            "config": {
                "cron": field("Cron expression", "Five fields, or six with seconds first.", "string", false),
                "location": field("Time zone", "As in Europe/Warsaw; UTC when empty.", "string", false),
                "interval": field("Interval", "How many units lie between two events.", "number", false),
                "unit": field("Unit", "seconds, minutes, hours, days or weeks.", "string", false),
            },
            "outputs": {"default": {"order": 0, "name": "Due", "default": true}},
        }),
    }
}

fn http_endpoint() -> Value {
    json!({
        "name": "HTTP endpoint", "category": "Start", "entrypoint": true,
        "description": "Emits each request to its path. Without a link to its response input it answers at once.",
        "config": {
            "path": field("Path", "Below the address of the flow; / when empty.", "string", false),
            "methods": {
                "name": "Methods", "description": "All when empty.",
                "type": {"type": "array", "items": {"type": "string"}},
            },
        },
        "inputs": {"respond": {"name": "Respond", "hasOnEvent": true, "config": {
            "statusCode": {
                "order": 0, "name": "Status code", "default": 200,
                "type": {"type": "integer", "minimum": 200, "maximum": 599},
            },
            "headers": {
                "order": 1, "name": "Headers",
                "type": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "body": {"order": 2, "name": "Body", "description": "A text, or a value to be sent as JSON.", "type": "any"},
        }}},
        "outputs": {"default": {"order": 0, "name": "Request", "default": true}},
        "hasOnRequest": true,
    })
}

fn http_request() -> Value {
    json!({
        "name": "HTTP request", "category": "Network",
        "description": "Makes a request and emits the response.",
        "config": {
            "agentPool": field("Agent pool", "The pool from where the request is made.", "string", false),
        },
        "inputs": {"default": {"hasOnEvent": true, "config": {
            "url": field("URL", "http or https.", "string", true),
            "method": {"order": 1, "name": "Method", "type": "string", "default": "GET"},
            "headers": {
                "order": 2, "name": "Headers",
                "type": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "query": {
                "order": 3, "name": "Query", "description": "Added to the query of the URL.",
                "type": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
            },
            "body": {"order": 4, "name": "Body", "description": "A text, or a value to be sent as JSON.", "type": "any"},
            "timeout": {
                "order": 5, "name": "Time-out in seconds", "default": 30,
                "type": {"type": "number", "exclusiveMinimum": 0, "maximum": super::REQUEST_TIMEOUT_S_MAX},
            },
        }}},
        "outputs": {"default": {
            "order": 0, "name": "Response", "default": true, "possiblePrimaryParents": ["default"],
            "type": {"type": "object", "properties": {
                "statusCode": {"type": "number"}, "headers": {"type": "object"}, "body": {},
            }},
        }},
    })
}

fn field(name: &str, description: &str, spec: &str, required: bool) -> Value {
    json!({"name": name, "description": description, "type": spec, "required": required})
}

fn output(order: u32, name: &str, default: bool) -> Value {
    json!({
        "order": order, "name": name, "default": default, "possiblePrimaryParents": ["default"],
    })
}
