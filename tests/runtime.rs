//! Runtimes in real containers: sealed, claimed, ended, swept, and how fast.
//!
//! Needs Podman as an ordinary user with the runtime image built.

#[path = "support/runtimes.rs"]
mod runtimes;

use std::future::ready;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use sluice::config::Network;
use sluice_proto::report::{Cause, Failure, Origin};

use runtimes::{Engine, House, app, cause, end, flow, serve, socket, start, until, value};

#[async_std::test]
async fn a_runtime_is_sealed_and_is_its_identitys_alone() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.stems = 1;
    let house = House::start(config, engine.owner()).await;
    until("a stem", || house.pool.status().stems == 1).await;

    let lease = house.flow("one").await;
    assert_eq!(lease.origin(), Origin::Stem);
    assert_eq!(value(&end(start(&lease, "6 * 7", 5_000).await).await), 42);
    let again = house.flow("one").await;
    assert_eq!(
        (again.origin(), again.container()),
        (Origin::Warm, lease.container())
    );
    let other = house.flow("two").await;
    assert_ne!(other.container(), lease.container());

    let probe = "(async () => {
        const fs = process.getBuiltinModule('node:fs');
        const net = process.getBuiltinModule('node:net');
        const tried = (what) => { try { what(); return 'done' } catch (error) { return error.code } };
        const status = Object.fromEntries(fs.readFileSync('/proc/self/status', 'utf8').split('\\n').map((line) => line.split(/:\\s+/)));
        const connect = (to) => new Promise((resolve) => net.connect(to, () => resolve('connected')).on('error', (error) => resolve(error.code)));
        return {
            uid: process.getuid(), capabilities: status.CapBnd, privileges: status.NoNewPrivs, seccomp: status.Seccomp,
            root: tried(() => fs.writeFileSync('/x', '')), run: tried(() => fs.writeFileSync('/sluice/run/x', '')),
            harness: tried(() => fs.writeFileSync('/sluice/harness.cjs', '')), tmp: tried(() => fs.writeFileSync('/tmp/x', '')),
            environment: Object.keys(process.env).sort(), loopback: await connect({host: '127.0.0.1', port: 1}),
            metadata: await connect({host: '169.254.169.254', port: 80}), links: Object.keys(process.getBuiltinModule('node:os').networkInterfaces()),
        };
    })()";
    let found = value(&end(start(&lease, probe, 5_000).await).await);
    assert_eq!(found["uid"], 1000, "{found}");
    assert_eq!(found["capabilities"], "0000000000000000", "{found}");
    assert_eq!(
        (&found["privileges"], &found["seccomp"]),
        (&json!("1"), &json!("2")),
        "{found}"
    );
    assert_eq!(
        (&found["root"], &found["run"]),
        (&json!("EROFS"), &json!("EROFS")),
        "{found}"
    );
    assert_eq!(
        (&found["harness"], &found["tmp"]),
        (&json!("EROFS"), &json!("done")),
        "{found}"
    );
    assert_eq!(found["metadata"], "ENETUNREACH", "{found}");
    let environment = found["environment"].to_string();
    for word in ["SLUICE", "FLOWS", "AMQP", "PROXY", "NODE_OPTIONS"] {
        assert!(!environment.contains(word), "{found}");
    }
    drop((lease, again, other));
    house.stop().await;
}

#[async_std::test]
async fn bundles_are_loaded_once_and_a_bad_one_says_why() {
    let engine = Engine::start().await;
    let house = House::start(engine.config(), engine.owner()).await;
    let failure = house
        .claim(&app("broken"), "export const app = {")
        .await
        .expect_err("it does not parse");
    assert_eq!(failure.cause, Cause::Syntax, "{failure:?}");
    let unavailable = Failure::new(Cause::BundleUnavailable, "the test has none");
    let failure = house
        .pool
        .claim(&app("absent"), ready(Err(unavailable.clone())))
        .await
        .expect_err("there is no bundle");
    assert_eq!(failure, unavailable);

    let bundle = "export const app = { name: 'Sample', blocks: {} };";
    let good = app("good");
    let claims = join_all((0..8).map(|_| house.claim(&good, bundle))).await;
    let leases: Vec<_> = claims
        .into_iter()
        .map(|lease| lease.expect("a runtime"))
        .collect();
    assert!(
        leases
            .iter()
            .all(|lease| lease.container() == leases[0].container())
    );
    assert_eq!(house.pool.status().busy, 1, "{:?}", house.pool);
    drop(leases);
    house.stop().await;
}

