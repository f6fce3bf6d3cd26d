//! The agent API: bundles and SDK calls with the job's own token.

use serde_json::{Value, json};
use sluice_proto::job::Job;
use sluice_proto::report::{Body, Origin, RuntimeUse};

use crate::fixture::{Bridge, Fixture, report, succeeded};

const CODE: &str = "export const app = { name: 'x' }";

async fn handler(fixture: &Fixture, bridge: &mut Bridge, block: &str) -> (Job, String) {
    let apps = fixture.get("/api/v1/apps").await;
    let version = match apps[0]["id"].as_str() {
        Some(app) => fixture.get(&format!("/api/v1/apps/{app}/versions")).await[0]["id"].clone(),
        None => {
            let app = fixture
                .post(
                    "/api/v1/apps",
                    &json!({"project": fixture.project, "name": "app"}),
                )
                .await;
            let path = format!(
                "/api/v1/apps/{}/versions",
                app["id"].as_str().expect("an id")
            );
            fixture
                .post(&path, &json!({"version": "0.1.0", "code": CODE}))
                .await["id"]
                .clone()
        }
    };
    let body = json!({
        "project": fixture.project, "pool": fixture.pool, "kind": "event", "version": version,
        "installation": "one", "handler": {"block": "greet", "input": "default"},
        "input": {"block": {"id": block}, "event": {"z": 1, "a": 2}},
    });
    fixture.post("/api/v1/jobs", &body).await;
    let job = bridge.job().await;
    bridge.accept(&job).await;
    let digest = job.identity.bundle().expect("an app's job").to_string();
    (job, digest)
}

async fn call(
    fixture: &Fixture,
    job: &Job,
    delivery: u32,
    number: u32,
    method: &str,
    args: Value,
) -> (u16, Value) {
    let body = json!({
        "job": job.id.as_str(), "attempt": {"dispatch": job.dispatch, "delivery": delivery},
        "number": number, "method": method, "args": args,
    });
    let (status, mut reply) = fixture
        .call_as(
            &job.token,
            "POST",
            "/agent/v1/calls",
            body.to_string().as_bytes(),
        )
        .await;
    match status {
        200 => (status, reply["data"].take()),
        _ => (status, reply["error"].take()),
    }
}

#[async_std::test]
async fn a_job_token_opens_its_own_bundle_and_dies_with_the_job() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let (job, digest) = handler(&fixture, &mut bridge, "b").await;
    let path = format!("/agent/v1/bundles/{digest}");
    let (status, body) = fixture.call_as(&job.token, "GET", &path, b"").await;
    assert_eq!((status, body), (200, json!(CODE)));
    assert_eq!(
        fixture
            .call_as(&job.token, "GET", "/agent/v1/bundles/00", b"")
            .await
            .0,
        403
    );
    assert_eq!(
        fixture.call_as(&fixture.key, "GET", &path, b"").await.0,
        401
    );
    assert_eq!(
        fixture
            .call_as(&job.token, "GET", "/api/v1/jobs", b"")
            .await
            .0,
        401
    );
    bridge
        .report(crate::fixture::finished(&job.id, 1, 1, succeeded("null")))
        .await;
    assert_eq!(fixture.call_as(&job.token, "GET", &path, b"").await.0, 409);
}

#[async_std::test]
async fn calls_are_answered_recorded_and_fenced() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let (job, _) = handler(&fixture, &mut bridge, "b").await;
    let (status, value) = call(&fixture, &job, 1, 0, "events.emit", json!([{"hello": 1}])).await;
    assert_eq!((status, value), (200, Value::Null));
    let (_, pending) = call(&fixture, &job, 1, 1, "events.createPending", json!([{}])).await;
    assert!(
        pending.as_str().is_some_and(|id| id.len() == 36),
        "{pending}"
    );
    let (_, again) = call(&fixture, &job, 1, 1, "events.createPending", json!([{}])).await;
    assert_eq!(again, pending, "a call that is sent twice happens once");
    let (_, blocks) = call(
        &fixture,
        &job,
        1,
        2,
        "blocks.list",
        json!([{"typeIds": []}]),
    )
    .await;
    assert_eq!(blocks, json!({"blocks": []}));
    let (status, sentence) = call(&fixture, &job, 1, 3, "events.dance", json!([])).await;
    assert!(
        status == 400
            && sentence
                .as_str()
                .is_some_and(|s| s.contains("events.dance"))
    );
    let calls = fixture.get(&format!("/api/v1/jobs/{}/calls", job.id)).await;
    let methods: Vec<_> = calls
        .as_array()
        .expect("a list")
        .iter()
        .map(|call| &call["method"])
        .collect();
    assert_eq!(
        methods,
        [
            &json!("events.emit"),
            &json!("events.createPending"),
            &json!("blocks.list")
        ]
    );
    assert_eq!(calls[0]["args"], json!([{"hello": 1}]));

    let runtime = RuntimeUse {
        container: "c".to_owned(),
        origin: Origin::Cold,
    };
    bridge
        .report(report(&job.id, 1, 2, Body::Started { runtime }))
        .await;
    let (status, sentence) = call(&fixture, &job, 1, 4, "events.emit", json!([1])).await;
    assert!(
        status == 409 && sentence.as_str().is_some_and(|s| s.contains("1.1")),
        "{sentence}"
    );
    assert_eq!(
        call(&fixture, &job, 2, 0, "events.emit", json!([1]))
            .await
            .0,
        200
    );
    // A call of the next attempt raises the fence before its Started has come.
    assert_eq!(
        call(&fixture, &job, 3, 0, "events.emit", json!([1]))
            .await
            .0,
        200
    );
    assert_eq!(
        call(&fixture, &job, 2, 1, "events.emit", json!([1]))
            .await
            .0,
        409
    );
}

