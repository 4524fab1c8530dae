//! The resolver over any source.

mod builder;
mod revalidate;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::builder::CachedResolverBuilder;
use super::{
    KeyResolver, PepperChecks, loader::Loader, rewrap::Rewrapper, touch::Toucher, watch::Watch,
};
use crate::{
    backend::KeySource,
    cache::{Begun, Cache, CacheStats, CachedKey, Flight, Found, Freshness, Outcome},
    clock::{Clock, Moment, Now, storable},
    context::AuthContext,
    error::{StoreError, Unavailable},
    events::Emitter,
    key::{ApiKey, KeyStatus},
    sync::{in_runtime, timeout},
    token::{ApiKeyToken, Brand, KeyId, LookupKey, Peppers, TokenFormat},
    verify::{VerifyError, verify},
};

/// Reads the keys of tokens from a [`KeySource`], remembers them, and verifies each token. Clones are
/// one resolver with one cache.
///
/// A token whose key is remembered is verified without waiting: its secret, its expiry, and whether
/// it was revoked. What is remembered, and for how long, is set with a [`CacheConfig`](crate::CacheConfig).
///
/// It reads in tasks of its own, so it needs a tokio runtime with timers, as `#[tokio::main]` makes.
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

/// When the last handle goes, the tasks end with it.
struct Inner {
    cache: Arc<Cache>,
    loader: Arc<Loader>,
    watch: Watch,
    toucher: Option<Toucher>,
    emitter: Emitter,
    rewrapper: Option<Rewrapper>,
    /// Only a store's backend keeps check values.
    pepper_checks: Option<Arc<PepperChecks>>,
    peppers: Peppers,
    clock: Arc<dyn Clock>,
    format: TokenFormat,
}

type Checked = Result<Arc<CachedKey>, VerifyError>;

/// How often a key is read again that changes while it is read, before the last answer will do.
const ATTEMPTS: usize = 3;

impl CachedResolver {
    /// A resolver over `source`. Peppers have to be given.
    pub fn builder(source: impl KeySource) -> CachedResolverBuilder {
        CachedResolverBuilder::over(Arc::new(source))
    }

