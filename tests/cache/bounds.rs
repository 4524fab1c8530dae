//! What the cache holds at the most, and whose place is taken first.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyToken, Brand, CacheConfig, KeyId, KeyResolver, Pepper, Peppers,
    Scopes, TokenFormat,
};

use crate::{
    SECOND, TIME_TO_LIVE,
    node::{Node, outcome},
    support::{PEPPER, feed::Subscribing, id_of, with_wrong_secret},
};

async fn node_with(cache: CacheConfig) -> Node {
    let node = Node::with(cache).await;
    node.remote.set_subscribing(Subscribing::Directly);
    node
}

/// A token of nobody's, unlike all others.
fn made_up() -> String {
    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    token.expose().to_owned()
}

#[tokio::test(start_paused = true)]
async fn g8_made_up_ids_neither_evict_keys_in_use_nor_grow_the_cache() {
    let node = node_with(CacheConfig::new().capacity(100).unknown_capacity(50)).await;
    let tokens = node.tokens(100).await;
    for token in &tokens {
        assert_eq!(node.verify(token).await, "good");
    }
    for _ in 0..3_000 {
        assert_eq!(node.verify(&made_up()).await, "unknown");
        assert!(node.store.cache_stats().unknown_entries <= 50);
    }
    let stats = node.store.cache_stats();
    assert_eq!(
        (stats.entries, stats.unknown_entries, stats.evictions),
        (100, 50, 0)
    );
    for token in &tokens {
        assert_eq!(node.cached(token), Some("good"));
    }
}

#[tokio::test(start_paused = true)]
async fn g8_made_up_ids_that_are_asked_for_at_once_neither_evict_keys_nor_grow_the_cache() {
    let node = node_with(CacheConfig::new().capacity(100).unknown_capacity(50)).await;
    let token = node.cached_token().await;
    let mut strangers = JoinSet::new();
    for _ in 0..3_000 {
        let store = node.store.clone();
        strangers.spawn(async move { store.verify(made_up()).await.is_err() });
    }
    assert!(
        strangers
            .join_all()
            .await
            .into_iter()
            .all(|refused| refused)
    );
    let stats = node.store.cache_stats();
    assert_eq!(
        (stats.entries, stats.unknown_entries, stats.evictions),
        (1, 50, 0)
    );
    assert_eq!(node.cached(&token), Some("good"));
}

