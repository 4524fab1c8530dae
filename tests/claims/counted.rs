//! Which grants count, and which are revoked: by what the keys are that they were made with, and by no clock.

use std::time::Duration;

use tower_api_key::{ClaimRefusal, GrantLimits, GrantPageRequest, NewApiKey, StoreError};

use super::databases::{Database, MINUTE, handed_off, notes, refusal, scopes};
use crate::support::USER;

/// Who found a key and made grants with it can't keep its user from making others when it is revoked.
#[tokio::test]
async fn grants_of_a_revoked_maker_leave_room_for_others() {
    for mut database in Database::all("claims-room") {
        database.limits = GrantLimits::new().per_user(2).in_all(2);
        let store = database.open().await;
        let maker = NewApiKey::for_user(USER, scopes(&["notes:*"]));
        let maker = store.create(maker).await.unwrap();
        let auth = store.verify(maker.token().expose()).await.unwrap();
        for _ in 0..2 {
            let _unclaimed = store.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
        }
        let is_full = async || {
            let error = store.hand_off(notes(), MINUTE).await.unwrap_err();
            assert!(matches!(error, StoreError::UserGrantsFull { .. }));
        };
        is_full().await;
        // It may go on.
        assert!(store.disable(&maker.key().id).await.unwrap());
        is_full().await;
        assert!(store.revoke(&maker.key().id).await.unwrap());
        let _unclaimed = handed_off(&store).await;
        let _unclaimed = handed_off(&store).await;
        is_full().await;
    }
}

/// What has expired by the clock of the node that revokes hasn't by that of another.
#[tokio::test]
async fn a_node_whose_clock_is_behind_claims_nothing_that_another_has_revoked() {
    for mut database in Database::all("claims-clocks") {
        let behind = database.open().await;
        let first = handed_off(&behind).await;
        let second = handed_off(&behind).await;
        let now = tower_api_key::Clock::now(&database.clock);
        database.clock = tower_api_key::ManualClock::new(now + 2 * MINUTE);
        let ahead = database.open().await;
        assert!(ahead.revoke_grant(&first.grant().id).await.unwrap());
        ahead.revoke_all_for_user(USER).await.unwrap();
        for handed_off in [first, second] {
            let why = refusal(&behind, handed_off.token()).await;
            assert_eq!(why, ClaimRefusal::Revoked);
        }
    }
}

/// Who ends the key that grants were made with, and makes others with the next one, gets no more of them.
#[tokio::test]
async fn no_user_has_more_grants_waiting_than_may_whatever_keys_they_were_made_with() {
    for mut database in Database::all("claims-bound") {
        database.limits = GrantLimits::new().per_user(3).in_all(5);
        let store = database.open().await;
        let new = NewApiKey::for_user(USER, scopes(&["notes:*"]));
        let mut maker = store.create(new).await.unwrap();
        for _ in 0..4 {
            let auth = store.verify(maker.token().expose()).await.unwrap();
            for _ in 0..3 {
                let made = store.hand_off_as(&auth, notes(), Duration::MAX).await;
                let _unclaimed = made.unwrap();
            }
            let error = store.hand_off(notes(), MINUTE).await.unwrap_err();
            let is_full = matches!(error, StoreError::UserGrantsFull { at_most: 3, .. });
            assert!(is_full, "{error}");
            let waiting = store.grants(GrantPageRequest::new().pending()).await;
            assert_eq!(waiting.unwrap().grants.len(), 3);
            let rotated = store.rotate(&maker.key().id, Duration::ZERO).await;
            maker = rotated.unwrap();
        }
        // What the last key has left waiting takes up no room of others, either.
        for user in ["other", "another"] {
            for _ in 0..2 {
                let new = NewApiKey::for_user(user, scopes(&["notes:read"]));
                let _unclaimed = store.hand_off(new, MINUTE).await.unwrap();
            }
        }
        store.revoke_all_for_user(USER).await.unwrap();
        let of_user = GrantPageRequest::new().user(USER);
        let all = store.grants(of_user.limit(100)).await.unwrap().grants;
        assert_eq!(all.len(), 12);
        assert!(all.iter().all(|grant| grant.revoked_at.is_some()));
    }
}
