//! Steps from one schema to the next, on tables that the step before has made and filled.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use super::{
    super::{
        Feed, PostgresBackend,
        builder::PostgresBackendBuilder,
        names::Names,
        schema::{STEPS, prepare, prepare_within},
        session::Source,
    },
    server::Server,
};
use crate::{
    backend::{ApiKeyBackend as _, Change, ChangeFeed as _, KeySource as _, sql::OpenError},
    key::{ApiKey, Metadata},
    scope::Scopes,
    token::{KeyId, PepperCheck, PepperId, SecretHash},
};

const FIRST: &[&str] = STEPS.first_chunk::<1>().unwrap();

fn names() -> Names {
    Names::new("public", None).unwrap()
}

async fn run(connection: &mut PgConnection, statements: &str) {
    let run = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
    run.execute(connection).await.unwrap();
}

async fn all(connection: &mut PgConnection, statement: &str) -> Vec<String> {
    let rows = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    let rows = rows.fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// All of the records but what is new, and all of the log.
async fn content(connection: &mut PgConnection) -> Vec<String> {
    let keys =
        "SELECT concat_ws(' ', id, user_id, name, scopes, unrestricted, display_prefix, pepper,
        secret_hash, created_at, expires_at, last_used_at, revoked_at, disabled_at, version)
        FROM tower_api_keys ORDER BY id";
    let log = "SELECT concat_ws(' ', seq, xid, id, at) FROM tower_api_key_changes ORDER BY seq";
    [all(connection, keys).await, all(connection, log).await].concat()
}

/// Keys as the first version of this crate has written them, and their log.
async fn first_schema(server: &Server) -> PgConnection {
    old_schema(server, FIRST).await
}

/// The same after further steps.
async fn old_schema(server: &Server, steps: &[&str]) -> PgConnection {
    let mut connection = server.connection().await;
    prepare(&mut connection, &names(), steps, &[])
        .await
        .unwrap();
    run(
        &mut connection,
        "INSERT INTO tower_api_keys (id, user_id, name, scopes, display_prefix, pepper, secret_hash,
            expires_at, last_used_at, revoked_at, disabled_at)
        SELECT decode(repeat(to_hex(16 + n), 24), 'hex'), 'user_' || n % 3, 'key ' || n, 'notes:read',
            'pk.key_abcdefghi', 'v1', repeat('ab', 32),
            CASE n % 4 WHEN 0 THEN 'infinity' WHEN 1 THEN now() END::timestamptz,
            CASE n % 3 WHEN 0 THEN now() END, CASE n % 5 WHEN 0 THEN now() END,
            CASE n % 7 WHEN 0 THEN now() END
        FROM generate_series(0, 199) AS n;
        UPDATE tower_api_keys SET name = NULL WHERE user_id = 'user_2';
        DELETE FROM tower_api_keys WHERE name = 'key 3'",
    )
    .await;
    connection
}

fn key(number: u8) -> ApiKey {
    let hash = SecretHash::from_hex(PepperId::new("v1").unwrap(), &"ab".repeat(32)).unwrap();
    ApiKey::new(id(number), "user_1", Scopes::none(), hash)
}

fn id(number: u8) -> KeyId {
    KeyId::from_bytes([number; KeyId::LEN])
}

