//! Files, sockets and processes that are not its own; and places to write.

use std::path::Path;

use serde_json::{Value, json};
use sluice::config::Sandbox;
use sluice::runtime::pool::Lease;

use crate::runtimes::{Engine, House, app, end, socket, start, value};

const APP: &str = include_str!("../apps/escape/files.mjs");

/// `/tmp` and `/dev/shm` together, in bytes, as the sandbox allows them.
const WRITABLE_BYTES_MAX: u64 = (64 + 1) << 20;

async fn evaluate(lease: &Lease, expression: &str) -> Value {
    value(&end(start(lease, expression, 30_000).await).await)
}

pub async fn files_sockets_and_processes_of_others_are_not_there(engine: Engine) {
    let house = House::start(engine.config(), engine.owner()).await;
    let dir = engine.dir.path();
    std::fs::write(dir.join("secret"), "the host's").expect("written");
    let neighbour = house.claim(&app("neighbour"), APP).await.expect("one");
    let lease = house.claim(&app("files"), APP).await.expect("a runtime");

    // Whatever the worker has of other runtimes, by the paths it has it at.
    let mut paths = vec![
        dir.join("secret"),
        socket(dir),
        dir.join("runtimes"),
        "/etc/shadow".into(),
        "/etc/subuid".into(),
        "/run/podman/podman.sock".into(),
        "/var/run/docker.sock".into(),
        format!("/run/user/{}", nix::unistd::Uid::current()).into(),
    ];
    walk(&dir.join("runtimes"), &mut paths);
    assert!(
        paths.iter().any(|path| path.ends_with("app.mjs")),
        "{paths:?}"
    );
    for path in &paths {
        let found = evaluate(&lease, &format!("read({})", json!(path))).await;
        for way in found.as_array().expect("a list") {
            assert_eq!(way, "ENOENT", "{}: {found}", path.display());
        }
        if path
            .extension()
            .is_some_and(|extension| extension == "sock")
        {
            let answer = evaluate(&lease, &format!("dial({})", json!(path))).await;
            assert_eq!(answer, "ENOENT", "{}", path.display());
        }
    }

    // Its own socket takes one connection, which the harness has.
    let second = evaluate(&lease, "dial('/sluice/run/harness.sock')").await;
    assert_eq!(second, "ECONNREFUSED");
    // The host's abstract sockets live in the host's network.
    let name = format!("sluice-escape-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            &name,
        );
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address.expect("a name"));
    let answer = evaluate(&lease, &format!("dial('\\0{name}')")).await;
    assert_eq!(answer, "ECONNREFUSED");

    let processes = evaluate(&lease, "processes()").await;
    assert_eq!(processes, json!(["1"]), "it sees itself alone");
    drop((lease, neighbour));
    house.stop().await;
}

pub async fn nothing_can_be_written_but_a_little_memory_and_nothing_brought_along_runs(
    engine: Engine,
) {
    let house = House::start(engine.config(), engine.owner()).await;
    let lease = house.claim(&app("files"), APP).await.expect("a runtime");
    let writable = evaluate(&lease, "writable()").await;
    println!("writable: {writable}");
    let writable: Vec<String> = serde_json::from_value(writable).expect("a list");
    let expected = |path: &str| ["/tmp", "/dev/shm", "/dev/mqueue"].contains(&path);
    assert!(writable.iter().all(|path| expected(path)), "{writable:?}");
    let mut bytes = 0;
    for path in writable.iter().filter(|path| *path != "/dev/mqueue") {
        let filled = evaluate(&lease, &format!("fill('{path}')")).await;
        assert_eq!(filled["end"], "ENOSPC", "{path}: {filled}");
        bytes += filled["bytes"].as_u64().expect("a number");
    }
    assert!((1 << 20..=WRITABLE_BYTES_MAX).contains(&bytes), "{bytes}");
    assert_eq!(evaluate(&lease, "knobs()").await, json!([]));
    let executed = evaluate(&lease, "execute()").await;
    assert_eq!(executed["program"], "EACCES", "{executed}");
    assert_eq!(executed["loaded"], "ERR_DLOPEN_FAILED", "{executed}");
    let mounts = evaluate(&lease, "mounts()").await;
    for mount in mounts.as_array().expect("a list") {
        let has = |option: &str| {
            mount["options"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(option)))
        };
        let at = mount["at"].as_str().expect("a path");
        // gVisor's kernel knows neither setuid nor devices, and does not list them.
        let wanted: &[&str] = match engine.sandbox {
            Sandbox::Container => &["ro", "nosuid", "nodev", "noexec"],
            Sandbox::Gvisor => &["ro", "noexec"],
        };
        if at.starts_with("/sluice") {
            assert!(wanted.iter().all(|option| has(option)), "{mount}");
        }
        if at == "/" {
            assert!(has("ro"), "{mount}");
        }
    }
    drop(lease);
    house.stop().await;
}

fn walk(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("it is there").flatten() {
        found.push(entry.path());
        if entry.path().is_dir() {
            walk(&entry.path(), found);
        }
    }
}
