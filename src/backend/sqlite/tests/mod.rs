//! What can't be seen through the public API: settings of connections, steps of migrations, and what
//! a feed tells.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod feed;
mod feed_files;
mod schema;
mod settings;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Feed, SqliteBackend};
use crate::{
    backend::{Change, ChangeFeed},
    key::ApiKey,
    scope::Scopes,
    token::{KeyId, PepperId, SecretHash},
};

/// A folder of one test's own, which is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("tower-api-key-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("keys.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(number: u8) -> ApiKey {
    let pepper = PepperId::new("v1").unwrap();
    let hash = SecretHash::from_hex(pepper, &"ab".repeat(32)).unwrap();
    ApiKey::new(id(number), "user_1", Scopes::none(), hash)
}

fn id(number: u8) -> KeyId {
    KeyId::from_bytes([number; KeyId::LEN])
}

fn change(number: u8) -> Change {
    Change::Key(id(number).lookup_key())
}

/// A connection as another process has it.
async fn other(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

async fn run(connection: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

async fn feed(backend: &SqliteBackend) -> Feed {
    Feed::open(backend.0.clone()).await.unwrap()
}

/// What has changed, in the order of the ids, each once.
async fn read(feed: &mut Feed) -> Vec<Change> {
    feed.read().await.unwrap()
}
