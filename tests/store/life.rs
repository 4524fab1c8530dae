//! Keys are changed, suspended, and made by other keys.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_api_key::{ApiKeyBackend, KeyUpdate, NewApiKey, Scopes, StoreError};

use super::{SECOND, is_the_outage, verified};
use crate::support::{Fixture, USER, id_of, start, unknown_token};

fn scopes(scopes: &[&str]) -> Scopes {
    Scopes::of(scopes).unwrap()
}

#[tokio::test]
async fn a_suspended_key_is_refused_from_the_next_request_on_until_it_is_enabled() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["notes:read"]).await;
    let id = id_of(&token);
    let store = &fixture.store;
    assert_eq!(verified(store, &token).await, "good");
    assert!(store.disable(&id).await.unwrap());
    assert_eq!(verified(store, &token).await, "disabled");
    assert!(
        !store.disable(&id).await.unwrap(),
        "it is suspended already"
    );
    let key = store.get(&id).await.unwrap().unwrap();
    assert_eq!((key.disabled_at, key.version), (Some(start()), 2));

    assert!(store.enable(&id).await.unwrap());
    assert_eq!(verified(store, &token).await, "good");
    assert!(!store.enable(&id).await.unwrap(), "it isn't suspended");
    let unknown = id_of(&unknown_token());
    assert!(!store.disable(&unknown).await.unwrap());
    assert!(!store.enable(&unknown).await.unwrap());
}

#[tokio::test]
async fn a_revoked_key_stays_revoked_whatever_is_done_to_it() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let id = id_of(&token);
    assert!(fixture.store.disable(&id).await.unwrap());
    assert!(fixture.store.revoke(&id).await.unwrap());
    fixture.store.enable(&id).await.unwrap();
    assert!(!fixture.store.disable(&id).await.unwrap());
    let update = KeyUpdate::new().never_expires().scopes(scopes(&["*"]));
    fixture.store.update(&id, update).await.unwrap().unwrap();
    assert_eq!(verified(&fixture.store, &token).await, "revoked");
}

#[tokio::test]
async fn a_suspended_key_that_is_revoked_is_not_enabled() {
    let fixture = Fixture::new().await;
    let id = id_of(&fixture.token(&["notes:read"]).await);
    let store = &fixture.store;
    assert!(store.disable(&id).await.unwrap());
    assert!(store.revoke(&id).await.unwrap());
    let before = store.get(&id).await.unwrap().unwrap();
    assert!(!store.enable(&id).await.unwrap());
    let after = store.get(&id).await.unwrap().unwrap();
    assert_eq!(
        (after.version, after.disabled_at),
        (before.version, before.disabled_at)
    );
}

