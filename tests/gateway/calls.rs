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
    assert_eq!(fixture.call_as(&job.token, "GET", &path, b"").await.0, 410);
}

#[async_std::test]
async fn calls_are_answered_and_recorded() {
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
}

#[async_std::test]
async fn a_call_of_an_older_attempt_is_refused() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let (job, _) = handler(&fixture, &mut bridge, "b").await;
    let runtime = RuntimeUse {
        container: "c".to_owned(),
        origin: Origin::Cold,
    };
    bridge
        .report(report(&job.id, 1, 2, Body::Started { runtime }))
        .await;
    let (status, sentence) = call(&fixture, &job, 1, 4, "events.emit", json!([1])).await;
    assert!(
        status == 410 && sentence.as_str().is_some_and(|s| s.contains("1.1")),
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
        410
    );
}

/// One key-value call that must be answered.
struct Kv<'a> {
    fixture: &'a Fixture,
    number: std::cell::Cell<u32>,
}

impl<'a> Kv<'a> {
    fn of(fixture: &'a Fixture) -> Self {
        let number = std::cell::Cell::new(0);
        Self { fixture, number }
    }

    async fn call(&self, job: &Job, method: &str, args: Value) -> Value {
        self.number.set(self.number.get() + 1);
        let method = format!("kv.{method}");
        let (status, value) = call(self.fixture, job, 1, self.number.get(), &method, args).await;
        assert_eq!(status, 200, "{method}: {value}");
        value
    }
}

#[async_std::test]
async fn keys_have_scopes_and_lives() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let (one, _) = handler(&fixture, &mut bridge, "one").await;
    let (two, _) = handler(&fixture, &mut bridge, "two").await;
    let kv = Kv::of(&fixture);
    assert_eq!(
        kv.call(&one, "block.get", json!(["k"])).await,
        json!({"key": "k"})
    );
    let set = json!([{"key": "k", "value": {"n": 1}}]);
    assert_eq!(kv.call(&one, "block.set", set).await, true);
    let value = kv.call(&one, "block.get", json!(["k"])).await["value"].take();
    assert_eq!(value, json!({"n": 1}));
    let other = kv.call(&two, "block.get", json!(["k"])).await;
    assert_eq!(other.get("value"), None, "blocks do not share");
    kv.call(&one, "app.set", json!([{"key": "k", "value": "shared"}]))
        .await;
    assert_eq!(
        kv.call(&two, "app.get", json!(["k"])).await["value"],
        "shared"
    );

    kv.call(
        &one,
        "app.set",
        json!([{"key": "t", "value": 1, "ttl": 60}]),
    )
    .await;
    let ttl = kv.call(&one, "app.get", json!(["t"])).await["ttl"].as_f64();
    assert!(ttl > Some(50.0) && ttl <= Some(60.0), "{ttl:?}");
    // `null` is a value; `undefined`, which JSON leaves out, is none.
    for (pair, wanted) in [
        (json!({"key": "n", "value": null}), Some(&Value::Null)),
        (json!({"key": "n"}), None),
    ] {
        assert_eq!(kv.call(&one, "app.set", json!([pair])).await, true);
        let pair = kv.call(&one, "app.get", json!(["n"])).await;
        assert_eq!(pair.get("value"), wanted);
        assert!(pair["updatedAt"].is_u64(), "it is there: {pair}");
    }
    kv.call(&one, "app.set", json!([{"key": "t", "ttl": 0}]))
        .await;
    assert_eq!(
        kv.call(&one, "app.get", json!(["t"])).await.get("value"),
        None
    );
}

#[async_std::test]
async fn a_locked_key_is_its_holders_alone() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let (one, _) = handler(&fixture, &mut bridge, "one").await;
    let (two, _) = handler(&fixture, &mut bridge, "two").await;
    let kv = Kv::of(&fixture);
    let lock = |id: &str, timeout: f64| json!([{"key": "l", "value": id, "lock": {"id": id, "timeout": timeout}}]);
    assert_eq!(kv.call(&one, "app.set", lock("x", 60.0)).await, true);
    assert_eq!(kv.call(&two, "app.set", lock("y", 60.0)).await, false);
    let bare = json!([{"key": "l", "value": 3}]);
    assert_eq!(kv.call(&two, "app.set", bare).await, false);
    let both = json!([[{"key": "free", "value": 1}, {"key": "l", "value": 1}]]);
    assert_eq!(kv.call(&two, "app.setMany", both).await, false);
    let free = kv.call(&two, "app.get", json!(["free"])).await;
    assert_eq!(free.get("value"), None, "all or nothing");
    assert_eq!(kv.call(&one, "app.set", lock("x", 60.0)).await, true);
    let release = json!([{"key": "l", "lockId": "x"}]);
    kv.call(&one, "app.releaseLock", release).await;
    // One millisecond is over by the next call, which needs a commit of its own.
    assert_eq!(kv.call(&two, "app.set", lock("y", 0.001)).await, true);
    crate::fixture::until("the lock's time is over", async || {
        (kv.call(&one, "app.set", lock("x", 60.0)).await == true).then_some(())
    })
    .await;
}

#[async_std::test]
async fn lists_are_in_order_and_come_in_pages() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let (one, _) = handler(&fixture, &mut bridge, "one").await;
    let kv = Kv::of(&fixture);
    let many: Value = (0..150)
        .map(|n| json!({"key": format!("e:{:03}", 149 - n), "value": n}))
        .collect();
    assert_eq!(kv.call(&one, "block.setMany", json!([many])).await, true);
    let page = kv
        .call(&one, "block.list", json!([{"keyPrefix": "e:"}]))
        .await;
    let next = page["nextStartingKey"].as_str().expect("a second page");
    assert_eq!(page["pairs"].as_array().map(Vec::len), Some(100));
    assert_eq!(page["pairs"][0]["key"], "e:000");
    let rest = json!([{"keyPrefix": "e:", "startingKey": next}]);
    let rest = kv.call(&one, "block.list", rest).await;
    assert_eq!(rest["pairs"].as_array().map(Vec::len), Some(50));
    assert_eq!(rest.get("nextStartingKey"), None);
    let wanted = json!([["e:003", "none", "e:001"]]);
    let pairs = kv.call(&one, "block.getMany", wanted).await;
    let keys: Vec<_> = pairs
        .as_array()
        .expect("a list")
        .iter()
        .map(|pair| pair["key"].as_str())
        .collect();
    assert_eq!(keys, [Some("e:003"), Some("none"), Some("e:001")]);
    kv.call(&one, "block.delete", json!([["e:001"]])).await;
    let gone = kv.call(&one, "block.get", json!(["e:001"])).await;
    assert_eq!(gone.get("value"), None);
    let large: Value = (0..4)
        .map(|n| json!({"key": format!("large:{n}"), "value": "x".repeat(600_000)}))
        .collect();
    kv.call(&one, "block.setMany", json!([large])).await;
    let page = kv
        .call(&one, "block.list", json!([{"keyPrefix": "large:"}]))
        .await;
    assert_eq!(
        page["nextStartingKey"], "large:1",
        "a page is bounded in bytes too"
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
