//! Rotations, reasons, new peppers and purges.

use std::time::Duration;

use tokio::time::timeout;
use tower_api_key::{
    ApiKeyStore, Event, EventKind, ManualClock, MemoryBackend, NewApiKey, Pepper, PepperId,
    Peppers, RevocationReason, Scopes,
};

use super::{PATIENCE, SECOND, heard, names, new_key};
use crate::support::{Fixture, USER, start};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn is_revoked_for(event: &Event, expected: &RevocationReason) -> bool {
    match &event.kind {
        EventKind::Revoked { reason, .. } => reason.as_ref() == Some(expected),
        _ => false,
    }
}

#[tokio::test]
async fn a_rotation_is_told_of_the_old_key_and_so_is_how_it_ends() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (_, old) = new_key(store).await;
    let mut events = store.events();
    let issued = store.rotate(&old, DAY).await.unwrap();
    let successor = issued.key().id;
    let told = heard(&mut events);
    assert_eq!((told.len(), told[0].key_id), (1, Some(old)));
    let of = (told[0].name(), told[0].kind.successor());
    assert_eq!(of, ("key.rotated", Some(successor)));
    assert_eq!(told[0].user_id.as_deref(), Some(USER));

    store.cancel_rotation(&old).await.unwrap();
    let told = heard(&mut events);
    assert_eq!(names(&told), ["key.revoked", "key.rotation_cancelled"]);
    assert!(is_revoked_for(&told[0], &RevocationReason::Superseded));
    assert_eq!(
        (told[0].key_id, told[1].key_id),
        (Some(successor), Some(old))
    );

    let _ = store.rotate(&old, DAY).await.unwrap();
    assert!(store.finish_rotation(&old).await.unwrap());
    assert!(!store.finish_rotation(&old).await.unwrap());
    let told = heard(&mut events);
    assert_eq!(names(&told), ["key.rotated", "key.revoked"]);
    assert!(is_revoked_for(&told[1], &RevocationReason::Rotated));

    // One that ends the old key at once is both.
    let (_, old) = new_key(store).await;
    let _ = store.rotate(&old, Duration::ZERO).await.unwrap();
    assert!(store.rotate(&old, DAY).await.is_err());
    let told = heard(&mut events);
    let expected = ["key.created", "key.rotated", "key.revoked"];
    assert_eq!(names(&told), expected);
    assert!(told.iter().all(|event| event.key_id == Some(old)));
}

#[tokio::test]
async fn a_revocation_is_told_with_its_reason() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (_, one) = new_key(store).await;
    let (token, _) = new_key(store).await;
    let mut events = store.events();
    let other = || RevocationReason::Other("unpaid".to_owned());
    assert!(store.revoke_because(&one, other()).await.unwrap());
    let because = store.revoke_because(&one, RevocationReason::Leaked).await;
    assert!(!because.unwrap(), "it is revoked already");
    store.report_leaked([&token]).await.unwrap();
    let (_, left) = new_key(store).await;
    let why = RevocationReason::OwnerLeft;
    let ended = store.revoke_all_for_user_because(USER, why.clone()).await;
    assert_eq!(ended.unwrap(), 1);
    let told = heard(&mut events);
    let reasons: Vec<_> = told.iter().filter_map(|event| event.reason()).collect();
    assert_eq!(reasons, ["unpaid", "leaked", "owner_left"]);
    assert!(is_revoked_for(&told[0], &other()));
    let last = told.last().unwrap();
    assert!(last.key_id == Some(left) && is_revoked_for(last, &why));
    assert_eq!(last.user_id.as_deref(), Some(USER));
}

#[tokio::test]
async fn a_hash_that_comes_under_another_pepper_is_told_and_nothing_is_while_it_is_off() {
    let backend = MemoryBackend::new();
    let pepper = |id: &str| Pepper::new(id, format!("the pepper of these tests, {id}")).unwrap();
    let builder = |peppers| {
        let builder = ApiKeyStore::builder(backend.clone()).peppers(peppers);
        builder.clock(ManualClock::new(start()))
    };
    let before = builder(Peppers::new(pepper("v1"))).build().await.unwrap();
    let (token, id) = new_key(&before).await;
    let peppers = || {
        Peppers::new(pepper("v2"))
            .with_retired(pepper("v1"))
            .unwrap()
    };
    let store = builder(peppers()).build().await.unwrap();
    let mut events = store.events();
    store.verify(&token).await.unwrap();
    assert!(heard(&mut events).is_empty());

    let store = builder(peppers()).rewrap_retired_peppers().build().await;
    let store = store.unwrap();
    let mut events = store.events();
    store.verify(&token).await.unwrap();
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    let id_of = |id| PepperId::new(id).unwrap();
    let (from, to) = (id_of("v1"), id_of("v2"));
    let of = (event.name(), event.kind.peppers());
    assert_eq!(of, ("pepper.rewrapped", Some((from, to))));
    assert_eq!(
        (event.key_id, event.user_id.as_deref()),
        (Some(id), Some(USER))
    );
    store.verify(&token).await.unwrap();
    assert!(heard(&mut events).is_empty());
}

#[tokio::test]
async fn a_purge_is_told_by_how_much_it_has_removed() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    for _ in 0..3 {
        let new = NewApiKey::for_user(USER, Scopes::none()).expires_in(SECOND);
        let _ = store.create(new).await.unwrap();
    }
    new_key(store).await;
    let mut events = store.events();
    fixture.clock.advance(DAY);
    let before = start() + 2 * SECOND;
    assert_eq!(store.purge(before).await.unwrap(), 3);
    assert_eq!(store.purge(before).await.unwrap(), 0);
    let told = heard(&mut events);
    assert_eq!(told.len(), 1);
    let of = (told[0].name(), told[0].kind.records());
    assert_eq!(of, ("records.purged", Some(3)));
}
