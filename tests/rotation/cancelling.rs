//! A rotation that is finished early, or taken back: whoever comes in between, one of the two keys goes on.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, BackendError, KeySource, MemoryBackend, RevocationReason,
    RotationError, StoreError, forward_to_backend,
};

use super::databases::{clock, node_on};
use crate::{
    DAY, HOUR, key, problem, record,
    support::{id_of, start, unknown_token},
    token_of, verified,
};

#[tokio::test]
async fn finishing_revokes_the_old_key_and_says_why() {
    let clock = clock();
    let store = node_on(MemoryBackend::new(), &clock).await;
    let (old, id) = key(&store).await;
    let new = token_of(&store.rotate(&id, DAY).await.unwrap());
    assert_eq!(verified(&store, &old).await, "good");
    clock.advance(HOUR);
    assert!(store.finish_rotation(&id).await.unwrap());
    assert_eq!(verified(&store, &old).await, "revoked");
    assert_eq!(verified(&store, &new).await, "good");
    let ended = record(&store, &id).await;
    assert_eq!(ended.revocation_reason, Some(RevocationReason::Rotated));
    assert_eq!((ended.revoked_at, ended.version), (Some(start() + HOUR), 3));
    assert!(!store.finish_rotation(&id).await.unwrap());
    assert_eq!(record(&store, &id).await.version, 3);
}

#[tokio::test]
async fn finishing_after_the_overlap_revokes_for_clocks_that_are_behind() {
    let clock = clock();
    let store = node_on(MemoryBackend::new(), &clock).await;
    let (old, id) = key(&store).await;
    let _ = store.rotate(&id, HOUR).await.unwrap();
    clock.advance(DAY);
    assert_eq!(verified(&store, &old).await, "expired");
    assert!(store.finish_rotation(&id).await.unwrap());
    clock.set(start());
    assert_eq!(verified(&store, &old).await, "revoked");
}

#[tokio::test]
async fn cancelling_revokes_the_successor_and_the_old_key_goes_on_as_before() {
    let clock = clock();
    let store = node_on(MemoryBackend::new(), &clock).await;
    let (old, id) = key(&store).await;
    let new = token_of(&store.rotate(&id, HOUR).await.unwrap());
    assert_eq!(verified(&store, &new).await, "good");
    store.cancel_rotation(&id).await.unwrap();
    assert_eq!(verified(&store, &new).await, "revoked");
    let successor = record(&store, &id_of(&new)).await;
    assert_eq!(
        successor.revocation_reason,
        Some(RevocationReason::Superseded)
    );
    let key = record(&store, &id).await;
    assert_eq!(
        (key.retires_at, key.successor, key.revoked_at),
        (None, None, None)
    );
    for by in [id, id_of(&new)] {
        assert!(store.rotation(&by).await.unwrap().is_none());
    }
    clock.advance(100 * DAY);
    assert_eq!(verified(&store, &old).await, "good");
    // And can be rotated again.
    let again = token_of(&store.rotate(&id, HOUR).await.unwrap());
    assert_eq!(verified(&store, &again).await, "good");
    assert_eq!(record(&store, &id).await.successor, Some(id_of(&again)));
}

