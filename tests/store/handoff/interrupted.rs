//! Claims that others get in between of, whose caller goes away, or whose answer is lost.

use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, ClaimRefusal, GrantStatus, HandedOff, ManualClock,
    NewApiKey, Pepper, Peppers, StoreError,
};

use super::{MINUTE, claim, handed_off, keys, notes, refusal, scopes};
use crate::{
    SECOND,
    support::{
        PEPPER, USER, start,
        steps::{Step, Steps, Stopped},
    },
    verified,
};

struct Handoff {
    store: ApiKeyStore,
    backend: Steps,
    handed_off: HandedOff,
}

async fn store_on_steps() -> (ApiKeyStore, Steps) {
    let backend = Steps::default();
    let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    let builder = ApiKeyStore::builder(backend.clone()).peppers(peppers);
    let store = builder.clock(ManualClock::new(start())).build().await;
    (store.unwrap(), backend)
}

impl Handoff {
    async fn new() -> Self {
        let (store, backend) = store_on_steps().await;
        Self {
            handed_off: handed_off(&store, notes()).await,
            store,
            backend,
        }
    }

    /// One that was handed off with a key.
    async fn with_maker() -> (Self, ApiKey) {
        let (store, backend) = store_on_steps().await;
        let maker = NewApiKey::for_user(USER, scopes(&["notes:read"]));
        let maker = store.create(maker).await.unwrap();
        let auth = store.verify(maker.token().expose()).await.unwrap();
        let handed_off = store.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
        let handoff = Self {
            store,
            backend,
            handed_off,
        };
        (handoff, maker.key().clone())
    }

    fn claim(&self) -> tokio::task::JoinHandle<Result<tower_api_key::IssuedKey, StoreError>> {
        let (store, token) = (self.store.clone(), self.handed_off.token().clone());
        tokio::spawn(async move { store.claim(&token).await })
    }
}

#[tokio::test]
async fn g10_a_claim_whose_caller_goes_away_is_carried_out_whole() {
    for has_written in [false, true] {
        let handoff = Handoff::new().await;
        let step = if has_written {
            Step::WriteDone
        } else {
            Step::WriteAsked
        };
        let stopped = handoff.backend.stop_next(step);
        let done = (!has_written).then(|| handoff.backend.stop_next(Step::WriteDone));
        let begun = handoff.claim();
        let stopped = stopped.await;
        begun.abort();
        assert!(begun.await.unwrap_err().is_cancelled());
        stopped.go_on();
        if let Some(done) = done {
            let done = tokio::time::timeout(MINUTE, done).await;
            done.expect("it was carried out").go_on();
        }
        // The key is nobody's, and the grant says so.
        let grant = handoff.store.grant_of(handoff.handed_off.token()).await;
        let grant = grant.unwrap().unwrap();
        assert_eq!(grant.status(start()), GrantStatus::Claimed);
        let key = handoff.store.get(&grant.key_id.unwrap()).await.unwrap();
        assert_eq!(key.unwrap().user_id, USER);
        let why = refusal(&handoff.store, handoff.handed_off.token()).await;
        assert_eq!(why, ClaimRefusal::Claimed);
        assert_eq!(keys(&handoff.store, USER).await, 1);
    }
}

#[tokio::test]
async fn g10_a_claim_whose_answer_was_lost_is_known_by_its_key() {
    for lose in [Stopped::fail, Stopped::panic] {
        let handoff = Handoff::new().await;
        let done = handoff.backend.stop_next(Step::WriteDone);
        let begun = handoff.claim();
        lose(done.await);
        let issued = begun.await.unwrap().unwrap();
        let token = issued.token().expose();
        assert_eq!(verified(&handoff.store, token).await, "good");
        let why = refusal(&handoff.store, handoff.handed_off.token()).await;
        assert_eq!(why, ClaimRefusal::Claimed);
    }
}

