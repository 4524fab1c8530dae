//! A load that never comes back.
//!
//! The database accepts the query and doesn't answer, or the network swallows what it says. Everyone
//! who asks for the key waits for one read that nobody ends; or it is ended, remembered as "no such
//! key", and the key is refused after the database is back.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_api_key::{ApiKeyLayer, CacheConfig};

use super::{Race, SECOND, issue, until, verified};
use crate::support::{
    bare::{request, whoami},
    steps::{Step, Steps},
};

/// The time is tokio's here, and passes when everybody waits.
async fn impatient() -> Race {
    let cache = CacheConfig::new().load_timeout(3 * SECOND).max_loads(1);
    Race::with(Steps::default(), cache).await
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_given_up_in_time_and_nothing_is_remembered() {
    for step in [Step::ReadAsked, Step::ReadTaken] {
        let race = impatient().await;
        let reads = race.backend.reads();
        let stop = race.backend.stop_next(step);
        let began = Instant::now();
        let requests: Vec<_> = (0..20).map(|_| race.request()).collect();
        let load = stop.await;
        for request in requests {
            assert_eq!(request.await.unwrap(), "unavailable");
        }
        load.given_up().await;
        assert_eq!(began.elapsed(), 3 * SECOND);
        until("the only reader is free", || {
            race.store.cache_stats().failed_loads == 1
        })
        .await;

        assert!(!race.is_cached());
        let stats = race.store.cache_stats();
        assert_eq!((stats.entries, stats.unknown_entries), (0, 0));
        let began = Instant::now();
        assert_eq!(race.verified().await, "good");
        assert!(began.elapsed().is_zero());
        assert_eq!(race.backend.reads(), reads + 2);
    }
}

/// Those who come later don't make it later for those who came first, nor wait longer themselves.
#[tokio::test(start_paused = true)]
async fn who_joins_a_read_that_hangs_is_answered_when_it_is_given_up() {
    let race = impatient().await;
    let stop = race.backend.stop_next(Step::ReadAsked);
    let began = Instant::now();
    let first = race.request();
    let load = stop.await;
    tokio::time::advance(2 * SECOND).await;
    let late = race.request();
    assert_eq!(first.await.unwrap(), "unavailable");
    assert_eq!(late.await.unwrap(), "unavailable");
    assert_eq!(began.elapsed(), 3 * SECOND);
    load.given_up().await;
    assert_eq!(race.verified().await, "good");
}

/// A key that is known isn't forgotten because a fresh check of it hangs.
#[tokio::test(start_paused = true)]
async fn a_fresh_check_that_hangs_takes_nothing_from_others() {
    let race = impatient().await;
    assert_eq!(race.verified().await, "good");
    race.backend.hang_next(Step::ReadTaken);
    let fresh = race.fresh_request();
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(race.verified().await, "good");
    assert_eq!(fresh.await.unwrap(), "unavailable");
    assert_eq!(race.verified().await, "good");
    until("the read is given up", || {
        race.store.cache_stats().failed_loads == 1
    })
    .await;
    assert!(race.is_cached());
}

/// What hangs is given up, and doesn't keep the others from being read.
#[tokio::test(start_paused = true)]
async fn other_keys_are_read_as_soon_as_there_is_a_reader() {
    let race = impatient().await;
    let other = issue(&race.store).await;
    race.backend.hang_next(Step::ReadAsked);
    let hanging = race.request();
    until("it hangs", || race.store.cache_stats().reads == 1).await;
    tokio::time::advance(SECOND).await;
    let began = Instant::now();
    assert_eq!(verified(&race.store, &other).await, "good");
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(hanging.await.unwrap(), "unavailable");
}

/// The read of the key hasn't taken long, but the way there has.
#[tokio::test(start_paused = true)]
async fn the_time_that_a_request_waits_for_a_reader_counts() {
    let race = impatient().await;
    let other = issue(&race.store).await;
    race.backend.hang_next(Step::ReadAsked);
    race.backend.hang_next(Step::ReadAsked);
    let hanging = race.request();
    until("it hangs", || race.store.cache_stats().reads == 1).await;
    tokio::time::advance(2 * SECOND).await;
    let began = Instant::now();
    // Read after a second, which hangs, too.
    assert_eq!(verified(&race.store, &other).await, "unavailable");
    assert_eq!(race.store.cache_stats().reads, 2);
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(hanging.await.unwrap(), "unavailable");
}

#[tokio::test(start_paused = true)]
async fn behind_the_layer_it_is_503_and_then_200() {
    let race = impatient().await;
    let service = ApiKeyLayer::new(race.store.clone()).layer(service_fn(whoami::<Full<Bytes>>));
    let send = |request: Request<Full<Bytes>>| {
        let service = service.clone();
        async move {
            let response: Result<Response<Full<Bytes>>, Infallible> =
                service.oneshot(request).await;
            response.unwrap()
        }
    };
    race.backend.hang_next(Step::ReadTaken);
    let refused = send(request(Some(&race.token))).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    until("the read is given up", || {
        race.store.cache_stats().failed_loads == 1
    })
    .await;
    let accepted = send(request(Some(&race.token))).await;
    assert_eq!(accepted.status(), StatusCode::OK);
}
