//! An error that passes.
//!
//! The database is gone for a moment. A request that can't be checked is answered as if its key were
//! wrong, and that answer is remembered: the database is back after a second, and the key is refused
//! for a minute. Or nothing is remembered, and yet what was known before is thrown away.

use super::{Race, SECOND, verified};
use crate::support::{
    steps::{Step, Steps, Stopped},
    unknown_token, with_wrong_secret,
};

const STEPS: [Step; 2] = [Step::ReadAsked, Step::ReadTaken];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_an_error_is_not_remembered() {
    for step in STEPS {
        let race = Race::new().await;
        let wrong = with_wrong_secret(&race.token);
        for (token, then) in [
            (race.token.clone(), "good"),
            (wrong, "wrong secret"),
            (unknown_token(), "unknown"),
        ] {
            race.store.invalidate_all();
            for _ in 0..3 {
                race.backend.fail_next(step);
                assert_eq!(verified(&race.store, &token).await, "unavailable");
                let stats = race.store.cache_stats();
                assert_eq!((stats.entries, stats.unknown_entries), (0, 0));
            }
            assert_eq!(verified(&race.store, &token).await, then);
        }
    }
}

/// All who wait for a read that fails are told so, and the next one reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_all_who_waited_are_told_and_the_next_is_answered() {
    for lose in [Stopped::fail, Stopped::panic] {
        let race = Race::new().await;
        let reads = race.backend.reads();
        let stop = race.backend.stop_next(Step::ReadTaken);
        let requests: Vec<_> = (0..20).map(|_| race.request()).collect();
        let load = stop.await;
        super::until("they wait", || race.store.cache_stats().shared_loads == 19).await;
        lose(load);
        for request in requests {
            assert_eq!(request.await.unwrap(), "unavailable");
        }
        assert_eq!(race.verified().await, "good");
        assert_eq!(race.backend.reads(), reads + 2);
    }
}

/// The key was read again because it was too old. What was known isn't believed in its place, unless
/// that is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_a_key_that_is_too_old_is_neither_believed_nor_refused_while_it_cannot_be_read() {
    let race = Race::with(Steps::default(), super::cache()).await;
    assert_eq!(race.verified().await, "good");
    race.clock.advance(5 * SECOND);
    for _ in 0..3 {
        race.backend.fail_next(Step::ReadAsked);
        assert_eq!(race.verified().await, "unavailable");
    }
    assert_eq!(race.verified().await, "good");
}

/// A load of a revoked key fails: the key isn't back because of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_load_that_fails_after_a_revocation_leaves_the_key_refused() {
    let race = Race::with(Steps::default(), super::cache().serve_stale(60 * SECOND)).await;
    assert_eq!(race.verified().await, "good");
    let stop = race.backend.stop_next(Step::ReadTaken);
    let fresh = race.fresh_request();
    let load = stop.await;
    assert!(race.store.revoke(&race.id).await.unwrap());
    race.backend.fail_next(Step::ReadAsked);
    load.fail();
    assert_eq!(fresh.await.unwrap(), "unavailable");
    race.backend.fail_next(Step::ReadAsked);
    assert_eq!(race.verified().await, "unavailable");
    assert_eq!(race.verified().await, "revoked");
}
