//! Callers who rotate keys get no more than they hold.

use tower_api_key::{
    ApiKeyStore, AuthContext, KeyId, KeyUpdate, MemoryBackend, NewApiKey, RevocationReason, Scopes,
    StoreError,
};

use super::databases::{clock, node_on};
use crate::{
    DAY, HOUR,
    support::{
        USER, start,
        steps::{Step, Steps},
    },
    token_of, verified,
};

fn scopes(scopes: &[&str]) -> Scopes {
    Scopes::of(scopes).unwrap()
}

async fn made(store: &ApiKeyStore, new: NewApiKey) -> (AuthContext, KeyId) {
    let issued = store.create(new).await.unwrap();
    let auth = store.verify(token_of(&issued)).await.unwrap();
    (auth, issued.key().id)
}

#[tokio::test]
async fn g11_nobody_gets_more_by_rotating_another_key_than_they_hold() {
    let store = node_on(MemoryBackend::new(), &clock()).await;
    let narrow = NewApiKey::for_user(USER, scopes(&["keys:manage", "notes:*"])).expires_in(DAY);
    let (caller, caller_id) = made(&store, narrow).await;
    let wider = NewApiKey::for_user(USER, scopes(&["billing:pay"]));
    let (_, wider) = made(&store, wider).await;
    let all = NewApiKey::for_user(USER, Scopes::unrestricted());
    let (_, all) = made(&store, all).await;
    let foreign = NewApiKey::for_user("another", scopes(&["notes:read"]));
    let (_, foreign) = made(&store, foreign).await;
    for id in [wider, all, foreign] {
        let error = store.rotate_as(&caller, &id, HOUR).await.unwrap_err();
        assert!(matches!(error, StoreError::NotHeld(_)), "{error}");
        assert!(store.rotation(&id).await.unwrap().is_none());
    }
    let held = NewApiKey::for_user(USER, scopes(&["notes:read"]));
    let (_, held) = made(&store, held).await;
    let successor = store.rotate_as(&caller, &held, HOUR).await.unwrap();
    let key = successor.key();
    assert_eq!(
        (key.predecessor, key.made_by),
        (Some(held), Some(caller_id))
    );
    assert_eq!(key.expires_at, Some(start() + DAY));
    assert_eq!(verified(&store, &token_of(&successor)).await, "good");

    // Its own, as often as it likes, and with what it has.
    let own = store.rotate_as(&caller, &caller_id, HOUR).await.unwrap();
    assert_eq!(own.key().scopes, *caller.scopes());
    assert_eq!(
        (own.key().made_by, own.key().expires_at),
        (None, Some(start() + DAY))
    );
    assert!(store.revoke(&caller_id).await.unwrap());
    let (_, other) = made(&store, NewApiKey::for_user(USER, scopes(&["notes:read"]))).await;
    let error = store.rotate_as(&caller, &other, HOUR).await.unwrap_err();
    assert!(matches!(error, StoreError::NotHeld(_)), "{error}");
}

/// What may happen to the caller's key while the rotation of another key is being written.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Revoked,
    Disabled,
    Deleted,
    Narrowed,
}

/// The rotation compares the version of the rotated key, and not that of the caller's.
#[tokio::test]
async fn g11_a_caller_who_loses_the_key_meanwhile_gets_no_successor() {
    for loss in [Loss::Revoked, Loss::Disabled, Loss::Deleted, Loss::Narrowed] {
        for step in [Step::WriteAsked, Step::WriteDone] {
            let backend = Steps::default();
            let store = node_on(backend.clone(), &clock()).await;
            let caller = NewApiKey::for_user(USER, scopes(&["keys:manage", "notes:*"]));
            let (caller, caller_id) = made(&store, caller).await;
            let old = NewApiKey::for_user(USER, scopes(&["notes:read"]));
            let (_, old) = made(&store, old).await;

            let writing = backend.stop_next(step);
            let rotation = tokio::spawn({
                let store = store.clone();
                async move { store.rotate_as(&caller, &old, HOUR).await }
            });
            let writing = writing.await;
            let is_lost = match loss {
                Loss::Revoked => store.revoke(&caller_id).await,
                Loss::Disabled => store.disable(&caller_id).await,
                Loss::Deleted => store.delete(&caller_id).await,
                Loss::Narrowed => {
                    let update = KeyUpdate::new().scopes(scopes(&["keys:manage"]));
                    let key = store.update(&caller_id, update).await;
                    key.map(|key| key.is_some())
                }
            };
            assert!(is_lost.unwrap(), "{loss:?}");
            writing.go_on();

            let error = rotation.await.unwrap().unwrap_err();
            assert!(matches!(error, StoreError::NotHeld(_)), "{loss:?}: {error}");
            let rotation = store.rotation(&old).await.unwrap().unwrap();
            let successor = rotation.successor.unwrap();
            assert!(successor.revoked_at.is_some(), "{loss:?} at {step:?}");
            assert_eq!(
                successor.revocation_reason,
                Some(RevocationReason::Superseded)
            );
        }
    }
}
