//! Writers that meet in one backend, stores that share one, and sources of one's own.

use std::{
    collections::HashSet,
    error::Error,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, BackendError, Brand, CachedResolver, Cursor, KeyId,
    KeyResolver, KeySource, LookupKey, ManualClock, MemoryBackend, PageRequest, Pepper, Peppers,
    StoreError, Touch, VerifyError, forward_to_backend,
};

use super::{chain, new_key, outcome, pepper, store_on, verified};
use crate::support::{Fixture, USER, id_of, start, with_wrong_secret};

#[tokio::test]
async fn a_touch_never_moves_the_last_use_back_and_changes_no_version() {
    let fixture = Fixture::new().await;
    let id = id_of(&fixture.token(&[]).await);
    let unknown = KeyId::from_bytes([0; 24]);
    let (early, late) = (start(), start() + Duration::from_secs(1));
    for (touches, expected) in [
        (vec![(id, early), (unknown, late)], early),
        (vec![(id, late), (id, early)], late),
        (vec![(id, early)], late),
    ] {
        let touches: Vec<_> = touches
            .into_iter()
            .map(|(id, used_at)| Touch::new(id, used_at))
            .collect();
        fixture.backend.touch(&touches).await.unwrap();
        let key = fixture.store.get(&id).await.unwrap().unwrap();
        assert_eq!((key.last_used_at, key.version), (Some(expected), 1));
    }
    assert!(fixture.store.get(&unknown).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_writes_at_once_exactly_one_wins() {
    async fn winners<F>(attempt: impl Fn(usize) -> F) -> usize
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let attempts: JoinSet<bool> = (0..32).map(attempt).collect();
        attempts
            .join_all()
            .await
            .into_iter()
            .filter(|won| *won)
            .count()
    }
    let store = store_on(MemoryBackend::new(), Peppers::ephemeral()).await;
    for _ in 0..50 {
        let key = store.create(new_key()).await.unwrap().key().clone();
        let named = |at: usize, version| {
            let name = Some(at.to_string());
            let mut key = key.clone();
            (key.name, key.version) = (name, version);
            key
        };
        let backend = MemoryBackend::new();
        let inserted = winners(|at| {
            let (backend, key) = (backend.clone(), named(at, 1));
            async move { backend.insert(&key).await.unwrap() }
        });
        assert_eq!(inserted.await, 1);
        let updated = winners(|at| {
            let (backend, key) = (backend.clone(), named(at, 2));
            async move { backend.update(&key, 1).await.unwrap() }
        });
        assert_eq!(updated.await, 1);
        assert!(!backend.insert(&key).await.unwrap());
        let stored = backend.get_many(&[key.lookup_key()]).await.unwrap();
        assert_eq!((stored.len(), stored[0].version), (1, 2));
        assert!(stored[0].name.is_some());
        let page = backend
            .list_for_user(USER, &PageRequest::new())
            .await
            .unwrap();
        assert_eq!(page.len(), 1);

        let revoked = winners(|_| {
            let (store, id) = (store.clone(), key.id);
            async move { store.revoke(&id).await.unwrap() }
        });
        assert_eq!(revoked.await, 1);
    }
}

/// A backend where others get in first: so many updates find another version, and so many
/// insertions find their id taken.
#[derive(Clone, Default)]
struct Contended {
    inner: MemoryBackend,
    updates_lost: Arc<AtomicUsize>,
    insertions_lost: Arc<AtomicUsize>,
    /// Updates of these fail, and where it is set, all pages but the first.
    broken: Arc<Mutex<Vec<KeyId>>>,
    lists_break: Arc<AtomicBool>,
    /// The ids of all insertions, lost or not.
    drawn: Arc<Mutex<Vec<KeyId>>>,
}

/// Whether this one is lost, and then one fewer of those to come.
fn is_lost(left: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}

impl KeySource for Contended {
    forward_to_backend!(self => self.inner; get_many);
}

impl ApiKeyBackend for Contended {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        self.drawn.lock().unwrap().push(key.id);
        if is_lost(&self.insertions_lost) {
            return Ok(false);
        }
        self.inner.insert(key).await
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        if self.broken.lock().unwrap().contains(&key.id) {
            return Err(BackendError::unavailable(key.id.to_string()));
        }
        if is_lost(&self.updates_lost) {
            // Another writer was first.
            let found = self.inner.get_many(&[key.lookup_key()]).await?;
            for mut other in found {
                other.version += 1;
                self.inner.update(&other, other.version - 1).await?;
            }
            return Ok(false);
        }
        self.inner.update(key, expected).await
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        if page.cursor().is_some() && self.lists_break.load(Ordering::SeqCst) {
            return Err(BackendError::unavailable("the list ended"));
        }
        self.inner.list_for_user(user_id, page).await
    }

    forward_to_backend!(self => self.inner; delete, touch);
}

