//! Lies on the socket, and calls in another's name.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::runtime::invocation::{Invocation, Running, Said};
use sluice::runtime::pool::Lease;
use sluice_proto::harness::{Answer, CALLS_IN_FLIGHT_MAX};
use sluice_proto::job::Kind;
use sluice_proto::report::Cause;

use crate::pace::Pace;
use crate::runtimes::{Engine, House, app, cause, end, start, value};

const APP: &str = include_str!("../apps/escape/harm.mjs");

/// Each is what no harness says.
const LIES: [&str; 12] = [
    r#"{"hello": {"protocol": 1, "node": "v99", "posture": {"uid": 0, "no_new_privileges": false, "capabilities": 1, "seccomp": 0, "root_writable": true}}}"#,
    r#""loaded""#,
    r#"{"load_failed": {"failure": {"cause": "lost", "message": "m"}}}"#,
    r#"{"done": {"invocation": 4000000000, "log_bytes_dropped": 0, "result": "1"}}"#,
    r#"{"done": {"invocation": 0, "log_bytes_dropped": 0, "result": "{"}}"#,
    r#"{"failed": {"invocation": 77, "log_bytes_dropped": 0, "failure": {"cause": "threw", "message": "m"}}}"#,
    r#"{"call": {"invocation": 99, "call": 1, "method": "kv.app.get", "args": "[]"}}"#,
    r#"{"call": {"invocation": 0, "call": 1, "method": "kv.app.get", "args": "no list"}}"#,
    r#"{"log": {"invocation": 55, "level": "info", "text": "t"}}"#,
    r#"{"pong": {"number": 12}}"#,
    r#"{"obey": {"command": "run"}}"#,
    r#"{"log": {"invocation": 0, "level": "info"}}"#,
];

pub async fn a_lie_ends_the_runtime_that_tells_it_and_touches_no_other(engine: Engine) {
    let house = House::start(engine.config(), engine.owner()).await;
    let pace = Pace::take(&house).await;
    let honest = house.flow("honest").await;
    let waits = "new Promise((resolve) => setTimeout(() => resolve('kept'), 1_000))";
    let beside = start(&honest, waits, 120_000).await;
    let mut names = HashSet::new();
    let lies = LIES.map(|lie| format!("forge([{lie}])"));
    // Lengths beyond the limit, of nothing, and a frame that is no msgpack.
    let garbage = ["/////w==", "AAAAAA==", "AAAAA8HBwQ=="];
    let lies = lies
        .into_iter()
        .chain(garbage.map(|bytes| format!("garbage('{bytes}')")));
    for lie in lies {
        let lease = house.claim(&app("liar"), APP).await.expect("a runtime");
        assert!(
            names.insert(lease.container().to_owned()),
            "a liar's runtime is used again"
        );
        let ended = end(start(&lease, &lie, 5_000).await).await;
        assert_eq!(cause(&ended), Cause::Crashed, "{lie}: {ended:?}");
        let failure = ended.result.expect_err("it failed");
        assert!(
            failure.message.contains("broke its protocol"),
            "{lie}: {failure:?}"
        );
    }
    assert_eq!(value(&end(beside).await), "kept");
    pace.check(&house, "lies").await;
    drop(honest);
    house.stop().await;
}

pub async fn sdk_calls_are_bounded_and_belong_to_the_invocation_that_makes_them(engine: Engine) {
    let house = House::start(engine.config(), engine.owner()).await;
    let lease = house.claim(&app("calls"), APP).await.expect("a runtime");
    let (answers, most) = sync(&lease, "calls").await;
    assert!(most <= CALLS_IN_FLIGHT_MAX, "{most}");
    assert!(answers.to_string().contains("are unanswered"), "{answers}");
    assert!(answers.to_string().contains("answered"), "{answers}");
    let (answers, _) = sync(&lease, "bytes").await;
    for words in [
        "answered",
        "bytes in calls of this invocation",
        "over the limit",
    ] {
        assert!(answers.to_string().contains(words), "{answers}");
    }
    sync(&lease, "keep").await;
    let (answer, calls) = sync(&lease, "borrow").await;
    assert!(
        answer
            .to_string()
            .contains("after its invocation had ended"),
        "{answer}"
    );
    assert_eq!(calls, 0, "nothing was called in another's name");
    drop(lease);
    house.stop().await;
}

/// Runs a block's `onSync`; answers calls only when no more come. Gives the
/// result and the most calls that were open at once.
async fn sync(lease: &Lease, block: &str) -> (Value, usize) {
    let payload =
        json!({"handler": {"block": block}, "input": {"block": {"id": block, "config": {}}}});
    let invocation = Invocation {
        kind: Kind::Sync,
        payload: payload.to_string().into_bytes(),
        timeout: Duration::from_secs(30),
        log_bytes_max: 64 * 1024,
    };
    let mut running = lease.invoke(invocation).await.expect("it is sent");
    let (mut open, mut most) = (Vec::new(), 0);
    loop {
        let said = async_std::future::timeout(Duration::from_millis(500), running.next()).await;
        match said {
            Ok(Said::Call { call, .. }) => {
                open.push(call);
                most = most.max(open.len());
            }
            Ok(Said::Log { .. }) => {}
            Ok(Said::Ended(ended)) => {
                let result = ended.result.expect("it succeeded");
                return (serde_json::from_slice(&result).expect("JSON"), most);
            }
            Err(_) => open.drain(..).for_each(|call| answer(&running, call)),
        }
    }
}

fn answer(running: &Running, call: u32) {
    let json = b"null".to_vec();
    running.answer(call, Answer::Value { json });
}