#[tokio::test]
async fn an_update_that_names_nothing_changes_nothing() {
    let fixture = Fixture::new().await;
    let id = id_of(&fixture.token(&["notes:read"]).await);
    let store = &fixture.store;
    let key = store.update(&id, KeyUpdate::new()).await.unwrap().unwrap();
    assert_eq!((key.id, key.version), (id, 1));
    let other = store.update(&id, KeyUpdate::new().if_version(2)).await;
    assert!(matches!(other, Err(StoreError::Conflict(_))), "{other:?}");
    let unknown = id_of(&unknown_token());
    assert!(
        store
            .update(&unknown, KeyUpdate::new())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_counts_at_once() {
    let fixture = Fixture::new().await;
    let new = NewApiKey::for_user(USER, scopes(&["notes:read"])).name("CI");
    let token = fixture.issue(new.expires_in(60 * SECOND)).await;
    let id = id_of(&token);
    let store = &fixture.store;
    assert!(store.verify(&token).await.unwrap().has_scope("notes:read"));

    let changed = store.update(&id, KeyUpdate::new().scopes(scopes(&["tags:read"])));
    let changed = changed.await.unwrap().unwrap();
    assert_eq!((changed.name.as_deref(), changed.version), (Some("CI"), 2));
    assert_eq!(changed.expires_at, Some(start() + 60 * SECOND));
    let caller = store.verify(&token).await.unwrap();
    assert!(caller.has_scope("tags:read") && !caller.has_scope("notes:read"));

    let update = KeyUpdate::new().no_name().expires_at(start() - SECOND);
    let changed = store.update(&id, update).await.unwrap().unwrap();
    assert_eq!((changed.name, changed.version), (None, 3));
    assert_eq!(verified(store, &token).await, "expired");
    store
        .update(&id, KeyUpdate::new().name("CD").expires_in(SECOND))
        .await
        .unwrap();
    assert_eq!(store.verify(&token).await.unwrap().name(), Some("CD"));
    fixture.clock.advance(SECOND);
    assert_eq!(verified(store, &token).await, "expired");
    store
        .update(&id, KeyUpdate::new().never_expires())
        .await
        .unwrap();
    fixture.clock.advance(Duration::from_secs(400_000_000));
    assert_eq!(verified(store, &token).await, "good");

    let unknown = id_of(&unknown_token());
    assert!(
        store
            .update(&unknown, KeyUpdate::new())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_update_that_cannot_be_stored_changes_nothing() {
    let fixture = Fixture::new().await;
    let id = id_of(&fixture.token(&[]).await);
    for name in ["a\nb".to_owned(), "x".repeat(256)] {
        let update = KeyUpdate::new().name(name).scopes(scopes(&["*"]));
        let error = fixture.store.update(&id, update).await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidKey(_)), "{error}");
    }
    assert_eq!(fixture.store.get(&id).await.unwrap().unwrap().version, 1);
}

#[tokio::test]
async fn of_updates_for_one_version_one_comes_through() {
    let fixture = Fixture::new().await;
    let id = id_of(&fixture.token(&[]).await);
    let mut updates = JoinSet::new();
    for number in 0..32 {
        let store = fixture.store.clone();
        updates.spawn(async move {
            let update = KeyUpdate::new().name(format!("{number}")).if_version(1);
            store.update(&id, update).await
        });
    }
    let outcomes = updates.join_all().await;
    let (done, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (1, 31));
    for outcome in refused {
        assert!(matches!(outcome.unwrap_err(), StoreError::Conflict(other) if other == id));
    }
    let key = fixture.store.get(&id).await.unwrap().unwrap();
    let written = done.into_iter().next().unwrap().unwrap().unwrap();
    assert_eq!((key.name, key.version), (written.name, 2));
}

#[tokio::test]
async fn an_update_that_is_overtaken_keeps_what_the_other_has_changed() {
    let fixture = Fixture::new().await;
    let id = id_of(&fixture.token(&["notes:read"]).await);
    let mut changes = JoinSet::new();
    for number in 0..12 {
        let store = fixture.store.clone();
        changes.spawn(async move {
            match number {
                0 => drop(store.disable(&id).await.unwrap()),
                1 => drop(
                    store
                        .update(&id, KeyUpdate::new().scopes(scopes(&["tags:read"])))
                        .await
                        .unwrap(),
                ),
                _ => drop(
                    store
                        .update(&id, KeyUpdate::new().name(format!("{number}")))
                        .await
                        .unwrap(),
                ),
            }
        });
    }
    changes.join_all().await;
    let key = fixture.store.get(&id).await.unwrap().unwrap();
    assert_eq!(
        (key.version, key.scopes.to_string().as_str()),
        (13, "tags:read")
    );
    assert!(key.disabled_at.is_some() && key.name.is_some());
}

#[tokio::test]
async fn g3_an_outage_is_an_error_for_who_changes_keys() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["notes:read"]).await;
    let id = id_of(&token);
    let auth = fixture.store.verify(&token).await.unwrap();
    fixture.set_broken(true);
    let store = &fixture.store;
    let new = NewApiKey::for_user(USER, Scopes::none());
    for error in [
        store.disable(&id).await.unwrap_err(),
        store.enable(&id).await.unwrap_err(),
        store.update(&id, KeyUpdate::new()).await.unwrap_err(),
        store.create_as(&auth, new).await.unwrap_err(),
    ] {
        assert!(is_the_outage(&error), "{error}");
    }
}