#[tokio::test]
async fn a_claim_that_failed_before_it_was_made_is_an_outage_and_can_be_made_again() {
    for lose in [Stopped::fail, Stopped::panic] {
        let handoff = Handoff::new().await;
        let asked = handoff.backend.stop_next(Step::WriteAsked);
        let begun = handoff.claim();
        lose(asked.await);
        let error = begun.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert_eq!(keys(&handoff.store, USER).await, 0);
        let issued = handoff.store.claim(handoff.handed_off.token()).await;
        let issued = issued.unwrap();
        let token = issued.token().expose();
        assert_eq!(verified(&handoff.store, token).await, "good");
    }
}

/// The other one was first, though both found the grant pending.
#[tokio::test]
async fn g10_a_claim_that_is_overtaken_is_refused_and_makes_no_key() {
    let handoff = Handoff::new().await;
    let asked = handoff.backend.stop_next(Step::WriteAsked);
    let begun = handoff.claim();
    let asked = asked.await;
    claim(&handoff.store, handoff.handed_off.token()).await;
    asked.go_on();
    let error = begun.await.unwrap().unwrap_err();
    let is_refused = matches!(error, StoreError::NotClaimable(ClaimRefusal::Claimed));
    assert!(is_refused, "{error}");
    assert_eq!(keys(&handoff.store, USER).await, 1);
}

#[tokio::test]
async fn a_grant_that_is_revoked_while_it_is_claimed_makes_no_key() {
    let handoff = Handoff::new().await;
    let asked = handoff.backend.stop_next(Step::WriteAsked);
    let begun = handoff.claim();
    let asked = asked.await;
    let id = handoff.handed_off.grant().id;
    assert!(handoff.store.revoke_grant(&id).await.unwrap());
    asked.go_on();
    let error = begun.await.unwrap().unwrap_err();
    let is_refused = matches!(error, StoreError::NotClaimable(ClaimRefusal::Revoked));
    assert!(is_refused, "{error}");
    assert_eq!(keys(&handoff.store, USER).await, 0);
}

#[tokio::test]
async fn a_claim_that_others_always_get_before_ends_as_a_conflict_and_the_grant_stays() {
    let (handoff, mut maker) = Handoff::with_maker().await;
    let asked = handoff.backend.stop_next(Step::WriteAsked);
    let begun = handoff.claim();
    let mut asked = asked.await;
    let mut attempts = 1;
    loop {
        maker.version += 1;
        let inner = handoff.backend.inner();
        assert!(inner.update(&maker, maker.version - 1).await.unwrap());
        let next = handoff.backend.stop_next(Step::WriteAsked);
        asked.go_on();
        tokio::select! {
            next = next => asked = next,
            () = async { while !begun.is_finished() { tokio::task::yield_now().await } } => break,
        }
        attempts += 1;
    }
    handoff.backend.forget_plans();
    let error = begun.await.unwrap().unwrap_err();
    let is_conflict = matches!(error, StoreError::Conflict(id) if id == maker.id);
    assert!(is_conflict && attempts > 3, "{error} after {attempts}");
    claim(&handoff.store, handoff.handed_off.token()).await;
}

/// It was active when it was looked at, and isn't any more when the key would be made.
#[tokio::test]
async fn g11_no_revocation_of_the_makers_key_slips_in_between() {
    for is_revoked in [true, false] {
        let (handoff, mut key) = Handoff::with_maker().await;
        let asked = handoff.backend.stop_next(Step::WriteAsked);
        let begun = handoff.claim();
        let asked = asked.await;
        // By another node.
        let inner = handoff.backend.inner();
        key.version += 1;
        if is_revoked {
            key.revoked_at = Some(start() + SECOND);
        } else {
            key.name = Some("another name".to_owned());
        }
        assert!(inner.update(&key, 1).await.unwrap());
        asked.go_on();
        let claimed = begun.await.unwrap();
        if is_revoked {
            let error = claimed.unwrap_err();
            let why = matches!(error, StoreError::NotClaimable(ClaimRefusal::MakerEnded));
            assert!(why, "{error}");
            assert_eq!(keys(&handoff.store, USER).await, 1);
        } else {
            // It changed, and holds as much as before.
            let issued = claimed.unwrap();
            let token = issued.token().expose();
            assert_eq!(verified(&handoff.store, token).await, "good");
        }
    }
}
