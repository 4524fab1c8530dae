//! Keys that no cache has, out of a million in a database, against what sqlx alone needs to read the
//! same rows: `cargo bench --bench cold`. `cargo bench --bench cold -- sqlite` or `-- postgres` for one
//! of the two.
//!
//! Whoever writes authentication by hand asks a pool for one row and compares. Many at a time are read
//! together by the store; one alone goes through the same machinery and gains nothing by it.
//!
//! The keys were used just now, so that nothing is written meanwhile.

#[path = "cold/databases.rs"]
mod databases;
#[path = "cold/measure.rs"]
mod measure;
mod support;

#[path = "../tests/support/postgres.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "made for tests"
)]
mod server;

use std::env;

use databases::Database;
use measure::Level;
use support::{Outcome, is_asked, sized};
use tokio::runtime;

/// How many ask at a time, and how often all of them together in a turn.
const LEVELS: &[Level] = &[
    Level::new(1, 1_000),
    Level::new(64, 6_400),
    Level::new(512, 10_240),
];

fn main() -> Outcome {
    if !is_asked() {
        return Ok(());
    }
    let keys = sized(1_000_000, 10_000);
    let names: Vec<_> = env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|given| given == name);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if wanted("sqlite") {
        runtime.block_on(async { compare(Database::sqlite(keys).await?).await })?;
    }
    if wanted("postgres") {
        // As much as the table has, so that both are as quick as they can be.
        let settings = ["shared_buffers=1GB", "max_wal_size=4GB", "autovacuum=off"];
        if let Some(server) = server::Server::start_with(&settings) {
            runtime.block_on(async { compare(Database::postgres(keys, &server).await?).await })?;
        }
    }
    Ok(())
}

async fn compare(database: Database) -> Outcome {
    println!("\n{}, {} keys", database.name, database.ids.len());
    measure::print_header();
    for level in LEVELS {
        let level = level.sized();
        let turns = measure::in_turns(&database, &level, sized(31, 2)).await?;
        turns.print(&level);
    }
    support::cache::print_stats(&database.resolver);
    Ok(())
}
