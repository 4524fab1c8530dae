//! Two nodes on one database, each with a cache of its own: what is done on the one is what the other goes by, once
//! it is told.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[path = "nodes/begun.rs"]
mod begun;
#[path = "nodes/changed.rs"]
mod changed;
#[path = "nodes/ended.rs"]
mod ended;
#[path = "nodes/held.rs"]
mod held;
#[path = "nodes/pair.rs"]
mod pair;

#[path = "nodes/refused_writes.rs"]
mod refused_writes;

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
