//! A load against the eviction of its key.
//!
//! The cache is full. A key is read again, and while that goes on, another key takes its place. The
//! load then lands as if the key were still there: it comes back without a place of its own, so that
//! nothing will ever evict it, and the cache grows beyond its bound, key by key. Or it falls back on
//! what it had before, which isn't there any more.

use super::{Race, cache, is_cached, issue, until, verified};
use crate::support::steps::{Step, Steps, Stopped};

/// A store that remembers `capacity` keys, and the tokens of so many more.
async fn full(capacity: usize) -> (Race, Vec<String>) {
    let race = Race::with(Steps::default(), cache().capacity(capacity)).await;
    let mut others = Vec::new();
    for _ in 0..capacity {
        others.push(issue(&race.store).await);
    }
    (race, others)
}

/// How many of the keys are answered from memory. It has to be what the cache says that it holds.
fn remembered(race: &Race, others: &[String]) -> u64 {
    let tokens = others.iter().chain([&race.token]);
    let count = tokens.filter(|token| is_cached(&race.store, token)).count();
    let count = u64::try_from(count).unwrap();
    assert_eq!(count, race.store.cache_stats().entries);
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_key_that_is_evicted_while_it_is_read_again_takes_the_place_of_another() {
    for capacity in [1, 2] {
        let (race, others) = full(capacity).await;
        assert_eq!(race.verified().await, "good");
        let stop = race.backend.stop_next(Step::ReadTaken);
        let fresh = race.fresh_request();
        let load = stop.await;
        // As many as there are places, each of them used: the hand comes round.
        for other in &others {
            assert_eq!(verified(&race.store, other).await, "good");
        }
        load.go_on();
        assert_eq!(fresh.await.unwrap(), "good");
        assert!(race.is_cached());
        assert_eq!(remembered(&race, &others), u64::try_from(capacity).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_load_that_fails_does_not_bring_back_the_key_that_was_evicted_meanwhile() {
    let (race, others) = full(1).await;
    assert_eq!(race.verified().await, "good");
    let stop = race.backend.stop_next(Step::ReadTaken);
    let fresh = race.fresh_request();
    let load = stop.await;
    assert_eq!(verified(&race.store, &others[0]).await, "good");
    load.fail();
    assert_eq!(fresh.await.unwrap(), "unavailable");
    assert!(!race.is_cached());
    assert!(is_cached(&race.store, &others[0]));
    assert_eq!(remembered(&race, &others), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_fails_leaves_the_key_that_was_not_evicted() {
    for lose in [Stopped::fail, Stopped::panic] {
        let (race, others) = full(1).await;
        assert_eq!(race.verified().await, "good");
        let stop = race.backend.stop_next(Step::ReadTaken);
        let fresh = race.fresh_request();
        lose(stop.await);
        assert_eq!(fresh.await.unwrap(), "unavailable");
        assert!(race.is_cached());
        assert_eq!(remembered(&race, &others), 1);
    }
}

/// Two checks overlap, and the one that began first comes back first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_an_overtaken_load_take_away_its_place() {
    let (race, others) = full(1).await;
    assert_eq!(race.verified().await, "good");
    let stop = race.backend.stop_next(Step::ReadTaken);
    let first = race.fresh_request();
    let first_load = stop.await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let second = race.fresh_request();
    let second_load = stop.await;
    first_load.go_on();
    assert_eq!(first.await.unwrap(), "good");
    second_load.fail();
    assert_eq!(second.await.unwrap(), "unavailable");
    assert!(race.is_cached());
    assert_eq!(remembered(&race, &others), 1);
}

/// Nobody reads it again afterwards, who would take the place that was left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_key_that_is_revoked_while_it_is_read_leaves_no_place_behind() {
    for was_known in [true, false] {
        let (race, others) = full(2).await;
        if was_known {
            assert_eq!(race.verified().await, "good");
            assert_eq!(remembered(&race, &others), 1);
        }
        let stop = race.backend.stop_next(Step::ReadTaken);
        let fresh = race.fresh_request();
        let load = stop.await;
        fresh.abort();
        assert!(fresh.await.unwrap_err().is_cancelled());
        assert!(race.store.revoke(&race.id).await.unwrap());
        assert_eq!(remembered(&race, &others), 0);
        load.go_on();
        let has_landed = || race.store.cache_stats().stale_refused > 0 || race.is_cached();
        until("the load has landed", has_landed).await;
        let has_left = || race.store.cache_stats().entries == 0;
        until("it has given back its place", has_left).await;
        assert_eq!(remembered(&race, &others), 0);
    }
}

/// Two batches land at the same moment, and each key of the one takes the place of one of the other
/// that hasn't come into the table yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g8_a_key_that_is_evicted_before_it_has_come_in_does_not_come_in() {
    let race = Race::with(Steps::default(), cache().capacity(1).max_loads(2)).await;
    let mut others = Vec::new();
    for _ in 0..400 {
        others.push(issue(&race.store).await);
    }
    for _ in 0..20 {
        race.store.invalidate_all();
        let stops = [(); 2].map(|()| race.backend.stop_next(Step::ReadTaken));
        let requests: Vec<_> = others
            .iter()
            .cloned()
            .map(|token| {
                let store = race.store.clone();
                tokio::spawn(async move { verified(&store, &token).await })
            })
            .collect();
        let mut loads = Vec::new();
        for stop in stops {
            loads.push(stop.await);
        }
        loads.into_iter().for_each(Stopped::go_on);
        for request in requests {
            assert_eq!(request.await.unwrap(), "good");
        }
        assert_eq!(remembered(&race, &others), 1);
    }
}

/// Two places, sixteen keys, and everything at once that takes places and gives them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g8_whatever_happens_at_once_no_more_is_remembered_than_there_is_room_for() {
    for _ in 0..5 {
        let (race, _) = full(2).await;
        let mut others = Vec::new();
        for _ in 0..15 {
            others.push(issue(&race.store).await);
        }
        let busy: Vec<_> = (0..8)
            .map(|task| {
                let (race, others) = (race.clone(), others.clone());
                tokio::spawn(async move {
                    for n in 0..400 {
                        let token = &others[(n * (task + 1) + task) % others.len()];
                        match (n + task) % 11 {
                            0 => drop(race.store.verify_fresh(token).await),
                            1 => race.backend.fail_next(Step::ReadTaken),
                            2 if n % 7 == 0 => race.store.invalidate_all(),
                            _ => drop(verified(&race.store, token).await),
                        }
                        assert!(race.store.cache_stats().entries <= 2);
                    }
                })
            })
            .collect();
        for task in busy {
            task.await.unwrap();
        }
        assert!(remembered(&race, &others) <= 2);
        // Every place is still there to be taken.
        race.store.invalidate_all();
        assert_eq!(remembered(&race, &others), 0);
        race.backend.forget_plans();
        for other in &others {
            assert_eq!(verified(&race.store, other).await, "good");
        }
        assert_eq!(remembered(&race, &others), 2);
    }
}
