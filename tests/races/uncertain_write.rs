//! A write whose outcome nobody knows.
//!
//! The connection breaks after the commit and before the answer, or the driver panics while it reads
//! the answer. The revocation is reported as failed, so nothing is removed from the cache: the key is
//! revoked in the database and works on this node. And the other way round: a write that failed
//! before it was made must not end a key that nobody has ended.

use super::{Race, SECOND, until};
use crate::support::steps::{Step, Steps, Stopped};
use tower_api_key::StoreError;

/// The ways in which an answer gets lost.
const LOSSES: [fn(Stopped); 2] = [Stopped::fail, Stopped::panic];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_key_is_not_believed_any_more_after_a_revocation_whose_outcome_is_unknown() {
    for lose in LOSSES {
        let race = Race::new().await;
        let asked = race.backend.stop_next(Step::WriteAsked);
        let done = race.backend.stop_next(Step::WriteDone);
        let revocation = race.revocation();
        let uncommitted = asked.await;
        // Cached again since the revocation began.
        assert_eq!(race.verified().await, "good");
        assert!(race.is_cached());
        uncommitted.go_on();

        lose(done.await);
        let error = revocation.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(!race.is_cached());
        assert_eq!(race.verified().await, "revoked");
        assert!(!race.store.revoke(&race.id).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nor_after_a_deletion_whose_outcome_is_unknown() {
    for lose in LOSSES {
        let race = Race::new().await;
        let asked = race.backend.stop_next(Step::WriteAsked);
        let done = race.backend.stop_next(Step::WriteDone);
        let deletion = tokio::spawn({
            let race = race.clone();
            async move { race.store.delete(&race.id).await }
        });
        let uncommitted = asked.await;
        assert_eq!(race.verified().await, "good");
        uncommitted.go_on();

        lose(done.await);
        let error = deletion.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(!race.is_cached());
        assert_eq!(race.verified().await, "unknown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_failed_before_the_commit_is_reported_and_the_key_works() {
    for lose in LOSSES {
        let race = Race::new().await;
        assert_eq!(race.verified().await, "good");
        let stop = race.backend.stop_next(Step::WriteAsked);
        let revocation = race.revocation();
        lose(stop.await);
        let error = revocation.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert_eq!(race.verified().await, "good");

        assert!(race.store.revoke(&race.id).await.unwrap());
        assert_eq!(race.verified().await, "revoked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_cannot_read_the_key_is_reported_and_the_key_works() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    let writes = race.backend.writes();
    race.backend.fail_next(Step::ReadAsked);
    let error = race.store.revoke(&race.id).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(race.verified().await, "good");
    assert_eq!(race.backend.writes(), writes);
}

/// A load that is under way meanwhile brings the key as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_load_begun_before_a_revocation_of_unknown_outcome_does_not_resurrect_the_key() {
    for lose in LOSSES {
        let race = Race::new().await;
        let asked = race.backend.stop_next(Step::WriteAsked);
        let done = race.backend.stop_next(Step::WriteDone);
        let revocation = race.revocation();
        let uncommitted = asked.await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = race.request();
        let load = stop.await;
        uncommitted.go_on();

        lose(done.await);
        assert!(revocation.await.unwrap().is_err());
        load.go_on();
        assert_eq!(waiting.await.unwrap(), "revoked");
        assert_eq!(race.verified().await, "revoked");
    }
}

/// Nobody has said that the key is revoked, and the write may hang for hours; but what was read
/// before is believed for no longer than anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_never_returns_counts_when_the_staleness_has_passed() {
    for (backend, is_told) in [(Steps::default(), false), (Steps::telling(), true)] {
        let race = Race::with(backend, super::cache()).await;
        let stop = race.backend.stop_next(Step::WriteAsked);
        race.backend.hang_next(Step::WriteDone);
        let revocation = race.revocation();
        let uncommitted = stop.await;
        assert_eq!(race.verified().await, "good");
        uncommitted.go_on();
        let elsewhere = race.elsewhere().await;
        while elsewhere.verify_fresh(&race.token).await.is_ok() {}

        if is_told {
            until("the cache is told", || !race.is_cached()).await;
        } else {
            assert_eq!(race.verified().await, "good");
            race.clock.advance(5 * SECOND);
        }
        assert_eq!(race.verified().await, "revoked");
        assert!(!revocation.is_finished());
    }
}
