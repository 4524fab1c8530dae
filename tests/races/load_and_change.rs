//! A load against a change that another node makes.
//!
//! A key is narrowed, or suspended, while its record is being read elsewhere. What the load brings is
//! the key as it was: where it is taken for as new as the moment at which it landed, and not for as
//! old as the one at which it was read, the change goes unnoticed for longer than was promised.

use super::{MILLISECOND, Race, SECOND, cache, peppers};
use crate::support::{
    USER, outcome, start,
    steps::{Step, Steps},
};
use tower_api_key::{ApiKeyBackend, ApiKeyStore, KeySource, Scopes, forward_to_backend};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_told_reaches_the_request_that_waits() {
    let race = Race::with(Steps::telling(), cache()).await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = tokio::spawn({
        let race = race.clone();
        async move { race.store.has_scope(&race.token, "notes:read").await }
    });
    let load = stop.await;
    race.change_elsewhere(|key| key.scopes = Scopes::none())
        .await;
    load.go_on();
    assert!(!waiting.await.unwrap().unwrap());
    let now = race.store.has_scope(&race.token, "notes:read").await;
    assert!(!now.unwrap());
    assert_eq!(race.verified().await, "good");

    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.fresh_request();
    let load = stop.await;
    race.change_elsewhere(|key| key.disabled_at = Some(start()))
        .await;
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "disabled");
    assert_eq!(race.verified().await, "disabled");
}

/// The age of what was read counts from when it was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_not_told_counts_when_the_staleness_has_passed_since_the_load_began() {
    let race = Race::with(Steps::default(), cache().max_staleness(5 * SECOND)).await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    race.clock.advance(4 * SECOND);
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "good");

    // A coarse clock may be late by ten milliseconds, so the cache counts ten less.
    race.clock.advance(989 * MILLISECOND);
    assert_eq!(race.verified().await, "good");
    race.clock.advance(MILLISECOND);
    assert_eq!(race.verified().await, "revoked");
}

/// It was read so slowly that it is too old already. The requests that waited began before it was,
/// and the next ones read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_took_longer_than_the_staleness_is_not_believed() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    race.clock.advance(5 * SECOND);
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "good");
    assert_eq!(race.verified().await, "revoked");
}

/// A backend that ends the keys of a user as the trait does it: it lists them, and updates each.
struct ByList(Steps);

impl KeySource for ByList {
    forward_to_backend!(self => self.0; get_many);
}

impl ApiKeyBackend for ByList {
    forward_to_backend!(self => self.0; insert, update, delete, list_for_user, touch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_key_that_changes_after_it_was_listed_is_revoked_with_the_others() {
    let race = Race::new().await;
    let by_list = ApiKeyStore::builder(ByList(race.backend.clone()))
        .peppers(peppers())
        .clock(race.clock.clone())
        .cache(cache());
    let store = by_list.build().await.unwrap();
    assert_eq!(outcome(&store.verify(&race.token).await), "good");
    let stop = race.backend.stop_next(Step::ListTaken);
    let revocation = tokio::spawn({
        let store = store.clone();
        async move { store.revoke_all_for_user(USER).await }
    });
    let listed = stop.await;
    race.change_elsewhere(|key| key.name = Some("renamed".to_owned()))
        .await;
    listed.go_on();
    assert_eq!(revocation.await.unwrap().unwrap(), 1);
    assert_eq!(outcome(&store.verify(&race.token).await), "revoked");
    let key = store.get(&race.id).await.unwrap().unwrap();
    assert_eq!((key.name.as_deref(), key.version), (Some("renamed"), 3));
}

/// A request whose key changes again whenever it is read would read for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_key_changes_all_the_time_is_answered_all_the_same() {
    let race = Race::with(Steps::telling(), cache()).await;
    let reads = race.backend.reads();
    let mut stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    for change in 0..3 {
        let load = stop.await;
        race.change_elsewhere(|key| key.name = Some(change.to_string()))
            .await;
        stop = race.backend.stop_next(Step::ReadTaken);
        load.go_on();
    }
    assert_eq!(waiting.await.unwrap(), "good");
    assert_eq!(race.backend.reads(), reads + 3);
    drop(stop);

    // Its answer isn't what others get.
    race.change_elsewhere(|key| key.disabled_at = Some(start()))
        .await;
    assert!(!race.is_cached());
    assert_eq!(race.verified().await, "disabled");
}
