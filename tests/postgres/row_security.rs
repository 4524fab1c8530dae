//! Row-level security: rows that are hidden from the role are never taken for rows that aren't there.

use std::time::Duration;

use tower_api_key::{
    ApiKeyBackend, CacheConfig, OpenError, PostgresBackend, StoreError, sqlx::PgPool,
};

use crate::{
    node::{Node, eventually, where_id},
    setup::{texts, url_as},
    support::{USER, id_of, postgres::Server},
};

const TABLES: [&str; 5] = [
    "tower_api_keys",
    "tower_api_key_grants",
    "tower_api_key_peppers",
    "tower_api_key_changes",
    "tower_api_key_schema",
];
const STALENESS: Duration = Duration::from_secs(1);

/// What an operator, or a hosting platform, may have done to a table.
const POLICIES: [(&str, &str); 4] = [
    ("no policy", "ENABLE ROW LEVEL SECURITY"),
    (
        "revoked keys are hidden",
        "ENABLE ROW LEVEL SECURITY; CREATE POLICY reads ON tower_api_keys FOR SELECT
            USING (revoked_at IS NULL); CREATE POLICY writes ON tower_api_keys USING (true)",
    ),
    (
        "keys can be read and not changed",
        "ENABLE ROW LEVEL SECURITY; CREATE POLICY reads ON tower_api_keys FOR SELECT USING (true)",
    ),
    (
        "some keys are hidden",
        "ENABLE ROW LEVEL SECURITY; CREATE POLICY halves ON tower_api_keys
            USING (get_byte(id, 0) < 128) WITH CHECK (true)",
    ),
];
const NO_POLICIES: &str = "ALTER TABLE tower_api_keys DISABLE ROW LEVEL SECURITY;
    ALTER TABLE tower_api_keys NO FORCE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS reads ON tower_api_keys; DROP POLICY IF EXISTS writes ON tower_api_keys;
    DROP POLICY IF EXISTS halves ON tower_api_keys";

/// A server, and the URL of a role that may do everything with the tables that it needs to.
async fn with_app(server: &Server) -> String {
    drop(Node::connect(server).await);
    let tables = TABLES.join(", ");
    let grant =
        format!("CREATE ROLE app LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO app");
    server.psql(&grant).await;
    url_as(server, "app")
}