/// Those that are remembered are the last that came, for as long as was set on either clock.
#[tokio::test(start_paused = true)]
async fn ids_that_nobody_has_are_remembered_up_to_their_bound_and_for_a_moment() {
    let node = node_with(CacheConfig::new().unknown_capacity(3)).await;
    let ids: Vec<_> = (0..5).map(|_| made_up()).collect();
    for id in &ids {
        assert_eq!(node.verify(id).await, "unknown");
    }
    let remembered: Vec<_> = ids.iter().map(|id| node.cached(id)).collect();
    let [gone, still] = [None, Some("unknown")];
    assert_eq!(remembered, [gone, gone, still, still, still]);

    node.clock.set_backwards(100 * SECOND);
    sleep(SECOND).await;
    for id in &ids {
        assert_eq!(node.cached(id), None);
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_unknown_ids_may_be_remembered_each_is_read() {
    let node = node_with(CacheConfig::new().unknown_capacity(0)).await;
    let id = made_up();
    for times in 1..=5 {
        assert_eq!(node.verify(&id).await, "unknown");
        assert_eq!(node.remote.reads(), times);
        assert_eq!(node.store.cache_stats().unknown_entries, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_no_more_keys_are_remembered_than_there_is_room_for() {
    for capacity in [1, 2, 100] {
        let node = node_with(CacheConfig::new().capacity(capacity)).await;
        let tokens = node.tokens(500).await;
        for token in &tokens {
            assert_eq!(node.verify(token).await, "good");
            assert!(node.store.cache_stats().entries <= capacity as u64);
        }
        let stats = node.store.cache_stats();
        assert_eq!(stats.entries, capacity as u64);
        assert_eq!(stats.evictions, 500 - capacity as u64);
        let cached = tokens.iter().filter(|token| node.cached(token).is_some());
        assert_eq!(cached.count(), capacity);
    }
}

/// Many have to make room at once, some of them for one another.
#[tokio::test(start_paused = true)]
async fn g8_no_more_keys_are_remembered_than_there_is_room_for_when_all_are_read_at_once() {
    let node = node_with(CacheConfig::new().capacity(100)).await;
    let tokens = node.tokens(1_000).await;
    for _ in 0..3 {
        let mut requests = JoinSet::new();
        for token in tokens.clone() {
            let store = node.store.clone();
            requests.spawn(async move { store.verify(token).await.is_ok() });
        }
        assert!(requests.join_all().await.into_iter().all(|good| good));
        assert_eq!(node.store.cache_stats().entries, 100);
        let cached = tokens.iter().filter(|token| node.cached(token).is_some());
        assert_eq!(cached.count(), 100);
    }
}

/// A crawl through every key that there is must not cost those who come all the time.
#[tokio::test(start_paused = true)]
async fn g8_keys_in_use_survive_keys_that_are_used_once() {
    let node = node_with(CacheConfig::new().capacity(100)).await;
    let in_use = node.tokens(80).await;
    for token in &in_use {
        assert_eq!(node.verify(token).await, "good");
    }
    let mut hits = 0;
    for _ in 0..100 {
        for token in &in_use {
            hits += usize::from(node.cached(token) == Some("good"));
            assert_eq!(node.verify(token).await, "good");
        }
        for token in &node.tokens(10).await {
            assert_eq!(node.verify(token).await, "good");
        }
    }
    assert_eq!(hits, 100 * 80);
    assert_eq!(node.store.cache_stats().evictions, 100 * 10 - 20);
}

#[tokio::test(start_paused = true)]
async fn g8_places_of_keys_that_were_changed_or_read_again_are_used_again() {
    let node = node_with(CacheConfig::new().capacity(10)).await;
    for _ in 0..100 {
        let token = node.cached_token().await;
        assert!(node.store.revoke(&id_of(&token)).await.unwrap());
    }
    assert_eq!(node.store.cache_stats().entries, 0);

    let tokens = node.tokens(10).await;
    for _ in 0..10 {
        for token in &tokens {
            assert_eq!(node.verify(token).await, "good");
        }
        assert_eq!(node.store.cache_stats().entries, 10);
        sleep(TIME_TO_LIVE).await;
    }
    node.store.invalidate_all();
    assert_eq!(node.store.cache_stats().entries, 0);
    for token in &tokens {
        assert_eq!(node.verify(token).await, "good");
    }
    let stats = node.store.cache_stats();
    assert_eq!((stats.entries, stats.evictions), (10, 0));
}

/// Strangers know ids, which are public: what they do with one costs its owner nothing.
#[tokio::test(start_paused = true)]
async fn g8_wrong_secrets_cost_no_reads_and_lock_nobody_out() {
    let node = node_with(CacheConfig::new()).await;
    let token = node.cached_token().await;
    let read = node.remote.reads();
    for _ in 0..1_000 {
        assert_eq!(
            node.verify(&with_wrong_secret(&token)).await,
            "wrong secret"
        );
    }
    assert_eq!(node.verify(&token).await, "good");
    assert_eq!(node.remote.reads(), read);
}

#[tokio::test(start_paused = true)]
async fn ids_that_have_most_of_their_bytes_in_common_are_different_keys() {
    let node = node_with(CacheConfig::new()).await;
    let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    // Each differs from the first in one byte: the one after so many that they share.
    let mut tokens = vec![token_of([7; KeyId::LEN], 'x')];
    for (shared, secret) in [0, 7, 8, 15, 16, 20, 22, 23].into_iter().zip('a'..) {
        let mut bytes = [7; KeyId::LEN];
        bytes[shared] = 8;
        tokens.push(token_of(bytes, secret));
    }
    for token in &tokens {
        let id = id_of(token);
        let hash = peppers.hash(&token.parse().unwrap()).unwrap();
        let key = ApiKey::new(id, id.to_string(), Scopes::none(), hash);
        assert!(node.remote.insert(&key).await.unwrap());
    }

    // Read once, and then from the cache.
    for _ in 0..2 {
        for token in &tokens {
            let caller = node.store.verify(token).await.unwrap();
            assert_eq!(caller.user_id(), id_of(token).to_string());
        }
    }
    for (token, other) in tokens.iter().zip(&tokens[1..]) {
        let (_, secret) = other.rsplit_once('.').unwrap();
        let mixed = format!("pk.{}.{secret}", id_of(token));
        assert_eq!(node.cached(&mixed), Some("wrong secret"));
    }
    assert!(node.store.revoke(&id_of(&tokens[0])).await.unwrap());
    assert_eq!(node.verify(&tokens[0]).await, "revoked");
    for token in &tokens[1..] {
        assert_eq!(node.cached(token), Some("good"));
    }
}

fn token_of(id: [u8; KeyId::LEN], secret: char) -> String {
    let secret = secret.to_string().repeat(43);
    format!("pk.{}.{secret}", KeyId::from_bytes(id))
}

/// Shards lock each other out only where one lock is held while another is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_that_come_go_and_make_room_at_the_same_time_do_not_lock_each_other_out() {
    let node = node_with(CacheConfig::new().capacity(5).unknown_capacity(5)).await;
    let tokens = node.tokens(20).await;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (store, tokens) = (node.store.clone(), tokens.clone());
        tasks.spawn(async move {
            for round in 0..300 {
                let token = &tokens[(round * (task + 1)) % tokens.len()];
                assert!(store.verify(token).await.is_ok());
                assert!(store.verify(made_up()).await.is_err());
                match round % 50 {
                    0 => store.invalidate_all(),
                    // Nobody has it, so nothing but the cache changes.
                    25 => assert!(!store.delete(&id_of(&made_up())).await.unwrap()),
                    _ => {}
                }
            }
        });
    }
    let all = timeout(Duration::from_secs(60), tasks.join_all());
    all.await.unwrap();
    let stats = node.store.cache_stats();
    assert!(stats.entries <= 5, "{stats:?}");
    assert!(stats.unknown_entries <= 5, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn g8_a_wrong_secret_spares_no_key_from_eviction() {
    let node = Node::with(CacheConfig::new().capacity(2)).await;
    let attacked = node.cached_token().await;
    let idle = node.cached_token().await;
    for _ in 0..10 {
        let wrong = with_wrong_secret(&attacked);
        assert_eq!(node.cached(&wrong), Some("wrong secret"));
    }
    drop(node.cached_token().await);
    assert_eq!(node.cached(&attacked), None, "spared by a wrong secret");
    assert_eq!(node.cached(&idle), Some("good"));

    // A use with the right secret spares it.
    assert_eq!(node.verify(&idle).await, "good");
    drop(node.cached_token().await);
    assert_eq!(node.cached(&idle), Some("good"));
}

/// A resolver is asked about tokens that another format has parsed, where it is given them by hand.
#[tokio::test(start_paused = true)]
async fn a_cached_key_answers_no_token_with_another_prefix() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let foreign = token.replacen("pk.", "other.", 1);
    let format = TokenFormat::new(Brand::new("other").unwrap());
    let foreign = format.parse(foreign).unwrap();
    assert!(node.store.resolve_now(&foreign).is_none());
    let outcome = outcome(&node.store.resolve(&foreign).await);
    assert_eq!(outcome, "unknown");
    assert_eq!(node.cached(&token), Some("good"));
}
