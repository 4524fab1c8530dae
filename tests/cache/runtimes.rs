//! A service with several runtimes, one of which stands still: a thread per core with one that is
//! busy, or a runtime for the warm-up that nobody drives afterwards. In real time, since nobody
//! moves the clock of a stalled runtime.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use tower_api_key::{
    ApiKeyStore, BackendError, CacheConfig, Event, EventRecorder, Pepper, Peppers, SystemClock,
};

use crate::{
    SECOND,
    node::{new_key, outcome, store_on},
    support::{PEPPER, feed::Remote, id_of},
};

const BOUND: Duration = Duration::from_secs(2);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Drives the runtime for a moment, and then no longer.
fn warm_up(runtime: &Runtime, work: impl Future<Output = ()>) {
    runtime.block_on(async {
        work.await;
        // Its background tasks begin.
        sleep(SECOND / 10).await;
    });
}

#[test]
fn g2_a_held_context_ends_in_time_while_the_listeners_runtime_stalls() {
    let (stalled, healthy) = (runtime(), runtime());
    let remote = Remote::default();
    let cache = CacheConfig::new().max_staleness(BOUND);
    let store = healthy.block_on(store_on(&remote, SystemClock, cache));
    let issued = healthy.block_on(store.create(new_key())).unwrap();
    let token = issued.token().expose().to_owned();
    // The listener, and a watcher of the key, are there.
    warm_up(&stalled, async {
        let auth = store.verify(&token).await.unwrap();
        tokio::spawn(auth.revoked());
    });
    assert_eq!(remote.subscriptions(), 1);
    healthy.block_on(async {
        let auth = store.verify(&token).await.unwrap();
        let watch = tokio::spawn(auth.revoked());
        // Long enough for the lease to end, and for the listener to be replaced.
        sleep(2 * BOUND).await;
        assert!(!watch.is_finished());
        assert_eq!(remote.subscriptions(), 2, "nobody listens");
        remote.revoke_elsewhere(&token).await;
        let revoked_at = Instant::now();
        timeout(4 * BOUND, watch)
            .await
            .expect("it goes on")
            .unwrap();
        let took = revoked_at.elapsed();
        assert!(took < BOUND, "{took:?}");
        assert_eq!(outcome(&store.verify(&token).await), "revoked");
    });
}

#[test]
fn last_used_is_written_while_the_writers_runtime_stalls() {
    let (stalled, healthy) = (runtime(), runtime());
    let remote = Remote::default();
    let peppers = || Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    let store = healthy.block_on(async {
        let store = ApiKeyStore::builder(remote.clone())
            .peppers(peppers())
            .note_use_every(SECOND / 2);
        store.build().await.unwrap()
    });
    let issue = || {
        let issued = healthy.block_on(store.create(new_key())).unwrap();
        issued.token().expose().to_owned()
    };
    let (first, second) = (issue(), issue());
    stalled.block_on(async {
        assert_eq!(outcome(&store.verify(&first).await), "good");
    });
    healthy.block_on(async {
        let elsewhere = ApiKeyStore::builder(remote.clone()).peppers(peppers());
        let elsewhere = elsewhere.build().await.unwrap();
        let since = Instant::now();
        loop {
            sleep(SECOND / 10).await;
            // Each is a use that may start a writer.
            assert_eq!(outcome(&store.verify(&second).await), "good");
            let other = store.create(new_key()).await.unwrap();
            drop(store.verify(other.token().expose()).await);
            let key = elsewhere.get(&id_of(&first)).await.unwrap().unwrap();
            if key.last_used_at.is_some() {
                break;
            }
            assert!(since.elapsed() < 10 * SECOND, "it is not written");
        }
    });
}

#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<u64>>>);

impl EventRecorder for Recorded {
    async fn record(&self, events: &[Event]) -> Result<(), BackendError> {
        // A moment in which the runtime may stall.
        sleep(SECOND / 20).await;
        let numbers = events.iter().map(|event| event.number);
        self.0.lock().unwrap().extend(numbers);
        Ok(())
    }
}

#[test]
fn events_are_recorded_while_the_recorders_runtime_stalls() {
    let (stalled, healthy) = (runtime(), runtime());
    for shuts_down in [false, true] {
        let recorded = Recorded::default();
        let store = healthy.block_on(async {
            let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
            let store = ApiKeyStore::builder(Remote::default()).peppers(peppers);
            store.record_events(recorded.clone()).build().await.unwrap()
        });
        // The runtime stalls in the middle of a batch.
        stalled.block_on(async {
            drop(store.create(new_key()).await.unwrap());
            sleep(SECOND / 50).await;
        });
        healthy.block_on(async {
            sleep(SECOND + SECOND / 5).await;
            if shuts_down {
                store.shutdown().await.unwrap();
                assert_eq!(*recorded.0.lock().unwrap(), [1]);
                return;
            }
            drop(store.create(new_key()).await.unwrap());
            let since = Instant::now();
            while recorded.0.lock().unwrap().len() < 2 {
                assert!(since.elapsed() < 10 * SECOND, "nothing is recorded");
                sleep(SECOND / 100).await;
            }
            assert_eq!(*recorded.0.lock().unwrap(), [1, 2]);
        });
    }
}
