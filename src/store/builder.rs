//! What a store is made from.

use std::{fmt, sync::Arc, time::Duration};

use super::{ApiKeyStore, concurrency::ConcurrencyLimits};
use crate::{
    backend::{DynBackend, GrantLimits},
    cache::{CacheConfig, CheckedConfig},
    clock::Clock,
    error::ConfigError,
    events::{Event, EventKind, EventRecorder},
    resolver::CachedResolverBuilder,
    token::{Brand, DigestFormat, Peppers, TokenFormat},
};

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
    grant_limits: GrantLimits,
}

impl ApiKeyStoreBuilder {
    pub(super) fn over(backend: Arc<dyn DynBackend>) -> Self {
        Self {
            backend: backend.clone(),
            resolver: CachedResolverBuilder::noting_use(backend),
            grant_limits: GrantLimits::new(),
        }
    }

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

    /// How tokens look that another issuer made, whose keys were imported by their digests. There may be
    /// several.
    pub fn digest_format(mut self, format: DigestFormat) -> Self {
        self.resolver = self.resolver.digest_format(format);
        self
    }

    /// How much is remembered, and for how long.
    pub fn cache(mut self, cache: CacheConfig) -> Self {
        self.resolver = self.resolver.cache(cache);
        self
    }

    /// How often it is written when keys were last used, 5 seconds by default. It is noted at most
    /// once a minute for each key, and shows at once in what this store reads.
    pub fn note_use_every(mut self, interval: Duration) -> Self {
        self.resolver = self.resolver.note_use_every(interval);
        self
    }

    /// Sets the capacity of each event buffer (default 1,024). Events that make keys inactive, other
    /// changes, events that a holder of a token can repeat, and rejections are buffered separately:
    /// neither a flood of invalid tokens nor one of new keys evicts a revocation.
    pub fn event_buffer(mut self, events: usize) -> Self {
        self.resolver = self.resolver.event_buffer(events);
        self
    }

    /// What keeps events: see [`EventRecorder`]. A second call replaces the first.
    pub fn record_events(mut self, recorder: impl EventRecorder) -> Self {
        self.resolver = self.resolver.record_events(recorder);
        self
    }

    /// Brings the hash of a key under the current pepper when the key is used and its hash is under a
    /// [retired](Peppers::with_retired) one, a [weak](crate::Pepper::weak_for_import) one among them.
    /// Off unless it is switched on.
    ///
    /// The request computes the new hash, which is one HMAC more, and waits for nothing: it is stored behind it,
    /// one key after the other, where the record still has the old hash. A key that isn't used stays as it is;
    /// [`pepper_usage`](ApiKeyStore::pepper_usage) counts those.
    ///
    /// **Every node has to have the same current pepper first**: one that doesn't know it answers 503, and two
    /// that disagree which one is current take turns in writing. Switch it off before the next pepper comes.
    pub fn rewrap_retired_peppers(mut self) -> Self {
        self.resolver = self.resolver.rewrapping();
        self
    }

    /// Where the time is read from, the system's clock by default. Timeouts and intervals are
    /// tokio's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.resolver = self.resolver.clock(clock);
        self
    }

    /// How many keys that were [handed off](ApiKeyStore::hand_off) may wait to be claimed: 100 of one user,
    /// 10,000 in all, unless it is set. Every store on the same backend should have the same.
    pub fn grant_limits(mut self, limits: GrantLimits) -> Self {
        self.grant_limits = limits;
        self
    }

    /// Makes the store, and compares its peppers with those that the stored keys were hashed with.
    ///
    /// The backend keeps a check value of each pepper, which is stored when a pepper has no keys yet,
    /// or by the first verification of a key under it. A backend that can't be read is no error:
    /// then the peppers are compared before the first key is created.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperMismatch`], [`ConfigError::MissingPeppers`], [`ConfigError::Cache`], [`ConfigError::NoteUseEvery`],
    /// [`ConfigError::DigestFormat`], [`ConfigError::EventBuffer`].
    pub async fn build(self) -> Result<ApiKeyStore, ConfigError> {
        let store = ApiKeyStore {
            backend: self.backend,
            resolver: self.resolver.build().await?,
            grant_limits: self.grant_limits,
            limits: ConcurrencyLimits::new(),
        };
        if let Some(checks) = store.resolver.pepper_checks()
            && let Err(error) = checks.compare().await
            && let Some(mismatch) = error.pepper_mismatch()
        {
            return Err(ConfigError::PepperMismatch(*mismatch));
        }
        for warning in store.backend.warnings().await.unwrap_or_default() {
            let warning = EventKind::BackendWarning { warning };
            store.resolver.emitter().emit(Event::of(warning));
        }
        Ok(store)
    }

    pub(super) fn build_with(self, peppers: Peppers, cache: CheckedConfig) -> ApiKeyStore {
        ApiKeyStore {
            backend: self.backend,
            resolver: self
                .resolver
                .build_with(peppers, cache, TokenFormat::default()),
            grant_limits: self.grant_limits,
            limits: ConcurrencyLimits::new(),
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
