//! Steps from one schema to the next, on tables that the step before has made and filled.

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{Connection as _, Row as _, SqliteConnection, SqlitePool, sqlite::SqliteConnectOptions};

use super::{
    super::{
        Shared,
        file::OpenFile,
        pools::Pools,
        schema::{Found, STEPS, TRIGGERS, look, migrate},
        statements::{Statements, log},
    },
    Change, Feed, Folder, SqliteBackend, change, id, key, other, read, run,
};
use crate::{
    backend::{
        ApiKeyBackend as _,
        sql::{OpenError, TablePrefix},
    },
    key::Metadata,
    sync::watch,
    token::{PepperCheck, PepperId},
};

/// Those there are, and one more.
const NEXT: &[&str] = &[
    STEPS[0],
    STEPS[1],
    STEPS[2],
    "ALTER TABLE {prefix}keys ADD COLUMN colour TEXT NOT NULL DEFAULT 'none';
     CREATE INDEX {prefix}keys_by_colour ON {prefix}keys (colour);",
];
const FIRST: &[&str] = STEPS.first_chunk::<1>().unwrap();

async fn memory() -> SqliteConnection {
    SqliteConnection::connect("sqlite::memory:").await.unwrap()
}

async fn texts(connection: &mut SqliteConnection, statement: &'static str) -> Vec<String> {
    let rows = sqlx::query(statement).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// All of the records but what is new, and all of the log.
async fn content(connection: &mut SqliteConnection) -> Vec<String> {
    let keys = "SELECT concat_ws(' ', hex(id), user_id, name, scopes, unrestricted, display_prefix,
        pepper, secret_hash, created_at, expires_at, last_used_at, revoked_at, disabled_at, version)
        FROM tower_api_keys ORDER BY id";
    let log = "SELECT concat_ws(' ', seq, hex(id)) FROM tower_api_key_changes ORDER BY seq";
    [texts(connection, keys).await, texts(connection, log).await].concat()
}

/// Keys as the first version of this crate has written them, and their log.
async fn first_schema(connection: &mut SqliteConnection) {
    old_schema(connection, FIRST).await;
}

/// The same after further steps.
async fn old_schema(connection: &mut SqliteConnection, steps: &[&str]) {
    migrate(connection, &TablePrefix::default(), steps)
        .await
        .unwrap();
    run(
        connection,
        "WITH RECURSIVE numbers (n) AS (SELECT 16 UNION ALL SELECT n + 1 FROM numbers WHERE n < 215)
        INSERT INTO tower_api_keys (id, user_id, name, scopes, unrestricted, display_prefix, pepper,
            secret_hash, created_at, expires_at, last_used_at, revoked_at, disabled_at, version)
        SELECT unhex(replace(hex(zeroblob(24)), '00', printf('%02x', n))),
            'user_' || n % 3, 'key ' || n, 'notes:read', 0, 'pk.key_abcdefghi', 'v1',
            replace(hex(zeroblob(32)), '00', 'ab'), n, iif(n % 4 = 0, n, NULL), iif(n % 3 = 0, n, NULL),
            iif(n % 5 = 0, n, NULL), iif(n % 7 = 0, n, NULL), 1
        FROM numbers;
        UPDATE tower_api_keys SET name = NULL WHERE user_id = 'user_2';
        DELETE FROM tower_api_keys WHERE name = 'key 18'",
    )
    .await;
}

#[tokio::test]
async fn only_the_steps_that_are_missing_are_done_and_records_stay() {
    let prefix = TablePrefix::default();
    let mut connection = memory().await;
    first_schema(&mut connection).await;
    let before = content(&mut connection).await;
    for (steps, number) in [(STEPS, 3), (STEPS, 3), (NEXT, 4), (NEXT, 4)] {
        migrate(&mut connection, &prefix, steps).await.unwrap();
        let found = look(&mut connection, &prefix, steps).await.unwrap();
        assert_eq!(found, Found::Schema(number));
        assert_eq!(content(&mut connection).await, before);
    }
    let colours = "SELECT DISTINCT colour FROM tower_api_keys";
    assert_eq!(texts(&mut connection, colours).await, ["none"]);

    // What is newer stays.
    let error = migrate(&mut connection, &prefix, STEPS).await.unwrap_err();
    let newer = matches!(error, OpenError::NewerSchema { found: 4, known: 3 });
    assert!(newer, "{error}");
}

#[tokio::test]
async fn a_step_that_fails_leaves_everything_as_it_was() {
    let prefix = TablePrefix::default();
    let mut connection = memory().await;
    let broken = &[
        STEPS[0],
        STEPS[1],
        STEPS[2],
        "CREATE TABLE {prefix}more (id); CREATE TABLE {prefix}keys (id);",
    ];
    migrate(&mut connection, &prefix, broken).await.unwrap_err();
    assert_eq!(
        look(&mut connection, &prefix, STEPS).await.unwrap(),
        Found::Nothing { is_empty: true }
    );
    first_schema(&mut connection).await;
    let catalog = "SELECT concat_ws(' ', type, name, sql) FROM sqlite_master ORDER BY 1";
    let before = texts(&mut connection, catalog).await;
    let records = content(&mut connection).await;
    migrate(&mut connection, &prefix, broken).await.unwrap_err();
    assert_eq!(texts(&mut connection, catalog).await, before);
    assert_eq!(content(&mut connection).await, records);
    migrate(&mut connection, &prefix, STEPS).await.unwrap();
    assert_eq!(content(&mut connection).await, records);
}

