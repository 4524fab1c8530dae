//! What becomes of a hash that is to come under the current pepper where something is in the way.

use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, task::yield_now};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, ApiKeyToken, BackendError, CacheConfig, ChangeSink, KeyId,
    KeyResolver, KeySource, LookupKey, ManualClock, MemoryBackend, Peppers, Subscription,
    forward_to_backend,
};

use super::databases::{clock, node_on};
use crate::{SECOND, key, pepper, record, verified};

/// What becomes of updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Updates {
    #[default]
    Answer,
    Fail,
    /// No answer until this is changed.
    Hang,
    Panic,
    /// Those of this key fail.
    FailFor(KeyId),
    /// The key is revoked in between.
    ComeLate,
}

/// A backend in memory whose updates a test breaks.
#[derive(Clone, Default)]
struct Faulty(Arc<Far>);

#[derive(Default)]
struct Far {
    inner: MemoryBackend,
    updates: watch::Sender<Updates>,
    reads_fail: watch::Sender<bool>,
    tells_nothing: watch::Sender<bool>,
    /// The keys of all updates that came.
    asked: Mutex<Vec<KeyId>>,
}

impl Faulty {
    fn set(&self, updates: Updates) {
        self.0.updates.send_replace(updates);
    }

    /// The keys of the updates that came since this was asked last.
    fn asked(&self) -> Vec<KeyId> {
        mem::take(&mut self.0.asked.lock().unwrap())
    }

    /// Waits until so many updates came.
    async fn until_asked(&self, count: usize) {
        for _ in 0..10_000 {
            if self.0.asked.lock().unwrap().len() >= count {
                return;
            }
            yield_now().await;
        }
        panic!("{} updates came", self.0.asked.lock().unwrap().len());
    }
}

impl KeySource for Faulty {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        if *self.0.reads_fail.borrow() {
            return Err(BackendError::unavailable("the cable was pulled"));
        }
        self.0.inner.get_many(keys).await
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        if *self.0.tells_nothing.borrow() {
            return Ok(Subscription::none());
        }
        self.0.inner.subscribe(sink).await
    }
}

impl ApiKeyBackend for Faulty {
    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        self.0.asked.lock().unwrap().push(key.id);
        let failed = || Err(BackendError::unavailable("the cable was pulled"));
        let updates = *self.0.updates.borrow();
        match updates {
            Updates::Answer => {}
            Updates::FailFor(id) if id != key.id => {}
            Updates::Fail | Updates::FailFor(_) => return failed(),
            Updates::Panic => panic!("as it was told"),
            Updates::Hang => {
                let mut updates = self.0.updates.subscribe();
                let hangs = updates.wait_for(|updates| *updates != Updates::Hang);
                drop(hangs.await.unwrap());
            }
            Updates::ComeLate => {
                let stored = self.0.inner.get_many(&[key.lookup_key()]).await?;
                let mut revoked = stored[0].clone();
                revoked.revoked_at = Some(crate::support::start());
                revoked.version += 1;
                let version = stored[0].version;
                assert!(self.0.inner.update(&revoked, version).await?);
            }
        }
        self.0.inner.update(key, expected).await
    }

    forward_to_backend!(self => self.0.inner; insert, delete, list_for_user, touch);
}

struct Node {
    store: ApiKeyStore,
    backend: Faulty,
    clock: ManualClock,
    keys: Vec<(String, KeyId)>,
}

/// A node that rewraps, and so many keys under the pepper before.
async fn node(keys: usize) -> Node {
    let (backend, clock) = (Faulty::default(), clock());
    let old = node_on(backend.clone(), &clock).await;
    let mut made = Vec::new();
    for _ in 0..keys {
        made.push(key(&old).await);
    }
    let peppers = Peppers::new(pepper("v2"))
        .with_retired(pepper("v1"))
        .unwrap();
    let builder = ApiKeyStore::builder(backend.clone()).peppers(peppers);
    let builder = builder.cache(CacheConfig::new()).clock(clock.clone());
    Node {
        store: builder.rewrap_retired_peppers().build().await.unwrap(),
        backend,
        clock,
        keys: made,
    }
}

impl Node {
    async fn pepper(&self, at: usize) -> String {
        let key = record(&self.store, &self.keys[at].1).await;
        key.secret_hash.pepper().unwrap().to_string()
    }

    /// What the cache says by itself, as a use of the key.
    fn hit(&self, at: usize) -> bool {
        let token: ApiKeyToken = self.keys[at].0.parse().unwrap();
        self.store.resolve_now(&token).is_some_and(|it| it.is_ok())
    }

    async fn verify(&self, at: usize) -> &'static str {
        verified(&self.store, &self.keys[at].0).await
    }
}

