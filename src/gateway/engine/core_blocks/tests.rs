//! Tests of what core blocks do with an event.

use serde_json::{Map, Value, json};

use super::{
    Core, Response, Step, accepted, endpoint_path, pool, responded, schedule_of, scheduled, step,
    waits_for_an_answer,
};
use crate::gateway::engine::definition::Definition;
use crate::gateway::engine::http_endpoint::response;
use crate::gateway::engine::schema::{default_output, rules};
use crate::gateway::engine::types::fill;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn on(core: Core, input: Value) -> Result<Step, String> {
    step(
        core,
        "default",
        &Map::new(),
        &object(input),
        &json!({"n": 1}),
        1_000,
    )
}

#[test]
fn every_core_block_has_a_name_and_a_schema() {
    for core in Core::ALL {
        assert_eq!(Core::named(core.name()), Some(core));
        let schema = core.schema();
        assert!(schema.name.is_some());
        assert!(default_output(&schema.outputs).is_some(), "{}", core.name());
    }
    assert_eq!(Core::named("http_request"), Some(Core::HttpRequest));
    assert_eq!(Core::named("HTTP Endpoint"), Some(Core::HttpEndpoint));
    assert_eq!(Core::named("loop"), None);
    assert_eq!(
        default_output(&Core::Condition.schema().outputs),
        Some("then")
    );
    assert!(Core::HttpEndpoint.schema().handlers.has_on_request);
    assert!(Core::ManualTrigger.schema().entrypoint);
}

#[test]
fn a_condition_passes_the_event_on_by_one_way() {
    let body = json!({"n": 1});
    let emit = |output: &str| Step::Emit {
        output: output.to_owned(),
        body: body.clone(),
    };
    assert_eq!(
        on(Core::Condition, json!({"condition": true})),
        Ok(emit("then"))
    );
    assert_eq!(
        on(Core::Condition, json!({"condition": false})),
        Ok(emit("else"))
    );
    assert_eq!(
        on(Core::Condition, json!({"condition": "yes"})),
        Err("`condition`: expected a boolean, found a string".to_owned())
    );
    assert!(on(Core::Condition, json!({})).is_err_and(|why| why.contains("found nothing")));
    assert_eq!(on(Core::Transform, json!({})), Ok(emit("default")));
    assert_eq!(on(Core::ManualTrigger, json!({})), Ok(emit("default")));
}

#[test]
fn a_sleep_wakes_after_its_seconds() {
    let Ok(Step::EmitAt {
        at_ms,
        output,
        body,
    }) = on(Core::Sleep, json!({"sleep": 2.5}))
    else {
        panic!("a sleep sleeps");
    };
    assert_eq!(
        (at_ms, output.as_str(), body),
        (3_500, "default", json!({"n": 1}))
    );
    for (sleep, why) in [
        (json!(-1), "between 0"),
        (json!(1e12), "between 0"),
        (json!("2"), "found a string"),
        (Value::Null, "found null"),
    ] {
        let found = on(Core::Sleep, json!({"sleep": sleep})).expect_err("refused");
        assert!(found.contains(why), "{found}");
    }
}

