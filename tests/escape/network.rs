//! Metadata, link-local, the host and its neighbours, in every policy.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;

use serde_json::{Value, json};
use sluice::config::{EgressConfig, Network, Reach};
use sluice::runtime::pool::Lease;
use url::Url;

use crate::runtimes::{Engine, House, app, end, start, value};

const APP: &str = include_str!("../apps/escape/network.mjs");

/// A root of nobody's: its key was thrown away.
const ROOT: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBjTCCATOgAwIBAgIUCyFdaTyQAOsqm2imlOPiBTrch+swCgYIKoZIzj0EAwIw\n\
GzEZMBcGA1UEAwwQU2x1aWNlIHRlc3Qgcm9vdDAgFw0yNjExMjUxOTAwMThaGA8y\n\
MTI2MTEwMTE5MDAxOFowGzEZMBcGA1UEAwwQU2x1aWNlIHRlc3Qgcm9vdDBZMBMG\n\
ByqGSM49AgEGCCqGSM49AwEHA0IABDHcBhqvlpSa2aHowC5dkJmf21NXhEZ337cr\n\
vP+Jhn4scWjzimIJpB2OQsgfGKvGjaDbK1PHNkoexgM3yxkF+sGjUzBRMB0GA1Ud\n\
DgQWBBR1El8Bl6rPbPiqqIiZDT+8fGKnrDAfBgNVHSMEGDAWgBR1El8Bl6rPbPiq\n\
qIiZDT+8fGKnrDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDX\n\
hBsFUyh4hXPLM5ev/9HhKqwG5OJ09w0wDV1X5MNkdAIgGpg2bNxLh1G/Ld8APk4b\n\
CoX2eGgx6nGHVpLXYOto+j8=\n\
-----END CERTIFICATE-----\n";

/// What a refusal looks like inside: by `nftables`, by a route, or without any network.
const REFUSALS: [&str; 6] = [
    "EHOSTUNREACH",
    "ENETUNREACH",
    "EADDRNOTAVAIL",
    "EINVAL",
    "EACCES",
    "EPERM",
];

async fn evaluate(lease: &Lease, expression: &str) -> Value {
    value(&end(start(lease, expression, 20_000).await).await)
}

/// The address by which this host would be reached from outside, if it has one.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

pub async fn metadata_link_local_and_the_host_are_closed_in_every_policy(engine: Engine) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    for network in [Network::None, Network::Private, Network::Full] {
        let mut config = engine.config();
        config.network = network;
        // The widest setting there is opens none of these.
        config.reach.allowed = vec!["0.0.0.0/0".parse().expect("a range")];
        let house = House::start(config, engine.owner()).await;
        let lease = house.claim(&app("network"), APP).await.expect("a runtime");
        let mut targets = vec![
            json!(["169.254.169.254", 80]),
            json!(["169.254.170.2", 80]),
            json!(["169.254.1.1", 22]),
            json!(["100.100.100.200", 80]),
            json!(["168.63.129.16", 80]),
            json!(["192.0.0.192", 80]),
            json!(["fd00:ec2::254", 80]),
            json!(["fe80::1", 80]),
            // The forwarder's own addresses: its gateway is the host's loopback.
            json!(["10.0.2.2", port]),
            json!(["10.0.2.101", port]),
        ];
        if let Some(own) = own_address() {
            targets.push(json!([own, port]));
        }
        let expression = format!("connectAll({})", json!(targets));
        let answers = evaluate(&lease, &expression).await;
        for (target, answer) in targets.iter().zip(answers.as_array().expect("a list")) {
            let answer = answer.as_str().expect("a word");
            assert!(REFUSALS.contains(&answer), "{network:?} {target}: {answer}");
        }
        let loopback = evaluate(&lease, &format!("connect('127.0.0.1', {port})")).await;
        // Its own loopback, with nobody there; gVisor without a network has not even that.
        assert!(
            ["ECONNREFUSED", "ENETUNREACH"].contains(&loopback.as_str().expect("a word")),
            "{loopback}"
        );
        let sent = evaluate(&lease, "datagram('169.254.169.254', 53)").await;
        assert!(
            REFUSALS.contains(&sent.as_str().expect("a word")),
            "{network:?}: {sent}"
        );
        let got = evaluate(
            &lease,
            "metadata('http://169.254.169.254/latest/meta-data/')",
        )
        .await;
        assert_ne!(got, "answered", "{network:?}");
        if network == Network::None {
            let found = evaluate(&lease, "resolve('example.com')").await;
            assert_ne!(found, "answered", "no network has no DNS");
        }
        drop(lease);
        house.stop().await;
    }
    listener.set_nonblocking(true).expect("it can");
    assert!(listener.accept().is_err(), "somebody reached the host");
}

