//! Why keys were revoked is kept with them, and the first reason stays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, BackendError, KeySource, MemoryBackend, NewApiKey, Peppers,
    RevocationReason, RevokedKey, Scopes, StoreError, forward_to_backend,
};

use super::{is_the_outage, new_key, pepper, store_on, verified};
use crate::support::{Fixture, USER, id_of, start, unknown_token, with_wrong_secret};

async fn reason_of(store: &ApiKeyStore, token: &str) -> Option<String> {
    let key = store.get(&id_of(token)).await.unwrap().unwrap();
    assert_eq!(key.revoked_at, Some(start()));
    key.revocation_reason.map(|reason| reason.to_string())
}

#[tokio::test]
async fn a_revocation_says_why_and_the_first_one_stays() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let unpaid = || RevocationReason::Other("unpaid".to_owned());
    for (reason, text) in [
        (RevocationReason::Leaked, "leaked"),
        (RevocationReason::Rotated, "rotated"),
        (RevocationReason::OwnerLeft, "owner_left"),
        (RevocationReason::Superseded, "superseded"),
        (unpaid(), "unpaid"),
    ] {
        let (by_id, by_token) = (fixture.token(&[]).await, fixture.token(&[]).await);
        let (id, kind) = (id_of(&by_id), reason.clone());
        assert!(store.revoke_because(&id, kind).await.unwrap());
        let kind = reason.clone();
        assert!(store.revoke_token_because(&by_token, kind).await.unwrap());
        for token in [&by_id, &by_token] {
            assert_eq!(verified(store, token).await, "revoked");
            assert_eq!(reason_of(store, token).await.as_deref(), Some(text));
            // Nobody says otherwise afterwards.
            let other = RevocationReason::Other("another".to_owned());
            let id = id_of(token);
            assert!(!store.revoke_because(&id, other.clone()).await.unwrap());
            let again = store.revoke_token_because(token, other.clone());
            assert!(!again.await.unwrap());
            assert!(!store.revoke(&id).await.unwrap());
            let all = store.revoke_all_for_user_because(USER, other).await;
            assert_eq!(all.unwrap(), 0);
            assert!(store.report_leaked([token]).await.unwrap()[0].is_true_positive());
            assert_eq!(reason_of(store, token).await.as_deref(), Some(text));
        }
    }
    let without = fixture.token(&[]).await;
    assert!(store.revoke(&id_of(&without)).await.unwrap());
    assert!(
        !store
            .revoke_because(&id_of(&without), unpaid())
            .await
            .unwrap()
    );
    assert_eq!(reason_of(store, &without).await, None);

    let unknown = unknown_token();
    assert!(
        !store
            .revoke_because(&id_of(&unknown), unpaid())
            .await
            .unwrap()
    );
    let good = fixture.token(&[]).await;
    let wrong = with_wrong_secret(&good);
    for token in [&wrong, &unknown, "pk.x"] {
        assert!(!store.revoke_token_because(token, unpaid()).await.unwrap());
    }
    assert_eq!(verified(store, &good).await, "good");
}

#[tokio::test]
async fn a_reported_leak_is_the_reason() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    assert!(fixture.store.report_leaked([&token]).await.unwrap()[0].is_true_positive());
    let reason = reason_of(&fixture.store, &token).await;
    assert_eq!(reason.as_deref(), Some("leaked"));
}

#[tokio::test]
async fn a_reason_that_can_not_be_stored_is_refused_before_anything_is_revoked() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let token = fixture.token(&[]).await;
    for text in ["", "a\nb", "a\u{202e}b", "\u{1b}[2J", &"é".repeat(128)] {
        let reason = || RevocationReason::Other(text.to_owned());
        for refused in [
            store
                .revoke_because(&id_of(&token), reason())
                .await
                .map(drop),
            store.revoke_token_because(&token, reason()).await.map(drop),
            store
                .revoke_all_for_user_because(USER, reason())
                .await
                .map(drop),
        ] {
            let Err(StoreError::InvalidKey(invalid)) = refused else {
                panic!("{text:?}: {refused:?}");
            };
            assert_eq!(invalid.field(), "revocation_reason");
        }
    }
    assert_eq!(verified(store, &token).await, "good");
    let longest = RevocationReason::Other("é".repeat(127) + "e");
    let revoked = store.revoke_because(&id_of(&token), longest.clone()).await;
    assert!(revoked.unwrap());
    let key = store.get(&id_of(&token)).await.unwrap().unwrap();
    assert_eq!(key.revocation_reason, Some(longest));
}

/// A database keeps the text alone.
#[tokio::test]
async fn a_text_that_stands_for_another_reason_is_that_one() {
    let fixture = Fixture::new().await;
    let id = id_of(&fixture.token(&[]).await);
    let reason = RevocationReason::Other("leaked".to_owned());
    fixture.store.revoke_because(&id, reason).await.unwrap();
    let key = fixture.store.get(&id).await.unwrap().unwrap();
    assert_eq!(key.revocation_reason, Some(RevocationReason::Leaked));
}

