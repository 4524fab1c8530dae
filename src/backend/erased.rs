//! The traits as objects, so that a store isn't generic over where its keys are.

use std::{pin::Pin, time::SystemTime};

use super::{
    ApiKeyBackend, ChangeSink, GrantInsertion, GrantLimits, GrantPageRequest, KeyFilter, KeySource,
    PageRequest, PepperUsage, RevokedKey, Subscription, Touch,
};
use crate::{
    error::BackendError,
    key::{ApiKey, ClaimHash, GrantId, KeyGrant, RevocationReason},
    token::{KeyId, LookupKey, PepperCheck},
};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// [`KeySource`] with boxed futures.
pub(crate) trait DynSource: Send + Sync {
    fn get_many<'a>(&'a self, keys: &'a [LookupKey]) -> Answer<'a, Vec<ApiKey>>;
    fn subscribe(&self, sink: ChangeSink) -> Answer<'_, Subscription>;
}

/// [`ApiKeyBackend`] with boxed futures.
pub(crate) trait DynBackend: DynSource {
    fn warnings(&self) -> Answer<'_, Vec<String>>;
    fn insert<'a>(&'a self, key: &'a ApiKey) -> Answer<'a, bool>;
    fn insert_made_by<'a>(&'a self, key: &'a ApiKey, maker: (KeyId, u64)) -> Answer<'a, bool>;
    fn update<'a>(&'a self, key: &'a ApiKey, expected: u64) -> Answer<'a, bool>;
    fn delete<'a>(&'a self, id: &'a KeyId) -> Answer<'a, bool>;
    fn list_for_user<'a>(
        &'a self,
        user_id: &'a str,
        page: &'a PageRequest,
    ) -> Answer<'a, Vec<ApiKey>>;
    fn touch<'a>(&'a self, touches: &'a [Touch]) -> Answer<'a, ()>;
    fn get_by_id<'a>(&'a self, ids: &'a [KeyId]) -> Answer<'a, Vec<ApiKey>>;
    fn rotate<'a>(
        &'a self,
        successor: &'a ApiKey,
        old: &'a ApiKey,
        expected: u64,
    ) -> Answer<'a, bool>;
    fn revoke<'a>(
        &'a self,
        id: &'a KeyId,
        at: SystemTime,
        reason: Option<&'a RevocationReason>,
    ) -> Answer<'a, bool>;
    fn revoke_for_user<'a>(
        &'a self,
        user_id: &'a str,
        at: SystemTime,
        reason: Option<&'a RevocationReason>,
        at_most: usize,
    ) -> Answer<'a, Vec<RevokedKey>>;
    fn list<'a>(&'a self, filter: &'a KeyFilter, page: &'a PageRequest) -> Answer<'a, Vec<ApiKey>>;
    fn purge(&self, before: SystemTime, at_most: usize) -> Answer<'_, usize>;
    fn pepper_usage(&self, now: SystemTime) -> Answer<'_, Vec<PepperUsage>>;
    fn pepper_checks(&self) -> Answer<'_, Vec<PepperCheck>>;
    fn insert_pepper_check<'a>(&'a self, check: &'a PepperCheck) -> Answer<'a, bool>;
    fn insert_grant<'a>(
        &'a self,
        grant: &'a KeyGrant,
        limits: &'a GrantLimits,
    ) -> Answer<'a, GrantInsertion>;
    fn get_grant<'a>(&'a self, hash: &'a ClaimHash) -> Answer<'a, Option<KeyGrant>>;
    fn get_grant_by_id<'a>(&'a self, id: &'a GrantId) -> Answer<'a, Option<KeyGrant>>;
    fn claim<'a>(
        &'a self,
        grant: &'a GrantId,
        key: &'a ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Answer<'a, bool>;
    fn revoke_grant<'a>(&'a self, grant: &'a GrantId, at: SystemTime) -> Answer<'a, bool>;
    fn revoke_grants_of_user<'a>(&'a self, user_id: &'a str, at: SystemTime) -> Answer<'a, usize>;
    fn list_grants<'a>(&'a self, page: &'a GrantPageRequest) -> Answer<'a, Vec<KeyGrant>>;
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
    fn warnings(&self) -> Answer<'_, Vec<String>> {
        Box::pin(ApiKeyBackend::warnings(self))
    }

    fn insert<'a>(&'a self, key: &'a ApiKey) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::insert(self, key))
    }

    fn insert_made_by<'a>(&'a self, key: &'a ApiKey, maker: (KeyId, u64)) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::insert_made_by(self, key, maker))
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

    fn get_by_id<'a>(&'a self, ids: &'a [KeyId]) -> Answer<'a, Vec<ApiKey>> {
        Box::pin(ApiKeyBackend::get_by_id(self, ids))
    }

    fn rotate<'a>(
        &'a self,
        successor: &'a ApiKey,
        old: &'a ApiKey,
        expected: u64,
    ) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::rotate(self, successor, old, expected))
    }

    fn revoke<'a>(
        &'a self,
        id: &'a KeyId,
        at: SystemTime,
        reason: Option<&'a RevocationReason>,
    ) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::revoke(self, id, at, reason))
    }

    fn revoke_for_user<'a>(
        &'a self,
        user_id: &'a str,
        at: SystemTime,
        reason: Option<&'a RevocationReason>,
        at_most: usize,
    ) -> Answer<'a, Vec<RevokedKey>> {
        Box::pin(ApiKeyBackend::revoke_for_user(
            self, user_id, at, reason, at_most,
        ))
    }

    fn list<'a>(&'a self, filter: &'a KeyFilter, page: &'a PageRequest) -> Answer<'a, Vec<ApiKey>> {
        Box::pin(ApiKeyBackend::list(self, filter, page))
    }

    fn purge(&self, before: SystemTime, at_most: usize) -> Answer<'_, usize> {
        Box::pin(ApiKeyBackend::purge(self, before, at_most))
    }

    fn pepper_usage(&self, now: SystemTime) -> Answer<'_, Vec<PepperUsage>> {
        Box::pin(ApiKeyBackend::pepper_usage(self, now))
    }

    fn pepper_checks(&self) -> Answer<'_, Vec<PepperCheck>> {
        Box::pin(ApiKeyBackend::pepper_checks(self))
    }

    fn insert_pepper_check<'a>(&'a self, check: &'a PepperCheck) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::insert_pepper_check(self, check))
    }

    fn insert_grant<'a>(
        &'a self,
        grant: &'a KeyGrant,
        limits: &'a GrantLimits,
    ) -> Answer<'a, GrantInsertion> {
        Box::pin(ApiKeyBackend::insert_grant(self, grant, limits))
    }

    fn get_grant<'a>(&'a self, hash: &'a ClaimHash) -> Answer<'a, Option<KeyGrant>> {
        Box::pin(ApiKeyBackend::get_grant(self, hash))
    }

    fn get_grant_by_id<'a>(&'a self, id: &'a GrantId) -> Answer<'a, Option<KeyGrant>> {
        Box::pin(ApiKeyBackend::get_grant_by_id(self, id))
    }

    fn claim<'a>(
        &'a self,
        grant: &'a GrantId,
        key: &'a ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::claim(self, grant, key, maker))
    }

    fn revoke_grant<'a>(&'a self, grant: &'a GrantId, at: SystemTime) -> Answer<'a, bool> {
        Box::pin(ApiKeyBackend::revoke_grant(self, grant, at))
    }

    fn revoke_grants_of_user<'a>(&'a self, user_id: &'a str, at: SystemTime) -> Answer<'a, usize> {
        Box::pin(ApiKeyBackend::revoke_grants_of_user(self, user_id, at))
    }

    fn list_grants<'a>(&'a self, page: &'a GrantPageRequest) -> Answer<'a, Vec<KeyGrant>> {
        Box::pin(ApiKeyBackend::list_grants(self, page))
    }
}

impl dyn DynBackend {
    /// The record with this id; two of them are an error, since one may be revoked.
    pub(crate) async fn get(&self, id: &KeyId) -> Result<Option<ApiKey>, BackendError> {
        let mut found = self.get_by_id(std::slice::from_ref(id)).await?;
        found.retain(|key| key.id == *id);
        match (found.pop(), found.pop()) {
            (_, Some(_)) => Err(BackendError::corrupt("two records of one key")),
            (record, None) => Ok(record),
        }
    }
}
