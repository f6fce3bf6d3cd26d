//! The role that holds flows, installations and pools.

pub mod engine;
