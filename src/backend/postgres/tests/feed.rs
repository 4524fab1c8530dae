//! Reading the log of changes, and deleting what is old.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{
    super::{Feed, PostgresBackend},
    server::Server,
};
use crate::{
    backend::{Change, ChangeFeed as _},
    token::KeyId,
};

async fn run(connection: &mut PgConnection, statements: &str) {
    let run = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
    run.execute(connection).await.unwrap();
}

async fn number(connection: &mut PgConnection, statement: &str) -> i64 {
    let row = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    let row = row.fetch_one(connection).await.unwrap();
    row.get(0)
}

async fn backend(server: &Server) -> PostgresBackend {
    PostgresBackend::connect(&server.url()).await.unwrap()
}

fn change(number: u8) -> Change {
    Change::Key(KeyId::from_bytes([number; KeyId::LEN]).lookup_key())
}

/// Logs changes of the key `number`, each in a transaction of its own.
fn changes(number: u8, count: usize) -> String {
    format!(
        "DO $$ BEGIN FOR i IN 1..{count} LOOP
            INSERT INTO tower_api_key_changes (id) VALUES (decode(repeat('{number:02x}', 24), 'hex'));
            COMMIT;
        END LOOP; END $$"
    )
}

/// The rows of the log that a read would touch now, whether it needs them or not.
async fn touched(connection: &mut PgConnection, feed: &Feed) -> i64 {
    let read = feed.shared.statements.read.replace("$2", "10001");
    let read = read.replace("$1", &format!("'{}'", feed.snapshot));
    let count = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
        WHERE relname = 'tower_api_key_changes'";
    run(connection, "BEGIN").await;
    let before = number(connection, count).await;
    run(connection, &read).await;
    let after = number(connection, count).await;
    run(connection, "COMMIT").await;
    after - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_makes_no_read_go_over_what_was_read() {
    const MANY: usize = 5_000;
    let Some(server) = Server::start() else {
        return;
    };
    let backend = backend(&server).await;
    let mut feed = Feed::start(backend.0.clone()).await.unwrap();
    let mut open = server.connection().await;
    run(
        &mut open,
        "BEGIN; INSERT INTO tower_api_key_changes (id) VALUES (decode(repeat('07', 24), 'hex'))",
    )
    .await;
    let mut connection = server.connection().await;
    run(&mut connection, &changes(1, MANY)).await;
    assert_eq!(feed.read().await.unwrap(), vec![change(1); MANY]);
    // A table that is analyzed, and one that isn't.
    for analyze in ["", "ANALYZE tower_api_key_changes"] {
        run(&mut connection, analyze).await;
        run(&mut connection, &changes(2, 3)).await;
        let touched = touched(&mut connection, &feed).await;
        assert!((3..50).contains(&touched), "{touched}");
        assert_eq!(feed.read().await.unwrap(), [change(2); 3]);
    }
    run(&mut open, "COMMIT").await;
    run(&mut connection, &changes(3, 1)).await;
    let read = feed.read().await.unwrap();
    assert!(
        read.contains(&change(7)) && read.contains(&change(3)),
        "{read:?}"
    );
    assert_eq!(read.len(), 2);
    assert_eq!(feed.read().await.unwrap(), []);
}

/// The transaction whose change was deleted is the first that the read before couldn't see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_read_just_behind_what_was_pruned_forgets_everything() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = backend(&server).await;
    let mut feed = Feed::start(backend.0.clone()).await.unwrap();
    let mut connection = server.connection().await;
    for _ in 0..3 {
        assert_eq!(feed.read().await.unwrap(), []);
        run(
            &mut connection,
            "UPDATE tower_api_key_schema SET pruned = pg_current_xact_id()",
        )
        .await;
        let is_next = format!(
            "SELECT (pruned = pg_snapshot_xmin('{}'))::int::int8 FROM tower_api_key_schema",
            feed.snapshot
        );
        assert_eq!(number(&mut connection, &is_next).await, 1);
        assert_eq!(feed.read().await.unwrap(), [Change::Everything]);
    }
    assert_eq!(feed.read().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_goes_on_pruning_until_little_is_left() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = backend(&server).await;
    let mut feed = Feed::start(backend.0.clone()).await.unwrap();
    let mut connection = server.connection().await;
    let old = "INSERT INTO tower_api_key_changes (id, at)
        SELECT NULL, now() - interval '2 hours' FROM generate_series(1, 22222)";
    run(&mut connection, old).await;
    run(
        &mut connection,
        "INSERT INTO tower_api_key_changes (id) VALUES (NULL)",
    )
    .await;
    let announce = format!("NOTIFY {}", backend.0.channel);
    for left in [17_223, 12_223, 7_223, 2_223, 1, 1] {
        feed.read().await.unwrap();
        // It waits until something is announced.
        run(&mut connection, &announce).await;
        feed.wait().await;
        let count = "SELECT count(*) FROM tower_api_key_changes";
        assert_eq!(number(&mut connection, count).await, left);
    }
}
