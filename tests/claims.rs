//! Keys that are handed off and claimed, on every backend: by several nodes, after a restart, and against
//! each other.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]
#![allow(unreachable_pub, reason = "the parts of one test")]

mod support;

#[path = "claims/counted.rs"]
mod counted;
#[path = "claims/databases.rs"]
mod databases;
#[path = "claims/once.rs"]
mod once;
#[path = "claims/revoked.rs"]
mod revoked;
#[path = "claims/secrets.rs"]
mod secrets;
#[path = "claims/stored.rs"]
mod stored;
