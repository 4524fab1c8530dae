//! Changes whose answer is lost, or that fail midway: what was done is told all the same, and once.

use std::time::Duration;

use tokio::time::timeout;
use tower_api_key::{ApiKeyStore, Event, Events, NewApiKey, Scopes};

use super::{PATIENCE, SECOND, builder, heard, names, new_key};
use crate::support::{
    USER, outcome,
    steps::{Step, Steps, Stopped},
};

async fn store_on_steps() -> (ApiKeyStore, Steps) {
    let backend = Steps::default();
    let store = builder(backend.clone()).build().await.unwrap();
    (store, backend)
}

async fn next(events: &mut Events) -> Event {
    timeout(PATIENCE, events.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_rotation_whose_answer_is_lost_is_done_and_told() {
    for lose in [Stopped::fail, Stopped::panic] {
        let (store, backend) = store_on_steps().await;
        let (_, id) = new_key(&store).await;
        let mut events = store.events();
        let written = backend.stop_next(Step::WriteDone);
        let rotating = tokio::spawn({
            let store = store.clone();
            async move { store.rotate(&id, Duration::ZERO).await }
        });
        lose(written.await);
        let issued = rotating.await.unwrap().unwrap();
        let verified = store.verify(issued.token().expose()).await;
        assert_eq!(outcome(&verified), "good");
        let heard = heard(&mut events);
        assert_eq!(names(&heard), ["key.rotated", "key.revoked"]);
        assert_eq!(heard[0].kind.successor(), Some(issued.key().id));
        assert_eq!(heard[1].reason(), Some("rotated"));
    }
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_done_and_told() {
    for lose in [Stopped::fail, Stopped::panic] {
        let (store, backend) = store_on_steps().await;
        let new = NewApiKey::for_user(USER, Scopes::none());
        let handed_off = store.hand_off(new, 60 * SECOND).await.unwrap();
        let mut events = store.events();
        let written = backend.stop_next(Step::WriteDone);
        let claiming = tokio::spawn({
            let store = store.clone();
            async move { store.claim(handed_off.token()).await }
        });
        lose(written.await);
        let issued = claiming.await.unwrap().unwrap();
        let heard = heard(&mut events);
        assert_eq!(names(&heard), ["grant.claimed"]);
        assert_eq!(heard[0].key_id, Some(issued.key().id));
    }
}

#[tokio::test]
async fn what_is_done_is_told_where_the_answer_is_lost_and_the_caller_has_gone_away() {
    let (store, backend) = store_on_steps().await;
    let (_, id) = new_key(&store).await;
    let new = NewApiKey::for_user(USER, Scopes::none());
    let handed_off = store.hand_off(new, 60 * SECOND).await.unwrap();
    let mut events = store.events();
    for name in ["key.rotated", "grant.claimed"] {
        let written = backend.stop_next(Step::WriteDone);
        let (store, token) = (store.clone(), handed_off.token().clone());
        let caller = tokio::spawn(async move {
            if name == "key.rotated" {
                store.rotate(&id, SECOND).await
            } else {
                store.claim(&token).await
            }
        });
        let written = written.await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        written.fail();
        assert_eq!(next(&mut events).await.name(), name);
    }
}

/// All keys of a user are gone through until none is left, at least twice.
#[tokio::test]
async fn keys_that_were_ended_before_the_database_failed_are_told_with_their_reason() {
    let (store, backend) = store_on_steps().await;
    let keys = [new_key(&store).await, new_key(&store).await];
    for (token, _) in &keys {
        assert_eq!(outcome(&store.verify(token).await), "good");
    }
    let mut events = store.events();
    let ended = backend.stop_next(Step::WriteDone);
    let ending = tokio::spawn({
        let store = store.clone();
        async move { store.revoke_all_for_user(USER).await }
    });
    let ended = ended.await;
    backend.fail_next(Step::WriteAsked);
    ended.go_on();
    assert!(ending.await.unwrap().is_err());
    let told = heard(&mut events);
    assert_eq!(names(&told), ["key.revoked", "key.revoked"]);
    for (token, id) in &keys {
        assert!(told.iter().any(|event| event.key_id == Some(*id)));
        assert_eq!(outcome(&store.verify(token).await), "revoked");
    }
    // They are ended, so they aren't again.
    let mut events = store.events();
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 0);
    assert_eq!(names(&heard(&mut events)), <[&str; 0]>::default());
}
