//! The log of changes: in whatever order transactions commit, however far it was pruned.

use std::time::Duration;

use tower_api_key::{
    CacheConfig,
    sqlx::{AssertSqlSafe, Connection, PgConnection, query_scalar, raw_sql},
};

use crate::{
    node::{Node, eventually, where_id},
    support::postgres::Server,
};

/// So that nothing that is cached ends by itself.
fn long_lived() -> CacheConfig {
    CacheConfig::new()
        .time_to_live(Duration::from_secs(3_600))
        .unknown_time_to_live(Duration::from_secs(60))
}

async fn run(connection: &mut PgConnection, statements: String) {
    raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .unwrap();
}

async fn count(connection: &mut PgConnection, statement: &str) -> i64 {
    let statement = AssertSqlSafe(statement.to_owned());
    query_scalar(statement).fetch_one(connection).await.unwrap()
}

/// A change that leaves nothing in the log, so that only what a test does afterwards can tell of it.
fn silently(change: &str) -> String {
    format!(
        "BEGIN; {change};
        DELETE FROM tower_api_key_changes WHERE xid = pg_current_xact_id(); COMMIT"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_transactions_that_commit_in_another_order_than_they_began_are_all_told() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::at(&server.url(), long_lived()).await;
    let mut early = server.connection().await;
    let mut late = server.connection().await;
    for round in 0..20 {
        let (first, second) = (node.token().await, node.token().await);
        node.cache(&first).await;
        node.cache(&second).await;
        let revoke = |token| {
            let place = where_id(token);
            format!("BEGIN; UPDATE tower_api_keys SET revoked_at = now() WHERE {place}")
        };
        // The first change is in the log before the second one, and can be seen after it.
        run(&mut early, revoke(&first)).await;
        run(&mut late, revoke(&second)).await;
        run(&mut late, "COMMIT".to_owned()).await;
        node.becomes(&second, "revoked").await;
        assert_eq!(node.verify(&first).await, "good");
        if round % 2 == 0 {
            // And others that come after both.
            let between = node.token().await;
            node.cache(&between).await;
            node.store.revoke_token(&between).await.unwrap();
        }
        run(&mut early, "COMMIT".to_owned()).await;
        node.becomes(&first, "revoked").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_announced_is_found_all_the_same() {
    let Some(server) = Server::start() else {
        return;
    };
    let cache = long_lived().max_staleness(Duration::from_secs(20));
    let node = Node::at(&server.url(), cache).await;
    let token = node.token().await;
    node.cache(&token).await;
    let place = where_id(&token);
    // As where the queue of notifications is too full for one.
    server
        .psql(&format!(
            "{}; INSERT INTO tower_api_key_changes (id) SELECT id FROM tower_api_keys",
            silently(&format!(
                "UPDATE tower_api_keys SET revoked_at = now() WHERE {place}"
            ))
        ))
        .await;
    let took = node.becomes(&token, "revoked").await;
    // Soon after a heartbeat, and long before the key is believed no longer.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_changes_thousands_logs_one_row_that_stands_for_all() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::at(&server.url(), long_lived()).await;
    let token = node.token().await;
    let mut connection = server.connection().await;
    let rows = "SELECT count(*) FROM tower_api_key_changes";
    let fill = |count| {
        format!(
            "TRUNCATE tower_api_key_changes;
            INSERT INTO tower_api_keys (id, user_id, display_prefix, pepper, secret_hash)
            SELECT decode(rpad(md5(n::text || '{count}'), 48, '0'), 'hex'), 'bulk',
                repeat('x', 16), 'v1', repeat('ab', 32) FROM generate_series(1, {count}) AS n"
        )
    };
    run(&mut connection, fill(1_000)).await;
    assert_eq!(count(&mut connection, rows).await, 1_000);
    run(&mut connection, fill(1_001)).await;
    assert_eq!(count(&mut connection, rows).await, 1);
    node.cache(&token).await;
    run(
        &mut connection,
        "UPDATE tower_api_keys SET disabled_at = now()".to_owned(),
    )
    .await;
    let all = "SELECT count(*) FROM tower_api_key_changes WHERE id IS NULL";
    assert_eq!(count(&mut connection, all).await, 2);
    node.becomes(&token, "disabled").await;
    run(
        &mut connection,
        "UPDATE tower_api_keys SET disabled_at = NULL".to_owned(),
    )
    .await;
    node.becomes(&token, "good").await;
    node.cache(&token).await;
    // As many changes as one doesn't want to go through, in many statements.
    run(
        &mut connection,
        silently("UPDATE tower_api_keys SET revoked_at = now()")
            + "; INSERT INTO tower_api_key_changes (id)
                SELECT decode(repeat('00', 24), 'hex') FROM generate_series(1, 20000)",
    )
    .await;
    node.becomes(&token, "revoked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_changes_are_deleted_and_who_may_have_missed_them_forgets_everything() {
    let Some(server) = Server::start() else {
        return;
    };
    let first = Node::connect(&server).await;
    let mut connection = server.connection().await;
    let insert = "INSERT INTO tower_api_key_changes (id, at)
        SELECT NULL, clock_timestamp() - make_interval(mins => n) FROM generate_series(50, 69) AS n";
    run(&mut connection, insert.to_owned()).await;
    // A feed begins with it.
    let token = first.token().await;
    first.cache(&token).await;
    let old = "SELECT count(*) FROM tower_api_key_changes WHERE at < now() - interval '1 hour'";
    for (statement, wanted) in [(old, 0), ("SELECT count(*) FROM tower_api_key_changes", 10)] {
        eventually(statement, async || {
            count(&mut server.connection().await, statement).await >= wanted
                && count(&mut server.connection().await, old).await == 0
        })
        .await;
    }
    let noted = "SELECT count(*) FROM tower_api_key_schema WHERE pruned > '0'
        AND pruned < pg_snapshot_xmin(pg_current_snapshot())";
    assert_eq!(count(&mut connection, noted).await, 1);

    // A node that reads on is not bothered by it.
    let node = Node::at(&server.url(), long_lived()).await;
    node.cache(&token).await;
    let place = where_id(&token);
    let change = silently(&format!(
        "UPDATE tower_api_keys SET revoked_at = now() WHERE {place}"
    ));
    run(&mut connection, change).await;
    assert_eq!(node.verify(&token).await, "good");
    // One whose last reading lies before what was deleted can't know.
    let pruned = "UPDATE tower_api_key_schema SET pruned = pg_current_xact_id()";
    run(&mut connection, pruned.to_owned()).await;
    node.becomes(&token, "revoked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_marks_that_were_copied_from_another_server_do_no_harm() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::at(&server.url(), long_lived()).await;
    let mut connection = server.connection().await;
    run(
        &mut connection,
        "UPDATE tower_api_key_schema SET pruned = '99999999999';
        INSERT INTO tower_api_key_changes (id, xid, at)
        SELECT NULL, '99999999999', now() - make_interval(hours => n % 3)
        FROM generate_series(1, 12) AS n"
            .to_owned(),
    )
    .await;
    let token = node.token().await;
    node.cache(&token).await;
    let foreign = "SELECT count(*) FROM tower_api_key_changes WHERE xid > '9999999999'";
    eventually("the old ones are deleted", async || {
        count(&mut server.connection().await, foreign).await == 4
    })
    .await;
    node.cache(&token).await;
    // Nothing is forgotten at each reading, of which there are several where others are told of.
    for _ in 0..5 {
        node.cache(&node.token().await).await;
        let misses = node.store.cache_stats().misses;
        assert_eq!(node.verify(&token).await, "good");
        assert_eq!(node.store.cache_stats().misses, misses);
    }
    let other = node.token().await;
    node.cache(&other).await;
    server
        .psql("UPDATE tower_api_keys SET revoked_at = now()")
        .await;
    node.becomes(&other, "revoked").await;
    connection.close().await.unwrap();
}