#[tokio::test]
async fn one_key_that_cannot_be_revoked_saves_none_of_the_others() {
    let backend = Contended::default();
    let store = store_on(backend.clone(), Peppers::ephemeral()).await;
    // Two pages and a bit; the list is from new to old, and ids decide within one moment.
    let mut ids = Vec::new();
    for _ in 0..2_010 {
        ids.push(store.create(new_key()).await.unwrap().key().id);
    }
    ids.sort_unstable_by(|one, other| other.cmp(one));
    *backend.broken.lock().unwrap() = vec![ids[5], ids[1_500]];
    let revoked = async || {
        let mut revoked = 0;
        for id in &ids {
            let key = store.get(id).await.unwrap().unwrap();
            revoked += usize::from(key.revoked_at.is_some());
        }
        revoked
    };
    let first_error = async || {
        let error = store.revoke_all_for_user(USER).await.unwrap_err();
        chain(&error).last().unwrap().to_string()
    };
    backend.lists_break.store(true, Ordering::SeqCst);
    assert_eq!(first_error().await, "the list ended");
    assert_eq!(revoked().await, 999);
    backend.lists_break.store(false, Ordering::SeqCst);
    // The oldest first.
    assert_eq!(first_error().await, ids[1_500].to_string());
    assert_eq!(revoked().await, 2_008);
    backend.broken.lock().unwrap().clear();
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 2);
}

#[tokio::test]
async fn a_suspension_that_others_get_before_is_tried_again_and_at_last_reported() {
    let backend = Contended::default();
    let store = store_on(backend.clone(), Peppers::ephemeral()).await;
    let token = store.create(new_key()).await.unwrap().token().clone();
    backend.updates_lost.store(usize::MAX, Ordering::SeqCst);
    let id = token.key_id().unwrap();
    let error = store.disable(&id).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(other) if other == id));
    // Nor can it be revoked by a backend that does it by comparing versions.
    let error = store.revoke(&id).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(verified(&store, token.expose()).await, "good");
    backend.updates_lost.store(3, Ordering::SeqCst);
    assert!(store.disable(&id).await.unwrap());
    assert_eq!(verified(&store, token.expose()).await, "disabled");
    backend.updates_lost.store(3, Ordering::SeqCst);
    assert!(store.revoke(&id).await.unwrap());
    assert_eq!(verified(&store, token.expose()).await, "revoked");
}

#[tokio::test]
async fn a_new_key_whose_id_is_taken_gets_another_and_at_last_is_reported() {
    let backend = Contended::default();
    let store = store_on(backend.clone(), Peppers::ephemeral()).await;
    let drawn = || mem::take(&mut *backend.drawn.lock().unwrap());

    backend.insertions_lost.store(1, Ordering::SeqCst);
    let issued = store.create(new_key()).await.unwrap();
    let ids = drawn();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(
        (issued.key().id, issued.token().key_id().unwrap()),
        (ids[1], ids[1])
    );
    assert_eq!(verified(&store, issued.token().expose()).await, "good");

    backend.insertions_lost.store(usize::MAX, Ordering::SeqCst);
    let error = store.create(new_key()).await.map(drop).unwrap_err();
    let ids = drawn();
    let different: HashSet<_> = ids.iter().collect();
    assert!(ids.len() > 1 && different.len() == ids.len(), "{ids:?}");
    assert!(matches!(error, StoreError::Taken(id) if id == *ids.last().unwrap()));
    let page = store.list_for_user(USER, PageRequest::new()).await.unwrap();
    assert_eq!(page.keys.len(), 1);
}

#[tokio::test]
async fn a_write_never_moves_the_last_use_back() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let mut key = fixture.store.get(&id_of(&token)).await.unwrap().unwrap();
    assert_eq!(verified(&fixture.store, &token).await, "good");
    assert_eq!(key.last_used_at, None);
    key.version = 2;
    assert!(fixture.backend.update(&key, 1).await.unwrap());
    let key = fixture.store.get(&key.id).await.unwrap().unwrap();
    assert_eq!((key.last_used_at, key.version), (Some(start()), 2));
}

#[tokio::test]
async fn a_store_reads_tokens_of_its_own_brand_alone() {
    let backend = MemoryBackend::new();
    let brand = Brand::new("acme").unwrap();
    let peppers = Peppers::new(pepper("v1"));
    let ours = ApiKeyStore::builder(backend.clone())
        .peppers(peppers.clone())
        .brand(brand);
    let ours = ours.build().await.unwrap();
    let theirs = store_on(backend, peppers).await;
    let mine = ours.create(new_key()).await.unwrap().token().clone();
    assert!(mine.expose().starts_with("acme.key_"));
    assert_eq!(verified(&ours, mine.expose()).await, "good");
    assert_eq!(verified(&theirs, mine.expose()).await, "malformed");
    let default = theirs.create(new_key()).await.unwrap().token().clone();
    assert_eq!(verified(&ours, default.expose()).await, "malformed");
    assert!(!ours.is_active(default.expose()).await.unwrap());
    assert!(!ours.revoke_token(default.expose()).await.unwrap());
    assert_eq!(verified(&theirs, default.expose()).await, "good");
}

