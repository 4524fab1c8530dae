//! What is known under each look-up key, and what is being read. No lock leaves this file.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    entry::{CachedKey, Found, NOWHERE},
    fence,
    flight::Flight,
    unknown::UnknownId,
};
use crate::{
    clock::Now,
    sync::{AtomicU64, Entry, Map, Ordering, map},
    token::LookupKey,
};

/// Everything that is said of one key is said under the lock of one shard: that it is cached, that
/// it is being read, that it isn't to be believed any more.
pub(super) struct Table {
    slots: Map<SlotKey, Slot, foldhash::fast::RandomState>,
    /// How often everything was invalidated.
    epoch: AtomicU64,
}

/// Two words wide, since there may be a million of them.
pub(super) enum Slot {
    Known(Arc<CachedKey>),
    /// No key has this id; remembered until then, in milliseconds on the monotonic clock.
    Unknown(u64),
    Loading(Arc<Flight>),
}

/// Hashed as three words by a fast, seeded hash. All of the bytes, since ids are public and strangers
/// choose those that they ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SlotKey(LookupKey);

impl Hash for SlotKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for bytes in self.0.as_bytes().as_chunks::<8>().0 {
            state.write_u64(u64::from_ne_bytes(*bytes));
        }
    }
}

/// What a request finds that needs a key.
pub(super) enum Seen {
    /// Read already, perhaps too long ago, and perhaps on its way to be read again.
    Key {
        key: Arc<CachedKey>,
        is_loading: bool,
    },
    Unknown,
    Nothing,
}

