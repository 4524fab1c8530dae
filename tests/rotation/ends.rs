//! The moment at which an overlap ends: on hits, for who waits for it, and whatever is done meanwhile.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, BackendError, Clock, KeyResolver, KeySource, MemoryBackend,
    Peppers, forward_to_backend,
};

use super::databases::{clock, node_on};
use crate::{
    HOUR, SECOND, key, pepper,
    support::{outcome, start},
    token_of, verified,
};

/// What the cache says by itself.
fn cached(store: &ApiKeyStore, token: &str) -> Option<&'static str> {
    let resolved = store.resolve_now(&token.parse().unwrap());
    resolved.map(|result| outcome(&result))
}

/// A backend that tells nobody of what is written.
struct Silent(MemoryBackend);

impl KeySource for Silent {
    forward_to_backend!(self => self.0; get_many);
}

impl ApiKeyBackend for Silent {
    async fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: u64,
    ) -> Result<bool, BackendError> {
        // Whatever is read meanwhile is stale.
        let done = self.0.rotate(successor, old, expected).await;
        tokio::task::yield_now().await;
        done
    }

    forward_to_backend!(self => self.0; insert, update, delete, list_for_user, touch);
}

#[tokio::test]
async fn g1_after_a_rotation_without_an_overlap_no_request_is_accepted_with_the_old_key() {
    let store = node_on(Silent(MemoryBackend::new()), &clock()).await;
    for _ in 0..50 {
        let (old, id) = key(&store).await;
        assert_eq!(verified(&store, &old).await, "good");
        assert_eq!(cached(&store, &old), Some("good"));
        let new = token_of(&store.rotate(&id, Duration::ZERO).await.unwrap());
        assert_eq!(cached(&store, &old), None, "it is read anew");
        assert_eq!(verified(&store, &old).await, "revoked");
        assert_eq!(verified(&store, &new).await, "good");
    }
}

#[tokio::test]
async fn g6_the_old_key_is_refused_on_a_hit_in_the_millisecond_in_which_the_overlap_ends() {
    let clock = clock();
    let store = node_on(MemoryBackend::new(), &clock).await;
    let (old, id) = key(&store).await;
    let new = token_of(&store.rotate(&id, SECOND).await.unwrap());
    for token in [&old, &new] {
        assert_eq!(verified(&store, token).await, "good");
    }
    let misses = store.cache_stats().misses;
    for (at, expected) in [
        (0, "good"),
        (999, "good"),
        (1_000, "expired"),
        (1_001, "expired"),
    ] {
        clock.set(start() + Duration::from_millis(at));
        assert_eq!(cached(&store, &old), Some(expected), "at {at}");
        assert_eq!(cached(&store, &new), Some("good"), "at {at}");
    }
    assert_eq!(store.cache_stats().misses, misses);
}

/// Tokio's, which stands still until all tasks wait for it.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        start() + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn g6_who_waits_for_the_end_of_a_key_hears_of_the_end_of_its_overlap() {
    let builder = ApiKeyStore::builder(MemoryBackend::new()).peppers(Peppers::new(pepper("v1")));
    let clock = TokioClock(Instant::now());
    let store = builder.clock(clock).build().await.unwrap();
    for overlap in [Duration::ZERO, SECOND, HOUR + SECOND / 3] {
        let (old, id) = key(&store).await;
        let before = store.verify(&old).await.unwrap();
        let (new, since) = (store.rotate(&id, overlap).await.unwrap(), Instant::now());
        let context = store.verify(token_of(&new)).await.unwrap();
        if !overlap.is_zero() {
            let early = timeout(overlap.saturating_sub(SECOND / 100), before.revoked()).await;
            assert!(early.is_err(), "{overlap:?}: it has ended early");
            assert!(before.is_active().await.unwrap(), "{overlap:?}");
        }
        before.revoked().await;
        let took = since.elapsed();
        assert!(
            took + SECOND / 100 >= overlap && took < overlap + SECOND / 10,
            "{took:?} for {overlap:?}"
        );
        assert!(!before.is_active().await.unwrap());
        let goes_on = timeout(HOUR, context.revoked()).await;
        assert!(goes_on.is_err() && context.is_active().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_context_of_a_key_whose_rotation_was_cancelled_goes_on_after_the_overlap() {
    let builder = ApiKeyStore::builder(MemoryBackend::new()).peppers(Peppers::new(pepper("v1")));
    let clock = TokioClock(Instant::now());
    let store = builder.clock(clock).build().await.unwrap();
    let (old, id) = key(&store).await;
    let new = store.rotate(&id, HOUR).await.unwrap();
    let (old, new) = (
        store.verify(&old).await.unwrap(),
        store.verify(token_of(&new)).await.unwrap(),
    );
    store.cancel_rotation(&id).await.unwrap();
    assert!(timeout(SECOND, new.revoked()).await.is_ok());
    assert!(timeout(3 * HOUR, old.revoked()).await.is_err());
    assert!(old.is_active().await.unwrap());
}
