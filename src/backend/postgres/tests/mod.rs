//! What can't be seen through the public API: steps of migrations, and what a read of the log
//! costs.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod connect_url;
mod errors;
mod feed;
mod schema;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is shared with tests that use all of it"
)]
#[path = "../../../../tests/support/postgres.rs"]
mod server;
