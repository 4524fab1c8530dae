//! A shared source or backend is one, too.

use std::{sync::Arc, time::SystemTime};

use super::{
    ApiKeyBackend, ChangeSink, GrantInsertion, GrantLimits, GrantPageRequest, KeyFilter, KeyOfUser,
    KeySource, PageRequest, PepperUsage, Subscription, Touch,
};
use crate::{
    error::BackendError,
    key::{ApiKey, ClaimHash, GrantId, KeyGrant, RevocationReason},
    token::{KeyId, LookupKey},
};

impl<S: KeySource> KeySource for Arc<S> {
    fn get_many(
        &self,
        keys: &[LookupKey],
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        S::get_many(self, keys)
    }

    fn subscribe(
        &self,
        sink: ChangeSink,
    ) -> impl Future<Output = Result<Subscription, BackendError>> + Send {
        S::subscribe(self, sink)
    }
}

impl<B: ApiKeyBackend> ApiKeyBackend for Arc<B> {
    fn insert(&self, key: &ApiKey) -> impl Future<Output = Result<bool, BackendError>> + Send {
        B::insert(self, key)
    }

    fn insert_made_by(
        &self,
        key: &ApiKey,
        maker: (KeyId, u64),
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        B::insert_made_by(self, key, maker)
    }

    fn update(
        &self,
        key: &ApiKey,
        expected: u64,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        B::update(self, key, expected)
    }

    fn delete(&self, id: &KeyId) -> impl Future<Output = Result<bool, BackendError>> + Send {
        B::delete(self, id)
    }

    fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        B::list_for_user(self, user_id, page)
    }

    fn touch(&self, touches: &[Touch]) -> impl Future<Output = Result<(), BackendError>> + Send {
        B::touch(self, touches)
    }

    fn get_by_id(
        &self,
        ids: &[KeyId],
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        B::get_by_id(self, ids)
    }

    fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: u64,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        B::rotate(self, successor, old, expected)
    }

    fn revoke_all_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> impl Future<Output = Result<Vec<KeyOfUser>, BackendError>> + Send {
        B::revoke_all_for_user(self, user_id, at, reason)
    }

    fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        B::list(self, filter, page)
    }

    fn purge(
        &self,
        before: SystemTime,
        at_most: usize,
    ) -> impl Future<Output = Result<usize, BackendError>> + Send {
        B::purge(self, before, at_most)
    }

    fn pepper_usage(
        &self,
        now: SystemTime,
    ) -> impl Future<Output = Result<Vec<PepperUsage>, BackendError>> + Send {
        B::pepper_usage(self, now)
    }

    fn insert_grant(
        &self,
        grant: &KeyGrant,
        limits: &GrantLimits,
    ) -> impl Future<Output = Result<GrantInsertion, BackendError>> + Send {
        B::insert_grant(self, grant, limits)
    }

    fn get_grant(
        &self,
        hash: &ClaimHash,
    ) -> impl Future<Output = Result<Option<KeyGrant>, BackendError>> + Send {
        B::get_grant(self, hash)
    }

    fn get_grant_by_id(
        &self,
        id: &GrantId,
    ) -> impl Future<Output = Result<Option<KeyGrant>, BackendError>> + Send {
        B::get_grant_by_id(self, id)
    }

    fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        B::claim(self, grant, key, maker)
    }

    fn revoke_grant(
        &self,
        grant: &GrantId,
        at: SystemTime,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        B::revoke_grant(self, grant, at)
    }

    fn revoke_grants_of_user(
        &self,
        user_id: &str,
        at: SystemTime,
    ) -> impl Future<Output = Result<usize, BackendError>> + Send {
        B::revoke_grants_of_user(self, user_id, at)
    }

    fn list_grants(
        &self,
        page: &GrantPageRequest,
    ) -> impl Future<Output = Result<Vec<KeyGrant>, BackendError>> + Send {
        B::list_grants(self, page)
    }
}
