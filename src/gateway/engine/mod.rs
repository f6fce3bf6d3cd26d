//! The flow engine. Its core is pure: rules that take values and the time, and
//! return values, without a lock, a socket, a clock or SQL. [`run`] sets them to
//! work.
//!
//! ```text
//!  definition ─▶ graph ─▶ (plan, checks)      what a flow is
//!  schema, types, names, expressions          what a block is and what its fields mean
//!  component ─▶ effects                       the life of an installation or a block
//!  events, core_blocks, http_endpoint         what happens when an event comes
//!  schedule                                   when the next thing happens
//! ```
//!
//! The store keeps what these functions return and the line does what they ask
//! for; neither decides anything that could be decided here.

pub mod component;
pub mod core_blocks;
pub mod definition;
pub mod events;
pub mod expressions;
pub mod graph;
pub mod http_endpoint;
pub mod names;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod types;
