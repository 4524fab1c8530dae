//! A load against the removal of the record, and against another that takes its place.
//!
//! A load that lands after the removal brings back a key whose record is gone: no list shows it, and
//! nobody can revoke what isn't there. Where the same id has been given a new secret meanwhile, the
//! old secret works on, and the new one doesn't.

use super::{Race, outcome, verified, with_another_secret};
use crate::support::steps::{Step, Steps};
use tower_api_key::ApiKeyBackend;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_begun_before_a_deletion_does_not_bring_the_key_back() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    assert!(race.store.delete(&race.id).await.unwrap());
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "unknown");
    assert_eq!(race.verified().await, "unknown");
    assert!(!race.store.revoke(&race.id).await.unwrap());
    assert!(!race.store.delete(&race.id).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_of_the_key_before_does_not_outlive_one_that_was_made_anew_with_its_id() {
    for lands_before_the_new_one_is_made in [false, true] {
        let race = Race::with(Steps::telling(), super::cache()).await;
        let (other, record) = with_another_secret(&race.token);
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = race.request();
        let load = stop.await;

        assert!(race.store.delete(&race.id).await.unwrap());
        if lands_before_the_new_one_is_made {
            load.go_on();
            assert_eq!(waiting.await.unwrap(), "unknown");
            assert!(race.backend.insert(&record).await.unwrap());
        } else {
            assert!(race.backend.insert(&record).await.unwrap());
            load.go_on();
            assert_eq!(waiting.await.unwrap(), "wrong secret");
        }
        assert_eq!(race.verified().await, "wrong secret");
        assert_eq!(verified(&race.store, &other).await, "good");
        let fresh = race.store.verify_fresh(&race.token).await;
        assert_eq!(outcome(&fresh), "wrong secret");
    }
}

/// Both secrets ask for one id, so they share the load; each is compared with what it has brought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shares_a_load_with_another_secret_is_not_let_in_with_it() {
    let race = Race::new().await;
    let (other, _) = with_another_secret(&race.token);
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadTaken);
    let right = race.request();
    let load = stop.await;
    let wrong = tokio::spawn({
        let (race, other) = (race.clone(), other.clone());
        async move { verified(&race.store, &other).await }
    });
    super::until("they wait", || race.store.cache_stats().shared_loads == 1).await;
    load.go_on();
    assert_eq!(right.await.unwrap(), "good");
    assert_eq!(wrong.await.unwrap(), "wrong secret");
    assert_eq!(verified(&race.store, &other).await, "wrong secret");
    assert_eq!(race.backend.reads(), reads + 1);
}
