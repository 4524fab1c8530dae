//! What is remembered of a source: keys that were read, ids that no key has, and loads under way.
//!
//! # Rules
//!
//! * A load is registered before it begins, and remembered only where it, or one that has overtaken it,
//!   is still registered when it lands ([`fence`]). An invalidation ends the registration.
//! * What was read is believed for a while after it was read, and for longer where the source is known
//!   to tell of changes ([`lease`]).
//! * Keys have places, and are evicted for other keys only ([`places`]). Ids that no key has are
//!   bounded apart from them ([`unknown`]).
//! * Here nothing waits: no lock is held across an `.await`. Under the lock of a shard of the table those of
//!   the places and of a flight may be taken, and under these none.

mod config;
mod entry;
mod fence;
mod flight;
mod lease;
mod owners;
mod places;
mod schedule;
mod stats;
mod table;
mod unknown;
mod watchers;

use std::{sync::Arc, time::Duration};

#[cfg(all(test, shuttle))]
pub(crate) use self::fence::taken_out::take_out;
pub use self::{config::CacheConfig, stats::CacheStats};
pub(crate) use self::{
    config::CheckedConfig,
    entry::{CachedKey, Found, USE_IS_OLD_AFTER},
    flight::{Flight, Outcome, Waiter},
    schedule::StalenessSchedule,
    watchers::{KeyWatchers, Revalidate, Revalidation, WatchedKey},
};
use self::{
    lease::Lease,
    places::Places,
    stats::{Counter, Striped},
    table::{Joined, Seen, Table},
    unknown::{UnknownId, UnknownIds},
};
use crate::{
    backend::{Change, TakesChanges},
    clock::{Clock, Moment, Now, millis},
    error::Unavailable,
    key::ApiKey,
    token::{KeyId, LookupKey, Peppers},
};

/// The cache of one resolver.
pub(crate) struct Cache {
    config: CheckedConfig,
    table: Table,
    places: Places,
    unknown: UnknownIds,
    lease: Lease,
    watchers: Arc<KeyWatchers>,
    /// Where hashes are brought under the current one of these.
    rewraps: Option<Peppers>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hits: Striped,
    misses: Counter,
    loads: Counter,
    reads: Counter,
    shared_loads: Counter,
    failed_loads: Counter,
    evictions: Counter,
    stale_refused: Counter,
    stale_served: Counter,
    lost_feeds: Counter,
}

/// How new an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// As new as the cache promises.
    Cached,
    /// Read after it was asked for.
    Fresh,
    /// The same, and read before all that wait, however many do: somebody revokes the key.
    Urgent,
}

/// What a request gets that wasn't answered from memory.
pub(crate) enum Begun {
    Landed(Found),
    Waiting(Waiter),
    /// The caller has to see to it that the flight lands: with [`Cache::land`].
    Leading(Waiter),
}

impl Cache {
    /// Keys under a retired one of `rewraps` are marked as such.
    pub(crate) fn new(
        config: CheckedConfig,
        rewraps: Option<Peppers>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let max_reads = (config.max_waiting_loads() / 10).max(1);
        Self {
            table: Table::new(),
            places: Places::new(config.capacity()),
            unknown: UnknownIds::new(config.unknown_capacity()),
            lease: Lease::none(),
            watchers: Arc::new(KeyWatchers::new(clock, config.schedule(), max_reads)),
            rewraps,
            counts: Counts::default(),
            config,
        }
    }

    pub(crate) fn config(&self) -> &CheckedConfig {
        &self.config
    }

    /// What is known of `key` and can be believed.
    pub(crate) fn get(&self, key: &LookupKey, now: &Now<'_>) -> Option<Found> {
        // Before the key is looked up: a proof that comes in between is one that the key may not have
        // survived.
        let is_leased = self.lease.holds(now);
        let found = match self.table.see(key, now) {
            Seen::Key { key, .. } if self.is_good(&key, now, is_leased) => Found::Key(key),
            Seen::Key { key, is_loading }
                if key.is_source_spared(now.monotonic(), is_loading, self.config.load_limit)
                    && self.may_serve_stale(&key, now) =>
            {
                self.counts.stale_served.count();
                return Some(Found::Key(key));
            }
            Seen::Unknown => Found::Unknown,
            Seen::Key { .. } | Seen::Nothing => return None,
        };
        self.counts.hits.count();
        Some(found)
    }

    /// Whether `found`, which a load has brought, answers who asked at `asked_at`. Who came while it was
    /// read gets nothing that is too old to be cached.
    pub(crate) fn answers(&self, found: &Found, asked_at: Moment, now: &Now<'_>) -> bool {
        let Found::Key(key) = found else {
            return true;
        };
        let read_at = key.read_at();
        let is_newer = read_at.monotonic >= asked_at.monotonic && read_at.wall >= asked_at.wall;
        is_newer || self.is_good(key, now, false)
    }

