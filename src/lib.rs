//! Sluice runs the JavaScript of flows beside private resources.
//!
//! ```text
//!  store ── GATEWAY ── wire ── BRIDGE ── queue ── WORKER ── runtime
//!                 └──────────── api_client ─────────┘
//! ```
//!
//! Capitals are roles, lower case are doors. A role uses only the doors beside
//! it, no role imports another, no door imports a door, and every foreign
//! crate has one door (`tests/tidy.rs` holds these rules as data).
//! `docs/architecture.md` walks through it.

// The base: no door and no role below this line is imported by it.
pub mod agent_id;
pub mod backoff;
pub mod config;
pub mod disk;
pub mod egress;
pub mod limit;
pub mod pause;
pub mod process;
pub mod redaction;
pub mod shutdown;
pub mod telemetry;

// The doors.
pub mod api_client;
pub mod http;
pub mod queue;
pub mod runtime;
pub mod store;
pub mod wire;

// The roles.
pub mod agent;
pub mod bridge;
pub mod gateway;
pub mod worker;

// What a person types.
pub mod cli;