/// Expressions that end their runtime or their time, and what is to be said of each.
const DEATHS: [(&str, Cause); 7] = [
    ("process.exit(3)", Cause::Crashed),
    ("process.abort()", Cause::Crashed),
    // It lives on, but has cut the line to us.
    (
        "(() => {
            const fs = process.getBuiltinModule('node:fs');
            for (const fd of fs.readdirSync('/proc/self/fd')) {
                try { if (fs.readlinkSync('/proc/self/fd/' + fd).startsWith('socket')) fs.closeSync(Number(fd)) } catch {}
            }
            return new Promise(() => {});
        })()",
        Cause::Crashed,
    ),
    ("new Promise(() => {})", Cause::Timeout),
    ("(() => { while (true) {} })()", Cause::EventLoopBlocked),
    (
        "(() => { const all = []; while (true) all.push(new Array(1e5).fill(1.5)) })()",
        Cause::OutOfMemory,
    ),
    (
        "(async () => { const all = []; while (true) { all.push(Buffer.alloc(4e6, 1)); await new Promise((r) => setTimeout(r, 1)) } })()",
        Cause::OutOfMemory,
    ),
];

#[async_std::test]
async fn each_death_is_told_by_its_true_cause_and_harms_no_other() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.memory_bytes = 128 << 20;
    let house = House::start(config, engine.owner()).await;
    let bystander = house.flow("bystander").await;
    let waiting = "new Promise((resolve) => setTimeout(resolve, 60_000))";
    let beside = start(&bystander, waiting, 120_000).await;
    for (expression, expected) in DEATHS {
        let name = format!("bad {expected}");
        let timeout_ms = match expected {
            Cause::Timeout | Cause::EventLoopBlocked => 300,
            _ => 20_000,
        };
        let started = Instant::now();
        let ended = house.evaluate(&name, expression, timeout_ms).await;
        println!(
            "{expected}: {:?} after {:?}",
            ended.result,
            started.elapsed()
        );
        assert_eq!(cause(&ended), expected, "{expression}: {ended:?}");
        assert!(!ended.collateral, "{expression}: {ended:?}");
        // The next one of the same identity gets a new runtime.
        assert_eq!(value(&house.evaluate(&name, "'fine'", 5_000).await), "fine");
    }
    let quick = start(&bystander, "'untouched'", 5_000).await;
    assert_eq!(value(&end(quick).await), "untouched");

    // Two in one runtime: who brought it down is not known.
    let lease = house.flow("shared").await;
    let innocent = start(&lease, waiting, 60_000).await;
    let guilty = start(&lease, "process.exit(1)", 60_000).await;
    for ended in [end(innocent).await, end(guilty).await] {
        assert!(ended.collateral, "{ended:?}");
        assert_eq!(cause(&ended), Cause::Collateral);
    }
    // In a blocked loop, the one whose time is over is named.
    let lease = house.flow("shared").await;
    let innocent = start(&lease, waiting, 60_000).await;
    let guilty = start(&lease, "(() => { while (true) {} })()", 300).await;
    assert_eq!(cause(&end(guilty).await), Cause::EventLoopBlocked);
    assert!(end(innocent).await.collateral);

    beside.abort();
    let ended = end(beside).await;
    assert!(ended.aborted, "{ended:?}");
    drop((lease, bystander));
    house.stop().await;
}

#[async_std::test]
async fn a_full_network_reaches_neither_metadata_nor_the_hosts_loopback() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.network = Network::Full;
    let house = House::start(config, engine.owner()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let bundle = "
        import net from 'node:net';
        const connect = (host, port) => new Promise((resolve) => {
            const socket = net.connect({ host, port, timeout: 2000 }, () => resolve('connected'));
            socket.on('error', (error) => resolve(error.code)).on('timeout', () => resolve('timeout'));
        });
        globalThis.connect = connect;
        export const app = { name: 'Net', blocks: {} };";
    let lease = house.claim(&app("net"), bundle).await.expect("a runtime");
    let evaluate =
        async |expression: String| value(&end(start(&lease, &expression, 10_000).await).await);
    for host in ["169.254.169.254", "100.100.100.200", "168.63.129.16"] {
        let answer = evaluate(format!("connect('{host}', 80)")).await;
        assert!(
            ["EINVAL", "ENETUNREACH", "EHOSTUNREACH", "EACCES"]
                .contains(&answer.as_str().unwrap_or_default()),
            "{host}: {answer}"
        );
    }
    for host in ["127.0.0.1", "10.0.2.2"] {
        let answer = evaluate(format!("connect('{host}', {port})")).await;
        assert_ne!(answer, "connected", "{host}");
    }
    let links =
        evaluate("Object.keys(process.getBuiltinModule('node:os').networkInterfaces())".into())
            .await;
    assert!(
        links.to_string().contains("tap0"),
        "there is a network: {links}"
    );
    drop(lease);
    house.stop().await;
}

