//! A backend with no more than it must have.

use std::sync::Arc;

use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, KeySource, conformance::Checks, forward_to_backend,
};

use super::table::Table;

#[derive(Clone, Default)]
struct Least(Arc<Table>);

impl KeySource for Least {
    forward_to_backend!(self => self.0; all of source);
}

impl ApiKeyBackend for Least {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        // Without `get_by_id`, it couldn't be ended.
        if key.lookup_key() != key.id.lookup_key() {
            return Err(BackendError::unsupported("keep keys by a digest"));
        }
        self.0.insert(key).await
    }

    forward_to_backend!(self => self.0; update, delete, list_for_user, touch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_backend_does_not_have_is_no_broken_rule_where_that_is_said() {
    let backend = Least::default();
    let checks = || {
        Checks::of_backend(async || Ok(backend.clone()))
            .without_grants()
            .without_pepper_usage()
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
