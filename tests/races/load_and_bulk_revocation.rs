//! A first load against the revocation of all keys of a user.
//!
//! A key that is read for the first time is in no index of users: its owner is known when the read
//! ends. The revocation may not say which keys it has revoked, since its answer was lost, or since
//! another instance revoked them before. So the cache cannot remove the key by its id. A cache that
//! discards every first load instead is safe, and useless: somebody who revokes all the time keeps
//! it empty.

use tokio::task::JoinHandle;
use tower_api_key::{
    ApiKeyStore, DigestFormat, Imported, KeyId, MissingScopes, OldKey, OldPatterns, OldScopes,
    OldWildcard, TokenAlphabet,
};

use super::{Race, cache, issue, peppers};
use crate::support::{
    USER, outcome, start,
    steps::{Step, Steps},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_first_load_is_discarded_when_a_bulk_revocation_fails() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;

    let stop = race.backend.stop_next(Step::WriteDone);
    let store = race.store.clone();
    let revocation = tokio::spawn(async move { store.revoke_all_for_user(USER).await });
    stop.await.fail();
    revocation.await.unwrap().unwrap_err();
    load.go_on();

    assert_eq!(waiting.await.unwrap(), "revoked");
    assert_eq!(race.verified().await, "revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_first_load_is_discarded_when_the_user_was_revoked_elsewhere() {
    for fresh in [false, true] {
        let race = Race::new().await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = if fresh {
            race.fresh_request()
        } else {
            race.request()
        };
        let load = stop.await;
        race.change_elsewhere(|key| key.revoked_at = Some(start()))
            .await;

        assert_eq!(race.store.revoke_all_for_user(USER).await.unwrap(), 0);
        load.go_on();

        assert_eq!(waiting.await.unwrap(), "revoked", "fresh: {fresh}");
        assert_eq!(race.verified().await, "revoked", "fresh: {fresh}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_cached_key_is_invalidated_when_the_user_was_revoked_elsewhere() {
    let race = Race::new().await;
    let other = issue(&race.store).await;
    assert_eq!(race.verified().await, "good");
    assert_eq!(super::verified(&race.store, &other).await, "good");
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    assert_eq!(race.verified().await, "good");
    assert_eq!(race.store.revoke_all_for_user(USER).await.unwrap(), 1);
    assert_eq!(race.verified().await, "revoked");
    assert_eq!(super::verified(&race.store, &other).await, "revoked");
}

/// While a fresh check reads it again, its place goes to another key: it is in no index then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_an_evicted_key_that_is_read_again_is_not_used_after_a_bulk_revocation() {
    let race = Race::with(Steps::default(), cache().capacity(1)).await;
    let other = issue(&race.store).await;
    assert_eq!(race.verified().await, "good");
    let stop = race.backend.stop_next(Step::ReadTaken);
    let fresh = race.fresh_request();
    let load = stop.await;
    assert_eq!(super::verified(&race.store, &other).await, "good");

    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    assert_eq!(race.store.revoke_all_for_user(USER).await.unwrap(), 1);
    assert!(!race.is_cached(), "accepted after the revocation");
    load.go_on();
    assert_eq!(fresh.await.unwrap(), "revoked");
    assert_eq!(race.verified().await, "revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_bulk_revocation_discards_no_first_load_of_other_users() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    let revoked = race.store.revoke_all_for_user("somebody else").await;
    assert_eq!(revoked.unwrap(), 0);
    let reads = race.backend.reads();
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "good");
    assert!(race.is_cached());
    assert_eq!(race.backend.reads(), reads, "it was read again");
}

/// A store with a digest format, and the token of a key that was imported by its digest.
async fn with_digest(backend: &Steps) -> (ApiKeyStore, &'static str, KeyId) {
    let format = DigestFormat::new("pylon_", 54, TokenAlphabet::LowerHex).unwrap();
    let store = ApiKeyStore::builder(backend.clone())
        .peppers(peppers())
        .digest_format(format)
        .cache(cache());
    let store = store.build().await.unwrap();
    let id = import(&store, USER).await;
    (
        store,
        "pylon_afeb07edffef95fd562a499593f4c80c965bdabb64d42bf9",
        id,
    )
}

fn request(store: &ApiKeyStore, token: &'static str) -> JoinHandle<&'static str> {
    let store = store.clone();
    tokio::spawn(async move { outcome(&store.verify(token).await) })
}

async fn import(store: &ApiKeyStore, user: &str) -> KeyId {
    let hash = "d78e54e63c5632796697bf55383eadee954f9a6c39f85f4f7d6d78dda806de92";
    let scopes = OldScopes {
        missing: MissingScopes::Unrestricted,
        wildcard: OldWildcard::Refuse,
        patterns: OldPatterns::Ours,
    };
    match store.import(OldKey::by_digest(hash, user), &scopes).await {
        Ok(Imported::Stored(key)) => key.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_revoking_an_unknown_id_discards_no_first_load_of_other_keys() {
    let backend = Steps::default();
    let (store, token, _) = with_digest(&backend).await;
    let stop = backend.stop_next(Step::ReadTaken);
    let waiting = request(&store, token);
    let load = stop.await;
    assert!(!store.revoke(&KeyId::from_bytes([9; 24])).await.unwrap());
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "good");
    assert!(super::is_cached(&store, token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_first_load_is_discarded_when_its_record_is_gone_by_id() {
    let backend = Steps::default();
    let (store, token, id) = with_digest(&backend).await;
    let stop = backend.stop_next(Step::ReadTaken);
    let waiting = request(&store, token);
    let load = stop.await;
    // Somebody else deletes it. This store finds no record, and does not know its digest.
    let elsewhere = ApiKeyStore::builder(backend.inner().clone()).peppers(peppers());
    assert!(elsewhere.build().await.unwrap().delete(&id).await.unwrap());
    assert!(!store.revoke(&id).await.unwrap());
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "unknown");
    assert_eq!(outcome(&store.verify(token).await), "unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_context_ends_when_its_digest_is_imported_for_another_owner() {
    let backend = Steps::default();
    let (store, token, id) = with_digest(&backend).await;
    let auth = store.verify(token).await.unwrap();
    assert!(store.delete(&id).await.unwrap());
    let again = import(&store, "somebody else").await;
    assert_eq!(store.verify(token).await.unwrap().key_id(), &again);
    assert!(!auth.is_active().await.unwrap());
    tokio::time::timeout(super::PATIENCE, auth.revoked())
        .await
        .expect("it goes on under the old owner");
}