    /// What the cache has done, and what it holds.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        let failed_touches = self.0.toucher.as_ref().map_or(0, Toucher::failures);
        self.0.cache.stats(failed_touches)
    }

    /// Ends the background tasks. Keys are still verified, and believed for
    /// [`max_staleness`](crate::CacheConfig::max_staleness) after each was read where the source has a feed
    /// of changes, since nobody listens to it any more. Dropping the last clone ends the tasks, too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where it couldn't be written when keys were last used: only the
    /// resolver in an [`ApiKeyStore`](crate::ApiKeyStore) writes that.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.0.watch.stop();
        if let Some(rewrapper) = &self.0.rewrapper {
            rewrapper.shut_down();
        }
        let written = match &self.0.toucher {
            Some(toucher) => toucher.shut_down().await,
            None => Ok(()),
        };
        let recorded = self.0.emitter.shut_down().await;
        Ok(written.and(recorded)?)
    }

    /// Forgets all that is cached. What is being read now is read again.
    ///
    /// For an operator who has changed keys behind the back of a source that tells nothing, and can't
    /// wait for [`max_staleness`](crate::CacheConfig::max_staleness).
    pub fn invalidate_all(&self) {
        self.0.cache.invalidate_all();
    }

    /// The key of `token`, where it is good now. Doesn't count as a use.
    pub(crate) async fn check(&self, token: &ApiKeyToken, freshness: Freshness) -> Checked {
        if freshness == Freshness::Cached
            && let Some(checked) = self.check_now(token, &self.coarse())
        {
            return checked;
        }
        let found = self.find(token, freshness).await?;
        self.verified(token, found, &self.coarse())
    }

    /// Which key `token` is of, and how that stands: from its record, which is read for it. A token needn't
    /// say which key it is of.
    pub(crate) async fn identify(
        &self,
        token: &ApiKeyToken,
    ) -> Result<(KeyId, KeyStatus), VerifyError> {
        let found = self.find(token, Freshness::Urgent).await?;
        let Found::Key(key) = &found else {
            let verified = self.verified(token, found, &self.coarse());
            return Err(verified.err().unwrap_or(VerifyError::Unknown));
        };
        let id = *key.key().caller().key_id();
        let status = match self.verified(token, found, &self.coarse()) {
            Ok(_) => KeyStatus::Active,
            Err(VerifyError::Expired) => KeyStatus::Expired,
            Err(VerifyError::Disabled) => KeyStatus::Disabled,
            Err(VerifyError::Revoked) => KeyStatus::Revoked,
            Err(error) => return Err(error),
        };
        Ok((id, status))
    }

    async fn find(&self, token: &ApiKeyToken, freshness: Freshness) -> Result<Found, VerifyError> {
        // A token that another store's format has parsed.
        if !self.0.format.is_of(token) {
            return Err(VerifyError::Unknown);
        }
        let found = self.load(&token.lookup_key(), freshness).await;
        found.map_err(VerifyError::Unavailable)
    }

    /// The same from memory alone.
    fn check_now(&self, token: &ApiKeyToken, now: &Now<'_>) -> Option<Checked> {
        if !self.0.format.is_of(token) {
            return None;
        }
        let found = self.0.cache.get(&token.lookup_key(), now)?;
        let checked = self.verified(token, found, now);
        // Only now: a wrong secret must not spare the key from eviction.
        if let Ok(key) = &checked {
            key.mark_used();
        }
        Some(checked)
    }

    fn verified(&self, token: &ApiKeyToken, found: Found, now: &Now<'_>) -> Checked {
        let key = match &found {
            Found::Key(key) => Some(key.key()),
            Found::Unknown => None,
        };
        verify(token, key, &self.0.peppers, now)?;
        match found {
            Found::Key(key) => Ok(key),
            Found::Unknown => Err(VerifyError::Unknown),
        }
    }

    async fn load(&self, key: &LookupKey, freshness: Freshness) -> Result<Found, Unavailable> {
        if !in_runtime() {
            return Err(Unavailable::load_failed(
                "there is no tokio runtime to read the key on",
            ));
        }
        self.0.watch.ensure_started();
        self.0.cache.count_miss();
        let limit = self.0.cache.config().load_timeout();
        let mut waited_for = None;
        let read = timeout(limit, self.read(key, freshness, &mut waited_for)).await;
        let read = read.unwrap_or_else(|_| {
            if let Some(flight) = &waited_for {
                flight.give_up();
            }
            Err(Unavailable::too_slow())
        });
        read.or_else(|error| {
            let stale = match (freshness, &waited_for) {
                (Freshness::Cached, Some(flight)) => {
                    self.0.cache.instead_of(flight, &error, &self.coarse())
                }
                _ => None,
            };
            stale.ok_or(error)
        })
    }

    /// Reads `key`, or waits for another who does. A key that has changed meanwhile is read again.
    async fn read(
        &self,
        key: &LookupKey,
        freshness: Freshness,
        waited_for: &mut Option<Arc<Flight>>,
    ) -> Outcome {
        let asked_at = Moment::coarse(&*self.0.clock);
        let mut attempts = 0;
        loop {
            let mut waiter = match self.0.cache.begin(key, &self.coarse(), freshness) {
                Begun::Landed(found) => return Ok(found),
                Begun::Waiting(waiter) => waiter,
                Begun::Leading(waiter) => {
                    let is_urgent = freshness == Freshness::Urgent;
                    self.0.loader.load(waiter.flight(), is_urgent);
                    waiter
                }
            };
            let flight = &*waited_for.insert(waiter.flight().clone());
            let outcome = self.0.loader.outcome(&mut waiter).await;
            let is_over = match freshness {
                Freshness::Cached => flight.is_stale() || flight.is_refused(),
                Freshness::Fresh | Freshness::Urgent => flight.is_stale(),
            };
            let answers = |found| self.0.cache.answers(found, asked_at, &self.coarse());
            let is_too_old = outcome.as_ref().is_ok_and(|found| !answers(found));
            attempts += 1;
            match attempts {
                _ if !is_over && !is_too_old => return outcome,
                ATTEMPTS if is_too_old => return Err(Unavailable::too_slow()),
                ATTEMPTS => return outcome,
                _ => {}
            }
        }
    }

    fn accepted(&self, token: &ApiKeyToken, key: Arc<CachedKey>, now: &Now<'_>) -> AuthContext {
        if let Some(toucher) = &self.0.toucher
            && key.is_to_be_seen_to(now.monotonic())
        {
            self.see_to(toucher, token, &key, now);
        }
        AuthContext::of(key)
    }

    /// Where it is told what happens.
    pub(crate) fn emitter(&self) -> &Emitter {
        &self.0.emitter
    }

    /// Seldom, and out of the way of all other requests.
    #[cold]
    #[inline(never)]
    fn see_to(&self, toucher: &Toucher, token: &ApiKeyToken, key: &CachedKey, now: &Now<'_>) {
        toucher.used(key, now);
        if let Some(checks) = &self.0.pepper_checks {
            checks.confirmed(key.key().secret_hash().pepper());
        }
        if let Some(rewrapper) = &self.0.rewrapper
            && key.is_to_be_rewrapped()
        {
            rewrapper.used(token, key, now);
        }
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }

    /// Nothing that was read of the key `id` before this is believed any more. Its record is gone, so that it
    /// isn't said what it was looked up by, where that isn't the id.
    pub(crate) fn forget(&self, id: &KeyId) {
        self.0.cache.invalidate(&id.lookup_key());
        if self.0.format.has_digests() {
            self.0.cache.invalidate_id(id);
        }
    }

    /// Puts into `key` what isn't written yet of its last use.
    pub(crate) fn overlay(&self, key: &mut ApiKey) {
        if let Some(toucher) = &self.0.toucher {
            toucher.overlay(key);
        }
    }

    pub(crate) fn pepper_checks(&self) -> Option<&Arc<PepperChecks>> {
        self.0.pepper_checks.as_ref()
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

    /// The time on the monotonic clock.
    pub(crate) fn monotonic(&self) -> Duration {
        self.0.clock.monotonic()
    }

    fn coarse(&self) -> Now<'_> {
        Now::of(&*self.0.clock)
    }
}

impl KeyResolver for CachedResolver {
    async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        self.resolve_as(token, Freshness::Cached).await
    }

    async fn resolve_fresh(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        self.resolve_as(token, Freshness::Fresh).await
    }

    fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
        let now = self.coarse();
        let checked = self.check_now(token, &now)?;
        Some(match checked {
            Ok(key) => Ok(self.accepted(token, key, &now)),
            Err(error) => {
                self.0.emitter.rejected(token.key_id(), &error);
                Err(error)
            }
        })
    }

    fn token_format(&self) -> &TokenFormat {
        &self.0.format
    }
}

impl CachedResolver {
    async fn resolve_as(
        &self,
        token: &ApiKeyToken,
        freshness: Freshness,
    ) -> Result<AuthContext, VerifyError> {
        let key = self
            .check(token, freshness)
            .await
            .inspect_err(|error| self.0.emitter.rejected(token.key_id(), error))?;
        Ok(self.accepted(token, key, &self.coarse()))
    }
}

impl fmt::Debug for CachedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedResolver")
            .field("peppers", &self.0.peppers)
            .field("clock", &self.0.clock)
            .field("format", &self.0.format)
            .field("stats", &self.cache_stats())
            .finish_non_exhaustive()
    }
}
