//! Keys in PostgreSQL: on real servers, which the tests start.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[path = "postgres/changes.rs"]
mod changes;
#[path = "postgres/connecting.rs"]
mod connecting;
#[path = "postgres/lanes.rs"]
mod lanes;
#[path = "postgres/leavers.rs"]
mod leavers;
#[path = "postgres/lists.rs"]
mod lists;
#[path = "postgres/locks.rs"]
mod locks;
#[path = "postgres/log.rs"]
mod log;
#[path = "postgres/node.rs"]
mod node;
#[path = "postgres/outages.rs"]
mod outages;
#[path = "postgres/passwords.rs"]
mod passwords;
#[path = "postgres/paused.rs"]
mod paused;
#[path = "postgres/poolers.rs"]
mod poolers;
#[path = "postgres/pools.rs"]
mod pools;
#[path = "postgres/privileges.rs"]
mod privileges;
#[path = "postgres/proxy.rs"]
mod proxy;
#[path = "postgres/records.rs"]
mod records;
#[path = "postgres/row_security.rs"]
mod row_security;
#[path = "postgres/rows.rs"]
mod rows;
#[path = "postgres/runtimes.rs"]
mod runtimes;
#[path = "postgres/setup.rs"]
mod setup;
#[path = "postgres/standby.rs"]
mod standby;
#[path = "postgres/touches.rs"]
mod touches;
