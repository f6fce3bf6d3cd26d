//! What a person sees of a real house with `sluice queue`, and what the agent's
//! local API says: real broker, real containers, the program as it is installed.

#[path = "inspect/follow.rs"]
mod follow;
mod support;
#[path = "inspect/top.rs"]
mod top;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sluice::queue::{Link, failed};
use sluice_proto::ids::PoolId;
use sluice_proto::job::Attempt;
use sluice_proto::queue::Names;
use sluice_proto::report::{Cause, Failure};

use support::house::House;
use support::process::{PATIENCE, until};
use support::{env, exe};

/// Runs `sluice queue …` for the house's pool, with its token.
fn queue(house: &House, words: &[&str]) -> Output {
    queue_for(house, Some(&house.pool), words)
}

/// The same for a pool, or for the pool of the agent in the data directory.
fn queue_for(house: &House, pool: Option<&str>, words: &[&str]) -> Output {
    let output = queue_command(house, pool, words).output();
    output.expect("the program starts")
}

fn queue_command(house: &House, pool: Option<&str>, words: &[&str]) -> Command {
    let pass = ["PATH", "HOME", "XDG_RUNTIME_DIR", "FLOWS_RUNTIME_IMAGE"];
    let mut command = Command::new(exe());
    command
        .arg("queue")
        .args(words)
        .env_clear()
        .envs(pass.iter().filter_map(|name| Some((*name, env(name)?))))
        .env("SLUICE_DATA_DIR", house.path());
    if let Some(pool) = pool {
        command
            .env("FLOWS_AGENT_POOL_ID", pool)
            .env("FLOWS_AGENT_POOL_TOKEN", &house.token)
            .env("FLOWS_ENDPOINT", house.http());
    }
    command
}

/// What a command prints with `--json`.
fn seen(house: &House, words: &[&str]) -> Value {
    parsed(house, words, &queue(house, &[words, &["--json"]].concat()))
}

fn parsed(house: &House, words: &[&str], output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{words:?}: {error}: {text}\n{errors}\n{}", house.logs())
    })
}

fn slow() -> Value {
    json!({
        "kind": "evaluate", "timeout_ms": 60_000,
        "expressions": {"value": "new Promise(r => { console.log('half way'); setTimeout(() => r(outputs.n), 30000) })"},
        "scope": {"outputs": {"n": 7}},
    })
}

