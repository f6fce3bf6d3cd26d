//! A job's life with a real broker and real containers: its log, its limits,
//! its cancellation, its priority; and a worker's: why it gets no work, how it ends.

#[path = "life/agents.rs"]
mod agents;
#[path = "life/bounds.rs"]
mod bounds;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use support::house::House;
use support::process::{PATIENCE, until};

/// A time-out of a job that never ends by itself, in milliseconds.
const TIMEOUT_MS: u64 = 800;
/// Settings of a broker that looks every second and takes a delivery back after three.
const IMPATIENT: &str = "[{rabbit, [{consumer_timeout, 3000}, {channel_tick_interval, 1000}]}].";
const NEVER: &str = "new Promise(() => {})";
const BLOCKED: &str = "(() => { while (true) {} })()";

#[async_std::test]
async fn a_job_lives_as_it_is_told() {
    let house = House::start(1).await;
    house.evaluate("1").await;
    its_log_is_whole_in_order_and_without_secrets(&house).await;
    a_time_out_aborts_it_alone_and_a_blocked_loop_ends_its_runtime(&house).await;
    it_is_cancelled_wherever_it_is_and_again(&house).await;
    an_urgent_one_is_still_urgent_when_it_is_tried_again(&house).await;
}

async fn its_log_is_whole_in_order_and_without_secrets(house: &House) {
    let code = "(() => { for (let n = 0; n < 300; n++) console.log('line ' + n); \
        console.error('token ' + secrets.TOKEN + ' pin ' + secrets.PIN); return 'said' })()";
    let job = house.run(&secretive(code)).await;
    assert_eq!(job["outcome"]["result"]["value"], "said", "{job}");
    // Asked for right behind the result: the tail was there before it.
    let id = job["id"].as_str().expect("an id");
    let log = house.get(&format!("/api/v1/jobs/{id}/log")).await;
    let texts: Vec<&str> = log
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(|line| line["text"].as_str())
        .collect();
    let mut expected: Vec<String> = (0..300).map(|n| format!("line {n}")).collect();
    expected.push("token [redacted] pin 1234".to_owned());
    assert_eq!(texts, expected, "values under six characters stay");

    let thrown = "(() => { throw new Error('refused ' + secrets.TOKEN) })()";
    let job = house.run(&secretive(thrown)).await;
    let message = job["outcome"]["message"].as_str().expect("a message");
    assert!(message.contains("refused [redacted]"), "{job}");
    let told = format!("{job}{}", house.logs());
    assert!(!told.contains("s3cr3t-value"), "{told}");
}

fn secretive(code: &str) -> Value {
    json!({
        "kind": "evaluate", "flow": "secretive", "timeout_ms": 20_000,
        "expressions": {"value": code},
        "scope": {"secrets": {"TOKEN": "s3cr3t-value", "PIN": "1234"}},
    })
}

async fn a_time_out_aborts_it_alone_and_a_blocked_loop_ends_its_runtime(house: &House) {
    let patient = "new Promise((done) => setTimeout(() => done('through'), 3000))";
    for (code, cause, attempt) in [
        (NEVER, "timeout", "1.1"),
        (BLOCKED, "event_loop_blocked", "1.2"),
    ] {
        let flow = format!("beside-{cause}");
        let beside = house.submit(&in_flow(&flow, patient, 30_000)).await;
        house.started(&beside).await;
        let job = house.run(&in_flow(&flow, code, TIMEOUT_MS)).await;
        assert_eq!(job["outcome"]["cause"], cause, "{job}");
        let beside = house.wait(&beside).await;
        assert_eq!(beside["outcome"]["result"]["value"], "through", "{beside}");
        assert_eq!(beside["attempt"], attempt, "{cause}: {beside}");
        let same = beside["container"] == job["container"];
        assert_eq!(same, attempt == "1.1", "{beside}\n{job}");
    }
}

fn in_flow(flow: &str, code: &str, timeout_ms: u64) -> Value {
    json!({"kind": "evaluate", "flow": flow, "timeout_ms": timeout_ms, "expressions": {"value": code}})
}

async fn it_is_cancelled_wherever_it_is_and_again(house: &House) {
    // In the broker's queue: its worker stands still.
    let worker = house.workers[0].pid();
    kill(worker, Signal::SIGSTOP).expect("it runs");
    let queued = house.submit(&in_flow("queued", NEVER, 60_000)).await;
    state(house, &queued, "accepted").await;
    for reason in ["first", "second"] {
        cancel(house, &queued, reason).await;
    }
    kill(worker, Signal::SIGCONT).expect("it is there");
    let job = house.wait(&queued).await;
    assert_eq!(job["state"], "cancelled", "{job}");
    assert_eq!(
        job["outcome"]["reason"], "first",
        "a repeat changes nothing: {job}"
    );

    // Running, and deaf to it: it ends with its runtime, within the deadline.
    let blocked = house.submit(&in_flow("blocked", BLOCKED, 60_000)).await;
    house.started(&blocked).await;
    let asked = Instant::now();
    cancel(house, &blocked, "enough").await;
    let job = house.wait(&blocked).await;
    assert_eq!(job["state"], "cancelled", "{job}");
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    let again = cancel(house, &blocked, "again").await;
    assert_eq!(again["outcome"]["reason"], "enough", "{again}");
}

