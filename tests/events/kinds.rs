//! What is told, and what it says.

use tower_api_key::{
    KeyUpdate, MemoryBackend, MissingScopes, NewApiKey, OldKey, OldPatterns, OldScopes,
    OldWildcard, PepperId, Scopes, StoreError, VerifyErrorKind,
};

use super::{SECOND, builder, heard, names, new_key};
use crate::support::{Fixture, USER, id_of, start, unknown_token, with_wrong_secret};

#[tokio::test]
async fn each_change_is_told_once_with_its_key_and_whose_it_is() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut events = store.events();
    let (token, id) = new_key(store).await;
    fixture.clock.advance(SECOND);
    store
        .update(&id, KeyUpdate::new().name("CI"))
        .await
        .unwrap();
    assert!(store.disable(&id).await.unwrap());
    assert!(store.enable(&id).await.unwrap());
    assert!(store.revoke_token(&token).await.unwrap());
    assert!(store.delete(&id).await.unwrap());

    let heard = heard(&mut events);
    let expected = [
        "key.created",
        "key.updated",
        "key.disabled",
        "key.enabled",
        "key.revoked",
        "key.deleted",
    ];
    assert_eq!(names(&heard), expected);
    for (event, number) in heard.iter().zip(1..) {
        assert_eq!((event.key_id, event.number), (Some(id), number));
        assert_eq!(event.user_id.as_deref(), Some(USER));
        let passed = u32::from(number > 1);
        assert_eq!(event.at, start() + passed * SECOND);
    }
    assert_eq!((heard[4].name(), heard[4].reason()), ("key.revoked", None));
}

#[tokio::test]
async fn every_key_of_a_user_that_is_revoked_is_told() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(new_key(store).await.1);
    }
    assert!(store.revoke(&ids[0]).await.unwrap());
    let mut events = store.events();
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 2);
    let heard = heard(&mut events);
    assert_eq!(names(&heard), ["key.revoked"; 2]);
    let mut told: Vec<_> = heard.iter().filter_map(|event| event.key_id).collect();
    told.sort();
    ids.remove(0);
    ids.sort();
    assert_eq!(told, ids);
}

#[tokio::test]
async fn what_changes_nothing_is_not_told() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (token, id) = new_key(store).await;
    let unknown = id_of(&unknown_token());
    assert!(store.revoke(&id).await.unwrap());

    let mut events = store.events();
    assert!(!store.revoke(&id).await.unwrap());
    assert!(!store.revoke_token(&token).await.unwrap());
    assert!(!store.revoke_token(with_wrong_secret(&token)).await.unwrap());
    assert!(!store.disable(&id).await.unwrap());
    assert!(!store.enable(&id).await.unwrap());
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 0);
    for id in [&unknown, &id] {
        let stale = KeyUpdate::new().name("CI").if_version(7);
        let updated = store.update(id, stale).await;
        assert!(matches!(updated, Ok(None) | Err(StoreError::Conflict(_))));
    }
    assert!(!store.revoke(&unknown).await.unwrap());
    assert!(!store.delete(&unknown).await.unwrap());
    let invalid = NewApiKey::for_user("", Scopes::none());
    assert!(store.create(invalid).await.is_err());
    fixture.set_broken(true);
    assert!(store.delete(&id).await.is_err());
    assert_eq!(names(&heard(&mut events)), <[&str; 0]>::default());
}

