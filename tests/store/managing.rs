//! Keys are made, listed and ended.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tower_api_key::{
    KeyId, KeySource, KeyStatus, KeyUpdate, MemoryBackend, NewApiKey, PageRequest, Peppers, Scopes,
    StoreError,
};

use super::{SECOND, is_the_outage, new_key, pepper, store_on, verified};
use crate::support::{Fixture, USER, chain, id_of, start, unknown_token, with_wrong_secret};

#[tokio::test]
async fn a_new_key_shows_its_token_once_and_only_a_hash_is_kept() {
    let backend = MemoryBackend::new();
    let peppers = Peppers::new(pepper("v1"));
    let store = store_on(backend.clone(), peppers.clone()).await;
    let new = NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap()).name("CI");
    let issued = store.create(new.clone()).await.unwrap();
    let token = issued.token();

    let records = backend.get_many(&[token.lookup_key()]).await.unwrap();
    for key in [&records[0], issued.key()] {
        assert_eq!(
            (key.id, key.user_id.as_str()),
            (token.key_id().unwrap(), USER)
        );
        assert_eq!(key.name.as_deref(), Some("CI"));
        assert_eq!(key.scopes.to_string(), "notes:read");
        assert_eq!(key.display_prefix, token.display_prefix());
        assert_eq!(
            key.secret_hash.to_hex(),
            peppers.hash(token).unwrap().to_hex()
        );
        assert_eq!((key.created_at, key.version), (start(), 1));
        assert_eq!((key.expires_at, key.last_used_at), (None, None));
        assert_eq!(key.status(start()), KeyStatus::Active);
    }
    let caller = store.verify(token.expose()).await.unwrap();
    assert_eq!((caller.user_id(), caller.name()), (USER, Some("CI")));
    assert_eq!(*caller.key_id(), token.key_id().unwrap());
    assert!(caller.has_scope("notes:read") && !caller.has_scope("notes:write"));

    let other = store.create(new).await.unwrap();
    assert_ne!(other.token().key_id().unwrap(), token.key_id().unwrap());
    assert_ne!(other.token().expose()[40..], token.expose()[40..]);
}

#[tokio::test]
async fn a_user_id_or_a_name_that_cannot_be_stored_is_refused() {
    let Fixture { store, backend, .. } = Fixture::new().await;
    let user = |id: &str| NewApiKey::for_user(id, Scopes::none());
    let name = |name: &str| new_key().name(name);
    let longest = "é".repeat(127) + "e";
    for new in [
        user(&longest),
        name(&longest),
        name(""),
        user("a b"),
        name("O'Neil \"x\" ☃"),
    ] {
        assert!(store.create(new).await.is_ok());
    }
    let longer = "é".repeat(128);
    let refused = [
        ("user_id", user("")),
        ("user_id", user(&longer)),
        ("user_id", user("a\0b")),
        ("user_id", user("a\u{85}b")),
        ("name", name(&longer)),
        ("name", name("a\nb")),
        ("name", name("a\rb")),
        ("name", name("\u{1b}[2J")),
        ("name", name("a\u{7f}")),
        ("name", name("a\u{2028}b")),
        ("name", name("a\u{202e}b")),
    ];
    backend.set_broken(true);
    for (field, new) in refused {
        let error = store.create(new).await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidKey(_)), "{error:?}");
        let text = format!("{error:?}");
        assert_eq!(text.matches(&format!("`{field}`")).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn only_the_right_secret_revokes_by_token() {
    let fixture = Fixture::new().await;
    for token in [
        fixture.token(&[]).await,
        fixture.expired_token().await,
        fixture.disabled_token().await,
    ] {
        let before = verified(&fixture.store, &token).await;
        for other in [
            with_wrong_secret(&token),
            unknown_token(),
            format!("{token}x"),
        ] {
            assert!(!fixture.store.revoke_token(other).await.unwrap());
        }
        assert_eq!(verified(&fixture.store, &token).await, before);
        assert!(fixture.store.revoke_token(&token).await.unwrap());
        assert!(!fixture.store.revoke_token(&token).await.unwrap());
        assert_eq!(verified(&fixture.store, &token).await, "revoked");
    }
}

#[tokio::test]
async fn a_revoked_key_is_kept_with_its_mark_until_it_is_deleted() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let id = id_of(&token);
    let store = &fixture.store;
    assert_eq!(verified(store, &token).await, "good");
    fixture.clock.advance(SECOND);
    assert!(store.revoke(&id).await.unwrap());
    fixture.clock.advance(SECOND);
    assert!(!store.revoke(&id).await.unwrap());
    assert!(!store.revoke(&id_of(&unknown_token())).await.unwrap());
    let key = store.get(&id).await.unwrap().unwrap();
    assert_eq!((key.revoked_at, key.version), (Some(start() + SECOND), 2));
    assert_eq!(key.last_used_at, Some(start()));

    assert!(store.delete(&id).await.unwrap());
    assert!(!store.delete(&id).await.unwrap());
    assert!(!store.revoke(&id).await.unwrap());
    assert!(store.get(&id).await.unwrap().is_none());
    assert_eq!(verified(store, &token).await, "unknown");
    let page = store.list_for_user(USER, PageRequest::new()).await.unwrap();
    assert!(page.keys.is_empty());
}

