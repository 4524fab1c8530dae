//! A server that only follows another one says what was, and is not believed.

use std::{fs, time::Duration};

use tower_api_key::{
    ApiKeyBackend, CacheConfig, KeySource, OpenError, PageRequest, PostgresBackend,
};

use crate::{
    node::Node,
    support::{USER, id_of, postgres::Server},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_standby_is_not_asked_and_its_silence_is_no_proof() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::at(
        &server.url(),
        CacheConfig::new().max_staleness(Duration::from_secs(1)),
    )
    .await;
    let token = node.token().await;
    node.cache(&token).await;

    // It goes on as a standby that was left behind.
    server.stop();
    fs::write(server.data().join("standby.signal"), "").unwrap();
    server.start_again();
    node.becomes(&token, "unavailable").await;
    let read = node.backend.get_many(&[id_of(&token).lookup_key()]).await;
    assert!(read.is_err_and(|error| !error.is_corrupt()));
    let unknown = tower_api_key::KeyId::from_bytes([1; 24]).lookup_key();
    assert!(node.backend.get_many(&[unknown]).await.is_err());
    let list = node.backend.list_for_user(USER, &PageRequest::new()).await;
    assert!(list.is_err());
    assert!(node.store.revoke_token(&token).await.is_err());
    assert!(node.store.cache_stats().lost_feeds > 0);
    let refused = PostgresBackend::connect(&server.url()).await;
    assert!(matches!(refused, Err(OpenError::Unavailable(_))));

    // And takes over.
    server.psql("SELECT pg_promote()").await;
    node.becomes(&token, "good").await;
    node.cache(&token).await;
    server
        .psql("UPDATE tower_api_keys SET revoked_at = now()")
        .await;
    node.becomes(&token, "revoked").await;
}
