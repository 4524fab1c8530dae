//! What is known under each look-up key, and what is being read. No lock leaves this file.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    entry::{CachedKey, Found},
    fence,
    flight::{Flight, Waiter},
    places::Places,
    unknown::UnknownId,
};
use crate::{
    clock::Now,
    sync::{AtomicU64, Entry, Map, OccupiedEntry, Ordering, map},
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
    Waiting(Waiter),
    /// It is up to this one to read it.
    Leading(Waiter),
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
            // Without its place it is in no index, and no invalidation of its user finds it.
            Slot::Loading(flight) => match flight.previous().filter(|key| key.has_place()) {
                Some(key) => Seen::Key {
                    key,
                    is_loading: true,
                },
                None => Seen::Nothing,
            },
        }
    }

    /// Joins the load of `key`, or registers one with a `generation`. `is_good` says whether what
    /// is cached by now will do; who passes `None` takes nothing that was read, or begun to be read, before.
    pub(super) fn join(
        &self,
        key: &LookupKey,
        now: &Now<'_>,
        generation: u64,
        is_good: Option<&dyn Fn(&CachedKey) -> bool>,
    ) -> Joined {
        let flight = |previous| self.flight(key, generation, previous);
        let mut entry = match self.slots.entry(SlotKey(*key)) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                let flight = flight(None);
                let waiter = flight.wait();
                entry.insert(Slot::Loading(flight));
                return Joined::Leading(waiter);
            }
        };
        let flight = match (entry.get(), is_good) {
            (Slot::Known(cached), Some(is_good)) if is_good(cached) => {
                return Joined::Landed(Found::Key(cached.clone()));
            }
            (Slot::Unknown(until), Some(_)) if now.monotonic() < *until => {
                return Joined::Landed(Found::Unknown);
            }
            (Slot::Loading(flight), _)
                if !flight.is_given_up() && (is_good.is_some() || !flight.has_begun()) =>
            {
                return Joined::Waiting(flight.wait());
            }
            (Slot::Loading(flight), _) => Arc::new(flight.overtaken()),
            (Slot::Known(cached), _) => flight(Some(cached.clone())),
            (Slot::Unknown(_), _) => flight(None),
        };
        let waiter = flight.wait();
        entry.insert(Slot::Loading(flight));
        Joined::Leading(waiter)
    }

    fn flight(
        &self,
        key: &LookupKey,
        generation: u64,
        previous: Option<Arc<CachedKey>>,
    ) -> Arc<Flight> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        Arc::new(Flight::new(*key, epoch, generation, previous))
    }

    /// Whether the flight is still the one that its key waits for.
    pub(super) fn is_registered(&self, flight: &Arc<Flight>) -> bool {
        let slot = self.slots.get(&SlotKey(*flight.key()));
        slot.is_some_and(|slot| fence::is_registered(&slot, flight))
    }

    /// Whether `cached` is what is known under its key.
    pub(super) fn holds(&self, key: &LookupKey, cached: &Arc<CachedKey>) -> bool {
        let Some(slot) = self.slots.get(&SlotKey(*key)) else {
            return false;
        };
        match &*slot {
            Slot::Known(known) => Arc::ptr_eq(known, cached),
            Slot::Loading(flight) => {
                let previous = flight.previous().filter(|key| key.has_place());
                previous.is_some_and(|previous| Arc::ptr_eq(&previous, cached))
            }
            Slot::Unknown(_) => false,
        }
    }

    /// Puts the key that `flight` has brought where the flight is registered, if it may; returns
    /// whether it did. A flight that was overtaken leaves it to the one that has.
    ///
    /// The key gets its place under the same lock, so that every key in the table has one. Which other
    /// key has to make room for it is said to `evict`, when the lock is gone.
    pub(super) fn insert(
        &self,
        flight: &Arc<Flight>,
        new: &Arc<CachedKey>,
        places: &Places,
        evict: impl FnOnce(Arc<CachedKey>),
    ) -> bool {
        let evicted = {
            let entry = self.slots.entry(SlotKey(*flight.key()));
            let registered = match &entry {
                Entry::Occupied(entry) => Some(entry.get()),
                Entry::Vacant(_) => None,
            };
            let epoch = self.epoch.load(Ordering::SeqCst);
            if !fence::may_insert(registered, flight, epoch) {
                return false;
            }
            match entry {
                Entry::Occupied(mut entry) => {
                    let registered = match entry.get() {
                        Slot::Loading(registered) => Some(registered.clone()),
                        _ => None,
                    };
                    let previous = registered.as_ref().and_then(|flight| flight.previous());
                    let next = registered.filter(|next| !Arc::ptr_eq(next, flight));
                    if next.as_ref().is_some_and(|next| !next.takes_from(flight)) {
                        return false;
                    }
                    let given = places.give(new, previous.as_ref(), flight.generation);
                    let Ok(evicted) = given else {
                        // Requests that wait read it again.
                        flight.mark_stale();
                        if next.is_none() {
                            end_registration(entry, previous);
                        }
                        return false;
                    };
                    match next {
                        Some(next) => next.take_from(flight, new.clone()),
                        None => drop(entry.insert(Slot::Known(new.clone()))),
                    }
                    evicted
                }
                Entry::Vacant(entry) => {
                    let Ok(evicted) = places.give(new, None, flight.generation) else {
                        flight.mark_stale();
                        return false;
                    };
                    entry.insert(Slot::Known(new.clone()));
                    evicted
                }
            }
        };
        if let Some(evicted) = evicted {
            evict(evicted);
        }
        true
    }

    /// Notes until when no key is known to have the id that `flight` was on the way to, if it is still
    /// registered and may; returns whether it did, and the key that was cached.
    pub(super) fn insert_unknown(
        &self,
        flight: &Arc<Flight>,
        until: Option<u64>,
    ) -> (bool, Option<Arc<CachedKey>>) {
        let Entry::Occupied(mut entry) = self.slots.entry(SlotKey(*flight.key())) else {
            return (false, None);
        };
        let epoch = self.epoch.load(Ordering::SeqCst);
        let may_insert = fence::may_insert(Some(entry.get()), flight, epoch);
        if !may_insert || !fence::is_registered(entry.get(), flight) {
            return (false, None);
        }
        match until {
            Some(until) => drop(entry.insert(Slot::Unknown(until))),
            None => drop(entry.remove()),
        }
        (true, flight.previous())
    }

    /// Ends a flight that has brought nothing: what was there before is there again.
    pub(super) fn abandon(&self, flight: &Arc<Flight>) {
        let Entry::Occupied(entry) = self.slots.entry(SlotKey(*flight.key())) else {
            return;
        };
        if fence::is_registered(entry.get(), flight) {
            end_registration(entry, flight.previous());
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

/// Ends a load that has brought nothing: what was there before is there again, where it has its
/// place still.
fn end_registration(mut entry: OccupiedEntry<'_, SlotKey, Slot>, previous: Option<Arc<CachedKey>>) {
    match previous.filter(|key| key.has_place()) {
        Some(previous) => drop(entry.insert(Slot::Known(previous))),
        None => drop(entry.remove()),
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
                flight.previous()
            }
        }
    }
}
