//! Too much of one thing at a time: contained, told truthfully, unnoticed by others.

use std::time::Instant;

use serde_json::Value;
use sluice::runtime::invocation::{Ended, Said};
use sluice_proto::report::Cause;

use crate::pace::Pace;
use crate::runtimes::{Engine, House, app, end, start, value};

const APP: &str = include_str!("../apps/escape/harm.mjs");

/// How a case ends.
enum End {
    Fails(Cause, &'static str),
    Gives(&'static str),
}
use End::{Fails, Gives};

/// What is done, how long it may take in milliseconds, and how that ends. The
/// words are part of the message or of the value.
const CASES: &[(&str, u64, End)] = &[
    ("harm.fork()", 20_000, Gives("EAGAIN")),
    ("harm.heap()", 90_000, Fails(Cause::OutOfMemory, "MiB")),
    ("harm.buffers()", 90_000, Fails(Cause::OutOfMemory, "MiB")),
    ("harm.shared()", 90_000, Fails(Cause::OutOfMemory, "MiB")),
    ("harm.wasm()", 90_000, Fails(Cause::OutOfMemory, "MiB")),
    ("harm.children()", 90_000, Fails(Cause::OutOfMemory, "MiB")),
    ("harm.never()", 300, Fails(Cause::Timeout, "time allowed")),
    ("harm.spin()", 300, Fails(Cause::Timeout, "time allowed")),
    (
        "harm.block()",
        300,
        Fails(Cause::EventLoopBlocked, "never yielded"),
    ),
    (
        "harm.regexp()",
        300,
        Fails(Cause::EventLoopBlocked, "never yielded"),
    ),
    ("harm.exit()", 5_000, Fails(Cause::Crashed, "exit code 3")),
    ("harm.abort()", 5_000, Fails(Cause::Crashed, "ended by SIG")),
    ("harm.log()", 20_000, Gives("done")),
    ("harm.files()", 5_000, Gives("EMFILE after")),
    ("harm.keepFiles()", 5_000, Gives("EMFILE")),
    (
        "harm.result()",
        5_000,
        Fails(Cause::ResultTooLarge, "more than 4194304 bytes"),
    ),
    ("harm.deep()", 5_000, Fails(Cause::ResultNotJson, "")),
    ("harm.pollute()", 5_000, Gives("done")),
];

pub async fn each_excess_is_contained_and_told_and_nobody_else_notices(engine: Engine) {
    let mut config = engine.config();
    config.memory_bytes = 320 << 20;
    let house = House::start(config, engine.owner()).await;
    let pace = Pace::take(&house).await;
    for (expression, timeout_ms, expected) in CASES {
        let begun = Instant::now();
        let lease = house.claim(&app(expression), APP).await.expect("a runtime");
        let ended = end(start(&lease, expression, *timeout_ms).await).await;
        drop(lease);
        println!("{expression}: {} after {:?}", told(&ended), begun.elapsed());
        check(expression, &ended, expected);
        assert!(!ended.collateral, "{expression}: {ended:?}");
        pace.check(&house, expression).await;
        // Whoever it was gets a runtime that works, were it the same one.
        let lease = house.claim(&app(expression), APP).await.expect("a runtime");
        let ended = end(start(&lease, "6 * 7", 10_000).await).await;
        assert_eq!(value(&ended), 42, "after {expression}: {ended:?}");
    }
    house.stop().await;
}

pub async fn a_log_is_cut_and_what_is_cut_is_counted(engine: Engine) {
    let house = House::start(engine.config(), engine.owner()).await;
    let lease = house.claim(&app("log"), APP).await.expect("a runtime");
    let mut running = start(&lease, "harm.log()", 30_000).await;
    let mut bytes = 0;
    let ended = loop {
        match running.next().await {
            Said::Log { text, .. } => bytes += text.len(),
            Said::Ended(ended) => break ended,
            Said::Call { .. } => panic!("it makes no calls"),
        }
    };
    assert_eq!(value(&ended), "done");
    assert!((60_000..=64 * 1024).contains(&bytes), "{bytes}");
    assert!(ended.log_bytes_dropped > 9_000_000, "{ended:?}");
    // What went past the harness is in the container's log, which is bounded too.
    let mut logs = Vec::new();
    sizes(&engine.dir.path().join("runtimes"), &mut logs);
    let largest = logs.iter().max().expect("there are files");
    assert!(*largest < 1 << 20, "{largest}");
    drop((running, lease));
    house.stop().await;
}

fn check(expression: &str, ended: &Ended, expected: &End) {
    match expected {
        Fails(cause, words) => {
            let failure = ended.result.as_ref().expect_err(expression);
            assert_eq!(failure.cause, *cause, "{expression}: {failure:?}");
            assert!(failure.message.contains(words), "{expression}: {failure:?}");
        }
        Gives(words) => {
            let given: Value = value(ended);
            let given = given.as_str().expect("a text");
            assert!(given.contains(words), "{expression}: {given}");
        }
    }
}

fn told(ended: &Ended) -> String {
    match &ended.result {
        Ok(result) => String::from_utf8_lossy(result).chars().take(80).collect(),
        Err(failure) => format!("{}: {}", failure.cause, failure.message),
    }
}

fn sizes(dir: &std::path::Path, found: &mut Vec<u64>) {
    for entry in std::fs::read_dir(dir).expect("it is there").flatten() {
        let about = entry.metadata().expect("it is there");
        if about.is_dir() {
            sizes(&entry.path(), found);
        } else {
            found.push(about.len());
        }
    }
}
