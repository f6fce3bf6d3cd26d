//! What the integration tests share: the test house and the chaos proxy.
//!
//! Each test binary uses a part of it, so what one leaves unused is no mistake.
#![allow(dead_code, reason = "every test binary uses another part")]

pub mod chaos;
pub mod house;
pub mod process;

use std::path::PathBuf;

/// The program under test. The runner may have put it where an unprivileged
/// user can read it, and then says so at run time.
#[expect(
    clippy::disallowed_methods,
    reason = "tests ask their runner, not the settings"
)]
pub fn exe() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_sluice").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_sluice")),
        PathBuf::from,
    )
}

/// A variable of the test's own environment.
#[expect(
    clippy::disallowed_methods,
    reason = "tests ask their runner, not the settings"
)]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A file of the sample app, built by `make test` before the tests run.
pub fn sample_app() -> String {
    let path = repository().join("target/apps/sample.mjs");
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: run `make test`, which builds it",
            path.display()
        )
    })
}

/// The root of the checkout, wherever the runner has put it.
pub fn repository() -> PathBuf {
    env("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}
