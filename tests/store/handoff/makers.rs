//! Keys that are handed off with a key: no more than that key holds, and nothing after its end.

use std::{
    hint,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
};

use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, AuthContext, BackendError, ClaimHash, ClaimRefusal,
    GrantId, GrantLimits, KeyGrant, KeyId, KeySource, KeyUpdate, MemoryBackend, NewApiKey, Scopes,
    StoreError,
};

use super::{MINUTE, claim, keys, notes, refusal, scopes};
use crate::{
    SECOND,
    support::{Fixture, USER, id_of, start},
};

async fn caller(fixture: &Fixture, held: Scopes) -> AuthContext {
    let token = fixture.issue(NewApiKey::for_user(USER, held)).await;
    fixture.store.verify(token).await.unwrap()
}

#[tokio::test]
async fn g11_nobody_hands_off_a_key_that_can_do_more_than_theirs() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let all = Scopes::unrestricted;
    for (held, wanted, may) in [
        (scopes(&["notes:*"]), scopes(&["notes:read"]), true),
        (scopes(&["notes:read"]), Scopes::none(), true),
        (all(), all(), true),
        (all(), scopes(&["*"]), true),
        (scopes(&["notes:read"]), scopes(&["notes:read", "a"]), false),
        (scopes(&["notes:read"]), scopes(&["notes:*"]), false),
        (scopes(&["*"]), all(), false),
        (Scopes::none(), all(), false),
    ] {
        let auth = caller(&fixture, held.clone()).await;
        let new = NewApiKey::for_user(USER, wanted.clone());
        match store.hand_off_as(&auth, new, MINUTE).await {
            Ok(handed_off) => {
                assert!(may, "{wanted} with {held}");
                assert_eq!(handed_off.grant().made_by.as_ref(), Some(auth.key_id()));
                let issued = store.claim(handed_off.token()).await.unwrap();
                assert_eq!(issued.key().made_by.as_ref(), Some(auth.key_id()));
                assert_eq!(issued.key().scopes, wanted);
            }
            Err(StoreError::NotHeld(_)) => assert!(!may, "{wanted} with {held}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn g11_nobody_hands_off_a_key_of_another_user_or_one_that_ends_later() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let end = start() + 10 * SECOND;
    let maker = NewApiKey::for_user(USER, scopes(&["notes:read"])).expires_at(end);
    let token = fixture.issue(maker).await;
    let auth = store.verify(&token).await.unwrap();
    for (new, expected) in [
        (notes(), end),
        (notes().expires_at(end + SECOND), end),
        (notes().expires_at(end - SECOND), end - SECOND),
        (notes().expires_in(MINUTE), end),
        (notes().expires_in(SECOND), start() + SECOND),
    ] {
        let handed_off = store.hand_off_as(&auth, new, MINUTE).await.unwrap();
        let issued = store.claim(handed_off.token()).await.unwrap();
        assert_eq!(issued.key().expires_at, Some(expected));
    }
    let other = NewApiKey::for_user("user_2", Scopes::none());
    let error = store.hand_off_as(&auth, other, MINUTE).await.unwrap_err();
    assert!(matches!(error, StoreError::NotHeld(_)), "{error}");
}

#[tokio::test]
async fn g11_a_key_that_is_claimed_ends_where_its_maker_ends_now_and_ended_then() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let end = start() + 30 * SECOND;
    let maker = NewApiKey::for_user(USER, scopes(&["notes:read"])).expires_at(end);
    let token = fixture.issue(maker).await;
    let auth = store.verify(&token).await.unwrap();
    let earlier = end - SECOND;
    for (update, expected) in [
        (KeyUpdate::new().expires_at(earlier), earlier),
        (KeyUpdate::new().expires_at(end), earlier),
        (KeyUpdate::new().never_expires(), end),
    ] {
        let handed_off = store.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
        store.update(&id_of(&token), update).await.unwrap();
        let issued = store.claim(handed_off.token()).await.unwrap();
        assert_eq!(issued.key().expires_at, Some(expected));
    }
}

#[tokio::test]
async fn g11_an_unclaimed_grant_dies_with_its_makers_key() {
    for end in 0..6 {
        let fixture = Fixture::new().await;
        let store = &fixture.store;
        let maker = NewApiKey::for_user(USER, scopes(&["notes:read"])).expires_in(10 * SECOND);
        let token = fixture.issue(maker).await;
        let auth = store.verify(&token).await.unwrap();
        let id = *auth.key_id();
        let handed_off = store.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
        match end {
            0 => drop(store.revoke(&id).await.unwrap()),
            1 => drop(store.disable(&id).await.unwrap()),
            2 => drop(store.delete(&id).await.unwrap()),
            3 => fixture.clock.advance(10 * SECOND),
            4 => {
                let update = KeyUpdate::new().scopes(scopes(&["tags:read"]));
                drop(store.update(&id, update).await.unwrap());
            }
            _ => {
                let before = store.get(&id).await.unwrap().unwrap();
                assert!(fixture.backend.delete(&id).await.unwrap());
                let mut stolen = before.clone();
                stolen.user_id = "user_2".to_owned();
                assert!(fixture.backend.insert(&stolen).await.unwrap());
            }
        }
        // It was to end with the key at the latest.
        let expected = [ClaimRefusal::MakerEnded, ClaimRefusal::Expired][usize::from(end == 3)];
        let asked = store.claimable(handed_off.token()).await.unwrap_err();
        let foretold = matches!(asked, StoreError::NotClaimable(why) if why == expected);
        assert!(foretold, "{end}: {asked}");
        let why = refusal(store, handed_off.token()).await;
        assert_eq!(why, expected, "{end}");
        let made = usize::from(![2, 5].contains(&end));
        assert_eq!(keys(store, USER).await, made, "{end}");
        if end == 1 {
            // It works again, and so does what was made with it.
            store.enable(&id).await.unwrap();
            claim(store, handed_off.token()).await;
        }
    }
}

#[tokio::test]
async fn g11_a_key_that_was_claimed_before_its_makers_end_is_one_of_its_own() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let auth = caller(&fixture, scopes(&["notes:read"])).await;
    let handed_off = store.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
    let issued = store.claim(handed_off.token()).await.unwrap();
    store.revoke(auth.key_id()).await.unwrap();
    assert!(store.is_active(issued.token().expose()).await.unwrap());
}

