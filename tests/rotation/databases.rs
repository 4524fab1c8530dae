//! Each database that the crate has, and stores on it, each as a node of its own.

use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, ApiKeyStoreBuilder, ManualClock, MemoryBackend, Peppers,
    PostgresBackend, SqliteBackend,
};

use crate::{
    pepper,
    support::{folder::Folder, postgres::Server, start},
};

pub(crate) enum Database {
    Memory(MemoryBackend),
    Sqlite(Folder),
    Postgres(Server),
}

impl Database {
    /// One of each kind, empty, with its name.
    pub(crate) fn all(test: &str) -> Vec<(&'static str, Self)> {
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
    pub(crate) async fn builder(&self) -> ApiKeyStoreBuilder {
        match self {
            Self::Memory(backend) => ApiKeyStore::builder(backend.clone()),
            Self::Sqlite(folder) => {
                let backend = SqliteBackend::open(folder.join("keys.db")).await;
                ApiKeyStore::builder(backend.unwrap())
            }
            Self::Postgres(server) => {
                let backend = PostgresBackend::connect(&server.url()).await;
                ApiKeyStore::builder(backend.unwrap())
            }
        }
    }

    /// Another node, whose clock is `clock`.
    pub(crate) async fn node(&self, clock: &ManualClock) -> ApiKeyStore {
        let builder = self.builder().await.peppers(Peppers::new(pepper("v1")));
        builder.clock(clock.clone()).build().await.unwrap()
    }
}

pub(crate) fn clock() -> ManualClock {
    ManualClock::new(start())
}

/// A node alone on a backend in memory.
pub(crate) async fn node_on(backend: impl ApiKeyBackend, clock: &ManualClock) -> ApiKeyStore {
    let builder = ApiKeyStore::builder(backend).peppers(Peppers::new(pepper("v1")));
    builder.clock(clock.clone()).build().await.unwrap()
}
