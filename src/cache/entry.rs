//! A key as the cache holds it.

use std::sync::Arc;

use crate::{
    clock::{Moment, unix_millis},
    context::{Caller, HasCaller},
    key::ApiKey,
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    token::LookupKey,
    verify::KnownKey,
};

/// A key that was read, and since when it is believed. Contexts share it.
pub(crate) struct CachedKey {
    key: KnownKey,
    /// When its reading began.
    read_at: Moment,
    /// In milliseconds since 1970; 0 is never.
    last_noted_use: AtomicU64,
    /// Where it stands among those that may be evicted, or [`NOWHERE`].
    place: AtomicU32,
    used_lately: AtomicBool,
}

pub(super) const NOWHERE: u32 = u32::MAX;

impl CachedKey {
    pub(crate) fn new(key: &ApiKey, read_at: Moment) -> Self {
        Self {
            key: KnownKey::of(key),
            read_at,
            last_noted_use: AtomicU64::new(key.last_used_at.map_or(0, unix_millis)),
            place: AtomicU32::new(NOWHERE),
            used_lately: AtomicBool::new(false),
        }
    }

    pub(crate) fn key(&self) -> &KnownKey {
        &self.key
    }

    pub(super) fn lookup_key(&self) -> LookupKey {
        self.key.caller().key_id().lookup_key()
    }

    pub(super) fn read_at(&self) -> Moment {
        self.read_at
    }

    /// Notes a use at `now`, in milliseconds since 1970, if the last one is over `every` old; returns
    /// whether it did. A last use in the future, by a clock that stepped back since, is left alone.
    pub(crate) fn note_use(&self, now: u64, every: u64) -> bool {
        let last = self.last_noted_use.load(Ordering::Relaxed);
        let is_due = last == 0 || now > last.saturating_add(every);
        is_due
            && self
                .last_noted_use
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Spares it from the next eviction. Written to once, and not by every request.
    pub(super) fn mark_used(&self) {
        if !self.used_lately.load(Ordering::Relaxed) {
            self.used_lately.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn take_used(&self) -> bool {
        self.used_lately.swap(false, Ordering::Relaxed)
    }

    pub(super) fn place(&self) -> u32 {
        self.place.load(Ordering::SeqCst)
    }

    pub(super) fn set_place(&self, place: u32) {
        self.place.store(place, Ordering::SeqCst);
    }
}

impl HasCaller for CachedKey {
    fn caller(&self) -> &Caller {
        self.key.caller()
    }
}

/// What the cache, or a load, says of an id.
#[derive(Clone)]
pub(crate) enum Found {
    Key(Arc<CachedKey>),
    /// No key has this id.
    Unknown,
}
