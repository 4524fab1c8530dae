//! Keys that are handed off: what is told of the grant, the claim, and those who come too late.

use std::time::Duration;

use tower_api_key::{ClaimRefusal, EventKind, HandoffToken, NewApiKey, Scopes};

use super::{heard, names, new_key, store_with_room_for};
use crate::support::{Fixture, USER, start, with_wrong_secret};

const MINUTE: Duration = Duration::from_secs(60);

fn new() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::none())
}

#[tokio::test]
async fn g10_a_second_claim_is_told_with_the_grant_that_somebody_has_intercepted() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut events = store.events();
    let handed_off = store.hand_off(new(), MINUTE).await.unwrap();
    let issued = store.claim(handed_off.token()).await.unwrap();
    store.claim(handed_off.token()).await.unwrap_err();
    let unknown = HandoffToken::from_bytes([7; 16]);
    store.claim(&unknown).await.unwrap_err();

    let told = heard(&mut events);
    let refused = "grant.claim_refused";
    let expected = ["grant.made", "grant.claimed", refused, refused];
    assert_eq!(names(&told), expected);
    let grant = Some(handed_off.grant().id);
    for event in &told[..3] {
        assert_eq!((event.grant_id, event.at), (grant, start()));
        assert_eq!(event.user_id.as_deref(), Some(USER));
    }
    assert_eq!(told[0].kind.made_by(), None);
    assert_eq!(told[1].key_id, Some(issued.key().id));
    assert_eq!(told[2].reason(), Some(ClaimRefusal::Claimed.as_str()));
    assert_eq!(
        (told[3].grant_id, told[3].reason()),
        (None, Some("unknown"))
    );
    let shown = format!("{told:?} {}", told[2]);
    assert!(!shown.contains(&*handed_off.token().expose_text()));
}

#[tokio::test]
async fn each_end_of_a_grant_has_its_reason() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (maker, maker_id) = new_key(store).await;
    let maker = store.verify(&maker).await.unwrap();
    let revoked = store.hand_off(new(), MINUTE).await.unwrap();
    let expired = store.hand_off(new(), MINUTE).await.unwrap();
    let mut events = store.events();
    let orphaned = store.hand_off_as(&maker, new(), 2 * MINUTE).await.unwrap();
    let made = &heard(&mut events)[0];
    let of = (made.name(), made.kind.made_by());
    assert_eq!(of, ("grant.made", Some(maker_id)));
    assert!(store.revoke_grant(&revoked.grant().id).await.unwrap());
    assert!(!store.revoke_grant(&revoked.grant().id).await.unwrap());
    fixture.clock.advance(MINUTE);
    assert!(store.revoke(&maker_id).await.unwrap());
    assert_eq!(names(&heard(&mut events)), ["grant.revoked", "key.revoked"]);
    for handed_off in [&revoked, &expired, &orphaned] {
        store.claim(handed_off.token()).await.unwrap_err();
    }
    let told = heard(&mut events);
    let reasons: Vec<_> = told.iter().filter_map(|event| event.reason()).collect();
    assert_eq!(reasons, ["revoked", "expired", "maker_ended"]);
}

/// Whoever has a token that was used can present it again and again; whoever has none can make them up.
#[tokio::test]
async fn neither_made_up_tokens_nor_used_ones_push_out_what_happens_to_keys() {
    let store = store_with_room_for(4).await;
    let (token, id) = new_key(&store).await;
    let handed_off = store.hand_off(new(), MINUTE).await.unwrap();
    let _ = store.claim(handed_off.token()).await.unwrap();
    let mut events = store.events();
    assert!(store.revoke(&id).await.unwrap());
    store.claim(handed_off.token()).await.unwrap_err();
    let wrong = with_wrong_secret(&token);
    for number in 0_u8..100 {
        let unknown = HandoffToken::from_bytes([number; 16]);
        store.claim(&unknown).await.unwrap_err();
        store.verify(&wrong).await.unwrap_err();
    }
    let told = heard(&mut events);
    assert_eq!(names(&told[..2]), ["key.revoked", "grant.claim_refused"]);
    assert_eq!(told[1].grant_id, Some(handed_off.grant().id));
    assert_eq!(told.len(), 2 + 1 + 4);
    for _ in 0..100 {
        store.claim(handed_off.token()).await.unwrap_err();
    }
    let (_, other) = new_key(&store).await;
    let told = heard(&mut events);
    let EventKind::Missed(missed) = &told[0].kind else {
        panic!("{told:?}");
    };
    let of_each = (missed.changes, missed.repeatable, missed.rejections);
    assert_eq!(of_each, (0, 96, 0));
    assert_eq!(told.last().unwrap().key_id, Some(other));
}
