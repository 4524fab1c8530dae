//! Lists of what was handed off.

use std::time::SystemTime;

use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, ClaimHash, GrantId, GrantPageRequest, KeyGrant, KeyId,
    KeySource, LookupKey, NewApiKey, PageRequest, Peppers, Scopes, StoreError, Touch,
};

use super::{MINUTE, handed_off};
use crate::{
    SECOND, pepper, store_on,
    support::{Fixture, USER, start},
};

#[tokio::test]
async fn grants_are_listed_a_page_at_a_time_and_taken_back_once() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut made = Vec::new();
    for number in 0..7 {
        let user = if number % 3 == 2 { "user_2" } else { USER };
        let new = NewApiKey::for_user(user, Scopes::none()).name(format!("{number}"));
        made.push(handed_off(store, new).await.into_parts().1);
        fixture.clock.advance(SECOND);
    }
    let walk = async |request: GrantPageRequest| {
        let (mut seen, mut request) = (Vec::new(), request.limit(2));
        loop {
            let page = store.grants(request.clone()).await.unwrap();
            assert!(page.grants.len() <= 2);
            seen.extend(page.grants.iter().map(|grant| grant.id));
            match page.next {
                // As it comes back from a query string.
                Some(next) => request = request.after(next.to_string().parse().unwrap()),
                None => return seen,
            }
        }
    };
    let ids = |user: Option<&str>| {
        let of_user = made.iter().rev();
        let of_user = of_user.filter(|grant| user.is_none_or(|user| grant.user_id == user));
        of_user.map(|grant| grant.id).collect::<Vec<_>>()
    };
    assert_eq!(walk(GrantPageRequest::new()).await, ids(None));
    let of_user = GrantPageRequest::new().user(USER);
    assert_eq!(walk(of_user).await, ids(Some(USER)));
    assert!(
        walk(GrantPageRequest::new().user("nobody"))
            .await
            .is_empty()
    );

    let now = start() + 7 * SECOND;
    assert!(store.revoke_grant(&made[0].id).await.unwrap());
    assert!(!store.revoke_grant(&made[0].id).await.unwrap());
    let revoked = store.grant(&made[0].id).await.unwrap().unwrap();
    assert_eq!(revoked.revoked_at, Some(now));
    let unknown = GrantId::from_bytes([7; 16]);
    assert!(!store.revoke_grant(&unknown).await.unwrap());
}

/// Answers every list with what it has.
#[derive(Clone)]
struct Careless(Vec<KeyGrant>);

impl KeySource for Careless {
    async fn get_many(&self, _: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        Ok(Vec::new())
    }
}

impl ApiKeyBackend for Careless {
    async fn insert(&self, _: &ApiKey) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn update(&self, _: &ApiKey, _: u64) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn delete(&self, _: &KeyId) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn list_for_user(&self, _: &str, _: &PageRequest) -> Result<Vec<ApiKey>, BackendError> {
        Ok(Vec::new())
    }

    async fn touch(&self, _: &[Touch]) -> Result<(), BackendError> {
        Ok(())
    }

    async fn list_grants(&self, page: &GrantPageRequest) -> Result<Vec<KeyGrant>, BackendError> {
        assert_eq!(page.max_grants(), 51);
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn a_list_of_grants_that_does_not_fit_or_is_out_of_order_is_refused() {
    let grant = |number: u8, made_at: SystemTime| {
        let (id, hash) = ([number; GrantId::LEN], [number; ClaimHash::LEN]);
        let (id, hash) = (GrantId::from_bytes(id), ClaimHash::from_bytes(hash));
        let mut grant = KeyGrant::new(id, hash, USER, Scopes::none());
        (grant.made_at, grant.expires_at) = (made_at, made_at + MINUTE);
        grant
    };
    let (newer, older) = (grant(1, start() + SECOND), grant(2, start()));
    let with = |change: fn(&mut KeyGrant)| {
        let mut other = older.clone();
        change(&mut other);
        vec![newer.clone(), other]
    };
    let claimed = with(|grant| grant.claimed_at = Some(start()));
    let revoked = with(|grant| grant.revoked_at = Some(start()));
    let expired = with(|grant| grant.expires_at = start());
    let others = with(|grant| grant.user_id = "user_2".to_owned());
    let wrong_order = vec![older.clone(), newer.clone()];
    let twice = vec![older.clone(), older.clone()];
    let of_user = GrantPageRequest::new().user(USER);
    let pending = GrantPageRequest::new().pending();
    let list = async |grants: &Vec<KeyGrant>, request: &GrantPageRequest| {
        let store = store_on(Careless(grants.clone()), Peppers::new(pepper("v1"))).await;
        store.grants(request.clone()).await
    };
    let both = with(|_| {});
    for request in [&of_user, &pending] {
        assert_eq!(list(&both, request).await.unwrap().grants.len(), 2);
        for wrong in [&wrong_order, &twice] {
            refused(list(wrong, request).await);
        }
    }
    refused(list(&others, &of_user).await);
    assert_eq!(list(&claimed, &of_user).await.unwrap().grants.len(), 2);
    for ended in [&claimed, &revoked, &expired] {
        refused(list(ended, &pending).await);
    }
}

fn refused<T>(answer: Result<T, StoreError>) {
    match answer {
        Err(StoreError::Unavailable(cause)) => assert!(cause.backend().unwrap().is_corrupt()),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was believed"),
    }
}
