//! What a resolver is made from.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{CachedResolver, Inner};
use crate::{
    backend::{DynBackend, DynSource},
    cache::{Cache, CacheConfig, CheckedConfig},
    clock::{Clock, SystemClock},
    error::ConfigError,
    events::{Emitter, EmitterSettings, EventRecorder},
    resolver::{PepperChecks, loader::Loader, rewrap::Rewrapper, touch::Toucher, watch::Watch},
    token::{Brand, DigestFormat, Peppers, TokenFormat},
};

/// What a [`CachedResolver`] is made from.
#[must_use = "nothing is made before `build`"]
pub struct CachedResolverBuilder {
    source: Arc<dyn DynSource>,
    /// Where uses are written to, and how often.
    touched: Option<(Arc<dyn DynBackend>, Duration)>,
    rewraps: bool,
    peppers: Option<Peppers>,
    clock: Arc<dyn Clock>,
    brand: Brand,
    digests: Vec<DigestFormat>,
    cache: CacheConfig,
    events: EmitterSettings,
}

impl CachedResolverBuilder {
    pub(super) fn over(source: Arc<dyn DynSource>) -> Self {
        Self {
            source,
            touched: None,
            rewraps: false,
            peppers: None,
            clock: Arc::new(SystemClock),
            brand: Brand::default(),
            digests: Vec::new(),
            cache: CacheConfig::new(),
            events: EmitterSettings::default(),
        }
    }

    /// A resolver that notes in `backend` when keys are used.
    pub(crate) fn noting_use(backend: Arc<dyn DynBackend>) -> Self {
        Self {
            touched: Some((backend.clone(), Toucher::EVERY)),
            ..Self::over(backend)
        }
    }

    pub(crate) fn note_use_every(mut self, every: Duration) -> Self {
        self.touched = self.touched.map(|(backend, _)| (backend, every));
        self
    }

    pub(crate) fn event_buffer(mut self, events: usize) -> Self {
        self.events.buffer = events;
        self
    }

    pub(crate) fn record_events(mut self, recorder: impl EventRecorder) -> Self {
        self.events.recorder = Some(Box::new(recorder));
        self
    }

    /// One that brings hashes under the current pepper, where it notes uses.
    pub(crate) fn rewrapping(mut self) -> Self {
        self.rewraps = true;
        self
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

    /// How tokens look that another issuer made, of which the source has the digests. There may be several.
    pub fn digest_format(mut self, format: DigestFormat) -> Self {
        self.digests.push(format);
        self
    }

    /// How much is remembered, and for how long.
    pub fn cache(mut self, cache: CacheConfig) -> Self {
        self.cache = cache;
        self
    }

    /// Where the time is read from, the system's clock by default. Timeouts and intervals are
    /// tokio's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the resolver. It asks the source for nothing before the first token comes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingPeppers`], [`ConfigError::Cache`], [`ConfigError::DigestFormat`].
    #[expect(
        clippy::unused_async,
        reason = "so that sources that have to be asked at start can come"
    )]
    pub async fn build(self) -> Result<CachedResolver, ConfigError> {
        let peppers = self.peppers.clone().ok_or(ConfigError::MissingPeppers)?;
        let cache = self.cache.clone().checked()?;
        if self
            .touched
            .as_ref()
            .is_some_and(|(_, every)| every.is_zero())
        {
            return Err(ConfigError::NoteUseEvery);
        }
        if self.events.buffer == 0 {
            return Err(ConfigError::EventBuffer);
        }
        let mut format = TokenFormat::new(self.brand);
        for digests in &self.digests {
            format = format.with_digests(digests.clone())?;
        }
        Ok(self.build_with(peppers, cache, format))
    }

    pub(crate) fn build_with(
        self,
        peppers: Peppers,
        cache: CheckedConfig,
        format: TokenFormat,
    ) -> CachedResolver {
        let rewraps = (self.rewraps && self.touched.is_some()).then(|| peppers.clone());
        let Self { source, clock, .. } = self;
        let cache = Arc::new(Cache::new(cache, rewraps, clock.clone()));
        let emitter = Emitter::new(self.events, clock.clone());
        let pepper_checks = self.touched.as_ref().map(|(backend, _)| {
            let (backend, peppers) = (backend.clone(), peppers.clone());
            PepperChecks::new(backend, peppers, clock.clone(), emitter.clone())
        });
        let rewrapped = pepper_checks.as_ref().filter(|_| self.rewraps);
        let rewrapped = self.touched.as_ref().zip(rewrapped);
        let resolver = CachedResolver(Arc::new(Inner {
            rewrapper: rewrapped.map(|((backend, _), checks)| {
                let (backend, cache) = (backend.clone(), cache.clone());
                let (clock, checks) = (clock.clone(), checks.clone());
                Rewrapper::new(
                    backend,
                    cache,
                    clock,
                    peppers.clone(),
                    checks,
                    emitter.clone(),
                )
            }),
            pepper_checks,
            loader: Loader::new(source.clone(), cache.clone(), clock.clone()),
            watch: Watch::new(source, cache.clone(), clock.clone()),
            toucher: self
                .touched
                .map(|(backend, every)| Toucher::new(backend, every, clock.clone())),
            emitter,
            cache,
            peppers,
            clock,
            format,
        }));
        let revalidate: Weak<Inner> = Arc::downgrade(&resolver.0);
        resolver.0.cache.watchers().revalidate_with(revalidate);
        resolver
    }
}

impl fmt::Debug for CachedResolverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedResolverBuilder")
            .field("peppers", &self.peppers)
            .field("clock", &self.clock)
            .field("brand", &self.brand)
            .field("digests", &self.digests)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}