#[tokio::test]
async fn a_key_that_is_made_with_a_key_says_with_which() {
    let fixture = Fixture::new().await;
    let auth = caller(&fixture, scopes(&["notes:read"])).await;
    let issued = fixture.store.create_as(&auth, notes()).await.unwrap();
    assert_eq!(issued.key().made_by.as_ref(), Some(auth.key_id()));
    let stored = fixture.store.get(&issued.key().id).await.unwrap().unwrap();
    assert_eq!(stored.made_by.as_ref(), Some(auth.key_id()));
    let own = fixture.store.create(notes()).await.unwrap();
    assert_eq!(own.key().made_by, None);
}

/// Both are done in less than a microsecond, so they have to meet often.
#[test]
fn g11_in_memory_no_claim_is_made_after_its_makers_key_has_changed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let store = ApiKeyStore::in_memory();
    let issued = runtime.block_on(store.create(notes())).unwrap();
    let (turn, told) = (AtomicUsize::new(0), Mutex::new(None));
    let rounds = 2_000;
    thread::scope(|scope| {
        let claimer = scope.spawn(|| {
            let mut slipped = 0;
            for round in 1..=rounds {
                spin_until(|| turn.load(Ordering::Acquire) == round);
                let meeting: Arc<Meeting> = told.lock().unwrap().clone().unwrap();
                meeting.meet(2);
                let maker = Some((meeting.maker.id, 1));
                let claim = meeting
                    .backend
                    .claim(&meeting.grant.id, &meeting.key, maker);
                let claimed = at_once(claim);
                meeting.meet(4);
                slipped += usize::from(claimed && !meeting.was_there.load(Ordering::Acquire));
            }
            slipped
        });
        for round in 1..=rounds {
            let meeting = Arc::new(Meeting::of(issued.key()));
            *told.lock().unwrap() = Some(meeting.clone());
            turn.store(round, Ordering::Release);
            meeting.meet(2);
            for _ in 0..round % 40 {
                hint::spin_loop();
            }
            let mut changed = meeting.maker.clone();
            changed.version = 2;
            assert!(at_once(meeting.backend.update(&changed, 1)));
            let found = at_once(meeting.backend.get_many(&[meeting.key.lookup_key()]));
            meeting
                .was_there
                .store(!found.is_empty(), Ordering::Release);
            meeting.meet(4);
        }
        assert_eq!(claimer.join().unwrap(), 0, "of {rounds}");
    });
}

/// A maker, its grant, and the key that is to be made.
struct Meeting {
    backend: MemoryBackend,
    maker: ApiKey,
    grant: KeyGrant,
    key: ApiKey,
    gate: AtomicUsize,
    was_there: AtomicBool,
}

impl Meeting {
    fn of(maker: &ApiKey) -> Self {
        let backend = MemoryBackend::new();
        let id = GrantId::from_bytes([1; GrantId::LEN]);
        let hash = ClaimHash::from_bytes([2; ClaimHash::LEN]);
        let grant = KeyGrant::new(id, hash, USER, Scopes::none());
        let mut key = maker.clone();
        key.id = KeyId::from_bytes([3; KeyId::LEN]);
        assert!(at_once(backend.insert(maker)));
        at_once(backend.insert_grant(&grant, &GrantLimits::new()));
        Self {
            backend,
            maker: maker.clone(),
            grant,
            key,
            gate: AtomicUsize::new(0),
            was_there: AtomicBool::new(false),
        }
    }

    /// Waits until so many have come by.
    fn meet(&self, all: usize) {
        self.gate.fetch_add(1, Ordering::AcqRel);
        spin_until(|| self.gate.load(Ordering::Acquire) >= all);
    }
}

/// To be there at the same moment, and not much longer where the other one has no processor.
fn spin_until(is_so: impl Fn() -> bool) {
    for spins in 0.. {
        if is_so() {
            return;
        }
        if spins % 100_000 == 99_999 {
            thread::yield_now();
        }
        hint::spin_loop();
    }
}

/// A backend in memory waits for nothing.
fn at_once<T>(call: impl Future<Output = Result<T, BackendError>>) -> T {
    let mut call = pin!(call);
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done.unwrap(),
        Poll::Pending => panic!("it waits"),
    }
}