/// Lets tasks go on that have nothing to wait for.
async fn settle() {
    for _ in 0..200 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_a_rewrap_and_one_is_under_way_for_a_key_at_a_time() {
    let node = node(3).await;
    node.backend.set(Updates::Hang);
    for _ in 0..5 {
        for at in 0..3 {
            assert_eq!(node.verify(at).await, "good");
        }
        settle().await;
    }
    assert_eq!(
        node.backend.asked(),
        [node.keys[0].1],
        "one after the other"
    );
    node.backend.set(Updates::Answer);
    node.backend.until_asked(2).await;
    settle().await;
    assert_eq!(
        node.backend.asked(),
        [node.keys[1].1, node.keys[2].1],
        "each once"
    );
    for at in 0..3 {
        assert_eq!(node.pepper(at).await, "v2");
        assert_eq!(node.verify(at).await, "good");
    }
    settle().await;
    assert_eq!(node.backend.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_rewrap_that_failed_is_tried_again_by_a_use_a_second_later() {
    for fault in [Updates::Fail, Updates::Panic] {
        let node = node(1).await;
        node.backend.set(fault);
        for _ in 0..10 {
            assert_eq!(node.verify(0).await, "good");
            settle().await;
        }
        assert_eq!(node.backend.asked().len(), 1, "{fault:?}: it is left alone");
        node.clock.advance(SECOND);
        assert_eq!(node.verify(0).await, "good");
        settle().await;
        assert_eq!(node.backend.asked().len(), 1, "{fault:?}");
        node.backend.set(Updates::Answer);
        node.clock.advance(SECOND);
        assert_eq!(node.pepper(0).await, "v1");
        assert_eq!(node.verify(0).await, "good");
        settle().await;
        assert_eq!(node.pepper(0).await, "v2", "{fault:?}");
        assert_eq!(node.verify(0).await, "good");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_given_up_and_tried_again() {
    let node = node(1).await;
    node.backend.set(Updates::Hang);
    assert_eq!(node.verify(0).await, "good");
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(node.verify(0).await, "good");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(node.backend.asked().len(), 1);
    node.clock.advance(SECOND);
    assert_eq!(node.verify(0).await, "good");
    settle().await;
    assert_eq!(node.backend.asked().len(), 1, "once more");
    // Both go on now, and one of them finds the version of the other.
    node.backend.set(Updates::Answer);
    settle().await;
    let key = record(&node.store, &node.keys[0].1).await;
    assert_eq!((key.version, node.pepper(0).await.as_str()), (2, "v2"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_always_fails_keeps_no_other_from_its_turn() {
    let node = node(20).await;
    node.backend.set(Updates::FailFor(node.keys[0].1));
    for at in 0..20 {
        assert_eq!(node.verify(at).await, "good");
    }
    settle().await;
    assert_eq!(node.pepper(0).await, "v1");
    for at in 1..20 {
        assert_eq!(node.pepper(at).await, "v2");
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_of_them_fail_the_backend_is_left_alone() {
    let node = node(50).await;
    node.backend.set(Updates::Fail);
    for at in 0..50 {
        assert_eq!(node.verify(at).await, "good");
    }
    settle().await;
    assert_eq!(node.backend.asked().len(), 2, "of fifty that waited");
    node.backend.set(Updates::Answer);
    node.clock.advance(SECOND);
    for at in 0..50 {
        assert_eq!(node.verify(at).await, "good");
    }
    settle().await;
    for at in 0..50 {
        assert_eq!(node.pepper(at).await, "v2");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_nobody_what_is_cached() {
    let node = node(1).await;
    let (token, _) = &node.keys[0];
    // Read, and no use.
    assert!(node.store.is_active(token).await.unwrap());
    node.backend.0.reads_fail.send_replace(true);
    for _ in 0..5 {
        assert!(node.hit(0));
        settle().await;
        node.clock.advance(SECOND / 2);
    }
    assert!(node.hit(0), "it is cached still");
    assert_eq!(node.backend.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn g1_a_rewrap_that_comes_late_brings_no_revoked_key_back() {
    for way in 0..3 {
        let node = node(1).await;
        let (token, id) = &node.keys[0];
        match way {
            // Between its read and its write.
            0 => {
                node.backend.set(Updates::ComeLate);
                assert_eq!(node.verify(0).await, "good");
            }
            // Before its read, by somebody who told nobody.
            1 => {
                assert!(node.store.is_active(token).await.unwrap());
                let mut key = record(&node.store, id).await;
                assert!(node.hit(0));
                key.revoked_at = Some(crate::support::start());
                assert!(node.backend.0.inner.update(&key, 1).await.unwrap());
            }
            // While it waits.
            _ => {
                node.backend.set(Updates::Hang);
                assert_eq!(node.verify(0).await, "good");
                node.backend.until_asked(1).await;
                let mut key = record(&node.store, id).await;
                (key.revoked_at, key.version) = (Some(crate::support::start()), 2);
                assert!(node.backend.0.inner.update(&key, 1).await.unwrap());
                node.backend.set(Updates::Answer);
            }
        }
        settle().await;
        let key = record(&node.store, id).await;
        assert!(key.revoked_at.is_some(), "way {way}");
        assert_eq!(
            key.secret_hash.pepper().unwrap().as_str(),
            "v1",
            "way {way}"
        );
        assert_eq!(node.verify(0).await, "revoked", "way {way}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_is_read_anew_after_a_rewrap_also_where_the_backend_tells_nothing() {
    let node = node(2).await;
    node.backend.0.tells_nothing.send_replace(true);
    for way in 0..2 {
        let (token, id) = &node.keys[way];
        assert!(node.store.is_active(token).await.unwrap());
        let mut key = record(&node.store, id).await;
        let other = record(&node.store, &node.keys[0].1).await;
        assert!(node.hit(way));
        if way == 1 {
            // Another node was first.
            (key.name, key.version) = (Some("changed".to_owned()), 2);
            key.secret_hash = other.secret_hash;
            assert!(node.backend.0.inner.update(&key, 1).await.unwrap());
        }
        settle().await;
        assert!(!node.hit(way), "way {way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_key_and_one_with_another_secret_are_left_as_they_are() {
    let node = node(3).await;
    for (token, _) in &node.keys {
        assert!(node.store.is_active(token).await.unwrap());
    }
    let [first, second, third] = [0, 1, 2].map(|at| node.keys[at].1);
    let mut other = record(&node.store, &second).await;
    (other.secret_hash, other.version) = (record(&node.store, &third).await.secret_hash, 2);
    // The cache believes in both when they are used, and the writer finds something else.
    assert!(node.hit(0) && node.hit(1));
    assert!(node.backend.0.inner.delete(&first).await.unwrap());
    assert!(node.backend.0.inner.update(&other, 1).await.unwrap());
    settle().await;
    assert_eq!(node.backend.asked(), []);
    assert!(node.store.get(&first).await.unwrap().is_none());
    let left = record(&node.store, &second).await;
    assert_eq!(
        (left.version, left.secret_hash.to_hex()),
        (2, other.secret_hash.to_hex())
    );
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_what_found_no_place_gets_one_later() {
    const KEYS: usize = 1_500;
    let node = node(KEYS).await;
    node.backend.set(Updates::Hang);
    for _ in 0..2 {
        for at in 0..KEYS {
            assert_eq!(node.verify(at).await, "good");
        }
    }
    node.backend.set(Updates::Answer);
    node.backend.until_asked(1_000).await;
    settle().await;
    assert_eq!(node.backend.asked().len(), 1_000);
    for at in 0..KEYS {
        assert_eq!(node.verify(at).await, "good");
    }
    node.backend.until_asked(500).await;
    settle().await;
    assert_eq!(node.backend.asked().len(), 500);
    for at in 0..KEYS {
        assert_eq!(node.pepper(at).await, "v2");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_drops_what_waits_and_carries_through_what_is_being_written() {
    let node = node(3).await;
    node.backend.set(Updates::Hang);
    for at in 0..3 {
        assert_eq!(node.verify(at).await, "good");
    }
    node.backend.until_asked(1).await;
    node.store.shutdown().await.unwrap();
    node.backend.set(Updates::Answer);
    settle().await;
    assert_eq!(node.pepper(0).await, "v2");
    for at in 0..3 {
        assert_eq!(node.verify(at).await, "good");
    }
    settle().await;
    assert_eq!(node.backend.asked(), [node.keys[0].1]);
    for at in 1..3 {
        assert_eq!(node.pepper(at).await, "v1");
    }
}

#[tokio::test(start_paused = true)]
async fn the_writer_ends_when_nothing_waits_and_with_the_store() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let node = node(2).await;
    let Node {
        store,
        backend,
        keys,
        ..
    } = node;
    let uses = tasks();
    assert_eq!(verified(&store, &keys[0].0).await, "good");
    settle().await;
    // What notes uses waits for five seconds.
    assert_eq!(tasks(), uses + 1);
    backend.set(Updates::Hang);
    assert_eq!(verified(&store, &keys[1].0).await, "good");
    backend.until_asked(2).await;
    assert_eq!(tasks(), uses + 3, "the writer and its write");
    drop(store);
    settle().await;
    assert_eq!(tasks(), uses + 1, "the write is carried through");
    backend.set(Updates::Answer);
    settle().await;
    assert_eq!(tasks(), uses);
    assert_eq!(Arc::strong_count(&backend.0), 1);
}

/// A key that is in use when its runtime ends is written on the next one.
#[test]
fn a_second_runtime_goes_on_where_the_first_has_ended() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let node = first.block_on(node(2));
    first.block_on(async {
        node.backend.set(Updates::Hang);
        for at in 0..2 {
            assert_eq!(node.verify(at).await, "good");
        }
        node.backend.until_asked(1).await;
    });
    drop(first);
    node.backend.set(Updates::Answer);
    node.clock.advance(Duration::from_secs(20));
    second.block_on(async {
        for at in 0..2 {
            assert_eq!(node.verify(at).await, "good");
        }
        settle().await;
        for at in 0..2 {
            assert_eq!(node.verify(at).await, "good");
        }
        settle().await;
        for at in 0..2 {
            assert_eq!(node.pepper(at).await, "v2", "key {at}");
        }
    });
}