#[async_std::test]
async fn a_person_finds_out_where_each_job_is() {
    let mut house = House::start(1).await;
    let done = house.evaluate("20 + 1").await;
    assert_eq!(done["outcome"]["result"]["value"], 21, "{done}");
    let done = done["id"].as_str().expect("an id").to_owned();

    trace_of_one_that_is_done(&house, &done);
    let running = house.submit(&slow()).await;
    house.started(&running).await;
    looks_at_a_running_job(&house, &running);

    let output = queue(&house, &["cancel", &running, "--reason", "seen enough"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(house.wait(&running).await["state"], "cancelled");
    let why = seen(&house, &["why", &running]);
    assert_eq!(why["reason"], "cancelled", "{why}");

    a_paused_pool_takes_nothing(&house).await;
    a_captured_job_runs_again_without_gateway_and_broker(&house, &done);
    dead_letters_are_seen_replayed_and_dropped(&mut house).await;

    let check = seen(&house, &["check"]);
    assert_eq!(
        (&check["ok"], &check["accepted"]),
        (&json!(true), &json!(0)),
        "{check}"
    );
}

fn trace_of_one_that_is_done(house: &House, done: &str) {
    let trace = seen(house, &["trace", done]);
    assert!(
        trace["origin"].is_string() && trace["container"].is_string(),
        "{trace}"
    );
    let names: BTreeSet<_> = trace["hops"]
        .as_array()
        .expect("hops")
        .iter()
        .filter_map(|hop| hop["name"].as_str())
        .collect();
    for name in [
        "created",
        "received",
        "published",
        "accepted",
        "delivered",
        "claimed",
        "finished",
        "relayed",
        "reported",
    ] {
        assert!(names.contains(name), "{name} is not in {trace}");
    }
    let text = queue(house, &["trace", done]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("runtime)") && text.contains("state: succeeded"),
        "{text}"
    );
}

fn looks_at_a_running_job(house: &House, running: &str) {
    let why = seen(house, &["why", running]);
    assert_eq!(why["reason"], "running", "{why}");
    let peek = seen(house, &["peek", "in-flight", "--payload"]);
    let job = &peek["jobs"][0];
    assert_eq!(
        (job["job"].as_str(), &job["running"]),
        (Some(running), &json!(true)),
        "{peek}"
    );
    assert!(
        job["worker"].is_string() && job["runtime"]["container"].is_string(),
        "{peek}"
    );
    assert_eq!(job["payload"]["scope"]["outputs"]["n"], 7, "{peek}");
    let ready = seen(house, &["peek", "ready"]);
    assert_eq!(ready["jobs"], json!([]), "it is no longer ready: {ready}");
    let queues = seen(house, &["ls"]);
    assert_eq!(
        (&queues[0]["role"], &queues[0]["depth"]),
        (&json!("jobs"), &json!(0)),
        "{queues}"
    );
    assert_eq!(queues[0]["unacked"], 1, "{queues}");
    let check = seen(house, &["check"]);
    assert_eq!(
        (&check["ok"], &check["in_flight"]),
        (&json!(true), &json!(1)),
        "{check}"
    );
    // No look was a delivery.
    let trace = seen(house, &["trace", running]);
    assert_eq!(trace["attempt"], "1.1", "{trace}");
}

async fn a_paused_pool_takes_nothing(house: &House) {
    let output = queue(house, &["pause", "--reason", "a test"]);
    assert!(output.status.success(), "{output:?}");
    let refusing = format!("/api/v1/pools/{}", house.pool);
    wait_for(house, "the bridge takes nothing", async || {
        house.get(&refusing).await["agents"][0]["refusing"]
            .as_str()
            .is_some_and(|why| why.contains("a test"))
    })
    .await;
    let job = house
        .submit(&json!({"kind": "evaluate", "expressions": {"value": "1"}}))
        .await;
    let why = seen(house, &["why", &job]);
    assert_eq!(
        (&why["state"], &why["reason"]),
        (&json!("queued"), &json!("agent_refuses")),
        "{why}"
    );
    assert!(
        why["sentence"]
            .as_str()
            .is_some_and(|why| why.contains("a test")),
        "{why}"
    );
    let output = queue(house, &["resume"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(house.wait(&job).await["state"], "succeeded");
}

fn a_captured_job_runs_again_without_gateway_and_broker(house: &House, done: &str) {
    let file = house.path().join("job.json");
    let path = file.to_str().expect("a path");
    let output = queue(house, &["capture", done, "--output", path]);
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&file).expect("a capture");
    assert!(!text.contains("token"), "{text}");
    // Nothing leads to a gateway or a broker: only Podman's address is there.
    let alone = tempfile::tempdir().expect("a directory");
    let podman =
        std::fs::read_to_string(house.path().join("agent/podman-url")).expect("Podman's address");
    let pass = ["PATH", "HOME", "XDG_RUNTIME_DIR", "FLOWS_RUNTIME_IMAGE"];
    let output = Command::new(exe())
        .args(["queue", "run", path, "--json"])
        .env_clear()
        .envs(pass.iter().filter_map(|name| Some((*name, env(name)?))))
        .env("SLUICE_DATA_DIR", alone.path())
        .env("CONTAINER_HOST", podman.trim())
        .output()
        .expect("the program starts");
    let ran = parsed(house, &["run"], &output);
    assert_eq!(ran["outcome"]["result"]["value"], 21, "{ran}");
    assert!(output.status.success(), "{output:?}");
}

async fn dead_letters_are_seen_replayed_and_dropped(house: &mut House) {
    let buried = two_are_buried(house).await;
    dead_letters_are_seen(house, &buried);
    dead_letters_go(house, &buried).await;
}

/// Two jobs that no worker ever ends.
async fn two_are_buried(house: &mut House) -> Vec<String> {
    let names = Names::of(&PoolId::from(house.pool.as_str()));
    let link = Link::connect(house.amqp_url().as_str(), "test", &names)
        .await
        .expect("a link");
    // A killed worker still counts for a moment: its bridge takes jobs, and nobody runs them.
    nix::sys::signal::kill(house.workers[0].pid(), Signal::SIGKILL).expect("it runs");
    let mut buried = Vec::new();
    let mut deliveries = link.jobs(10).await.expect("a consumer");
    for n in 0..2 {
        let expression = json!({"kind": "evaluate", "expressions": {"value": format!("40 + {n}")}});
        buried.push(house.submit(&expression).await);
        let delivery = async_std::future::timeout(PATIENCE, deliveries.next()).await;
        let delivery = delivery.expect("in time").expect("a delivery");
        let attempt = Attempt {
            dispatch: delivery.item.dispatch,
            delivery: delivery.delivery,
        };
        let failure = Failure::new(Cause::Collateral, "Others brought it down.");
        let report = failed(delivery.item.id.clone(), attempt, "test", failure);
        link.publish_report(&report).await.expect("confirmed");
        delivery
            .bury(&link, Cause::Collateral, "Others brought it down.")
            .await
            .expect("buried");
    }
    link.close().await;
    for job in &buried {
        assert_eq!(house.wait(job).await["state"], "failed");
    }
    house.start_worker(0);
    house.connected(1).await;
    buried
}

fn dead_letters_are_seen(house: &House, buried: &[String]) {
    for _ in 0..3 {
        let groups = seen(house, &["dead", "--by", "cause"]);
        assert_eq!(
            (&groups[0]["cause"], &groups[0]["jobs"]),
            (&json!("collateral"), &json!(2)),
            "looks take nothing: {groups}"
        );
    }
    let why = seen(house, &["why", &buried[0]]);
    assert!(
        why["sentence"]
            .as_str()
            .is_some_and(|why| why.contains("dead letters")),
        "{why}"
    );
    let peek = seen(house, &["peek", "dead", "--limit", "1"]);
    assert_eq!(
        (peek["jobs"].as_array().map(Vec::len), &peek["total"]),
        (Some(1), &json!(2)),
        "{peek}"
    );
}

async fn dead_letters_go(house: &House, buried: &[String]) {
    let dry = seen(house, &["replay", "--all"]);
    assert_eq!(dry.as_array().map(Vec::len), Some(2), "{dry}");
    assert_eq!(
        seen(house, &["dead"]).as_array().map(Vec::len),
        Some(2),
        "a dry run does nothing"
    );
    let replayed = seen(house, &["replay", &buried[0], "--yes"]);
    let again = replayed[0]["replayed_as"]
        .as_str()
        .unwrap_or_else(|| panic!("{replayed}"))
        .to_owned();
    assert_eq!(replayed[0]["removed"], true, "{replayed}");
    let again = house.wait(&again).await;
    assert_eq!(
        (&again["outcome"]["result"]["value"], &again["replay_of"]),
        (&json!(40), &json!(buried[0])),
        "{again}"
    );
    let dropped = seen(house, &["drop", "--cause", "collateral", "--yes"]);
    assert_eq!(
        (dropped[0]["job"].as_str(), &dropped[0]["removed"]),
        (Some(buried[1].as_str()), &json!(true)),
        "{dropped}"
    );
    assert_eq!(seen(house, &["dead"]), json!([]));
    let queues = seen(house, &["ls"]);
    let dead = queues
        .as_array()
        .expect("queues")
        .iter()
        .find(|view| view["role"] == "dead");
    assert_eq!(dead.expect("it is listed")["depth"], 0, "{queues}");
}

#[async_std::test]
async fn an_agent_tells_how_it_is_and_its_socket_is_what_the_command_line_uses() {
    let house = House::build().await;
    let (status, health) = ask(&house, "/health");
    assert_eq!(status, 200, "{health}");
    let (status, ready) = ask(&house, "/ready");
    assert_eq!(status, 200, "{ready}");
    let (status, metrics) = ask(&house, "/metrics");
    assert_eq!(status, 200, "{metrics}");
    for line in [
        "sluice_agent_state{state=\"running\"} 1",
        "sluice_process_up{process=\"bridge\"} 1",
        "sluice_process_up{process=\"worker-0\"} 1",
        "sluice_queue_depth{queue=\"jobs\"} 0",
        "sluice_workers{state=\"running\"} 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }
    let (status, wrong) = ask(&house, "/v1/nothing");
    assert_eq!(status, 404, "{wrong}");

    // Without a pool said, the agent's own is meant, and no credential is needed.
    let output = queue_for(&house, None, &["ls", "--json"]);
    let queues = parsed(&house, &["ls"], &output);
    assert_eq!(queues[0]["consumers"], 1, "{queues}");
    let output = queue_for(&house, None, &["check", "--json"]);
    assert_eq!(parsed(&house, &["check"], &output)["ok"], true);

    let output = queue_for(&house, None, &["pause", "--json"]);
    assert!(output.status.success(), "{output:?}");
    until("a paused agent is healthy and not ready", || {
        let healthy = ask(&house, "/health").0 == 200;
        (healthy && ask(&house, "/ready").0 == 503).then_some(())
    })
    .await;
    assert!(queue_for(&house, None, &["resume"]).status.success());
    until("it is ready again", || {
        (ask(&house, "/ready").0 == 200).then_some(())
    })
    .await;
}

/// One GET over the agent's socket.
fn ask(house: &House, path: &str) -> (u16, String) {
    let socket = house.path().join("agent/agent.sock");
    let mut stream = UnixStream::connect(&socket).expect("the socket is there");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n"
    )
    .expect("written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer");
    let status = reply
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    (status, reply)
}

/// Looks until it is so.
async fn wait_for(house: &House, what: &str, mut is: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is().await {
        assert!(
            begun.elapsed() < PATIENCE,
            "not in time: {what}\n{}",
            house.logs()
        );
        async_std::task::sleep(std::time::Duration::from_millis(100)).await;
    }
}
