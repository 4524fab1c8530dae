//! Keys and peppers that others take the place of: what goes on meanwhile, what ends when, and what is
//! answered to whoever comes at the wrong time.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

mod rotation {
    mod all_end;
    mod answers;
    mod callers;
    mod cancelling;
    mod ends;
    mod nodes;
    mod pepper_checks;
    mod rewrap;
    mod rewrap_faults;
    mod usage;
    mod whole;

    use crate::support::databases;
}

use std::time::Duration;

use support::{USER, databases::pepper, outcome};
use tower_api_key::{
    ApiKey, ApiKeyStore, IssuedKey, KeyId, NewApiKey, RotationError, Scopes, StoreError,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn new_key() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap())
}

/// A new key: its token, and its id.
async fn key(store: &ApiKeyStore) -> (String, KeyId) {
    let issued = store.create(new_key()).await.unwrap();
    (token_of(&issued), issued.key().id)
}

fn token_of(issued: &IssuedKey) -> String {
    issued.token().expose().to_owned()
}

async fn record(store: &ApiKeyStore, id: &KeyId) -> ApiKey {
    store.get(id).await.unwrap().unwrap()
}

/// Verifies through the cache.
async fn verified(store: &ApiKeyStore, token: &str) -> &'static str {
    outcome(&store.verify(token).await)
}

/// Why a rotation is refused.
fn problem<T>(outcome: Result<T, StoreError>) -> RotationError {
    match outcome {
        Err(StoreError::Rotation { problem, .. }) => problem,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was done"),
    }
}
