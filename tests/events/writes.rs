//! When a change is told: after it counts, whoever waits for it, and only where it is known.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use futures_core::Stream;
use tokio::time::timeout;
use tower_api_key::{ApiKeyStore, ApiKeyToken, KeyResolver};

use super::{PATIENCE, builder, heard, names, new_key};
use crate::support::{
    outcome,
    steps::{Step, Steps},
};

/// Looks at a token in the moment in which it is woken, as a reader on another processor might.
struct Looks {
    store: ApiKeyStore,
    token: ApiKeyToken,
    seen: Mutex<Vec<Option<&'static str>>>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let now = self.store.resolve_now(&self.token);
        self.seen.lock().unwrap().push(now.as_ref().map(outcome));
    }
}

#[tokio::test]
async fn g1_who_hears_of_a_revocation_finds_the_key_refused() {
    let backend = Steps::default();
    let store = builder(backend.clone()).build().await.unwrap();
    let (token, id) = new_key(&store).await;
    let asked = backend.stop_next(Step::WriteAsked);
    let revoking = tokio::spawn({
        let store = store.clone();
        async move { store.revoke(&id).await }
    });
    let stopped = asked.await;
    // Cached while it is being revoked.
    store.verify(&token).await.unwrap();
    let looks = Arc::new(Looks {
        store: store.clone(),
        token: token.parse().unwrap(),
        seen: Mutex::default(),
    });
    assert_eq!(outcome(&store.resolve_now(&looks.token).unwrap()), "good");
    let mut events = Box::pin(store.events());
    let waker = Waker::from(looks.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(events.as_mut().poll_next(&mut cx).is_pending());
    stopped.go_on();
    assert!(revoking.await.unwrap().unwrap());
    assert_eq!(*looks.seen.lock().unwrap(), [None], "it isn't cached");
    let Poll::Ready(Some(event)) = events.as_mut().poll_next(&mut cx) else {
        panic!("it was told");
    };
    assert_eq!(event.name(), "key.revoked");
}

#[tokio::test]
async fn a_change_is_told_where_its_caller_has_gone_away() {
    for step in [Step::WriteAsked, Step::WriteDone] {
        let backend = Steps::default();
        let store = builder(backend.clone()).build().await.unwrap();
        let (_, id) = new_key(&store).await;
        let mut events = store.events();
        let stop = backend.stop_next(step);
        let caller = tokio::spawn(async move { store.revoke(&id).await });
        let stopped = stop.await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(names(&heard(&mut events)), <[&str; 0]>::default());
        stopped.go_on();
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        assert_eq!((event.name(), event.key_id), ("key.revoked", Some(id)));
        // The store has gone, too.
        assert_eq!(timeout(PATIENCE, events.next()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_change_that_fails_or_may_have_failed_is_not_told() {
    let backend = Steps::default();
    let store = builder(backend.clone()).build().await.unwrap();
    let (_, id) = new_key(&store).await;
    let mut events = store.events();
    for step in [Step::WriteAsked, Step::WriteDone] {
        backend.fail_next(step);
        assert!(store.disable(&id).await.is_err());
        backend.panic_next(step);
        assert!(store.delete(&id).await.is_err());
        assert_eq!(names(&heard(&mut events)), <[&str; 0]>::default());
        new_key(&store).await;
        assert_eq!(names(&heard(&mut events)), ["key.created"]);
        let Some(key) = store.get(&id).await.unwrap() else {
            continue;
        };
        if key.disabled_at.is_some() {
            assert!(store.enable(&id).await.unwrap());
            assert_eq!(names(&heard(&mut events)), ["key.enabled"]);
        }
    }
}