#[async_std::test]
async fn leftovers_of_an_earlier_worker_are_swept() {
    let engine = Engine::start().await;
    let first = House::start(engine.config(), engine.owner()).await;
    let lease = first.flow("left").await;
    let left = lease.container().to_owned();
    let running = start(&lease, "new Promise(() => {})", 60_000).await;
    assert_eq!(engine.containers().len(), 1);
    // As after a SIGKILL: nobody tidies up, and the next worker has the same number.
    let second = House::start(engine.config(), engine.owner()).await;
    // Before its first claim, or beside it where Podman is busy.
    until("the leftover is gone", || engine.containers().is_empty()).await;
    let ended = end(running).await;
    assert_eq!(cause(&ended), Cause::Crashed, "{ended:?}");
    assert_ne!(second.flow("left").await.container(), left);
    drop(lease);
    second.stop().await;
    first.stop().await;
    let owner_dir = std::fs::read_dir(engine.dir.path().join("runtimes")).expect("it exists");
    let names: Vec<_> = owner_dir.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 1, "only the harness is left: {names:?}");
}

#[async_std::test]
async fn a_restart_of_podman_is_survived_and_said() {
    let mut engine = Engine::start().await;
    let house = House::start(engine.config(), engine.owner()).await;
    let warm = house.flow("warm").await;
    engine.service.kill().expect("the service is ours to kill");
    engine.service.wait().expect("it ends");
    std::fs::remove_file(socket(engine.dir.path())).expect("its socket is left");
    assert_eq!(value(&end(start(&warm, "1", 5_000).await).await), 1);
    let failure = house
        .claim(&flow("cold"), "")
        .await
        .expect_err("Podman is away");
    assert_eq!(failure.cause, Cause::RuntimeUnavailable);
    assert!(failure.message.contains("podman.sock"), "{failure:?}");
    assert_eq!(house.pool.refusing(), Some(failure.message));
    engine.service = serve(engine.dir.path(), engine.sandbox).await;
    let back = Instant::now();
    until("Podman is used again", || house.pool.refusing().is_none()).await;
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(value(&house.evaluate("cold", "2", 5_000).await), 2);
    drop(warm);
    house.stop().await;
}

#[async_std::test]
async fn a_missing_image_says_how_to_build_it() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.image = "localhost/nobody-built-this:latest".into();
    let house = House::start(config, engine.owner()).await;
    let failure = house
        .claim(&flow("any"), "")
        .await
        .expect_err("there is no image");
    assert_eq!(failure.cause, Cause::RuntimeUnavailable);
    assert!(
        failure.message.contains("compose/runtime-image.sh"),
        "{failure:?}"
    );
    house.stop().await;
}

#[async_std::test]
async fn more_identities_than_runtimes_all_get_their_turn() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.runtimes_max = 3;
    let house = House::start(config, engine.owner()).await;
    let jobs = (0..60).map(|number| {
        let house = &house;
        async move {
            let ended = house
                .evaluate(&format!("flow {}", number % 10), "'done'", 20_000)
                .await;
            assert_eq!(value(&ended), "done");
            assert!(house.pool.status().total() <= 3, "{:?}", house.pool);
        }
    });
    join_all(jobs).await;
    house.stop().await;
}

#[async_std::test]
async fn a_hundred_identities_on_twelve_runtimes_wait_alike() {
    const IDENTITIES: usize = 100;
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.runtimes_max = 12;
    let house = House::start(config, engine.owner()).await;
    let begun = Instant::now();
    let all = (0..IDENTITIES).map(|number| {
        let house = &house;
        async move {
            let name = format!("flow {number}");
            let jobs = (0..20).map(|_| house.evaluate(&name, "'done'", 60_000));
            for ended in join_all(jobs).await {
                assert_eq!(value(&ended), "done");
            }
            assert!(house.pool.status().total() <= 12, "{:?}", house.pool);
            begun.elapsed()
        }
    });
    let waits = join_all(all).await;
    let share = waits.iter().sum::<Duration>() / IDENTITIES as u32;
    let longest = waits.iter().max().expect("there are some");
    println!("2,000 jobs in {longest:?}; an identity waits {share:?} on average");
    assert!(*longest <= share * 3, "{longest:?} against {share:?}");
    house.stop().await;
}

