//! How large the cache is, and how long it believes what it holds.

use std::time::Duration;

use super::schedule::StalenessSchedule;
use crate::{
    clock::{COARSE, millis},
    error::ConfigError,
};

/// How many keys a cache holds, how long it believes them, and how it reads those that it doesn't
/// hold.
///
/// ```
/// # async fn run(backend: tower_api_key::MemoryBackend) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_api_key::{ApiKeyStore, CacheConfig, Peppers};
///
/// let cache = CacheConfig::new().capacity(1_000_000).max_staleness(Duration::from_secs(2));
/// let store = ApiKeyStore::builder(backend).peppers(Peppers::ephemeral()).cache(cache).build().await?;
/// # Ok(()) }
/// ```
///
/// How long a key is believed depends on what its source [tells](crate::Subscription) of changes:
///
/// | the source | a key is believed until |
/// | --- | --- |
/// | tells nothing | the shorter of `max_staleness` and `time_to_live` after it was read |
/// | has a feed of changes | a change of it is told; at most `max_staleness` after the feed last answered, and `time_to_live` after the key was read |
/// | tells directly | a change of it is told; at most `time_to_live` after it was read |
///
/// What is changed through the store itself counts at once in any case.
///
/// Settings that can't work are errors when the store or the resolver is built.
#[derive(Debug, Clone)]
#[must_use = "nothing is cached before it is given to a builder"]
pub struct CacheConfig {
    capacity: usize,
    time_to_live: Duration,
    max_staleness: Duration,
    unknown_capacity: usize,
    unknown_time_to_live: Duration,
    max_loads: usize,
    max_waiting_loads: usize,
    load_timeout: Duration,
    serve_stale: Option<Duration>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl CacheConfig {
    /// The defaults that each method names.
    pub const fn new() -> Self {
        Self {
            capacity: 100_000,
            time_to_live: Duration::from_secs(60),
            max_staleness: Duration::from_secs(5),
            unknown_capacity: 10_000,
            unknown_time_to_live: Duration::from_secs(1),
            max_loads: 4,
            max_waiting_loads: 10_000,
            load_timeout: Duration::from_secs(3),
            serve_stale: None,
        }
    }

    /// How many keys are remembered, 100,000 by default; about 400 bytes each. Where there are more,
    /// those that weren't used lately make room.
    pub const fn capacity(mut self, keys: usize) -> Self {
        self.capacity = keys;
        self
    }

    /// After how long a key is read again whatever the source has told, 60 seconds by default.
    pub const fn time_to_live(mut self, limit: Duration) -> Self {
        self.time_to_live = limit;
        self
    }

    /// How long a change that is made elsewhere may go unnoticed, 5 seconds by default: a key is
    /// believed for so long after it was read, or after the source last proved that it
    /// [tells of changes](crate::KeySource::subscribe), whichever came later. It holds while
    /// the connection that carries changes is dead.
    ///
    /// Changes through the same store count at once.
    pub const fn max_staleness(mut self, limit: Duration) -> Self {
        self.max_staleness = limit;
        self
    }

    /// How many ids are remembered that no key has, 10,000 by default. They take no room from keys.
    pub const fn unknown_capacity(mut self, ids: usize) -> Self {
        self.unknown_capacity = ids;
        self
    }

    /// For how long an id is remembered that no key has, 1 second by default.
    pub const fn unknown_time_to_live(mut self, limit: Duration) -> Self {
        self.unknown_time_to_live = limit;
        self
    }

    /// How many reads of the source are under way at once, 4 by default. What is asked for meanwhile
    /// waits, and is then read together, up to 256 keys at once.
    pub const fn max_loads(mut self, reads: usize) -> Self {
        self.max_loads = reads;
        self
    }

    /// How many keys may wait to be read, 10,000 by default. Requests for further ones are answered
    /// 503.
    pub const fn max_waiting_loads(mut self, keys: usize) -> Self {
        self.max_waiting_loads = keys;
        self
    }

    /// How long a request waits for its key to be read, and how long one read may take, 3 seconds by
    /// default. Then the request is answered 503.
    pub const fn load_timeout(mut self, limit: Duration) -> Self {
        self.load_timeout = limit;
        self
    }

    /// Lets keys that are in the cache go on working for so much longer while the source can't
    /// answer. Off by default.
    ///
    /// **A key that is revoked meanwhile, elsewhere, works until the source answers again, or until
    /// this much time has passed beyond what the table above says.** Secrets and expiry
    /// are checked all the same. A record that can't be read is no outage: its key is answered 503.
    pub const fn serve_stale(mut self, beyond: Duration) -> Self {
        self.serve_stale = Some(beyond);
        self
    }

    pub(crate) fn checked(self) -> Result<CheckedConfig, ConfigError> {
        let error = |setting, problem| Err(ConfigError::Cache { setting, problem });
        let Self {
            capacity,
            max_loads,
            ..
        } = self;
        if capacity == 0 || capacity >= MAX_KEYS {
            return error("capacity", "must be between 1 and 4,000,000,000 keys");
        }
        if self.unknown_capacity >= MAX_KEYS {
            return error("unknown_capacity", "must be at most 4,000,000,000 ids");
        }
        if max_loads == 0 {
            return error("max_loads", "must be at least 1");
        }
        if self.max_waiting_loads == 0 {
            return error("max_waiting_loads", "must be at least 1");
        }
        if !(LEAST_STALENESS..=LONGEST).contains(&self.max_staleness) {
            return error("max_staleness", "must be between 50 milliseconds and a day");
        }
        if !(LEAST_STALENESS..=LONGEST).contains(&self.time_to_live) {
            return error("time_to_live", "must be between 50 milliseconds and a day");
        }
        if self.unknown_time_to_live.is_zero() || self.unknown_time_to_live > MAX_UNKNOWN {
            return error(
                "unknown_time_to_live",
                "must be more than 0 and at most a minute",
            );
        }
        if self.load_timeout.is_zero() || self.load_timeout > LONGEST {
            return error("load_timeout", "must be more than 0 and at most a day");
        }
        if self
            .serve_stale
            .is_some_and(|beyond| beyond.is_zero() || beyond > LONGEST)
        {
            return error("serve_stale", "must be more than 0 and at most a day");
        }
        Ok(CheckedConfig::new(self))
    }
}

/// The places of keys are counted in 32 bits.
const MAX_KEYS: usize = 4_000_000_001;
/// Several times what a coarse clock is late.
const LEAST_STALENESS: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_UNKNOWN: Duration = Duration::from_secs(60);

/// Settings that can work, with times in milliseconds, as they are compared on every request.
#[derive(Debug, Clone)]
pub(crate) struct CheckedConfig {
    pub(super) time_to_live: u64,
    pub(super) staleness: u64,
    pub(super) unknown_time_to_live: u64,
    pub(super) serve_stale: Option<u64>,
    pub(super) load_limit: u64,
    given: CacheConfig,
}

impl Default for CheckedConfig {
    fn default() -> Self {
        Self::new(CacheConfig::new())
    }
}

impl CheckedConfig {
    fn new(given: CacheConfig) -> Self {
        // A little less than asked for: the time may be read a little late.
        let early = |limit: Duration| millis(limit.saturating_sub(COARSE));
        Self {
            time_to_live: early(given.time_to_live),
            staleness: early(given.max_staleness),
            unknown_time_to_live: millis(given.unknown_time_to_live).max(1),
            serve_stale: given.serve_stale.map(millis),
            load_limit: millis(given.load_timeout),
            given,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.given.capacity
    }

    pub(super) fn unknown_capacity(&self) -> usize {
        self.given.unknown_capacity
    }

    pub(crate) fn schedule(&self) -> StalenessSchedule {
        StalenessSchedule::new(self.given.max_staleness)
    }

    pub(crate) fn max_loads(&self) -> usize {
        self.given.max_loads
    }

    pub(crate) fn max_waiting_loads(&self) -> usize {
        self.given.max_waiting_loads
    }

    pub(crate) fn load_timeout(&self) -> Duration {
        self.given.load_timeout
    }
}