#[tokio::test]
async fn g1_all_keys_of_a_user_end_at_once_for_one_reason() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let revoked_before = fixture.revoked_token().await;
    let other = NewApiKey::for_user("user_2", Scopes::none());
    let other = fixture.issue(other).await;
    let mut tokens = vec![
        fixture.disabled_token().await,
        fixture.expired_token().await,
    ];
    for _ in 0..20 {
        tokens.push(fixture.token(&[]).await);
    }
    for token in &tokens[2..] {
        assert_eq!(verified(store, token).await, "good");
    }
    let reason = RevocationReason::OwnerLeft;
    let revoked = store.revoke_all_for_user_because(USER, reason).await;
    assert_eq!(revoked.unwrap(), tokens.len());
    let reads = fixture.backend.reads();
    assert_eq!(verified(store, &other).await, "good");
    assert_eq!(fixture.backend.reads(), reads + 1);
    for token in &tokens {
        assert_eq!(verified(store, token).await, "revoked");
        assert_eq!(reason_of(store, token).await.as_deref(), Some("owner_left"));
    }
    assert_eq!(reason_of(store, &revoked_before).await, None);
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 0);
    assert_eq!(store.revoke_all_for_user("nobody").await.unwrap(), 0);
}

/// Ends all keys of a user, tells nobody, and then answers so.
#[derive(Clone)]
struct Untold {
    inner: MemoryBackend,
    answers: Answers,
    asked: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Answers {
    Well,
    NotKnown,
    Never,
}

impl Untold {
    fn new(answers: Answers) -> Self {
        Self {
            inner: MemoryBackend::new(),
            answers,
            asked: Arc::default(),
        }
    }
}

impl KeySource for Untold {
    forward_to_backend!(self => self.inner; get_many);
}

impl ApiKeyBackend for Untold {
    async fn revoke_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
        at_most: usize,
    ) -> Result<Vec<RevokedKey>, BackendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let inner = &self.inner;
        let revoked = inner.revoke_for_user(user_id, at, reason, at_most).await;
        match self.answers {
            Answers::Well => revoked,
            Answers::NotKnown => Err(BackendError::unavailable("the answer was lost")),
            Answers::Never => panic!("the wire is on fire"),
        }
    }

    forward_to_backend!(self => self.inner; insert, update, delete, list_for_user, touch);
}

/// Also those that another has ended, of which nobody has told.
#[tokio::test]
async fn g1_no_key_of_a_user_is_let_in_from_memory_after_all_were_revoked() {
    let backend = Untold::new(Answers::Well);
    let store = store_on(backend.clone(), Peppers::new(pepper("v1"))).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(store.create(new_key()).await.unwrap().token().clone());
        let token = tokens.last().unwrap().expose();
        assert_eq!(verified(&store, token).await, "good");
    }
    let mut key = store
        .get(&tokens[0].key_id().unwrap())
        .await
        .unwrap()
        .unwrap();
    (key.revoked_at, key.version) = (Some(start()), 2);
    assert!(backend.update(&key, 1).await.unwrap());
    assert_eq!(verified(&store, tokens[0].expose()).await, "good");

    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 2);
    for token in &tokens {
        assert_eq!(verified(&store, token.expose()).await, "revoked");
    }
}

#[tokio::test]
async fn g1_keys_of_a_user_are_read_anew_where_nobody_knows_whether_they_were_revoked() {
    for answers in [Answers::NotKnown, Answers::Never] {
        let backend = Untold::new(answers);
        let store = store_on(backend.clone(), Peppers::new(pepper("v1"))).await;
        let token = store.create(new_key()).await.unwrap().token().clone();
        let other = NewApiKey::for_user("user_2", Scopes::none());
        let other = store.create(other).await.unwrap().token().clone();
        for token in [&token, &other] {
            assert_eq!(verified(&store, token.expose()).await, "good");
        }
        let misses = store.cache_stats().misses;
        let error = store.revoke_all_for_user(USER).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert_eq!(backend.asked.load(Ordering::SeqCst), 1);
        assert_eq!(verified(&store, token.expose()).await, "revoked");
        // Others' keys are still cached: an outage mustn't end what works.
        assert_eq!(verified(&store, other.expose()).await, "good");
        assert_eq!(store.cache_stats().misses, misses + 1);
    }
}

#[tokio::test]
async fn g3_an_outage_is_an_error_for_who_revokes_for_a_reason() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let id = id_of(&token);
    fixture.set_broken(true);
    let store = &fixture.store;
    let leaked = RevocationReason::Leaked;
    for error in [
        store.revoke_because(&id, leaked.clone()).await.unwrap_err(),
        store
            .revoke_token_because(&token, leaked.clone())
            .await
            .unwrap_err(),
        store
            .revoke_all_for_user_because(USER, leaked)
            .await
            .unwrap_err(),
    ] {
        assert!(is_the_outage(&error), "{error}");
    }
}
