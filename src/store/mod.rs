//! Keys in a backend: made, checked, listed and ended.

mod builder;
mod claim;
mod concurrency;
mod hand_off;
mod import;
mod leaks;
mod life;
mod listing;
mod manage;
mod peppers;
mod revoking;
mod rotate;

use std::{fmt, sync::Arc};

use self::concurrency::ConcurrencyLimits;
pub use self::{builder::ApiKeyStoreBuilder, leaks::LeakReport};
use crate::{
    backend::{ApiKeyBackend, DynBackend, GrantLimits, MemoryBackend},
    cache::{CacheStats, CheckedConfig, Freshness},
    context::{AuthContext, Caller, HasCaller},
    error::StoreError,
    events::Events,
    resolver::{CachedResolver, KeyResolver, write},
    token::{ApiKeyToken, Peppers, TokenFormat},
    verify::VerifyError,
};

/// Makes, checks and ends keys. Clones are one store.
///
/// It is a [`KeyResolver`], so [`ApiKeyLayer::new`](crate::ApiKeyLayer::new) takes it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_api_key::{ApiKeyStore, NewApiKey, Scopes};
///
/// let store = ApiKeyStore::in_memory();
/// let issued = store
///     .create(NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?).name("CI"))
///     .await?;
/// let token = issued.token().expose(); // the one time
///
/// let auth = store.verify(token).await?;
/// assert_eq!(auth.user_id(), "user_1");
///
/// assert!(store.revoke(auth.key_id()).await?);
/// assert!(store.verify(token).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ApiKeyStore {
    backend: Arc<dyn DynBackend>,
    resolver: CachedResolver,
    grant_limits: GrantLimits,
    limits: ConcurrencyLimits,
}

