//! The escape suite: what hostile code in a runtime tries, and what it gets.
//! Each attempt is contained, its cause is told truthfully, and the next job of
//! another identity runs as fast as before.
//!
//! Needs Podman as an ordinary user with the runtime image built. The hostile
//! apps are in `tests/apps/escape`.

#[path = "support/runtimes.rs"]
mod runtimes;

#[path = "escape/files.rs"]
mod files;
#[path = "escape/forgery.rs"]
mod forgery;
#[path = "escape/harm.rs"]
mod harm;
#[path = "escape/kernel.rs"]
mod kernel;
#[path = "escape/network.rs"]
mod network;
#[path = "escape/pace.rs"]
mod pace;
