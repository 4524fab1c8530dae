//! A fresh check against a load that is older than it.
//!
//! A route that moves money asks for the key as it is now. Somebody else is reading the same key
//! already, so the check waits for that read, as a cache would; but that read began before the key was
//! revoked. The check was told what is cached, only later.

use super::{Race, cache, issue, until, verified};
use crate::support::{
    start,
    steps::{Step, Steps},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_check_is_not_answered_by_a_load_that_began_before_it() {
    for step in [Step::ReadAsked, Step::ReadTaken] {
        let race = Race::new().await;
        let stop = race.backend.stop_next(step);
        let older = race.request();
        let load = stop.await;
        race.change_elsewhere(|key| key.revoked_at = Some(start()))
            .await;

        // It doesn't wait for the older one, which stands still.
        assert_eq!(race.verified_fresh().await, "revoked");
        load.go_on();
        // It began before the change, so it may be let in, or not. But it doesn't overwrite what
        // the check has found.
        older.await.unwrap();
        assert_eq!(race.verified().await, "revoked");
    }
}

/// The older load comes back while the fresh one is still under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_load_that_lands_first_does_not_outlive_the_fresh_one() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let older = race.request();
    let load = stop.await;
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let fresh = race.fresh_request();
    let fresh_load = stop.await;

    load.go_on();
    until("the older one has landed", || {
        race.store.cache_stats().stale_refused == 1 || race.is_cached()
    })
    .await;
    fresh_load.go_on();
    assert_eq!(fresh.await.unwrap(), "revoked");
    older.await.unwrap();
    assert_eq!(race.verified().await, "revoked");
}

/// Three are under way, and the one in the middle comes back first: the oldest doesn't overwrite it,
/// also where the newest fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_load_that_lands_last_does_not_overwrite_a_newer_one() {
    for newest_fails in [false, true] {
        let race = Race::new().await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let oldest = race.request();
        let oldest_load = stop.await;
        // All within one millisecond: the times at which they began don't tell them apart.
        race.change_elsewhere(|key| key.revoked_at = Some(start()))
            .await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let middle = race.fresh_request();
        let middle_load = stop.await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let newest = race.fresh_request();
        let newest_load = stop.await;

        middle_load.go_on();
        assert_eq!(middle.await.unwrap(), "revoked");
        let refused = race.store.cache_stats().stale_refused;
        oldest_load.go_on();
        until("the oldest has landed", || {
            oldest.is_finished() || race.store.cache_stats().stale_refused > refused
        })
        .await;
        if newest_fails {
            newest_load.fail();
            assert_eq!(newest.await.unwrap(), "unavailable");
        } else {
            newest_load.go_on();
            assert_eq!(newest.await.unwrap(), "revoked");
        }
        oldest.await.unwrap();
        assert_eq!(race.verified().await, "revoked");
    }
}

/// It falls back on what was known before it, which the fresh one is about to disprove.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_load_that_fails_leaves_the_newer_one_alone() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    let stop = race.backend.stop_next(Step::ReadTaken);
    let older = race.fresh_request();
    let load = stop.await;
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let fresh = race.fresh_request();
    let fresh_load = stop.await;

    load.fail();
    assert_eq!(older.await.unwrap(), "unavailable");
    fresh_load.go_on();
    assert_eq!(fresh.await.unwrap(), "revoked");
    let reads = race.backend.reads();
    assert_eq!(race.verified().await, "revoked");
    assert_eq!(race.backend.reads(), reads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_check_is_not_answered_from_memory() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    race.change_elsewhere(|key| key.revoked_at = Some(start()))
        .await;
    assert_eq!(race.verified().await, "good");
    assert_eq!(race.verified_fresh().await, "revoked");
    assert_eq!(race.verified().await, "revoked");
}

/// While a fresh check is under way, what was known still serves those who didn't ask for more; what
/// the check finds counts for all who come after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_fresh_check_who_has_not_asked_for_one() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadTaken);
    let fresh = race.fresh_request();
    let load = stop.await;
    assert_eq!(race.verified().await, "good");
    load.go_on();
    assert_eq!(fresh.await.unwrap(), "good");
    assert_eq!(race.backend.reads(), reads + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_fresh_checks_that_wait_in_the_queue_with_others_cost_one_read() {
    let race = Race::with(Steps::default(), cache().max_loads(1)).await;
    let other = issue(&race.store).await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let first = tokio::spawn({
        let store = race.store.clone();
        async move { verified(&store, &other).await }
    });
    let load = stop.await;
    let reads = race.backend.reads();
    let keys_read = race.backend.keys_read();

    let requests: Vec<_> = (0..40)
        .map(|n| {
            if n % 2 == 0 {
                race.request()
            } else {
                race.fresh_request()
            }
        })
        .collect();
    until("all but one wait for that one's load", || {
        race.store.cache_stats().shared_loads == 39
    })
    .await;
    // What is read must be newer than all of them.
    race.change_elsewhere(|key| key.disabled_at = Some(start()))
        .await;
    load.go_on();
    assert_eq!(first.await.unwrap(), "good");
    for request in requests {
        assert_eq!(request.await.unwrap(), "disabled");
    }
    assert_eq!(race.backend.reads(), reads + 1);
    assert_eq!(race.backend.keys_read(), keys_read + 1);
}

/// A check that comes when the queued read has begun needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_check_does_not_join_a_fresh_one_that_has_begun_either() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let first = race.fresh_request();
    let load = stop.await;
    race.change_elsewhere(|key| key.disabled_at = Some(start()))
        .await;
    assert_eq!(race.verified_fresh().await, "disabled");
    load.go_on();
    first.await.unwrap();
    assert_eq!(race.verified().await, "disabled");
}
