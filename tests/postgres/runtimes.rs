//! A store that outlives the runtime it was made in.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};
use tower_api_key::{ApiKeyStore, CacheConfig, PostgresBackend, sqlx::query_scalar};

use crate::{
    node::Node,
    support::{id_of, outcome, postgres::Server},
};

const CONNECTIONS: u32 = 2;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Calls that each need a connection, and several at once.
async fn calls_succeed(store: &ApiKeyStore, token: &str) {
    let lookup = || async { outcome(&store.verify_fresh(token).await) };
    let id = id_of(token);
    for _ in 0..3 {
        assert_eq!(
            tokio::join!(lookup(), lookup(), lookup()),
            ("good", "good", "good")
        );
        assert!(store.get(&id).await.unwrap().is_some());
    }
}

/// Makes a store in one runtime, and uses it in others.
fn a_store_works_in_a_second_runtime(store: &'static OnceLock<ApiKeyStore>, first_ends: bool) {
    let Some(server) = Server::start() else {
        return;
    };
    let first = runtime();
    let token = first.block_on(async {
        let builder = PostgresBackend::builder().max_connections(CONNECTIONS);
        let backend = builder.connect(&server.url()).await.unwrap();
        let node = Node::on(backend, CacheConfig::new()).await;
        let token = node.token().await;
        let store = store.get_or_init(|| node.store);
        calls_succeed(store, &token).await;
        token
    });
    let store = store.get().unwrap();
    let mut kept = Some(first);
    if first_ends {
        kept = None;
    }
    for _ in 0..3 {
        let next = runtime();
        next.block_on(calls_succeed(store, &token));
        next.block_on(async {
            let count =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tower-api-key'";
            let mut connection = server.connection().await;
            let count: i64 = query_scalar(count)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            // The server may not have noticed yet that the others are closed.
            assert!(count <= 2 * i64::from(CONNECTIONS), "{count}");
        });
    }
    if let Some(first) = kept {
        first.block_on(calls_succeed(store, &token));
    }
}

#[test]
fn g3_a_store_works_after_its_first_runtime_has_ended() {
    static STORE: OnceLock<ApiKeyStore> = OnceLock::new();
    a_store_works_in_a_second_runtime(&STORE, true);
}

#[test]
fn g3_a_store_works_while_its_first_runtime_stands_still() {
    static STORE: OnceLock<ApiKeyStore> = OnceLock::new();
    a_store_works_in_a_second_runtime(&STORE, false);
}
