//! What happens at the same moment, in every order that was known to go wrong somewhere: each file
//! tells one story. The backend stands still at the step that a test names, so that no order is left
//! to chance.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[path = "races/abandoned_revocation.rs"]
mod abandoned_revocation;
#[path = "races/eviction.rs"]
mod eviction;
#[path = "races/fresh_check.rs"]
mod fresh_check;
#[path = "races/invalidate_all.rs"]
mod invalidate_all;
#[path = "races/leader_cancelled.rs"]
mod leader_cancelled;
#[path = "races/leader_panics.rs"]
mod leader_panics;
#[path = "races/load_and_bulk_revocation.rs"]
mod load_and_bulk_revocation;
#[path = "races/load_and_change.rs"]
mod load_and_change;
#[path = "races/load_and_deletion.rs"]
mod load_and_deletion;
#[path = "races/load_and_expiry.rs"]
mod load_and_expiry;
#[path = "races/load_and_revocation.rs"]
mod load_and_revocation;
#[path = "races/load_times_out.rs"]
mod load_times_out;
#[path = "races/one_cache.rs"]
mod one_cache;
#[path = "races/passing_error.rs"]
mod passing_error;
#[path = "races/revoked_already.rs"]
mod revoked_already;
#[path = "races/stampede.rs"]
mod stampede;
#[path = "races/two_revocations.rs"]
mod two_revocations;
#[path = "races/uncertain_write.rs"]
mod uncertain_write;
#[path = "races/unknown_then_created.rs"]
mod unknown_then_created;

use std::time::{Duration, Instant};

use support::{PEPPER, USER, id_of, outcome, start, steps::Steps, with_wrong_secret};
use tokio::task::{JoinHandle, yield_now};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, ApiKeyToken, CacheConfig, KeyId, KeyResolver, ManualClock,
    NewApiKey, Pepper, Peppers, Scopes, StoreError,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// After how long something that doesn't come is taken to have failed to.
const PATIENCE: Duration = Duration::from_secs(20);

/// One key, a store that has it, and the clock and the backend of both.
#[derive(Clone)]
struct Race {
    store: ApiKeyStore,
    backend: Steps,
    clock: ManualClock,
    token: String,
    id: KeyId,
}

impl Race {
    /// Nothing is cached yet.
    async fn new() -> Self {
        Self::with(Steps::default(), cache()).await
    }

    async fn with(backend: Steps, cache: CacheConfig) -> Self {
        let clock = ManualClock::new(start());
        let store = ApiKeyStore::builder(backend.clone())
            .peppers(peppers())
            .clock(clock.clone())
            .cache(cache)
            .build()
            .await
            .unwrap();
        let token = issue(&store).await;
        let id = id_of(&token);
        Self {
            store,
            backend,
            clock,
            token,
            id,
        }
    }

    /// The store of another node on the same records, which this one isn't told by.
    async fn elsewhere(&self) -> ApiKeyStore {
        ApiKeyStore::builder(self.backend.inner().clone())
            .peppers(peppers())
            .clock(self.clock.clone())
            .build()
            .await
            .unwrap()
    }

    /// Changes the record as if another node did.
    async fn change_elsewhere(&self, change: impl FnOnce(&mut ApiKey)) {
        let mut key = self.elsewhere().await.get(&self.id).await.unwrap().unwrap();
        let expected = key.version;
        change(&mut key);
        key.version += 1;
        assert!(self.backend.inner().update(&key, expected).await.unwrap());
    }

    /// What a request with the key comes to.
    async fn verified(&self) -> &'static str {
        verified(&self.store, &self.token).await
    }

    async fn verified_fresh(&self) -> &'static str {
        outcome(&self.store.verify_fresh(&self.token).await)
    }

    /// A request of its own.
    fn request(&self) -> JoinHandle<&'static str> {
        let race = self.clone();
        tokio::spawn(async move { race.verified().await })
    }

    fn fresh_request(&self) -> JoinHandle<&'static str> {
        let race = self.clone();
        tokio::spawn(async move { race.verified_fresh().await })
    }

    fn revocation(&self) -> JoinHandle<Result<bool, StoreError>> {
        let race = self.clone();
        tokio::spawn(async move { race.store.revoke(&race.id).await })
    }

    /// Whether a request would be answered from memory.
    fn is_cached(&self) -> bool {
        is_cached(&self.store, &self.token)
    }
}

/// No read is given up because a busy machine takes its time.
fn cache() -> CacheConfig {
    CacheConfig::new().load_timeout(Duration::from_secs(3_600))
}

fn peppers() -> Peppers {
    Peppers::new(Pepper::new("v1", PEPPER).unwrap())
}

/// The token of a new key that may read notes.
async fn issue(store: &ApiKeyStore) -> String {
    let scopes = Scopes::of(["notes:read"]).unwrap();
    let issued = store.create(NewApiKey::for_user(USER, scopes)).await;
    issued.unwrap().token().expose().to_owned()
}

/// A token of the same id with another secret, and its record.
fn with_another_secret(token: &str) -> (String, ApiKey) {
    let other = with_wrong_secret(token);
    let key = record_of(&other);
    (other, key)
}

fn record_of(token: &str) -> ApiKey {
    let token: ApiKeyToken = token.parse().unwrap();
    let hash = peppers().hash(&token).unwrap();
    ApiKey::new(token.key_id().unwrap(), USER, Scopes::none(), hash)
}

async fn verified(store: &ApiKeyStore, token: &str) -> &'static str {
    outcome(&store.verify(token).await)
}

fn is_cached(store: &ApiKeyStore, token: &str) -> bool {
    let token = store.token_format().parse(token).unwrap();
    store.resolve_now(&token).is_some()
}

/// Lets the others run until it has come to what is waited for.
async fn until(what: &str, has_come: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !has_come() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        yield_now().await;
    }
}
