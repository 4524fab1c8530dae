//! Keys through the store: made, verified, noted as used, listed and ended, with a database that
//! answers and with one that doesn't.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[path = "store/backends.rs"]
mod backends;
#[path = "store/concurrency.rs"]
mod concurrency;
#[path = "store/handoff.rs"]
mod handoff;
#[path = "store/last_used.rs"]
mod last_used;
#[path = "store/leaked.rs"]
mod leaked;
#[path = "store/leavers.rs"]
mod leavers;
#[path = "store/life.rs"]
mod life;
#[path = "store/listing.rs"]
mod listing;
#[path = "store/managing.rs"]
mod managing;
#[path = "store/purging.rs"]
mod purging;
#[path = "store/reasons.rs"]
mod reasons;
#[path = "store/unsupported.rs"]
mod unsupported;
#[path = "store/verifying.rs"]
mod verifying;

use std::{error::Error, io, time::Duration};

use support::{USER, chain, outcome, start};
use tower_api_key::{ApiKeyBackend, ApiKeyStore, ManualClock, NewApiKey, Pepper, Peppers, Scopes};

const SECOND: Duration = Duration::from_secs(1);

fn new_key() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::none())
}

fn pepper(id: &str) -> Pepper {
    Pepper::new(id, format!("the pepper of these tests, {id}")).unwrap()
}

async fn store_on(backend: impl ApiKeyBackend, peppers: Peppers) -> ApiKeyStore {
    let builder = ApiKeyStore::builder(backend).peppers(peppers);
    let store = builder.clock(ManualClock::new(start())).build().await;
    store.unwrap()
}

async fn verified(store: &ApiKeyStore, token: &str) -> &'static str {
    outcome(&store.verify(token).await)
}

fn is_the_outage(error: &(dyn Error + 'static)) -> bool {
    let cause = chain(error).find_map(|error| error.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.to_string() == "the cable was pulled")
}
