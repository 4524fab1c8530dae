//! A revocation against another.
//!
//! Two people revoke the same key, or a person and a scanner that has found it in public. Where both
//! read the record and both write it, both say that they ended the key, the later one writes over
//! when and by whom, and a change that came in between is lost.

use super::{Race, SECOND};
use crate::support::{start, steps::Step};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_of_two_revocations_at_once_one_has_ended_the_key() {
    for first_goes_first in [false, true] {
        let race = Race::new().await;
        assert_eq!(race.verified().await, "good");
        // Both have read the record as it was.
        let stop = race.backend.stop_next(Step::WriteAsked);
        let first = race.revocation();
        let first_write = stop.await;
        race.clock.advance(SECOND);
        let stop = race.backend.stop_next(Step::WriteAsked);
        let second = race.revocation();
        let second_write = stop.await;

        if first_goes_first {
            first_write.go_on();
            assert!(first.await.unwrap().unwrap());
            assert_eq!(race.verified().await, "revoked");
            second_write.go_on();
            assert!(!second.await.unwrap().unwrap());
        } else {
            second_write.go_on();
            assert!(second.await.unwrap().unwrap());
            assert_eq!(race.verified().await, "revoked");
            first_write.go_on();
            assert!(!first.await.unwrap().unwrap());
        }
        assert_eq!(race.verified().await, "revoked");

        let key = race.store.get(&race.id).await.unwrap().unwrap();
        let when = if first_goes_first {
            start()
        } else {
            start() + SECOND
        };
        assert_eq!((key.revoked_at, key.version), (Some(when), 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_of_many_revocations_at_once_one_has_ended_the_key() {
    for _ in 0..50 {
        let race = Race::new().await;
        assert_eq!(race.verified().await, "good");
        let revocations: Vec<_> = (0..16)
            .map(|_| {
                let race = race.clone();
                tokio::spawn(async move {
                    let ended = race.store.revoke(&race.id).await.unwrap();
                    // Whoever ended it, it is over for those who come after any of them.
                    (ended, race.verified().await)
                })
            })
            .collect();
        let mut ended = 0;
        for revocation in revocations {
            let (has_ended_it, afterwards) = revocation.await.unwrap();
            ended += usize::from(has_ended_it);
            assert_eq!(afterwards, "revoked");
        }
        assert_eq!(ended, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_that_the_deletion_of_the_key_overtakes_has_ended_nothing() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::WriteAsked);
    let revocation = race.revocation();
    let write = stop.await;
    assert_eq!(race.verified().await, "good");
    assert!(race.store.delete(&race.id).await.unwrap());
    write.go_on();
    assert!(!revocation.await.unwrap().unwrap());
    assert_eq!(race.verified().await, "unknown");
    assert!(race.store.get(&race.id).await.unwrap().is_none());
}

/// Narrowed, renamed or suspended: a revocation that read the record before does not undo it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_that_another_change_overtakes_keeps_both() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::WriteAsked);
    let revocation = race.revocation();
    let write = stop.await;
    race.change_elsewhere(|key| key.name = Some("renamed".to_owned()))
        .await;
    write.go_on();
    assert!(revocation.await.unwrap().unwrap());
    assert_eq!(race.verified().await, "revoked");
    let key = race.store.get(&race.id).await.unwrap().unwrap();
    assert_eq!((key.name.as_deref(), key.version), (Some("renamed"), 3));
}
