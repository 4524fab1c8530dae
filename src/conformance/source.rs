//! Sources that something else writes.

use crate::{
    backend::{ApiKeyBackend, ChangeSink, KeySource, PageRequest, Subscription, Touch},
    error::BackendError,
    key::ApiKey,
    token::{KeyId, LookupKey},
};

/// What a check does to the table that a [`KeySource`] reads.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "one is made at a time")]
pub enum Edit {
    /// Stores the record, in place of the one with its id if there is one.
    Put(ApiKey),
    /// Removes the record.
    Remove(KeyId),
}

/// A source and what writes its table, as the backend that the checks of reading take.
pub(super) struct Edited<S, E> {
    pub(super) source: S,
    pub(super) edit: E,
}

impl<S: KeySource, E: Send + Sync + 'static> KeySource for Edited<S, E> {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.source.get_many(keys).await
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        self.source.subscribe(sink).await
    }
}

impl<S, E, F> ApiKeyBackend for Edited<S, E>
where
    S: KeySource,
    E: Fn(Edit) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BackendError>> + Send,
{
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        (self.edit)(Edit::Put(key.clone())).await.map(|()| true)
    }

    async fn update(&self, key: &ApiKey, _: u64) -> Result<bool, BackendError> {
        (self.edit)(Edit::Put(key.clone())).await.map(|()| true)
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        (self.edit)(Edit::Remove(*id)).await.map(|()| true)
    }

    async fn list_for_user(&self, _: &str, _: &PageRequest) -> Result<Vec<ApiKey>, BackendError> {
        Err(BackendError::unavailable("a source has no lists"))
    }

    async fn touch(&self, _: &[Touch]) -> Result<(), BackendError> {
        Err(BackendError::unavailable("a source notes no uses"))
    }
}
