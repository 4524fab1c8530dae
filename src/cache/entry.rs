//! A key as the cache holds it.

use std::{
    num::NonZeroU64,
    sync::{Arc, Weak},
};

use super::watchers::{KeyWatchers, until_inactive};

use crate::{
    clock::{Moment, unix_millis},
    context::{Answer, Caller, HasCaller, Shown},
    error::Unavailable,
    key::ApiKey,
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    token::{KeyId, LookupKey},
    verify::KnownKey,
};

/// A key that was read, and since when it is believed. Contexts share it.
pub(crate) struct CachedKey {
    key: KnownKey,
    /// When its reading began.
    read_at: Moment,
    /// From when on, in milliseconds on the monotonic clock, a use is noted again; and [`TO_BE_REWRAPPED`].
    note_use_from: AtomicU64,
    /// Where reading it anew has failed: until when the source isn't asked again, in milliseconds on
    /// the monotonic clock. Otherwise 0.
    failed_until: AtomicU64,
    /// Where it stands among those that may be evicted, or [`NOWHERE`].
    place: AtomicU32,
    used_lately: AtomicBool,
    watchers: Weak<KeyWatchers>,
}

pub(super) const NOWHERE: u32 = u32::MAX;

/// Stands in one number with a time, and makes it less than any, so that most requests have one comparison to
/// make for both.
const TO_BE_REWRAPPED: u64 = 1 << 63;

impl CachedKey {
    pub(super) fn new(
        key: &ApiKey,
        read_at: Moment,
        watchers: Weak<KeyWatchers>,
        is_to_be_rewrapped: bool,
    ) -> Self {
        let rewrapped = if is_to_be_rewrapped {
            TO_BE_REWRAPPED
        } else {
            0
        };
        Self {
            key: KnownKey::of(key),
            read_at,
            note_use_from: AtomicU64::new(note_use_from(key, read_at) | rewrapped),
            failed_until: AtomicU64::new(0),
            place: AtomicU32::new(NOWHERE),
            used_lately: AtomicBool::new(false),
            watchers,
        }
    }

    pub(crate) fn key(&self) -> &KnownKey {
        &self.key
    }

    pub(super) fn id(&self) -> &KeyId {
        self.key.caller().key_id()
    }

    /// Whether it is looked up by a digest, and not by its id.
    pub(super) fn has_digest(&self) -> bool {
        self.lookup_key() != self.id().lookup_key()
    }

    pub(super) fn lookup_key(&self) -> LookupKey {
        self.key.lookup_key()
    }

    pub(crate) fn read_at(&self) -> Moment {
        self.read_at
    }

    /// Whether a use at `now`, in milliseconds on the monotonic clock, is more than let in: the key is asked
    /// further then.
    pub(crate) fn is_to_be_seen_to(&self, now: u64) -> bool {
        now.cast_signed() >= self.note_use_from.load(Ordering::Relaxed).cast_signed()
    }

    /// Whether its hash is to come under another pepper.
    pub(crate) fn is_to_be_rewrapped(&self) -> bool {
        self.note_use_from.load(Ordering::Relaxed) & TO_BE_REWRAPPED != 0
    }

    /// Whether a use at `now`, in milliseconds on the monotonic clock, is to be noted: by the one caller
    /// who is told so.
    pub(crate) fn is_use_to_be_noted(&self, now: u64) -> bool {
        let stored = self.note_use_from.load(Ordering::Relaxed);
        let rewrapped = stored & TO_BE_REWRAPPED;
        let next = now.saturating_add(USE_IS_OLD_AFTER + 1);
        let next = next.min(!TO_BE_REWRAPPED) | rewrapped;
        now >= stored ^ rewrapped
            && self
                .note_use_from
                .compare_exchange(stored, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The source couldn't be asked for it at `now`.
    pub(super) fn mark_failed(&self, now: u64) {
        let until = now.saturating_add(SPARED_MILLIS);
        self.failed_until.store(until, Ordering::Relaxed);
    }

    /// Whether the source isn't to be asked for it now: it has just failed, or has failed and is being
    /// asked again, which takes it `limit` at the most.
    pub(super) fn is_source_spared(&self, now: u64, is_loading: bool, limit: u64) -> bool {
        let until = self.failed_until.load(Ordering::Relaxed);
        now < until || (is_loading && until > 0 && now < until.saturating_add(limit))
    }

    /// Spares it from the next eviction. Written to once, and not by every request.
    pub(crate) fn mark_used(&self) {
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

    pub(super) fn has_place(&self) -> bool {
        self.place() != NOWHERE
    }

    pub(super) fn set_place(&self, place: u32) {
        self.place.store(place, Ordering::SeqCst);
    }
}

/// For how long a source isn't asked again for a key that it couldn't be asked for.
const SPARED_MILLIS: u64 = 1_000;

/// How old the last use of a key has to be before the next one is noted, in milliseconds.
pub(crate) const USE_IS_OLD_AFTER: u64 = 60_000;

/// A last use in the future, by a clock that stepped back since, is one of just now.
fn note_use_from(key: &ApiKey, read_at: Moment) -> u64 {
    let Some(last) = key.last_used_at else {
        return 0;
    };
    let age = read_at.wall.saturating_sub(unix_millis(last));
    let wait = (USE_IS_OLD_AFTER + 1).saturating_sub(age);
    if wait == 0 {
        // By the coarse clock of the request that it was read for, it may not have been read yet.
        return 0;
    }
    read_at.monotonic.saturating_add(wait).min(!TO_BE_REWRAPPED)
}

impl HasCaller for CachedKey {
    fn caller(&self) -> &Caller {
        self.key.caller()
    }

    fn ended(&self) -> Answer<()> {
        let watchers = self.watchers.clone();
        Box::pin(until_inactive(
            watchers,
            self.lookup_key(),
            *self.id(),
            self.read_at,
        ))
    }

    fn is_active(&self) -> Answer<Result<bool, Unavailable>> {
        let watchers = self.watchers.upgrade();
        let revalidate = watchers.and_then(|watchers| watchers.revalidate());
        let (key, id) = (self.lookup_key(), *self.id());
        Box::pin(async move {
            match revalidate {
                Some(revalidate) => revalidate.is_active(key, id).await,
                None => Err(Unavailable::load_failed(
                    "the store is gone that the key was in",
                )),
            }
        })
    }

    fn shown_as(
        self: Arc<Self>,
        caller: Caller,
        expires_at: Option<NonZeroU64>,
    ) -> Arc<dyn HasCaller> {
        Arc::new(Shown {
            caller,
            expires_at,
            of: self,
        })
    }
}

/// What the cache, or a load, says of an id.
#[derive(Clone)]
pub(crate) enum Found {
    Key(Arc<CachedKey>),
    /// No key has this id.
    Unknown,
}
