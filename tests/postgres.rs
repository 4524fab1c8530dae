//! Keys in PostgreSQL: on real servers, which the tests start.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

#[path = "support/postgres.rs"]
mod server;
mod support;

#[path = "postgres/changes.rs"]
mod changes;
#[path = "postgres/node.rs"]
mod node;
