//! Each database that the crate has, and stores on it, each as a node of its own.

use std::time::Duration;

use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, ApiKeyStoreBuilder, ManualClock, MemoryBackend, Pepper, Peppers,
    PostgresBackend, SqliteBackend,
    sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, raw_sql},
};

use super::{folder::Folder, postgres::Server, start};

pub enum Database {
    Memory(MemoryBackend),
    Sqlite(Folder),
    Postgres(Server),
}

impl Database {
    /// One of each kind, empty, with its name.
    pub fn all(test: &str) -> Vec<(&'static str, Self)> {
        let mut all = vec![
            ("memory", Self::Memory(MemoryBackend::new())),
            ("SQLite", Self::Sqlite(Folder::new(test))),
        ];
        if let Some(server) = Server::start() {
            all.push(("PostgreSQL", Self::Postgres(server)));
        }
        all
    }

    /// A builder over a handle of its own.
    pub async fn builder(&self) -> ApiKeyStoreBuilder {
        match self {
            Self::Memory(backend) => ApiKeyStore::builder(backend.clone()),
            Self::Sqlite(folder) => ApiKeyStore::builder(sqlite(folder).await),
            Self::Postgres(server) => ApiKeyStore::builder(postgres(server).await),
        }
    }

    /// Runs statements as an operator does, in the dialect of the database. Nothing in memory.
    pub async fn operator(&self, sqlite: &str, postgres: &str) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(folder) => {
                let url = format!("sqlite:{}", folder.join("keys.db").display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                let run = raw_sql(AssertSqlSafe(sqlite.to_owned())).execute(&mut connection);
                run.await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(server) => server.psql(postgres).await,
        }
    }

    /// Another node, whose clock is `clock`.
    pub async fn node(&self, clock: &ManualClock) -> ApiKeyStore {
        let builder = self.builder().await.peppers(Peppers::new(pepper("v1")));
        builder.clock(clock.clone()).build().await.unwrap()
    }
}

/// Another one for each id.
pub fn pepper(id: &str) -> Pepper {
    Pepper::new(id, format!("the pepper of these tests, {id}")).unwrap()
}

/// Longer than anything takes on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn sqlite(folder: &Folder) -> SqliteBackend {
    let builder = SqliteBackend::builder().busy_timeout(PATIENCE);
    builder.open(folder.join("keys.db")).await.unwrap()
}

pub async fn postgres(server: &Server) -> PostgresBackend {
    let builder = PostgresBackend::builder().acquire_timeout(PATIENCE);
    let builder = builder.statement_timeout(PATIENCE);
    builder.connect(&server.url()).await.unwrap()
}

pub fn clock() -> ManualClock {
    ManualClock::new(start())
}

/// A node alone on a backend in memory.
pub async fn node_on(backend: impl ApiKeyBackend, clock: &ManualClock) -> ApiKeyStore {
    let builder = ApiKeyStore::builder(backend).peppers(Peppers::new(pepper("v1")));
    builder.clock(clock.clone()).build().await.unwrap()
}
