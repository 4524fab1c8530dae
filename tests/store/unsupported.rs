//! What a backend has no method for, the store can't do: now or later.

use std::{error::Error, time::Duration};

use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, GrantId, GrantPageRequest, HandoffToken, KeyFilter, KeyId,
    KeySource, LookupKey, MemoryBackend, PageRequest, Peppers, StoreError, Touch,
};

use super::{new_key, pepper, store_on, verified};
use crate::support::{USER, start};

/// Has what a backend must have.
#[derive(Clone, Default)]
struct Least(MemoryBackend);

impl KeySource for Least {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.0.get_many(keys).await
    }
}

impl ApiKeyBackend for Least {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
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

#[tokio::test]
async fn what_a_backend_can_not_do_is_no_outage() {
    let store = store_on(Least::default(), Peppers::new(pepper("v1"))).await;
    let (token, grant) = (HandoffToken::from_bytes([7; 16]), [7; GrantId::LEN]);
    let grant = GrantId::from_bytes(grant);
    let list = store.list(KeyFilter::new(), PageRequest::new());
    let handed_off = store.hand_off(new_key(), Duration::from_secs(60));
    for (error, what) in [
        (list.await.unwrap_err(), "list keys by a filter"),
        (store.purge(start()).await.unwrap_err(), "purge"),
        (
            store.pepper_usage().await.unwrap_err(),
            "count keys by pepper",
        ),
        (handed_off.await.map(drop).unwrap_err(), "hand off keys"),
        (
            store.claim(&token).await.map(drop).unwrap_err(),
            "hand off keys",
        ),
        (store.claimable(&token).await.unwrap_err(), "hand off keys"),
        (store.grant_of(&token).await.unwrap_err(), "hand off keys"),
        (store.grant(&grant).await.unwrap_err(), "hand off keys"),
        (
            store.revoke_grant(&grant).await.unwrap_err(),
            "hand off keys",
        ),
        (
            store.grants(GrantPageRequest::new()).await.unwrap_err(),
            "hand off keys",
        ),
    ] {
        assert!(matches!(error, StoreError::Unsupported(_)), "{error}");
        assert_eq!(error.source().unwrap().to_string(), what);
        assert_eq!(
            format!("{error:?}"),
            format!("the backend can't do that: {what}")
        );
    }
    // Everything else is as usual.
    let issued = store.create(new_key()).await.unwrap();
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 1);
    assert_eq!(verified(&store, issued.token().expose()).await, "revoked");
}