    /// Joins the load of a key that wasn't found, or begins one.
    pub(crate) fn begin(&self, key: &LookupKey, now: &Now<'_>, freshness: Freshness) -> Begun {
        // Here and not under a lock: the clock may be somebody's own.
        now.wall();
        let is_leased = self.lease.holds(now);
        let is_good = |cached: &CachedKey| self.is_good(cached, now, is_leased);
        let is_good: Option<&dyn Fn(&CachedKey) -> bool> = match freshness {
            Freshness::Cached => Some(&is_good),
            Freshness::Fresh | Freshness::Urgent => None,
        };
        let generation = self.places.generation();
        match self.table.join(key, now, generation, is_good) {
            Joined::Landed(found) => Begun::Landed(found),
            Joined::Waiting(waiter) => {
                self.counts.shared_loads.count();
                Begun::Waiting(waiter)
            }
            Joined::Leading(waiter) => {
                self.counts.loads.count();
                Begun::Leading(waiter)
            }
        }
    }

    /// Ends a flight, with what was read since `read_at`, or with why nothing was by then, and tells
    /// those who wait for it. Nothing that failed is remembered.
    pub(crate) fn land(
        &self,
        flight: &Arc<Flight>,
        read: Result<Option<&ApiKey>, Unavailable>,
        read_at: Moment,
    ) {
        let outcome = match read {
            Ok(Some(key)) => {
                let cached = self.remember(flight, key, read_at);
                if key.ended().is_some() {
                    // Nobody may have told of it.
                    self.watchers.changed(flight.key(), self.lease.end());
                }
                Ok(Found::Key(cached))
            }
            Ok(None) => {
                self.remember_unknown(flight, read_at);
                self.watchers.changed(flight.key(), self.lease.end());
                Ok(Found::Unknown)
            }
            Err(error) => {
                self.counts.failed_loads.count();
                if let Some(previous) = flight.previous().filter(|_| error.is_outage()) {
                    previous.mark_failed(read_at.monotonic);
                }
                self.table.abandon(flight);
                Err(error)
            }
        };
        flight.land(outcome);
    }

    /// Whether anybody waits for a load, or will find it when they come.
    pub(crate) fn is_wanted(&self, flight: &Arc<Flight>) -> bool {
        // In this order: nobody can join any more what isn't registered.
        (self.table.is_registered(flight) && !flight.is_given_up()) || flight.is_awaited()
    }

    /// What was known before a load, where that failed with `error` and it is allowed to go on working.
    pub(crate) fn instead_of(
        &self,
        flight: &Flight,
        error: &Unavailable,
        now: &Now<'_>,
    ) -> Option<Found> {
        let previous = flight.previous()?;
        if !error.is_outage() || !flight.has_begun() || !self.may_serve_stale(&previous, now) {
            return None;
        }
        // Whatever was invalidated since is gone from there.
        if !self.table.holds(flight.key(), &previous) {
            return None;
        }
        previous.mark_failed(now.monotonic());
        self.counts.stale_served.count();
        Some(Found::Key(previous))
    }

    /// Nothing that was read before this is believed any more.
    pub(crate) fn invalidate(&self, key: &LookupKey) {
        if let Some(cached) = self.table.invalidate(key) {
            self.places.take_back(&cached);
        }
        self.watchers.changed(key, self.lease.end());
    }

    /// Invalidates the key with this id, and loads in flight that may bring it. Its lookup key is
    /// not known.
    pub(crate) fn invalidate_id(&self, id: &KeyId) {
        if let Some(cached) = self.places.invalidate_id(id) {
            self.invalidate(&cached.lookup_key());
        }
    }

    /// Invalidates every cached key of `user_id`, and loads in flight that may bring one. Contexts
    /// whose key is not cached are notified by the source.
    pub(crate) fn invalidate_user(&self, user_id: &str) {
        for cached in self.places.invalidate_user(user_id) {
            self.invalidate(&cached.lookup_key());
        }
    }

    pub(crate) fn invalidate_all(&self) {
        self.places.take_back_all(&self.table.invalidate_all());
        self.watchers.all_changed(self.lease.end());
    }

    pub(crate) fn watchers(&self) -> &KeyWatchers {
        &self.watchers
    }

    /// Returns whether every change will arrive that is made within `time`.
    pub(crate) fn is_leased_for(&self, time: Duration, now: &Now<'_>) -> bool {
        let left = u64::try_from(self.lease.end().millis_left(now));
        left.is_ok_and(|left| left > millis(time))
    }

