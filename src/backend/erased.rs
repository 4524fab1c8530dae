//! The traits as objects, so that a store isn't generic over where its keys are.

use std::pin::Pin;

use super::{ApiKeyBackend, ChangeSink, KeySource, PageRequest, Subscription, Touch};
use crate::{
    error::BackendError,
    key::ApiKey,
    token::{KeyId, LookupKey},
};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// [`KeySource`] with boxed futures.
pub(crate) trait DynSource: Send + Sync {
    fn get_many<'a>(&'a self, keys: &'a [LookupKey]) -> Answer<'a, Vec<ApiKey>>;
    fn subscribe(&self, sink: ChangeSink) -> Answer<'_, Subscription>;
}

/// [`ApiKeyBackend`] with boxed futures.
pub(crate) trait DynBackend: DynSource {
    fn insert<'a>(&'a self, key: &'a ApiKey) -> Answer<'a, bool>;
    fn update<'a>(&'a self, key: &'a ApiKey, expected: u64) -> Answer<'a, bool>;
    fn delete<'a>(&'a self, id: &'a KeyId) -> Answer<'a, bool>;
    fn list_for_user<'a>(
        &'a self,
        user_id: &'a str,
        page: &'a PageRequest,
    ) -> Answer<'a, Vec<ApiKey>>;
    fn touch<'a>(&'a self, touches: &'a [Touch]) -> Answer<'a, ()>;
}

impl<S: KeySource> DynSource for S {
    fn get_many<'a>(&'a self, keys: &'a [LookupKey]) -> Answer<'a, Vec<ApiKey>> {
        Box::pin(KeySource::get_many(self, keys))
    }

    fn subscribe(&self, sink: ChangeSink) -> Answer<'_, Subscription> {
        Box::pin(KeySource::subscribe(self, sink))
    }
}

impl<B: ApiKeyBackend> DynBackend for B {
    fn insert<'a>(&'a self, key: &'a ApiKey) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::insert(self, key))
    }

    fn update<'a>(&'a self, key: &'a ApiKey, expected: u64) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::update(self, key, expected))
    }

    fn delete<'a>(&'a self, id: &'a KeyId) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::delete(self, id))
    }

    fn list_for_user<'a>(
        &'a self,
        user_id: &'a str,
        page: &'a PageRequest,
    ) -> Answer<'a, Vec<ApiKey>> {
        Box::pin(ApiKeyBackend::list_for_user(self, user_id, page))
    }

    fn touch<'a>(&'a self, touches: &'a [Touch]) -> Answer<'a, ()> {
        Box::pin(ApiKeyBackend::touch(self, touches))
    }
}
