//! Two stores on one database.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;
use tower_api_key::{ApiKeyStore, IssuedKey, KeyId, ManualClock, NewApiKey, Scopes};

use crate::support::{
    USER,
    databases::{Database, PATIENCE},
    outcome, start,
};

/// A node that changes keys, and one that has them in its cache and changes nothing.
///
/// Their clock stands still: what the one believes ends when a change is told, and by no age.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) here: ApiKeyStore,
    pub(crate) there: ApiKeyStore,
    pub(crate) clock: ManualClock,
    _database: Database,
}

/// A key, and what its owner has.
pub(crate) struct Key {
    pub(crate) token: String,
    pub(crate) id: KeyId,
}

impl From<IssuedKey> for Key {
    fn from(issued: IssuedKey) -> Self {
        Self {
            token: issued.token().expose().to_owned(),
            id: issued.key().id,
        }
    }
}

pub(crate) fn new_key() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap())
}

impl Pair {
    /// One on SQLite, and one on PostgreSQL.
    pub(crate) async fn all(test: &str) -> Vec<Self> {
        Self::all_at(test, start()).await
    }

    /// The same at another time.
    pub(crate) async fn all_at(test: &str, now: SystemTime) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, database) in Database::all(test) {
            if matches!(database, Database::Memory(_)) {
                continue;
            }
            let clock = ManualClock::new(now);
            all.push(Self {
                name,
                here: database.node(&clock).await,
                there: database.node(&clock).await,
                clock,
                _database: database,
            });
        }
        all
    }

    /// Made here. Whether it is cached there is another matter.
    pub(crate) async fn key(&self) -> Key {
        self.key_of(new_key()).await
    }

    pub(crate) async fn key_of(&self, new: NewApiKey) -> Key {
        self.here.create(new).await.unwrap().into()
    }

    /// `N` of them that are cached there.
    pub(crate) async fn cached_keys<const N: usize>(&self) -> [Key; N] {
        let mut keys = Vec::new();
        for _ in 0..N {
            keys.push(self.key().await);
        }
        self.cache_there(keys.iter().map(|key| (&*key.token, "good")))
            .await;
        keys.try_into().unwrap_or_else(|_| unreachable!())
    }

    /// The other node has these in its cache, and has heard of all that was done until now: from here on, only what is
    /// done now can change what it says of them.
    pub(crate) async fn cache_there(&self, keys: impl Iterator<Item = (&str, &str)> + Clone) {
        for (token, expected) in keys.clone() {
            self.becomes_there(token, expected).await;
        }
        // Changes are told in their order.
        let last = self.key().await;
        self.until_hits_there(&last.token, "good").await;
        assert!(self.here.disable(&last.id).await.unwrap());
        self.becomes_there(&last.token, "disabled").await;
        for (token, expected) in keys {
            self.until_hits_there(token, expected).await;
        }
    }

    /// Asks until it answers from memory, several times in a row.
    async fn until_hits_there(&self, token: &str, expected: &str) {
        self.until(expected, async || {
            for _ in 0..3 {
                let misses = self.there.cache_stats().misses;
                let said = verified(&self.there, token).await;
                if said != expected || self.there.cache_stats().misses != misses {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Here it is so at once, and there once it is told.
    pub(crate) async fn becomes(&self, token: &str, expected: &str) {
        assert_eq!(verified(&self.here, token).await, expected, "{}", self.name);
        self.becomes_there(token, expected).await;
    }

    pub(crate) async fn becomes_there(&self, token: &str, expected: &str) {
        let is_so = async || verified(&self.there, token).await == expected;
        self.until(expected, is_so).await;
    }

    /// Asks until it is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let since = Instant::now();
        while !is_so().await {
            let Self { name, .. } = self;
            assert!(
                since.elapsed() < PATIENCE,
                "{name}: it doesn't become {what}"
            );
            sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) async fn verified(store: &ApiKeyStore, token: &str) -> &'static str {
    outcome(&store.verify(token).await)
}