#[tokio::test]
async fn a_rejection_is_told_with_its_reason_and_nothing_is_told_of_what_is_accepted() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let good = fixture.token(&[]).await;
    let tokens = [
        (unknown_token(), VerifyErrorKind::Unknown),
        (with_wrong_secret(&good), VerifyErrorKind::WrongSecret),
        (fixture.expired_token().await, VerifyErrorKind::Expired),
        (fixture.revoked_token().await, VerifyErrorKind::Revoked),
        (fixture.disabled_token().await, VerifyErrorKind::Disabled),
    ];
    let mut events = store.events();
    // Read, then from memory, then read again.
    for (token, reason) in &tokens {
        for _ in 0..2 {
            assert_eq!(store.verify(token).await.unwrap_err().kind(), *reason);
        }
        store.verify_fresh(token).await.unwrap_err();
    }
    let told = heard(&mut events);
    assert_eq!(told.len(), 3 * tokens.len());
    for ((token, reason), told) in tokens.iter().zip(told.chunks(3)) {
        for event in told {
            let of = (event.name(), event.reason());
            assert_eq!(of, ("key.rejected", Some(reason.as_str())));
            assert_eq!(event.key_id, Some(id_of(token)));
            assert_eq!((event.user_id.as_deref(), event.at), (None, start()));
        }
    }
    fixture.set_broken(true);
    store.verify(&good).await.unwrap_err();
    fixture.set_broken(false);
    let reason = VerifyErrorKind::Unavailable.as_str();
    assert_eq!(heard(&mut events)[0].reason(), Some(reason));

    // Accepted, no token at all, and asked by nobody who wants to get in.
    store.verify(&good).await.unwrap();
    store.verify(format!("{good}x")).await.unwrap_err();
    assert!(!store.is_active(unknown_token()).await.unwrap());
    assert!(
        !store
            .has_scope(unknown_token(), "notes:read")
            .await
            .unwrap()
    );
    assert_eq!(names(&heard(&mut events)), <[&str; 0]>::default());
}

#[tokio::test]
async fn a_token_that_is_reported_as_leaked_is_told_before_its_revocation_and_only_with_the_right_secret()
 {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let mut events = fixture.store.events();
    let reports = [with_wrong_secret(&token), unknown_token(), token.clone()];
    fixture.store.report_leaked(&reports).await.unwrap();
    let told = heard(&mut events);
    assert_eq!(names(&told), ["key.leak_reported", "key.revoked"]);
    assert!(told.iter().all(|event| event.key_id == Some(id_of(&token))));
    fixture.store.report_leaked([&token]).await.unwrap();
    assert_eq!(names(&heard(&mut events)), ["key.leak_reported"]);
}

#[tokio::test]
async fn a_key_that_is_taken_over_is_told_as_such_and_once() {
    let fixture = Fixture::new().await;
    let mut events = fixture.store.events();
    let meaning = OldScopes {
        missing: MissingScopes::Refuse,
        wildcard: OldWildcard::Refuse,
        patterns: OldPatterns::Refuse,
    };
    let old = || {
        let id = format!("key_{}", "a".repeat(32));
        let pepper = PepperId::new("v1").unwrap();
        OldKey::by_hmac(id, pepper, "ab".repeat(32), USER).scopes(["notes:read"])
    };
    for _ in 0..2 {
        let _ = fixture.store.import(old(), &meaning).await.unwrap();
    }
    let told = heard(&mut events);
    assert_eq!(names(&told), ["key.imported"]);
    assert_eq!(told[0].key_id, Some(id_of(&unknown_token())));
    assert_eq!(told[0].user_id.as_deref(), Some(USER));
}

#[tokio::test]
async fn a_key_that_a_key_has_made_says_which() {
    let fixture = Fixture::new().await;
    let maker = fixture.token(&["notes:read"]).await;
    let caller = fixture.store.verify(&maker).await.unwrap();
    let mut events = fixture.store.events();
    let new = NewApiKey::for_user(USER, Scopes::none());
    let _ = fixture.store.create_as(&caller, new).await.unwrap();
    let made = &heard(&mut events)[0];
    let of = (made.name(), made.kind.made_by());
    assert_eq!(of, ("key.created", Some(id_of(&maker))));
}

#[tokio::test]
async fn what_another_store_does_is_told_there() {
    let backend = MemoryBackend::new();
    let one = builder(backend.clone()).build().await.unwrap();
    let other = builder(backend).build().await.unwrap();
    let (mut here, mut there) = (one.events(), other.events());
    let (_, id) = new_key(&one).await;
    assert!(other.revoke(&id).await.unwrap());
    assert_eq!(names(&heard(&mut here)), ["key.created"]);
    assert_eq!(names(&heard(&mut there)), ["key.revoked"]);
}
