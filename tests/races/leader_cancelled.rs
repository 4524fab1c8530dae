//! The request that began a load goes away, and others wait for it.
//!
//! The first of many requests for a key reads it, and the others wait for the first. Then its client
//! hangs up, and the read is dropped with it. The others wait for somebody who has left: until their
//! time is over, or for good; or each of them reads for itself, which is what waiting was to prevent.

use tokio::runtime::{Builder, Runtime};

use tower_api_key::ApiKeyStore;

use super::{Race, cache, issue, peppers, until, verified};
use crate::support::steps::{Step, Steps};

const OTHERS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_the_others_get_their_answer_from_the_read_that_a_cancelled_request_began() {
    for step in [Step::ReadAsked, Step::ReadTaken] {
        let race = Race::new().await;
        let reads = race.backend.reads();
        let stop = race.backend.stop_next(step);
        let first = race.request();
        let load = stop.await;
        let others: Vec<_> = (0..OTHERS).map(|_| race.request()).collect();
        until("the others wait", || waiting(&race) == OTHERS).await;

        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        load.go_on();
        for other in others {
            assert_eq!(other.await.unwrap(), "good");
        }
        assert_eq!(race.verified().await, "good");
        assert_eq!(race.backend.reads(), reads + 1);
    }
}

/// A fresh check begins a load, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_also_where_a_fresh_check_began_it() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadAsked);
    let first = race.fresh_request();
    let load = stop.await;
    let others: Vec<_> = (0..OTHERS).map(|_| race.request()).collect();
    until("the others wait", || waiting(&race) == OTHERS).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    load.go_on();
    for other in others {
        assert_eq!(other.await.unwrap(), "good");
    }
    assert_eq!(race.backend.reads(), reads + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_a_read_that_nobody_waits_for_any_more_still_serves_those_who_come() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadAsked);
    let requests: Vec<_> = (0..OTHERS).map(|_| race.request()).collect();
    let load = stop.await;
    until("they wait", || waiting(&race) == OTHERS - 1).await;
    for request in requests {
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
    }

    let late = race.request();
    until("it waits", || waiting(&race) == OTHERS).await;
    load.go_on();
    assert_eq!(late.await.unwrap(), "good");
    assert!(race.is_cached());
    assert_eq!(race.backend.reads(), reads + 1);
}

/// Where the requests run on several runtimes and that of the first one ends, its read ends with it.
/// The others are told so at once, and not when their time is over.
#[test]
fn g9_nobody_waits_for_a_read_whose_runtime_has_ended() {
    let (staying, leaving) = (runtime(), runtime());
    let race = staying.block_on(Race::new());
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadTaken);
    let first = {
        let _on = leaving.enter();
        race.request()
    };
    let load = staying.block_on(stop);
    let others = staying.block_on(async {
        let others: Vec<_> = (0..OTHERS).map(|_| race.request()).collect();
        until("the others wait", || waiting(&race) == OTHERS).await;
        others
    });
    drop(leaving);
    staying.block_on(async {
        load.given_up().await;
        assert!(first.await.unwrap_err().is_cancelled());
        for other in others {
            assert_eq!(other.await.unwrap(), "unavailable");
        }
        assert_eq!(race.verified().await, "good");
    });
    assert_eq!(race.backend.reads(), reads + 2);
}

/// A thread of another runtime is held up by something else, and with it the reads that began
/// there. Another runtime reads the key instead.
#[test]
fn g9_a_read_whose_runtime_stalls_is_taken_over_by_another() {
    let (staying, backend) = (runtime(), Steps::default());
    let stalled = Builder::new_current_thread().enable_all().build().unwrap();
    // Real time has to pass: nobody moves the clock of a stalled runtime.
    let store = staying.block_on(async {
        let store = ApiKeyStore::builder(backend.clone()).peppers(peppers());
        store.cache(cache()).build().await.unwrap()
    });
    let tokens: Vec<_> = (0..5).map(|_| staying.block_on(issue(&store))).collect();
    let reads = backend.reads();
    // As many reads as there may be at once: no other one starts beside them.
    stalled.block_on(async {
        for (count, token) in tokens[..4].iter().enumerate() {
            backend.hang_next(Step::ReadAsked);
            let (store, token) = (store.clone(), token.clone());
            tokio::spawn(async move { verified(&store, &token).await });
            until("it is read", || backend.reads() == reads + count + 1).await;
        }
    });
    staying.block_on(async {
        for token in tokens.iter().rev() {
            assert_eq!(verified(&store, token).await, "good");
        }
    });
}

fn waiting(race: &Race) -> usize {
    usize::try_from(race.store.cache_stats().shared_loads).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
