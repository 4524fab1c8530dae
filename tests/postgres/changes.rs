//! A change reaches every node, whoever makes it.

use std::time::Duration;

use tower_api_key::CacheConfig;

use crate::{
    node::{Node, eventually, where_id},
    support::postgres::Server,
};

/// Below a heartbeat of these nodes: nothing but what was announced can be known by then.
const SOON: Duration = Duration::from_secs(5);

async fn patient(server: &Server) -> Node {
    let cache = CacheConfig::new().max_staleness(Duration::from_secs(60));
    Node::at(&server.url(), cache).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_revocation_on_one_node_reaches_another() {
    let Some(server) = Server::start() else {
        return;
    };
    let (one, other) = (patient(&server).await, patient(&server).await);
    let token = one.token().await;
    other.cache(&token).await;
    assert!(one.store.revoke_token(&token).await.unwrap());
    assert_eq!(one.verify(&token).await, "revoked");
    let took = other.becomes(&token, "revoked").await;
    assert!(took < SOON, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_what_an_operator_changes_in_psql_reaches_every_node() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = patient(&server).await;
    let changes = [
        ("UPDATE tower_api_keys SET revoked_at = now()", "revoked"),
        ("UPDATE tower_api_keys SET disabled_at = now()", "disabled"),
        ("UPDATE tower_api_keys SET expires_at = now()", "expired"),
        ("DELETE FROM tower_api_keys", "unknown"),
        (
            "UPDATE tower_api_keys SET id = decode(repeat('07', 24), 'hex')",
            "unknown",
        ),
        ("TRUNCATE tower_api_keys; --", "unknown"),
    ];
    for (statement, outcome) in changes {
        let token = node.token().await;
        node.cache(&token).await;
        server
            .psql(&format!("{statement} WHERE {}", where_id(&token)))
            .await;
        let took = node.becomes(&token, outcome).await;
        assert!(took < SOON, "{statement}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_load_in_flight_does_not_outlive_a_revocation_elsewhere() {
    let Some(server) = Server::start() else {
        return;
    };
    let one = Node::connect(&server).await;
    let other = Node::connect(&server).await;
    for _ in 0..50 {
        let token = one.token().await;
        let asked = other.store.clone();
        let loading = token.clone();
        let loads = tokio::spawn(async move {
            for _ in 0..20 {
                asked.invalidate_all();
                let _ = asked.verify(&loading).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(one.store.revoke_token(&token).await.unwrap());
        loads.await.unwrap();
        // What was cached by then is corrected, and stays so.
        other.becomes(&token, "revoked").await;
        assert_eq!(one.verify(&token).await, "revoked");
        assert_eq!(other.verify(&token).await, "revoked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_unknown_works_as_soon_as_it_is_there() {
    let Some(server) = Server::start() else {
        return;
    };
    let cache = CacheConfig::new().unknown_time_to_live(Duration::from_secs(60));
    let node = Node::at(&server.url(), cache).await;
    let token = node.token().await;
    for _ in 0..10 {
        let place = where_id(&token);
        server
            .psql(&format!(
                "CREATE TABLE away AS SELECT * FROM tower_api_keys;
                DELETE FROM tower_api_keys WHERE {place}"
            ))
            .await;
        node.becomes(&token, "unknown").await;
        eventually("it is remembered as unknown", async || {
            node.verify(&token).await == "unknown" && node.store.cache_stats().unknown_entries > 0
        })
        .await;
        server
            .psql("INSERT INTO tower_api_keys SELECT * FROM away; DROP TABLE away")
            .await;
        let took = node.becomes(&token, "good").await;
        assert!(took < SOON, "{took:?}");
    }
}
