//! What a request costs while hashes come under the current pepper. No answer shows it, so it is counted.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use std::sync::Arc;

use super::MAX_KNOWN;
use crate::{
    backend::{ApiKeyBackend, MemoryBackend},
    cache::Freshness,
    key::ApiKey,
    resolver::{CachedResolver, CachedResolverBuilder, KeyResolver},
    scope::Scopes,
    token::{ApiKeyToken, Brand, HMACS, Pepper, Peppers},
};

fn pepper(id: &str) -> Pepper {
    Pepper::new(id, format!("the pepper of these tests, {id}")).unwrap()
}

struct Node {
    resolver: CachedResolver,
    backend: MemoryBackend,
}

impl Node {
    /// Its current pepper is `new`, and `old` is a retired one.
    async fn new() -> Self {
        let backend = MemoryBackend::new();
        let peppers = Peppers::new(pepper("new")).with_retired(pepper("old"));
        let builder = CachedResolverBuilder::noting_use(Arc::new(backend.clone()));
        let builder = builder.peppers(peppers.unwrap()).rewrapping();
        Self {
            resolver: builder.build().await.unwrap(),
            backend,
        }
    }

    /// A key of which nothing is cached.
    async fn key_under(&self, id: &str) -> ApiKeyToken {
        let token = ApiKeyToken::generate(&Brand::default()).unwrap();
        let hash = Peppers::new(pepper(id)).hash(&token).unwrap();
        let key = ApiKey::new(token.new_id(), "user_1", Scopes::none(), hash);
        assert!(self.backend.insert(&key).await.unwrap());
        token
    }

    /// One that is, and hasn't been used.
    async fn cached_under(&self, id: &str) -> ApiKeyToken {
        let token = self.key_under(id).await;
        let checked = self.resolver.check(&token, Freshness::Cached).await;
        assert!(checked.is_ok());
        token
    }

    /// How many HMACs a request computes that is answered from memory, and whether it is let in. Nothing else
    /// goes on meanwhile: what is queued stays there.
    fn hit(&self, token: &ApiKeyToken) -> (u64, bool) {
        let before = HMACS.get();
        let answer = self.resolver.resolve_now(token).expect("it is cached");
        (HMACS.get() - before, answer.is_ok())
    }

    /// The same where the key has to be read.
    async fn miss(&self, token: &ApiKeyToken) -> (u64, bool) {
        assert!(self.resolver.resolve_now(token).is_none(), "it is cached");
        let before = HMACS.get();
        let answer = self.resolver.resolve(token).await;
        (HMACS.get() - before, answer.is_ok())
    }
}

/// `token` with another secret.
fn wrong(token: &ApiKeyToken) -> ApiKeyToken {
    let (rest, last) = token.expose().split_at(token.expose().len() - 1);
    let last = if last == "A" { "B" } else { "A" };
    format!("{rest}{last}").parse().unwrap()
}

#[tokio::test]
async fn no_verification_costs_more_than_one_hmac_more_than_the_ordinary() {
    let node = Node::new().await;
    let ordinary = node.cached_under("new").await;
    let retired = node.cached_under("old").await;
    assert_eq!(node.hit(&ordinary), (1, true));
    // Only who has the secret can have the hash made anew.
    assert_eq!(node.hit(&wrong(&retired)), (1, false));
    assert_eq!(node.hit(&retired), (2, true));
    for _ in 0..10 {
        assert_eq!(node.hit(&retired), (1, true), "it is queued");
        assert_eq!(node.hit(&wrong(&retired)), (1, false));
        assert_eq!(node.hit(&ordinary), (1, true));
    }

    let (ordinary, retired) = (node.key_under("new").await, node.key_under("old").await);
    assert_eq!(node.miss(&ordinary).await, (1, true));
    assert_eq!(node.miss(&retired).await, (2, true));
    let unknown = ApiKeyToken::generate(&Brand::default()).unwrap();
    assert_eq!(node.miss(&unknown).await, (1, false));
    assert_eq!(node.hit(&unknown), (1, false));
}

#[tokio::test]
async fn a_key_that_finds_no_place_in_the_queue_costs_no_hmac_more() {
    let node = Node::new().await;
    let ordinary = node.cached_under("new").await;
    let mut retired = Vec::new();
    for _ in 0..MAX_KNOWN + 3 {
        retired.push(node.cached_under("old").await);
    }
    let (waiting, late) = retired.split_at(MAX_KNOWN);
    for token in waiting {
        assert_eq!(node.hit(token), (2, true));
    }
    assert_eq!(MAX_KNOWN, 1_000);
    for _ in 0..3 {
        for token in waiting.iter().chain(late).chain([&ordinary]) {
            assert_eq!(node.hit(token), (1, true));
        }
    }
}
