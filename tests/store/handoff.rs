//! Keys are handed off: promised, claimed once, refused, listed and taken back.

use std::{collections::HashSet, time::Duration};

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, ClaimRefusal, GrantId, GrantLimits, GrantPageRequest, GrantStatus,
    HandedOff, HandoffToken, KeyGrant, KeyStatus, KeyUpdate, ManualClock, MemoryBackend, NewApiKey,
    Peppers, Scopes, StoreError,
};

use super::{SECOND, is_the_outage, verified};
use crate::support::{Fixture, USER, id_of, start};

const MINUTE: Duration = Duration::from_secs(60);

fn scopes(scopes: &[&str]) -> Scopes {
    Scopes::of(scopes).unwrap()
}

fn notes() -> NewApiKey {
    NewApiKey::for_user(USER, scopes(&["notes:read"])).name("laptop")
}

async fn handed_off(store: &ApiKeyStore, new: NewApiKey) -> HandedOff {
    store.hand_off(new, MINUTE).await.unwrap()
}

/// Why a claim is refused.
async fn refusal(store: &ApiKeyStore, token: &HandoffToken) -> ClaimRefusal {
    match store.claim(token).await.unwrap_err() {
        StoreError::NotClaimable(why) => why,
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn g10_a_key_is_made_when_it_is_claimed_and_once() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let handed_off = handed_off(store, notes()).await;
    let none = store.list_for_user(USER, Default::default()).await.unwrap();
    assert!(none.keys.is_empty(), "there is no key before the claim");

    fixture.clock.advance(SECOND);
    let issued = store.claim(handed_off.token()).await.unwrap();
    let key = store.get(&issued.key().id).await.unwrap().unwrap();
    assert_eq!(
        (key.user_id.as_str(), key.name.as_deref()),
        (USER, Some("laptop"))
    );
    assert_eq!(
        (key.created_at, key.expires_at, key.version),
        (start() + SECOND, None, 1)
    );
    assert_eq!((key.scopes, key.made_by), (scopes(&["notes:read"]), None));
    assert_eq!(key.display_prefix, issued.token().display_prefix());
    assert_eq!(verified(store, issued.token().expose()).await, "good");

    for _ in 0..3 {
        let why = refusal(store, handed_off.token()).await;
        assert_eq!(why, ClaimRefusal::Claimed);
    }
    let keys = store.list_for_user(USER, Default::default()).await.unwrap();
    assert_eq!(keys.keys.len(), 1);
}
