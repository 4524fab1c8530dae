//! Records of keys that ended long ago are removed, and those of keys that work never.

use proptest::prelude::*;
use tower_api_key::{ApiKeyBackend, KeyId, MemoryBackend, NewApiKey, PageRequest, Peppers, Scopes};

use super::{SECOND, new_key, pepper, store_on, verified};
use crate::support::{
    Fixture, USER, id_of,
    lists::{cases, keys, purge_times, purges_what_has_ended},
    start,
};

#[tokio::test]
async fn what_ended_before_a_date_is_removed_and_nothing_else() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let gone = [fixture.revoked_token().await, fixture.expired_token().await];
    let stays = [fixture.token(&[]).await, fixture.disabled_token().await];
    assert_eq!(verified(store, &gone[0]).await, "revoked");
    fixture.clock.advance(10 * SECOND);
    let ends_later = new_key().expires_at(start() + 5 * SECOND);
    let ends_later = fixture.issue(ends_later).await;

    assert_eq!(store.purge(start() - 5 * SECOND).await.unwrap(), 0);
    assert_eq!(store.purge(start()).await.unwrap(), 1);
    assert_eq!(store.purge(start() + SECOND).await.unwrap(), 1);
    for token in &gone {
        assert!(store.get(&id_of(token)).await.unwrap().is_none());
        // Told as any deletion: nobody believes what was cached.
        assert_eq!(verified(store, token).await, "unknown");
    }
    assert_eq!(verified(store, &ends_later).await, "expired");
    assert_eq!(verified(store, &stays[0]).await, "good");
    assert_eq!(verified(store, &stays[1]).await, "disabled");
    // At its end, and not before it has passed.
    assert_eq!(store.purge(start() + 5 * SECOND).await.unwrap(), 0);
    assert_eq!(store.purge(start() + 6 * SECOND).await.unwrap(), 1);
    let page = store.list_for_user(USER, PageRequest::new()).await.unwrap();
    assert_eq!(page.keys.len(), 2);
}

#[tokio::test]
async fn a_date_in_the_future_removes_no_key_that_works() {
    let fixture = Fixture::new().await;
    let soon = new_key().expires_at(start() + SECOND);
    let soon = fixture.issue(soon).await;
    let expired = fixture.expired_token().await;
    let far = start() + 1_000_000 * SECOND;
    assert_eq!(fixture.store.purge(far).await.unwrap(), 1);
    assert_eq!(verified(&fixture.store, &soon).await, "good");
    assert_eq!(verified(&fixture.store, &expired).await, "unknown");
}

#[tokio::test]
async fn more_than_a_batch_is_removed_batch_by_batch() {
    let fixture = Fixture::new().await;
    let end = start() - SECOND;
    for number in 0..2_500 {
        let user = format!("user_{}", number % 7);
        let new = NewApiKey::for_user(user, Scopes::none());
        let ends = [start() + SECOND, end][usize::from(number % 5 != 0)];
        fixture.issue(new.expires_at(ends)).await;
    }
    assert_eq!(fixture.store.purge(start()).await.unwrap(), 2_000);
    assert_eq!(fixture.store.purge(start()).await.unwrap(), 0);
    assert_eq!(fixture.backend.purge(start(), 10).await.unwrap(), 0);
}

#[test]
fn the_memory_backend_purges_what_has_ended_and_never_a_key_that_works() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let config = cases(256);
    proptest!(config, |(keys in keys(40), times in purge_times())| {
        runtime.block_on(async {
            let backend = MemoryBackend::new();
            for key in &keys {
                assert!(backend.insert(key).await.unwrap());
            }
            purges_what_has_ended(&backend, &keys, times).await;
        });
    });
}

/// Whoever is told that a key was renewed has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_is_renewed_while_others_are_purged_stays() {
    let store = store_on(MemoryBackend::new(), Peppers::new(pepper("v1"))).await;
    let expired = new_key().expires_at(start() - SECOND);
    let key = store.create(expired).await.unwrap().key().clone();
    for _ in 0..20 {
        let backend = MemoryBackend::new();
        let keys: Vec<_> = (0..2_000_u32)
            .map(|number| {
                let mut key = key.clone();
                let mut id = [7; KeyId::LEN];
                id[..4].copy_from_slice(&number.to_be_bytes());
                key.id = KeyId::from_bytes(id);
                key
            })
            .collect();
        for key in &keys {
            assert!(backend.insert(key).await.unwrap());
        }
        let mut purge = None;
        let mut renewed = Vec::new();
        for key in &keys {
            // Some are renewed before it begins, in any case.
            if renewed.len() == 10 && purge.is_none() {
                let purger = backend.clone();
                let purging = async move { purger.purge(start(), 2_000).await.unwrap() };
                purge = Some(tokio::spawn(purging));
            }
            let mut next = key.clone();
            (next.expires_at, next.version) = (None, 2);
            if backend.update(&next, 1).await.unwrap() {
                renewed.push(next.id);
            }
        }
        let removed = purge.unwrap().await.unwrap();
        assert_eq!(removed + renewed.len(), keys.len());
        let left = backend.get_by_id(&renewed).await.unwrap();
        assert_eq!(left.len(), renewed.len(), "renewed, and gone");
    }
}
