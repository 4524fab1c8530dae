//! What is promised of every key, for those that are found by a digest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, BackendError, CacheConfig, Imported, KeyId, KeyResolver,
    KeySource, LookupKey, ManualClock, MemoryBackend, OldKey, Peppers, StoreError, VerifyError,
    forward_to_backend,
};

use super::{hash_of, pepper, pylon, store_on, strict, token};
use crate::support::{USER, outcome, start};

/// Tells nobody of a change, counts reads, and fails while it is told to.
#[derive(Clone, Default)]
struct Silent {
    keys: MemoryBackend,
    reads: Arc<AtomicUsize>,
    failing: Arc<AtomicUsize>,
    /// As backends do that don't say how keys are found by their id.
    knows_no_ids: bool,
}

impl Silent {
    fn set_failing(&self, is_failing: bool) {
        self.failing
            .store(usize::from(is_failing), Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), BackendError> {
        match self.failing.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(BackendError::unavailable("the cable was pulled")),
        }
    }
}

impl KeySource for Silent {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        tokio::task::yield_now().await;
        self.keys.get_many(keys).await
    }
}

impl ApiKeyBackend for Silent {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        self.check()?;
        self.keys.insert(key).await
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        let updated = self.keys.update(key, expected).await;
        // Written, and nobody hears of it.
        self.check()?;
        updated
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        let deleted = self.keys.delete(id).await;
        self.check()?;
        deleted
    }

    async fn get_by_id(&self, ids: &[KeyId]) -> Result<Vec<ApiKey>, BackendError> {
        if self.knows_no_ids {
            let ids: Vec<_> = ids.iter().map(KeyId::lookup_key).collect();
            return self.keys.get_many(&ids).await;
        }
        self.keys.get_by_id(ids).await
    }

    forward_to_backend!(self => self.keys; list_for_user, touch);
}

async fn import(store: &ApiKeyStore, token: &str) -> KeyId {
    let old = OldKey::by_digest(hash_of(token), USER).scopes(["notes:read"]);
    match store.import(old, &strict()).await.unwrap() {
        Imported::Stored(key) => key.id,
        other => panic!("{other:?}"),
    }
}

/// What is said of a token without waiting for the backend.
fn cached(store: &ApiKeyStore, token: &str) -> Option<&'static str> {
    let token = store.token_format().parse(token).unwrap();
    store.resolve_now(&token).map(|answer| outcome(&answer))
}

#[tokio::test]
async fn g1_what_was_ended_elsewhere_unheard_of_is_ended_here_when_it_is_ended_again() {
    let backend = Silent::default();
    let (here, _) = store_on(backend.clone()).await;
    let (there, _) = store_on(backend).await;
    for (number, deletes) in [(1, false), (2, true)] {
        let token = token(number);
        let id = import(&there, &token).await;
        assert_eq!(outcome(&here.verify(&token).await), "good");
        let other = super::token(number + 100);
        import(&there, &other).await;
        assert_eq!(outcome(&here.verify(&other).await), "good");
        let expected = if deletes {
            assert!(there.delete(&id).await.unwrap());
            "unknown"
        } else {
            assert!(there.revoke(&id).await.unwrap());
            "revoked"
        };
        assert_eq!(cached(&here, &token), Some("good"));
        assert!(!here.revoke(&id).await.unwrap());
        assert_eq!(outcome(&here.verify(&token).await), expected);
        // And no other has to be read again.
        assert_eq!(cached(&here, &other), Some("good"));
    }
    for number in [3, 4] {
        let token = token(number);
        let id = import(&there, &token).await;
        assert_eq!(outcome(&here.verify(&token).await), "good");
        assert!(there.delete(&id).await.unwrap());
        assert_eq!(cached(&here, &token), Some("good"));
        if number == 3 {
            assert!(!here.delete(&id).await.unwrap());
        } else {
            assert!(!here.revoke_token(&token).await.unwrap());
        }
        assert_eq!(outcome(&here.verify(&token).await), "unknown");
    }
}

