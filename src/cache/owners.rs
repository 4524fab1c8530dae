//! Whose keys are cached: what is invalidated by user, or by the id of a key with a digest.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
};

use super::entry::{CachedKey, NOWHERE};
use crate::{context::HasCaller, token::KeyId};

/// An index of the cached keys by user, and by id where that is not the lookup key.
///
/// A key that is being read is in no index. So an invalidation is also noted as a generation, and
/// a load that was registered before it is refused. Generations are kept in buckets by hash: two
/// users who share one cost a read more, and nothing grows.
pub(super) struct Owners {
    hasher: RandomState,
    /// The first place of each user's list, by the hash of the user.
    heads: HashMap<u64, u32>,
    /// By place.
    links: Vec<Link>,
    digests: HashMap<KeyId, u32>,
    /// Of the last invalidation in each bucket.
    generations: Box<[u64]>,
}

#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

const UNLINKED: Link = Link {
    previous: NOWHERE,
    next: NOWHERE,
};

const BUCKETS: usize = 1_024;

impl Default for Owners {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            heads: HashMap::new(),
            links: Vec::new(),
            digests: HashMap::new(),
            generations: vec![0; BUCKETS].into(),
        }
    }
}

impl Owners {
    /// Adds the key at a place that has none.
    pub(super) fn link(&mut self, place: u32, key: &CachedKey) {
        let index = place as usize;
        if self.links.len() <= index {
            self.links.resize(index + 1, UNLINKED);
        }
        let user = self.hash(key.caller().user_id());
        let next = self.heads.insert(user, place).unwrap_or(NOWHERE);
        self.links[index] = Link {
            previous: NOWHERE,
            next,
        };
        if let Some(next) = self.links.get_mut(next as usize) {
            next.previous = place;
        }
        if key.has_digest() {
            self.digests.insert(*key.id(), place);
        }
    }

    /// Removes the key at a place.
    pub(super) fn unlink(&mut self, place: u32, key: &CachedKey) {
        let Some(link) = self.links.get_mut(place as usize) else {
            return;
        };
        let Link { previous, next } = std::mem::replace(link, UNLINKED);
        if let Some(next) = self.links.get_mut(next as usize) {
            next.previous = previous;
        }
        if let Some(previous) = self.links.get_mut(previous as usize) {
            previous.next = next;
        } else {
            let user = self.hash(key.caller().user_id());
            if next == NOWHERE {
                self.heads.remove(&user);
            } else {
                self.heads.insert(user, next);
            }
        }
        if key.has_digest() && self.digests.get(key.id()) == Some(&place) {
            self.digests.remove(key.id());
        }
    }

    /// Returns the places of the user's keys. Another user with the same hash may be among them.
    pub(super) fn places_of(&self, user_id: &str) -> impl Iterator<Item = u32> {
        let first = self.heads.get(&self.hash(user_id)).copied();
        std::iter::successors(first, |place| {
            let next = self.links.get(*place as usize)?.next;
            (next != NOWHERE).then_some(next)
        })
    }

    /// Returns the place of a key with a digest.
    pub(super) fn place_of(&self, id: &KeyId) -> Option<u32> {
        self.digests.get(id).copied()
    }

    /// Refuses loads of the owner's keys that were registered before `generation`.
    pub(super) fn invalidate(&mut self, owner: impl Hash, generation: u64) {
        let bucket = self.bucket(owner);
        self.generations[bucket] = generation;
    }

    /// Returns whether a load of `key` that was registered at `generation` may be inserted.
    pub(super) fn admit(&self, key: &CachedKey, generation: u64) -> bool {
        #[cfg(all(test, shuttle))]
        if super::fence::taken_out::is_taken_out() {
            return true;
        }
        let user = self.generations[self.bucket(key.caller().user_id())];
        let is_older = |id: &KeyId| self.generations[self.bucket(id)] <= generation;
        user <= generation && (!key.has_digest() || is_older(key.id()))
    }

    fn hash(&self, owner: impl Hash) -> u64 {
        self.hasher.hash_one(owner)
    }

    fn bucket(&self, owner: impl Hash) -> usize {
        usize::try_from(self.hash(owner) % BUCKETS as u64).unwrap_or(0)
    }
}
