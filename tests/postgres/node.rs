//! A store on PostgreSQL, as one of the processes of a fleet has it.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, CacheConfig, KeyId, KeySource, NewApiKey, Pepper, Peppers,
    PostgresBackend, Scopes,
};

use crate::support::{PEPPER, USER, id_of, outcome, postgres::Server, start};

/// Long enough for everything that is to happen soon, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) store: ApiKeyStore,
    pub(crate) backend: PostgresBackend,
}

impl Node {
    /// With a pool of its own.
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::at(&server.url(), CacheConfig::new()).await
    }

    pub(crate) async fn at(url: &str, cache: CacheConfig) -> Self {
        Self::on(PostgresBackend::connect(url).await.unwrap(), cache).await
    }

    pub(crate) async fn on(backend: PostgresBackend, cache: CacheConfig) -> Self {
        let pepper = Pepper::new("v1", PEPPER).unwrap();
        let store = ApiKeyStore::builder(backend.clone())
            .peppers(Peppers::new(pepper))
            .cache(cache)
            .build()
            .await
            .unwrap();
        Self { store, backend }
    }

    pub(crate) async fn token(&self) -> String {
        let new = NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap());
        let issued = self.store.create(new).await.unwrap();
        issued.token().expose().to_owned()
    }

    pub(crate) async fn verify(&self, token: &str) -> &'static str {
        outcome(&self.store.verify(token).await)
    }

    pub(crate) async fn verify_fresh(&self, token: &str) -> &'static str {
        outcome(&self.store.verify_fresh(token).await)
    }

    /// Verifies until the key answers from memory, after all was told that has happened so far: from
    /// here on only what happens now can change what is said of it.
    pub(crate) async fn cache(&self, token: &str) {
        self.settle().await;
        self.until_hit(token).await;
    }

    /// Makes a change behind the store's back, and waits until it is told.
    async fn settle(&self) {
        let token = self.token().await;
        self.until_hit(&token).await;
        let key = id_of(&token).lookup_key();
        let mut key = self.backend.get_many(&[key]).await.unwrap().remove(0);
        key.disabled_at = Some(start());
        key.version += 1;
        assert!(self.backend.update(&key, key.version - 1).await.unwrap());
        self.becomes(&token, "disabled").await;
    }

    pub(crate) async fn until_hit(&self, token: &str) {
        eventually("the key is cached", async || {
            let misses = self.store.cache_stats().misses;
            self.verify(token).await == "good" && self.store.cache_stats().misses == misses
        })
        .await;
    }

    /// Verifies until that gives `wanted`; says how long it took.
    pub(crate) async fn becomes(&self, token: &str, wanted: &str) -> Duration {
        let since = Instant::now();
        eventually(wanted, async || self.verify(token).await == wanted).await;
        since.elapsed()
    }
}

/// `id = '\x…'`, for the statements that an operator writes.
pub(crate) fn where_id(token: &str) -> String {
    format!("id = {}", literal(&id_of(token)))
}

/// The id as a value in a statement.
pub(crate) fn literal(id: &KeyId) -> String {
    let mut hex = String::new();
    for byte in id.as_bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    format!(r"'\x{hex}'")
}

/// Asks until it is so.
///
/// # Panics
///
/// If it isn't after a long time.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