#[tokio::test]
async fn what_can_not_be_finished_or_cancelled_says_why_and_stays_as_it_is() {
    let clock = clock();
    let store = node_on(MemoryBackend::new(), &clock).await;
    let unknown = id_of(&unknown_token());
    assert_eq!(
        problem(store.finish_rotation(&unknown).await),
        RotationError::Unknown
    );
    assert_eq!(
        problem(store.cancel_rotation(&unknown).await),
        RotationError::Unknown
    );
    let (_, not_rotated) = key(&store).await;
    let successor = {
        let (_, id) = key(&store).await;
        store.rotate(&id, DAY).await.unwrap().key().id
    };
    for id in [not_rotated, successor] {
        assert_eq!(
            problem(store.finish_rotation(&id).await),
            RotationError::NotRotated
        );
        assert_eq!(
            problem(store.cancel_rotation(&id).await),
            RotationError::NotRotated
        );
        assert_eq!(record(&store, &id).await.version, 1);
    }

    let rotated = async |overlap| {
        let (_, id) = key(&store).await;
        let successor = store.rotate(&id, overlap).await.unwrap().key().id;
        (id, successor)
    };
    let (at_once, finished, revoked) = (
        rotated(Duration::ZERO).await,
        rotated(HOUR).await,
        rotated(HOUR).await,
    );
    assert!(store.finish_rotation(&finished.0).await.unwrap());
    assert!(store.revoke(&revoked.0).await.unwrap());
    let (over, suspended) = (rotated(HOUR).await, rotated(DAY).await);
    assert!(store.disable(&suspended.0).await.unwrap());
    clock.advance(HOUR);
    for ((old, successor), expected) in [
        (at_once, RotationError::Revoked),
        (finished, RotationError::Revoked),
        (revoked, RotationError::Revoked),
        (over, RotationError::Expired),
        (suspended, RotationError::Disabled),
    ] {
        let before = record(&store, &old).await;
        assert_eq!(problem(store.cancel_rotation(&old).await), expected);
        assert_eq!(
            format!("{:?}", record(&store, &old).await),
            format!("{before:?}")
        );
        let successor = record(&store, &successor).await;
        assert_eq!((successor.revoked_at, successor.version), (None, 1));
    }
}

#[tokio::test]
async fn cancelling_where_the_successor_is_gone_revoked_or_rotated_itself() {
    let store = node_on(MemoryBackend::new(), &clock()).await;
    for way in 0..3 {
        let (old, id) = key(&store).await;
        let successor = store.rotate(&id, DAY).await.unwrap().key().id;
        let mut third = None;
        match way {
            0 => assert!(store.delete(&successor).await.unwrap()),
            1 => assert!(store.revoke(&successor).await.unwrap()),
            _ => third = Some(store.rotate(&successor, DAY).await.unwrap()),
        }
        store.cancel_rotation(&id).await.unwrap();
        assert_eq!(verified(&store, &old).await, "good");
        let key = record(&store, &id).await;
        assert_eq!((key.successor, key.retires_at), (None, None));
        if let Some(third) = third {
            assert!(record(&store, &successor).await.revoked_at.is_some());
            assert_eq!(verified(&store, &token_of(&third)).await, "good");
        }
    }
}

/// One of two answers is given, and never do both keys end by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_finish_and_cancel_at_once_one_key_goes_on() {
    for round in 0..100 {
        let backend = MemoryBackend::new();
        let clock = clock();
        let nodes = [
            node_on(backend.clone(), &clock).await,
            node_on(backend, &clock).await,
        ];
        let (old, id) = key(&nodes[0]).await;
        let new = token_of(&nodes[0].rotate(&id, DAY).await.unwrap());
        let mut tasks = JoinSet::new();
        for at in 0..8 {
            let store = nodes[at % 2].clone();
            tasks.spawn(async move {
                if (at / 2 + round) % 2 == 0 {
                    let finished = store.finish_rotation(&id).await;
                    finished.map(|_| "finished").map_err(|error| (at, error))
                } else {
                    let cancelled = store.cancel_rotation(&id).await;
                    cancelled.map(|()| "cancelled").map_err(|error| (at, error))
                }
            });
        }
        let outcomes = tasks.join_all().await;
        let done: Vec<_> = outcomes.iter().filter_map(|it| it.as_ref().ok()).collect();
        let first = done[0];
        assert!(done.iter().all(|what| *what == first), "{outcomes:?}");
        for outcome in &outcomes {
            if let Err((_, error)) = outcome {
                assert!(matches!(error, StoreError::Rotation { .. }), "{error:?}");
            }
        }
        let expected = if *first == "finished" {
            ["revoked", "good"]
        } else {
            ["good", "revoked"]
        };
        for store in &nodes {
            assert_eq!(verified(store, &old).await, expected[0]);
            assert_eq!(verified(store, &new).await, expected[1]);
        }
    }
}

