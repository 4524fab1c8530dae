//! Keys are handed off: promised, claimed once, refused, listed and taken back.

#[path = "handoff/interrupted.rs"]
mod interrupted;
#[path = "handoff/listed.rs"]
mod listed;
#[path = "handoff/makers.rs"]
mod makers;

use std::{collections::HashSet, time::Duration};

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKeyStore, ClaimRefusal, GrantId, GrantLimits, GrantPageRequest, GrantStatus, HandedOff,
    HandoffToken, KeyId, ManualClock, MemoryBackend, Metadata, NewApiKey, PageRequest, Peppers,
    Scopes, StoreError,
};

use super::{SECOND, is_the_outage, verified};
use crate::support::{Fixture, USER, start};

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

async fn claim(store: &ApiKeyStore, token: &HandoffToken) -> KeyId {
    store.claim(token).await.unwrap().key().id
}

/// Why a claim is refused.
async fn refusal(store: &ApiKeyStore, token: &HandoffToken) -> ClaimRefusal {
    match store.claim(token).await.unwrap_err() {
        StoreError::NotClaimable(why) => why,
        error => panic!("{error}"),
    }
}

/// How many keys the user has.
async fn keys(store: &ApiKeyStore, user: &str) -> usize {
    let page = store.list_for_user(user, PageRequest::new()).await.unwrap();
    page.keys.len()
}

#[tokio::test]
async fn g10_a_key_is_made_when_it_is_claimed_and_once() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let metadata = Metadata::from_json(r#"{"device":"laptop"}"#).unwrap();
    let handed_off = handed_off(store, notes().metadata(metadata.clone())).await;
    assert_eq!(keys(store, USER).await, 0, "there is none before the claim");

    fixture.clock.advance(SECOND);
    let issued = store.claim(handed_off.token()).await.unwrap();
    let key = store.get(&issued.key().id).await.unwrap().unwrap();
    let name = key.name.as_deref();
    assert_eq!((key.user_id.as_str(), name), (USER, Some("laptop")));
    assert_eq!((key.created_at, key.expires_at), (start() + SECOND, None));
    assert_eq!((key.scopes, key.made_by), (scopes(&["notes:read"]), None));
    assert_eq!(key.metadata, Some(metadata));
    assert_eq!(key.display_prefix, issued.token().display_prefix());
    assert_eq!(verified(store, issued.token().expose()).await, "good");

    let why = refusal(store, handed_off.token()).await;
    assert_eq!(why, ClaimRefusal::Claimed);
    assert_eq!(keys(store, USER).await, 1);
}

#[tokio::test]
async fn a_grant_says_who_made_it_when_and_as_which_key_it_was_claimed() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (token, grant) = handed_off(store, notes()).await.into_parts();
    assert_eq!(
        (grant.made_at, grant.expires_at),
        (start(), start() + MINUTE)
    );
    assert_eq!((grant.claimed_at, grant.made_by), (None, None));
    assert_eq!(grant.status(start()), GrantStatus::Pending);
    fixture.clock.advance(SECOND);
    let issued = store.claim(&token).await.unwrap();
    for found in [
        store.grant(&grant.id).await.unwrap(),
        store.grant_of(&token).await.unwrap(),
    ] {
        let found = found.unwrap();
        assert_eq!(found.claimed_at, Some(start() + SECOND));
        assert_eq!(found.key_id, Some(issued.key().id));
        assert_eq!(found.status(start()), GrantStatus::Claimed);
    }
    let unknown = GrantId::from_bytes([7; 16]);
    assert!(store.grant(&unknown).await.unwrap().is_none());
    let unknown = HandoffToken::from_bytes([7; 16]);
    assert!(store.grant_of(&unknown).await.unwrap().is_none());
}

#[tokio::test]
async fn looking_at_what_is_going_to_be_claimed_uses_nothing_up() {
    let fixture = Fixture::new().await;
    let handed_off = handed_off(&fixture.store, notes()).await;
    for _ in 0..10 {
        let grant = fixture.store.grant_of(handed_off.token()).await.unwrap();
        assert_eq!(grant.unwrap().status(start()), GrantStatus::Pending);
        fixture.store.claimable(handed_off.token()).await.unwrap();
    }
    claim(&fixture.store, handed_off.token()).await;
}

