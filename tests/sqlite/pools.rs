//! A service's own pool.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tower_api_key::{ApiKeyBackend, KeySource, NewApiKey, OpenError, Scopes, SqliteBackend, sqlx};

use crate::{
    key, store,
    support::{USER, folder::Folder, stray::Shared},
};

async fn pool(path: &Path, connections: u32) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(connections);
    pool.connect_with(options).await.unwrap()
}

async fn tables(pool: &SqlitePool) -> Vec<String> {
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    sqlx::query_scalar(names).fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn keys_live_beside_the_tables_of_a_service() {
    let folder = Folder::new("sqlite-pool");
    for connections in [1, 4] {
        let pool = pool(&folder.join(&format!("{connections}.db")), connections).await;
        sqlx::raw_sql(
            "CREATE TABLE notes (text); CREATE TABLE _sqlx_migrations (version);
             PRAGMA user_version = 7; PRAGMA application_id = 9",
        )
        .execute(&pool)
        .await
        .unwrap();
        let backend = SqliteBackend::new(pool.clone()).await.unwrap();
        let other = SqliteBackend::builder().table_prefix("other_");
        let other = other.over(pool.clone()).await.unwrap();
        let stored = key(1, "user_1");
        assert!(backend.insert(&stored).await.unwrap());
        let asked = [stored.lookup_key()];
        assert_eq!(backend.get_many(&asked).await.unwrap().len(), 1);
        assert_eq!(other.get_many(&asked).await.unwrap().len(), 0);
        let again = SqliteBackend::new(pool.clone()).await.unwrap();
        assert_eq!(again.get_many(&asked).await.unwrap().len(), 1);

        let numbers: (i64, i64) = sqlx::query_as(
            "SELECT user_version, application_id FROM pragma_user_version, pragma_application_id",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(numbers, (7, 9), "they belong to the service");
        assert!(tables(&pool).await.contains(&"notes".to_owned()));
    }
}

#[tokio::test]
async fn a_table_with_one_of_our_names_is_left_as_it_is() {
    let folder = Folder::new("sqlite-taken");
    for (number, name) in [
        "tower_api_keys",
        "Tower_API_Key_Changes",
        "tower_api_key_grants",
        "tower_api_key_schema",
    ]
    .into_iter()
    .enumerate()
    {
        let pool = pool(&folder.join(&format!("{number}.db")), 2).await;
        let make = format!("CREATE TABLE {name} (mine)");
        sqlx::query(sqlx::AssertSqlSafe(make))
            .execute(&pool)
            .await
            .unwrap();
        let error = SqliteBackend::new(pool.clone()).await.unwrap_err();
        assert!(matches!(error, OpenError::NotOurs(_)), "{error:?}");
        assert_eq!(tables(&pool).await, [name]);
    }
}

/// Keys in memory last as long as their connection.
#[tokio::test]
async fn a_pool_in_memory_that_would_lose_keys_is_refused() {
    let lasting = || {
        SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let some_time = Duration::from_secs(600);
    let wrong = [
        SqlitePoolOptions::new(),
        lasting().max_connections(2),
        lasting().idle_timeout(some_time),
        lasting().max_lifetime(some_time),
    ];
    for options in wrong {
        let pool = options.connect("sqlite::memory:").await.unwrap();
        let error = SqliteBackend::new(pool).await.unwrap_err();
        assert!(
            error.to_string().contains("`max_connections(1)`"),
            "{error}"
        );
    }
    let pool = lasting().connect("sqlite::memory:").await.unwrap();
    let backend = SqliteBackend::new(pool).await.unwrap();
    assert!(backend.insert(&key(1, "user_1")).await.unwrap());
}

#[tokio::test]
async fn a_pool_that_can_not_write_is_refused() {
    let folder = Folder::new("sqlite-read-only");
    let path = folder.join("keys.db");
    drop(SqliteBackend::open(&path).await.unwrap());
    let options = SqliteConnectOptions::new().filename(&path).read_only(true);
    let pool = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    let error = SqliteBackend::new(pool).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("readonly database"),
        "{error:?}"
    );
}

/// Beside a store that has the file open by itself.
async fn shared(folder: &Folder, mode: &str) -> Shared<SqliteBackend, impl AsyncFn(&str)> {
    let path = folder.join(&format!("{mode}.db"));
    let pool = pool(&path, 1).await;
    let setup = format!("PRAGMA journal_mode = {mode}; CREATE TABLE notes (text)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(setup))
        .execute(&pool)
        .await
        .unwrap();
    let backend = SqliteBackend::new(pool.clone()).await.unwrap();
    let options = SqliteConnectOptions::new().filename(&path);
    let other = SqlitePool::connect_with(options).await.unwrap();
    Shared {
        store: store(backend.clone()).await,
        backend,
        elsewhere: store(SqliteBackend::new(other).await.unwrap()).await,
        send: async move |text: &str| {
            let mut connection = pool.acquire().await.unwrap();
            let sent = sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned()));
            let _ = sent.execute(&mut *connection).await;
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_no_write_is_lost_with_a_transaction_that_a_service_has_left_open() {
    let folder = Folder::new("sqlite-stray");
    for mode in ["WAL", "DELETE"] {
        let shared = shared(&folder, mode).await;
        for left_open in [
            "BEGIN",
            "BEGIN IMMEDIATE",
            "BEGIN; INSERT INTO notes VALUES ('lost')",
            "BEGIN; SELECT count(*) FROM tower_api_keys; SAVEPOINT one",
            "SAVEPOINT one",
        ] {
            shared.writes_hold(left_open).await;
        }
        let now = "unixepoch() * 1000";
        shared
            .what_is_not_committed_is_not_revoked_already("BEGIN", now)
            .await;
        // Nobody was going to commit it.
        let mut shell = crate::shell(&folder.join(&format!("{mode}.db"))).await;
        let notes = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notes");
        assert_eq!(notes.fetch_one(&mut shell).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_no_look_up_sees_what_a_transaction_saw_that_a_service_has_left_open() {
    let folder = Folder::new("sqlite-stray-reads");
    // In other modes, nobody writes while somebody reads.
    let shared = shared(&folder, "WAL").await;
    shared.look_ups_see_what_is_there("BEGIN").await;
}

/// A connection that is the database can't be closed.
#[tokio::test]
async fn g1_no_revocation_in_memory_is_lost_with_a_transaction_that_a_service_has_left_open() {
    let options = SqlitePoolOptions::new().max_connections(1);
    let options = options.idle_timeout(None).max_lifetime(None);
    let pool = options.connect("sqlite::memory:").await.unwrap();
    let store = store(SqliteBackend::new(pool.clone()).await.unwrap()).await;
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = store.create(new).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&pool).await.unwrap();
    assert!(store.revoke(&issued.key().id).await.unwrap());
    sqlx::raw_sql("ROLLBACK").execute(&pool).await.unwrap_err();
    assert!(!store.is_active(issued.token().expose()).await.unwrap());
    let key = store.get(&issued.key().id).await.unwrap().unwrap();
    assert!(key.revoked_at.is_some());
}
