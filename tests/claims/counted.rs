//! Which grants count, and which are revoked: by what the keys are that they were made with, and by no clock.

use tower_api_key::{ClaimRefusal, GrantLimits, NewApiKey, StoreError};

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
            let _ = store.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
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
        let _ = handed_off(&store).await;
        let _ = handed_off(&store).await;
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
