//! Everybody at once.
//!
//! A node starts with an empty cache behind a load balancer, and ten thousand requests with one key
//! come in the first second. Each of them misses, and each of them reads: the database goes down, the
//! requests are repeated, and it doesn't come up again.

use std::hash::{BuildHasher, RandomState};

use tokio::task::JoinHandle;

use super::{Race, until, verified};
use crate::support::{steps::Step, unknown_token};

const REQUESTS: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g9_ten_thousand_requests_for_one_cold_key_cost_one_read_whoever_is_cancelled() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadTaken);
    let requests: Vec<_> = (0..REQUESTS).map(|_| race.request()).collect();
    let load = stop.await;
    until("they wait", || {
        race.store.cache_stats().shared_loads == 9_999
    })
    .await;

    let good = cancel_about_half(requests, || load.go_on()).await;
    assert!((1_000..9_000).contains(&good), "{good} were answered");
    assert_eq!(race.backend.reads(), reads + 1);
    assert_eq!(race.verified().await, "good");
    assert_eq!(race.backend.reads(), reads + 1);
}

/// As it comes: some before the read has begun, some while it is under way, some afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g9_nor_do_they_cost_more_when_nothing_is_held_up() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let requests: Vec<_> = (0..REQUESTS).map(|_| race.request()).collect();
    cancel_about_half(requests, || {}).await;
    assert_eq!(race.verified().await, "good");
    assert_eq!(race.backend.reads(), reads + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g9_nor_does_an_id_that_nobody_has() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let requests: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let store = race.store.clone();
            tokio::spawn(async move { verified(&store, &unknown_token()).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), "unknown");
    }
    assert_eq!(race.backend.reads(), reads + 1);
}

/// Those who wait read again when the key is revoked, and again together.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_g9_ten_thousand_requests_that_wait_through_a_revocation_are_refused_by_one_more_read() {
    let race = Race::new().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let requests: Vec<_> = (0..REQUESTS).map(|_| race.request()).collect();
    let load = stop.await;
    until("they wait", || {
        race.store.cache_stats().shared_loads == 9_999
    })
    .await;
    assert!(race.store.revoke(&race.id).await.unwrap());
    let reads = race.backend.reads();
    load.go_on();
    for request in requests {
        assert_eq!(request.await.unwrap(), "revoked");
    }
    assert_eq!(race.backend.reads(), reads + 1);
}

/// Cancels each request or doesn't, by chance; `meanwhile` when that is half done. Returns how many
/// were answered; all of them have to be good.
async fn cancel_about_half(
    requests: Vec<JoinHandle<&'static str>>,
    meanwhile: impl FnOnce(),
) -> usize {
    let chance = RandomState::new();
    let cancel = |from: usize, to: usize| {
        for (at, request) in requests.iter().enumerate().take(to).skip(from) {
            if chance.hash_one(at) % 2 == 0 {
                request.abort();
            }
        }
    };
    // The first one among them: it is the one whose read the others wait for.
    requests[0].abort();
    cancel(0, REQUESTS / 2);
    meanwhile();
    cancel(REQUESTS / 2, REQUESTS);
    let mut good = 0;
    for request in requests {
        match request.await {
            Ok(outcome) => {
                assert_eq!(outcome, "good");
                good += 1;
            }
            Err(error) => assert!(error.is_cancelled()),
        }
    }
    good
}