async fn an_urgent_one_is_still_urgent_when_it_is_tried_again(house: &House) {
    let slow = "new Promise((done) => setTimeout(() => done(1), 1500))";
    let mut urgent = in_flow("urgent", slow, 30_000);
    urgent["priority"] = json!("high");
    let id = house.submit(&urgent).await;
    house.started(&id).await;
    let container = house.get(&format!("/api/v1/jobs/{id}")).await["container"].clone();
    let container = container.as_str().expect("a container");
    let output = std::process::Command::new("podman")
        .args(["kill", container])
        .output()
        .expect("podman runs");
    assert!(output.status.success(), "{output:?}");
    // While it waits to be tried again it is among the urgent ones.
    let names = sluice_proto::queue::Names::of(&house.pool.as_str().into());
    let retried = until("it waits to be tried again", || {
        let ls = sluice::queue::inspect::ls(house.amqp_url().as_str(), &names);
        let views = async_std::task::block_on(ls).expect("the broker answers");
        let view = views.into_iter().find(|view| view.depth == Some(1));
        view.map(|view| view.role)
    })
    .await;
    assert_eq!(retried, "retry.high");
    let job = house.wait(&id).await;
    assert_eq!(
        (&job["state"], &job["attempt"]),
        (&json!("succeeded"), &json!("1.2")),
        "{job}"
    );
    let trace = house.get(&format!("/api/v1/jobs/{id}/trace")).await;
    let hops = trace["hops"].as_array().expect("hops");
    let first = hops
        .iter()
        .find(|hop| hop["name"] == "started" && hop["attempt"] == "1.1")
        .unwrap_or_else(|| panic!("the first attempt has left no hop: {trace}"));
    assert_eq!(first["container"], container, "{trace}");
}

#[async_std::test]
async fn a_worker_that_cannot_work_gets_none_and_ends_as_it_is_told() {
    let mut house = House::start(1).await;
    house.evaluate("1").await;
    a_broker_in_need_is_said(&house).await;
    what_a_worker_lacks_is_why_a_job_waits(&mut house).await;
    the_first_signal_finishes_what_is_held(&mut house).await;
}

async fn a_broker_in_need_is_said(house: &House) {
    broker(
        house,
        "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).",
    );
    refusing(house, "memory").await;
    let job = house.submit(&in_flow("alarm", "1", 10_000)).await;
    waiting(house, &job, "memory").await;
    broker(
        house,
        "rabbit_alarm:clear_alarm({resource_limit, memory, node()}).",
    );
    assert_eq!(house.wait(&job).await["state"], "succeeded");
}

async fn what_a_worker_lacks_is_why_a_job_waits(house: &mut House) {
    let cases = [
        ("SLUICE_DISK_FREE_MB_MIN", "1000000".to_owned(), "are free"),
        (
            "CONTAINER_HOST",
            "unix:///nowhere/podman.sock".to_owned(),
            "does not answer",
        ),
    ];
    for (setting, value, why) in cases {
        house.end_workers();
        house.start_worker_with(0, &[(setting, value)]);
        refusing(house, why).await;
        let job = house.submit(&in_flow("lacking", "1", 10_000)).await;
        waiting(house, &job, why).await;
        house.end_workers();
        house.start_worker(0);
        assert_eq!(
            house.wait(&job).await["state"],
            "succeeded",
            "{why}\n{}",
            house.logs()
        );
    }
}

async fn the_first_signal_finishes_what_is_held(house: &mut House) {
    let slow = "new Promise((done) => setTimeout(() => done('through'), 3000))";
    let held = house.submit(&in_flow("held", slow, 30_000)).await;
    house.started(&held).await;
    kill(house.workers[0].pid(), Signal::SIGTERM).expect("it runs");
    let job = house.wait(&held).await;
    assert_eq!(
        (&job["outcome"]["result"]["value"], &job["attempt"]),
        (&json!("through"), &json!("1.1")),
        "{job}"
    );
    let worker = &mut house.workers[0];
    assert_eq!(until("it ends", || worker.exit_code()).await, 0);
}