    /// Returns for how long a watched key may still be used, should it not be read again: for
    /// `max_staleness` after it was read, or after the last proof that no change was missed. Once
    /// a change has arrived, only proofs from before it count.
    pub(crate) fn remaining_validity(&self, watched: &WatchedKey, now: &Now<'_>) -> Duration {
        let read = watched.read_at.millis_left(self.config.staleness, now);
        let (lease, beyond) = match watched.unread {
            Some(unread) => (unread, 0),
            None => (self.lease.end(), self.config.serve_stale.unwrap_or(0)),
        };
        let left = read
            .max(lease.millis_left(now))
            .saturating_add_unsigned(beyond);
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    /// The source has told of every change that was made before `asked_at`.
    pub(crate) fn extend_lease(&self, asked_at: Moment) {
        self.lease.extend(asked_at, self.config.staleness);
    }

    /// The source tells of changes before they count.
    pub(crate) fn extend_lease_for_good(&self) {
        self.lease.extend_for_good();
    }

    pub(crate) fn count_miss(&self) {
        self.counts.misses.count();
    }

    pub(crate) fn count_lost_feed(&self) {
        self.counts.lost_feeds.count();
    }

    pub(crate) fn count_read(&self) {
        self.counts.reads.count();
    }

    /// Uses of keys aren't the cache's own, so it has to be told how often they couldn't be written.
    pub(crate) fn stats(&self, failed_touches: u64) -> CacheStats {
        let counts = &self.counts;
        CacheStats {
            hits: counts.hits.sum(),
            misses: counts.misses.sum(),
            loads: counts.loads.sum(),
            reads: counts.reads.sum(),
            shared_loads: counts.shared_loads.sum(),
            failed_loads: counts.failed_loads.sum(),
            evictions: counts.evictions.sum(),
            stale_refused: counts.stale_refused.sum(),
            stale_served: counts.stale_served.sum(),
            lost_feeds: counts.lost_feeds.sum(),
            entries: self.places.taken() as u64,
            unknown_entries: self.unknown.noted() as u64,
            failed_touches,
        }
    }

    #[inline]
    fn is_good(&self, cached: &CachedKey, now: &Now<'_>, is_leased: bool) -> bool {
        let read_at = cached.read_at();
        now.monotonic() < read_at.monotonic.saturating_add(self.config.time_to_live)
            && (is_leased || !read_at.is_older_than(self.config.staleness, now))
    }

    /// Whether `cached` has stopped being good less than the allowed time ago.
    fn may_serve_stale(&self, cached: &CachedKey, now: &Now<'_>) -> bool {
        self.config.serve_stale.is_some_and(|beyond| {
            let then = now.before(beyond);
            self.is_good(cached, &then, self.lease.holds(&then))
        })
    }

    fn remember(&self, flight: &Arc<Flight>, key: &ApiKey, read_at: Moment) -> Arc<CachedKey> {
        // A digest has no pepper, and stays one.
        let is_retired = |peppers: &Peppers| {
            let pepper = key.secret_hash.pepper();
            pepper.is_some_and(|pepper| peppers.is_retired(pepper))
        };
        let is_to_be_rewrapped = self.rewraps.as_ref().is_some_and(is_retired);
        let watchers = Arc::downgrade(&self.watchers);
        let cached = CachedKey::new(key, read_at, watchers, is_to_be_rewrapped);
        let cached = Arc::new(cached);
        let evict = |evicted: Arc<CachedKey>| {
            self.counts.evictions.count();
            self.table.evict(&evicted.lookup_key(), &evicted);
        };
        if !self.table.insert(flight, &cached, &self.places, evict) {
            self.refuse(flight);
        }
        cached
    }

    fn remember_unknown(&self, flight: &Arc<Flight>, read_at: Moment) {
        let until = read_at
            .monotonic
            .saturating_add(self.config.unknown_time_to_live);
        let until = Some(until).filter(|_| self.unknown.are_remembered());
        let (is_inserted, previous) = self.table.insert_unknown(flight, until);
        if let Some(previous) = previous {
            self.places.take_back(&previous);
        }
        let id = match until {
            _ if !is_inserted => return self.refuse(flight),
            None => return,
            Some(until) => UnknownId {
                key: *flight.key(),
                until,
            },
        };
        for gone in self.unknown.note(id, read_at.monotonic) {
            self.table.forget_unknown(&gone);
        }
    }

    fn refuse(&self, flight: &Flight) {
        self.counts.stale_refused.count();
        flight.mark_refused();
    }
}

impl TakesChanges for Cache {
    fn changed(&self, change: Change) {
        match change {
            Change::Key(key) => self.invalidate(&key),
            Change::Everything => self.invalidate_all(),
        }
    }
}
