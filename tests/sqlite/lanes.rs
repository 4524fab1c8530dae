//! Lookups while lists want more connections than there are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::task::JoinSet;
use tower_api_key::{ApiKeyBackend as _, KeySource as _, SqliteBackend, sqlx};

use crate::{key, run, shell, support::folder::Folder};

const CALLERS: usize = 1_000;
const LOOKUPS: u32 = 50;

/// Keys that it takes a while to count.
const MANY: &str = "
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
    INSERT INTO tower_api_keys (id, user_id, scopes, unrestricted, display_prefix, pepper,
        secret_hash, created_at, version)
    SELECT randomblob(24), 'many', '', 0, 'pk.key_abcdefghi', 'v1',
        replace(hex(zeroblob(32)), '00', 'ab'), n, 1
    FROM numbers";

async fn a_flood_leaves_connections_to_lookups(backend: SqliteBackend) {
    for number in 0..LOOKUPS {
        assert!(backend.insert(&key(number, "user_1")).await.unwrap());
    }
    let ended = Arc::new(AtomicUsize::new(0));
    let mut flood = JoinSet::new();
    for _ in 0..CALLERS {
        let (backend, ended) = (backend.clone(), ended.clone());
        flood.spawn(async move {
            let counted = backend.pepper_usage(SystemTime::now()).await;
            ended.fetch_add(1, Ordering::Relaxed);
            counted.map(drop)
        });
    }
    // All of them are under way or wait when the first has ended.
    let first = flood.join_next().await.unwrap().unwrap();
    first.unwrap();
    let before = ended.load(Ordering::Relaxed);
    for number in 0..LOOKUPS {
        let found = backend
            .get_many(&[key(number, "user_1").lookup_key()])
            .await;
        assert_eq!(found.unwrap().len(), 1);
    }
    let meanwhile = ended.load(Ordering::Relaxed) - before;
    println!("{meanwhile} counts ended during {LOOKUPS} lookups");
    // A lookup that had to queue would let all of them go first.
    assert!(meanwhile < CALLERS / 2, "{meanwhile}");
    flood.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_counts_leaves_connections_to_lookups() {
    let folder = Folder::new("sqlite-lanes");
    let path = folder.join("keys.db");
    let builder = SqliteBackend::builder().busy_timeout(Duration::from_secs(600));
    let backend = builder.open(&path).await.unwrap();
    run(&mut shell(&path).await, MANY).await;
    a_flood_leaves_connections_to_lookups(backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_counts_leaves_connections_of_a_pool_to_lookups() {
    let folder = Folder::new("sqlite-lanes-pool");
    let path = folder.join("keys.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(600));
    let pool: SqlitePool = pool.connect_with(options).await.unwrap();
    let backend = SqliteBackend::new(pool).await.unwrap();
    run(&mut shell(&path).await, MANY).await;
    a_flood_leaves_connections_to_lookups(backend).await;
}
