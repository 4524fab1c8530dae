//! What is revoked isn't claimed: no grant, no grant of a user, and none whose maker's key has ended.

use std::{sync::Arc, time::Instant};

use tokio::{sync::Barrier, task::JoinSet};
use tower_api_key::{
    ApiKeyStore, ClaimRefusal, NewApiKey, StoreError,
    sqlx::{query_scalar, raw_sql},
};

use super::databases::{Database, MINUTE, Place, handed_off, notes, refusal, scopes};
use crate::support::USER;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g11_a_grant_dies_with_its_makers_key_on_every_node() {
    for database in Database::all("claims-makers") {
        let [here, there] = database.two().await;
        let maker = NewApiKey::for_user(USER, scopes(&["notes:*"]));
        let maker = here.create(maker).await.unwrap();
        let auth = here.verify(maker.token().expose()).await.unwrap();
        let first = here.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
        let second = here.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
        let issued = there.claim(first.token()).await.unwrap();
        assert_eq!(issued.key().made_by, Some(maker.key().id));
        let stored = here.get(&issued.key().id).await.unwrap().unwrap();
        assert_eq!(stored.made_by, Some(maker.key().id));

        assert!(there.revoke(auth.key_id()).await.unwrap());
        for store in [&here, &there] {
            let why = refusal(store, second.token()).await;
            assert_eq!(why, ClaimRefusal::MakerEnded);
        }
        let error = here.hand_off_as(&auth, notes(), MINUTE).await.unwrap_err();
        assert!(matches!(error, StoreError::NotHeld(_)), "{error}");
    }
}

/// As often as they meet: once the revocation has returned, there is a key already, or there never is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g11_no_key_is_made_after_the_revocation_of_its_maker_has_returned() {
    for database in Database::all("claims-slip") {
        let [here, there] = database.two().await;
        let mut claimed = 0;
        for round in 0..60 {
            let maker = NewApiKey::for_user(USER, scopes(&["notes:*"]));
            let maker = here.create(maker).await.unwrap();
            let auth = here.verify(maker.token().expose()).await.unwrap();
            let handed_off = here.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
            let gate = Arc::new(Barrier::new(2));
            let claim = tokio::spawn({
                let (gate, store) = (gate.clone(), there.clone());
                let token = handed_off.token().clone();
                async move {
                    gate.wait().await;
                    store.claim(&token).await
                }
            });
            gate.wait().await;
            for _ in 0..round % 20 {
                tokio::task::yield_now().await;
            }
            assert!(here.revoke(auth.key_id()).await.unwrap());
            let grant = here.grant(&handed_off.grant().id).await.unwrap().unwrap();
            match claim.await.unwrap() {
                Ok(issued) => {
                    assert_eq!(grant.key_id, Some(issued.key().id), "made afterwards");
                    claimed += 1;
                }
                Err(StoreError::NotClaimable(ClaimRefusal::MakerEnded)) => {
                    assert_eq!(grant.key_id, None);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        println!("{claimed} of 60 claims came before the revocation");
    }
}

/// Whatever is claimed meanwhile: when all of a user was revoked, no key of theirs works.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_claim_makes_a_key_that_outlives_the_revocation_of_all() {
    for database in Database::all("claims-all") {
        let stores = database.two().await;
        for round in 0..10 {
            let mut claims = JoinSet::new();
            for at in 0..16 {
                let token = handed_off(&stores[at % 2]).await.into_parts().0;
                let store: ApiKeyStore = stores[at % 2].clone();
                claims.spawn(async move { store.claim(&token).await });
            }
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            stores[0].revoke_all_for_user(USER).await.unwrap();
            for outcome in claims.join_all().await {
                match outcome {
                    Ok(issued) => {
                        let token = issued.token().expose();
                        assert!(stores[0].verify(token).await.is_err(), "it works still");
                    }
                    Err(StoreError::NotClaimable(ClaimRefusal::Revoked)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }
}

/// The claim stands still behind a lock of somebody else's, with the maker's record looked at already. The
/// revocation waits for it, or is the one that counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g11_a_revocation_that_is_answered_while_a_claim_waits_in_postgresql_counts() {
    let Some(database) = Database::postgres() else {
        return;
    };
    let Place::Postgres(server) = database.place() else {
        unreachable!("it is one of PostgreSQL");
    };
    let [here, there] = database.two().await;
    let maker = NewApiKey::for_user(USER, scopes(&["notes:*"]));
    let maker = here.create(maker).await.unwrap();
    let auth = here.verify(maker.token().expose()).await.unwrap();
    let handed_off = here.hand_off_as(&auth, notes(), MINUTE).await.unwrap();

    let mut operator = server.connection().await;
    let lock = "BEGIN; SELECT FROM tower_api_key_grants FOR UPDATE";
    raw_sql(lock).execute(&mut operator).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let token = handed_off.token().clone();
    let claim = tokio::spawn(async move { there.claim(&token).await });
    let mut look = server.connection().await;
    let mut waiting = async |so_many: i64, is_finished: &dyn Fn() -> bool| {
        let deadline = Instant::now() + MINUTE;
        while !is_finished() {
            let found = query_scalar::<_, i64>(waiting).fetch_one(&mut look).await;
            if found.unwrap() >= so_many {
                return;
            }
            assert!(Instant::now() < deadline, "it doesn't get there");
        }
    };
    waiting(1, &|| claim.is_finished()).await;
    assert!(!claim.is_finished(), "it didn't wait");
    let id = *auth.key_id();
    let revocation = tokio::spawn(async move { here.revoke(&id).await });
    waiting(2, &|| revocation.is_finished()).await;
    let was_answered = revocation.is_finished();
    raw_sql("COMMIT").execute(&mut operator).await.unwrap();
    assert!(revocation.await.unwrap().unwrap());
    let claimed = claim.await.unwrap();
    assert!(
        claimed.is_err() || !was_answered,
        "a key was made after the revocation was answered"
    );
}
