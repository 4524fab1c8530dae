//! A load that panics, and others wait for it.
//!
//! A driver panics over an answer. The task that read it is gone, and those who wait for it hang; or
//! the place where reads are made is gone with it, and no key is read any more until the process is
//! started again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;
use tower_api_key::{
    ApiKey, BackendError, CachedResolver, KeyResolver, KeySource, LookupKey, ManualClock,
};

use super::{Race, cache, outcome, peppers, record_of, until};
use crate::support::{
    start,
    steps::{Step, Steps},
    unknown_token,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_a_source_that_panics_leaves_nobody_waiting_and_nothing_behind() {
    for step in [Step::ReadAsked, Step::ReadTaken] {
        // With one reader, a reader that is lost is noticed at once.
        let race = Race::with(Steps::default(), cache().max_loads(1)).await;
        let reads = race.backend.reads();
        let stop = race.backend.stop_next(step);
        let requests: Vec<_> = (0..20).map(|_| race.request()).collect();
        let load = stop.await;
        until("they wait", || race.store.cache_stats().shared_loads == 19).await;
        load.panic();
        for request in requests {
            assert_eq!(request.await.unwrap(), "unavailable");
        }
        assert!(!race.is_cached());
        assert_eq!(race.verified().await, "good");
        assert_eq!(race.backend.reads(), reads + 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_known_is_still_known_after_a_panic() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    race.backend.panic_next(Step::ReadTaken);
    assert_eq!(race.verified_fresh().await, "unavailable");
    assert!(race.is_cached());
    assert_eq!(race.verified().await, "good");
    assert_eq!(race.verified_fresh().await, "good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_makes_the_source_panic_does_not_take_along_those_read_with_it() {
    one_of_a_batch_panics(false).await;
}

/// A source needn't be an `async fn`: it can panic before there is a future.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_makes_it_panic_before_it_returns_a_future() {
    one_of_a_batch_panics(true).await;
}

async fn one_of_a_batch_panics(at_once: bool) {
    let tokens: Vec<_> = (b'b'..=b'i').map(token_of).collect();
    let records: Vec<_> = tokens.iter().map(|token| record_of(token)).collect();
    let source = Arc::new(Touchy {
        poison: records[3].lookup_key(),
        records,
        at_once,
        opened: Notify::new(),
        reads: AtomicUsize::new(0),
    });
    let resolver = CachedResolver::builder(source.clone())
        .peppers(peppers())
        .clock(ManualClock::new(start()))
        .cache(cache().max_loads(1))
        .build()
        .await
        .unwrap();
    let resolve = |token: &String| {
        let (resolver, token) = (resolver.clone(), token.parse().unwrap());
        async move { outcome(&resolver.resolve(&token).await) }
    };

    // The only reader reads a first key, and the others wait in the queue.
    let first = tokio::spawn(resolve(&unknown_token()));
    until("it is read", || source.reads.load(Ordering::SeqCst) == 1).await;
    let others: Vec<_> = tokens
        .iter()
        .map(|token| tokio::spawn(resolve(token)))
        .collect();
    until("they wait", || resolver.cache_stats().loads == 9).await;
    source.opened.notify_one();

    assert_eq!(first.await.unwrap(), "unknown");
    for (at, other) in others.into_iter().enumerate() {
        let expected = if at == 3 { "unavailable" } else { "good" };
        assert_eq!(other.await.unwrap(), expected, "{at}");
    }
    assert_eq!(resolve(&tokens[0]).await, "good");
    assert_eq!(resolve(&tokens[3]).await, "unavailable");
}

fn token_of(letter: u8) -> String {
    let id = String::from(char::from(letter)).repeat(32);
    format!("pk.key_{id}.{}", "s".repeat(43))
}

/// Panics whenever it is asked for one of its keys.
struct Touchy {
    records: Vec<ApiKey>,
    poison: LookupKey,
    at_once: bool,
    /// The first read waits for this.
    opened: Notify,
    reads: AtomicUsize,
}

impl KeySource for Touchy {
    fn get_many(
        &self,
        keys: &[LookupKey],
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        let is_first = self.reads.fetch_add(1, Ordering::SeqCst) == 0;
        let is_poisoned = keys.contains(&self.poison);
        assert!(!(is_poisoned && self.at_once), "told to panic at once");
        let is_wanted = |key: &&ApiKey| keys.contains(&key.lookup_key());
        let found = self.records.iter().filter(is_wanted).cloned().collect();
        async move {
            if is_first {
                self.opened.notified().await;
            }
            assert!(!is_poisoned, "told to panic later");
            Ok(found)
        }
    }
}