/// A backend that fails from some update on, or does something between two of them.
#[derive(Clone, Default)]
struct Interrupted {
    inner: MemoryBackend,
    /// How many updates come through; then as many as wanted fail.
    left: Arc<AtomicUsize>,
}

const ALL: usize = usize::MAX;

impl KeySource for Interrupted {
    forward_to_backend!(self => self.inner; all of source);
}

impl ApiKeyBackend for Interrupted {
    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        match self.left.load(Ordering::SeqCst) {
            ALL => {}
            0 => return Err(BackendError::unavailable("the cable was pulled")),
            left => self.left.store(left - 1, Ordering::SeqCst),
        }
        self.inner.update(key, expected).await
    }

    forward_to_backend!(self => self.inner; insert, delete, list_for_user, touch);
}

/// A cancellation that broke off after so many of its writes.
async fn broken_off(after: usize) -> (ApiKeyStore, String, String, tower_api_key::ManualClock) {
    let backend = Interrupted::default();
    let clock = clock();
    backend.left.store(ALL, Ordering::SeqCst);
    let store = node_on(backend.clone(), &clock).await;
    let (old, id) = key(&store).await;
    let new = token_of(&store.rotate(&id, HOUR).await.unwrap());
    backend.left.store(after, Ordering::SeqCst);
    let error = store.cancel_rotation(&id).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    backend.left.store(ALL, Ordering::SeqCst);
    (store, old, new, clock)
}

#[tokio::test]
async fn a_cancellation_that_breaks_off_ends_no_key_that_is_needed_and_can_be_finished() {
    for after in 0..3 {
        let (store, old, new, clock) = broken_off(after).await;
        let id = id_of(&old);
        assert_eq!(verified(&store, &old).await, "good", "after {after}");
        let successor = if after < 2 { "good" } else { "revoked" };
        assert_eq!(verified(&store, &new).await, successor, "after {after}");
        if after > 0 {
            // Nobody ends by the rotation what the cancellation has let go on.
            assert_eq!(
                problem(store.finish_rotation(&id).await),
                RotationError::NotRotated
            );
            let again = store.rotate(&id, Duration::ZERO).await;
            assert_eq!(problem(again), RotationError::RotatedAlready);
            let rotation = store.rotation(&id).await.unwrap().unwrap();
            assert_eq!(rotation.overlap_ends_at(), None);
        }
        store.cancel_rotation(&id).await.unwrap();
        assert_eq!(verified(&store, &new).await, "revoked");
        clock.advance(DAY);
        assert_eq!(verified(&store, &old).await, "good");
        assert!(store.rotation(&id).await.unwrap().is_none());
        assert_eq!(
            problem(store.cancel_rotation(&id).await),
            RotationError::NotRotated
        );
    }
}

#[tokio::test]
async fn a_cancellation_whose_caller_goes_away_is_carried_through() {
    let clock = clock();
    let store = node_on(MemoryBackend::new(), &clock).await;
    for _ in 0..20 {
        let (old, id) = key(&store).await;
        let new = token_of(&store.rotate(&id, HOUR).await.unwrap());
        {
            let mut cancel = pin!(store.cancel_rotation(&id));
            let once = poll_fn(|cx| Poll::Ready(cancel.as_mut().poll(cx).is_pending()));
            assert!(once.await, "it was done before it was given up");
        }
        let mut turns = 0;
        while store.rotation(&id).await.unwrap().is_some() {
            turns += 1;
            assert!(turns < 1_000, "it is never done");
            tokio::task::yield_now().await;
        }
        assert_eq!(verified(&store, &new).await, "revoked");
        assert_eq!(verified(&store, &old).await, "good");
    }
}
