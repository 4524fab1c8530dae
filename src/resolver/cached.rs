//! The resolver over any source.

use std::{fmt, sync::Arc, time::SystemTime};

use super::{KeyResolver, touch::Toucher};
use crate::{
    backend::{DynBackend, DynSource, KeySource, only_record},
    clock::{Clock, SystemClock, storable},
    context::AuthContext,
    error::{BackendError, ConfigError},
    key::ApiKey,
    token::{ApiKeyToken, Brand, Peppers, TokenFormat},
    trace,
    verify::{VerifyError, verify},
};

/// Reads the key of a token from a [`KeySource`] and verifies it. Clones are one resolver.
///
/// It has no cache yet: every request asks the source.
///
/// ```
/// # async fn run(keys: impl tower_api_key::KeySource) -> Result<(), Box<dyn std::error::Error>> {
/// use tower_api_key::{ApiKeyLayer, CachedResolver, Pepper, Peppers};
///
/// let resolver = CachedResolver::builder(keys)
///     .peppers(Peppers::new(Pepper::from_env("v1", "API_KEY_PEPPER")?))
///     .build()
///     .await?;
/// let layer = ApiKeyLayer::new(resolver);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct CachedResolver(Arc<Inner>);

struct Inner {
    source: Arc<dyn DynSource>,
    toucher: Option<Toucher>,
    peppers: Peppers,
    clock: Arc<dyn Clock>,
    format: TokenFormat,
}

impl CachedResolver {
    /// A resolver over `source`. Peppers have to be given.
    pub fn builder(source: impl KeySource) -> CachedResolverBuilder {
        CachedResolverBuilder::over(Arc::new(source))
    }

    /// The record of `token`, where it is good, and when that was found.
    pub(crate) async fn check(
        &self,
        token: &ApiKeyToken,
    ) -> Result<(ApiKey, SystemTime), VerifyError> {
        // A token that another store's format has parsed.
        if !self.0.format.claims(token.expose()) {
            return Err(VerifyError::Unknown);
        }
        let found = self.find(token).await?;
        let now = self.now();
        verify(token, found.as_ref(), &self.0.peppers, now)?;
        found.map(|key| (key, now)).ok_or(VerifyError::Unknown)
    }

    async fn find(&self, token: &ApiKeyToken) -> Result<Option<ApiKey>, BackendError> {
        let wanted = token.lookup_key();
        only_record(self.0.source.get_many(&[wanted]).await?, &wanted)
    }

    pub(crate) fn peppers(&self) -> &Peppers {
        &self.0.peppers
    }

    pub(crate) fn brand(&self) -> &Brand {
        self.0.format.brand()
    }

    /// The time now, as a backend can store it.
    pub(crate) fn now(&self) -> SystemTime {
        storable(self.0.clock.now())
    }
}

impl KeyResolver for CachedResolver {
    async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        let (key, now) = self
            .check(token)
            .await
            .inspect_err(|error| trace::not_accepted(token.key_id(), error))?;
        if let Some(toucher) = &self.0.toucher {
            toucher.used(&key, now).await;
        }
        Ok(AuthContext::from(key))
    }

    fn token_format(&self) -> &TokenFormat {
        &self.0.format
    }
}

impl fmt::Debug for CachedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedResolver")
            .field("peppers", &self.0.peppers)
            .field("clock", &self.0.clock)
            .field("format", &self.0.format)
            .finish_non_exhaustive()
    }
}

/// What a [`CachedResolver`] is made from.
#[must_use = "nothing is made before `build`"]
pub struct CachedResolverBuilder {
    source: Arc<dyn DynSource>,
    toucher: Option<Toucher>,
    peppers: Option<Peppers>,
    clock: Arc<dyn Clock>,
    brand: Brand,
}

impl CachedResolverBuilder {
    fn over(source: Arc<dyn DynSource>) -> Self {
        Self {
            source,
            toucher: None,
            peppers: None,
            clock: Arc::new(SystemClock),
            brand: Brand::default(),
        }
    }

    /// A resolver that notes in `backend` when keys are used.
    pub(crate) fn noting_use(backend: Arc<dyn DynBackend>) -> Self {
        Self {
            toucher: Some(Toucher::new(backend.clone())),
            ..Self::over(backend)
        }
    }

    /// What the hashes of the secrets were made with.
    pub fn peppers(mut self, peppers: Peppers) -> Self {
        self.peppers = Some(peppers);
        self
    }

    /// What tokens begin with, `pk` by default.
    pub fn brand(mut self, brand: Brand) -> Self {
        self.brand = brand;
        self
    }

    /// Where the time is read from, the system's clock by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the resolver.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingPeppers`].
    #[expect(
        clippy::unused_async,
        reason = "so that sources that have to subscribe can come"
    )]
    pub async fn build(self) -> Result<CachedResolver, ConfigError> {
        let peppers = self.peppers.clone().ok_or(ConfigError::MissingPeppers)?;
        Ok(self.build_with(peppers))
    }

    pub(crate) fn build_with(self, peppers: Peppers) -> CachedResolver {
        CachedResolver(Arc::new(Inner {
            source: self.source,
            toucher: self.toucher,
            peppers,
            clock: self.clock,
            format: TokenFormat::new(self.brand),
        }))
    }
}

impl fmt::Debug for CachedResolverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedResolverBuilder")
            .field("peppers", &self.peppers)
            .field("clock", &self.clock)
            .field("brand", &self.brand)
            .finish_non_exhaustive()
    }
}
