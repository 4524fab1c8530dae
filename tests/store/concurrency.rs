//! Those who make more than the backend can do wait, and stand in nobody's way who ends a key or uses one.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use tower_api_key::{
    ApiKeyStore, ClaimRefusal, HandoffToken, NewApiKey, Peppers, Scopes, StoreError,
};

use crate::support::{
    USER, outcome,
    steps::{Step, Steps, Stopped},
};

const MINUTE: Duration = Duration::from_secs(60);

fn new_key() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::none())
}

async fn store_on_steps() -> (ApiKeyStore, Steps) {
    let backend = Steps::default();
    let store = super::store_on(backend.clone(), Peppers::new(super::pepper("v1"))).await;
    (store, backend)
}

/// As many keys as may be made at once, none of which the backend answers.
async fn hanging(store: &ApiKeyStore, backend: &Steps) -> Vec<Stopped> {
    let mut stopped = Vec::new();
    loop {
        let next = backend.stop_next(Step::WriteAsked);
        let store = store.clone();
        let waiting = tokio::spawn(async move { store.create(new_key()).await });
        tokio::select! {
            biased;
            write = next => stopped.push(write),
            // It waits for its turn, and nothing else is left to do.
            () = tokio::time::sleep(Duration::from_millis(1)) => {
                waiting.abort();
                backend.forget_plans();
                return stopped;
            }
        }
        assert!(stopped.len() < 100, "there is no bound");
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_who_make_keys_hang_others_are_refused_in_time_and_keys_can_be_ended() {
    let (store, backend) = store_on_steps().await;
    let issued = store.create(new_key()).await.unwrap();
    let (token, id) = (issued.token().expose(), issued.key().id);
    let hanging = hanging(&store, &backend).await;

    let began = Instant::now();
    let error = store.create(new_key()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(11));

    assert_eq!(outcome(&store.verify(token).await), "good");
    assert!(store.disable(&id).await.unwrap());
    assert!(store.revoke(&id).await.unwrap());
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 0);
    assert_eq!(outcome(&store.verify(token).await), "revoked");

    hanging.into_iter().for_each(Stopped::go_on);
    drop(store.create(new_key()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_broken_off_leave_no_more_tasks_than_may_be_under_way() {
    let (store, backend) = store_on_steps().await;
    let hanging = hanging(&store, &backend).await;
    let before = Handle::current().metrics().num_alive_tasks();
    let handed_off = store.hand_off(new_key(), MINUTE).await.unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        assert!(pin!(store.create(new_key())).poll(&mut cx).is_pending());
        assert!(
            pin!(store.claim(handed_off.token()))
                .poll(&mut cx)
                .is_pending()
        );
        let _ = pin!(store.hand_off(new_key(), MINUTE)).poll(&mut cx);
    }
    let left = Handle::current().metrics().num_alive_tasks();
    // One grant, and two lookups of claims.
    assert!(left <= before + 3, "{left} tasks, and {before} before");
    hanging.into_iter().for_each(Stopped::go_on);
    // What has only waited was never asked for.
    drop(store.claim(handed_off.token()).await.unwrap());
    let unknown = HandoffToken::from_bytes([7; 16]);
    let error = store.claim(&unknown).await.unwrap_err();
    let is_unknown = matches!(error, StoreError::NotClaimable(ClaimRefusal::Unknown));
    assert!(is_unknown, "{error}");
}

/// Whoever ends keys waits for others, and not for ever.
#[tokio::test(start_paused = true)]
async fn no_revocation_is_refused_because_others_hang() {
    let (store, backend) = store_on_steps().await;
    let mut hanging = Vec::new();
    for _ in 0..8 {
        let id = store.create(new_key()).await.unwrap().key().id;
        let stop = backend.stop_next(Step::WriteAsked);
        let store = store.clone();
        hanging.push(tokio::spawn(async move { store.revoke(&id).await }));
        hanging.push(tokio::spawn(async move {
            stop.await.given_up().await;
            Ok(true)
        }));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let issued = store.create(new_key()).await.unwrap();
    let began = Instant::now();
    assert!(store.revoke(&issued.key().id).await.unwrap());
    assert!(store.revoke_all_for_user(USER).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(5));
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

/// As `buffer_unordered` polls what it holds: not while its consumer does something else.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_done_and_not_polled_keeps_nobody_waiting() {
    let (store, _) = store_on_steps().await;
    let mut cx = Context::from_waker(Waker::noop());
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut call = Box::pin(store.hand_off(new_key(), MINUTE));
        assert!(call.as_mut().poll(&mut cx).is_pending());
        held.push(call);
        // It is carried out meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let began = Instant::now();
        let _unclaimed = store.hand_off(new_key(), MINUTE).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
