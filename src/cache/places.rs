//! Which key makes room for another: CLOCK over those that are cached.

use std::{
    slice,
    sync::{Arc, PoisonError},
};

use super::{
    entry::{CachedKey, NOWHERE},
    owners::Owners,
};
use crate::{
    context::HasCaller,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    token::KeyId,
};

/// As many places as the cache may hold keys. A key gets its place as it comes into the table, and gives it
/// back when it has left it: so every key in the table has one, or has just lost it and is about to leave.
///
/// Only insertions and removals come here. A hit sets a mark on the key itself.
pub(super) struct Places {
    capacity: usize,
    /// How many users and keys were invalidated. Counted up under the lock.
    generation: AtomicU64,
    clock: Mutex<ClockHand>,
}

/// The key was read before its user was invalidated.
pub(super) struct Outdated;

#[derive(Default)]
struct ClockHand {
    keys: Vec<Option<Arc<CachedKey>>>,
    free: Vec<u32>,
    hand: usize,
    owners: Owners,
}

/// How many keys that were used lately are passed over for one insertion, so that it takes no longer
/// the more there are. The hand stays where it got to.
const MAX_SPARED: usize = 1_024;

impl Places {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            generation: AtomicU64::new(0),
            clock: Mutex::default(),
        }
    }

    /// The generation of a load that is registered after this call.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Gives `key` a place: that of `previous`, a free one, or that of a key which wasn't used lately.
    /// The latter comes back and has to leave the table.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if its load has a generation before an invalidation of its user, or of its id.
    pub(super) fn give(
        &self,
        key: &Arc<CachedKey>,
        previous: Option<&Arc<CachedKey>>,
        generation: u64,
    ) -> Result<Option<Arc<CachedKey>>, Outdated> {
        let mut clock = self.clock();
        if !clock.owners.admit(key, generation) {
            return Err(Outdated);
        }
        let place = previous.and_then(|previous| clock.take_from(previous));
        let place = place.or_else(|| clock.free.pop());
        let place = match place {
            Some(place) => place,
            None if clock.keys.len() < self.capacity => {
                clock.keys.push(None);
                place_at(clock.keys.len() - 1)
            }
            None => clock.find_unused(),
        };
        Ok(clock.put(place, key.clone()))
    }

    /// Returns the cached keys of a user. No load that was registered before brings another.
    pub(super) fn invalidate_user(&self, user_id: &str) -> Vec<Arc<CachedKey>> {
        let mut clock = self.clock();
        clock.owners.invalidate(user_id, self.next_generation());
        let places = clock.owners.places_of(user_id);
        let keys = places.filter_map(|place| clock.keys.get(place as usize)?.clone());
        keys.filter(|key| key.caller().user_id() == user_id)
            .collect()
    }

    /// The same for the key with an id, where it is looked up by a digest.
    pub(super) fn invalidate_id(&self, id: &KeyId) -> Option<Arc<CachedKey>> {
        let mut clock = self.clock();
        clock.owners.invalidate(id, self.next_generation());
        let place = clock.owners.place_of(id)?;
        clock.keys.get(place as usize)?.clone()
    }

    /// Takes back the place of a key that has left the table.
    pub(super) fn take_back(&self, key: &Arc<CachedKey>) {
        self.take_back_all(slice::from_ref(key));
    }

    pub(super) fn take_back_all(&self, keys: &[Arc<CachedKey>]) {
        for some in keys.chunks(1_024) {
            let mut clock = self.clock();
            for key in some {
                if let Some(place) = clock.take_from(key) {
                    clock.free.push(place);
                }
            }
        }
    }

    pub(super) fn taken(&self) -> usize {
        let clock = self.clock();
        clock.keys.len() - clock.free.len()
    }

    fn clock(&self) -> MutexGuard<'_, ClockHand> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClockHand {
    /// The place that `key` has to give, if it has one still.
    fn take_from(&mut self, key: &Arc<CachedKey>) -> Option<u32> {
        let place = key.place();
        let taken = self.keys.get_mut(place as usize)?;
        taken.take_if(|other| Arc::ptr_eq(other, key))?;
        self.owners.unlink(place, key);
        key.set_place(NOWHERE);
        Some(place)
    }

    /// Puts `key` there, and returns the key that had the place.
    fn put(&mut self, place: u32, key: Arc<CachedKey>) -> Option<Arc<CachedKey>> {
        let evicted = self.keys[place as usize].take();
        if let Some(evicted) = &evicted {
            self.owners.unlink(place, evicted);
            evicted.set_place(NOWHERE);
        }
        self.owners.link(place, &key);
        key.set_place(place);
        self.keys[place as usize] = Some(key);
        evicted
    }

    fn find_unused(&mut self) -> u32 {
        for _ in 0..MAX_SPARED {
            let at = self.advance();
            let spared = self.keys[at].as_ref().is_some_and(|key| key.take_used());
            if !spared {
                return place_at(at);
            }
        }
        place_at(self.advance())
    }

    fn advance(&mut self) -> usize {
        let at = self.hand;
        self.hand = (at + 1) % self.keys.len();
        at
    }
}

fn place_at(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NOWHERE)
}
