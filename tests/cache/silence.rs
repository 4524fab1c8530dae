//! The lease, when the source doesn't tell of changes any more: no key outlives its revocation by
//! more than `max_staleness`, at whatever moment either happens.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    HEARTBEAT, MAX_STALENESS, MOMENT, SECOND,
    node::Node,
    support::feed::{Feed, Reading, Subscribing},
};

/// What happens to the feed, and to those who subscribe again.
const FAULTS: &[(Feed, Subscribing)] = &[
    // Half-open connections, and servers that hang.
    (Feed::Stalled, Subscribing::Hangs),
    (Feed::Stalled, Subscribing::Refused),
    (Feed::Stalled, Subscribing::Feed),
    (Feed::Stalled, Subscribing::SlowFeed(SECOND)),
    // Connections that break, and are made again or aren't.
    (Feed::Cut, Subscribing::Hangs),
    (Feed::Cut, Subscribing::Refused),
    (Feed::Cut, Subscribing::Feed),
    (Feed::Cut, Subscribing::SlowFeed(SECOND)),
    // Answers that take almost too long, and too long.
    (Feed::Slow(Duration::from_millis(1_950)), Subscribing::Feed),
    (Feed::Slow(Duration::from_millis(2_050)), Subscribing::Feed),
    // Drivers that panic.
    (Feed::Panics, Subscribing::Feed),
    (Feed::Panics, Subscribing::Panics),
];

/// How many milliseconds after a heartbeat the fault comes.
const PHASES: &[u64] = &[0, 1, 400, 999];

/// And how many after the fault the revocation: before it, so that only the next question would have
/// told of it; while the source is asked; when the feed is given up; and while there is none.
const DELAYS: &[i64] = &[-950, -300, -1, 0, 1, 500, 1_999, 2_001, 3_500, 4_999, 8_000];

#[tokio::test(start_paused = true)]
async fn g2_a_key_that_is_revoked_elsewhere_is_refused_in_time_whatever_becomes_of_the_feed() {
    for &(feed, subscribing) in FAULTS {
        for &phase in PHASES {
            for &delay in DELAYS {
                let worked_for = worked_after_revocation(feed, subscribing, phase, delay).await;
                assert!(
                    worked_for < MAX_STALENESS,
                    "{feed:?}, {subscribing:?}, {phase} ms after a heartbeat, revoked {delay} ms \
                     after that: it worked for {worked_for:?}"
                );
            }
        }
    }
}

async fn worked_after_revocation(
    feed: Feed,
    subscribing: Subscribing,
    phase: u64,
    delay: i64,
) -> Duration {
    let node = Node::new().await;
    node.remote.set_feed(Feed::Silent);
    let token = node.cached_token().await;
    let first_heartbeat = Instant::now();
    let fault_at = first_heartbeat + 7 * HEARTBEAT + Duration::from_millis(phase);
    let by = Duration::from_millis(delay.unsigned_abs());
    let revoked_at = if delay < 0 {
        fault_at - by
    } else {
        fault_at + by
    };

    let fault = async {
        sleep_until(fault_at).await;
        node.remote.set_subscribing(subscribing);
        node.remote.set_feed(feed);
    };
    let revocation = async {
        sleep_until(revoked_at).await;
        node.remote.revoke_elsewhere(&token).await;
    };
    let requests = async {
        let mut worked_at = Instant::now();
        while Instant::now() < revoked_at + 2 * MAX_STALENESS {
            match node.verify(&token).await {
                "good" => worked_at = Instant::now(),
                other => assert_eq!(other, "revoked"),
            }
            // As often as it takes for the key to be read again at the most awkward moment.
            sleep(Duration::from_millis(97)).await;
        }
        worked_at
    };
    let ((), (), worked_at) = tokio::join!(fault, revocation, requests);
    assert!(
        worked_at + SECOND / 10 >= revoked_at,
        "a key that wasn't revoked yet was refused"
    );
    worked_at.saturating_duration_since(revoked_at)
}

/// An answer says what was true when the question arrived, and not when it comes back.
#[tokio::test(start_paused = true)]
async fn g2_a_proof_counts_from_when_it_was_asked_for() {
    let under_way = 2 * HEARTBEAT - MOMENT;
    let node = Node::new().await;
    node.remote.set_feed(Feed::Silent);
    let token = node.cached_token().await;
    sleep(10 * HEARTBEAT - MOMENT).await;
    node.remote.set_feed(Feed::Slow(under_way));
    let asked = node.remote.feed_reads();
    while node.remote.feed_reads() == asked {
        sleep(MOMENT).await;
    }
    let asked_at = Instant::now();
    node.remote.revoke_elsewhere(&token).await;
    sleep(under_way + MOMENT).await;
    node.remote.set_feed(Feed::Stalled);
    node.remote.set_subscribing(Subscribing::Hangs);

    sleep_until(asked_at + MAX_STALENESS - SECOND / 10).await;
    assert_eq!(node.cached(&token), Some("good"), "the proof counts");
    sleep_until(asked_at + MAX_STALENESS).await;
    assert_eq!(node.cached(&token), None);
    assert_eq!(node.verify(&token).await, "revoked");
}

/// Changes were lost with it, and its silence is no proof.
#[tokio::test(start_paused = true)]
async fn g2_a_feed_whose_answers_come_too_late_is_given_up() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    sleep(10 * SECOND).await;
    node.remote.set_subscribing(Subscribing::Hangs);
    node.remote.set_feed(Feed::Stalled);
    sleep(3 * HEARTBEAT + MOMENT).await;
    // The answer to the question of three seconds ago.
    node.remote.set_feed(Feed::Live);
    node.remote.revoke_elsewhere(&token).await;
    sleep(MAX_STALENESS - 3 * HEARTBEAT).await;
    assert_eq!(node.cached(&token), None);
    assert_eq!(node.verify(&token).await, "revoked");
}

/// The key can't be read either: then it is neither accepted nor called unknown.
#[tokio::test(start_paused = true)]
async fn g2_g3_where_nothing_of_the_source_answers_known_keys_end_with_the_lease() {
    for reading in [Reading::Fails, Reading::Hangs] {
        let node = Node::new().await;
        let token = node.cached_token().await;
        sleep(10 * SECOND).await;
        node.remote.set_feed(Feed::Stalled);
        node.remote.set_subscribing(Subscribing::Hangs);
        node.remote.set_reading(reading);
        let silent_since = Instant::now();
        while silent_since.elapsed() < MAX_STALENESS - HEARTBEAT - SECOND / 10 {
            assert_eq!(node.cached(&token), Some("good"));
            sleep(SECOND / 10).await;
        }
        sleep_until(silent_since + MAX_STALENESS).await;
        assert_eq!(node.cached(&token), None);
        assert_eq!(node.verify(&token).await, "unavailable");

        node.remote.set_feed(Feed::Live);
        node.remote.set_subscribing(Subscribing::Feed);
        node.remote.set_reading(Reading::Answers);
        assert_eq!(node.verify(&token).await, "good");
    }
}
