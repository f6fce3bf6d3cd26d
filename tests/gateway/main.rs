//! The gateway by its two doors: HTTP on one side, a bridge that speaks real
//! frames on the other.

mod bad_input;
mod calls;
mod custody;
mod fixture;
mod rate;
mod registries;
mod secrets;
mod sessions;
#[path = "../support/site.rs"]
mod site;
