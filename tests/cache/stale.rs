//! `serve_stale`: known keys go on working while the source can't answer, up to a bound, and nothing
//! else does.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower_api_key::CacheConfig;

use crate::{
    HEARTBEAT, LOAD_TIMEOUT, MAX_STALENESS, MOMENT, SECOND, TIME_TO_LIVE,
    node::{Node, new_key, outcome},
    support::{
        feed::{Feed, Reading, Subscribing},
        start, unknown_token, with_wrong_secret,
    },
};

pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn node() -> Node {
    Node::with(CacheConfig::new().serve_stale(BOUND)).await
}

/// The same, and nothing is told: what is read is too old after five seconds.
pub(crate) async fn silent_node() -> Node {
    let node = node().await;
    node.remote.set_subscribing(Subscribing::Nothing);
    node
}

impl Node {
    fn lose_everything(&self, reading: Reading) {
        self.remote.set_reading(reading);
        self.remote.set_feed(Feed::Stalled);
        self.remote.set_subscribing(Subscribing::Hangs);
    }
}

#[tokio::test(start_paused = true)]
async fn g3_known_keys_go_on_working_for_as_long_as_was_allowed_and_no_longer() {
    for outage in [Reading::Fails, Reading::Panics] {
        let node = node().await;
        let token = node.cached_token().await;
        sleep(10 * SECOND).await;
        let lost_at = Instant::now();
        node.lose_everything(outage);
        node.remote.revoke_elsewhere(&token).await;

        let end = lost_at + MAX_STALENESS + BOUND;
        while Instant::now() < end - HEARTBEAT - SECOND / 10 {
            assert_eq!(node.verify(&token).await, "good", "{:?}", lost_at.elapsed());
            assert_eq!(node.verify(&unknown_token()).await, "unavailable");
            sleep(SECOND / 10).await;
        }
        let asked = node.remote.reads();
        assert!(
            asked < 700,
            "each of the requests for nobody's id, and few others: {asked}"
        );
        sleep_until(end).await;
        for _ in 0..50 {
            assert_eq!(node.verify(&token).await, "unavailable");
            sleep(SECOND / 10).await;
        }
    }
}

/// A source that gives a record which can't be read has been asked: who knows what it was to say.
#[tokio::test(start_paused = true)]
async fn g3_a_record_that_cannot_be_read_is_no_outage() {
    let node = silent_node().await;
    let token = node.cached_token().await;
    node.remote.set_reading(Reading::Corrupt);
    sleep(MAX_STALENESS).await;
    assert_eq!(node.verify(&token).await, "unavailable");
}

#[tokio::test(start_paused = true)]
async fn g3_it_is_off_unless_it_was_asked_for() {
    let node = Node::new().await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let token = node.cached_token().await;
    node.remote.set_reading(Reading::Fails);
    sleep(MAX_STALENESS).await;
    assert_eq!(node.verify(&token).await, "unavailable");
    assert_eq!(node.store.cache_stats().stale_served, 0);
}

/// The time to live is no shorter a limit than the lease: past it a key is read again, too.
#[tokio::test(start_paused = true)]
async fn a_key_goes_on_past_its_time_to_live_where_it_cannot_be_read() {
    let node = node().await;
    node.remote.set_subscribing(Subscribing::Directly);
    let token = node.cached_token().await;
    node.remote.set_reading(Reading::Fails);
    sleep(TIME_TO_LIVE + BOUND - SECOND / 10).await;
    assert_eq!(node.verify(&token).await, "good");
    sleep(SECOND / 10).await;
    assert_eq!(node.verify(&token).await, "unavailable");
}

#[tokio::test(start_paused = true)]
async fn secrets_and_expiry_are_checked_all_the_same() {
    let node = silent_node().await;
    let end = start() + 2 * MAX_STALENESS;
    let token = node.issue(new_key().expires_at(end)).await;
    assert_eq!(node.verify(&token).await, "good");
    node.remote.set_reading(Reading::Fails);
    sleep(2 * MAX_STALENESS - SECOND).await;
    // Twice: from the answer that failed, and from memory while the source is spared.
    for _ in 0..2 {
        assert_eq!(node.verify(&token).await, "good");
        assert_eq!(
            node.verify(&with_wrong_secret(&token)).await,
            "wrong secret"
        );
    }
    sleep(SECOND).await;
    for _ in 0..2 {
        assert_eq!(node.verify(&token).await, "expired");
    }
}

/// A client that is told nothing for three seconds, every time, is not served.
#[tokio::test(start_paused = true)]
async fn where_the_source_hangs_few_requests_wait_for_it() {
    let node = silent_node().await;
    let token = node.cached_token().await;
    node.remote.set_reading(Reading::Hangs);
    sleep(MAX_STALENESS).await;
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        let (store, token) = (node.store.clone(), token.clone());
        requests.spawn(async move {
            let asked_at = Instant::now();
            assert_eq!(outcome(&store.verify(token).await), "good");
            asked_at.elapsed()
        });
        sleep(SECOND / 10).await;
    }
    let waits = requests.join_all().await;
    assert!(waits.iter().all(|waited| *waited <= LOAD_TIMEOUT + MOMENT));
    // All of those that come before it is known that the source hangs: in the first three seconds.
    let waited = waits.iter().filter(|waited| **waited > MOMENT).count();
    assert!(waited <= 40, "{waited} of 200 waited");
}

#[tokio::test(start_paused = true)]
async fn what_is_served_stale_is_counted() {
    let node = silent_node().await;
    let token = node.cached_token().await;
    node.remote.set_reading(Reading::Fails);
    sleep(MAX_STALENESS).await;
    let before = node.store.cache_stats();
    for _ in 0..10 {
        assert_eq!(node.verify(&token).await, "good");
    }
    let after = node.store.cache_stats();
    assert_eq!(after.stale_served, 10);
    assert_eq!(after.hits, before.hits);
    assert_eq!(after.failed_loads, 1);
    assert_eq!(after.entries, 1);
}
