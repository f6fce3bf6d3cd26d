//! Apps as their authors write them, through the whole line: people's API,
//! engine, websocket, RabbitMQ, worker, container, Node. Their sources are below
//! `tests/apps`; what each test does, a user could do.
//!
//! Runs in a network of its own, with the apps bundled: `make test ARGS=apps`.

mod support;

#[path = "apps_suite/coverage.rs"]
mod coverage;
#[path = "apps_suite/database.rs"]
mod database;
#[path = "apps_suite/flow.rs"]
mod flow;
#[path = "apps_suite/house.rs"]
mod house;
#[path = "apps_suite/web.rs"]
mod web;

#[path = "apps_suite/dynamic.rs"]
mod dynamic;
#[path = "apps_suite/lifecycle.rs"]
mod lifecycle;
#[path = "apps_suite/poller.rs"]
mod poller;
#[path = "apps_suite/postgresql.rs"]
mod postgresql;
#[path = "apps_suite/selfcall.rs"]
mod selfcall;
#[path = "apps_suite/store.rs"]
mod store;
#[path = "apps_suite/timers.rs"]
mod timers;
#[path = "apps_suite/webhook.rs"]
mod webhook;
