//! What can be set, what is refused when a store or a resolver is made, and what the counts say.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_api_key::{
    ApiKeyStore, CacheConfig, CacheStats, CachedResolver, ConfigError, MemoryBackend, Peppers,
};

use crate::{
    MAX_STALENESS, SECOND,
    node::{Node, outcome},
    support::{
        feed::{Reading, Subscribing},
        unknown_token, with_wrong_secret,
    },
};

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TOO_MANY: usize = 4_000_000_001;

fn refused() -> Vec<(&'static str, CacheConfig)> {
    let new = CacheConfig::new;
    vec![
        ("capacity", new().capacity(0)),
        ("capacity", new().capacity(TOO_MANY)),
        ("capacity", new().capacity(usize::MAX)),
        ("unknown_capacity", new().unknown_capacity(TOO_MANY)),
        ("unknown_capacity", new().unknown_capacity(usize::MAX)),
        ("max_loads", new().max_loads(0)),
        ("max_waiting_loads", new().max_waiting_loads(0)),
        ("max_staleness", new().max_staleness(Duration::ZERO)),
        ("max_staleness", new().max_staleness(49 * MILLISECOND)),
        ("max_staleness", new().max_staleness(DAY + MILLISECOND)),
        ("max_staleness", new().max_staleness(Duration::MAX)),
        ("time_to_live", new().time_to_live(Duration::ZERO)),
        ("time_to_live", new().time_to_live(49 * MILLISECOND)),
        ("time_to_live", new().time_to_live(DAY + MILLISECOND)),
        ("time_to_live", new().time_to_live(Duration::MAX)),
        (
            "unknown_time_to_live",
            new().unknown_time_to_live(Duration::ZERO),
        ),
        (
            "unknown_time_to_live",
            new().unknown_time_to_live(61 * SECOND),
        ),
        (
            "unknown_time_to_live",
            new().unknown_time_to_live(Duration::MAX),
        ),
        ("load_timeout", new().load_timeout(Duration::ZERO)),
        ("load_timeout", new().load_timeout(DAY + MILLISECOND)),
        ("load_timeout", new().load_timeout(Duration::MAX)),
        ("serve_stale", new().serve_stale(Duration::ZERO)),
        ("serve_stale", new().serve_stale(DAY + MILLISECOND)),
        ("serve_stale", new().serve_stale(Duration::MAX)),
    ]
}

#[tokio::test]
async fn g12_a_setting_that_cannot_work_is_refused_by_the_name_of_its_method() {
    for (name, cache) in refused() {
        let shown = format!("{cache:?}");
        let store = ApiKeyStore::builder(MemoryBackend::new())
            .peppers(Peppers::ephemeral())
            .cache(cache.clone());
        let resolver = CachedResolver::builder(MemoryBackend::new())
            .peppers(Peppers::ephemeral())
            .cache(cache);
        for error in [store.build().await.err(), resolver.build().await.err()] {
            let error = error.unwrap_or_else(|| panic!("taken: {shown}"));
            let ConfigError::Cache { setting, .. } = error else {
                panic!("{error:?} for {shown}")
            };
            let text = error.to_string();
            assert!(text.contains(&format!("CacheConfig::{setting}`")), "{text}");
            assert!(text.contains(&format!("{name}`")), "{text}, for {shown}");
        }
    }
}

