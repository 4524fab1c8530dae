//! A load against "forget everything".
//!
//! An operator has changed keys behind the back of the cache and clears it, or the feed of changes was
//! lost and nobody knows what it would have told. What is being read at that moment isn't in the
//! cache, so clearing doesn't reach it, and it comes in right afterwards: one key of a million
//! that is still as it was before, and nobody who looks would find it.

use super::{Race, issue, until, verified};
use crate::support::{
    USER, start,
    steps::{Step, Steps},
};
use tower_api_key::PageRequest;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_what_is_being_read_when_everything_is_forgotten_is_read_again() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    race.store.invalidate_all();
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "revoked");
    assert_eq!(race.verified().await, "revoked");
    assert_eq!(race.backend.reads(), reads + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_what_it_brings_is_not_remembered_where_nobody_waits_for_it_either() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    race.store.invalidate_all();
    load.go_on();
    let has_landed = || race.store.cache_stats().stale_refused > 0 || race.is_cached();
    until("the load has landed", has_landed).await;

    assert!(!race.is_cached());
    let reads = race.backend.reads();
    assert_eq!(race.verified().await, "revoked");
    assert_eq!(race.backend.reads(), reads + 1);
}

/// That there is no such key is no more to be believed than anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_id_that_is_being_read_is_forgotten_too() {
    use tower_api_key::ApiKeyBackend;

    let race = Race::new().await;
    let record = race.store.get(&race.id).await.unwrap().unwrap();
    assert!(race.backend.inner().delete(&race.id).await.unwrap());
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    assert!(race.backend.inner().insert(&record).await.unwrap());
    race.store.invalidate_all();
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "good");
    assert_eq!(race.verified().await, "good");
}

/// A load that fails has nothing to fall back on that was forgotten meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_load_does_not_bring_back_what_was_forgotten() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.fresh_request();
    let load = stop.await;
    race.store.invalidate_all();
    let again = race.backend.stop_next(Step::ReadTaken);
    load.fail();
    again.await.fail();
    assert_eq!(waiting.await.unwrap(), "unavailable");
    assert!(!race.is_cached());
    assert_eq!(race.store.cache_stats().entries, 0);
}

/// Many keys in all parts of the table, while loads land everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_of_many_keys_none_stays_behind_when_everything_is_forgotten() {
    let race = Race::with(Steps::default(), super::cache()).await;
    let elsewhere = race.elsewhere().await;
    for _ in 0..10 {
        let mut tokens = Vec::new();
        for _ in 0..200 {
            tokens.push(issue(&race.store).await);
        }
        let requests: Vec<_> = tokens
            .iter()
            .cloned()
            .map(|token| {
                let store = race.store.clone();
                tokio::spawn(async move { verified(&store, &token).await })
            })
            .collect();
        // Some have landed by now, some haven't begun.
        while !requests.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        while elsewhere.revoke_all_for_user(USER).await.unwrap() > 0 {}
        race.store.invalidate_all();
        for token in &tokens {
            assert_eq!(verified(&race.store, token).await, "revoked");
        }
        for request in requests {
            assert!(["good", "revoked"].contains(&request.await.unwrap()));
        }
        delete_all(&race).await;
    }
}

async fn delete_all(race: &Race) {
    loop {
        let page = race.store.list_for_user(USER, PageRequest::new()).await;
        let keys = page.unwrap().keys;
        if keys.is_empty() {
            return;
        }
        for key in keys {
            assert!(race.store.delete(&key.id).await.unwrap());
        }
    }
}
