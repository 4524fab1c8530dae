//! A store on a remote backend, and the time that it goes by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};
use tower_api_key::{
    ApiKeyStore, CacheConfig, Clock, KeyResolver, NewApiKey, Pepper, Peppers, Scopes,
};

pub(crate) use crate::support::outcome;
use crate::{
    HEARTBEAT,
    support::{PEPPER, USER, feed::Remote, start},
};

/// One of the processes that use a backend.
pub(crate) struct Node {
    pub(crate) store: ApiKeyStore,
    pub(crate) remote: Remote,
    pub(crate) clock: TokioClock,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::with(CacheConfig::new()).await
    }

    pub(crate) async fn with(cache: CacheConfig) -> Self {
        let remote = Remote::default();
        let clock = TokioClock::new();
        let store = store_on(&remote, clock.clone(), cache).await;
        Self {
            store,
            remote,
            clock,
        }
    }

    /// The token of a new key that nothing is cached of.
    pub(crate) async fn token(&self) -> String {
        self.issue(new_key()).await
    }

    pub(crate) async fn issue(&self, new: NewApiKey) -> String {
        let issued = self.store.create(new).await.unwrap();
        issued.token().expose().to_owned()
    }

    /// The token of a new key that is cached.
    pub(crate) async fn cached_token(&self) -> String {
        let token = self.token().await;
        // Until it was told of, which it would be read again for.
        sleep(HEARTBEAT / 10).await;
        assert_eq!(self.verify(&token).await, "good");
        token
    }

    pub(crate) async fn tokens(&self, count: usize) -> Vec<String> {
        let mut tokens = Vec::new();
        for _ in 0..count {
            tokens.push(self.token().await);
        }
        tokens
    }

    pub(crate) async fn verify(&self, token: &str) -> &'static str {
        outcome(&self.store.verify(token).await)
    }

    pub(crate) async fn verify_fresh(&self, token: &str) -> &'static str {
        outcome(&self.store.verify_fresh(token).await)
    }

    /// What the cache says by itself.
    pub(crate) fn cached(&self, token: &str) -> Option<&'static str> {
        let token = token.parse().unwrap();
        self.store
            .resolve_now(&token)
            .map(|result| outcome(&result))
    }
}

pub(crate) async fn store_on(
    remote: &Remote,
    clock: impl Clock,
    cache: CacheConfig,
) -> ApiKeyStore {
    ApiKeyStore::builder(remote.clone())
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .clock(clock)
        .cache(cache)
        .build()
        .await
        .unwrap()
}

pub(crate) fn new_key() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::none())
}

/// Clocks that go with tokio's, so that a paused runtime moves its timers and the cache together.
/// Clones are the same clocks.
#[derive(Debug, Clone)]
pub(crate) struct TokioClock {
    zero: Instant,
    /// By how many milliseconds the time of day was set forwards.
    set_by: Arc<AtomicI64>,
}

impl TokioClock {
    fn new() -> Self {
        Self {
            zero: Instant::now(),
            set_by: Arc::default(),
        }
    }

    /// The machine was suspended for so long, or somebody set the time of day.
    pub(crate) fn set_forwards(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.set_by.fetch_add(by, Ordering::SeqCst);
    }

    pub(crate) fn set_backwards(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.set_by.fetch_sub(by, Ordering::SeqCst);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        let set_by = self.set_by.load(Ordering::SeqCst);
        let now = start() + self.zero.elapsed();
        let by = Duration::from_millis(set_by.unsigned_abs());
        if set_by < 0 { now - by } else { now + by }
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(3_600) + self.zero.elapsed()
    }
}
