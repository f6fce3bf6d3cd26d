//! The whole line with real processes: what a job gives back, and what it says
//! when it cannot.

mod support;

use serde_json::{Value, json};

use support::house::House;
use support::process::{Process, until};

#[async_std::test]
async fn jobs_run_and_bad_ones_say_why() {
    let house = House::start(2).await;
    expressions_and_handlers(&house).await;
    bad_input_names_its_true_cause(&house).await;
    a_running_job_can_be_cancelled(&house).await;
}

async fn expressions_and_handlers(house: &House) {
    let job = house.evaluate("[1, 2, 3].map((n) => n * 2)").await;
    assert_eq!(job["outcome"]["result"]["value"], json!([2, 4, 6]), "{job}");
    let version = house.upload(&support::sample_app()).await;
    let job = house
        .run(&json!({"kind": "describe", "version": version}))
        .await;
    assert_eq!(
        job["outcome"]["result"]["blocks"]["greet"]["inputs"]["default"]["hasOnEvent"], true,
        "{job}"
    );
    let job = house.run(&greet(&version)).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let id = job["id"].as_str().expect("an id");
    let calls = house.get(&format!("/api/v1/jobs/{id}/calls")).await;
    let methods: Vec<_> = calls
        .as_array()
        .expect("a list")
        .iter()
        .map(|call| &call["method"])
        .collect();
    assert!(methods.contains(&&json!("events.emit")), "{calls}");
    let trace = house.get(&format!("/api/v1/jobs/{id}/trace")).await;
    let times: Vec<_> = trace["hops"]
        .as_array()
        .expect("hops")
        .iter()
        .map(|hop| hop["at_us"].as_u64())
        .collect();
    assert!(times.len() >= 8 && times.is_sorted(), "{trace}");
}

async fn bad_input_names_its_true_cause(house: &House) {
    let cases = [
        ("1 +", "syntax"),
        ("nobody.name", "threw"),
        ("new Promise(() => {})", "timeout"),
        ("(() => { while (true) {} })()", "event_loop_blocked"),
        (
            "(() => { const all = []; while (true) all.push(new Array(1e6).fill(1)) })()",
            "out_of_memory",
        ),
        ("1n", "result_not_json"),
        ("process.exit(3)", "crashed"),
        ("'x'.repeat(5e6)", "result_too_large"),
    ];
    for (expression, cause) in cases {
        let job = house
            .run(&json!({
                "kind": "evaluate", "flow": format!("bad-{cause}"), "timeout_ms": 4_000,
                "expressions": {"value": expression},
            }))
            .await;
        assert_eq!(
            job["outcome"]["cause"],
            cause,
            "{expression}: {}\n{}",
            job["outcome"],
            house.logs()
        );
        let next = house.evaluate("'untouched'").await;
        assert_eq!(
            next["outcome"]["result"]["value"], "untouched",
            "after {expression}: {next}"
        );
    }
    let flood = house
        .run(&json!({
            "kind": "evaluate", "flow": "flood", "timeout_ms": 20_000,
            "expressions": {"value": "(() => { for (let n = 0; n < 1e6; n++) console.log('flood '.repeat(10)); return 'done' })()"},
        }))
        .await;
    assert_eq!(flood["outcome"]["result"]["value"], "done", "{flood}");
    assert!(
        flood["log_bytes_dropped"].as_u64() > Some(1_000_000),
        "{flood}"
    );
    bad_bundles(house).await;
}

async fn bad_bundles(house: &House) {
    let broken = house.upload("export const app = {").await;
    let job = house
        .run(&json!({"kind": "describe", "version": broken}))
        .await;
    assert_eq!(job["outcome"]["cause"], "syntax", "{job}");
    let version = house.upload(&support::sample_app()).await;
    let mut wrong = greet(&version);
    wrong["handler"]["block"] = json!("nobody");
    let job = house.run(&wrong).await;
    assert_eq!(job["outcome"]["cause"], "no_such_handler", "{job}");
    assert!(
        job["outcome"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("greet")),
        "{job}"
    );
}

async fn a_running_job_can_be_cancelled(house: &House) {
    let id = house
        .submit(&json!({"kind": "evaluate", "expressions": {"value": "new Promise(() => {})"}}))
        .await;
    house.started(&id).await;
    house
        .post(
            &format!("/api/v1/jobs/{id}/cancel"),
            &json!({"reason": "enough"}),
        )
        .await;
    let job = house.wait(&id).await;
    assert_eq!(job["state"], "cancelled", "{job}");
    assert_eq!(job["outcome"]["reason"], "enough", "{job}");
}

#[async_std::test]
async fn a_wrong_token_is_refused_loudly_with_its_own_exit_code() {
    let house = House::build().await;
    let mut settings = house.bridge_settings();
    for (name, value) in &mut settings {
        if *name == "FLOWS_AGENT_POOL_TOKEN" {
            *value = "0".repeat(64);
        }
    }
    let mut bridge = Process::spawn(house.path(), "refused", "bridge", &settings);
    let start = std::time::Instant::now();
    let code = until("the bridge gives up", || bridge.exit_code()).await;
    assert_eq!(code, 77, "{}", bridge.log());
    assert!(start.elapsed().as_secs() < 10);
    assert!(
        bridge.log().contains(&house.pool),
        "the log names the pool: {}",
        bridge.log()
    );
    assert!(
        !bridge.log().contains(&"0".repeat(64)),
        "the token is not in the log"
    );
}

#[async_std::test]
async fn a_gateway_restart_loses_nothing() {
    let mut house = House::start(1).await;
    let mut jobs = Vec::new();
    for number in 0..50 {
        jobs.push(
            house
                .submit(&json!({"kind": "evaluate", "expressions": {"value": number.to_string()}}))
                .await,
        );
    }
    house.restart_gateway().await;
    for (number, id) in jobs.iter().enumerate() {
        let job = house.wait_after_restart(id).await;
        assert_eq!(
            job["outcome"]["result"]["value"],
            number,
            "{job}\n{}",
            house.logs()
        );
    }
    house.connected(1).await;
}

fn greet(version: &str) -> Value {
    json!({
        "kind": "event", "version": version, "installation": "house",
        "handler": {"block": "greet", "input": "default"},
        "input": {
            "app": {"config": {}, "signals": {}, "prompts": {}, "http": {"url": ""}, "installationUrl": ""},
            "block": {"id": "greet-1", "name": "greet", "config": {}},
            "event": {"id": "event-1", "inputConfig": {"name": "Ada"}},
        },
    })
}
