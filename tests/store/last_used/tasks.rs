//! How long the tasks live that write uses and follow changes, and what is done at their end.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{JoinSet, yield_now},
    time::{Instant, sleep, timeout},
};
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, ApiKeyStoreBuilder, AuthContext, MemoryBackend, Peppers, StoreError,
};

use super::{EVERY, NO_CALL, at, flushed, noting::Node};
use crate::{
    SECOND, chain, is_the_outage, new_key,
    support::{
        feed::{Reading, Subscribing},
        unknown_token,
    },
    verified,
};

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Lets tasks end that have nothing to wait for, without time passing.
async fn settled() -> usize {
    for _ in 0..100 {
        yield_now().await;
    }
    tasks()
}

#[test]
fn a_store_can_be_made_and_dropped_without_a_runtime() {
    drop(ApiKeyStore::in_memory());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_not_used_has_no_task() {
    let store = ApiKeyStore::in_memory();
    let builder = ApiKeyStore::builder(MemoryBackend::new()).peppers(Peppers::ephemeral());
    let built = builder.build().await.unwrap();
    let layer = ApiKeyLayer::new(store.clone());
    assert_eq!(tasks(), 0);

    // Nor does one whose uses have all been written.
    let issued = store.create(new_key()).await.unwrap();
    assert_eq!(verified(&built, &unknown_token()).await, "unknown");
    assert_eq!(settled().await, 0);
    assert_eq!(verified(&store, issued.token().expose()).await, "good");
    assert_eq!(settled().await, 1);
    flushed().await;
    assert_eq!(tasks(), 0);
    drop(layer);
}

#[tokio::test(start_paused = true)]
async fn shutdown_writes_what_waits_and_the_store_goes_on_verifying() {
    let node = Node::new().await;
    let (token, id) = node.key().await;
    let (other, _) = node.key().await;
    assert_eq!(verified(&node.store, &token).await, "good");
    let before = Instant::now();
    node.store.shutdown().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(node.backend.sizes(), [1]);
    assert_eq!(node.backend.written(&id).await, Some(at(0)));

    for _ in 0..3 {
        node.clock.advance(61 * SECOND);
        for token in [&token, &other] {
            assert_eq!(verified(&node.store, token).await, "good");
            assert!(node.store.verify_fresh(token).await.is_ok());
        }
        sleep(10 * EVERY).await;
    }
    assert!(node.store.revoke(&id).await.unwrap());
    assert_eq!(verified(&node.store, &token).await, "revoked");
    assert_eq!(verified(&node.store, &other).await, "good");
    node.store.shutdown().await.unwrap();
    assert_eq!(node.backend.sizes(), NO_CALL, "uses aren't noted any more");
}

#[tokio::test(start_paused = true)]
async fn shutdown_says_what_it_could_not_write_and_can_be_called_again() {
    let node = Node::new().await;
    let (token, id) = node.key().await;
    assert_eq!(verified(&node.store, &token).await, "good");
    let fail = |fails| node.backend.set_failing(fails);
    fail(true);
    for failures in 1..=2 {
        let error = node.store.shutdown().await.unwrap_err();
        let told = matches!(error, StoreError::Unavailable(_)) && is_the_outage(&error);
        assert!(told, "{error:?}");
        assert_eq!(node.store.cache_stats().failed_touches, failures);
        assert_eq!(node.shown(&id).await, Some(at(0)));
    }
    fail(false);
    node.backend.set_hanging(true);
    let before = Instant::now();
    let error = node.store.shutdown().await.unwrap_err();
    assert_eq!(before.elapsed(), 10 * SECOND);
    let cause = chain(&error).last().unwrap().to_string();
    assert!(cause.contains("too long"), "{error:?}");
    // Given up by who called it.
    assert!(timeout(SECOND, node.store.shutdown()).await.is_err());
    assert_eq!(node.backend.written(&id).await, None);
    node.backend.set_hanging(false);
    node.store.shutdown().await.unwrap();
    assert_eq!(node.backend.written(&id).await, Some(at(0)));
    assert_eq!(node.backend.sizes(), [1; 5]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_tasks() {
    let node = Node::new().await;
    node.backend.keys.set_subscribing(Subscribing::Feed);
    let (token, _) = node.key().await;
    assert_eq!(verified(&node.store, &token).await, "good");
    assert_eq!(settled().await, 2);
    node.backend.set_failing(true);
    assert!(node.store.shutdown().await.is_err());
    assert_eq!(settled().await, 0);
    node.clock.advance(61 * SECOND);
    assert_eq!(verified(&node.store, &token).await, "good");
    assert_eq!(settled().await, 0);
    assert_eq!(node.backend.keys.subscriptions(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_tasks_along() {
    for stage in ["waiting", "hanging", "failing", "shut down"] {
        let node = Node::new().await;
        node.backend.keys.set_subscribing(Subscribing::Feed);
        let (token, id) = node.key().await;
        let context: AuthContext = node.store.verify(&token).await.unwrap();
        let (clone, layer) = (node.store.clone(), ApiKeyLayer::new(node.store.clone()));
        let backend = node.backend;
        backend.set_hanging(stage == "hanging");
        backend.set_failing(stage == "failing");
        match stage {
            "waiting" => {}
            "shut down" => node.store.shutdown().await.unwrap(),
            _ => flushed().await,
        }
        drop(node.store);
        drop(clone);
        let left = if stage == "shut down" { 0 } else { 2 };
        assert_eq!(settled().await, left, "{stage}: the layer is a handle, too");
        drop(layer);
        assert_eq!(settled().await, 0, "{stage}");
        assert_eq!(Arc::strong_count(&backend), 1, "{stage}");
        // Who was let in keeps the context, and no store with it.
        assert_eq!(context.key_id(), &id);
        let calls = usize::from(stage != "waiting");
        assert_eq!(backend.sizes().len(), calls, "{stage}");
        sleep(10 * EVERY).await;
        assert_eq!(backend.sizes(), NO_CALL, "{stage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_use_is_lost_between_one_writer_and_the_next() {
    let often = |builder: ApiKeyStoreBuilder| builder.note_use_every(SECOND / 1_000);
    let node = Node::with(often).await;
    let mut used = JoinSet::new();
    for _ in 0..1_000 {
        let (token, _) = node.key().await;
        let store = node.store.clone();
        used.spawn(async move { verified(&store, &token).await });
        // So that writers come and go meanwhile.
        yield_now().await;
    }
    assert!(used.join_all().await.iter().all(|what| *what == "good"));
    let mut written = 0;
    let writing = async {
        while written < 1_000 {
            written += node.backend.sizes().iter().sum::<usize>();
            yield_now().await;
        }
    };
    let done = timeout(60 * SECOND, writing).await;
    assert!(done.is_ok(), "{written} are written");
    assert_eq!(written, 1_000, "each of them once");
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn a_second_runtime_goes_on_where_the_first_has_ended() {
    for how in [Subscribing::Feed, Subscribing::Directly] {
        let follows = usize::from(how == Subscribing::Feed);
        let (first, second, third) = (runtime(), runtime(), runtime());
        let node = first.block_on(Node::new());
        let backend = &node.backend;
        backend.keys.set_subscribing(how);
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(first.block_on(node.key()));
        }
        let verify = |at: usize| verified(&node.store, &keys[at].0);
        assert_eq!(first.block_on(verify(0)), "good");
        // It ends while a key is read, and before the use of another is written.
        backend.keys.set_reading(Reading::Hangs);
        first.block_on(async {
            let given_up = timeout(SECOND, verify(1)).await;
            assert!(given_up.is_err(), "{given_up:?}");
        });
        drop(first);
        backend.keys.set_reading(Reading::Answers);
        assert_eq!(backend.sizes(), NO_CALL);

        second.block_on(async {
            for at in 0..3 {
                assert_eq!(verify(at).await, "good");
            }
            flushed().await;
            let written = backend.calls().concat().into_iter();
            let written: HashSet<_> = written.map(|touch| touch.id).collect();
            assert_eq!(written, keys.iter().map(|(_, id)| *id).collect());
            assert_eq!(tasks(), follows);
        });
        drop(second);

        node.clock.advance(61 * SECOND);
        third.block_on(async {
            assert_eq!(verify(0).await, "good");
            node.store.shutdown().await.unwrap();
            assert_eq!(backend.written(&keys[0].1).await, Some(at(61)));
        });
        assert_eq!(backend.keys.subscriptions(), 1 + 2 * follows);
    }
}
