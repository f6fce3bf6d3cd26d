//! The description of this API, in OpenAPI 3.0.3: `GET /api/v1/openapi.json`.
//!
//! Owns the table of routes ([`routes`]) and of what they take and give
//! ([`shapes`]); a test holds the table against the routes that are served, and
//! the document is held against what the gateway really answers.

mod routes;
mod schema;
mod shapes;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::gateway::api::openapi::routes::{ROUTES, Route};
use crate::gateway::api::openapi::shapes::SHAPES;
use crate::gateway::http::Reply;

/// What may be answered beside what was asked for, with its reason.
const REFUSALS: [(u16, &str); 12] = [
    (400, "The request is not right"),
    (401, "The API key is missing, unknown or expired"),
    (403, "The API key is not for this"),
    (404, "It does not exist"),
    (408, "The body did not come in time"),
    (409, "It cannot be done as things are"),
    (413, "The body is too large"),
    (429, "Too much waits already"),
    (500, "A fault of ours"),
    (
        502,
        "A registry or an app's code did not answer as it should",
    ),
    (503, "It cannot be done at present"),
    (507, "The gateway's disk is nearly full"),
];

static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| document().to_string().into_bytes());

/// The document, which is in no envelope.
pub fn get() -> Reply {
    Reply::bytes("application/json", DOCUMENT.clone())
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = format!("{}{}", route.base(), route.path);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[route.method.to_lowercase()] = operation(route);
    }
    let shapes = SHAPES.iter().map(|(name, shape)| {
        let schema = schema::object(shape);
        ((*name).to_owned(), schema)
    });
    let mut schemas: Map<String, Value> = shapes.collect();
    schemas.insert("Error".to_owned(), schema::object("error:s"));
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Sluice",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The gateway's API. Every request but /health needs an API key.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route) -> Value {
    let names = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    let query = route.query.split_whitespace().map(|text| {
        let (name, schema, required) = schema::field(text);
        json!({"name": name, "in": "query", "required": required, "schema": schema})
    });
    let mut operation = json!({
        "summary": route.does,
        "parameters": names.chain(query).collect::<Vec<_>>(),
        "responses": responses(route),
    });
    if !route.takes.is_empty() {
        let mut content = json!({"application/json": {"schema": schema::of(route.takes)}});
        if route.takes_archive {
            let archive = json!({"type": "string", "format": "binary"});
            content["application/gzip"] = json!({"schema": archive});
        }
        let required = route.takes != schema::ANY;
        operation["requestBody"] = json!({"required": required, "content": content});
    }
    if route.base().is_empty() {
        operation["security"] = json!([]);
    }
    operation
}

fn responses(route: &Route) -> Value {
    let data = json!({
        "type": "object",
        "required": ["data"],
        "properties": {"data": schema::of(route.gives)},
        "additionalProperties": false,
    });
    let mut content = match route.gives {
        // This document.
        "" => json!({"application/json": {"schema": {"type": "object"}}}),
        _ => json!({"application/json": {"schema": data}}),
    };
    if route.streams {
        content["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    let mut responses = json!({});
    responses[route.status.to_string()] = json!({"description": "Done", "content": content});
    for (status, why) in REFUSALS {
        let error = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
        responses[status.to_string()] = json!({"description": why, "content": error});
    }
    responses
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A handler's pattern, `("GET", ["jobs", id, "trace"])`, as `GET /jobs/{}/trace`.
    fn served(line: &str) -> Option<String> {
        let (method, rest) = line.trim().strip_prefix("(\"")?.split_once("\", [")?;
        let (parts, _) = rest.split_once("])")?;
        let part = |part: &str| {
            let word = part.strip_prefix('"');
            word.map_or("{}".to_owned(), |word| {
                word.trim_end_matches('"').to_owned()
            })
        };
        let path: Vec<_> = parts.split(", ").map(part).collect();
        Some(format!("{method} /{}", path.join("/")))
    }

    fn unnamed(route: &Route) -> String {
        let parts = route.path.split('/');
        let parts = parts.map(|part| if part.starts_with('{') { "{}" } else { part });
        format!("{} {}", route.method, parts.collect::<Vec<_>>().join("/"))
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let known: BTreeSet<_> = include_str!("../mod.rs")
            .lines()
            .filter_map(served)
            .collect();
        assert!(known.contains("GET /jobs/{}/trace"), "{known:?}");
        let api = ROUTES.iter().filter(|route| !route.base().is_empty());
        let described: BTreeSet<_> = api.map(unnamed).collect();
        let missing: Vec<_> = known.difference(&described).collect();
        let unknown: Vec<_> = described.difference(&known).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "not described: {missing:?}; not served: {unknown:?}"
        );
    }

    #[test]
    fn every_shape_is_there_and_used() {
        let text = document().to_string();
        for (name, _) in SHAPES {
            let reference = format!("\"#/components/schemas/{name}\"");
            assert!(text.contains(&reference), "{name} is not used");
        }
        let names: BTreeSet<_> = SHAPES.iter().map(|(name, _)| *name).collect();
        for found in text.split("#/components/schemas/").skip(1) {
            let name = found.split('"').next().unwrap_or_default();
            assert!(
                name == "Error" || names.contains(name),
                "{name} is no shape"
            );
        }
    }
}
