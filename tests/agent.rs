//! What an agent starts on its host, and that it is gone with the agent: a real
//! RabbitMQ, a real Podman service. Run as an ordinary user.

#[path = "agent/cut_off.rs"]
mod cut_off;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use async_std::channel;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice::agent::files::Files;
use sluice::agent::rabbitmq::{self, Limits, Node};
use sluice::agent::supervise::{Group, Policy};
use sluice::process::Process as Recorded;
use sluice::queue::Link;
use sluice::shutdown::Shutdown;
use sluice_proto::ids::{JobId, PoolId, ProjectId};
use sluice_proto::job::{Identity, Job, Kind, Priority};
use sluice_proto::queue::Names;

use support::env;
use support::process::{PATIENCE, Process, until};

const POLICY: Policy = Policy {
    fatal_codes: &[],
    drain: Duration::from_secs(20),
};
const POOL: &str = "agent-test";

#[async_std::test]
async fn the_private_node_listens_on_loopback_and_keeps_its_messages_over_kill_9() {
    ordinary_user();
    let data = tempfile::tempdir().expect("a scratch directory");
    let files = Files::open(data.path(), "agent").expect("a directory");
    let dir = files.path("rabbitmq");
    let node = Node::prepare(&dir).expect("prepared");
    let limits = Limits {
        disk_free_bytes_min: 50_000_000,
        memory_bytes: 1_000_000_000,
    };
    let server = rabbitmq::find_server().expect("RabbitMQ is installed");
    let path = env("PATH").expect("a PATH");
    let recipes = node.recipes(&server, &dir, limits, &path);
    let (fatal, _told) = channel::bounded(1);
    let group = Group::new(files.path("pids"), fatal);
    for recipe in recipes.expect("recipes") {
        group.start(recipe, POLICY);
    }
    rabbitmq::ready(node.amqp_port, &dir).await.expect("ready");
    let first = running(&files).expect("it is recorded");
    assert_eq!(
        listening(first.pid),
        BTreeSet::from([
            format!("127.0.0.1:{}", node.amqp_port),
            format!("127.0.0.1:{}", node.distribution_port),
        ])
    );
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", first.pid)).expect("it runs");
    let password = node
        .url()
        .split([':', '@'])
        .nth(2)
        .expect("a password")
        .to_owned();
    assert!(!line.contains(&password), "no secret on the command line");

    let names = Names::of(&PoolId::from(POOL));
    let link = Link::connect(&node.url(), "test", &names)
        .await
        .expect("a link");
    for _ in 0..20 {
        link.publish_job(&job(), 0).await.expect("confirmed");
    }
    kill(Pid::from_raw(first.pid), Signal::SIGKILL).expect("it runs");
    link.failed().await;
    let second = until("another node runs", || {
        running(&files).filter(|now| *now != first)
    })
    .await;
    rabbitmq::ready(node.amqp_port, &dir)
        .await
        .expect("ready again");
    let link = Link::connect(&node.url(), "test", &names)
        .await
        .expect("a link");
    let mut deliveries = link.jobs(50).await.expect("a consumer");
    for number in 0..20 {
        let delivery = async_std::future::timeout(PATIENCE, deliveries.next()).await;
        let delivery = delivery.unwrap_or_else(|_| panic!("job {number} is lost"));
        let delivery = delivery.expect("the link lives");
        delivery.ack().await.expect("acknowledged");
    }
    link.close().await;

    // A later agent finds the same node: name, ports, password, messages.
    group.stop(&Shutdown::new()).await;
    assert!(!second.is_alive());
    assert_eq!(Node::prepare(&dir).expect("prepared again"), node);
}

#[async_std::test]
async fn nothing_outlives_an_agent_that_is_ended_or_killed() {
    ordinary_user();
    let data = tempfile::tempdir().expect("a scratch directory");
    let mut agent = start_agent(data.path());
    let url = ready(&mut agent, data.path(), 1).await;
    let before = below(data.path(), agent.pid());
    for name in [
        "epmd", "rabbitmq", "podman", "bridge", "worker-0", "worker-1",
    ] {
        let record = data.path().join("agent/pids").join(name);
        until("every child is recorded", || record.exists().then_some(())).await;
    }
    assert!(
        before.len() >= 2,
        "RabbitMQ and Podman at least: {before:?}"
    );
    agent.kill();
    let killed = Instant::now();
    loop {
        let left = below(data.path(), agent.pid());
        if left.is_empty() {
            break;
        }
        assert!(killed.elapsed() < PATIENCE, "a killed agent left {left:?}");
        async_std::task::sleep(Duration::from_millis(50)).await;
    }

    let mut agent = start_agent(data.path());
    assert_eq!(
        ready(&mut agent, data.path(), 2).await,
        url,
        "the same node again"
    );
    let mut second = Process::spawn(data.path(), "second", "agent", &settings());
    let code = until("a second agent is refused", || second.exit_code()).await;
    assert_eq!(code, 1, "{}", second.log());
    assert!(
        second.log().contains("another `sluice agent` uses"),
        "{}",
        second.log()
    );

    assert_eq!(agent.end(), Some(0), "{}", agent.log_tail());
    assert_eq!(below(data.path(), agent.pid()), Vec::<String>::new());
    for name in ["amqp-url", "podman-url", "podman.sock"] {
        assert!(
            !data.path().join("agent").join(name).exists(),
            "{name} is left"
        );
    }
    assert!(!agent.log().contains(TOKEN), "the token is not in the log");
}

