//! Strangers who ask for what claim tokens claim, and leave before they have an answer.

use std::time::{Duration, Instant};

use tokio::{task::JoinSet, time::timeout};
use tower_api_key::{
    ApiKeyStore, HandoffToken, NewApiKey, PageRequest, Pepper, Peppers, PostgresBackend, Scopes,
    sqlx::{PgPool, postgres::PgPoolOptions, query_scalar},
};

use crate::support::{PEPPER, USER, outcome, postgres::Server};

const STRANGERS: usize = 50;
const CALLS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_leave_close_no_connections_and_starve_no_lookup() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    strangers_leave(&server, backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_leave_close_no_connections_of_a_services_pool() {
    let Some(server) = Server::start() else {
        return;
    };
    let pool = PgPoolOptions::new().max_connections(10);
    let pool = pool.connect_lazy(&server.url()).unwrap();
    let backend = PostgresBackend::new(pool).await.unwrap();
    strangers_leave(&server, backend).await;
}

async fn strangers_leave(server: &Server, backend: PostgresBackend) {
    let pepper = Pepper::new("v1", PEPPER).unwrap();
    let store = ApiKeyStore::builder(backend).peppers(Peppers::new(pepper));
    let store = store.build().await.unwrap();
    let new = || NewApiKey::for_user(USER, Scopes::none());
    let token = store.create(new()).await.unwrap();
    let token = token.token().expose();
    assert_eq!(outcome(&store.verify(token).await), "good");
    let operator = server.pool();
    let before = sessions(&operator).await;

    let mut strangers = JoinSet::new();
    for stranger in 0..STRANGERS {
        let store = store.clone();
        strangers.spawn(async move {
            for call in 0..CALLS {
                let made_up = [stranger.to_le_bytes(), call.to_le_bytes()].concat();
                let made_up = HandoffToken::from_bytes(made_up.try_into().unwrap());
                let patience = Duration::from_millis(1);
                if call % 2 == 0 {
                    drop(timeout(patience, store.claimable(&made_up)).await);
                } else {
                    let list = store.list_for_user(USER, PageRequest::new());
                    drop(timeout(patience, list).await);
                }
            }
        });
    }
    let (mut lookups, since) = (0, Instant::now());
    while !strangers.is_empty() {
        store.invalidate_all();
        assert_eq!(outcome(&store.verify(token).await), "good");
        lookups += 1;
        while strangers.try_join_next().is_some() {}
    }
    let connects = sessions(&operator).await - before;
    println!(
        "{connects} connects, {lookups} cold lookups in {:?}",
        since.elapsed()
    );
    // Those of the store and of the operator, and no more of them for each caller who leaves.
    assert!(connects <= 40, "{connects} connects");
    assert!(lookups >= 10, "{lookups} cold lookups");
}

/// How many connections there have been.
async fn sessions(operator: &PgPool) -> i64 {
    // What a session did is counted when it ends, and its beginning at once.
    let statement = "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'";
    query_scalar(statement).fetch_one(operator).await.unwrap()
}
