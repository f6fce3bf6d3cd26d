//! The flow engine behind the gateway's doors: people's API on one side, a
//! worker that answers jobs by a script on the other.

mod custody;
mod endpoints;
#[path = "../gateway/fixture.rs"]
#[allow(
    dead_code,
    reason = "the gateway's own tests use what these leave alone"
)]
mod fixture;
mod flows;
mod inspection;
mod lives;
mod openapi;
mod people;
mod pools;
mod refusals;
mod signals;
mod suggestions;
mod time;
mod upgrades;
mod worker;
