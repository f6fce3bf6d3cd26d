//! The wire contract of Sluice: what the four processes say to each other.
//!
//! ```text
//!  gateway ──frame── bridge ──queue── worker ──harness── Node.js
//! ```
//!
//! | module | conversation | carried by |
//! |---|---|---|
//! | [`frame`] | gateway ⇄ bridge | binary websocket messages |
//! | [`queue`] | bridge ⇄ worker | AMQP messages: properties, headers, body |
//! | [`harness`] | worker ⇄ Node harness | a unix socket, length-prefixed |
//!
//! All three are msgpack with named fields ([`codec`]); a [`job::Job`] and a
//! [`report::Report`] are the same values in all of them. What a job works on,
//! its payload, is an opaque byte string of JSON that nobody between the
//! gateway's API and the Node harness parses.
//!
//! This crate owns names, shapes and limits. It does no I/O, reads no clock and
//! depends on serde and rmp-serde alone. `README.md` beside it says the same in
//! prose, and `vectors/` holds golden messages that Rust and Node tests read.

#![forbid(unsafe_code)]

pub mod codec;
pub mod frame;
pub mod harness;
pub mod ids;
pub mod job;
pub mod queue;
pub mod report;

/// The version this build speaks on all three conversations.
///
/// A change that an older peer cannot ignore (a removed or re-typed field, a
/// new required one, a new message it must act on) raises it by one. New
/// optional fields do not: unknown fields are skipped by every reader.
pub const PROTOCOL: u16 = 1;

/// The oldest version this build still understands.
pub const PROTOCOL_OLDEST: u16 = 1;

/// Tells whether a peer speaking `version` can be understood; if not, the
/// sentence to refuse it with.
pub fn check_protocol(version: u16) -> Result<(), String> {
    if version < PROTOCOL_OLDEST {
        Err(format!(
            "protocol version {version} is older than the oldest this side speaks ({PROTOCOL_OLDEST}): upgrade the peer"
        ))
    } else if version > PROTOCOL {
        Err(format!(
            "protocol version {version} is newer than this side speaks ({PROTOCOL}): upgrade this side first"
        ))
    } else {
        Ok(())
    }
}