/// What a request gets that has found nothing to believe.
pub(super) enum Joined {
    /// Another has brought it meanwhile.
    Landed(Found),
    /// Another reads it.
    Waiting(Arc<Flight>),
    /// It is up to this one to read it.
    Leading(Arc<Flight>),
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            slots: map(foldhash::fast::RandomState::default()),
            epoch: AtomicU64::new(0),
        }
    }

    pub(super) fn see(&self, key: &LookupKey, now: &Now<'_>) -> Seen {
        let Some(slot) = self.slots.get(&SlotKey(*key)) else {
            return Seen::Nothing;
        };
        match &*slot {
            Slot::Known(key) => Seen::Key {
                key: key.clone(),
                is_loading: false,
            },
            Slot::Unknown(until) if now.monotonic() < *until => Seen::Unknown,
            Slot::Unknown(_) => Seen::Nothing,
            Slot::Loading(flight) => match &flight.previous {
                Some(key) => Seen::Key {
                    key: key.clone(),
                    is_loading: true,
                },
                None => Seen::Nothing,
            },
        }
    }

    /// Joins the load of `key`, or registers one. `is_good` says whether what is cached by now will
    /// do; who passes `None` takes nothing that was read, or begun to be read, before.
    pub(super) fn join(
        &self,
        key: &LookupKey,
        now: &Now<'_>,
        is_good: Option<&dyn Fn(&CachedKey) -> bool>,
    ) -> Joined {
        let mut entry = match self.slots.entry(SlotKey(*key)) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                let flight = self.flight(key, None);
                entry.insert(Slot::Loading(flight.clone()));
                return Joined::Leading(flight);
            }
        };
        let flight = match (entry.get(), is_good) {
            (Slot::Known(cached), Some(is_good)) if is_good(cached) => {
                return Joined::Landed(Found::Key(cached.clone()));
            }
            (Slot::Unknown(until), Some(_)) if now.monotonic() < *until => {
                return Joined::Landed(Found::Unknown);
            }
            (Slot::Loading(flight), _) if is_good.is_some() || !flight.has_begun() => {
                return Joined::Waiting(flight.clone());
            }
            (Slot::Loading(flight), _) => Arc::new(flight.overtaken()),
            (Slot::Known(cached), _) => self.flight(key, Some(cached.clone())),
            (Slot::Unknown(_), _) => self.flight(key, None),
        };
        entry.insert(Slot::Loading(flight.clone()));
        Joined::Leading(flight)
    }

    fn flight(&self, key: &LookupKey, previous: Option<Arc<CachedKey>>) -> Arc<Flight> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        Arc::new(Flight::new(*key, epoch, previous))
    }

    /// Whether the flight is still the one that its key waits for.
    pub(super) fn is_registered(&self, flight: &Arc<Flight>) -> bool {
        let slot = self.slots.get(&SlotKey(*flight.key()));
        fence::may_insert(slot.as_deref(), flight, self.epoch.load(Ordering::SeqCst))
    }

    /// Puts what `flight` has brought where the flight is registered, if it still is and nothing was
    /// invalidated since; returns whether it did.
    pub(super) fn insert(&self, flight: &Arc<Flight>, new: Slot) -> bool {
        // A key that was evicted before it came in: nothing would ever evict it.
        let has_lost_its_place = || matches!(&new, Slot::Known(key) if key.place() == NOWHERE);
        let epoch = || self.epoch.load(Ordering::SeqCst);
        match self.slots.entry(SlotKey(*flight.key())) {
            Entry::Occupied(mut entry) => {
                let may_insert = fence::may_insert(Some(entry.get()), flight, epoch());
                if may_insert && has_lost_its_place() {
                    entry.remove();
                    return false;
                }
                if may_insert {
                    entry.insert(new);
                }
                may_insert
            }
            Entry::Vacant(entry) => {
                let may_insert = fence::may_insert(None, flight, epoch());
                if may_insert {
                    entry.insert(new);
                }
                may_insert
            }
        }
    }

    /// Ends a flight that has brought nothing: what was there before is there again.
    pub(super) fn abandon(&self, flight: &Arc<Flight>) {
        let Entry::Occupied(mut entry) = self.slots.entry(SlotKey(*flight.key())) else {
            return;
        };
        if !fence::is_registered(entry.get(), flight) {
            return;
        }
        let previous = flight.previous.clone();
        match previous.filter(|key| key.place() != NOWHERE && !flight.is_stale()) {
            Some(previous) => drop(entry.insert(Slot::Known(previous))),
            None => drop(entry.remove()),
        }
    }

    /// Forgets what is known under `key`, and whoever reads it now will not be remembered. Returns
    /// the key that was cached.
    pub(super) fn invalidate(&self, key: &LookupKey) -> Option<Arc<CachedKey>> {
        let (_, slot) = self.slots.remove(&SlotKey(*key))?;
        slot.retire()
    }

    /// The same for every key. What is being read now isn't remembered even where its shard has been
    /// cleared already.
    pub(super) fn invalidate_all(&self) -> Vec<Arc<CachedKey>> {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut cached = Vec::new();
        self.slots.retain(|_, slot| {
            cached.extend(slot.retire());
            false
        });
        cached
    }

    /// Removes a key that had to make room. A flight that would fall back on it asks for its place.
    pub(super) fn evict(&self, key: &LookupKey, evicted: &Arc<CachedKey>) {
        self.slots.remove_if(
            &SlotKey(*key),
            |_, slot| matches!(slot, Slot::Known(known) if Arc::ptr_eq(known, evicted)),
        );
    }

    pub(super) fn forget_unknown(&self, id: &UnknownId) {
        self.slots.remove_if(
            &SlotKey(id.key),
            |_, slot| matches!(slot, Slot::Unknown(until) if *until == id.until),
        );
    }
}

impl Slot {
    /// Lets those who wait know that it isn't to be believed; returns the key that was cached.
    fn retire(&self) -> Option<Arc<CachedKey>> {
        match self {
            Self::Known(key) => Some(key.clone()),
            Self::Unknown(_) => None,
            Self::Loading(flight) => {
                flight.mark_stale();
                flight.previous.clone()
            }
        }
    }
}
