//! What the backend keeps of a key that was handed off, and how many.

use std::{cmp::Reverse, time::Duration};

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKeyStore, Clock, GrantCursor, GrantLimits, GrantPageRequest, NewApiKey, PostgresBackend,
    StoreError,
};

use super::databases::{Database, MINUTE, Place, handed_off, notes};
use crate::support::{USER, chain, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_wait_than_may_however_many_nodes_hand_off_at_once() {
    for mut database in Database::all("claims-bounds") {
        database.limits = GrantLimits::new().per_user(10).in_all(25);
        let stores = database.two().await;
        let mut handing = JoinSet::new();
        for at in 0..64_usize {
            let store = stores[at % 2].clone();
            let user = format!("user_{}", at % 4);
            let new = NewApiKey::for_user(user, notes_scopes());
            handing.spawn(async move { store.hand_off(new, MINUTE).await });
        }
        let mut done = 0;
        for outcome in handing.join_all().await {
            match outcome {
                Ok(_) => done += 1,
                Err(
                    StoreError::UserGrantsFull { at_most: 10, .. }
                    | StoreError::GrantsFull { at_most: 25, .. },
                ) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(done, 25);
        let page = stores[1].grants(GrantPageRequest::new()).await.unwrap();
        assert_eq!(page.grants.len(), 25);
        for user in ["user_0", "user_1", "user_2", "user_3"] {
            let of_user = |grant: &&tower_api_key::KeyGrant| grant.user_id == user;
            assert!(page.grants.iter().filter(of_user).count() <= 10);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_that_can_be_claimed_are_listed_alone_by_the_clock_of_the_store() {
    for database in Database::all("claims-pending") {
        let [here, there] = database.two().await;
        let mut waiting = Vec::new();
        for user in ["user_0", "user_1", "user_0"] {
            let hand_off = async |ttl| {
                let new = NewApiKey::for_user(user, notes_scopes());
                here.hand_off(new, ttl).await.unwrap()
            };
            let claimed = hand_off(MINUTE).await;
            drop(there.claim(claimed.token()).await.unwrap());
            let revoked = hand_off(MINUTE).await;
            assert!(there.revoke_grant(&revoked.grant().id).await.unwrap());
            drop(hand_off(MILLISECOND).await);
            waiting.push(hand_off(2 * MILLISECOND).await.into_parts().1);
            waiting.push(hand_off(MINUTE).await.into_parts().1);
        }
        waiting.sort_by_key(|grant| Reverse(GrantCursor::of(grant)));
        let pending = async |request: GrantPageRequest| {
            let (mut ids, mut request) = (Vec::new(), request.pending().limit(2));
            loop {
                let page = there.grants(request.clone()).await.unwrap();
                ids.extend(page.grants.iter().map(|grant| grant.id));
                match page.next {
                    Some(next) => request = request.after(next),
                    None => return ids,
                }
            }
        };
        let of_user = || GrantPageRequest::new().user("user_0");
        let all = GrantPageRequest::new;
        for _ in 0..2 {
            database.clock.advance(MILLISECOND);
            let now = database.clock.now();
            waiting.retain(|grant| now < grant.expires_at);
            let mut expected: Vec<_> = waiting.iter().map(|grant| grant.id).collect();
            assert_eq!(pending(all()).await, expected);
            let mut of_others = waiting.iter().map(|grant| grant.user_id != "user_0");
            expected.retain(|_| !of_others.next().unwrap());
            assert_eq!(pending(of_user()).await, expected);
        }
        assert_eq!(waiting.len(), 3);
        database.clock.advance(MINUTE);
        assert!(pending(all()).await.is_empty());
        // All of them are there still.
        let every = there.grants(all()).await.unwrap();
        assert_eq!(every.grants.len(), 15);
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

fn notes_scopes() -> tower_api_key::Scopes {
    super::databases::scopes(&["notes:read"])
}

/// Their clocks say when, and not the server's.
#[tokio::test]
async fn a_grant_ends_by_the_clock_of_the_node_that_is_asked() {
    for database in Database::all("claims-clock") {
        let store = database.open().await;
        let (first, second) = (handed_off(&store).await, handed_off(&store).await);
        database
            .clock
            .set(start() + MINUTE - std::time::Duration::from_millis(1));
        let new = store.claim(first.token()).await.unwrap();
        assert_eq!(new.key().created_at, database.clock.now());
        database.clock.set(start() + MINUTE);
        let why = super::databases::refusal(&store, second.token()).await;
        assert_eq!(why, tower_api_key::ClaimRefusal::Expired);
        let all = store.grants(GrantPageRequest::new().user(USER)).await;
        assert_eq!(all.unwrap().grants.len(), 2);
        let new = store.hand_off(notes(), MINUTE).await.unwrap();
        assert_eq!(new.grant().made_at, start() + MINUTE);
    }
}

/// Those that the documentation of `PostgresBackend` asks for.
#[tokio::test]
async fn a_role_of_postgresql_needs_no_more_rights_than_are_documented() {
    let Some(database) = Database::postgres() else {
        return;
    };
    let Place::Postgres(server) = database.place() else {
        unreachable!("it is one of PostgreSQL");
    };
    let owner = database.open().await;
    server
        .psql(
            "CREATE ROLE app LOGIN;
            GRANT SELECT, INSERT, UPDATE, DELETE ON tower_api_keys TO app;
            GRANT SELECT ON tower_api_key_changes, tower_api_key_schema TO app",
        )
        .await;
    let url = server.url().replace("postgres@", "app@");
    // Said at start, and not at the first key that is handed off.
    let error = PostgresBackend::connect(&url).await.unwrap_err();
    let texts: Vec<_> = chain(&error).map(ToString::to_string).collect();
    assert!(texts.concat().contains("tower_api_key_grants"), "{texts:?}");

    server
        .psql("GRANT SELECT, INSERT, UPDATE, DELETE ON tower_api_key_grants TO app")
        .await;
    let error = PostgresBackend::connect(&url).await.unwrap_err();
    let texts: Vec<_> = chain(&error).map(ToString::to_string).collect();
    assert!(
        texts.concat().contains("tower_api_key_peppers"),
        "{texts:?}"
    );
    server
        .psql("GRANT SELECT, INSERT ON tower_api_key_peppers TO app")
        .await;
    let backend = PostgresBackend::connect(&url).await.unwrap();
    let store = database.build(ApiKeyStore::builder(backend)).await;
    let issued = store.create(notes()).await.unwrap();
    let auth = store.verify(issued.token().expose()).await.unwrap();
    let handed_off = store.hand_off_as(&auth, notes(), MINUTE).await.unwrap();
    let other = store.hand_off(notes(), MINUTE).await.unwrap();
    let claimed = store.claim(handed_off.token()).await.unwrap();
    assert!(owner.is_active(claimed.token().expose()).await.unwrap());
    assert!(store.revoke_grant(&other.grant().id).await.unwrap());
    assert_eq!(store.revoke_all_for_user(USER).await.unwrap(), 2);
}