#[tokio::test]
async fn records_are_read_and_written_after_each_step() {
    for steps in 1..STEPS.len() {
        let folder = Folder::new(&format!("schema-records-{steps}"));
        old_schema(&mut create(&folder.file()).await, &STEPS[..steps]).await;
        records_are_read_and_written(&folder).await;
    }
}

async fn records_are_read_and_written(folder: &Folder) {
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    let ids: Vec<_> = (16..216).map(id).collect();
    let mut keys = backend.get_by_id(&ids).await.unwrap();
    assert_eq!(keys.len(), 199);
    for key in &mut keys {
        assert!(key.metadata.is_none() && key.successor.is_none() && key.retires_at.is_none());
        key.metadata = Some(Metadata::from_stored("{}").unwrap());
        key.version += 1;
        assert!(backend.update(key, key.version - 1).await.unwrap());
    }
    let read = backend.get_by_id(&ids).await.unwrap();
    assert_eq!(format!("{read:?}"), format!("{keys:?}"));
    let pepper = PepperId::new("v1").unwrap();
    let check = PepperCheck::from_hex(pepper, &"cd".repeat(32)).unwrap();
    assert!(backend.insert_pepper_check(&check).await.unwrap());
    let checks = backend.pepper_checks().await.unwrap();
    assert!(checks.len() == 1 && checks[0].matches(&check));
    let mut shell = other(&folder.file()).await;
    for change in [
        "UPDATE tower_api_keys SET revoked_at = NULL, version = 9223372036854775807",
        "UPDATE tower_api_keys SET revoked_at = 5",
    ] {
        run(&mut shell, change).await;
    }
}

async fn create(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    let options = options.create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    run(&mut connection, "PRAGMA journal_mode = WAL").await;
    connection
}

/// A process of the version before goes on reading the log while a newer one starts.
#[tokio::test]
async fn g2_whoever_reads_the_log_during_the_step_is_told_of_it_and_of_what_comes_before_and_after()
{
    let folder = Folder::new("schema-feed");
    let mut shell = create(&folder.file()).await;
    first_schema(&mut shell).await;
    let pool = SqlitePool::connect_lazy_with(SqliteConnectOptions::new().filename(folder.file()));
    let prefix = TablePrefix::default();
    let mut statements = Statements::new(&prefix);
    // It knows the triggers of its version.
    statements.log = log(&prefix, &TRIGGERS[..3]);
    let old = Arc::new(Shared {
        pools: Pools::new(pool.clone(), pool),
        statements,
        file: Some(OpenFile::at(folder.file()).unwrap()),
        poll_every: Duration::from_millis(20),
        written: watch::Sender::new(()),
    });
    let mut feed = Feed::open(old).await.unwrap();
    assert_eq!(read(&mut feed).await, []);
    let revoke = "UPDATE tower_api_keys SET revoked_at = 5, name = 'revoked' WHERE created_at = ";
    run(&mut shell, &format!("{revoke} 20")).await;
    assert_eq!(read(&mut feed).await, [change(20)]);

    run(&mut shell, &format!("{revoke} 21")).await;
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    assert_eq!(read(&mut feed).await, [Change::Everything]);
    assert_eq!(read(&mut feed).await, []);
    run(&mut shell, &format!("{revoke} 22")).await;
    assert_eq!(read(&mut feed).await, [change(22)]);
    assert!(backend.insert(&key(3)).await.unwrap());
    assert_eq!(read(&mut feed).await, [change(3)]);
    let found = backend.get_by_id(&[20, 21, 22].map(id)).await.unwrap();
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|key| key.revoked_at.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_while_the_step_is_taken_sees_all_of_it_or_nothing() {
    let folder = Folder::new("schema-look");
    let mut shell = create(&folder.file()).await;
    run(&mut shell, "PRAGMA synchronous = OFF").await;
    first_schema(&mut shell).await;
    let steps = tokio::spawn(async move {
        for _ in 0..300 {
            for (step, version) in [
                ("CREATE TABLE tower_api_key_grants (id)", 2),
                ("DROP TABLE tower_api_key_grants", 1),
            ] {
                let step = format!(
                    "BEGIN IMMEDIATE; {step}; UPDATE tower_api_key_schema SET version = {version}; COMMIT"
                );
                run(&mut shell, &step).await;
            }
        }
    });
    let mut other = other(&folder.file()).await;
    while !steps.is_finished() {
        look(&mut other, &TablePrefix::default(), STEPS)
            .await
            .unwrap();
    }
    steps.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_processes_that_start_at_once_on_the_first_schema_one_takes_the_step() {
    for round in 0..5 {
        let folder = Folder::new(&format!("schema-many-{round}"));
        first_schema(&mut create(&folder.file()).await).await;
        let mut shell = other(&folder.file()).await;
        let before = content(&mut shell).await;
        let nodes: Vec<_> = (0..8)
            .map(|_| {
                let file = folder.file();
                tokio::spawn(async move { SqliteBackend::open(file).await.map(drop) })
            })
            .collect();
        for node in nodes {
            node.await.unwrap().unwrap();
        }
        assert_eq!(content(&mut shell).await, before);
        let version = "SELECT CAST(version AS TEXT) FROM tower_api_key_schema";
        assert_eq!(texts(&mut shell, version).await, ["3"]);
    }
}
