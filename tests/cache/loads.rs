//! How many reads are under way at once, how many keys each asks for, and who is turned away.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep},
};
use tower_api_key::{CacheConfig, LeakReport};

use crate::{
    LOAD_TIMEOUT, MOMENT, SECOND,
    node::{Node, outcome},
    support::feed::{Reading, Subscribing},
};

async fn node_with(cache: CacheConfig) -> Node {
    let node = Node::with(cache).await;
    node.remote.set_subscribing(Subscribing::Directly);
    node
}

/// Starts requests for all of them, a few at a time, and waits for the answers.
async fn verify_all(node: &Node, tokens: Vec<String>, at_once: usize) {
    let mut requests = JoinSet::new();
    for tokens in tokens.chunks(at_once) {
        for token in tokens.iter().cloned() {
            let store = node.store.clone();
            requests.spawn(async move { outcome(&store.verify(token).await) });
        }
        sleep(MOMENT).await;
    }
    let answers = requests.join_all().await;
    assert!(answers.into_iter().all(|answer| answer == "good"));
}

/// After a start, or when a lease was lost.
#[tokio::test(start_paused = true)]
async fn a_thousand_cold_keys_cost_tens_of_reads() {
    for at_once in [1, 10, 1_000] {
        let node = node_with(CacheConfig::new()).await;
        let tokens = node.tokens(1_000).await;
        node.remote.set_reading(Reading::Slow(20 * MOMENT));
        verify_all(&node, tokens, at_once).await;
        // One that comes alone is read alone: up to four reads are begun within 20 ms.
        let limit = if at_once == 1 { 500 } else { 100 };
        assert!(
            node.remote.reads() <= limit,
            "{} reads, {at_once}",
            node.remote.reads()
        );
        assert_eq!(node.remote.keys_read(), 1_000);
        let stats = node.store.cache_stats();
        assert_eq!(stats.reads, node.remote.reads() as u64);
        assert_eq!(
            (stats.loads, stats.misses, stats.entries),
            (1_000, 1_000, 1_000)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_reads_are_under_way_than_were_allowed() {
    for max_loads in [1, 3, 8] {
        let node = node_with(CacheConfig::new().max_loads(max_loads)).await;
        let tokens = node.tokens(1_000).await;
        node.remote.set_reading(Reading::Slow(20 * MOMENT));
        verify_all(&node, tokens, 10).await;
        assert_eq!(node.remote.most_reads_at_once(), max_loads);
    }
}

/// By its token, the key is read before it is revoked.
#[tokio::test(start_paused = true)]
async fn a_token_is_revoked_while_too_many_keys_wait_to_be_read() {
    let node = node_with(CacheConfig::new().max_loads(1).max_waiting_loads(3_000)).await;
    let tokens = node.tokens(3_002).await;
    node.remote.set_reading(Reading::Slow(20 * MOMENT));
    let mut waiting = JoinSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let (store, token) = (node.store.clone(), token.clone());
        waiting.spawn(async move { outcome(&store.verify(token).await) });
        // The first is read by itself.
        if index == 0 || index + 1 == tokens.len() {
            sleep(MOMENT).await;
        }
    }
    assert_eq!(node.store.cache_stats().failed_loads, 1);
    let asked_at = Instant::now();
    assert!(node.store.revoke_token(&tokens[3_001]).await.unwrap());
    // The read in progress, that of the key, and that of its record.
    assert!(asked_at.elapsed() <= 60 * MOMENT);
    let report = node.store.report_leaked([&tokens[3_000]]).await.unwrap();
    let [LeakReport::TruePositive { newly_revoked, .. }] = report[..] else {
        panic!("{report:?}");
    };
    assert!(newly_revoked);
}

#[tokio::test(start_paused = true)]
async fn g3_where_too_many_keys_wait_to_be_read_the_next_is_unavailable_at_once() {
    let node = node_with(CacheConfig::new().max_loads(2).max_waiting_loads(10)).await;
    let hot = node.cached_token().await;
    let read = node.remote.reads();
    let tokens = node.tokens(13).await;
    node.remote.set_reading(Reading::Hangs);
    let mut waiting = JoinSet::new();
    let request = |token: &String| {
        let (store, token) = (node.store.clone(), token.clone());
        async move { outcome(&store.verify(token).await) }
    };
    // Two are read, each by itself.
    for token in &tokens[..2] {
        waiting.spawn(request(token));
        for _ in 0..10 {
            yield_now().await;
        }
    }
    assert_eq!(node.remote.reads() - read, 2);
    // Ten wait. Who asks for one of those waits along, and takes no place.
    for token in tokens[2..12].iter().chain(&tokens[..12]) {
        waiting.spawn(request(token));
    }
    for _ in 0..10 {
        yield_now().await;
    }

    let asked_at = Instant::now();
    assert_eq!(node.verify(&tokens[12]).await, "unavailable");
    assert!(asked_at.elapsed().is_zero());
    assert_eq!(node.verify(&hot).await, "good");
    assert_eq!(node.store.cache_stats().failed_loads, 1);

    node.remote.set_reading(Reading::Answers);
    let answers = waiting.join_all().await;
    assert_eq!(answers.len(), 24);
    assert!(answers.into_iter().all(|answer| answer == "good"));
    assert_eq!(node.verify(&tokens[12]).await, "good");
    assert!(asked_at.elapsed().is_zero());
    // The ten were read together.
    assert_eq!(node.remote.reads() - read, 4);
}

/// Each waits for its own time and no longer, even behind reads that hang.
#[tokio::test(start_paused = true)]
async fn g3_nobody_waits_longer_than_the_limit_for_a_place_and_a_read() {
    let limit = 2 * SECOND;
    let cache = CacheConfig::new().max_loads(1).load_timeout(limit);
    let node = node_with(cache).await;
    let tokens = node.tokens(20).await;
    node.remote.set_reading(Reading::Hangs);
    let mut requests = JoinSet::new();
    for token in tokens {
        let store = node.store.clone();
        requests.spawn(async move {
            let asked_at = Instant::now();
            assert_eq!(outcome(&store.verify(token).await), "unavailable");
            asked_at.elapsed()
        });
        sleep(SECOND / 2).await;
    }
    for waited in requests.join_all().await {
        assert!(waited <= limit + MOMENT, "{waited:?}");
    }
    assert_eq!(node.remote.most_reads_at_once(), 1);
}

/// The load that it waited for may hang for as long again.
#[tokio::test(start_paused = true)]
async fn g3_who_comes_after_a_request_that_has_waited_too_long_does_not_wait_for_the_same_load() {
    let node = node_with(CacheConfig::new().max_loads(2)).await;
    let tokens = node.tokens(3).await;
    let reads = AtomicUsize::new(0);
    node.remote.read_as(move |_| {
        if reads.fetch_add(1, Ordering::SeqCst) < 3 {
            Reading::Hangs
        } else {
            Reading::Answers
        }
    });
    let began = Instant::now();
    // Both places are taken for three seconds, and then the read of the third key hangs.
    let first = async {
        sleep(MOMENT).await;
        tokio::join!(node.verify(&tokens[0]), async {
            sleep(MOMENT).await;
            node.verify(&tokens[1]).await
        })
    };
    let third = async {
        sleep(SECOND).await;
        assert_eq!(node.verify(&tokens[2]).await, "unavailable");
        assert_eq!(began.elapsed(), SECOND + LOAD_TIMEOUT);
        assert_eq!(node.remote.reads(), 3);
        assert_eq!(node.verify(&tokens[2]).await, "good");
        assert_eq!(began.elapsed(), SECOND + LOAD_TIMEOUT);
    };
    let (others, ()) = tokio::join!(first, third);
    assert_eq!(others, ("unavailable", "unavailable"));
}

#[tokio::test(start_paused = true)]
async fn keys_that_nobody_waits_for_any_more_are_not_read() {
    let node = node_with(CacheConfig::new().max_loads(1)).await;
    let tokens = node.tokens(301).await;
    node.remote.set_reading(Reading::Hangs);
    let mut requests = JoinSet::new();
    for token in tokens {
        let store = node.store.clone();
        requests.spawn(async move { outcome(&store.verify(token).await) });
        if requests.len() == 1 {
            sleep(MOMENT).await;
        }
    }
    requests.join_all().await;
    sleep(3 * LOAD_TIMEOUT).await;
    // The first one, and as many as are read at once: the others had gone when their turn came.
    assert_eq!(node.remote.keys_read(), 1 + 256);
    assert_eq!(node.store.cache_stats().failed_loads, 301);
}