/// With the least of everything and with the most of it, keys are verified.
#[tokio::test(start_paused = true)]
async fn settings_at_their_ends_work() {
    let least = CacheConfig::new()
        .capacity(1)
        .unknown_capacity(0)
        .max_loads(1)
        .max_waiting_loads(1)
        .max_staleness(50 * MILLISECOND)
        .time_to_live(50 * MILLISECOND)
        .unknown_time_to_live(Duration::from_nanos(1))
        .load_timeout(Duration::from_nanos(1))
        .serve_stale(Duration::from_nanos(1));
    let most = CacheConfig::new()
        .capacity(4_000_000_000)
        .unknown_capacity(4_000_000_000)
        .max_loads(usize::MAX)
        .max_waiting_loads(usize::MAX)
        .max_staleness(DAY)
        .time_to_live(DAY)
        .unknown_time_to_live(60 * SECOND)
        .load_timeout(DAY)
        .serve_stale(DAY);
    for cache in [least, most] {
        let node = Node::with(cache.clone()).await;
        let token = node.cached_token().await;
        assert_eq!(node.verify(&token).await, "good", "{cache:?}");
        assert_eq!(node.verify(&unknown_token()).await, "unknown", "{cache:?}");
        sleep(SECOND).await;
        assert_eq!(node.verify(&token).await, "good", "{cache:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_setting_does_what_it_says() {
    let cache = CacheConfig::new()
        .max_staleness(2 * SECOND)
        .unknown_time_to_live(3 * SECOND)
        .load_timeout(SECOND / 2);
    let node = Node::with(cache).await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let token = node.cached_token().await;
    assert_eq!(node.verify(&unknown_token()).await, "unknown");
    sleep(19 * SECOND / 10).await;
    assert_eq!(node.cached(&token), Some("good"));
    sleep(SECOND / 10).await;
    assert_eq!(node.cached(&token), None);
    sleep(9 * SECOND / 10).await;
    assert_eq!(node.cached(&unknown_token()), Some("unknown"));
    sleep(SECOND / 10).await;
    assert_eq!(node.cached(&unknown_token()), None);
    node.remote.set_reading(Reading::Hangs);
    let answer = timeout(SECOND / 2 + MILLISECOND, node.verify(&token));
    assert_eq!(answer.await.unwrap(), "unavailable");
}

#[tokio::test(start_paused = true)]
async fn the_counts_say_what_has_happened() {
    let node = Node::with(CacheConfig::new().capacity(2)).await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let stats = || node.store.cache_stats();
    assert_eq!(stats(), CacheStats::default());
    let tokens = node.tokens(3).await;
    assert_eq!(
        stats(),
        CacheStats::default(),
        "making keys isn't looking them up"
    );
    let mut now = CacheStats::default();

    // Four ask for a cold key at once: one reads it, three wait along.
    let mut requests = JoinSet::new();
    for _ in 0..4 {
        let (store, token) = (node.store.clone(), tokens[0].clone());
        requests.spawn(async move { outcome(&store.verify(token).await) });
    }
    assert_eq!(requests.join_all().await, ["good"; 4]);
    now.misses += 4;
    now.loads += 1;
    now.shared_loads += 3;
    now.reads += 1;
    now.entries += 1;
    assert_eq!(stats(), now);

    // What can be said from memory.
    assert_eq!(node.verify(&tokens[0]).await, "good");
    assert_eq!(
        node.verify(&with_wrong_secret(&tokens[0])).await,
        "wrong secret"
    );
    now.hits += 2;
    assert_eq!(stats(), now);

    // Nobody's id, twice.
    for _ in 0..2 {
        assert_eq!(node.verify(&unknown_token()).await, "unknown");
    }
    now.misses += 1;
    now.loads += 1;
    now.reads += 1;
    now.hits += 1;
    now.unknown_entries += 1;
    assert_eq!(stats(), now);

    // Two more keys, and room for one of them.
    for token in &tokens[1..] {
        assert_eq!(node.verify(token).await, "good");
    }
    now.misses += 2;
    now.loads += 2;
    now.reads += 2;
    now.entries += 1;
    now.evictions += 1;
    assert_eq!(stats(), now);

    // A key that changes while it is read is read again.
    let token = node.token().await;
    node.remote.set_reading(Reading::Slow(SECOND));
    let change = async {
        sleep(SECOND / 2).await;
        node.store.invalidate_all();
    };
    let (answer, ()) = tokio::join!(node.verify(&token), change);
    assert_eq!(answer, "good");
    now.misses += 1;
    now.loads += 2;
    now.reads += 2;
    now.stale_refused += 1;
    now.entries = 1;
    assert_eq!(stats(), now);

    // A source that fails, and a key that was known.
    node.remote.set_reading(Reading::Fails);
    assert_eq!(node.verify(&tokens[0]).await, "unavailable");
    sleep(MAX_STALENESS).await;
    assert_eq!(node.verify(&token).await, "unavailable");
    now.misses += 2;
    now.loads += 2;
    now.reads += 2;
    now.failed_loads += 2;
    assert_eq!(stats(), now);
}
