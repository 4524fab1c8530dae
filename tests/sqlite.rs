//! Keys in a SQLite file: what is opened and what is refused, what is read and written, and what other
//! connections and processes learn of it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

mod sqlite {
    mod lanes;
    mod lists;
    mod live;
    mod opening;
    mod paused;
    mod pools;
    mod processes;
    mod read_only;
    mod records;
    mod refused;
    mod stores;
    mod upgrades;
    mod wrong_rows;
}

use std::path::Path;

use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tower_api_key::{
    ApiKey, ApiKeyStore, KeyId, Pepper, PepperId, Peppers, Scopes, SecretHash, SqliteBackend, sqlx,
};

/// A key with an id and a time of creation of its own.
fn key(number: u32, user: &str) -> ApiKey {
    let mut id = [0; KeyId::LEN];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let hash = SecretHash::from_hex(PepperId::new("v1").unwrap(), &"ab".repeat(32)).unwrap();
    let scopes = Scopes::of(["notes:read", "notes:write"]).unwrap();
    let mut key = ApiKey::new(KeyId::from_bytes(id), user, scopes, hash);
    key.created_at = support::start() + std::time::Duration::from_millis(number.into());
    key
}

/// All of a record.
fn text(key: &ApiKey) -> String {
    format!("{key:?}")
}

/// A connection as another process has it, or the `sqlite3` shell.
async fn shell(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.create_if_missing(true).connect().await.unwrap()
}

async fn run(connection: &mut SqliteConnection, sql: &str) {
    try_run(connection, sql).await.unwrap();
}

async fn try_run(connection: &mut SqliteConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection);
    done.await.map(|done| done.rows_affected())
}

/// A store as each process has its own.
async fn store(backend: SqliteBackend) -> ApiKeyStore {
    let pepper = Pepper::new("v1", support::PEPPER).unwrap();
    let builder = ApiKeyStore::builder(backend).peppers(Peppers::new(pepper));
    builder.build().await.unwrap()
}
