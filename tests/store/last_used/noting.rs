//! A backend that keeps what it is told of uses, and a store on it.

use std::{
    io, mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::watch;
use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, ApiKeyStoreBuilder, BackendError, KeyId, KeySource, ManualClock,
    Peppers, Touch, forward_to_backend,
};

use crate::{
    new_key,
    support::{
        feed::{Remote, Subscribing},
        id_of, start,
    },
};

/// Keys, and what a test does to the writing of uses.
#[derive(Default)]
pub(super) struct Noting {
    pub(super) keys: Remote,
    /// What came since a test looked last, whatever became of it.
    calls: Mutex<Vec<Vec<Touch>>>,
    fails: AtomicBool,
    hangs: watch::Sender<bool>,
}

impl Noting {
    /// From here on `touch` fails, and nothing else.
    pub(super) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// From here on `touch` doesn't answer. Calls that hang go on when this is taken back.
    pub(super) fn set_hanging(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// The calls of `touch` since the last time that this was asked.
    pub(super) fn calls(&self) -> Vec<Vec<Touch>> {
        mem::take(&mut self.calls.lock().unwrap())
    }

    /// How many keys each of these calls named.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.calls().iter().map(Vec::len).collect()
    }

    /// What is written of the last use.
    pub(super) async fn written(&self, id: &KeyId) -> Option<SystemTime> {
        let keys = self.keys.get_many(&[id.lookup_key()]).await.unwrap();
        keys[0].last_used_at
    }
}

impl KeySource for Noting {
    forward_to_backend!(self => self.keys; all of source);
}

impl ApiKeyBackend for Noting {
    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        self.calls.lock().unwrap().push(touches.to_vec());
        let mut hangs = self.hangs.subscribe();
        hangs.wait_for(|hangs| !hangs).await.unwrap();
        if self.fails.load(Ordering::SeqCst) {
            let cause = io::Error::other("the cable was pulled");
            return Err(BackendError::unavailable(cause));
        }
        self.keys.touch(touches).await
    }

    forward_to_backend!(self => self.keys; insert, update, delete, list_for_user);
}

/// A store and what it stands on.
pub(super) struct Node {
    pub(super) store: ApiKeyStore,
    pub(super) backend: Arc<Noting>,
    pub(super) clock: ManualClock,
}

impl Node {
    /// On a backend of its own, which needs no task to tell of changes.
    pub(super) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub(super) async fn with(
        configure: impl FnOnce(ApiKeyStoreBuilder) -> ApiKeyStoreBuilder,
    ) -> Self {
        let backend = Arc::<Noting>::default();
        backend.keys.set_subscribing(Subscribing::Directly);
        Self::on(backend, Peppers::ephemeral(), configure).await
    }

    pub(super) async fn on(
        backend: Arc<Noting>,
        peppers: Peppers,
        configure: impl FnOnce(ApiKeyStoreBuilder) -> ApiKeyStoreBuilder,
    ) -> Self {
        let clock = ManualClock::new(start());
        let builder = ApiKeyStore::builder(backend.clone()).peppers(peppers);
        let builder = configure(builder.clock(clock.clone()));
        let store = builder.build().await.unwrap();
        Self {
            store,
            backend,
            clock,
        }
    }

    /// A new key: its token, and its id.
    pub(super) async fn key(&self) -> (String, KeyId) {
        let issued = self.store.create(new_key()).await.unwrap();
        let token = issued.token().expose().to_owned();
        let id = id_of(&token);
        (token, id)
    }

    /// The last use, as the store shows it.
    pub(super) async fn shown(&self, id: &KeyId) -> Option<SystemTime> {
        let key = self.store.get(id).await.unwrap().unwrap();
        key.last_used_at
    }
}
