//! Setting it up: tables are made once, by whoever is first, and what can't work is said at once.

use std::time::Duration;

use tower_api_key::{
    CacheConfig, OpenError, PostgresBackend,
    sqlx::{postgres::PgPoolOptions, query_scalar},
};

use crate::{
    node::Node,
    support::{chain, postgres::Server},
};

pub(crate) fn url_as(server: &Server, role: &str) -> String {
    server
        .url()
        .replace("postgres@", &format!("{role}:a-password@"))
}

pub(crate) fn texts(error: &OpenError) -> String {
    let causes: Vec<_> = chain(error).map(ToString::to_string).collect();
    format!("{error:?} {error:#?} {}", causes.join(": "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_can_start_at_once() {
    let Some(server) = Server::start() else {
        return;
    };
    for round in 0..5 {
        let nodes: Vec<_> = (0..10)
            .map(|_| {
                let url = server.url();
                tokio::spawn(async move {
                    let builder = PostgresBackend::builder().schema(&format!("round_{round}"));
                    builder.max_connections(2).connect(&url).await
                })
            })
            .collect();
        for node in nodes {
            node.await.unwrap().unwrap();
        }
    }
    let mut connection = server.connection().await;
    let versions = query_scalar("SELECT array_agg(version) FROM round_0.tower_api_key_schema");
    let versions: Vec<i64> = versions.fetch_one(&mut connection).await.unwrap();
    assert_eq!(versions, [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_can_start_at_once_in_a_schema_that_is_missing() {
    let Some(server) = Server::start() else {
        return;
    };
    for round in 0..20 {
        let nodes = ["a_", "b_"].map(|prefix| {
            let url = server.url();
            tokio::spawn(async move {
                let builder = PostgresBackend::builder().schema(&format!("round_{round}"));
                builder.table_prefix(prefix).connect(&url).await
            })
        });
        for node in nodes {
            node.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_and_prefixes_keep_keys_apart_in_one_database() {
    let Some(server) = Server::start() else {
        return;
    };
    let long = "x".repeat(32);
    let mut nodes = Vec::new();
    for (schema, prefix) in [
        ("public", "a_"),
        ("public", "b_"),
        ("user", "table"),
        (&long, &long),
    ] {
        let builder = PostgresBackend::builder()
            .schema(schema)
            .table_prefix(prefix);
        let backend = builder.over(server.pool()).await.unwrap();
        nodes.push(Node::on(backend, CacheConfig::new()).await);
    }
    let token = nodes[0].token().await;
    assert_eq!(nodes[0].verify(&token).await, "good");
    for node in &nodes[1..] {
        assert_eq!(node.verify(&token).await, "unknown");
        let own = node.token().await;
        node.cache(&own).await;
        node.store.revoke_token(&own).await.unwrap();
        assert_eq!(node.verify(&own).await, "revoked");
    }
}

#[tokio::test]
async fn g12_what_can_not_work_is_an_error_when_it_is_set_up() {
    let Some(server) = Server::start() else {
        return;
    };
    let identifiers = ["", "Keys", "a b", "a\"b", "a;b", "9a", "ü", &"x".repeat(33)];
    for text in identifiers {
        for builder in [
            PostgresBackend::builder().schema(text),
            PostgresBackend::builder().table_prefix(text),
        ] {
            let refused = builder.clone().connect(&server.url()).await;
            assert!(matches!(refused, Err(OpenError::Identifier(_))), "{text}");
            let refused = builder.over(server.pool()).await;
            assert!(matches!(refused, Err(OpenError::Identifier(_))), "{text}");
        }
    }
    for builder in [
        PostgresBackend::builder().max_connections(0),
        PostgresBackend::builder().acquire_timeout(Duration::ZERO),
        PostgresBackend::builder().statement_timeout(Duration::ZERO),
        PostgresBackend::builder().statement_timeout(Duration::MAX),
    ] {
        let refused = builder.connect(&server.url()).await;
        assert!(matches!(refused, Err(OpenError::Setting { .. })));
    }
}

#[tokio::test]
async fn tables_that_are_not_ours_are_left_alone() {
    let Some(server) = Server::start() else {
        return;
    };
    for (statements, word) in [
        ("CREATE TABLE tower_api_keys (id int)", "tower_api_keys"),
        ("CREATE VIEW tower_api_keys AS SELECT 1", "tower_api_keys"),
        (
            "CREATE TABLE tower_api_key_changes (id int)",
            "tower_api_key_changes",
        ),
        (
            "CREATE TABLE tower_api_key_grants (id int)",
            "tower_api_key_grants",
        ),
        (
            "CREATE TABLE tower_api_key_schema (id int)",
            "tower_api_key_schema",
        ),
        (
            "CREATE TABLE tower_api_key_schema (version text, pruned text);
            INSERT INTO tower_api_key_schema VALUES ('1', '')",
            "tower_api_key_schema",
        ),
        (
            "CREATE TABLE tower_api_key_schema (version bigint, pruned xid8)",
            "tower_api_key_schema",
        ),
        (
            "CREATE TABLE tower_api_key_schema (version bigint, pruned xid8);
            INSERT INTO tower_api_key_schema VALUES (1, '0')",
            "tower_api_keys",
        ),
    ] {
        server.psql(statements).await;
        let error = PostgresBackend::connect(&server.url()).await.unwrap_err();
        assert!(
            matches!(&error, OpenError::NotOurs(text) | OpenError::Damaged(text) if text.contains(word)),
            "{statements}: {error:?}"
        );
        server
            .psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            .await;
    }
    PostgresBackend::connect(&server.url()).await.unwrap();
    server
        .psql("UPDATE tower_api_key_schema SET version = 99")
        .await;
    let error = PostgresBackend::connect(&server.url()).await.unwrap_err();
    assert!(matches!(
        error,
        OpenError::NewerSchema {
            found: 99,
            known: 3,
            ..
        }
    ));
    server
        .psql(
            "UPDATE tower_api_key_schema SET version = 3;
            ALTER TABLE tower_api_keys DISABLE TRIGGER tower_api_key_updated",
        )
        .await;
    let error = PostgresBackend::connect(&server.url()).await.unwrap_err();
    assert!(texts(&error).contains("trigger"), "{error:?}");
    server
        .psql("ALTER TABLE tower_api_keys ENABLE ALWAYS TRIGGER tower_api_key_updated")
        .await;
    PostgresBackend::connect(&server.url()).await.unwrap();
    server.psql("DROP TABLE tower_api_key_grants").await;
    let error = PostgresBackend::connect(&server.url()).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged(text) if text.contains("tower_api_key_grants")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_the_right_to_make_tables_can_start_where_they_are() {
    let Some(server) = Server::start() else {
        return;
    };
    server
        .psql("CREATE ROLE app LOGIN; CREATE ROLE operator LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        .await;
    let denied = |error: OpenError, words: &str| {
        assert!(matches!(error, OpenError::Denied { .. }), "{error:?}");
        assert!(texts(&error).contains(words), "{error:?}");
    };
    let app = url_as(&server, "app");
    denied(PostgresBackend::connect(&app).await.unwrap_err(), "public");
    let elsewhere = PostgresBackend::builder().schema("keys");
    denied(
        elsewhere.connect(&app).await.unwrap_err(),
        "make the schema keys",
    );

    let owner = Node::connect(&server).await;
    denied(
        PostgresBackend::connect(&app).await.unwrap_err(),
        "tower_api_key_schema",
    );
    server
        .psql(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON tower_api_keys TO app;
            GRANT SELECT ON tower_api_key_changes, tower_api_key_schema TO app;
            GRANT SELECT, UPDATE ON tower_api_keys TO operator",
        )
        .await;
    // It would fail when it revokes all of a user.
    for lacking in ["INSERT, UPDATE, DELETE", "SELECT"] {
        let error = PostgresBackend::connect(&app).await.unwrap_err();
        denied(
            error,
            &format!("{lacking} on \"public\".\"tower_api_key_grants\""),
        );
        server
            .psql(&format!("GRANT {lacking} ON tower_api_key_grants TO app"))
            .await;
    }
    denied(
        PostgresBackend::connect(&app).await.unwrap_err(),
        "SELECT, INSERT on \"public\".\"tower_api_key_peppers\"",
    );
    server
        .psql("GRANT SELECT, INSERT ON tower_api_key_peppers TO app")
        .await;
    let node = Node::at(&app, CacheConfig::new()).await;
    let token = node.token().await;
    node.cache(&token).await;
    owner.cache(&token).await;
    // The operator can't write the log, and need not.
    let pool = PgPoolOptions::new()
        .connect_lazy(&url_as(&server, "operator"))
        .unwrap();
    tower_api_key::sqlx::query("UPDATE tower_api_keys SET revoked_at = now()")
        .execute(&pool)
        .await
        .unwrap();
    node.becomes(&token, "revoked").await;
    owner.becomes(&token, "revoked").await;
    server
        .psql("REVOKE SELECT ON tower_api_keys FROM app")
        .await;
    denied(
        PostgresBackend::connect(&app).await.unwrap_err(),
        "tower_api_keys",
    );
}

/// Grants are nothing to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_can_read_keys_and_their_log_verifies() {
    let Some(server) = Server::start() else {
        return;
    };
    let owner = Node::connect(&server).await;
    let token = owner.token().await;
    server
        .psql(
            "CREATE ROLE reader LOGIN;
            GRANT SELECT ON tower_api_keys, tower_api_key_changes, tower_api_key_schema TO reader",
        )
        .await;
    let node = Node::at(&url_as(&server, "reader"), CacheConfig::new()).await;
    assert_eq!(node.verify(&token).await, "good");
    owner.store.revoke_token(&token).await.unwrap();
    node.becomes(&token, "revoked").await;
}

#[tokio::test]
async fn g7_no_password_is_shown() {
    let secret = "hunter2-hunter2";
    let Some(server) = Server::start() else {
        return;
    };
    let good = server
        .url()
        .replace("postgres@", &format!("postgres:{secret}@"));
    let backend = PostgresBackend::connect(&good).await.unwrap();
    assert!(!format!("{backend:?} {backend:#?}").contains(secret));
    let port = server.port();
    for url in [
        format!("postgres://postgres:{secret}@127.0.0.1:{port}/nowhere"),
        format!("postgres://nobody:{secret}@127.0.0.1:{port}/postgres"),
        format!("postgres://postgres:{secret}@127.0.0.1:1/postgres"),
        format!("postgres://postgres:{secret}@127.0.0.1:99999/postgres"),
        format!("postgres://postgres:{secret}@no.such.host.invalid/postgres"),
        format!("postgres://postgres:{secret}@127.0.0.1:{port}/postgres?sslmode=require"),
        format!("postgres://postgres:{secret}@127.0.0.1:{port}/postgres?sslmode={secret}x"),
        format!("postgres://postgres:{secret}%ff@127.0.0.1:{port}/postgres"),
        format!("postgres:{secret}"),
        secret.to_owned(),
    ] {
        let builder = PostgresBackend::builder();
        match builder.connect(&url).await {
            // The server trusts everybody.
            Ok(backend) => assert!(!format!("{backend:?}").contains(secret)),
            Err(error) => assert!(!texts(&error).contains(secret), "{error:?}"),
        }
    }
}
