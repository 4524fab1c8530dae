//! Hashes that come under the current pepper when their keys are used.

use std::time::{Duration, Instant};

use tokio::{task::JoinSet, time::sleep};
use tower_api_key::{ApiKey, ApiKeyStore, KeyId, ManualClock, Pepper, Peppers};

use super::databases::{Database, clock};
use crate::{key, pepper, record, support::with_wrong_secret, verified};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node whose current pepper is `v2`, and which knows `v1`.
async fn node(database: &Database, clock: &ManualClock, rewraps: bool) -> ApiKeyStore {
    let peppers = Peppers::new(pepper("v2"))
        .with_retired(pepper("v1"))
        .unwrap();
    let builder = database
        .builder()
        .await
        .peppers(peppers)
        .clock(clock.clone());
    let builder = if rewraps {
        builder.rewrap_retired_peppers()
    } else {
        builder
    };
    builder.build().await.unwrap()
}

fn pepper_of(key: &ApiKey) -> String {
    key.secret_hash.pepper().unwrap().to_string()
}

/// Waits until the record names the pepper.
async fn comes_under(store: &ApiKeyStore, id: &KeyId, pepper: &str) -> ApiKey {
    let since = Instant::now();
    loop {
        let key = record(store, id).await;
        if pepper_of(&key) == pepper {
            return key;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "it stays under {}",
            pepper_of(&key)
        );
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_comes_under_the_current_pepper_when_it_is_used_and_is_otherwise_as_it_was() {
    for (name, database) in Database::all("rewrap") {
        let clock = clock();
        let old = database.node(&clock).await;
        let new = node(&database, &clock, true).await;
        let (token, id) = key(&old).await;
        let (unused, unused_id) = key(&old).await;
        let before = record(&old, &id).await;
        for wrong in [with_wrong_secret(&token), with_wrong_secret(&unused)] {
            assert_eq!(verified(&new, &wrong).await, "wrong secret", "{name}");
        }
        assert!(new.is_active(&unused).await.unwrap(), "which is no use");
        assert_eq!(verified(&new, &token).await, "good", "{name}");
        let after = comes_under(&new, &id, "v2").await;
        let mut expected = before;
        expected.secret_hash = after.secret_hash;
        expected.last_used_at = after.last_used_at;
        expected.version = 2;
        assert_eq!(format!("{after:?}"), format!("{expected:?}"), "{name}");
        // Who knows the new pepper alone verifies it, and nothing is written any more.
        let builder = database.builder().await.peppers(Peppers::new(pepper("v2")));
        let newest = builder.clock(clock.clone()).build().await.unwrap();
        assert_eq!(verified(&newest, &token).await, "good", "{name}");
        assert_eq!(
            verified(&newest, &with_wrong_secret(&token)).await,
            "wrong secret"
        );
        assert_eq!(verified(&newest, &unused).await, "unavailable", "{name}");
        for _ in 0..100 {
            assert_eq!(verified(&new, &token).await, "good", "{name}");
            assert_eq!(
                verified(&new, &with_wrong_secret(&token)).await,
                "wrong secret"
            );
        }
        new.shutdown().await.unwrap();
        assert_eq!(record(&new, &id).await.version, 2, "{name}");
        assert_eq!(record(&new, &unused_id).await.version, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_in_heavy_use_on_two_nodes_is_rewrapped_once() {
    for (name, database) in Database::all("rewrap-heavy") {
        let clock = clock();
        let old = database.node(&clock).await;
        let nodes = [
            node(&database, &clock, true).await,
            node(&database, &clock, true).await,
        ];
        let mut keys = Vec::new();
        for _ in 0..10 {
            keys.push(key(&old).await);
        }
        let mut uses = JoinSet::new();
        for at in 0..16 {
            let (store, keys) = (nodes[at % 2].clone(), keys.clone());
            uses.spawn(async move {
                for _ in 0..20 {
                    for (token, _) in &keys {
                        assert_eq!(verified(&store, token).await, "good");
                    }
                }
            });
        }
        uses.join_all().await;
        for (_, id) in &keys {
            let key = comes_under(&nodes[0], id, "v2").await;
            assert_eq!(key.version, 2, "{name}");
        }
    }
}

#[tokio::test]
async fn nothing_is_rewrapped_unless_it_is_switched_on() {
    let database = Database::Memory(tower_api_key::MemoryBackend::new());
    let clock = clock();
    let old = database.node(&clock).await;
    let (token, id) = key(&old).await;
    let off = node(&database, &clock, false).await;
    for _ in 0..100 {
        assert_eq!(verified(&off, &token).await, "good");
        tokio::task::yield_now().await;
    }
    off.shutdown().await.unwrap();
    let key = record(&off, &id).await;
    assert_eq!((pepper_of(&key).as_str(), key.version), ("v1", 1));
    // And nothing is to be done for keys that are under the current one.
    let on = node(&database, &clock, true).await;
    let (token, id) = crate::key(&on).await;
    for _ in 0..100 {
        assert_eq!(verified(&on, &token).await, "good");
        tokio::task::yield_now().await;
    }
    assert_eq!(record(&on, &id).await.version, 1);
}

#[tokio::test]
async fn keys_under_a_weak_pepper_come_under_a_strong_one() {
    let database = Database::Memory(tower_api_key::MemoryBackend::new());
    let clock = clock();
    let weak = || Pepper::weak_for_import("weak", "short").unwrap();
    let builder = database.builder().await.peppers(Peppers::new(weak()));
    let old = builder.clock(clock.clone()).build().await.unwrap();
    let (token, id) = key(&old).await;
    let peppers = Peppers::new(pepper("v2")).with_retired(weak()).unwrap();
    let builder = database
        .builder()
        .await
        .peppers(peppers)
        .clock(clock.clone());
    let new = builder.rewrap_retired_peppers().build().await.unwrap();
    assert_eq!(verified(&new, &token).await, "good");
    comes_under(&new, &id, "v2").await;
    assert_eq!(verified(&new, &token).await, "good");
    assert_eq!(verified(&old, &token).await, "unavailable");
}
