//! The two records of a rotation are written together, wherever it is broken off.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use tower_api_key::{ApiKey, ApiKeyBackend, MemoryBackend, Scopes, Touch};

use super::databases::{clock, node_on, postgres, sqlite};
use crate::{
    key,
    support::{USER, folder::Folder, postgres::Server, start},
};

/// Polls `call` so many times at the most, each time when it asks for it, and then drops it.
async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let (mut call, mut left) = (pin!(call), polls);
    poll_fn(|cx| {
        left = left.saturating_sub(1);
        match call.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Whether both are written, read in one statement.
async fn is_done(backend: &impl ApiKeyBackend, [old, successor]: &[ApiKey; 2]) -> bool {
    let keys = [old.lookup_key(), successor.lookup_key()];
    let found = backend.get_many(&keys).await.unwrap();
    let is_rotated = found.iter().any(|key| key.successor == Some(successor.id));
    let has_successor = found.iter().any(|key| key.id == successor.id);
    assert_eq!(is_rotated, has_successor, "one of the two is written alone");
    is_rotated
}

async fn is_whole_wherever_it_is_broken_off(name: &str, nodes: [impl ApiKeyBackend; 2]) {
    let [here, there] = nodes;
    let store = node_on(MemoryBackend::new(), &clock()).await;
    let mut outcomes = [0, 0];
    for polls in (1..=10).cycle().take(60) {
        let (_, id) = key(&store).await;
        let stored = store.get(&id).await.unwrap().unwrap();
        assert!(there.insert(&stored).await.unwrap());
        let (_, new) = key(&store).await;
        let hash = store.get(&new).await.unwrap().unwrap().secret_hash;
        let mut successor = ApiKey::new(new, USER, Scopes::none(), hash);
        successor.predecessor = Some(id);
        let mut old = stored.clone();
        (old.successor, old.version) = (Some(new), 2);
        let pair = [old, successor];
        let [old, successor] = &pair;
        let told = dropped_after(polls, here.rotate(successor, old, 1)).await;
        let done = is_done(&there, &pair).await;
        if let Some(told) = told {
            assert!(told.unwrap() && done, "{name}, {polls} polls");
        }
        outcomes[usize::from(done)] += 1;
        // What was broken off may be done later still: by whom, it is done once.
        there.rotate(successor, old, 1).await.unwrap();
        assert!(is_done(&here, &pair).await, "{name}, {polls} polls");
        assert!(!here.rotate(successor, old, 1).await.unwrap());
    }
    assert!(outcomes[1] > 0, "{name}: {outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotation_that_is_broken_off_is_done_whole_or_not_at_all() {
    let memory = MemoryBackend::new();
    is_whole_wherever_it_is_broken_off("memory", [memory.clone(), memory]).await;
    let folder = Folder::new("rotation-whole");
    is_whole_wherever_it_is_broken_off("SQLite", [sqlite(&folder).await, sqlite(&folder).await])
        .await;
    let Some(server) = Server::start() else {
        return;
    };
    let nodes = [postgres(&server).await, postgres(&server).await];
    Box::pin(is_whole_wherever_it_is_broken_off("PostgreSQL", nodes)).await;
}

/// Uses are written behind the requests, and may meet the rotation in the database.
async fn is_done_beside_uses(name: &str, nodes: [impl ApiKeyBackend; 2]) {
    let [here, there] = nodes;
    let store = node_on(MemoryBackend::new(), &clock()).await;
    for round in 0..50 {
        let (_, id) = key(&store).await;
        let stored = store.get(&id).await.unwrap().unwrap();
        assert!(there.insert(&stored).await.unwrap());
        let (_, new) = key(&store).await;
        let successor = store.get(&new).await.unwrap().unwrap();
        let mut old = stored;
        (old.successor, old.version) = (Some(new), 2);
        let uses = async {
            for second in 1..=10 {
                let used_at = start() + Duration::from_secs(second);
                there.touch(&[Touch::new(id, used_at)]).await.unwrap();
            }
        };
        let (done, ()) = tokio::join!(here.rotate(&successor, &old, 1), uses);
        assert!(
            done.unwrap(),
            "{name}, round {round}: nobody has changed the key"
        );
        let found = here.get_many(&[id.lookup_key()]).await.unwrap();
        let used_at = Some(start() + Duration::from_secs(10));
        assert_eq!(
            (found[0].successor, found[0].last_used_at),
            (Some(new), used_at)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_use_that_is_noted_at_the_same_time_keeps_no_rotation_from_being_done() {
    let memory = MemoryBackend::new();
    is_done_beside_uses("memory", [memory.clone(), memory]).await;
    let folder = Folder::new("rotation-uses");
    is_done_beside_uses("SQLite", [sqlite(&folder).await, sqlite(&folder).await]).await;
    let Some(server) = Server::start() else {
        return;
    };
    let nodes = [postgres(&server).await, postgres(&server).await];
    Box::pin(is_done_beside_uses("PostgreSQL", nodes)).await;
}