#[tokio::test]
async fn stores_that_share_a_backend_share_keys_and_their_end() {
    let backend = MemoryBackend::new();
    let peppers = Peppers::new(pepper("v1"));
    let one = store_on(backend.clone(), peppers.clone()).await;
    let other = store_on(Arc::new(backend), peppers).await;
    let token = one.create(new_key()).await.unwrap().token().clone();
    assert_eq!(verified(&other, token.expose()).await, "good");
    assert!(other.revoke(&token.key_id().unwrap()).await.unwrap());
    assert_eq!(verified(&one, token.expose()).await, "revoked");
    assert!(!one.revoke(&token.key_id().unwrap()).await.unwrap());
}

#[tokio::test]
async fn retired_peppers_verify_and_unknown_ones_are_no_verdict_on_the_secret() {
    let backend = MemoryBackend::new();
    let weak = Pepper::weak_for_import("v0", "x").unwrap();
    let imported = store_on(backend.clone(), Peppers::new(weak.clone())).await;
    let before = store_on(backend.clone(), Peppers::new(pepper("v1"))).await;
    let after = Peppers::new(pepper("v2"))
        .with_retired(pepper("v1"))
        .unwrap();
    let after = store_on(backend, after.with_retired(weak).unwrap()).await;
    for store in [&imported, &before, &after] {
        let issued = store.create(new_key()).await.unwrap();
        let token = issued.token().expose();
        assert_eq!(verified(&after, token).await, "good");
        assert_eq!(
            verified(&after, &with_wrong_secret(token)).await,
            "wrong secret"
        );
    }
    let issued = after.create(new_key()).await.unwrap();
    assert_eq!(issued.key().secret_hash.pepper().unwrap().as_str(), "v2");
    for token in [
        issued.token().expose(),
        &with_wrong_secret(issued.token().expose()),
    ] {
        let error = before.verify(token).await.unwrap_err();
        let VerifyError::Unavailable(cause) = error else {
            panic!("{error:?}");
        };
        assert!(cause.unknown_pepper().is_some() && cause.backend().is_none());
        assert_eq!(cause.to_string(), "this node doesn't know the pepper v2");
        assert!(matches!(
            before.is_active(token).await,
            Err(StoreError::Unavailable(_))
        ));
        assert!(matches!(
            before.revoke_token(token).await,
            Err(StoreError::Unavailable(_))
        ));
    }
    assert_eq!(verified(&after, issued.token().expose()).await, "good");
}

#[tokio::test]
async fn stores_with_an_ephemeral_pepper_each_give_no_verdict_on_the_others_keys() {
    async fn assert_no_verdict(store: &ApiKeyStore, token: &str) {
        for token in [token, &with_wrong_secret(token)] {
            let error = store.verify(token).await.unwrap_err();
            let VerifyError::Unavailable(cause) = error else {
                panic!("{error:?}");
            };
            assert!(cause.unknown_pepper().is_some());
            for error in [
                store.is_active(token).await.unwrap_err(),
                store.revoke_token(token).await.unwrap_err(),
            ] {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
            }
        }
    }

    let backend = MemoryBackend::new();
    let one = store_on(backend.clone(), Peppers::ephemeral()).await;
    let other = store_on(backend, Peppers::ephemeral()).await;
    let first = one.create(new_key()).await.unwrap().token().clone();
    // A pepper is drawn at its first use, which this isn't.
    assert_no_verdict(&other, first.expose()).await;

    let second = other.create(new_key()).await.unwrap().token().clone();
    for _ in 0..2 {
        assert_no_verdict(&other, first.expose()).await;
        assert_no_verdict(&one, second.expose()).await;
        assert_eq!(verified(&one, first.expose()).await, "good");
        assert_eq!(verified(&other, second.expose()).await, "good");
    }
}

/// Answers every question with the same records, or that one can't be read.
struct Whatever(Option<Vec<ApiKey>>);

impl KeySource for Whatever {
    async fn get_many(&self, _: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let corrupt = || BackendError::corrupt("the hash has 3 bytes");
        self.0.clone().ok_or_else(corrupt)
    }
}

