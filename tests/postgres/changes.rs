//! A change reaches every node, whoever makes it.

use std::time::Duration;

use tower_api_key::{ApiKeyBackend, CacheConfig, KeySource, LeakReport, RevocationReason};

use crate::{
    node::{Node, eventually, where_id},
    support::{id_of, postgres::Server, with_wrong_secret},
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
async fn g2_what_is_reported_as_leaked_on_one_node_is_refused_on_another() {
    let Some(server) = Server::start() else {
        return;
    };
    let (one, other) = (patient(&server).await, patient(&server).await);
    let (leaked, good) = (one.token().await, one.token().await);
    other.cache(&leaked).await;
    other.cache(&good).await;
    let tokens = [with_wrong_secret(&good), leaked.clone()];
    let reports = one.store.report_leaked(&tokens).await.unwrap();
    let ids: Vec<_> = reports.iter().map(LeakReport::key_id).collect();
    assert_eq!(ids, [None, Some(&id_of(&leaked))]);
    let took = other.becomes(&leaked, "revoked").await;
    assert!(took < SOON, "{took:?}");
    for node in [&one, &other] {
        assert_eq!(node.verify(&good).await, "good");
        let key = node.store.get(&id_of(&leaked)).await.unwrap().unwrap();
        assert_eq!(key.revocation_reason, Some(RevocationReason::Leaked));
    }
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

/// What the triggers would miss is noticed by what has become of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_change_that_nothing_logs_is_believed_for_no_longer_than_others() {
    for (before, change) in [
        (
            "",
            "ALTER TABLE tower_api_keys DISABLE TRIGGER USER; CHANGE",
        ),
        (
            "",
            "DROP TRIGGER tower_api_key_updated ON tower_api_keys; CHANGE",
        ),
        (
            "",
            "BEGIN; ALTER TABLE tower_api_keys DISABLE TRIGGER USER; CHANGE;
            ALTER TABLE tower_api_keys ENABLE TRIGGER USER; ALTER TABLE tower_api_keys
            ENABLE REPLICA TRIGGER tower_api_key_replicated; COMMIT",
        ),
        (
            "",
            "BEGIN; CREATE TABLE new (LIKE tower_api_keys INCLUDING ALL);
            INSERT INTO new SELECT * FROM tower_api_keys; ALTER TABLE tower_api_keys RENAME TO old;
            ALTER TABLE new RENAME TO tower_api_keys; COMMIT; CHANGE",
        ),
        (
            "CREATE TABLE parent (LIKE tower_api_keys INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
            "ALTER TABLE tower_api_keys INHERIT parent; UPDATE parent SET revoked_at = now()",
        ),
    ] {
        let Some(server) = Server::start() else {
            return;
        };
        // Long enough for nothing else to end the key.
        let cache = CacheConfig::new().time_to_live(Duration::from_secs(600));
        let node = Node::at(&server.url(), cache).await;
        let token = node.token().await;
        if !before.is_empty() {
            server.psql(before).await;
        }
        node.cache(&token).await;
        let revoke = "UPDATE tower_api_keys SET revoked_at = now()";
        server.psql(&change.replace("CHANGE", revoke)).await;
        // The lease ends, or the next read of the log finds other triggers than before.
        let took = node.becomes(&token, "revoked").await;
        assert!(took < Duration::from_secs(6), "{change}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_what_replication_applies_is_told_on_the_subscriber() {
    let settings = &["wal_level=logical"];
    let (Some(publisher), Some(subscriber)) =
        (Server::start_with(settings), Server::start_with(settings))
    else {
        return;
    };
    let (one, other) = (patient(&publisher).await, patient(&subscriber).await);
    publisher
        .psql("CREATE PUBLICATION keys FOR TABLE tower_api_keys")
        .await;
    let connection = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres",
        publisher.port()
    );
    subscriber
        .psql(&format!(
            "CREATE SUBSCRIPTION keys CONNECTION '{connection}' PUBLICATION keys"
        ))
        .await;
    let token = one.token().await;
    other.becomes(&token, "good").await;
    assert!(one.store.revoke_token(&token).await.unwrap());
    other.becomes(&token, "revoked").await;
    let token = one.token().await;
    other.becomes(&token, "good").await;
    other.until_hit(&token).await;
    assert!(one.store.revoke_token(&token).await.unwrap());
    let took = other.becomes(&token, "revoked").await;
    assert!(took < SOON, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_by_hand_is_not_taken_back_by_who_has_read_the_key_before() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::connect(&server).await;
    for change in [
        "SET session_replication_role = replica; UPDATE tower_api_keys SET revoked_at = now() WHERE PLACE",
        "BEGIN; CREATE TEMP TABLE moved AS SELECT * FROM tower_api_keys WHERE PLACE;
        UPDATE moved SET revoked_at = now(); DELETE FROM tower_api_keys WHERE PLACE;
        INSERT INTO tower_api_keys SELECT * FROM moved; COMMIT",
    ] {
        let token = node.token().await;
        let place = id_of(&token).lookup_key();
        let mut read = node.backend.get_many(&[place]).await.unwrap().remove(0);
        server
            .psql(&change.replace("PLACE", &where_id(&token)))
            .await;
        read.name = Some("renamed".to_owned());
        read.version += 1;
        let _ = node.backend.update(&read, read.version - 1).await.unwrap();
        assert_eq!(node.verify_fresh(&token).await, "revoked", "{change}");
    }
}