#[test]
fn a_request_is_complete_and_names_what_is_wrong() {
    let Ok(Step::Request { request, pool }) = step(
        Core::HttpRequest,
        "default",
        &object(json!({"agentPool": "eu"})),
        &object(json!({
            "url": "https://example.com/a?x=1", "method": "post",
            "headers": {"x-token": "t"}, "query": {"y": 2, "z": "ä b", "w": null},
            "body": {"k": [1]}, "timeout": 1.5
        })),
        &Value::Null,
        0,
    ) else {
        panic!("a request is made");
    };
    assert_eq!(pool.as_deref(), Some("eu"));
    assert_eq!(request.url, "https://example.com/a?x=1&y=2&z=%C3%A4+b");
    assert_eq!(request.method, "POST");
    assert_eq!(request.headers["X-Token"], "t");
    assert_eq!(request.headers["Content-Type"], "application/json");
    assert_eq!(request.body.as_deref(), Some(r#"{"k":[1]}"#));
    assert_eq!(request.timeout_ms, 1_500);
    for (config, why) in [
        (json!({}), "`url`: expected a string"),
        (json!({"url": "nowhere"}), "`url`"),
        (json!({"url": "file:///etc/passwd"}), "http or https"),
        (json!({"url": "http://a", "method": "BREW"}), "`method`"),
        (
            json!({"url": "http://a", "headers": {"a": "b\nc"}}),
            "no header",
        ),
        (
            json!({"url": "http://a", "headers": {"a": 1}}),
            "`headers.a`: expected a string",
        ),
        (json!({"url": "http://a", "query": {"a": []}}), "`query.a`"),
        (
            json!({"url": "http://a", "body": "x"}),
            "a GET request has none",
        ),
        (json!({"url": "http://a", "timeout": 0}), "`timeout`"),
        (json!({"url": "http://a", "timeout": 301}), "`timeout`"),
        (
            json!({"url": "http://a", "method": "PUT", "body": "x".repeat((2 << 20) + 1)}),
            "`body`: it has",
        ),
    ] {
        let found = on(Core::HttpRequest, config).expect_err("refused");
        assert!(found.contains(why), "{found}");
    }
}

#[test]
fn the_default_config_of_a_request_is_filled_in_and_accepted() {
    let schema = Core::HttpRequest.schema();
    let rules = rules(&schema.inputs["default"].config);
    let filled = fill(&rules, &object(json!({"url": "http://a/"}))).expect("fits");
    assert_eq!(filled["timeout"], 30);
    let Ok(Step::Request { request, .. }) = on(Core::HttpRequest, Value::Object(filled)) else {
        panic!("a request is made");
    };
    assert_eq!(
        (request.method.as_str(), request.timeout_ms),
        ("GET", 30_000)
    );
}

#[test]
fn a_response_becomes_an_event() {
    let response = Response {
        status_code: 404,
        headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
        raw_body: r#"{"error": "gone"}"#.to_owned(),
    };
    assert_eq!(
        responded(response),
        Step::Emit {
            output: "default".to_owned(),
            body: json!({
                "statusCode": 404,
                "headers": {"Content-Type": "application/json"},
                "body": {"error": "gone"}
            })
        }
    );
}

#[test]
fn an_endpoint_owns_its_path_and_methods() {
    let hooks = object(json!({"path": "/hooks/", "methods": ["post"]}));
    assert_eq!(endpoint_path(&hooks, "POST", "/hooks"), Some("/"));
    assert_eq!(endpoint_path(&hooks, "POST", "/hooks/a/b"), Some("/a/b"));
    assert_eq!(endpoint_path(&hooks, "POST", "/hooksmith"), None);
    assert_eq!(endpoint_path(&hooks, "GET", "/hooks"), None);
    let all = object(json!({"methods": []}));
    assert_eq!(endpoint_path(&all, "DELETE", "/x"), Some("/x"));
    let args = object(json!({"statusCode": 201}));
    let respond = step(Core::HttpEndpoint, "respond", &all, &args, &Value::Null, 0);
    assert_eq!(
        respond,
        Ok(Step::Respond {
            args: json!({"statusCode": 201})
        })
    );
    assert!(step(Core::HttpEndpoint, "other", &all, &args, &Value::Null, 0).is_err());
}

#[test]
fn a_schedule_is_a_cron_expression_or_an_interval() {
    let cron = object(json!({"cron": "0 9 * * *", "location": "Europe/Warsaw"}));
    assert!(schedule_of(&cron).is_ok());
    let interval = schedule_of(&object(
        json!({"interval": 5, "unit": "minutes", "cron": null}),
    ));
    let interval = interval.expect("a schedule");
    assert_eq!(
        scheduled(0, &interval),
        Step::Emit {
            output: "default".to_owned(),
            body: json!({"scheduledAt": "1970-01-01T00:00:00Z", "schedule": "every 5 minutes"})
        }
    );
    for config in [
        json!({}),
        json!({"cron": "* * * * *", "interval": 1}),
        json!({"cron": 5}),
        json!({"interval": 1}),
    ] {
        assert!(schedule_of(&object(config)).is_err());
    }
}

#[test]
fn a_pool_is_named_by_a_text() {
    assert_eq!(pool(&object(json!({"agentPool": " "}))), Ok(None));
    assert!(pool(&object(json!({"agentPool": 1}))).is_err());
}

#[test]
fn an_endpoint_without_a_linked_response_answers_at_once() {
    let flow = Definition::parse(
        "blocks:
  - {name: A, type: {coreBlock: httpEndpoint}}
  - {name: B, type: {coreBlock: httpEndpoint}, inputs: {respond: {links: [{block: A, output: default}]}}}",
    )
    .expect("reads");
    assert!(!waits_for_an_answer(&flow.blocks[0]));
    assert!(waits_for_an_answer(&flow.blocks[1]));
    let answer = response(&accepted("e1")).expect("an answer");
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (202, &br#"{"eventId":"e1"}"#[..])
    );
}