#[tokio::test]
async fn g11_nobody_makes_a_key_that_can_do_more_than_theirs() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let held = |held: Scopes, wanted: Scopes| async move {
        let maker = store.create(NewApiKey::for_user(USER, held)).await.unwrap();
        let auth = store.verify(maker.token().expose()).await.unwrap();
        match store
            .create_as(&auth, NewApiKey::for_user(USER, wanted))
            .await
        {
            Ok(made) => {
                assert_eq!(made.key().user_id, USER);
                true
            }
            Err(StoreError::NotHeld(_)) => false,
            Err(error) => panic!("{error}"),
        }
    };
    let all = Scopes::unrestricted;
    assert!(held(scopes(&["notes:*"]), scopes(&["notes:read"])).await);
    assert!(held(scopes(&["notes:read"]), Scopes::none()).await);
    assert!(held(all(), all()).await);
    assert!(held(all(), scopes(&["*"])).await);
    assert!(
        !held(
            scopes(&["notes:read"]),
            scopes(&["notes:read", "notes:write"])
        )
        .await
    );
    assert!(!held(scopes(&["notes:read"]), scopes(&["notes:*"])).await);
    assert!(!held(scopes(&["*"]), all()).await);
    assert!(!held(Scopes::none(), all()).await);
    assert!(!held(Scopes::none(), scopes(&["notes:read"])).await);
}

#[tokio::test]
async fn g11_nobody_makes_a_key_of_another_user_or_one_that_expires_later() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let end = start() + 60 * SECOND;
    let maker = NewApiKey::for_user(USER, scopes(&["notes:read"])).expires_at(end);
    let token = fixture.issue(maker).await;
    let auth = store.verify(&token).await.unwrap();
    let wanted = || NewApiKey::for_user(USER, scopes(&["notes:read"]));
    for (new, expected) in [
        (wanted(), end),
        (wanted().expires_at(end + SECOND), end),
        (wanted().expires_at(end - SECOND), end - SECOND),
    ] {
        let made = store.create_as(&auth, new).await.unwrap();
        assert_eq!(made.key().expires_at, Some(expected));
    }
    let other = NewApiKey::for_user("user_2", Scopes::none());
    let error = store.create_as(&auth, other).await.unwrap_err();
    assert!(matches!(error, StoreError::NotHeld(_)), "{error}");
}

#[tokio::test]
async fn g11_what_counts_is_what_the_makers_key_may_do_now() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let wanted = || NewApiKey::for_user(USER, scopes(&["notes:read"]));
    let is_held = async |auth| store.create_as(auth, wanted()).await.is_ok();

    let token = fixture.token(&["notes:read"]).await;
    let auth = store.verify(&token).await.unwrap();
    assert!(is_held(&auth).await);
    let id = id_of(&token);
    store.disable(&id).await.unwrap();
    assert!(!is_held(&auth).await);
    store.enable(&id).await.unwrap();
    assert!(is_held(&auth).await);
    store
        .update(&id, KeyUpdate::new().scopes(scopes(&["tags:read"])))
        .await
        .unwrap();
    assert!(!is_held(&auth).await);
    store
        .update(&id, KeyUpdate::new().scopes(scopes(&["notes:*"])))
        .await
        .unwrap();
    assert!(is_held(&auth).await);
    store
        .update(&id, KeyUpdate::new().expires_at(start()))
        .await
        .unwrap();
    assert!(!is_held(&auth).await);
    store
        .update(&id, KeyUpdate::new().never_expires())
        .await
        .unwrap();
    store.revoke(&id).await.unwrap();
    assert!(!is_held(&auth).await);
    assert!(fixture.backend.delete(&id).await.unwrap());
    assert!(!is_held(&auth).await);
}
