//! The password of the database's role changes while the service runs.

use std::{
    fs,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_api_key::{
    CacheConfig, OpenError, PostgresBackend,
    sqlx::{
        ConnectOptions as _,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};

use crate::{
    node::{Node, eventually},
    setup::texts,
    support::postgres::Server,
};

/// A server on which the role `app` needs a password, which is "first".
async fn start() -> Option<Server> {
    let server = Server::start()?;
    server
        .psql(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'first';
            GRANT CREATE ON SCHEMA public TO app",
        )
        .await;
    let rules = "host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    fs::write(server.data().join("pg_hba.conf"), rules).unwrap();
    server.psql("SELECT pg_reload_conf()").await;
    eventually("a password is needed", async || {
        let wrong = options(&server, "wrong");
        wrong.connect().await.is_err()
    })
    .await;
    Some(server)
}

fn options(server: &Server, password: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port())
        .username("app")
        .password(password)
        .database("postgres")
}

/// A node whose cached keys stay valid as long as this test takes, while the feed works.
async fn node(backend: PostgresBackend) -> Node {
    let cache = CacheConfig::new().max_staleness(Duration::from_secs(60));
    Node::on(backend, cache).await
}

/// Changes the password, then lets `node` use the new one.
async fn works_again(server: &Server, node: &Node, use_new: impl FnOnce()) {
    let token = node.token().await;
    node.cache(&token).await;
    let lost = node.store.cache_stats().lost_feeds;
    server
        .psql(
            "SET password_encryption = 'scram-sha-256'; ALTER ROLE app PASSWORD 'second';
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'",
        )
        .await;
    eventually("the feed is lost", async || {
        node.store.cache_stats().lost_feeds > lost
    })
    .await;
    for _ in 0..10 {
        assert_eq!(node.verify_fresh(&token).await, "unavailable");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    use_new();
    eventually("lookups work", async || {
        node.verify_fresh(&token).await == "good"
    })
    .await;
    node.cache(&token).await;
    server
        .psql("UPDATE tower_api_keys SET revoked_at = now()")
        .await;
    let took = node.becomes(&token, "revoked").await;
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_a_running_backend_takes_new_options() {
    let Some(server) = start().await else {
        return;
    };
    let builder = PostgresBackend::builder();
    let backend = builder.connect_with(options(&server, "first"));
    let node = node(backend.await.unwrap()).await;
    let new = options(&server, "second");
    works_again(&server, &node, || node.backend.set_connect_options(new)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_a_running_backend_over_a_pool_takes_new_options() {
    let Some(server) = start().await else {
        return;
    };
    let pool = PgPoolOptions::new().max_connections(4);
    let pool = pool.connect_lazy_with(options(&server, "first"));
    let node = node(PostgresBackend::new(pool.clone()).await.unwrap()).await;
    let new = options(&server, "second");
    works_again(&server, &node, || node.backend.set_connect_options(new)).await;
    // The service's own statements use them also.
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(pool.acquire().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_each_new_connection_fetches_the_password() {
    let Some(server) = start().await else {
        return;
    };
    let password = Arc::new(Mutex::new("first".to_owned()));
    let fetched = password.clone();
    let builder = PostgresBackend::builder().password_from(move || {
        let password = fetched.lock().unwrap().clone();
        async { Ok::<String, std::io::Error>(password) }
    });
    // The password in the options is not used.
    let backend = builder.connect_with(options(&server, "wrong"));
    let node = node(backend.await.unwrap()).await;
    assert!(!format!("{:?}", node.backend).contains("first"));
    works_again(&server, &node, || {
        *password.lock().unwrap() = "second".to_owned();
    })
    .await;
}

#[tokio::test]
async fn g13_a_password_that_cannot_be_fetched_is_an_outage() {
    let Some(server) = start().await else {
        return;
    };
    let options = options(&server, "first");
    let failing = PostgresBackend::builder()
        .password_from(|| async { Err::<String, _>("the vault is sealed") });
    let error = failing.connect_with(options.clone()).await.unwrap_err();
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
    assert!(texts(&error).contains("the vault is sealed"), "{error:?}");
    let slow = PostgresBackend::builder()
        .acquire_timeout(Duration::from_millis(50))
        .password_from(pending::<Result<String, std::io::Error>>);
    let error = slow.connect_with(options.clone()).await.unwrap_err();
    assert!(texts(&error).contains("password_from"), "{error:?}");
    let over = PostgresBackend::builder().password_from(pending::<Result<String, std::io::Error>>);
    let pool = PgPoolOptions::new().connect_lazy_with(options);
    let error = over.over(pool).await.unwrap_err();
    assert!(matches!(error, OpenError::Setting { .. }), "{error:?}");
}
