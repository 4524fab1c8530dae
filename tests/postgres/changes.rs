//! A change reaches every node, whoever makes it.

use std::time::Duration;

use crate::{
    node::{Node, where_id},
    server::Server,
};

/// Far below what a cached key is believed for, and below a heartbeat of the default settings.
const SOON: Duration = Duration::from_millis(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_revocation_on_one_node_reaches_another() {
    let Some(server) = Server::start() else {
        return;
    };
    let (one, other) = (Node::connect(&server).await, Node::connect(&server).await);
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
    let node = Node::connect(&server).await;
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
