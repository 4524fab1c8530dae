//! The lease, while the source tells of changes: what it tells counts, and nothing else costs reads.

use tokio::time::{Instant, sleep};
use tower_api_key::{ApiKey, ApiKeyBackend, CacheConfig, Change};

use crate::{
    HEARTBEAT, MAX_STALENESS, MOMENT, SECOND, TIME_TO_LIVE,
    node::Node,
    support::{
        feed::{Feed, Reading, Subscribing},
        id_of, start, unknown_token,
    },
};

#[tokio::test(start_paused = true)]
async fn g2_a_change_made_elsewhere_counts_as_soon_as_it_is_told() {
    let node = Node::new().await;
    let (revoked, disabled) = (node.cached_token().await, node.cached_token().await);
    let (deleted, untouched) = (node.cached_token().await, node.cached_token().await);
    sleep(10 * SECOND).await;

    node.remote.revoke_elsewhere(&revoked).await;
    node.remote
        .change_elsewhere(&disabled, |key| key.disabled_at = Some(start()))
        .await;
    assert!(node.remote.delete(&id_of(&deleted)).await.unwrap());
    sleep(MOMENT).await;

    assert_eq!(node.verify(&revoked).await, "revoked");
    assert_eq!(node.verify(&disabled).await, "disabled");
    assert_eq!(node.verify(&deleted).await, "unknown");
    assert_eq!(node.cached(&untouched), Some("good"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_made_elsewhere_is_known_as_soon_as_it_is_told() {
    let (here, there) = (Node::new().await, Node::new().await);
    assert_eq!(here.verify(&unknown_token()).await, "unknown");
    let token = there.token().await;
    sleep(10 * SECOND + HEARTBEAT / 2).await;
    assert_eq!(here.verify(&token).await, "unknown");

    let key = there.store.get(&id_of(&token)).await.unwrap().unwrap();
    assert!(here.remote.insert(&key).await.unwrap());
    sleep(MOMENT).await;
    assert_eq!(here.verify(&token).await, "good");
}

/// Otherwise each key would be read every few seconds, however much the source tells.
#[tokio::test(start_paused = true)]
async fn a_key_is_served_without_reads_until_its_time_to_live() {
    for feed in [Feed::Live, Feed::Silent, Feed::Slow(2 * HEARTBEAT - MOMENT)] {
        let node = Node::new().await;
        node.remote.set_feed(feed);
        let token = node.cached_token().await;
        // The first proof ends the time in which keys are believed by their age alone.
        sleep(2 * HEARTBEAT).await;
        assert_eq!(node.verify(&token).await, "good");
        let (read_at, read) = (Instant::now(), node.remote.reads());
        while read_at.elapsed() < TIME_TO_LIVE - 3 * HEARTBEAT {
            assert_eq!(node.cached(&token), Some("good"), "{feed:?}");
            sleep(100 * MOMENT).await;
        }
        assert_eq!(node.remote.reads(), read, "{feed:?}");

        sleep(3 * HEARTBEAT).await;
        assert_eq!(node.cached(&token), None, "{feed:?}");
        assert_eq!(node.verify(&token).await, "good");
        assert_eq!(node.remote.reads(), read + 1, "{feed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_shortest_max_staleness_leaves_time_for_proofs() {
    let node = Node::with(CacheConfig::new().max_staleness(50 * MOMENT)).await;
    node.remote.set_feed(Feed::Slow(5 * MOMENT));
    let token = node.cached_token().await;
    sleep(50 * MOMENT).await;
    assert_eq!(node.verify(&token).await, "good");
    sleep(50 * MOMENT).await;
    for _ in 0..1_000 {
        assert_eq!(node.cached(&token), Some("good"));
        sleep(MOMENT).await;
    }
}

/// What is asked for costs the source something on every node.
#[tokio::test(start_paused = true)]
async fn a_source_is_asked_for_changes_five_times_within_max_staleness_and_when_there_are_some() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let before = node.remote.feed_reads();
    sleep(10 * MAX_STALENESS).await;
    let asked = node.remote.feed_reads() - before;
    assert!((45..=50).contains(&asked), "{asked}");
    node.remote
        .announce([Change::Key(id_of(&token).lookup_key())]);
    sleep(MOMENT).await;
    assert_eq!(node.remote.feed_reads() - before, asked + 1);
    assert_eq!(node.remote.subscriptions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_never_waits_is_not_read_all_the_time() {
    let node = Node::new().await;
    node.remote.set_feed(Feed::Restless);
    let token = node.cached_token().await;
    sleep(10 * HEARTBEAT).await;
    let asked = node.remote.feed_reads();
    assert!((10..=1_100).contains(&asked), "{asked}");
    node.remote.revoke_elsewhere(&token).await;
    sleep(HEARTBEAT / 10).await;
    assert_eq!(node.verify(&token).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn g2_changes_that_are_told_in_another_order_and_twice_count_all_the_same() {
    let node = Node::new().await;
    node.remote.set_feed(Feed::Garbled);
    let (first, second) = (node.cached_token().await, node.cached_token().await);
    let untouched = node.cached_token().await;
    sleep(10 * SECOND).await;

    let disable = |key: &mut ApiKey| key.disabled_at = Some(start());
    let enable = |key: &mut ApiKey| key.disabled_at = None;
    node.remote.change_elsewhere(&first, disable).await;
    node.remote.change_elsewhere(&second, disable).await;
    node.remote.change_elsewhere(&second, enable).await;
    node.remote.revoke_elsewhere(&first).await;
    sleep(MOMENT).await;

    assert_eq!(node.verify(&first).await, "revoked");
    assert_eq!(node.verify(&second).await, "good");
    assert_eq!(node.cached(&untouched), Some("good"));
}

#[tokio::test(start_paused = true)]
async fn g2_where_the_source_cannot_say_what_has_changed_everything_is_read_again() {
    let node = Node::new().await;
    let (first, second) = (node.cached_token().await, node.cached_token().await);
    assert_eq!(node.verify(&unknown_token()).await, "unknown");
    sleep(SECOND / 2).await;
    assert_eq!(node.cached(&first), Some("good"));

    node.remote.announce([Change::Everything]);
    sleep(MOMENT).await;
    for token in [&first, &second, &unknown_token()] {
        assert_eq!(node.cached(token), None);
    }
    assert_eq!(node.store.cache_stats().entries, 0);
    assert_eq!(node.verify(&first).await, "good");
}

/// What was changed between the last answer of the old feed and the new one is told by neither.
#[tokio::test(start_paused = true)]
async fn g2_after_a_new_subscription_everything_is_read_again() {
    for broken in [Feed::Cut, Feed::Stalled] {
        let node = Node::new().await;
        let (revoked, untouched) = (node.cached_token().await, node.cached_token().await);
        sleep(10 * SECOND).await;
        let asked = node.remote.feed_reads();
        while node.remote.feed_reads() == asked {
            sleep(MOMENT).await;
        }
        node.remote.set_subscribing(Subscribing::Hangs);
        node.remote.set_feed(broken);
        // The next question comes a heartbeat later, and may take two. Another subscription is under
        // way then.
        sleep(7 * HEARTBEAT / 2).await;
        node.remote.revoke_elsewhere(&revoked).await;
        assert_eq!(node.cached(&revoked), Some("good"), "{broken:?}");

        node.remote.set_feed(Feed::Live);
        node.remote.set_subscribing(Subscribing::Feed);
        sleep(MOMENT).await;
        assert_eq!(node.cached(&untouched), None, "{broken:?}");
        assert_eq!(node.cached(&revoked), None, "{broken:?}");
        assert_eq!(node.verify(&revoked).await, "revoked", "{broken:?}");
        assert_eq!(node.verify(&untouched).await, "good", "{broken:?}");
    }
}

/// A subscription tells of what is changed after it was made, and keys may be read before.
#[tokio::test(start_paused = true)]
async fn g2_what_was_read_before_the_first_subscription_was_made_is_read_again() {
    for slow in [Subscribing::SlowFeed, Subscribing::SlowDirectly] {
        let node = Node::new().await;
        node.remote.set_subscribing(slow(HEARTBEAT));
        let token = node.cached_token().await;
        node.remote.revoke_elsewhere(&token).await;
        sleep(HEARTBEAT / 2).await;
        assert_eq!(node.cached(&token), Some("good"), "it can't be known yet");
        sleep(HEARTBEAT / 2 + MOMENT).await;
        assert_eq!(node.cached(&token), None);
        assert_eq!(node.verify(&token).await, "revoked");
    }
}

/// The connection that it went over is dead, and a new one might not be.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_takes_too_long_is_given_up_for_another() {
    let node = Node::new().await;
    node.remote
        .set_subscribing(Subscribing::SlowFeed(TIME_TO_LIVE));
    let token = node.token().await;
    assert_eq!(node.verify(&token).await, "good");
    node.remote.set_subscribing(Subscribing::Feed);
    sleep(3 * HEARTBEAT).await;
    assert_eq!(node.remote.subscriptions(), 2);
    assert_eq!(node.verify(&token).await, "good");
    sleep(2 * MAX_STALENESS).await;
    assert_eq!(node.cached(&token), Some("good"));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_was_under_way_when_the_subscription_was_made_is_done_again() {
    let node = Node::new().await;
    let token = node.token().await;
    node.remote
        .set_subscribing(Subscribing::SlowFeed(HEARTBEAT / 2));
    node.remote.set_reading(Reading::Slow(HEARTBEAT));
    assert_eq!(node.verify(&token).await, "good");
    assert_eq!(node.remote.reads(), 2);
    assert_eq!(node.store.cache_stats().stale_refused, 1);
}

/// Keys are verified meanwhile, and the source isn't asked without a pause.
#[tokio::test(start_paused = true)]
async fn a_source_that_refuses_to_be_subscribed_to_is_asked_again_about_every_second() {
    let node = Node::new().await;
    node.remote.set_subscribing(Subscribing::Refused);
    let token = node.token().await;
    for _ in 0..60 {
        assert_eq!(node.verify(&token).await, "good");
        sleep(SECOND).await;
    }
    let asked = node.remote.subscriptions();
    assert!((55..=75).contains(&asked), "{asked}");
    let read = node.remote.reads();
    assert!(
        (12..=16).contains(&read),
        "every five seconds, and not {read}"
    );

    node.remote.set_subscribing(Subscribing::Feed);
    sleep(HEARTBEAT + MOMENT).await;
    assert_eq!(node.remote.subscriptions(), asked + 1);
    let read = node.remote.reads();
    for _ in 0..20 {
        assert_eq!(node.verify(&token).await, "good");
        sleep(SECOND).await;
    }
    assert_eq!(node.remote.reads(), read + 1);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_ends_the_subscription_and_keys_are_believed_no_longer_than_without_one() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    sleep(10 * SECOND).await;
    node.store.shutdown().await.unwrap();
    let asked = node.remote.feed_reads();
    node.remote.revoke_elsewhere(&token).await;
    sleep(MAX_STALENESS).await;
    assert_eq!(node.verify(&token).await, "revoked");
    assert_eq!(node.remote.feed_reads(), asked);
    assert_eq!(node.remote.subscriptions(), 1);
}
