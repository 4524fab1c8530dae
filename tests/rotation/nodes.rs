//! Several nodes on each of the crate's databases: of many who rotate, one does, and all of them hear of it.

use std::time::{Duration, Instant};

use tokio::{task::JoinSet, time::sleep};
use tower_api_key::{ApiKeyStore, PageRequest, Peppers, RotationError};

use super::databases::{Database, clock};
use crate::{
    DAY, HOUR, SECOND, key, pepper, problem, record,
    support::{USER, id_of, start},
    token_of, verified,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Verifies until that gives `expected`.
async fn becomes(store: &ApiKeyStore, token: &str, expected: &str) {
    let since = Instant::now();
    loop {
        let now = verified(store, token).await;
        if now == expected {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{now} instead of {expected}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// It is in the cache, and stays there as far as this store knows.
async fn is_cached(store: &ApiKeyStore, token: &str) {
    becomes(store, token, "good").await;
    let mut hits = 0;
    while hits < 3 {
        let before = store.cache_stats().hits;
        assert_eq!(verified(store, token).await, "good");
        hits = if store.cache_stats().hits > before {
            hits + 1
        } else {
            0
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_rotations_of_one_key_at_once_one_wins_and_leaves_one_successor() {
    for (name, database) in Database::all("rotation-race") {
        let clock = clock();
        let nodes = [database.node(&clock).await, database.node(&clock).await];
        for round in 0..10 {
            let (old, id) = key(&nodes[0]).await;
            let overlap = if round % 2 == 0 { DAY } else { Duration::ZERO };
            let before = nodes[0]
                .list_for_user(USER, PageRequest::new().limit(200))
                .await;
            let before = before.unwrap().keys.len();
            let mut rotations = JoinSet::new();
            for at in 0..64 {
                let store = nodes[at % 2].clone();
                rotations.spawn(async move { store.rotate(&id, overlap).await });
            }
            let outcomes = rotations.join_all().await;
            let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, 63), "{name}");
            for lost in lost {
                assert_eq!(problem(lost), RotationError::RotatedAlready, "{name}");
            }
            let new = won.into_iter().next().unwrap().unwrap();
            for store in &nodes {
                assert_eq!(
                    record(store, &id).await.successor,
                    Some(new.key().id),
                    "{name}"
                );
                let listed = store
                    .list_for_user(USER, PageRequest::new().limit(200))
                    .await;
                assert_eq!(listed.unwrap().keys.len(), before + 1, "{name}: an orphan");
                assert_eq!(verified(store, &token_of(&new)).await, "good", "{name}");
            }
            let expected = if overlap.is_zero() { "revoked" } else { "good" };
            becomes(&nodes[1], &old, expected).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g2_every_node_hears_of_each_step_of_a_rotation() {
    for (name, database) in Database::all("rotation-feed") {
        let clock = clock();
        let (here, there) = (database.node(&clock).await, database.node(&clock).await);
        for round in 0..5 {
            // At once.
            let (old, id) = key(&here).await;
            is_cached(&there, &old).await;
            let new = token_of(&here.rotate(&id, Duration::ZERO).await.unwrap());
            becomes(&there, &old, "revoked").await;
            becomes(&there, &new, "good").await;

            // When the overlap ends, by the clock that both have.
            let (old, id) = key(&here).await;
            is_cached(&there, &old).await;
            let new = token_of(&here.rotate(&id, HOUR).await.unwrap());
            becomes_overlapping(&there, &old).await;
            clock.advance(Duration::from_millis(3_599_999));
            assert_eq!(verified(&there, &old).await, "good", "{name} {round}");
            clock.advance(Duration::from_millis(1));
            assert_eq!(verified(&there, &old).await, "expired", "{name} {round}");
            assert_eq!(verified(&here, &old).await, "expired", "{name} {round}");
            is_cached(&there, &new).await;

            // Early, and taken back.
            let next = token_of(&here.rotate(&id_of(&new), DAY).await.unwrap());
            is_cached(&there, &next).await;
            here.cancel_rotation(&id_of(&new)).await.unwrap();
            becomes(&there, &next, "revoked").await;
            becomes(&there, &new, "good").await;
            let next = token_of(&here.rotate(&id_of(&new), DAY).await.unwrap());
            is_cached(&there, &new).await;
            assert!(here.finish_rotation(&id_of(&new)).await.unwrap());
            becomes(&there, &new, "revoked").await;
            becomes(&there, &next, "good").await;
        }
    }
}

/// The context says when the key ends: what the other node has written is what this one believes.
async fn becomes_overlapping(store: &ApiKeyStore, token: &str) {
    let since = Instant::now();
    while store.verify(token).await.unwrap().expires_at().is_none() {
        assert!(
            since.elapsed() < PATIENCE,
            "the end of the overlap isn't heard of"
        );
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotations_survive_beside_updates_and_uses_of_the_same_key() {
    for (name, database) in Database::all("rotation-beside") {
        let clock = clock();
        let nodes = [database.node(&clock).await, database.node(&clock).await];
        for _ in 0..10 {
            let (old, id) = key(&nodes[0]).await;
            let mut tasks = JoinSet::new();
            for at in 0..12 {
                let (store, old) = (nodes[at % 2].clone(), old.clone());
                tasks.spawn(async move {
                    if at < 6 {
                        let update = tower_api_key::KeyUpdate::new().name(format!("{at}"));
                        store.update(&id, update).await.unwrap();
                    } else {
                        store.verify(&old).await.unwrap();
                    }
                });
            }
            let rotated = nodes[1].rotate(&id, DAY).await.unwrap();
            tasks.join_all().await;
            let old = record(&nodes[0], &id).await;
            assert_eq!(old.version, 8, "{name}: 6 updates and a rotation");
            assert_eq!(old.successor, Some(rotated.key().id), "{name}");
            assert!(old.retires_at.is_some() && old.name.is_some(), "{name}");
        }
    }
}

/// Here as soon as it is used, and elsewhere once that is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotation_shows_the_last_uses_of_both_keys_on_other_nodes_once_they_have_written_them() {
    for (name, database) in Database::all("rotation-uses-elsewhere") {
        let clock = clock();
        // Nobody writes before it is told to.
        let node = async || {
            let builder = database.builder().await.peppers(Peppers::new(pepper("v1")));
            let builder = builder.clock(clock.clone()).note_use_every(DAY);
            builder.build().await.unwrap()
        };
        let (here, there) = (node().await, node().await);
        let (old, id) = key(&here).await;
        let new = token_of(&here.rotate(&id, DAY).await.unwrap());
        let shown = async |store: &ApiKeyStore| {
            let mut shown = Vec::new();
            for by in [id, id_of(&new)] {
                let rotation = store.rotation(&by).await.unwrap().unwrap();
                let successor = rotation.successor.unwrap();
                assert_eq!((rotation.old.id, successor.id), (id, id_of(&new)), "{name}");
                shown.push((rotation.old.last_used_at, successor.last_used_at));
            }
            assert_eq!(shown[0], shown[1], "{name}");
            shown[0]
        };
        assert_eq!(verified(&there, &old).await, "good");
        clock.advance(HOUR);
        assert_eq!(verified(&there, &new).await, "good");
        let (first, second) = (Some(start()), Some(start() + HOUR));
        assert_eq!(shown(&there).await, (first, second), "{name}");
        assert_eq!(
            shown(&here).await,
            (None, None),
            "{name}: nothing is written"
        );
        there.shutdown().await.unwrap();
        assert_eq!(shown(&here).await, (first, second), "{name}");

        // Of what was written there and what is noted here, the later counts.
        clock.advance(HOUR);
        assert_eq!(verified(&here, &old).await, "good");
        let third = Some(start() + 2 * HOUR);
        assert_eq!(shown(&here).await, (third, second), "{name}");
        assert_eq!(shown(&there).await, (first, second), "{name}");
        here.shutdown().await.unwrap();
        assert_eq!(shown(&there).await, (third, second), "{name}");
    }
}

/// A node that goes on writes by itself, every few seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_goes_on_writes_the_last_uses_that_a_rotation_shows_elsewhere() {
    for (name, database) in Database::all("rotation-uses-written") {
        let clock = clock();
        let here = database.node(&clock).await;
        let builder = database.builder().await.peppers(Peppers::new(pepper("v1")));
        let builder = builder.clock(clock.clone()).note_use_every(SECOND / 100);
        let there = builder.build().await.unwrap();
        let (old, id) = key(&here).await;
        let new = token_of(&here.rotate(&id, DAY).await.unwrap());
        for token in [&old, &new] {
            assert_eq!(verified(&there, token).await, "good");
        }
        let since = Instant::now();
        loop {
            let rotation = here.rotation(&id).await.unwrap().unwrap();
            let uses = [Some(rotation.old), rotation.successor];
            let uses = uses.map(|key| key.unwrap().last_used_at);
            if uses == [Some(start()); 2] {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "{name}: {uses:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}
