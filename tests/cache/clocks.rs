//! What is believed when clocks are set, when machines were suspended, and when coarse clocks are
//! late; and when a key expires.

use std::time::{Duration, SystemTime};

use tokio::{task::yield_now, time::sleep};
use tower_api_key::{CacheConfig, Clock, KeyResolver, ManualClock};

use crate::{
    HEARTBEAT, MAX_STALENESS, MOMENT, SECOND, TIME_TO_LIVE,
    node::{Node, new_key, outcome, store_on},
    support::{
        feed::{Feed, Reading, Remote, Subscribing},
        start,
    },
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Its monotonic clock stands still meanwhile, and its connections look as good as before.
#[tokio::test(start_paused = true)]
async fn g2_a_machine_that_was_suspended_believes_nothing_from_before() {
    for suspended_for in [MAX_STALENESS, HOUR] {
        for subscribing in [Subscribing::Feed, Subscribing::Nothing, Subscribing::Hangs] {
            let node = Node::new().await;
            node.remote.set_feed(Feed::Silent);
            node.remote.set_subscribing(subscribing);
            let token = node.cached_token().await;
            sleep(2 * HEARTBEAT).await;
            assert_eq!(node.cached(&token), Some("good"));

            node.remote.revoke_elsewhere(&token).await;
            node.clock.set_forwards(suspended_for);
            assert_eq!(node.cached(&token), None, "{subscribing:?}");
            assert_eq!(node.verify(&token).await, "revoked");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g2_an_answer_to_what_was_asked_before_a_machine_was_suspended_proves_nothing() {
    let node = Node::new().await;
    node.remote.set_feed(Feed::Silent);
    let token = node.cached_token().await;
    sleep(5 * SECOND).await;
    node.remote.set_feed(Feed::Slow(HEARTBEAT));
    let asked = node.remote.feed_reads();
    while node.remote.feed_reads() == asked {
        sleep(MOMENT).await;
    }
    node.remote.revoke_elsewhere(&token).await;
    node.clock.set_forwards(MAX_STALENESS);
    sleep(HEARTBEAT + MOMENT).await;
    assert_eq!(node.cached(&token), None);
    assert_eq!(node.verify(&token).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn g2_a_time_of_day_that_is_set_backwards_lengthens_nothing() {
    for subscribing in [Subscribing::Feed, Subscribing::Nothing, Subscribing::Hangs] {
        let node = Node::new().await;
        node.remote.set_feed(Feed::Silent);
        node.remote.set_subscribing(subscribing);
        let token = node.cached_token().await;
        // Just after a question: the next one would come too late to tell of it.
        sleep(2 * HEARTBEAT + MOMENT).await;
        node.remote.set_feed(Feed::Stalled);
        node.remote.set_subscribing(Subscribing::Hangs);
        node.remote.revoke_elsewhere(&token).await;
        node.clock.set_backwards(HOUR);
        sleep(MAX_STALENESS).await;
        assert_eq!(node.cached(&token), None, "{subscribing:?}");
        assert_eq!(node.verify(&token).await, "revoked", "{subscribing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_read_again_after_its_time_to_live_although_all_changes_are_told() {
    for subscribing in [Subscribing::Feed, Subscribing::Directly] {
        for back in [Duration::ZERO, HOUR] {
            let node = Node::new().await;
            node.remote.set_subscribing(subscribing);
            let token = node.cached_token().await;
            let read = node.remote.reads();
            sleep(2 * HEARTBEAT).await;
            node.clock.set_backwards(back);
            sleep(TIME_TO_LIVE - 3 * HEARTBEAT).await;
            assert_eq!(
                node.cached(&token),
                Some("good"),
                "{subscribing:?}, {back:?}"
            );
            sleep(HEARTBEAT).await;
            assert_eq!(node.cached(&token), None, "{subscribing:?}, {back:?}");
            assert_eq!(node.verify(&token).await, "good");
            assert_eq!(node.remote.reads(), read + 1, "{subscribing:?}, {back:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g2_a_source_that_tells_nothing_is_believed_for_max_staleness_and_no_longer() {
    let node = Node::new().await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let token = node.cached_token().await;
    let read = node.remote.reads();
    node.remote.revoke_elsewhere(&token).await;
    sleep(MAX_STALENESS - SECOND / 10).await;
    assert_eq!(node.verify(&token).await, "good");
    assert_eq!(node.remote.reads(), read);
    sleep(SECOND / 10).await;
    assert_eq!(node.verify(&token).await, "revoked");
    assert_eq!(node.remote.subscriptions(), 1);
}

/// Whoever waits for a read gets what was true when it began.
#[tokio::test(start_paused = true)]
async fn g2_a_read_that_takes_longer_than_max_staleness_is_not_believed() {
    let staleness = SECOND;
    let node = Node::with(CacheConfig::new().max_staleness(staleness)).await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let token = node.token().await;
    node.remote.set_reading(Reading::Slow(2 * staleness));
    let first = async { node.verify(&token).await };
    let revocation = async {
        sleep(MOMENT).await;
        node.remote.revoke_elsewhere(&token).await;
    };
    let later = async {
        sleep(staleness + MOMENT).await;
        node.verify(&token).await
    };
    let (_, (), later) = tokio::join!(first, revocation, later);
    assert_ne!(
        later, "good",
        "it was asked for {staleness:?} after the revocation"
    );
}

/// Also where it was suspended so soon that the monotonic clock shows the time at which it began.
#[tokio::test(start_paused = true)]
async fn g2_a_read_that_was_under_way_when_a_machine_was_suspended_is_not_believed() {
    for after in [Duration::ZERO, MOMENT, SECOND / 2] {
        let node = Node::new().await;
        let token = node.token().await;
        node.remote.set_subscribing(Subscribing::Hangs);
        node.remote.set_reading(Reading::Slow(SECOND));
        let first = async { node.verify(&token).await };
        let later = async {
            sleep(after).await;
            while node.remote.reads() == 0 {
                yield_now().await;
            }
            node.remote.revoke_elsewhere(&token).await;
            node.clock.set_forwards(HOUR);
            node.verify(&token).await
        };
        let (_, later) = tokio::join!(first, later);
        assert_ne!(
            later, "good",
            "it was asked for an hour after the revocation, {after:?} after the read began"
        );
    }
}

#[tokio::test]
async fn g6_a_cached_key_expires_at_its_moment() {
    let (remote, clock) = (Remote::default(), ManualClock::new(start()));
    remote.set_subscribing(Subscribing::Directly);
    let store = store_on(&remote, clock.clone(), CacheConfig::new()).await;
    let end = start() + TIME_TO_LIVE / 2;
    let token = store
        .create(new_key().expires_at(end))
        .await
        .unwrap()
        .token()
        .clone();
    let answer = async || outcome(&store.resolve(&token).await);
    assert_eq!(answer().await, "good");
    let read = remote.reads();

    clock.set(end - Duration::from_nanos(1));
    assert_eq!(answer().await, "good");
    clock.set(end);
    assert_eq!(answer().await, "expired");
    clock.set(end + SECOND);
    assert_eq!(answer().await, "expired");
    assert_eq!(remote.reads(), read);
}

#[tokio::test(start_paused = true)]
async fn g6_a_key_that_expires_while_it_is_read_has_expired() {
    let node = Node::new().await;
    let token = node.issue(new_key().expires_at(start() + SECOND)).await;
    node.remote.set_reading(Reading::Slow(SECOND));
    assert_eq!(node.verify(&token).await, "expired");
}

/// Its coarse times are as late as a clock's may be.
#[derive(Debug)]
struct Late(ManualClock);

const LATE: Duration = Duration::from_millis(10);

impl Clock for Late {
    fn now(&self) -> SystemTime {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn coarse_unix_time(&self) -> Duration {
        self.0.coarse_unix_time() - LATE
    }

    fn coarse_monotonic(&self) -> Duration {
        self.0.monotonic() - LATE
    }
}

#[tokio::test]
async fn g6_a_coarse_clock_that_is_late_does_not_let_a_key_outlive_its_end() {
    let (remote, clock) = (Remote::default(), ManualClock::new(start()));
    remote.set_subscribing(Subscribing::Directly);
    let store = store_on(&remote, Late(clock.clone()), CacheConfig::new()).await;
    let end = start() + SECOND;
    let token = store
        .create(new_key().expires_at(end))
        .await
        .unwrap()
        .token()
        .clone();
    assert_eq!(outcome(&store.resolve(&token).await), "good");

    clock.set(end - 3 * LATE);
    while clock.now() < end + 3 * LATE {
        let cached = store.resolve_now(&token).map(|result| outcome(&result));
        let right = if clock.now() < end { "good" } else { "expired" };
        assert_eq!(cached, Some(right), "{:?}", clock.now());
        clock.advance(MOMENT / 4);
    }
}

/// It takes that much less, so as not to believe anything for longer than was asked for.
#[tokio::test]
async fn g2_a_coarse_clock_that_is_late_does_not_lengthen_what_is_believed() {
    for (subscribing, limit) in [
        (Subscribing::Nothing, MAX_STALENESS),
        (Subscribing::Directly, TIME_TO_LIVE),
    ] {
        let (remote, clock) = (Remote::default(), ManualClock::new(start()));
        remote.set_subscribing(subscribing);
        let store = store_on(&remote, Late(clock.clone()), CacheConfig::new()).await;
        let token = store.create(new_key()).await.unwrap().token().clone();
        // Within a millisecond, since that is what the cache counts in.
        clock.advance(MOMENT * 9 / 10);
        let read_at = clock.now();
        assert_eq!(outcome(&store.resolve(&token).await), "good");

        clock.advance(limit - 5 * LATE);
        while clock.now() < read_at + limit + 5 * LATE {
            let age = clock.now().duration_since(read_at).unwrap();
            let is_cached = store.resolve_now(&token).is_some();
            assert!(!is_cached || age < limit, "{subscribing:?}: {age:?}");
            assert!(
                is_cached || age > limit - 3 * LATE,
                "{subscribing:?}: {age:?}"
            );
            clock.advance(MOMENT / 4);
        }
    }
}
