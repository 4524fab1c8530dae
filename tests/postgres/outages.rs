//! Connections that end, hang or fall silent: what is cached isn't believed for long, nobody is told
//! that a key is unknown, and nothing has to be done for it to work again.

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use http::{StatusCode, header::RETRY_AFTER};
use tower::ServiceExt;
use tower_api_key::{ApiKeyLayer, CacheConfig, PostgresBackend, sqlx::query_scalar};

use crate::{
    node::{Node, eventually},
    proxy::Proxy,
    support::{
        oneshot::{handler, request},
        postgres::Server,
    },
};

const MAX_STALENESS: Duration = Duration::from_secs(1);

fn quick() -> CacheConfig {
    CacheConfig::new()
        .max_staleness(MAX_STALENESS)
        .load_timeout(Duration::from_secs(1))
}

const LISTENERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tower-api-key-listen'";

async fn listeners(server: &Server) -> i64 {
    let mut connection = server.connection().await;
    query_scalar(LISTENERS)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

/// Verifies until the key is no longer called good; says when the last request began that was let in, and
/// that nothing but an outage was given as the reason.
async fn until_doubted(node: &Node, token: &str) -> Duration {
    let since = Instant::now();
    let mut last = Duration::ZERO;
    loop {
        let asked = since.elapsed();
        match node.verify(token).await {
            "good" => last = asked,
            "unavailable" => return last,
            other => panic!("{other}"),
        }
        assert!(since.elapsed() < MAX_STALENESS * 5);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_listening_session_that_is_ended_is_replaced_and_what_it_missed_is_found() {
    let Some(server) = Server::start() else {
        return;
    };
    // No key ends by itself while this test takes.
    let cache = CacheConfig::new().max_staleness(Duration::from_secs(60));
    let node = Node::at(&server.url(), cache).await;
    for round in 0..20 {
        let token = node.token().await;
        node.cache(&token).await;
        eventually("there is a listener", async || {
            listeners(&server).await == 1
        })
        .await;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM ({}) AS l;
            UPDATE tower_api_keys SET revoked_at = now()",
            LISTENERS.replace("count(*)", "pid")
        );
        server.psql(&end).await;
        let took = node.becomes(&token, "revoked").await;
        assert!(took < Duration::from_secs(10), "{round}: {took:?}");
    }
    assert!(node.store.cache_stats().lost_feeds >= 20);
    eventually("there is one listener", async || {
        listeners(&server).await == 1
    })
    .await;
    drop(node);
    eventually("there is none", async || listeners(&server).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_g3_a_server_that_stands_still_is_an_outage_and_then_goes_on() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::at(&server.url(), quick()).await;
    let app = Router::new()
        .route("/", get(handler))
        .layer(ApiKeyLayer::new(node.store.clone()));
    let token = node.token().await;
    for _ in 0..3 {
        node.cache(&token).await;
        server.pause();
        let took = until_doubted(&node, &token).await;
        assert!(took <= MAX_STALENESS, "{took:?}");
        for token in [&token, &crate::support::unknown_token()] {
            let answer = app
                .clone()
                .oneshot(request("GET", "/", Some(token)))
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers().contains_key(RETRY_AFTER));
        }
        assert!(node.store.revoke_token(&token).await.is_err());
        assert_eq!(node.verify(&token).await, "unavailable");
        server.resume();
        // The revocation may have been carried out: it was on its way.
        eventually("it is known again", async || {
            node.verify(&token).await != "unavailable"
        })
        .await;
        assert!(["good", "revoked"].contains(&node.verify(&token).await));
        server
            .psql("UPDATE tower_api_keys SET revoked_at = NULL")
            .await;
        node.becomes(&token, "good").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_half_open_listening_session_proves_nothing_and_its_socket_is_closed() {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.port()).await;
    let builder = PostgresBackend::builder().max_connections(2);
    let backend = builder.connect(&proxy.url()).await.unwrap();
    let node = Node::on(backend, quick()).await;
    for _ in 0..5 {
        let token = node.token().await;
        node.cache(&token).await;
        proxy.swallow(true);
        server
            .psql("UPDATE tower_api_keys SET revoked_at = now()")
            .await;
        let took = until_doubted(&node, &token).await;
        assert!(took <= MAX_STALENESS, "{took:?}");
        // New connections are swallowed, too.
        let lost = node.store.cache_stats().lost_feeds;
        eventually("it is tried again", async || {
            node.store.cache_stats().lost_feeds > lost + 1
        })
        .await;
        proxy.swallow(false);
        node.becomes(&token, "revoked").await;
    }
    // Two of the pool and one that listens: none of the dead ones was kept.
    eventually("dead sockets are closed", async || proxy.clients() <= 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_a_server_that_is_gone_and_comes_back_is_never_an_unknown_key() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::at(&server.url(), quick()).await;
    let token = node.token().await;
    let never_cached = node.token().await;
    for crash in [false, true, true] {
        node.cache(&token).await;
        if crash {
            server.stop_at_once();
        } else {
            server.stop();
        }
        let took = until_doubted(&node, &token).await;
        assert!(took <= MAX_STALENESS, "{took:?}");
        node.store.invalidate_all();
        assert_eq!(node.verify(&never_cached).await, "unavailable");
        server.start_again();
        node.becomes(&token, "good").await;
        node.becomes(&never_cached, "good").await;
    }
    server
        .psql("UPDATE tower_api_keys SET revoked_at = now()")
        .await;
    node.becomes(&token, "revoked").await;
}