#[tokio::test]
async fn a_refusal_says_why_and_an_unknown_token_learns_nothing_more() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let unknown = HandoffToken::from_bytes([7; 16]);
    assert_eq!(refusal(store, &unknown).await, ClaimRefusal::Unknown);

    let revoked = handed_off(store, notes()).await;
    assert!(store.revoke_grant(&revoked.grant().id).await.unwrap());
    assert_eq!(refusal(store, revoked.token()).await, ClaimRefusal::Revoked);

    let (late, early) = (
        handed_off(store, notes()).await,
        handed_off(store, notes()).await,
    );
    fixture.clock.advance(Duration::from_millis(59_999));
    claim(store, early.token()).await;
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(refusal(store, late.token()).await, ClaimRefusal::Expired);
    // What it was claimed as stays, whatever the time.
    assert_eq!(refusal(store, early.token()).await, ClaimRefusal::Claimed);
    assert_eq!(keys(store, USER).await, 1);
}

#[tokio::test]
async fn only_the_whole_token_claims_and_as_text_it_is_the_same() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let handed_off = handed_off(store, notes()).await;
    for bit in [0, 1, 64, 127] {
        let mut bytes = *handed_off.token().expose();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let other = HandoffToken::from_bytes(bytes);
        assert_eq!(refusal(store, &other).await, ClaimRefusal::Unknown);
    }
    let text = handed_off.token().expose_text();
    assert_eq!(text.len(), 22);
    for wrong in [
        "",
        &text[1..],
        &format!("{text}A"),
        &format!("{}=", &text[1..]),
        &format!(" {}", &text[1..]),
        &format!("ü{}", &text[2..]),
        &handed_off.grant().id.to_string(),
    ] {
        let error = wrong.parse::<HandoffToken>().unwrap_err();
        assert!(!format!("{error}{error:?}").contains(&text[2..]));
    }
    let parsed: HandoffToken = text.parse().unwrap();
    assert_eq!(parsed.expose(), handed_off.token().expose());
    claim(store, &parsed).await;
}

#[tokio::test]
async fn the_lifetime_of_a_key_begins_with_its_claim_and_its_end_stays_where_it_is() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let end = start() + 10 * SECOND;
    for (new, expected) in [
        (notes().expires_in(MINUTE), Some(start() + SECOND + MINUTE)),
        (notes().expires_at(end), Some(end)),
        (notes(), None),
        // It has ended before it is claimed, as one can be made that has.
        (notes().expires_at(start()), Some(start())),
    ] {
        fixture.clock.set(start());
        let handed_off = handed_off(store, new).await;
        fixture.clock.set(start() + SECOND);
        let issued = store.claim(handed_off.token()).await.unwrap();
        assert_eq!(issued.key().expires_at, expected);
    }
}

#[tokio::test]
async fn no_time_to_live_is_too_short_or_too_long() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let at_once = store.hand_off(notes(), Duration::ZERO).await.unwrap();
    assert_eq!(refusal(store, at_once.token()).await, ClaimRefusal::Expired);
    let longest = notes().expires_in(Duration::MAX);
    let never = store.hand_off(longest, Duration::MAX).await.unwrap();
    fixture
        .clock
        .advance(Duration::from_secs(7_000 * 31_556_952));
    claim(store, never.token()).await;
    // The time of day is set back behind where it was made.
    let early = handed_off(store, notes()).await;
    fixture.clock.set(std::time::UNIX_EPOCH);
    claim(store, early.token()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g10_of_64_claims_at_once_on_two_stores_one_succeeds() {
    for _ in 0..50 {
        let backend = MemoryBackend::new();
        let peppers = Peppers::ephemeral();
        let clock = ManualClock::new(start());
        let open = || {
            let builder = ApiKeyStore::builder(backend.clone()).peppers(peppers.clone());
            builder.clock(clock.clone()).build()
        };
        let stores = [open().await.unwrap(), open().await.unwrap()];
        let handed_off = handed_off(&stores[0], notes()).await;
        let mut claims = JoinSet::new();
        for at in 0..64 {
            let (store, token) = (stores[at % 2].clone(), handed_off.token().clone());
            claims.spawn(async move { store.claim(&token).await });
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            claims.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 63));
        let refused = StoreError::NotClaimable(ClaimRefusal::Claimed).to_string();
        for error in lost {
            assert_eq!(error.unwrap_err().to_string(), refused);
        }
        let issued = won.into_iter().next().unwrap().unwrap();
        for store in &stores {
            assert_eq!(verified(store, issued.token().expose()).await, "good");
            assert_eq!(keys(store, USER).await, 1);
        }
    }
}

