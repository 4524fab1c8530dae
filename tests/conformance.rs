//! The checks for backends of one's own: what is right passes all of them, and each of them finds
//! what it is there for.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]
#![allow(unreachable_pub, reason = "the parts of one test")]

#[path = "conformance/broken.rs"]
mod broken;
#[path = "conformance/broken_grants.rs"]
mod broken_grants;
#[path = "conformance/broken_writes.rs"]
mod broken_writes;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[path = "conformance/databases.rs"]
mod databases;
#[cfg(feature = "sqlite")]
#[allow(dead_code, reason = "other tests use all of it")]
#[path = "support/folder.rs"]
mod folder;
#[path = "conformance/mutants.rs"]
mod mutants;
#[cfg(all(feature = "postgres", target_os = "linux"))]
#[allow(dead_code, reason = "other tests use all of it")]
#[path = "support/postgres.rs"]
mod postgres;
#[path = "conformance/sources.rs"]
mod sources;
#[path = "../examples/custom_backend/table.rs"]
mod table;
#[path = "conformance/versions.rs"]
mod versions;
#[path = "conformance/without.rs"]
mod without;

use std::sync::Arc;

use tower_api_key::{
    MemoryBackend,
    conformance::{self, Checks},
};

use self::table::Table;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_backend_keeps_every_rule() {
    for _ in 0..20 {
        let backend = MemoryBackend::new();
        conformance::check_backend(async || Ok(backend.clone())).await;
    }
}

/// On one thread as on several.
#[tokio::test]
async fn the_backend_of_the_example_keeps_every_rule() {
    for _ in 0..5 {
        let table = Arc::new(Table::default());
        let checks = Checks::of_backend(async || Ok(table.clone()));
        checks.without_grants().run().await.unwrap();
    }
}