#[tokio::test]
async fn revoking_all_ends_every_key_of_that_user_and_no_other() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let other = fixture
        .issue(NewApiKey::for_user("user_10", Scopes::none()))
        .await;
    let mut tokens = vec![fixture.revoked_token().await, fixture.expired_token().await];
    for _ in 0..=2 * PageRequest::MAX_LIMIT {
        tokens.push(fixture.token(&[]).await);
    }
    fixture.set_broken(true);
    assert!(is_the_outage(
        &store.revoke_all_for_user(USER).await.unwrap_err()
    ));
    fixture.set_broken(false);
    assert_eq!(
        store.revoke_all_for_user(USER).await.unwrap(),
        tokens.len() - 1
    );
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 0);
    assert_eq!(store.revoke_all_for_user("nobody").await.unwrap(), 0);
    for token in &tokens {
        assert_eq!(verified(store, token).await, "revoked");
    }
    assert_eq!(verified(store, &other).await, "good");
}

#[tokio::test]
async fn pages_go_from_new_to_old_and_neither_repeat_nor_hide_a_key() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    // Equal times, and a clock that steps back.
    for seconds in [50, 50, 50, 50, 90, 10, 10, 50, 70, 30] {
        fixture.clock.set(start() + Duration::from_secs(seconds));
        fixture.token(&[]).await;
        fixture
            .issue(NewApiKey::for_user("user_2", Scopes::none()))
            .await;
    }
    fixture.revoked_token().await;
    fixture.expired_token().await;
    let all = store.list_for_user(USER, PageRequest::new()).await.unwrap();
    let expected: Vec<KeyId> = all.keys.iter().map(|key| key.id).collect();
    assert_eq!(expected.len(), 12);
    assert!(all.next.is_none() && all.keys.iter().all(|key| key.user_id == USER));
    let places = all.keys.iter().map(|key| (key.created_at, key.id));
    assert!(places.is_sorted_by(|one, next| one > next));
    let statuses: Vec<_> = all.keys.iter().map(|key| key.status(start())).collect();
    assert!(statuses.contains(&KeyStatus::Revoked) && statuses.contains(&KeyStatus::Expired));

    for limit in 1..=13 {
        let mut request = PageRequest::new().limit(limit);
        let mut seen = Vec::new();
        let mut created = HashSet::new();
        loop {
            let page = store.list_for_user(USER, request).await.unwrap();
            assert!(page.keys.len() == limit || page.next.is_none());
            seen.extend(page.keys.iter().map(|key| key.id));
            let Some(next) = page.next else {
                break;
            };
            for seconds in [95, 50, 5] {
                fixture.clock.set(start() + Duration::from_secs(seconds));
                created.insert(id_of(&fixture.token(&[]).await));
            }
            let text = next.to_string();
            request = request.after(text.parse().unwrap());
        }
        let before: Vec<KeyId> = seen
            .into_iter()
            .filter(|id| !created.contains(id))
            .collect();
        assert_eq!(before, expected, "{limit}");
        for id in created {
            assert!(store.delete(&id).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_page_has_one_to_a_thousand_keys() {
    let fixture = Fixture::new().await;
    for _ in 0..=PageRequest::MAX_LIMIT {
        fixture.token(&[]).await;
    }
    let page = PageRequest::new();
    for (request, len) in [
        (page, 50),
        (page.limit(0), 1),
        (page.limit(1), 1),
        (page.limit(1_000), 1_000),
        (page.limit(1_001), 1_000),
        (page.limit(usize::MAX), 1_000),
    ] {
        let page = fixture.store.list_for_user(USER, request).await.unwrap();
        assert_eq!(page.keys.len(), len);
        assert!(page.next.is_some());
    }
    let nobody = fixture.store.list_for_user("", page).await.unwrap();
    assert!(nobody.keys.is_empty() && nobody.next.is_none());
}

#[tokio::test]
async fn every_error_of_the_database_comes_out_with_its_cause() {
    let Fixture { store, backend, .. } = Fixture::new().await;
    let id = store.create(new_key()).await.unwrap().key().id;
    backend.set_broken(true);
    let errors = [
        store.create(new_key()).await.map(drop).unwrap_err(),
        store.get(&id).await.map(drop).unwrap_err(),
        store
            .list_for_user(USER, PageRequest::new())
            .await
            .map(drop)
            .unwrap_err(),
        store.revoke(&id).await.map(drop).unwrap_err(),
        store.revoke_all_for_user(USER).await.map(drop).unwrap_err(),
        store.delete(&id).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(error, StoreError::Unavailable(_)) && is_the_outage(&error),
            "{error:?}"
        );
        let texts: HashSet<_> = chain(&error).map(ToString::to_string).collect();
        assert_eq!(
            texts.len(),
            chain(&error).count(),
            "an error repeats its cause: {texts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_no_request_that_starts_after_a_revocation_is_accepted() {
    let fixture = Fixture::new().await;
    for _ in 0..50 {
        let token: Arc<str> = fixture.token(&[]).await.into();
        let revoked = Arc::new(AtomicBool::new(false));
        let requests: JoinSet<()> = (0..4)
            .map(|_| {
                let (store, token, revoked) =
                    (fixture.store.clone(), token.clone(), revoked.clone());
                async move {
                    loop {
                        let after = revoked.load(Ordering::SeqCst);
                        let accepted = store.verify(&*token).await.is_ok();
                        if after {
                            return assert!(!accepted);
                        }
                        tokio::task::yield_now().await;
                    }
                }
            })
            .collect();
        assert!(fixture.store.revoke(&id_of(&token)).await.unwrap());
        revoked.store(true, Ordering::SeqCst);
        requests.join_all().await;
    }
}

#[tokio::test]
async fn times_are_stored_as_a_cursor_can_say_them() {
    let fixture = Fixture::new().await;
    for nanos in [1, 999_999, 1_000_001, 1_999_999] {
        fixture.clock.set(start() + Duration::from_nanos(nanos));
        fixture.token(&[]).await;
    }
    let mut seen = HashSet::new();
    let mut page = PageRequest::new().limit(1);
    loop {
        let listed = fixture.store.list_for_user(USER, page).await.unwrap();
        for key in &listed.keys {
            assert!(seen.insert(key.id), "{} comes twice", key.id);
        }
        let Some(next) = listed.next else { break };
        page = page.after(next.to_string().parse().unwrap());
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn states_have_names_that_last() {
    let named = [
        (KeyStatus::Active, "active"),
        (KeyStatus::Expired, "expired"),
        (KeyStatus::Disabled, "disabled"),
        (KeyStatus::Revoked, "revoked"),
    ];
    for (status, name) in named {
        assert_eq!(status.to_string(), name);
    }
}

/// A cache has room for a number of keys, so none may take that of a hundred.
#[tokio::test]
async fn the_scopes_of_a_key_are_bounded_together() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let scopes = |bytes: usize| {
        let scope = |number: usize| format!("{number:03}:{}", "x".repeat(251));
        let mut scopes: Vec<_> = (0..bytes / 256).map(scope).collect();
        scopes.push("x".repeat(bytes % 256));
        Scopes::of(scopes).unwrap()
    };
    let fits = NewApiKey::for_user(USER, scopes(Scopes::MAX_BYTES - 1));
    let id = store.create(fits).await.unwrap().key().id;
    let is_refused = |error: StoreError| match error {
        StoreError::InvalidKey(invalid) => assert_eq!(invalid.field(), "scopes"),
        error => panic!("{error}"),
    };
    let too_long = || scopes(Scopes::MAX_BYTES + 1);
    let new = || NewApiKey::for_user(USER, too_long());
    is_refused(store.create(new()).await.map(drop).unwrap_err());
    let handed_off = store.hand_off(new(), Duration::from_secs(60)).await;
    is_refused(handed_off.map(drop).unwrap_err());
    let update = KeyUpdate::new().scopes(too_long());
    is_refused(store.update(&id, update).await.map(drop).unwrap_err());
}
