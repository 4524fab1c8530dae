//! What the tests share: a clock that they move, a backend that they break, one key of every kind,
//! and a server on a real socket.
#![allow(dead_code, unreachable_pub, reason = "no test binary needs all of it")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]
#![allow(
    clippy::unused_async,
    reason = "routers and `service_fn` take no other functions"
)]

pub mod bare;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub mod databases;
#[cfg(feature = "axum")]
pub mod echo;
pub mod feed;
pub mod folder;
pub mod lists;
#[cfg(feature = "axum")]
pub mod oneshot;
#[cfg(feature = "postgres")]
pub mod pgbouncer;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod process;
pub mod steps;
pub mod stray;

use std::{
    error::Error,
    io, iter,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, AuthContext, BackendError, KeyId, KeySource, LookupKey,
    ManualClock, MemoryBackend, NewApiKey, Pepper, Peppers, Scopes, Touch, VerifyError,
    forward_to_backend,
};

/// What the clocks of the tests show at first.
pub fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// The pepper of the fixture's store, under the id `v1`.
pub const PEPPER: &str = "a test pepper that is long enough 0123456789";

/// The name of the user that the fixture's keys belong to.
pub const USER: &str = "user_1";

/// A store on a manual clock and a backend that can be broken.
pub struct Fixture {
    pub store: ApiKeyStore,
    pub backend: Breakable,
    pub clock: ManualClock,
}

impl Fixture {
    pub async fn new() -> Self {
        let backend = Breakable::default();
        let clock = ManualClock::new(start());
        let pepper = Pepper::new("v1", PEPPER).unwrap();
        let store = ApiKeyStore::builder(backend.clone())
            .peppers(Peppers::new(pepper))
            .clock(clock.clone())
            .build()
            .await
            .unwrap();
        Self {
            store,
            backend,
            clock,
        }
    }

    /// The backend fails from here on, or answers again. Nothing is cached when it begins to fail.
    pub fn set_broken(&self, broken: bool) {
        self.backend.set_broken(broken);
        if broken {
            self.store.invalidate_all();
        }
    }

    /// The token of a new key with these scopes.
    pub async fn token(&self, scopes: &[&str]) -> String {
        let new = NewApiKey::for_user(USER, Scopes::of(scopes).unwrap());
        self.issue(new).await
    }

    pub async fn issue(&self, new: NewApiKey) -> String {
        let issued = self.store.create(new).await.unwrap();
        issued.token().expose().to_owned()
    }

    /// The token of a key that expired a second ago.
    pub async fn expired_token(&self) -> String {
        let end = start() - Duration::from_secs(1);
        let new = NewApiKey::for_user(USER, Scopes::none()).expires_at(end);
        self.issue(new).await
    }

    pub async fn revoked_token(&self) -> String {
        let token = self.token(&[]).await;
        assert!(self.store.revoke_token(&token).await.unwrap());
        token
    }

    /// The token of a key that was suspended in the database.
    pub async fn disabled_token(&self) -> String {
        let token = self.token(&[]).await;
        let mut key = self.store.get(&id_of(&token)).await.unwrap().unwrap();
        key.disabled_at = Some(start());
        let version = key.version;
        key.version += 1;
        assert!(self.backend.update(&key, version).await.unwrap());
        token
    }
}

/// What became of a token, in a word or two.
pub fn outcome(result: &Result<AuthContext, VerifyError>) -> &'static str {
    match result {
        Ok(_) => "good",
        Err(VerifyError::Malformed(_)) => "malformed",
        Err(VerifyError::Unknown) => "unknown",
        Err(VerifyError::WrongSecret) => "wrong secret",
        Err(VerifyError::Expired) => "expired",
        Err(VerifyError::Revoked) => "revoked",
        Err(VerifyError::Disabled) => "disabled",
        Err(VerifyError::Unavailable(_)) => "unavailable",
        Err(_) => "another error",
    }
}

/// The public id in a token of any brand.
pub fn id_of(token: &str) -> KeyId {
    token.split('.').nth(1).unwrap().parse().unwrap()
}

/// `token` with another secret, as well-formed as it was.
pub fn with_wrong_secret(token: &str) -> String {
    let (rest, last) = token.split_at(token.len() - 1);
    format!("{rest}{}", if last == "A" { "B" } else { "A" })
}

/// A well-formed token of a key that doesn't exist.
pub fn unknown_token() -> String {
    format!("pk.key_{}.{}", "a".repeat(32), "b".repeat(43))
}

/// The error and those below it, from the outermost to the first.
pub fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// A memory backend that fails while a test wants it to, and counts what it is asked.
#[derive(Clone, Default)]
pub struct Breakable {
    inner: MemoryBackend,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    broken: AtomicBool,
    touches_broken: AtomicBool,
    reads: AtomicUsize,
    touches: AtomicUsize,
}

impl Breakable {
    /// From here on every call fails, or none.
    pub fn set_broken(&self, broken: bool) {
        self.state.broken.store(broken, Ordering::SeqCst);
    }

    /// From here on `touch` fails, and nothing else.
    pub fn set_touches_broken(&self, broken: bool) {
        self.state.touches_broken.store(broken, Ordering::SeqCst);
    }

    /// How often `get_many` or `get_by_id` was called.
    pub fn reads(&self) -> usize {
        self.state.reads.load(Ordering::SeqCst)
    }

    /// How often `touch` was called.
    pub fn touches(&self) -> usize {
        self.state.touches.load(Ordering::SeqCst)
    }

    fn checked(&self) -> Result<&MemoryBackend, BackendError> {
        if self.state.broken.load(Ordering::SeqCst) {
            return Err(outage());
        }
        Ok(&self.inner)
    }
}

pub fn outage() -> BackendError {
    BackendError::unavailable(io::Error::other("the cable was pulled"))
}

impl KeySource for Breakable {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.state.reads.fetch_add(1, Ordering::SeqCst);
        self.checked()?.get_many(keys).await
    }

    forward_to_backend!(self => self.inner; all of source but get_many);
}

impl ApiKeyBackend for Breakable {
    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        self.state.touches.fetch_add(1, Ordering::SeqCst);
        let inner = self.checked()?;
        if self.state.touches_broken.load(Ordering::SeqCst) {
            return Err(outage());
        }
        inner.touch(touches).await
    }

    async fn get_by_id(&self, ids: &[KeyId]) -> Result<Vec<ApiKey>, BackendError> {
        self.state.reads.fetch_add(1, Ordering::SeqCst);
        self.checked()?.get_by_id(ids).await
    }

    forward_to_backend!(self => self.checked()?; all of backend but touch, get_by_id);
}

/// A server on a free port of the loopback, HTTP/1.1 and HTTP/2, which ends when it is dropped.
pub struct Server {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that speaks HTTP/1.1.
pub fn http1() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .build()
        .unwrap()
}

/// A client that speaks HTTP/2, without TLS, from the first byte.
pub fn http2() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap()
}
