//! Every way to end a key, on one node, ends it on the other.

use std::time::{Duration, UNIX_EPOCH};

use tokio::task::JoinSet;
use tower_api_key::{
    Clock, KeyFilter, KeyUpdate, NewApiKey, PageRequest, RevocationReason, Scopes,
};

use crate::{
    DAY,
    pair::{Key, Pair, new_key},
    support::start,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_key_that_is_ended_on_one_node_ends_on_one_that_has_it_cached() {
    for pair in Pair::all("nodes-ended").await {
        let here = &pair.here;
        let [
            revoked,
            because,
            by_token,
            leaked,
            disabled,
            expired,
            deleted,
        ] = pair.cached_keys().await;
        assert!(here.revoke(&revoked.id).await.unwrap());
        pair.becomes(&revoked.token, "revoked").await;
        let why = RevocationReason::OwnerLeft;
        assert!(here.revoke_because(&because.id, why).await.unwrap());
        pair.becomes(&because.token, "revoked").await;
        assert!(here.revoke_token(&by_token.token).await.unwrap());
        pair.becomes(&by_token.token, "revoked").await;
        let reported = here.report_leaked([&leaked.token]).await.unwrap();
        assert!(reported[0].is_true_positive());
        pair.becomes(&leaked.token, "revoked").await;
        assert!(here.disable(&disabled.id).await.unwrap());
        pair.becomes(&disabled.token, "disabled").await;
        let now = KeyUpdate::new().expires_at(start());
        assert!(here.update(&expired.id, now).await.unwrap().is_some());
        pair.becomes(&expired.token, "expired").await;
        assert!(here.delete(&deleted.id).await.unwrap());
        pair.becomes(&deleted.token, "unknown").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_all_keys_of_a_user_that_are_ended_on_one_node_end_on_one_that_has_them_cached() {
    for pair in Pair::all("nodes-user").await {
        let mut keys = Vec::new();
        for _ in 0..3 {
            let new = NewApiKey::for_user("user_2", Scopes::none());
            keys.push(pair.key_of(new).await);
        }
        let other = pair.key().await;
        let all = keys.iter().chain([&other]);
        pair.cache_there(all.map(|key| (&*key.token, "good"))).await;
        let ended = pair.here.revoke_all_for_user("user_2").await.unwrap();
        assert_eq!(ended, 3, "{}", pair.name);
        for key in &keys {
            pair.becomes(&key.token, "revoked").await;
        }
        pair.becomes(&other.token, "good").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_rotation_that_ends_a_key_on_one_node_ends_it_on_one_that_has_it_cached() {
    for pair in Pair::all("nodes-rotated").await {
        let here = &pair.here;
        let [at_once, finished, cancelled] = [pair.key().await, pair.key().await, pair.key().await];
        let _ = here.rotate(&finished.id, DAY).await.unwrap();
        let successor: Key = here.rotate(&cancelled.id, DAY).await.unwrap().into();
        let keys = [&at_once, &finished, &cancelled, &successor];
        pair.cache_there(keys.map(|key| (&*key.token, "good")).into_iter())
            .await;

        let new: Key = here
            .rotate(&at_once.id, Duration::ZERO)
            .await
            .unwrap()
            .into();
        pair.becomes(&at_once.token, "revoked").await;
        pair.becomes(&new.token, "good").await;
        assert!(here.finish_rotation(&finished.id).await.unwrap());
        pair.becomes(&finished.token, "revoked").await;
        here.cancel_rotation(&cancelled.id).await.unwrap();
        pair.becomes(&successor.token, "revoked").await;
        let has_no_end = async || {
            let auth = pair.there.verify(&cancelled.token).await.unwrap();
            auth.expires_at().is_none()
        };
        pair.until("without an end", has_no_end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_record_that_is_purged_on_one_node_is_unknown_on_one_that_has_it_cached() {
    // The database goes by its own clock, too.
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    for pair in Pair::all_at("nodes-purged", long_ago).await {
        let moment = Duration::from_millis(1);
        let ends = pair.key_of(new_key().expires_in(moment)).await;
        let goes_on = pair.key().await;
        pair.clock.advance(2 * moment);
        let keys = [(&*ends.token, "expired"), (&*goes_on.token, "good")];
        pair.cache_there(keys.into_iter()).await;
        assert_eq!(pair.here.purge(pair.clock.now()).await.unwrap(), 1);
        pair.becomes_there(&ends.token, "unknown").await;
        pair.becomes(&goes_on.token, "good").await;
    }
}

/// Who holds a key may be let change its name, and does so all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nobody_keeps_a_key_from_being_revoked_by_changing_it_all_the_time() {
    for pair in Pair::all("nodes-hostile").await {
        for way in 0..3 {
            let key = pair.key().await;
            let mut changing = JoinSet::new();
            for number in 0..16 {
                let store = [&pair.here, &pair.there][number % 2].clone();
                changing.spawn(async move {
                    loop {
                        let name = KeyUpdate::new().name(format!("name {number}"));
                        // Until it is ended, and sometimes one of the others is first.
                        match store.update(&key.id, name).await {
                            Ok(Some(key)) if key.revoked_at.is_some() => return,
                            _ => {}
                        }
                    }
                });
            }
            let here = &pair.here;
            match way {
                0 => assert!(here.revoke(&key.id).await.unwrap()),
                1 => {
                    let reported = here.report_leaked([&key.token]).await.unwrap();
                    assert!(reported[0].is_true_positive(), "{reported:?}");
                }
                _ => assert!(here.revoke_token(&key.token).await.unwrap()),
            }
            changing.join_all().await;
            pair.becomes(&key.token, "revoked").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_all_keys_of_a_user_end_however_many_they_are() {
    const KEYS: usize = 2_100;
    for pair in Pair::all("nodes-many").await {
        let mut first = None;
        for _ in 0..KEYS {
            let new = NewApiKey::for_user("mallory", Scopes::none());
            let issued = pair.there.create(new).await.unwrap();
            first.get_or_insert(issued.token().expose().to_owned());
        }
        let ended = pair.here.revoke_all_for_user("mallory").await.unwrap();
        assert_eq!(ended, KEYS, "{}", pair.name);
        pair.becomes(&first.unwrap(), "revoked").await;
        let left = KeyFilter::new().user("mallory");
        let left = pair.there.list(left, PageRequest::new()).await.unwrap();
        assert_eq!(left.keys.len(), 0);
    }
}
