//! A revocation whose caller goes away.
//!
//! The revocation is a request, too: its client hangs up, a proxy gives up waiting, the handler's
//! future is dropped. Where it is dropped between the commit and the removal from the cache, the
//! database says that the key is revoked, the node goes on accepting it, and trying again finds
//! nothing to do.

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::timeout,
};
use tower_api_key::StoreError;

use super::{PATIENCE, Race, until, verified};
use crate::support::steps::{Step, Steps};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_whose_caller_goes_away_before_the_commit_is_carried_out() {
    let race = Race::new().await;
    abandoned(&race, Race::revocation, Step::WriteAsked).await;
    assert_eq!(race.verified().await, "revoked");
    assert!(!race.store.revoke(&race.id).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_whose_caller_goes_away_after_the_commit_counts() {
    let race = Race::new().await;
    abandoned(&race, Race::revocation, Step::WriteDone).await;
    assert_eq!(race.verified().await, "revoked");
    assert!(!race.store.revoke(&race.id).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_deletion_whose_caller_goes_away_is_carried_out_and_counts() {
    for step in [Step::WriteAsked, Step::WriteDone] {
        let race = Race::new().await;
        abandoned(&race, deletion, step).await;
        assert_eq!(race.verified().await, "unknown");
        assert!(race.store.get(&race.id).await.unwrap().is_none());
    }
}

fn deletion(race: &Race) -> JoinHandle<Result<bool, StoreError>> {
    let race = race.clone();
    tokio::spawn(async move { race.store.delete(&race.id).await })
}

fn suspension(race: &Race) -> JoinHandle<Result<bool, StoreError>> {
    let race = race.clone();
    tokio::spawn(async move { race.store.disable(&race.id).await })
}

/// The write begins, the key is cached again, and the caller goes away when the write has come to
/// `when`. Returns when the cache has been told that the write is over.
async fn abandoned(
    race: &Race,
    write: fn(&Race) -> JoinHandle<Result<bool, StoreError>>,
    when: Step,
) {
    let asked = race.backend.stop_next(Step::WriteAsked);
    let caller = write(race);
    let mut stopped = asked.await;
    assert_eq!(race.verified().await, "good");
    assert!(race.is_cached());
    if when == Step::WriteDone {
        let done = race.backend.stop_next(Step::WriteDone);
        stopped.go_on();
        stopped = done.await;
    }
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    stopped.go_on();
    until("the cache is told", || !race.is_cached()).await;
}

/// Another change comes in between, so that the write doesn't fit any more and has to be made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_suspension_whose_caller_goes_away_while_others_change_the_key_is_carried_out() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::WriteAsked);
    let caller = suspension(&race);
    let uncommitted = stop.await;
    race.change_elsewhere(|key| key.name = Some("renamed".to_owned()))
        .await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());

    let done = race.backend.stop_next(Step::WriteDone);
    let done_again = race.backend.stop_next(Step::WriteDone);
    uncommitted.go_on();
    done.await.go_on();
    let again = timeout(PATIENCE, done_again).await;
    again.expect("it is tried again").go_on();
    until("the cache is told", || !race.is_cached()).await;
    assert_eq!(race.verified().await, "disabled");
}

/// It was still to be looked whether there is anything to revoke.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_whose_caller_goes_away_before_it_writes_has_changed_nothing() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    let writes = race.backend.writes();
    let stop = race.backend.stop_next(Step::ReadTaken);
    let caller = race.revocation();
    let read = stop.await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    read.given_up().await;
    assert_eq!(race.verified().await, "good");
    assert_eq!(race.backend.writes(), writes);
    assert!(race.store.revoke(&race.id).await.unwrap());
    assert_eq!(race.verified().await, "revoked");
}

/// The runtime goes away that the revocation was made on, and its tasks with it; the store is used on
/// another.
#[test]
fn g1_a_revocation_whose_runtime_ends_after_the_commit_counts() {
    let (staying, leaving) = (runtime(), runtime());
    let race = staying.block_on(Race::with(Steps::default(), super::cache()));
    let (asked, done) = (
        race.backend.stop_next(Step::WriteAsked),
        race.backend.stop_next(Step::WriteDone),
    );
    let caller = {
        let _on = leaving.enter();
        race.revocation()
    };
    let committed = staying.block_on(async {
        let uncommitted = asked.await;
        assert_eq!(race.verified().await, "good");
        assert!(race.is_cached());
        uncommitted.go_on();
        done.await
    });
    drop(leaving);
    staying.block_on(async {
        assert!(caller.await.unwrap_err().is_cancelled());
        committed.given_up().await;
        assert_eq!(verified(&race.store, &race.token).await, "revoked");
    });
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
