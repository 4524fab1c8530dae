//! How many keys each pepper has.

use std::collections::BTreeSet;

use tokio::time::timeout;
use tower_api_key::{ApiKeyStore, KeyFilter, KeyId, PageRequest, PepperId, Peppers};

use super::databases::{Database, PATIENCE, clock};
use crate::{DAY, HOUR, key, new_key, pepper, support::start, verified};

async fn usage(store: &ApiKeyStore) -> Vec<(Option<String>, u64, u64)> {
    let usage = store.pepper_usage().await.unwrap();
    let id = |pepper: PepperId| pepper.to_string();
    usage
        .iter()
        .map(|usage| (usage.pepper.map(id), usage.keys, usage.working))
        .collect()
}

fn is(pepper: &str, keys: u64, working: u64) -> (Option<String>, u64, u64) {
    (Some(pepper.to_owned()), keys, working)
}

#[tokio::test]
async fn keys_are_counted_by_pepper_and_those_that_work() {
    for (name, database) in Database::all("pepper-usage") {
        let clock = clock();
        let old = database.node(&clock).await;
        assert_eq!(usage(&old).await, [], "{name}");
        let peppers = Peppers::new(pepper("a2"))
            .with_retired(pepper("v1"))
            .unwrap();
        let builder = database.builder().await.peppers(peppers);
        let new = builder.clock(clock.clone()).build().await.unwrap();
        for _ in 0..3 {
            key(&old).await;
        }
        key(&new).await;
        let expected = [is("a2", 1, 1), is("v1", 3, 3)];
        assert_eq!(usage(&new).await, expected, "{name}");
        assert_eq!(
            usage(&old).await,
            expected,
            "{name}: it doesn't know the pepper a2"
        );

        let (_, revoked) = key(&old).await;
        assert!(old.revoke(&revoked).await.unwrap());
        let (_, suspended) = key(&old).await;
        assert!(old.disable(&suspended).await.unwrap());
        let _ = old.create(new_key().expires_at(start())).await.unwrap();
        let _ = old
            .create(new_key().expires_at(start() + DAY))
            .await
            .unwrap();
        assert_eq!(usage(&new).await[1], is("v1", 7, 5), "{name}");
        clock.advance(DAY);
        assert_eq!(usage(&new).await[1], is("v1", 7, 4), "{name}");
        // Its overlap counts, and its own expiry: whichever comes first.
        let (_, rotated) = key(&old).await;
        let _ = new.rotate(&rotated, HOUR).await.unwrap();
        assert_eq!(
            usage(&new).await,
            [is("a2", 2, 2), is("v1", 8, 5)],
            "{name}"
        );
        clock.advance(HOUR);
        assert_eq!(
            usage(&new).await,
            [is("a2", 2, 2), is("v1", 8, 4)],
            "{name}"
        );
    }
}

/// The ids of those that fit.
async fn listed(store: &ApiKeyStore, filter: KeyFilter) -> BTreeSet<KeyId> {
    let page = store.list(filter, PageRequest::new()).await.unwrap();
    assert!(page.next.is_none());
    page.keys.iter().map(|key| key.id).collect()
}

#[tokio::test]
async fn keys_that_are_left_under_a_retired_pepper_are_found_before_it_is_dropped() {
    for (name, database) in Database::all("pepper-left") {
        let clock = clock();
        let old = database.node(&clock).await;
        let (forgotten, forgotten_id) = key(&old).await;
        let (revoked, revoked_id) = key(&old).await;
        let (used, _) = key(&old).await;
        assert!(old.revoke(&revoked_id).await.unwrap());

        let peppers = Peppers::new(pepper("v2"));
        let retired = peppers.clone().with_retired(pepper("v1")).unwrap();
        let builder = database.builder().await.peppers(retired);
        let builder = builder.clock(clock.clone()).rewrap_retired_peppers();
        let new = builder.build().await.unwrap();
        assert_eq!(verified(&new, &used).await, "good", "{name}");
        let left = || KeyFilter::new().pepper(PepperId::new("v1").unwrap());
        let mut expected = BTreeSet::from([forgotten_id]);
        // The hash of the one that was used comes under the new pepper behind the request.
        let comes_under_it = async {
            while listed(&new, left()).await != expected {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, comes_under_it).await.unwrap();
        expected.insert(revoked_id);
        assert_eq!(
            listed(&new, left().with_revoked()).await,
            expected,
            "{name}"
        );

        // Without the pepper nobody knows a right secret, also that of a revoked key.
        let builder = database.builder().await.peppers(peppers);
        let without = builder.clock(clock.clone()).build().await.unwrap();
        assert_eq!(verified(&without, &used).await, "good", "{name}");
        for (token, id) in [(forgotten, forgotten_id), (revoked, revoked_id)] {
            assert_eq!(verified(&without, &token).await, "unavailable", "{name}");
            without.revoke(&id).await.unwrap();
            assert_eq!(verified(&without, &token).await, "unavailable", "{name}");
            assert!(without.delete(&id).await.unwrap());
            assert_eq!(verified(&without, &token).await, "unknown", "{name}");
        }
        assert!(listed(&without, left().with_revoked()).await.is_empty());
    }
}