#[async_std::test]
async fn keys_and_values_have_scopes_locks_lives_and_an_order() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let (one, _) = handler(&fixture, &mut bridge, "one").await;
    let (two, _) = handler(&fixture, &mut bridge, "two").await;
    let mut number = 0;
    let mut kv = async |job: &Job, method: &str, args: Value| {
        number += 1;
        let (status, value) = call(&fixture, job, 1, number, &format!("kv.{method}"), args).await;
        assert_eq!(status, 200, "{method}: {value}");
        value
    };
    assert_eq!(
        kv(&one, "block.get", json!(["k"])).await,
        json!({"key": "k"})
    );
    assert_eq!(
        kv(&one, "block.set", json!([{"key": "k", "value": {"n": 1}}])).await,
        true
    );
    assert_eq!(
        kv(&one, "block.get", json!(["k"])).await["value"],
        json!({"n": 1})
    );
    assert_eq!(
        kv(&two, "block.get", json!(["k"])).await.get("value"),
        None,
        "blocks do not share"
    );
    kv(&one, "app.set", json!([{"key": "k", "value": "shared"}])).await;
    assert_eq!(kv(&two, "app.get", json!(["k"])).await["value"], "shared");

    let lock = |id: &str, value: u32| json!([{"key": "l", "value": value, "lock": {"id": id, "timeout": 60}}]);
    assert_eq!(kv(&one, "app.set", lock("x", 1)).await, true);
    assert_eq!(kv(&two, "app.set", lock("y", 2)).await, false);
    assert_eq!(
        kv(&two, "app.set", json!([{"key": "l", "value": 3}])).await,
        false
    );
    let both = json!([[{"key": "free", "value": 1}, {"key": "l", "value": 1}]]);
    assert_eq!(kv(&two, "app.setMany", both).await, false);
    assert_eq!(
        kv(&two, "app.get", json!(["free"])).await.get("value"),
        None,
        "all or nothing"
    );
    assert_eq!(kv(&one, "app.set", lock("x", 4)).await, true);
    kv(
        &one,
        "app.releaseLock",
        json!([{"key": "l", "lockId": "x"}]),
    )
    .await;
    assert_eq!(kv(&two, "app.set", lock("y", 5)).await, true);

    kv(
        &one,
        "app.set",
        json!([{"key": "t", "value": 1, "ttl": 60}]),
    )
    .await;
    let ttl = kv(&one, "app.get", json!(["t"])).await["ttl"].as_f64();
    assert!(ttl > Some(50.0) && ttl <= Some(60.0), "{ttl:?}");
    kv(&one, "app.set", json!([{"key": "t", "ttl": 0}])).await;
    assert_eq!(kv(&one, "app.get", json!(["t"])).await.get("value"), None);

    let many: Value = (0..150)
        .map(|n| json!({"key": format!("e:{:03}", 149 - n), "value": n}))
        .collect();
    assert_eq!(kv(&one, "block.setMany", json!([many])).await, true);
    let page = kv(&one, "block.list", json!([{"keyPrefix": "e:"}])).await;
    let next = page["nextStartingKey"].as_str().expect("a second page");
    assert_eq!(
        (
            page["pairs"].as_array().map(Vec::len),
            &page["pairs"][0]["key"]
        ),
        (Some(100), &json!("e:000"))
    );
    let rest = kv(
        &one,
        "block.list",
        json!([{"keyPrefix": "e:", "startingKey": next}]),
    )
    .await;
    assert_eq!(rest["pairs"].as_array().map(Vec::len), Some(50));
    assert_eq!(rest.get("nextStartingKey"), None);
    let pairs = kv(&one, "block.getMany", json!([["e:003", "none", "e:001"]])).await;
    let keys: Vec<_> = pairs
        .as_array()
        .expect("a list")
        .iter()
        .map(|pair| pair["key"].as_str())
        .collect();
    assert_eq!(keys, [Some("e:003"), Some("none"), Some("e:001")]);
    kv(&one, "block.delete", json!([["e:001"]])).await;
    assert_eq!(
        kv(&one, "block.get", json!(["e:001"])).await.get("value"),
        None
    );
}

#[async_std::test]
async fn what_a_handler_is_given_keeps_the_order_of_its_keys() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let body = format!(
        r#"{{"project":"{}","pool":"{}","kind":"evaluate","expressions":{{"z":"1","a":"2"}},"scope":{{"y":1.50,"b":[]}}}}"#,
        fixture.project, fixture.pool
    );
    let (status, reply) = fixture
        .call_as(&fixture.key, "POST", "/api/v1/jobs", body.as_bytes())
        .await;
    assert_eq!(status, 200, "{reply}");
    let payload = String::from_utf8(bridge.job().await.payload).expect("UTF-8");
    assert_eq!(
        payload,
        r#"{"expressions":{"z":"1","a":"2"},"scope":{"y":1.5,"b":[]}}"#
    );
}
