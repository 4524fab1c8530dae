//! The request that began a load goes away, and others wait for it.
//!
//! The first of many requests for a key reads it, and the others wait for the first. Then its client
//! hangs up, and the read is dropped with it. The others wait for somebody who has left: until their
//! time is over, or for good; or each of them reads for itself, which is what waiting was to prevent.

use std::{future::poll_fn, pin::pin, task::Poll};

use tokio::runtime::{Builder, Runtime};

use super::{Race, SECOND, cache, until};
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

/// A thread of another runtime is held up by something else, and with it the reads that were begun
/// there. Whoever needs the key waits for that once, and then it is read elsewhere.
#[test]
fn a_read_whose_runtime_stands_still_does_not_keep_the_key_from_others() {
    let staying = runtime();
    let still = Builder::new_current_thread().enable_all().build().unwrap();
    // The one time that has to pass really: nobody moves the clock of a runtime that stands still.
    let race = staying.block_on(Race::with(Steps::default(), cache().load_timeout(SECOND)));
    still.block_on(async {
        let mut request = pin!(race.verified());
        let polled = poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    });
    staying.block_on(async {
        assert_eq!(race.verified().await, "unavailable");
        assert_eq!(race.verified().await, "good");
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
