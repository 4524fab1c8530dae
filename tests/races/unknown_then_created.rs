//! An id that nobody has, and then somebody.
//!
//! A client is given its token a moment before the key is stored, or is quicker than the replication:
//! the first request asks for an id that isn't there. That it isn't there is remembered, since
//! strangers ask for made-up ids; and so the key that is stored a moment later doesn't work, for as
//! long as keys are remembered.

use tower_api_key::{ApiKeyBackend, ApiKeyToken, Brand, CacheConfig};

use super::{MILLISECOND, Race, cache, is_cached, record_of, until, verified};
use crate::support::steps::{Step, Steps};

fn new_token() -> String {
    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    token.expose().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_created_after_its_id_was_unknown_works_at_once_where_that_is_told() {
    let race = Race::with(Steps::telling(), cache()).await;
    let token = new_token();
    assert_eq!(verified(&race.store, &token).await, "unknown");
    assert!(is_cached(&race.store, &token));
    // Another store on the same records, or an import.
    let inserted = race.backend.inner().insert(&record_of(&token)).await;
    assert!(inserted.unwrap());
    assert_eq!(verified(&race.store, &token).await, "good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_created_untold_works_when_the_unknown_id_has_been_forgotten() {
    let race = Race::new().await;
    let token = new_token();
    assert_eq!(verified(&race.store, &token).await, "unknown");
    let inserted = race.backend.inner().insert(&record_of(&token)).await;
    assert!(inserted.unwrap());
    let reads = race.backend.reads();
    race.clock.advance(999 * MILLISECOND);
    assert_eq!(verified(&race.store, &token).await, "unknown");
    assert_eq!(race.backend.reads(), reads);
    race.clock.advance(MILLISECOND);
    assert_eq!(verified(&race.store, &token).await, "good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_check_finds_it_at_once_and_then_everybody_does() {
    let race = Race::new().await;
    let token = new_token();
    assert_eq!(verified(&race.store, &token).await, "unknown");
    let inserted = race.backend.inner().insert(&record_of(&token)).await;
    assert!(inserted.unwrap());
    assert!(race.store.verify_fresh(&token).await.is_ok());
    assert_eq!(verified(&race.store, &token).await, "good");
}

/// The load has looked, and has found nothing; the key is stored before it lands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_found_nothing_does_not_hide_a_key_that_was_created_meanwhile() {
    for somebody_waits in [true, false] {
        let race = Race::with(Steps::telling(), cache()).await;
        let token = new_token();
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = tokio::spawn({
            let (store, token) = (race.store.clone(), token.clone());
            async move { verified(&store, &token).await }
        });
        let load = stop.await;
        if !somebody_waits {
            waiting.abort();
        }
        let inserted = race.backend.inner().insert(&record_of(&token)).await;
        assert!(inserted.unwrap());
        load.go_on();
        if somebody_waits {
            assert_eq!(waiting.await.unwrap(), "good");
        } else {
            let has_landed =
                || race.store.cache_stats().stale_refused > 0 || is_cached(&race.store, &token);
            until("the load has landed", has_landed).await;
        }
        assert_eq!(verified(&race.store, &token).await, "good");
    }
}

/// The insertion of the store itself, which draws the id: nobody can have asked for it, but whoever
/// asks while it is being written must not spoil it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_asked_for_while_it_was_being_stored_works_when_that_has_returned() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::WriteDone);
    let creation = tokio::spawn({
        let store = race.store.clone();
        async move { super::issue(&store).await }
    });
    let committed = stop.await;
    committed.go_on();
    let token = creation.await.unwrap();
    assert_eq!(verified(&race.store, &token).await, "good");
}

/// Without the memory for unknown ids each of them is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_unknown_ids_are_not_remembered_a_key_works_as_soon_as_it_is_there() {
    let config: CacheConfig = cache().unknown_capacity(0);
    let race = Race::with(Steps::default(), config).await;
    let token = new_token();
    assert_eq!(verified(&race.store, &token).await, "unknown");
    assert!(!is_cached(&race.store, &token));
    let inserted = race.backend.inner().insert(&record_of(&token)).await;
    assert!(inserted.unwrap());
    assert_eq!(verified(&race.store, &token).await, "good");
}
