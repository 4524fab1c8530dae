//! A backend with no more than it must have.

use std::sync::Arc;

use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, ChangeSink, KeyId, KeySource, LookupKey, PageRequest,
    Subscription, Touch, conformance::Checks,
};

use super::table::Table;

#[derive(Clone, Default)]
struct Least(Arc<Table>);

impl KeySource for Least {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.0.get_many(keys).await
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        self.0.subscribe(sink).await
    }
}

impl ApiKeyBackend for Least {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        if key.lookup_key() != key.id.lookup_key() {
            return Err(BackendError::unsupported("keep keys by a digest"));
        }
        self.0.insert(key).await
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        self.0.update(key, expected).await
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        self.0.delete(id).await
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        self.0.list_for_user(user_id, page).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        self.0.touch(touches).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_backend_does_not_have_is_no_broken_rule_where_that_is_said() {
    let backend = Least::default();
    let checks = || {
        let checks = Checks::of_backend(async || Ok(backend.clone()));
        checks.without_grants().without_pepper_usage()
    };
    let without = checks().without_list().without_purge();
    without.run().await.unwrap();
    let violations = checks().run().await.unwrap_err();
    let broken: Vec<_> = violations.rules().collect();
    assert_eq!(
        broken,
        [
            "lists have what fits a filter",
            "a purge removes what ended before and nothing else",
            "a key that is renewed isn't purged",
        ]
    );
}
