//! What a store tells of what happened: each kind, in order, bounded, and kept by a recorder.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[path = "events/bounds.rs"]
mod bounds;
#[path = "events/grants.rs"]
mod grants;
#[path = "events/kinds.rs"]
mod kinds;
#[path = "events/lives.rs"]
mod lives;
#[cfg(feature = "tracing")]
#[path = "events/logged.rs"]
mod logged;
#[path = "events/lost.rs"]
mod lost;
#[cfg(feature = "tracing")]
#[path = "events/named.rs"]
mod named;
#[path = "events/readers.rs"]
mod readers;
#[path = "events/recorder.rs"]
mod recorder;
#[path = "events/writes.rs"]
mod writes;

use std::{future::Future, pin::pin, task::Context, time::Duration};

use support::{PEPPER, USER, start};
use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, ApiKeyStoreBuilder, Event, Events, KeyId, ManualClock,
    MemoryBackend, NewApiKey, Pepper, Peppers, Scopes,
};

const SECOND: Duration = Duration::from_secs(1);
/// For what is bound to come.
const PATIENCE: Duration = Duration::from_secs(30);

fn builder(backend: impl ApiKeyBackend) -> ApiKeyStoreBuilder {
    let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    let builder = ApiKeyStore::builder(backend).peppers(peppers);
    builder.clock(ManualClock::new(start()))
}

/// A store with room for so many events of each sort.
async fn store_with_room_for(events: usize) -> ApiKeyStore {
    let builder = builder(MemoryBackend::new()).event_buffer(events);
    builder.build().await.unwrap()
}

/// The token and the id of a new key.
async fn new_key(store: &ApiKeyStore) -> (String, KeyId) {
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = store.create(new).await.unwrap();
    (issued.token().expose().to_owned(), issued.key().id)
}

/// What has come already.
fn heard(events: &mut Events) -> Vec<Event> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut heard = Vec::new();
    while let std::task::Poll::Ready(Some(event)) = pin!(events.next()).poll(&mut cx) {
        heard.push(event);
    }
    heard
}

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}
