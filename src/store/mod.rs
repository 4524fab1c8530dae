//! Keys in a backend: made, checked, listed and ended.

mod manage;

use std::{fmt, sync::Arc};

use crate::{
    backend::{ApiKeyBackend, DynBackend, MemoryBackend},
    clock::Clock,
    context::AuthContext,
    error::{ConfigError, StoreError},
    key::ApiKey,
    resolver::{CachedResolver, CachedResolverBuilder, KeyResolver},
    token::{ApiKeyToken, Brand, Peppers, TokenFormat},
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
}

impl ApiKeyStore {
    /// A store whose keys end with the process, under a random pepper that is drawn when it is
    /// first needed.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::builder(MemoryBackend::new()).build_with(Peppers::ephemeral())
    }

    /// A store over `backend`. Peppers have to be given.
    pub fn builder(backend: impl ApiKeyBackend) -> ApiKeyStoreBuilder {
        let backend: Arc<dyn DynBackend> = Arc::new(backend);
        ApiKeyStoreBuilder {
            backend: backend.clone(),
            resolver: CachedResolverBuilder::noting_use(backend),
        }
    }

    /// Who `token` speaks for. Counts as a use of the key.
    ///
    /// # Errors
    ///
    /// See [`VerifyError`].
    pub async fn verify(&self, token: impl AsRef<[u8]>) -> Result<AuthContext, VerifyError> {
        self.resolve(&self.parse(token)?).await
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
        self.asks(token, |key| key.scopes.allows(scope)).await
    }

    async fn asks(
        &self,
        token: impl AsRef<[u8]>,
        question: impl FnOnce(&ApiKey) -> bool,
    ) -> Result<bool, StoreError> {
        let Ok(token) = self.parse(token) else {
            return Ok(false);
        };
        match self.resolver.check(&token).await {
            Ok((key, _)) => Ok(question(&key)),
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

/// What an [`ApiKeyStore`] is made from.
///
/// ```
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_api_key::{ApiKeyStore, Brand, MemoryBackend, Pepper, Peppers};
///
/// let store = ApiKeyStore::builder(MemoryBackend::new())
///     .peppers(Peppers::new(Pepper::from_env("v1", "API_KEY_PEPPER")?))
///     .brand(Brand::new("acme")?)
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing is made before `build`"]
pub struct ApiKeyStoreBuilder {
    backend: Arc<dyn DynBackend>,
    resolver: CachedResolverBuilder,
}

impl ApiKeyStoreBuilder {
    /// What secrets are hashed with.
    pub fn peppers(mut self, peppers: Peppers) -> Self {
        self.resolver = self.resolver.peppers(peppers);
        self
    }

    /// What tokens begin with, `pk` by default. Tokens of another brand are none of this store's.
    ///
    /// A brand is a label: it isn't part of what is stored or hashed. Stores that must not take each
    /// other's keys, such as `test` and `live`, need backends or peppers of their own.
    pub fn brand(mut self, brand: Brand) -> Self {
        self.resolver = self.resolver.brand(brand);
        self
    }

    /// Where the time is read from, the system's clock by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.resolver = self.resolver.clock(clock);
        self
    }

    /// Makes the store.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingPeppers`].
    pub async fn build(self) -> Result<ApiKeyStore, ConfigError> {
        Ok(ApiKeyStore {
            backend: self.backend,
            resolver: self.resolver.build().await?,
        })
    }

    fn build_with(self, peppers: Peppers) -> ApiKeyStore {
        ApiKeyStore {
            backend: self.backend,
            resolver: self.resolver.build_with(peppers),
        }
    }
}

impl fmt::Debug for ApiKeyStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyStoreBuilder")
            .field("resolver", &self.resolver)
            .finish_non_exhaustive()
    }
}
