//! System calls by machine code of its own.

use crate::runtimes::{Engine, House, app, end, start, value};

const APP: &str = include_str!("../apps/escape/kernel.mjs");

/// What the kernel may answer instead of doing it: not permitted, not there.
const REFUSALS: [&str; 2] = ["EPERM", "38"];

pub async fn the_kernel_refuses_what_would_lead_out(engine: Engine) {
    let house = House::start(engine.config(), engine.owner()).await;
    let lease = house.claim(&app("kernel"), APP).await.expect("a runtime");
    let answers = value(&end(start(&lease, "callKernel()", 20_000).await).await);
    println!("{answers}");
    let answers = answers.as_object().expect("an object");
    if answers["native"] == "yes" {
        assert!(answers.len() > 30, "{answers:?}");
    }
    for (name, answer) in answers.iter().filter(|(name, _)| *name != "native") {
        let answer = answer.as_str().expect("a word");
        assert!(REFUSALS.contains(&answer), "{name}: {answer}");
    }
    drop(lease);
    house.stop().await;
}
