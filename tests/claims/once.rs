//! A key is claimed at most once.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{sync::Barrier, task::JoinSet};
use tower_api_key::{
    ApiKeyStore, ClaimRefusal, Event, EventKind, Events, GrantStatus, HandoffToken, IssuedKey,
    KeyGrant, PageRequest, StoreError,
};

use super::databases::{Database, handed_off, refusal};
use crate::support::{USER, start};

const CLAIMERS: usize = 64;

/// What became of so many claims that began at the same moment, on the stores in turns.
async fn race(stores: &[ApiKeyStore], token: &HandoffToken) -> (Vec<IssuedKey>, Vec<StoreError>) {
    let gate = Arc::new(Barrier::new(CLAIMERS));
    let mut claims = JoinSet::new();
    for at in 0..CLAIMERS {
        let (store, token, gate) = (
            stores[at % stores.len()].clone(),
            token.clone(),
            gate.clone(),
        );
        claims.spawn(async move {
            gate.wait().await;
            store.claim(&token).await
        });
    }
    let (mut won, mut lost) = (Vec::new(), Vec::new());
    for outcome in claims.join_all().await {
        match outcome {
            Ok(issued) => won.push(issued),
            Err(error) => lost.push(error),
        }
    }
    (won, lost)
}

async fn keys(store: &ApiKeyStore) -> Vec<tower_api_key::KeyId> {
    let page = PageRequest::new().limit(1_000);
    let page = store.list_for_user(USER, page).await.unwrap();
    page.keys.iter().map(|key| key.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g10_of_64_claims_on_two_nodes_one_succeeds_and_has_its_key() {
    for database in Database::all("claims-once") {
        let stores = database.two().await;
        let mut claimed = Vec::new();
        for _ in 0..20 {
            let handed_off = handed_off(&stores[0]).await;
            let (won, lost) = race(&stores, handed_off.token()).await;
            assert_eq!((won.len(), lost.len()), (1, CLAIMERS - 1));
            for error in lost {
                let why = matches!(error, StoreError::NotClaimable(ClaimRefusal::Claimed));
                assert!(why, "{error:?}");
            }
            for store in &stores {
                let auth = store.verify(won[0].token().expose()).await.unwrap();
                assert_eq!(auth.key_id(), &won[0].key().id);
                let grant = store.grant(&handed_off.grant().id).await.unwrap().unwrap();
                assert_eq!(grant.status(start()), GrantStatus::Claimed);
                assert_eq!(grant.key_id, Some(won[0].key().id));
            }
            claimed.push(won[0].key().id);
        }
        let mut found = keys(&stores[1]).await;
        found.sort_unstable();
        claimed.sort_unstable();
        assert_eq!(found, claimed, "no claim that lost has made a key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g10_what_was_handed_off_is_claimed_after_a_restart_and_once() {
    let mut databases = vec![Database::sqlite("claims-restart")];
    databases.extend(Database::postgres());
    for database in databases {
        let store = database.open().await;
        let token = handed_off(&store).await.into_parts().0;
        let text = token.expose_text();
        store.shutdown().await.unwrap();
        drop(store);

        let store = database.open().await;
        let issued = store.claim(&text.parse().unwrap()).await.unwrap();
        drop(store);

        let store = database.open().await;
        assert_eq!(refusal(&store, &token).await, ClaimRefusal::Claimed);
        assert!(store.is_active(issued.token().expose()).await.unwrap());
    }
}

/// Claims that are dropped after any number of polls leave a grant and no key, or a key and a grant that says so;
/// and what one of them got is never given a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g10_claims_whose_callers_go_away_leave_nothing_half_done() {
    for database in Database::all("claims-dropped") {
        let stores = database.two().await;
        for round in 0_u32..40 {
            let handed_off = handed_off(&stores[0]).await;
            let mut claims = JoinSet::new();
            for at in 0..8 {
                let (store, token) = (stores[at % 2].clone(), handed_off.token().clone());
                claims.spawn(async move { store.claim(&token).await });
            }
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            claims.abort_all();
            let mut won = Vec::new();
            while let Some(claim) = claims.join_next().await {
                won.extend(claim.ok().and_then(Result::ok));
            }
            let last = stores[1].claim(handed_off.token()).await.ok();
            won.extend(last);
            assert!(won.len() < 2, "{} claims got the key", won.len());
            let grant = stores[0].grant(&handed_off.grant().id).await.unwrap();
            let key = grant
                .unwrap()
                .key_id
                .expect("it was claimed by the last at the latest");
            assert!(stores[0].get(&key).await.unwrap().is_some());
            assert!(won.iter().all(|issued| issued.key().id == key));
        }
        assert_eq!(keys(&stores[0]).await.len(), 40, "each has one key");
    }
}

/// What has come already, of refused claims.
fn refusals(events: &mut Events) -> Vec<Event> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut heard = Vec::new();
    while let Poll::Ready(Some(event)) = pin!(events.next()).poll(&mut cx) {
        heard.push(event);
    }
    heard.retain(|event| event.name() == "grant.claim_refused");
    heard
}

fn is_of_a_second_claim(event: &Event, grant: &KeyGrant) -> bool {
    let reason = ClaimRefusal::Claimed;
    matches!(event.kind, EventKind::ClaimRefused { reason: why, .. } if why == reason)
        && event.grant_id == Some(grant.id)
        && event.user_id.as_deref() == Some(USER)
        && event.at == start()
}

/// The one whom the key was for may come to another node than whoever has intercepted the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g10_a_second_claim_on_another_node_is_refused_and_told_there() {
    for database in Database::all("claims-second") {
        let stores = database.two().await;
        let mut events = stores.each_ref().map(ApiKeyStore::events);
        for (first, second) in [(0, 1), (1, 0)] {
            let handed_off = handed_off(&stores[0]).await;
            // It has seen that the grant is pending.
            let pending = stores[second].claimable(handed_off.token()).await.unwrap();
            assert_eq!(pending.id, handed_off.grant().id);
            let issued = stores[first].claim(handed_off.token()).await.unwrap();
            for _ in 0..2 {
                let why = refusal(&stores[second], handed_off.token()).await;
                assert_eq!(why, ClaimRefusal::Claimed);
                let told = refusals(&mut events[second]);
                assert_eq!(told.len(), 1);
                assert!(is_of_a_second_claim(&told[0], &pending), "{told:?}");
            }
            assert_eq!(refusals(&mut events[first]), []);
            let grant = stores[second].grant_of(handed_off.token()).await.unwrap();
            assert_eq!(grant.unwrap().key_id, Some(issued.key().id));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g10_each_of_many_claims_at_once_that_loses_is_told_on_its_node() {
    for database in Database::all("claims-losers") {
        let stores = database.two().await;
        let mut events = stores.each_ref().map(ApiKeyStore::events);
        for _ in 0..5 {
            let handed_off = handed_off(&stores[0]).await;
            let (won, lost) = race(&stores, handed_off.token()).await;
            assert_eq!((won.len(), lost.len()), (1, CLAIMERS - 1));
            let told = events.each_mut().map(refusals);
            let mut counts = told.each_ref().map(Vec::len);
            counts.sort_unstable();
            assert_eq!(counts, [CLAIMERS / 2 - 1, CLAIMERS / 2]);
            for event in told.iter().flatten() {
                assert!(is_of_a_second_claim(event, handed_off.grant()), "{event:?}");
            }
        }
    }
}