impl ApiKeyStore {
    /// A store whose keys end with the process, under a random pepper that is drawn when it is
    /// first needed.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::builder(MemoryBackend::new())
            .build_with(Peppers::ephemeral(), CheckedConfig::default())
    }

    /// A store over `backend`. Peppers have to be given.
    pub fn builder(backend: impl ApiKeyBackend) -> ApiKeyStoreBuilder {
        let backend: Arc<dyn DynBackend> = Arc::new(backend);
        ApiKeyStoreBuilder::over(backend)
    }

    /// Who `token` speaks for. Counts as a use of the key.
    ///
    /// # Errors
    ///
    /// See [`VerifyError`].
    pub async fn verify(&self, token: impl AsRef<[u8]>) -> Result<AuthContext, VerifyError> {
        self.resolve(&self.parse(token)?).await
    }

    /// The same, from a record that is read for it, whatever is cached: a change that was made
    /// elsewhere counts at once.
    ///
    /// # Errors
    ///
    /// See [`VerifyError`].
    pub async fn verify_fresh(&self, token: impl AsRef<[u8]>) -> Result<AuthContext, VerifyError> {
        self.resolve_fresh(&self.parse(token)?).await
    }

    /// Whether `token` is good now. Doesn't count as a use of the key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where that can't be told.
    pub async fn is_active(&self, token: impl AsRef<[u8]>) -> Result<bool, StoreError> {
        self.asks(token, |_| true).await
    }

    /// Whether `token` is good now and may do what asks for `scope`. Doesn't count as a use of the
    /// key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where that can't be told.
    pub async fn has_scope(
        &self,
        token: impl AsRef<[u8]>,
        scope: &str,
    ) -> Result<bool, StoreError> {
        self.asks(token, |key| key.scopes().allows(scope)).await
    }

    /// What the cache has done, and what it holds.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.resolver.cache_stats()
    }

    /// What happens to keys from now on, **through this store**: what other nodes do, and operators by hand,
    /// isn't in it. Each reader gets all of it in its order, unless it is too slow: then the oldest events are gone,
    /// and it is told how many.
    ///
    /// A change is in it once, after it was carried out and counts, also where its caller has gone away. One
    /// whose outcome nobody knows, an error, isn't. Tokens that were rejected are in it, those that were
    /// accepted aren't, nor are texts that are no tokens of the store's format.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::{ApiKeyStore, EventKind, NewApiKey, Scopes};
    ///
    /// let store = ApiKeyStore::in_memory();
    /// let mut events = store.events();
    /// let issued = store.create(NewApiKey::for_user("user_1", Scopes::none())).await?;
    /// store.revoke(&issued.key().id).await?;
    ///
    /// let created = events.next().await.expect("the store is there");
    /// assert_eq!((created.name(), created.key_id), ("key.created", Some(issued.key().id)));
    /// let revoked = events.next().await.expect("the store is there");
    /// assert!(matches!(revoked.kind, EventKind::Revoked { .. }));
    /// # Ok(()) }
    /// ```
    ///
    /// To keep events, see [`ApiKeyStoreBuilder::record_events`]. While nobody reads and nothing records
    /// them, they cost nothing.
    pub fn events(&self) -> Events {
        self.resolver.emitter().events()
    }

    /// Forgets all that is cached, for an operator who has changed keys behind the back of a backend
    /// that tells nothing. What is changed through the store needs no such thing.
    pub fn invalidate_all(&self) {
        self.resolver.invalidate_all();
    }

    /// Writes when keys were last used, where that is still to be written, hands over the events that are
    /// still to be recorded, and ends the background tasks: when no more requests come, before the process ends.
    ///
    /// The store still answers. It doesn't note any more when keys are used, nor records events, and where the backend has a
    /// feed of changes, nobody listens to it: keys are read again every
    /// [`max_staleness`](crate::CacheConfig::max_staleness).
    ///
    /// A graceful shutdown of the server comes first, and waits for streams that are open: such a stream ends
    /// with its key, and not with the server. End it yourself, or limit how long you wait.
    ///
    /// Hashes that wait to come under the [current pepper](ApiKeyStoreBuilder::rewrap_retired_peppers) are dropped:
    /// the next use of such a key, on another node or after a restart, has it written.
    ///
    /// It waits for up to 10 seconds for each thousand keys whose use is to be written, and for as long for
    /// the events. Dropping the last
    /// clone ends the tasks, too, and writes nothing.
    ///
    /// ```no_run
    /// # async fn run(listener: tokio::net::TcpListener, app: axum::Router, stop: std::future::Ready<()>) -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = tower_api_key::ApiKeyStore::in_memory();
    /// axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    /// store.shutdown().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where something couldn't be written or recorded. Call it again to try again.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.resolver.shutdown().await
    }

    async fn asks(
        &self,
        token: impl AsRef<[u8]>,
        question: impl FnOnce(&Caller) -> bool,
    ) -> Result<bool, StoreError> {
        let Ok(token) = self.parse(token) else {
            return Ok(false);
        };
        match self.resolver.check(&token, Freshness::Cached).await {
            Ok(key) => Ok(question(key.caller())),
            Err(VerifyError::Unavailable(error)) => Err(StoreError::Unavailable(error)),
            Err(_) => Ok(false),
        }
    }

    fn parse(&self, token: impl AsRef<[u8]>) -> Result<ApiKeyToken, VerifyError> {
        Ok(self.token_format().parse(token)?)
    }
}

impl KeyResolver for ApiKeyStore {
    fn resolve(
        &self,
        token: &ApiKeyToken,
    ) -> impl Future<Output = Result<AuthContext, VerifyError>> + Send {
        self.resolver.resolve(token)
    }

    fn resolve_fresh(
        &self,
        token: &ApiKeyToken,
    ) -> impl Future<Output = Result<AuthContext, VerifyError>> + Send {
        self.resolver.resolve_fresh(token)
    }

    fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
        self.resolver.resolve_now(token)
    }

    fn token_format(&self) -> &TokenFormat {
        self.resolver.token_format()
    }
}

impl fmt::Debug for ApiKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyStore")
            .field("resolver", &self.resolver)
            .finish_non_exhaustive()
    }
}
