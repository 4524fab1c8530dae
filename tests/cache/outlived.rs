//! `serve_stale`, and what ends a key all the same: a revocation that is known here, a source that can
//! be asked, and time.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_api_key::CacheConfig;

use crate::{
    MAX_STALENESS, MOMENT, SECOND, TIME_TO_LIVE,
    node::Node,
    stale::{BOUND, node, silent_node},
    support::{
        feed::{Reading, Subscribing},
        id_of, unknown_token,
    },
};

#[tokio::test(start_paused = true)]
async fn g2_a_source_that_answers_again_ends_what_was_revoked_meanwhile() {
    let node = silent_node().await;
    let token = node.cached_token().await;
    node.remote.set_reading(Reading::Fails);
    node.remote.revoke_elsewhere(&token).await;
    sleep(2 * MAX_STALENESS).await;
    assert_eq!(node.verify(&token).await, "good");
    node.remote.set_reading(Reading::Answers);
    // It isn't asked again for that long after it has failed.
    sleep(SECOND).await;
    assert_eq!(node.verify(&token).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn g1_a_revocation_through_the_store_is_not_outlived() {
    let node = silent_node().await;
    let token = node.cached_token().await;
    sleep(2 * MAX_STALENESS).await;
    // The read that the revocation begins with is the last one that is answered.
    let reads = AtomicUsize::new(0);
    node.remote
        .read_as(move |_| match reads.fetch_add(1, Ordering::SeqCst) {
            0 => Reading::Answers,
            _ => Reading::Fails,
        });
    assert!(node.store.revoke(&id_of(&token)).await.unwrap());
    for _ in 0..20 {
        assert_eq!(node.verify(&token).await, "unavailable");
        sleep(SECOND).await;
    }
    assert_eq!(node.store.cache_stats().stale_served, 0);
}

#[tokio::test(start_paused = true)]
async fn g2_a_revocation_that_was_told_is_not_outlived() {
    for outage in [Reading::Fails, Reading::Hangs] {
        let node = node().await;
        let token = node.cached_token().await;
        node.remote.set_reading(outage);
        sleep(TIME_TO_LIVE).await;
        assert_eq!(node.verify(&token).await, "good");
        sleep(2 * SECOND).await;

        // One waits for the answer when the change is told, and one comes afterwards.
        let revocation = async {
            sleep(SECOND).await;
            node.remote.revoke_elsewhere(&token).await;
        };
        let (waited, ()) = tokio::join!(node.verify(&token), revocation);
        if outage == Reading::Hangs {
            assert_eq!(waited, "unavailable");
        }
        assert_eq!(node.verify(&token).await, "unavailable");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_has_to_be_fresh_is_never_answered_from_the_past() {
    for outage in [Reading::Fails, Reading::Hangs] {
        let node = silent_node().await;
        let token = node.cached_token().await;
        node.remote.set_reading(outage);
        sleep(MAX_STALENESS).await;
        assert_eq!(node.verify_fresh(&token).await, "unavailable");
        assert_eq!(node.verify(&token).await, "good");
        assert_eq!(node.verify_fresh(&token).await, "unavailable");
    }
}

/// The others can be asked for, so what they were is no answer.
#[tokio::test(start_paused = true)]
async fn g2_a_key_that_cannot_be_read_lets_no_other_key_outlive_its_revocation() {
    let node = silent_node().await;
    let (revoked, bad) = (node.cached_token().await, node.token().await);
    let bad_key = id_of(&bad).lookup_key();
    node.remote.read_as(move |keys| {
        if keys.contains(&bad_key) {
            Reading::Corrupt
        } else {
            Reading::Answers
        }
    });
    node.remote.revoke_elsewhere(&revoked).await;
    let revoked_at = Instant::now();
    sleep(MAX_STALENESS - SECOND / 2).await;
    while revoked_at.elapsed() < 2 * MAX_STALENESS {
        assert_eq!(node.verify(&bad).await, "unavailable");
        let answer = node.verify(&revoked).await;
        if revoked_at.elapsed() >= MAX_STALENESS {
            assert_eq!(
                answer,
                "revoked",
                "{:?} after the revocation",
                revoked_at.elapsed()
            );
        }
        sleep(SECOND / 4).await;
    }
}

/// Made-up ids can fill the queue, and so decide when loads fail.
#[tokio::test(start_paused = true)]
async fn g2_strangers_who_fill_the_queue_let_no_key_outlive_its_revocation() {
    let cache = CacheConfig::new()
        .serve_stale(BOUND)
        .max_loads(1)
        .max_waiting_loads(1);
    let node = Node::with(cache).await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let revoked = node.cached_token().await;
    node.remote.revoke_elsewhere(&revoked).await;
    let revoked_at = Instant::now();
    sleep(MAX_STALENESS - SECOND / 2).await;
    while revoked_at.elapsed() < 2 * MAX_STALENESS {
        let mut strangers = JoinSet::new();
        for id in 0..3 {
            let (store, id) = (
                node.store.clone(),
                unknown_token().replace("aaaa", &id.to_string().repeat(4)),
            );
            strangers.spawn(async move { drop(store.verify(id).await) });
        }
        strangers.join_all().await;
        let answer = node.verify(&revoked).await;
        if revoked_at.elapsed() >= MAX_STALENESS {
            assert_eq!(
                answer,
                "revoked",
                "{:?} after the revocation",
                revoked_at.elapsed()
            );
        }
        sleep(SECOND / 4).await;
    }
}

/// Or strangers could keep the source from being asked for a key that was revoked.
#[tokio::test(start_paused = true)]
async fn g2_a_queue_that_is_full_is_no_outage() {
    let cache = CacheConfig::new()
        .serve_stale(BOUND)
        .max_loads(1)
        .max_waiting_loads(1);
    let node = Node::with(cache).await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let (known, others) = (node.cached_token().await, node.tokens(2).await);
    sleep(MAX_STALENESS).await;
    node.remote.set_reading(Reading::Slow(SECOND));
    let crowd = async {
        let second = async {
            sleep(MOMENT).await;
            node.verify(&others[1]).await
        };
        tokio::join!(node.verify(&others[0]), second)
    };
    let request = async {
        sleep(10 * MOMENT).await;
        node.verify(&known).await
    };
    let (answers, answer) = tokio::join!(crowd, request);
    assert_eq!(answers, ("good", "good"));
    assert_eq!(answer, "unavailable");
    assert_eq!(node.verify(&known).await, "good");
    assert_eq!(node.store.cache_stats().stale_served, 0);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_suspended_for_longer_than_the_bound_serves_nothing_from_before() {
    let node = silent_node().await;
    let token = node.cached_token().await;
    node.remote.set_reading(Reading::Fails);
    node.clock.set_forwards(MAX_STALENESS + BOUND - SECOND);
    assert_eq!(node.verify(&token).await, "good");
    node.clock.set_forwards(SECOND);
    assert_eq!(node.verify(&token).await, "unavailable");
    // Nor does it help to set the clock back: of the two, the one that says more counts.
    node.clock.set_backwards(MAX_STALENESS);
    sleep(MAX_STALENESS + BOUND).await;
    assert_eq!(node.verify(&token).await, "unavailable");
}
