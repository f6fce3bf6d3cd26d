//! Looks into the queue: what the agent's local API answers, and what the
//! command line asks itself where no agent runs.
//!
//! ```text
//!            ┌─ gateway   the truth about jobs          (HTTP, the pool's token)
//!  Observer ─┼─ broker    the truth about messages      (its own link, as an onlooker)
//!            └─ workers   the truth about what runs     (their presence, asked for by `Tell`)
//!      │
//!      └─▶ api: facts ─▶ check, why, health, metrics, mask (pure) ─▶ JSON or text
//! ```
//!
//! Owns no job and no message: a look consumes nothing, marks nothing, and
//! counts towards no limit. What changes something says so: cancel, replay,
//! drop, pause.

pub mod api;
mod books;
pub mod check;
mod gateway;
pub mod health;
pub mod mask;
pub mod metrics;
pub mod observer;
mod peek;
pub mod queues;
pub mod snapshot;
pub mod why;

pub use gateway::Gateway;
pub use observer::Observer;
