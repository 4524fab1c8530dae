//! Ending all keys of a user ends what comes to be meanwhile, too.

use std::time::Instant;

use tokio::task::JoinSet;
use tower_api_key::{
    ApiKeyStore, IssuedKey, KeyStatus, ManualClock, PageRequest, StoreError,
    sqlx::{query_scalar, raw_sql},
};

use super::databases::{Database, PATIENCE};
use crate::{
    HOUR, key, new_key,
    support::{USER, postgres::Server, start},
    token_of, verified,
};

/// How many keys of the user work.
async fn working(store: &ApiKeyStore) -> usize {
    let page = PageRequest::new().limit(PageRequest::MAX_LIMIT);
    let keys = store.list_for_user(USER, page).await.unwrap().keys;
    let works = |status| status == KeyStatus::Active;
    keys.iter().filter(|key| works(key.status(start()))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_rotation_that_commits_while_all_keys_are_ended_leaves_none() {
    let Some(server) = Server::start() else {
        return;
    };
    let server = Database::Postgres(server);
    let clock = ManualClock::new(start());
    let (here, there) = (server.node(&clock).await, server.node(&clock).await);
    let Database::Postgres(server) = &server else {
        unreachable!();
    };
    let mut keys = [key(&here).await, key(&here).await];
    keys.sort_by_key(|(_, id)| *id);
    let [(_, held), (_, rotated)] = keys;

    // Ending begins with the smaller id, and waits there.
    let mut operator = server.connection().await;
    let lock = "BEGIN; SELECT FROM tower_api_keys ORDER BY id LIMIT 1 FOR UPDATE";
    raw_sql(lock).execute(&mut operator).await.unwrap();
    let ending = tokio::spawn(async move { there.revoke_all_for_user(USER).await });
    let mut watcher = server.connection().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let deadline = Instant::now() + PATIENCE;
    while query_scalar::<_, i64>(waiting)
        .fetch_one(&mut watcher)
        .await
        .unwrap()
        == 0
    {
        assert!(Instant::now() < deadline, "it doesn't wait");
    }
    let successor = here.rotate(&rotated, HOUR).await.unwrap();
    raw_sql("COMMIT").execute(&mut operator).await.unwrap();

    assert_eq!(ending.await.unwrap().unwrap(), 3, "{held} and two more");
    assert_eq!(verified(&here, &token_of(&successor)).await, "revoked");
    assert_eq!(working(&here).await, 0);
}

/// Makes keys with the keys that it has made, as fast as it can, until none of them can make one.
async fn make_keys(store: ApiKeyStore, first: String) -> Vec<String> {
    let mut tokens = vec![first];
    let mut refused = 0;
    while refused < tokens.len() {
        let token = &tokens[tokens.len() - 1 - refused];
        let made: Result<IssuedKey, StoreError> = match store.verify(token).await {
            Ok(auth) => store.create_as(&auth, new_key()).await,
            Err(_) => Err(StoreError::NotHeld("a key that works")),
        };
        match made {
            Ok(issued) => {
                tokens.push(token_of(&issued));
                refused = 0;
            }
            Err(StoreError::NotHeld(_)) => refused += 1,
            Err(StoreError::Conflict(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g11_who_makes_keys_with_keys_that_they_made_is_out_after_all_were_ended_once() {
    for (name, database) in Database::all("all-end") {
        let clock = ManualClock::new(start());
        let (here, there) = (database.node(&clock).await, database.node(&clock).await);
        let (token, _) = key(&here).await;
        let mut intruders = JoinSet::new();
        for _ in 0..6 {
            intruders.spawn(make_keys(there.clone(), token.clone()));
        }
        let deadline = Instant::now() + PATIENCE;
        while working(&here).await < 30 {
            assert!(Instant::now() < deadline, "{name}: nothing is made");
        }
        let ended = here.revoke_all_for_user(USER).await.unwrap();
        assert!(ended >= 30, "{name}: {ended}");
        // What the other node hasn't heard of yet is refused by the record.
        let left = working(&here).await;
        assert_eq!(left, 0, "{name}: of {ended}");
        for tokens in intruders.join_all().await {
            for token in tokens {
                let state = there.verify_fresh(&token).await;
                assert!(state.is_err(), "{name}");
            }
        }
        assert_eq!(working(&here).await, 0, "{name}");
    }
}