async fn open(url: &str, is_pooled: bool) -> Result<PostgresBackend, OpenError> {
    if is_pooled {
        PostgresBackend::new(PgPool::connect_lazy(url).unwrap()).await
    } else {
        PostgresBackend::connect(url).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_a_table_that_hides_rows_from_the_role_is_refused_at_start() {
    let Some(server) = Server::start() else {
        return;
    };
    let app = with_app(&server).await;
    for table in TABLES {
        let alter = |what: &str| format!("ALTER TABLE {table} {what} ROW LEVEL SECURITY");
        server.psql(&alter("ENABLE")).await;
        for is_pooled in [false, true] {
            let error = open(&app, is_pooled).await.unwrap_err();
            assert!(matches!(error, OpenError::Denied { .. }), "{error:?}");
            let text = texts(&error);
            assert!(
                text.contains(table) && text.contains("row-level security"),
                "{text}"
            );
        }
        // Its owner, a superuser here, sees all rows.
        PostgresBackend::connect(&server.url()).await.unwrap();
        server.psql(&alter("DISABLE")).await;
    }
    open(&app, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_an_owner_is_refused_only_where_the_policies_are_forced() {
    let Some(server) = Server::start() else {
        return;
    };
    let app = with_app(&server).await;
    for table in TABLES {
        server
            .psql(&format!("ALTER TABLE {table} OWNER TO app"))
            .await;
    }
    server
        .psql("ALTER TABLE tower_api_keys ENABLE ROW LEVEL SECURITY")
        .await;
    for is_pooled in [false, true] {
        let node = Node::on(open(&app, is_pooled).await.unwrap(), CacheConfig::new()).await;
        let token = node.token().await;
        assert_eq!(node.verify(&token).await, "good");
        assert!(node.store.revoke_token(&token).await.unwrap());
    }
    server
        .psql("ALTER TABLE tower_api_keys FORCE ROW LEVEL SECURITY")
        .await;
    for is_pooled in [false, true] {
        let error = open(&app, is_pooled).await.unwrap_err();
        assert!(texts(&error).contains("row-level security"), "{error:?}");
    }
    server.psql("ALTER ROLE app BYPASSRLS").await;
    for is_pooled in [false, true] {
        open(&app, is_pooled).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_rows_hidden_from_a_running_instance_are_an_outage() {
    let Some(server) = Server::start() else {
        return;
    };
    let app = with_app(&server).await;
    for is_pooled in [false, true] {
        let cache = CacheConfig::new().max_staleness(STALENESS);
        let node = Node::on(open(&app, is_pooled).await.unwrap(), cache).await;
        for (what, policies) in POLICIES {
            let (token, other) = (node.token().await, node.token().await);
            node.cache(&token).await;
            server
                .psql(&format!("ALTER TABLE tower_api_keys {policies}"))
                .await;
            assert_eq!(node.verify(&other).await, "unavailable", "{what}");
            assert_eq!(node.verify_fresh(&token).await, "unavailable", "{what}");
            let took = node.becomes(&token, "unavailable").await;
            // The bound, and what a request waits for a busy machine.
            assert!(took <= 2 * STALENESS, "{what}: {took:?}");
            nothing_is_answered(&node, &token, what).await;
            server.psql(NO_POLICIES).await;
            eventually("the key works again", async || {
                node.verify(&token).await == "good" && node.verify(&other).await == "good"
            })
            .await;
        }
    }
}

/// No call answers as if the key weren't there.
async fn nothing_is_answered(node: &Node, token: &str, what: &str) {
    let (store, id) = (&node.store, id_of(token));
    let is_outage = |error: StoreError| matches!(error, StoreError::Unavailable(_));
    assert!(is_outage(store.revoke(&id).await.unwrap_err()), "{what}");
    assert!(
        is_outage(store.revoke_token(token).await.unwrap_err()),
        "{what}"
    );
    assert!(
        is_outage(store.revoke_all_for_user(USER).await.unwrap_err()),
        "{what}"
    );
    assert!(is_outage(store.disable(&id).await.unwrap_err()), "{what}");
    assert!(is_outage(store.delete(&id).await.unwrap_err()), "{what}");
    assert!(is_outage(store.get(&id).await.unwrap_err()), "{what}");
    assert!(is_outage(store.pepper_usage().await.unwrap_err()), "{what}");
    let listed = store
        .list_for_user(USER, tower_api_key::PageRequest::new())
        .await;
    assert!(is_outage(listed.unwrap_err()), "{what}");
    // Below the store, which has read the key before it writes.
    let backend = &node.backend;
    assert!(backend.delete(&id).await.is_err(), "{what}");
    let now = std::time::SystemTime::now();
    assert!(backend.revoke(&id, now, None).await.is_err(), "{what}");
    assert!(
        backend.revoke_for_user(USER, now, None, 10).await.is_err(),
        "{what}"
    );
}

/// The log tells nothing then. Each key is read instead, and all of its row is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_a_log_that_hides_changes_is_not_relied_on() {
    let Some(server) = Server::start() else {
        return;
    };
    let app = with_app(&server).await;
    for is_pooled in [false, true] {
        let cache = CacheConfig::new().max_staleness(STALENESS);
        let node = Node::on(open(&app, is_pooled).await.unwrap(), cache).await;
        let token = node.token().await;
        node.cache(&token).await;
        server
            .psql("ALTER TABLE tower_api_key_changes ENABLE ROW LEVEL SECURITY")
            .await;
        let revoke = format!(
            "UPDATE tower_api_keys SET revoked_at = now() WHERE {}",
            where_id(&token)
        );
        server.psql(&revoke).await;
        let took = node.becomes(&token, "revoked").await;
        assert!(took <= 2 * STALENESS, "{took:?}");
        server
            .psql("ALTER TABLE tower_api_key_changes DISABLE ROW LEVEL SECURITY")
            .await;
    }
}