#[tokio::test]
async fn a_source_of_ones_own_is_believed_only_in_what_it_was_asked() {
    let store = store_on(MemoryBackend::new(), Peppers::new(pepper("v1"))).await;
    let [first, second] = [(); 2].map(|()| store.create(new_key()));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let resolver = async |source| {
        let builder = CachedResolver::builder(source).peppers(Peppers::new(pepper("v1")));
        builder
            .clock(ManualClock::new(start()))
            .build()
            .await
            .unwrap()
    };
    let records = vec![first.key().clone(), second.key().clone()];
    let both = resolver(Whatever(Some(records))).await;
    for issued in [&first, &second] {
        let caller = both.resolve(issued.token()).await.unwrap();
        assert_eq!(*caller.key_id(), issued.key().id);
    }
    // Another id with a secret that would fit what the source sends unasked.
    let secret = first.token().expose().rsplit('.').next().unwrap();
    let chimera = format!("pk.key_{}.{secret}", "a".repeat(32))
        .parse()
        .unwrap();
    assert_eq!(outcome(&both.resolve(&chimera).await), "unknown");

    // Of two records of one key, one may be revoked.
    let mut revoked = first.key().clone();
    revoked.revoked_at = Some(start());
    for records in [
        [first.key().clone(), revoked.clone()],
        [revoked, first.key().clone()],
    ] {
        let twice = resolver(Whatever(Some(records.into()))).await;
        assert_eq!(outcome(&twice.resolve(first.token()).await), "unavailable");
    }

    let corrupt = resolver(Whatever(None)).await;
    let error = corrupt.resolve(first.token()).await.unwrap_err();
    let VerifyError::Unavailable(error) = error else {
        panic!("{error:?}");
    };
    assert!(error.backend().unwrap().is_corrupt());
    assert_eq!(error.source().unwrap().to_string(), "the hash has 3 bytes");
}

/// Lists whatever a test says, whoever is asked for.
#[derive(Clone)]
struct Lists(Vec<ApiKey>, MemoryBackend);

impl KeySource for Lists {
    async fn get_many(&self, _: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        Ok(self.0.clone())
    }
}

impl ApiKeyBackend for Lists {
    async fn list_for_user(&self, _: &str, _: &PageRequest) -> Result<Vec<ApiKey>, BackendError> {
        Ok(self.0.clone())
    }

    forward_to_backend!(self => self.1; insert, update, delete, touch);
}

#[tokio::test]
async fn a_backend_that_lists_other_keys_than_were_asked_for_revokes_none() {
    let keys = MemoryBackend::new();
    let store = store_on(keys.clone(), Peppers::new(pepper("v1"))).await;
    let mine = store.create(new_key()).await.unwrap().key().clone();
    let mut others = mine.clone();
    others.user_id = USER.to_uppercase();
    // Somebody else's; the same one twice; from old to new.
    let mut older = mine.clone();
    (older.id, older.created_at) = (KeyId::from_bytes([0; 24]), start() - Duration::from_secs(1));
    for listed in [
        vec![others],
        vec![mine.clone(), mine.clone()],
        vec![older, mine.clone()],
    ] {
        let lists = Lists(listed, keys.clone());
        let store = store_on(lists, Peppers::new(pepper("v1"))).await;
        let error = store.revoke_all_for_user(USER).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(store.list_for_user(USER, PageRequest::new()).await.is_err());
    }
    let stored = store.get(&mine.id).await.unwrap().unwrap();
    assert_eq!(stored.revoked_at, None);

    // A list that never ends is noticed, and a record that wasn't asked for isn't taken.
    let page = vec![mine.clone(); 1];
    let twice = vec![mine.clone(), mine.clone()];
    let twice = store_on(Lists(twice, keys.clone()), Peppers::new(pepper("v1"))).await;
    assert!(twice.get(&mine.id).await.is_err());
    let endless = store_on(Lists(page, keys), Peppers::new(pepper("v1"))).await;
    let after = PageRequest::new().after(Cursor::of(&mine));
    assert!(endless.list_for_user(USER, after).await.is_err());
    let other = KeyId::from_bytes([1; 24]);
    assert!(endless.get(&other).await.unwrap().is_none());
    assert!(!endless.revoke(&other).await.unwrap());
}

#[tokio::test]
async fn a_store_takes_no_token_of_another_brand_however_it_was_read() {
    let backend = MemoryBackend::new();
    let branded = async |brand| {
        let builder = ApiKeyStore::builder(backend.clone()).peppers(Peppers::new(pepper("v1")));
        let brand = Brand::new(brand).unwrap();
        builder.brand(brand).build().await.unwrap()
    };
    let (test, live) = (branded("test").await, branded("live").await);
    let issued = test.create(new_key()).await.unwrap();
    assert!(test.resolve(issued.token()).await.is_ok());
    assert_eq!(outcome(&live.resolve(issued.token()).await), "unknown");
    assert!(!live.is_active(issued.token().expose()).await.unwrap());
}
