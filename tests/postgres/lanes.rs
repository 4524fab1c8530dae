//! Lookups and revocations while management calls want more connections than there are.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKeyBackend, GrantPageRequest, KeySource, PostgresBackend,
    sqlx::{postgres::PgPoolOptions, query_scalar, raw_sql},
};

use crate::{node::eventually, records::plain, support::postgres::Server};

const CONNECTIONS: u32 = 8;
const CALLERS: usize = 1_000;
const KEYS: u8 = 100;

/// Counts the server's processes that wait for a lock.
async fn waiting(server: &Server) -> i64 {
    let waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted";
    let mut connection = server.connection().await;
    let waiting = query_scalar(waiting).fetch_one(&mut connection);
    waiting.await.unwrap()
}

/// Looks every key up, several at once; returns how long it took.
async fn look_up_all(backend: &PostgresBackend) -> Duration {
    let since = Instant::now();
    let mut lookups = JoinSet::new();
    for number in 0..KEYS {
        let backend = backend.clone();
        let key = plain(number).lookup_key();
        lookups.spawn(async move { backend.get_many(&[key]).await.unwrap().len() });
    }
    let found = lookups.join_all().await;
    assert_eq!(found.into_iter().sum::<usize>(), usize::from(KEYS));
    since.elapsed()
}

/// Calls that list grants without end, of which each waits for a lock on the table.
struct Flood {
    is_over: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    callers: JoinSet<()>,
}

impl Flood {
    fn start(backend: &PostgresBackend) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (backend, is_over, failed) = (backend.clone(), is_over.clone(), failed.clone());
            callers.spawn(async move {
                let page = GrantPageRequest::new();
                while !is_over.load(Ordering::Relaxed) {
                    if backend.list_grants(&page).await.is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        Self {
            is_over,
            failed,
            callers,
        }
    }

    async fn end(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        self.failed.load(Ordering::Relaxed)
    }
}

async fn a_flood_of_lists_leaves_connections(server: &Server, backend: PostgresBackend) {
    for number in 0..KEYS {
        assert!(backend.insert(&plain(number)).await.unwrap());
    }
    look_up_all(&backend).await;
    let unloaded = look_up_all(&backend).await;
    let mut holder = server.connection().await;
    let lock = "BEGIN; LOCK TABLE tower_api_key_grants IN ACCESS EXCLUSIVE MODE";
    raw_sql(lock).execute(&mut holder).await.unwrap();
    let flood = Flood::start(&backend);
    // A quarter is for lookups, and one connection for revocations.
    eventually("the flood has all that it gets", async || {
        waiting(server).await >= 5
    })
    .await;

    // Longer than a call waits for a connection, so that many of the flood have given up.
    let loaded = Cell::new(Duration::ZERO);
    eventually("calls of the flood are refused", async || {
        loaded.set(look_up_all(&backend).await.max(loaded.get()));
        flood.failed.load(Ordering::Relaxed) >= CALLERS
    })
    .await;
    for number in 0..KEYS / 2 {
        let key = plain(number);
        assert_eq!(backend.get_by_id(&[key.id]).await.unwrap().len(), 1);
        let revoked = backend.revoke(&key.id, crate::support::start(), None).await;
        assert!(revoked.unwrap());
    }
    assert!(waiting(server).await >= 5, "and the flood still goes on");
    let loaded = loaded.get();
    println!("{KEYS} lookups: {unloaded:?} alone, at most {loaded:?} under load");
    // Waiting for a connection takes `acquire_timeout`, and then fails.
    assert!(loaded < Duration::from_secs(2), "{loaded:?}");
    raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    flood.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_lists_leaves_connections_to_lookups_and_revocations() {
    let Some(server) = Server::start() else {
        return;
    };
    let builder = PostgresBackend::builder()
        .max_connections(CONNECTIONS)
        .acquire_timeout(Duration::from_secs(2))
        .statement_timeout(Duration::from_secs(60));
    let backend = builder.connect(&server.url()).await.unwrap();
    a_flood_of_lists_leaves_connections(&server, backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_lists_leaves_connections_of_a_pool_to_lookups() {
    let Some(server) = Server::start() else {
        return;
    };
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS);
    let pool = pool.connect_lazy(&server.url()).unwrap();
    let builder = PostgresBackend::builder()
        .acquire_timeout(Duration::from_secs(2))
        .statement_timeout(Duration::from_secs(60));
    let backend = builder.over(pool).await.unwrap();
    a_flood_of_lists_leaves_connections(&server, backend).await;
}
