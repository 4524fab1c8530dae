//! A source that speaks to the cache while the cache asks it.

use std::{sync::OnceLock, time::Duration};

use tokio::time::timeout;
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyToken, BackendError, Brand, CachedResolver, Change, ChangeSink,
    KeyResolver, KeySource, LookupKey, MemoryBackend, Pepper, Peppers, Scopes, Subscription,
};

use crate::support::{PEPPER, USER, outcome};

/// Tells of each key while it is asked for it, in the same call.
#[derive(Default)]
struct Chatty {
    records: MemoryBackend,
    sink: OnceLock<ChangeSink>,
}

impl KeySource for Chatty {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let sink = self.sink.get().unwrap();
        let found = self.records.get_many(keys).await?;
        for key in keys {
            sink.changed(Change::Key(*key));
        }
        sink.changed(Change::Everything);
        Ok(found)
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        sink.changed(Change::Everything);
        self.sink.get_or_init(|| sink);
        Ok(Subscription::direct())
    }
}

/// The cache holds no lock while it asks, so there is none to wait for.
#[tokio::test]
async fn a_source_may_tell_of_changes_while_it_is_asked() {
    let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    let hash = peppers.hash(&token).unwrap();
    let key = ApiKey::new(token.key_id().unwrap(), USER, Scopes::none(), hash);
    let source = Chatty::default();
    assert!(source.records.insert(&key).await.unwrap());

    let builder = CachedResolver::builder(source).peppers(peppers);
    let resolver = builder.build().await.unwrap();
    let answer = timeout(Duration::from_secs(60), resolver.resolve(&token));
    assert_eq!(outcome(&answer.await.unwrap()), "good");
    // What changes each time that it is read is read again, and believed in the end, for this once.
    assert_eq!(resolver.cache_stats().reads, 3);
    assert!(resolver.resolve_now(&token).is_none());
}