#[tokio::test]
async fn no_more_keys_wait_than_may_and_the_bound_is_told() {
    let clock = ManualClock::new(start());
    let limits = GrantLimits::new().per_user(2).in_all(3);
    let store = ApiKeyStore::builder(MemoryBackend::new())
        .peppers(Peppers::ephemeral())
        .clock(clock.clone())
        .grant_limits(limits)
        .build()
        .await
        .unwrap();
    let first = handed_off(&store, notes()).await;
    let second = handed_off(&store, notes()).await;
    let user_is_full = async || match store.hand_off(notes(), MINUTE).await {
        Err(StoreError::UserGrantsFull { at_most: 2, .. }) => true,
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    };
    assert!(user_is_full().await);
    let other = |user: &str| NewApiKey::for_user(user, Scopes::none());
    drop(handed_off(&store, other("user_2")).await);
    let error = store.hand_off(other("user_3"), MINUTE).await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, StoreError::GrantsFull { at_most: 3, .. }) && text.contains('3'),
        "{text}"
    );
    // What is claimed, revoked or over makes room.
    claim(&store, first.token()).await;
    assert!(!user_is_full().await && user_is_full().await);
    assert!(store.revoke_grant(&second.grant().id).await.unwrap());
    assert!(!user_is_full().await && user_is_full().await);
    clock.advance(MINUTE);
    assert!(!user_is_full().await && !user_is_full().await && user_is_full().await);
    assert_eq!(GrantLimits::new().per_user(0).in_all(0).max_per_user(), 1);
}

#[tokio::test]
async fn revoking_all_of_a_user_ends_what_waits_to_be_claimed_too() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let key = fixture.token(&[]).await;
    let mine = handed_off(store, notes()).await;
    let other = NewApiKey::for_user("user_2", Scopes::none());
    let others = handed_off(store, other).await;
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 1);
    assert_eq!(verified(store, &key).await, "revoked");
    assert_eq!(refusal(store, mine.token()).await, ClaimRefusal::Revoked);
    claim(store, others.token()).await;
}

#[tokio::test]
async fn a_grant_that_cannot_be_stored_is_refused() {
    let fixture = Fixture::new().await;
    for new in [
        NewApiKey::for_user("", Scopes::none()),
        notes().name("a\nb"),
        notes().name("x".repeat(256)),
    ] {
        let error = fixture.store.hand_off(new, MINUTE).await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidKey(_)), "{error}");
    }
    let all = fixture.store.grants(GrantPageRequest::new()).await;
    assert!(all.unwrap().grants.is_empty());
}

#[tokio::test]
async fn every_token_and_every_id_is_another() {
    let fixture = Fixture::new().await;
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let (token, grant) = handed_off(&fixture.store, notes()).await.into_parts();
        assert!(seen.insert(*token.expose()) && seen.insert(*grant.id.as_bytes()));
    }
}

#[tokio::test]
async fn g3_an_outage_is_an_error_for_who_hands_off_and_claims() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let handed_off = handed_off(store, notes()).await;
    let id = handed_off.grant().id;
    fixture.set_broken(true);
    for error in [
        store.hand_off(notes(), MINUTE).await.unwrap_err(),
        store.claim(handed_off.token()).await.unwrap_err(),
        store.grants(GrantPageRequest::new()).await.unwrap_err(),
        store.grant(&id).await.unwrap_err(),
        store.grant_of(handed_off.token()).await.unwrap_err(),
        store.revoke_grant(&id).await.unwrap_err(),
        store.revoke_all_for_user(USER).await.unwrap_err(),
    ] {
        assert!(is_the_outage(&error), "{error}");
    }
    fixture.set_broken(false);
    claim(store, handed_off.token()).await;
}