#[async_std::test]
async fn an_idle_runtime_is_paused_and_its_next_call_is_quick() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.pause = Duration::from_millis(500);
    let house = House::start(config, engine.owner()).await;
    let lease = house.flow("paused").await;
    let container = lease.container().to_owned();
    let count = "(globalThis.beats = 0, setInterval(() => globalThis.beats++, 10), 1)";
    assert_eq!(value(&end(start(&lease, count, 5_000).await).await), 1);
    drop(lease);
    let mut times = Vec::new();
    for _ in 0..5 {
        until("the pause", || house.pool.status().paused == 1).await;
        let begun = Instant::now();
        let lease = house.flow("paused").await;
        assert_eq!(value(&end(start(&lease, "6 * 7", 5_000).await).await), 42);
        times.push(begun.elapsed());
        assert_eq!(
            (lease.container(), lease.origin()),
            (&*container, Origin::Warm)
        );
    }
    let resumed = median(times);
    println!("paused to result {resumed:?}");
    assert!(resumed < Duration::from_millis(30), "{resumed:?}");

    // While it is paused it does nothing at all.
    let beats = async || {
        let lease = house.flow("paused").await;
        value(&end(start(&lease, "globalThis.beats", 5_000).await).await)
    };
    let before = beats().await.as_u64().expect("a number");
    until("the pause", || house.pool.status().paused == 1).await;
    async_std::task::sleep(Duration::from_secs(2)).await;
    let after = beats().await.as_u64().expect("a number");
    assert!(after - before < 200, "{before} {after}");

    // One that is not there any more when it should wake is replaced, and nobody hears of it.
    until("the pause", || house.pool.status().paused == 1).await;
    let kill = ["kill", "--signal", "KILL", &container];
    let killed = std::process::Command::new("podman").args(kill).output();
    assert!(killed.expect("podman runs").status.success());
    assert_eq!(
        value(&house.evaluate("paused", "'again'", 10_000).await),
        "again"
    );
    house.stop().await;
}

#[async_std::test]
async fn an_old_runtime_is_replaced_when_its_last_invocation_ends() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.age = Duration::from_millis(800);
    let house = House::start(config, engine.owner()).await;
    let lease = house.flow("old").await;
    let old = lease.container().to_owned();
    let waits = "new Promise((resolve) => setTimeout(() => resolve('kept'), 2_000))";
    let kept = start(&lease, waits, 20_000).await;
    async_std::task::sleep(Duration::from_millis(1_000)).await;
    let lease = house.flow("old").await;
    assert_ne!(lease.container(), old, "it was too old for a new claim");
    assert_eq!(value(&end(kept).await), "kept");
    drop(lease);
    house.stop().await;
}

#[async_std::test]
async fn starts_and_warm_invocations_are_fast() {
    let engine = Engine::start().await;
    let mut config = engine.config();
    config.runtimes_max = 30;
    let house = House::start(config.clone(), engine.owner()).await;
    let mut cold = Vec::new();
    for number in 0..12 {
        let begun = Instant::now();
        let lease = house.flow(&format!("cold {number}")).await;
        assert_eq!(lease.origin(), Origin::Cold);
        cold.push(begun.elapsed());
    }
    house.stop().await;

    config.stems = 2;
    let house = House::start(config, engine.owner()).await;
    let mut stem = Vec::new();
    for number in 0..12 {
        until("the stems", || house.pool.status().stems == 2).await;
        let begun = Instant::now();
        let lease = house.flow(&format!("stem {number}")).await;
        assert_eq!(lease.origin(), Origin::Stem);
        end(start(&lease, "1", 5_000).await).await;
        stem.push(begun.elapsed());
    }
    let mut warm = Vec::new();
    for _ in 0..2_000 {
        let begun = Instant::now();
        let lease = house.flow("stem 0").await;
        end(start(&lease, "1", 5_000).await).await;
        warm.push(begun.elapsed());
    }
    let rate = rate(&house, 64, 300).await;
    let (cold, stem, warm) = (median(cold), median(stem), median(warm));
    println!("cold {cold:?}, stem first call {stem:?}, warm {warm:?}, 64 in flight {rate:.0}/s");
    // Generous, for a loaded machine and a debug build; the numbers to hold are `sluice bench`'s.
    assert!(cold < Duration::from_secs(2), "{cold:?}");
    assert!(stem < Duration::from_millis(200), "{stem:?}");
    assert!(warm < Duration::from_millis(10), "{warm:?}");
    assert!(rate > 1_000.0, "{rate}");
    house.stop().await;
}

/// Invocations per second in one runtime.
async fn rate(house: &House, in_flight: usize, each: usize) -> f64 {
    let begun = Instant::now();
    let loops = (0..in_flight).map(|_| async {
        for _ in 0..each {
            let lease = house.flow("stem 0").await;
            assert_eq!(value(&end(start(&lease, "1", 5_000).await).await), 1);
        }
    });
    join_all(loops).await;
    (in_flight * each) as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