#[async_std::test]
async fn an_agents_first_signal_drains_and_its_second_gives_back_what_runs() {
    let mut house = House::build().await;
    let pool = lent(&house).await;
    let held = submit_to(&house, &pool, in_flow("held", NEVER, 600_000)).await;
    state(&house, &held, "started").await;
    let agent = house.agent.pid();

    kill(agent, Signal::SIGTERM).expect("it runs");
    // The local API says so of the agent, and of its worker.
    for drains in [
        "sluice_agent_state{state=\"draining\"} 1",
        "sluice_workers{state=\"draining\"} 1",
    ] {
        until(drains, || {
            let metrics = ask_agent(&house, "/metrics")?;
            metrics.contains(drains).then_some(())
        })
        .await;
    }
    let later = submit_to(&house, &pool, in_flow("held", "1", 600_000)).await;
    waiting(&house, &later, "").await;
    let job = house.get(&format!("/api/v1/jobs/{held}")).await;
    assert_eq!(job["state"], "started", "it is given time: {job}");

    let asked = Instant::now();
    kill(agent, Signal::SIGTERM).expect("it drains");
    let code = until("it ends at the second signal", || house.agent.exit_code()).await;
    assert_eq!(code, 0, "{}", house.agent_log());
    assert!(
        asked.elapsed() < Duration::from_secs(40),
        "{:?}",
        asked.elapsed()
    );
    let job = house.get(&format!("/api/v1/jobs/{held}")).await;
    assert!(job["finished_us"].is_null(), "it is nobody's end: {job}");

    house.start_agent_again();
    assert_eq!(house.wait(&later).await["state"], "succeeded");
    let path = format!("/api/v1/jobs/{held}");
    let job = seen(&house, &path, |job| {
        job["state"] == "started" && job["attempt"] != "1.1"
    })
    .await;
    assert_eq!(job["attempt"], "1.2", "once more, and counted: {job}");
    cancel(&house, &held, "it has shown what it should").await;
    assert_eq!(house.wait(&held).await["state"], "cancelled");
}

#[async_std::test]
async fn a_job_longer_than_the_brokers_patience_runs_once() {
    let mut house = House::build_on(Some(IMPATIENT)).await;
    house.start_bridge();
    house.start_worker(0);
    house.connected(1).await;
    let code =
        "new Promise((done) => { console.log('begun'); setTimeout(() => done('through'), 9000) })";
    let job = house.run(&in_flow("long", code, 60_000)).await;
    assert_eq!(
        job["outcome"]["result"]["value"],
        "through",
        "{job}\n{}",
        house.logs()
    );
    let struck = house.workers[0].log();
    assert!(
        struck.matches("Connected to the broker").count() > 1,
        "the broker did strike: {struck}"
    );
    let id = job["id"].as_str().expect("an id");
    let log = house.get(&format!("/api/v1/jobs/{id}/log")).await;
    let begun = log.as_array().expect("lines").iter();
    assert_eq!(
        begun.filter(|line| line["text"] == "begun").count(),
        1,
        "{log}"
    );
}

/// Says something to the house's broker as its administrator.
fn broker(house: &House, programme: &str) {
    let dir = house.path().join("agent/rabbitmq");
    let node = sluice::agent::rabbitmq::Node::kept(&dir).expect("a node");
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg("printf '%s\\n' \"$1\" | erl_call -address \"127.0.0.1:$2\" -e")
        .args(["sh", programme, &node.distribution_port.to_string()])
        .env("HOME", &dir)
        .output()
        .expect("erl_call runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("{ok,"), "{programme}: {said}");
}

/// The agent's local API, over its socket; `None` while that is away.
fn ask_agent(house: &House, path: &str) -> Option<String> {
    let mut stream = UnixStream::connect(house.path().join("agent/agent.sock")).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let head = "host: agent\r\nconnection: close";
    write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply)
}

/// The pool of the house's own agent, opened to the house's project.
async fn lent(house: &House) -> String {
    let pool = std::fs::read_to_string(house.path().join("agent/pool-id")).expect("a pool");
    let exposure = format!("/api/v1/pools/{pool}/projects/{}", house.project);
    let (status, reply) = house.call("PUT", &exposure, Some(&json!({}))).await;
    assert!(status < 400, "{reply}");
    pool
}

/// Submits a job to such a pool and answers with its id.
async fn submit_to(house: &House, pool: &str, mut job: Value) -> String {
    job["project"] = json!(house.project);
    job["pool"] = json!(pool);
    let job = house.post("/api/v1/jobs", &job).await;
    job["id"].as_str().expect("an id").to_owned()
}

async fn cancel(house: &House, id: &str, reason: &str) -> Value {
    let path = format!("/api/v1/jobs/{id}/cancel");
    house.post(&path, &json!({"reason": reason})).await
}

/// Waits until the agent says why it takes no work.
async fn refusing(house: &House, why: &str) {
    let path = format!("/api/v1/pools/{}", house.pool);
    seen(house, &path, |pool| {
        says(&pool["agents"][0]["refusing"], why)
    })
    .await;
}

/// Waits until a queued job says why it waits.
async fn waiting(house: &House, id: &str, why: &str) {
    let path = format!("/api/v1/jobs/{id}");
    let job = seen(house, &path, |job| says(&job["waiting"], why)).await;
    assert_eq!(job["state"], "queued", "{job}");
}

async fn state(house: &House, id: &str, state: &str) {
    seen(house, &format!("/api/v1/jobs/{id}"), |job| {
        job["state"] == state
    })
    .await;
}

/// Whether a value, in whatever form, has these words.
fn says(value: &Value, words: &str) -> bool {
    value.to_string().contains(words)
}

/// Looks until it is so.
async fn seen(house: &House, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let value = house.get(path).await;
        if is(&value) {
            return value;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "not in time: {value}\n{}",
            house.logs()
        );
        async_std::task::sleep(Duration::from_millis(50)).await;
    }
}