/// As a service manager does it to all that a user runs.
#[async_std::test]
async fn a_podman_that_was_killed_whole_is_mended_at_the_start() {
    ordinary_user();
    let world = cut_off::World::new();
    world.cut_off();
    let words = world.answers().expect_err("it is cut off");
    assert!(words.contains("podman system migrate"), "{words}");
    let data = tempfile::tempdir().expect("a scratch directory");
    let settings: Vec<_> = settings().into_iter().chain(world.settings()).collect();

    let doctor = std::process::Command::new(support::exe())
        .args(["doctor", "--json"])
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("the program starts");
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let mends = |verdict: &&serde_json::Value| verdict["mend"] == "podman system migrate";
    let found = report["verdicts"].as_array().expect("a list");
    assert_eq!(found.iter().filter(mends).count(), 1, "{report}");

    let mut agent = Process::spawn(data.path(), "agent", "agent", &settings);
    ready(&mut agent, data.path(), 1).await;
    assert!(
        agent.log().contains("putting its records right"),
        "{}",
        agent.log()
    );
    assert_eq!(world.answers(), Ok(()));
    assert_eq!(agent.end(), Some(0), "{}", agent.log_tail());
}

const TOKEN: &str = "0123456789abcdef-the-token";

fn ordinary_user() {
    assert!(
        !nix::unistd::Uid::effective().is_root(),
        "run this test as an ordinary user: rootless Podman and RabbitMQ need one"
    );
}

fn settings() -> [(&'static str, String); 5] {
    // Nobody listens there: the bridge tries for ever, which is all these tests need of it.
    let nowhere = "127.0.0.1:1";
    [
        ("FLOWS_GATEWAY_ENDPOINT", format!("ws://{nowhere}")),
        ("FLOWS_ENDPOINT", format!("http://{nowhere}")),
        ("FLOWS_AGENT_POOL_ID", POOL.to_owned()),
        ("FLOWS_AGENT_POOL_TOKEN", TOKEN.to_owned()),
        ("FLOWS_POOL_SIZE", "0".to_owned()),
    ]
}

fn start_agent(data: &Path) -> Process {
    Process::spawn(data, "agent", "agent", &settings())
}

/// Waits until an agent says for the `time`th time that it runs; answers with the broker's address.
async fn ready(agent: &mut Process, data: &Path, time: usize) -> String {
    until("the agent runs", || {
        agent.assert_alive();
        (agent.log().matches("The agent runs").count() == time).then_some(())
    })
    .await;
    std::fs::read_to_string(data.join("agent/amqp-url")).expect("the broker's address")
}

fn running(files: &Files) -> Option<Recorded> {
    Recorded::recorded(&files.path("pids/rabbitmq"))
}

/// Processes that name the directory on their command line or in their
/// environment. Podman's pause process is the user's, whoever's call started it.
fn below(dir: &Path, except: Pid) -> Vec<String> {
    let needle = dir.display().to_string();
    let pause = env("XDG_RUNTIME_DIR").and_then(|dir| cut_off::pause(Path::new(&dir)));
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let file = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let (line, environment) = (file("cmdline"), file("environ"));
            let text = String::from_utf8_lossy(&[line.clone(), environment].concat()).into_owned();
            let ours =
                text.contains(&needle) && ![Some(except.as_raw()), pause].contains(&Some(pid));
            ours.then(|| {
                format!(
                    "{pid} {}",
                    String::from_utf8_lossy(&line).replace('\0', " ")
                )
            })
        })
        .collect()
}

/// Every address at which a process takes TCP connections.
fn listening(pid: i32) -> BTreeSet<String> {
    const LISTEN: &str = "0A";
    let links = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it is ours")
        .flatten();
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let sockets: BTreeSet<_> = links.map(|link| link.display().to_string()).collect();
    let mut found = BTreeSet::new();
    for file in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields[3] == LISTEN && sockets.contains(&format!("socket:[{}]", fields[9])) {
                found.insert(address(fields[1]));
            }
        }
    }
    found
}

/// `0100007F:1F90` is `127.0.0.1:8080`; what is no IPv4 address stays as it is.
fn address(hex: &str) -> String {
    let (host, port) = hex.split_once(':').expect("host and port");
    let port = u16::from_str_radix(port, 16).expect("a port");
    match u32::from_str_radix(host, 16) {
        Ok(bits) => format!("{}:{port}", std::net::Ipv4Addr::from(bits.swap_bytes())),
        Err(_) => format!("{host}:{port}"),
    }
}

fn job() -> Job {
    Job {
        id: JobId(uuid::Uuid::now_v7().to_string()),
        kind: Kind::Evaluate,
        priority: Priority::Normal,
        pool: PoolId::from(POOL),
        project: ProjectId::from(POOL),
        identity: Identity::Flow { flow: POOL.into() },
        dispatch: 1,
        created_us: 1,
        timeout_ms: 1_000,
        expires_ms: None,
        block: None,
        token: String::new(),
        traceparent: None,
        payload: b"{}".to_vec(),
    }
}
