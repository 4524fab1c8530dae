//! One layer, many routes.
//!
//! A router clones its layer for each route and calls it for each of them. Where each call makes a
//! cache of its own, a key is read once per route, and, worse, a revocation reaches the one cache that
//! the handler of the revocation happens to hold: on every other route the key works on.

use std::{convert::Infallible, future::Ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_api_key::{ApiKeyLayer, AuthContext, CachedResolver, KeyResolver, ManualClock};

use super::{Race, peppers};
use crate::support::{bare::request, start, steps::Step};

type Route = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

/// The layer around a handler, and clones of it and of clones around others.
fn routes<R: KeyResolver>(layer: &ApiKeyLayer<R>) -> [Route; 3] {
    let route = |layer: &ApiKeyLayer<R>| {
        let handler = tower::service_fn(|request: Request<Full<Bytes>>| -> Ready<_> {
            assert!(request.extensions().get::<AuthContext>().is_some());
            std::future::ready(Ok(Response::new(Full::default())))
        });
        BoxCloneSyncService::new(layer.layer(handler))
    };
    let clone = layer.clone();
    [route(layer), route(&clone), route(&clone.clone())]
}

fn get(route: &Route, token: &str) -> JoinHandle<StatusCode> {
    let (route, request) = (route.clone(), request(Some(token)));
    tokio::spawn(async move { route.oneshot(request).await.unwrap().status() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_counts_on_every_route_of_a_layer_that_was_cloned_for_each() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let layer = ApiKeyLayer::new(race.store.clone());
    let routes = routes(&layer);
    for route in &routes {
        assert_eq!(get(route, &race.token).await.unwrap(), StatusCode::OK);
    }
    assert_eq!(race.backend.reads(), reads + 1);

    assert!(race.store.revoke(&race.id).await.unwrap());
    for route in &routes {
        let status = get(route, &race.token).await.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
}

/// One route reads the key, another waits for that read, and a third comes after the revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_load_that_one_route_began_does_not_resurrect_the_key_on_another() {
    let race = Race::new().await;
    let layer = ApiKeyLayer::new(race.store.clone());
    let [first, second, third] = routes(&layer);
    let stop = race.backend.stop_next(Step::ReadTaken);
    let reading = get(&first, &race.token);
    let load = stop.await;
    let waiting = get(&second, &race.token);
    super::until("it waits", || race.store.cache_stats().shared_loads == 1).await;

    assert!(race.store.revoke(&race.id).await.unwrap());
    load.go_on();
    for refused in [reading, waiting, get(&third, &race.token)] {
        assert_eq!(refused.await.unwrap(), StatusCode::UNAUTHORIZED);
    }
}

/// A layer made of the store, one made of a clone of it, and the store itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_clones_of_a_store_are_one_cache() {
    let race = Race::new().await;
    let reads = race.backend.reads();
    let clone = race.store.clone();
    let first = ApiKeyLayer::new(race.store.clone());
    let second = ApiKeyLayer::new(clone.clone());
    for layer in [&first, &second] {
        for route in &routes(layer) {
            assert_eq!(get(route, &race.token).await.unwrap(), StatusCode::OK);
        }
    }
    assert_eq!(race.backend.reads(), reads + 1);
    assert!(clone.revoke(&race.id).await.unwrap());
    assert_eq!(race.verified().await, "revoked");
    for layer in [&first, &second] {
        for route in &routes(layer) {
            let status = get(route, &race.token).await.unwrap();
            assert_eq!(status, StatusCode::UNAUTHORIZED);
        }
    }
}

/// A source without a store: there is nobody to revoke here, and so the operator forgets everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_of_a_resolver_are_one_cache() {
    let race = Race::new().await;
    let resolver = CachedResolver::builder(race.backend.clone())
        .peppers(peppers())
        .clock(ManualClock::new(start()))
        .build()
        .await
        .unwrap();
    let reads = race.backend.reads();
    let routes = routes(&ApiKeyLayer::new(resolver.clone()));
    for route in &routes {
        assert_eq!(get(route, &race.token).await.unwrap(), StatusCode::OK);
    }
    assert_eq!(race.backend.reads(), reads + 1);

    assert!(race.store.revoke(&race.id).await.unwrap());
    resolver.clone().invalidate_all();
    for route in &routes {
        let status = get(route, &race.token).await.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
}
