//! What a service and its operator have hung on the table of keys, when a newer version of this crate comes.

use sqlx::{
    AssertSqlSafe, Row as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tower_api_key::{
    ApiKey, ApiKeyBackend as _, ApiKeyStore, NewApiKey, OpenError, Pepper, Peppers, Scopes,
    SqliteBackend, sqlx,
};

use crate::{
    run, shell, store,
    support::{PEPPER, USER, folder::Folder},
    try_run,
};

/// The tables as the first version of this crate has made them.
async fn first_schema(connection: &mut SqliteConnection) {
    let step = include_str!("../../src/backend/sqlite/schema_1.sql");
    let state = "CREATE TABLE tower_api_key_schema (version INTEGER NOT NULL);
        INSERT INTO tower_api_key_schema VALUES (1);";
    let step = step.replace("{prefix}", "tower_api_");
    run(connection, &(step + state)).await;
}

/// A key as the first version has written it.
async fn write(connection: &mut SqliteConnection, key: &ApiKey) {
    let pepper = key.secret_hash.pepper().unwrap().to_string();
    let done = sqlx::query(
        "INSERT INTO tower_api_keys VALUES (?, ?, NULL, ?, 0, ?, ?, ?, 1, NULL, NULL, NULL, NULL, 1)",
    )
    .bind(key.id.as_bytes().as_slice())
    .bind(&key.user_id)
    .bind(key.scopes.iter().collect::<Vec<_>>().join(" "))
    .bind(key.display_prefix.as_str())
    .bind(pepper)
    .bind(key.secret_hash.to_hex())
    .execute(connection);
    assert_eq!(done.await.unwrap().rows_affected(), 1);
}

/// As a service has it: sqlx switches foreign keys on.
async fn pool(folder: &Folder) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(folder.join("service.db"));
    let pool = SqlitePoolOptions::new().max_connections(2);
    pool.connect_with(options).await.unwrap()
}

async fn texts(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let rows = sqlx::query(AssertSqlSafe(statement.to_owned()));
    let rows = rows.fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const HUNG_ON_IT: &str = "
    CREATE TABLE sessions (key_id BLOB REFERENCES tower_api_keys ON DELETE CASCADE);
    CREATE TABLE notes (key_id BLOB NOT NULL REFERENCES tower_api_keys (id));
    CREATE VIEW working AS SELECT id FROM tower_api_keys WHERE revoked_at IS NULL;
    CREATE VIEW broken AS SELECT id FROM gone;
    CREATE TABLE audit (id BLOB, what TEXT);
    CREATE TRIGGER audited AFTER UPDATE OF revoked_at ON tower_api_keys
    BEGIN INSERT INTO audit VALUES (NEW.id, 'revoked'); END;
    CREATE INDEX named ON tower_api_keys (name, user_id);
    INSERT INTO sessions SELECT id FROM tower_api_keys;
    INSERT INTO notes SELECT max(id) FROM tower_api_keys";

#[tokio::test]
async fn what_hangs_on_the_table_of_keys_outlives_a_step_and_the_keys_verify() {
    let folder = Folder::new("sqlite-upgrade");
    let made = ApiKeyStore::builder(SqliteBackend::in_memory().await.unwrap());
    let made = made.peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()));
    let made = made.build().await.unwrap();
    let mut shell = shell(&folder.join("service.db")).await;
    first_schema(&mut shell).await;
    let mut issued = Vec::new();
    for _ in 0..10 {
        let new = NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap());
        let key = made.create(new).await.unwrap();
        write(&mut shell, key.key()).await;
        issued.push(key);
    }
    issued.sort_by_key(|key| key.key().id);
    run(&mut shell, HUNG_ON_IT).await;
    let others = "SELECT concat_ws(' ', type, name, sql) FROM sqlite_master
        WHERE name NOT LIKE 'tower_api%' AND name NOT LIKE 'sqlite%' ORDER BY name";
    let before = texts(&mut shell, others).await;
    assert_eq!(before.len(), 7);

    let backend = SqliteBackend::new(pool(&folder).await).await.unwrap();
    assert_eq!(texts(&mut shell, others).await, before);
    let count = "SELECT concat_ws(' ', (SELECT count(*) FROM sessions), (SELECT count(*) FROM notes),
        (SELECT count(*) FROM working), (SELECT count(*) FROM tower_api_keys INDEXED BY named WHERE name IS NULL))";
    assert_eq!(texts(&mut shell, count).await, ["10 1 10 10"]);
    assert_eq!(
        texts(&mut shell, "SELECT \"table\" FROM pragma_foreign_key_check").await,
        [""; 0]
    );

    let store = store(backend.clone()).await;
    for key in &issued {
        store.verify(key.token().expose()).await.unwrap();
    }
    assert!(store.revoke(&issued[0].key().id).await.unwrap());
    assert_eq!(
        texts(&mut shell, "SELECT what FROM audit").await,
        ["revoked"]
    );
    assert!(store.delete(&issued[0].key().id).await.unwrap());
    assert_eq!(texts(&mut shell, count).await, ["9 1 9 9"]);
    let referenced = issued[9].key();
    store.delete(&referenced.id).await.unwrap_err();
    try_run(&mut shell, "DELETE FROM tower_api_keys")
        .await
        .unwrap_err();
    // What the documentation shows.
    let by_hand = "UPDATE tower_api_keys SET revoked_at = unixepoch() * 1000
        WHERE user_id = 'user_1' AND revoked_at IS NULL";
    assert_eq!(try_run(&mut shell, by_hand).await.unwrap(), 9);
    store.invalidate_all();
    for key in &issued[1..] {
        assert!(!store.is_active(key.token().expose()).await.unwrap());
    }
}

#[tokio::test]
async fn a_table_that_has_taken_the_name_of_a_new_one_is_left_as_it_is() {
    let folder = Folder::new("sqlite-upgrade-taken");
    let mut shell = shell(&folder.join("service.db")).await;
    first_schema(&mut shell).await;
    run(&mut shell, "CREATE TABLE tower_api_key_grants (mine)").await;
    let catalog = "SELECT concat_ws(' ', name, sql) FROM sqlite_master ORDER BY name";
    let before = texts(&mut shell, catalog).await;
    for opened in [
        SqliteBackend::new(pool(&folder).await).await,
        SqliteBackend::open(folder.join("service.db")).await,
    ] {
        let error = opened.unwrap_err();
        assert!(matches!(error, OpenError::NotOurs(_)), "{error:?}");
        assert!(error.to_string().contains("key_grants"), "{error}");
    }
    assert_eq!(texts(&mut shell, catalog).await, before);
}

/// It has no pepper, and isn't taken for one that needs none.
#[tokio::test]
async fn a_row_that_was_no_record_keeps_nobody_from_the_step_and_is_none_afterwards() {
    let folder = Folder::new("sqlite-upgrade-damaged");
    let mut shell = shell(&folder.join("service.db")).await;
    first_schema(&mut shell).await;
    let key = crate::key(1, USER);
    write(&mut shell, &key).await;
    run(&mut shell, "UPDATE tower_api_keys SET pepper = ''").await;
    let backend = SqliteBackend::new(pool(&folder).await).await.unwrap();
    let error = backend.get_by_id(&[key.id]).await.unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    assert!(backend.delete(&key.id).await.unwrap());
}
