//! Under a clock that a test has paused.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tower_api_key::{CacheConfig, OpenError, PostgresBackend};

use crate::{node::Node, support::postgres::Server};

async fn works(backend: PostgresBackend) {
    let node = Node::on(backend, CacheConfig::new()).await;
    for _ in 0..20 {
        let token = node.token().await;
        assert_eq!(node.verify(&token).await, "good");
        assert_eq!(node.verify_fresh(&token).await, "good");
        node.store.revoke_token(&token).await.unwrap();
        assert_eq!(node.verify(&token).await, "revoked");
    }
}

#[tokio::test(start_paused = true)]
async fn own_connections_work_under_a_paused_clock() {
    let Some(server) = Server::start() else {
        return;
    };
    let start = Instant::now();
    let opened = timeout(
        Duration::from_secs(1),
        PostgresBackend::connect(&server.url()),
    )
    .await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    works(opened.unwrap().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_services_pool_works_under_a_paused_clock() {
    let Some(server) = Server::start() else {
        return;
    };
    works(PostgresBackend::new(server.pool()).await.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_an_error_under_a_paused_clock() {
    let port = crate::support::postgres::free_port();
    let url = crate::support::postgres::url(port);
    let error = PostgresBackend::connect(&url).await.unwrap_err();
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
}
