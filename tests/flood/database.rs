//! The instances that are flooded, and slow commits.

use std::{fmt, time::Duration};

use tower_api_key::{
    ApiKeyStore, ApiKeyStoreBuilder, Pepper, Peppers, PostgresBackend, SqliteBackend,
};

use crate::{
    slow_commits,
    support::{PEPPER, folder::Folder, postgres::Server},
};

/// How much longer a commit takes.
pub(crate) const COMMIT_TIME: Duration = Duration::from_millis(20);

/// Stores on one database, each with a cache and connections of its own.
pub(crate) struct Instances {
    name: String,
    pub(crate) all: Vec<ApiKeyStore>,
    /// Another one, whose commits are fast: it prepares rounds.
    pub(crate) setup: ApiKeyStore,
}

impl Instances {
    pub(crate) async fn postgres(server: &Server, count: usize, commit_time: Duration) -> Self {
        let url = server.url();
        let setup = postgres(&url).await;
        let tables = ["tower_api_keys", "tower_api_key_grants"];
        let slow = slow_commits::statements(&tables, Duration::ZERO);
        server.psql(&slow).await;
        let (setting, seconds) = (slow_commits::SETTING, commit_time.as_secs_f64());
        let url = format!("{url}?options[{setting}]={seconds}");
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(postgres(&url).await);
        }
        Self {
            name: format!("PostgreSQL, instances: {count}, commits are delayed by {commit_time:?}"),
            all,
            setup,
        }
    }

    pub(crate) async fn sqlite(folder: &Folder, count: usize) -> Self {
        let mut all = Vec::new();
        for _ in 0..=count {
            let backend = SqliteBackend::open(folder.join("keys.db")).await.unwrap();
            all.push(build(ApiKeyStore::builder(backend)).await);
        }
        Self {
            name: format!("SQLite, instances: {count}"),
            setup: all.pop().unwrap(),
            all,
        }
    }
}

impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

async fn postgres(url: &str) -> ApiKeyStore {
    let backend = PostgresBackend::connect(url).await.unwrap();
    build(ApiKeyStore::builder(backend)).await
}

async fn build(builder: ApiKeyStoreBuilder) -> ApiKeyStore {
    let pepper = Pepper::new("v1", PEPPER).unwrap();
    let builder = builder.peppers(Peppers::new(pepper));
    builder.build().await.unwrap()
}