fn open(server: &Server) -> PostgresBackend {
    PostgresBackendBuilder::new().made(Source::Pool(server.pool()), names(), Vec::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_their_log_survive_each_step() {
    for steps in 1..STEPS.len() {
        let Some(server) = Server::start() else {
            return;
        };
        records_and_their_log_survive(&server, &STEPS[..steps]).await;
    }
}

async fn records_and_their_log_survive(server: &Server, steps: &[&str]) {
    let mut connection = old_schema(server, steps).await;
    let before = content(&mut connection).await;
    assert_eq!(before.len(), 199 + 200 + 66 + 1);
    // What an operator has granted stays, and new tables are nobody's.
    let platform = "CREATE ROLE anon; GRANT SELECT ON tower_api_keys TO anon;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon";
    run(&mut connection, platform).await;
    let had_grants = steps.len() > 1;
    if had_grants {
        run(
            &mut connection,
            "GRANT SELECT ON tower_api_key_grants TO anon",
        )
        .await;
    }
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    assert_eq!(content(&mut connection).await, before);

    let may_read = "SELECT relname::text FROM pg_class
        WHERE relname LIKE 'tower%' AND relkind = 'r' AND has_table_privilege('anon', oid, 'SELECT')
        ORDER BY 1";
    let may_read = all(&mut connection, may_read).await;
    let old = ["tower_api_key_grants", "tower_api_keys"];
    assert_eq!(may_read, old[usize::from(!had_grants)..]);
    let check = PepperCheck::from_hex(PepperId::new("v1").unwrap(), &"cd".repeat(32)).unwrap();
    assert!(backend.insert_pepper_check(&check).await.unwrap());
    assert!(backend.pepper_checks().await.unwrap()[0].matches(&check));

    let ids: Vec<_> = (16..216).map(id).collect();
    let mut keys = backend.get_by_id(&ids).await.unwrap();
    assert_eq!(keys.len(), 199);
    keys.sort_by_key(|key| key.id);
    for key in &mut keys {
        assert!(key.metadata.is_none() && key.successor.is_none() && key.retires_at.is_none());
        key.metadata = Some(Metadata::from_stored("{}").unwrap());
        key.version += 1;
        assert!(backend.update(key, key.version - 1).await.unwrap());
    }
    let lookup_keys: Vec<_> = ids.iter().map(KeyId::lookup_key).collect();
    let mut read = backend.get_many(&lookup_keys).await.unwrap();
    read.sort_by_key(|key| key.id);
    assert_eq!(format!("{read:?}"), format!("{keys:?}"));
    let largest = "UPDATE tower_api_keys SET revoked_at = NULL, version = 9223372036854775807;
        UPDATE tower_api_keys SET revoked_at = now()";
    run(&mut connection, largest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_get_through_while_an_upgrade_waits_for_a_reader() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut connection = first_schema(&server).await;
    let mut reader = server.connection().await;
    let read = "SELECT count(*)::text FROM tower_api_keys";
    run(&mut reader, "BEGIN").await;
    all(&mut reader, read).await;
    let url = server.url();
    let upgrade = tokio::spawn(async move { PostgresBackend::connect(&url).await });
    let mut lookups = server.connection().await;
    run(&mut lookups, "SET statement_timeout = '20s'").await;
    let waits = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted";
    for _ in 0..3 {
        while fetch_optional(&mut connection, waits).await.is_none() {
            assert!(!upgrade.is_finished(), "it waits for the reader");
            tokio::task::yield_now().await;
        }
        // It comes after the upgrade, and before the reader ends.
        assert_eq!(all(&mut lookups, read).await, ["199"]);
    }
    run(&mut reader, "COMMIT").await;
    let backend = upgrade.await.unwrap().unwrap();
    assert_eq!(backend.get_by_id(&[id(16)]).await.unwrap().len(), 1);
    assert_eq!(all(&mut connection, read).await, ["199"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_waits_too_long_says_for_what_and_changes_nothing() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut connection = first_schema(&server).await;
    let before = content(&mut connection).await;
    let mut reader = server.connection().await;
    run(&mut reader, "BEGIN; SELECT FROM tower_api_keys").await;
    let limit = Duration::from_millis(400);
    let mut upgrading = server.connection().await;
    let error = prepare_within(limit, &mut upgrading, &names(), STEPS, &[]).await;
    let error = format!("{:?}", error.unwrap_err());
    assert!(error.contains("another session"), "{error}");
    assert!(error.contains("tower_api_keys"), "{error}");
    assert_eq!(content(&mut connection).await, before);
    let version = "SELECT version::text FROM tower_api_key_schema";
    assert_eq!(all(&mut connection, version).await, ["1"]);

    run(&mut reader, "COMMIT").await;
    prepare_within(limit * 100, &mut upgrading, &names(), STEPS, &[])
        .await
        .unwrap();
    assert_eq!(content(&mut connection).await, before);
}

async fn fetch_optional(connection: &mut PgConnection, statement: &str) -> Option<PgRow> {
    let found = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    found.fetch_optional(connection).await.unwrap()
}

/// A node of the version before goes on reading the log while a newer one starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_whoever_reads_the_log_during_the_step_is_told_of_it_and_of_what_comes_before_and_after()
{
    let Some(server) = Server::start() else {
        return;
    };
    let mut connection = first_schema(&server).await;
    let old = open(&server);
    let mut feed = Feed::start(old.0.clone()).await.unwrap();
    assert_eq!(feed.read().await.unwrap(), []);
    let revoke = async |connection: &mut PgConnection, number: u8| {
        let statement = format!(
            "UPDATE tower_api_keys SET revoked_at = now(), name = 'revoked' \
             WHERE id = decode(repeat('{number:02x}', 24), 'hex')"
        );
        run(connection, &statement).await;
    };
    revoke(&mut connection, 20).await;
    assert_eq!(
        feed.read().await.unwrap(),
        [Change::Key(id(20).lookup_key())]
    );

    // One that is committed and not read yet, and one that commits while the step waits for it.
    revoke(&mut connection, 21).await;
    let mut other = server.connection().await;
    run(&mut other, "BEGIN").await;
    revoke(&mut other, 22).await;
    let mut migrating = server.connection().await;
    let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut migrating)
        .await
        .unwrap();
    let step = tokio::spawn(async move {
        prepare(&mut migrating, &names(), STEPS, &[]).await.unwrap();
    });
    let waits = format!("SELECT 1 FROM pg_locks WHERE pid = {process} AND NOT granted");
    while sqlx::raw_sql(AssertSqlSafe(waits.clone()))
        .fetch_optional(&mut connection)
        .await
        .unwrap()
        .is_none()
    {
        assert!(!step.is_finished(), "the step didn't wait");
        tokio::task::yield_now().await;
    }
    run(&mut other, "COMMIT").await;
    step.await.unwrap();
    assert_eq!(feed.read().await.unwrap(), [Change::Everything]);
    assert_eq!(feed.read().await.unwrap(), []);

    revoke(&mut connection, 23).await;
    assert_eq!(
        feed.read().await.unwrap(),
        [Change::Key(id(23).lookup_key())]
    );
    let new = PostgresBackend::connect(&server.url()).await.unwrap();
    assert!(new.insert(&key(3)).await.unwrap());
    assert_eq!(
        feed.read().await.unwrap(),
        [Change::Key(id(3).lookup_key())]
    );
    let found: Vec<_> = [20, 21, 22, 23].map(id).into();
    let found = new.get_by_id(&found).await.unwrap();
    assert!(found.iter().all(|key| key.revoked_at.is_some()));
    assert_eq!(found.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_leaves_everything_as_it_was() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut connection = first_schema(&server).await;
    let catalog = "SELECT concat_ws(' ', c.oid, relname, attname, atttypid) FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid
        WHERE relnamespace = 'public'::regnamespace ORDER BY 1";
    let before = all(&mut connection, catalog).await;
    let records = content(&mut connection).await;
    let broken = &[
        STEPS[0],
        STEPS[1],
        STEPS[2],
        "CREATE TABLE \"{schema}\".\"{prefix}more\" (id int); CREATE TABLE {keys} (id int)",
    ];
    for _ in 0..2 {
        let failed = prepare(&mut connection, &names(), broken, &[]).await;
        assert!(
            matches!(failed, Err(OpenError::Unavailable(_))),
            "{failed:?}"
        );
        // On the connection that the transaction was on, and on another.
        assert_eq!(all(&mut connection, catalog).await, before);
        let mut other = server.connection().await;
        assert_eq!(all(&mut other, catalog).await, before);
        assert_eq!(content(&mut other).await, records);
    }
    prepare(&mut connection, &names(), STEPS, &[])
        .await
        .unwrap();
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    assert_eq!(backend.get_by_id(&[id(16)]).await.unwrap().len(), 1);
    // What is newer stays.
    let error = prepare(&mut connection, &names(), FIRST, &[])
        .await
        .unwrap_err();
    let newer = matches!(error, OpenError::NewerSchema { found: 3, known: 1 });
    assert!(newer, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_has_taken_the_name_of_a_new_one_is_left_as_it_is() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut connection = first_schema(&server).await;
    run(
        &mut connection,
        "CREATE TABLE tower_api_key_grants (mine int)",
    )
    .await;
    let records = content(&mut connection).await;
    let error = PostgresBackend::connect(&server.url()).await.unwrap_err();
    let names_it =
        matches!(&error, OpenError::NotOurs(text) if text.contains("tower_api_key_grants"));
    assert!(names_it, "{error:?}");
    assert_eq!(content(&mut connection).await, records);
    run(&mut connection, "DROP TABLE tower_api_key_grants").await;
    PostgresBackend::connect(&server.url()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_nodes_that_start_at_once_on_the_first_schema_one_takes_the_step() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut connection = first_schema(&server).await;
    let before = content(&mut connection).await;
    let nodes: Vec<_> = (0..8)
        .map(|_| {
            let url = server.url();
            tokio::spawn(async move { PostgresBackend::connect(&url).await.map(drop) })
        })
        .collect();
    for node in nodes {
        node.await.unwrap().unwrap();
    }
    assert_eq!(content(&mut connection).await, before);
    let version = "SELECT version::text FROM tower_api_key_schema";
    assert_eq!(all(&mut connection, version).await, ["3"]);
}