#[tokio::test]
async fn g1_a_write_whose_outcome_is_unknown_is_looked_up_anew() {
    let backend = Silent::default();
    let (store, _) = store_on(backend.clone()).await;
    for (number, deletes, expected) in [(1, false, "revoked"), (2, true, "unknown")] {
        let token = token(number);
        let id = import(&store, &token).await;
        assert_eq!(outcome(&store.verify(&token).await), "good");
        backend.set_failing(true);
        if deletes {
            store.delete(&id).await.unwrap_err();
        } else {
            store.revoke(&id).await.unwrap_err();
        }
        assert_eq!(cached(&store, &token), None);
        // G3: not "unknown", and not let in.
        assert_eq!(outcome(&store.verify(&token).await), "unavailable");
        backend.set_failing(false);
        assert_eq!(outcome(&store.verify(&token).await), expected);
    }
}

#[tokio::test]
async fn g6_expiry_is_checked_on_every_hit() {
    let backend = Silent::default();
    let (store, clock) = store_on(backend.clone()).await;
    let (token, second) = (token(1), Duration::from_secs(1));
    let old = OldKey::by_digest(hash_of(&token), USER).scopes(["notes:read"]);
    let old = old.expires_at(start() + second);
    assert!(matches!(
        store.import(old, &strict()).await,
        Ok(Imported::Stored(_))
    ));
    assert_eq!(outcome(&store.verify(&token).await), "good");
    clock.set(start() + second);
    assert_eq!(cached(&store, &token), Some("expired"));
    assert_eq!(backend.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn g8_made_up_tokens_neither_evict_keys_in_use_nor_grow_the_cache() {
    let cache = CacheConfig::new().capacity(10).unknown_capacity(50);
    let store = ApiKeyStore::builder(MemoryBackend::new())
        .peppers(Peppers::new(pepper()))
        .digest_format(pylon())
        .clock(ManualClock::new(start()))
        .cache(cache);
    let store = store.build().await.unwrap();
    for number in 0..10 {
        import(&store, &token(number)).await;
        assert_eq!(outcome(&store.verify(token(number)).await), "good");
    }
    for number in 1_000..4_000 {
        let answer = store.verify(token(number)).await;
        assert!(matches!(answer, Err(VerifyError::Unknown)));
    }
    let stats = store.cache_stats();
    let counts = (stats.entries, stats.unknown_entries, stats.evictions);
    assert_eq!(counts, (10, 50, 0));
    for number in 0..10 {
        assert_eq!(cached(&store, &token(number)), Some("good"));
    }
}

#[tokio::test]
async fn g9_many_requests_for_one_cold_key_cost_one_read() {
    for _ in 0..20 {
        let backend = Silent::default();
        let (store, _) = store_on(backend.clone()).await;
        import(&store, &token(1)).await;
        let mut requests = JoinSet::new();
        for _ in 0..100 {
            let store = store.clone();
            requests.spawn(async move { store.verify(token(1)).await.is_ok() });
        }
        assert!(requests.join_all().await.into_iter().all(|is_in| is_in));
        assert_eq!(backend.reads.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn g12_a_backend_that_could_revoke_no_such_key_is_told_of_by_the_import() {
    let backend = Silent {
        knows_no_ids: true,
        ..Silent::default()
    };
    let (store, _) = store_on(backend).await;
    for number in 1..3 {
        let bad = OldKey::by_digest("bad", USER);
        let old = OldKey::by_digest(hash_of(&token(number)), USER).scopes(["notes:read"]);
        let error = if number == 1 {
            store.import(old, &strict()).await.unwrap_err()
        } else {
            let imported = store.import_all([bad, old], &strict()).await;
            imported.unwrap_err()
        };
        assert!(matches!(error, StoreError::Unsupported(_)), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_was_unknown_a_moment_ago_works_as_soon_as_its_key_is_imported() {
    let (store, _) = store_on(Silent::default()).await;
    let token = token(1);
    assert_eq!(outcome(&store.verify(&token).await), "unknown");
    assert_eq!(cached(&store, &token), Some("unknown"));
    import(&store, &token).await;
    assert_eq!(outcome(&store.verify(&token).await), "good");
}