/// Two runtimes never share a network, so the test itself lays a wire between
/// two of them, and the policy decides what goes over it.
pub async fn a_private_network_reaches_what_is_allowed_and_no_more(engine: Engine) {
    let mut config = engine.config();
    config.network = Network::Private;
    config.reach = Reach {
        allowed: vec!["10.77.0.0/16:8000-8001".parse().expect("a range")],
        denied: vec!["10.77.0.2:8001".parse().expect("a range")],
    };
    config.egress = EgressConfig {
        http_proxy: Url::parse("http://agent:secret@10.77.0.9:3128").ok(),
        additional_root_cas: vec![ROOT.to_owned()],
        ..EgressConfig::default()
    };
    let house = House::start(config, engine.owner()).await;
    let inside = house.claim(&app("inside"), APP).await.expect("a runtime");
    // A flow: its own answers pass no policy.
    let beside = house.flow("beside").await;
    let serve = "new Promise((done) => [8000, 8001, 8002].map((port) => \
        process.getBuiltinModule('node:net').createServer((socket) => socket.end()).listen(port, '0.0.0.0', done)))";
    evaluate(&beside, serve).await;
    lay_wire(&inside, &beside);
    let answers = evaluate(
        &inside,
        "connectAll([['10.77.0.2', 8000], ['10.77.0.2', 8001], ['10.77.0.2', 8002], ['10.78.0.2', 8000], ['203.0.113.1', 443]])",
    )
    .await;
    assert_eq!(answers[0], "connected", "{answers}");
    for closed in 1..5 {
        let answer = answers[closed].as_str().expect("a word");
        assert!(REFUSALS.contains(&answer), "{closed}: {answers}");
    }
    // What the agent has for its own way out, without its password.
    let environment = evaluate(&inside, "process.env").await;
    assert_eq!(environment["HTTP_PROXY"], "http://10.77.0.9:3128/");
    assert_eq!(environment["NODE_USE_ENV_PROXY"], "1");
    assert!(!environment.to_string().contains("secret"), "{environment}");
    let roots = "process.getBuiltinModule('node:tls').getCACertificates('extra').length";
    assert_eq!(evaluate(&inside, roots).await, 1);
    // A flow has neither the network nor the way out.
    let names = evaluate(&beside, "Object.keys(process.env).join()").await;
    assert!(!names.to_string().contains("PROXY"), "{names}");
    drop((inside, beside));
    house.stop().await;
}

fn lay_wire(from: &Lease, to: &Lease) {
    let pid = |lease: &Lease| {
        let inspect = ["inspect", "--format", "{{.State.Pid}}", lease.container()];
        run(&inspect).trim().to_owned()
    };
    let (from, to) = (pid(from), pid(to));
    let ip = |pid: &str, words: &str| {
        let mut command = vec!["unshare", "nsenter", "--target", pid, "--net", "ip"];
        command.extend(words.split(' '));
        run(&command);
    };
    ip(
        &from,
        &format!("link add wire type veth peer name wire netns {to}"),
    );
    for (pid, address) in [(&from, "10.77.0.1/16"), (&to, "10.77.0.2/16")] {
        ip(pid, &format!("address add {address} dev wire"));
        ip(pid, "link set wire up");
    }
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new("podman")
        .args(arguments)
        .output()
        .expect("podman runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "podman {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
