//! Ids that no key has: remembered for a moment, and no more of them than were asked for.

use std::{collections::VecDeque, sync::PoisonError};

use crate::{
    sync::{Mutex, MutexGuard},
    token::LookupKey,
};

/// The unknown ids in the table in the order in which they came, the oldest first. They have a bound
/// of their own, so that made-up ids can't take the room of keys.
pub(super) struct UnknownIds {
    capacity: usize,
    queue: Mutex<VecDeque<UnknownId>>,
}

/// An id, and until when it is remembered, in milliseconds on the monotonic clock.
pub(super) struct UnknownId {
    pub(super) key: LookupKey,
    pub(super) until: u64,
}

impl UnknownIds {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            queue: Mutex::default(),
        }
    }

    pub(super) fn are_remembered(&self) -> bool {
        self.capacity > 0
    }

    /// Notes an id that has come into the table. What comes back has to leave it: the oldest, where
    /// there are too many, and up to two that have been remembered for long enough.
    pub(super) fn note(&self, id: UnknownId, now: u64) -> impl Iterator<Item = UnknownId> {
        let mut queue = self.queue();
        queue.push_back(id);
        let full = queue.len() > self.capacity;
        let mut gone = [None, None];
        for (at, gone) in gone.iter_mut().enumerate() {
            let over = queue.front().is_some_and(|oldest| oldest.until <= now);
            if over || (full && at == 0) {
                *gone = queue.pop_front();
            }
        }
        gone.into_iter().flatten()
    }

    pub(super) fn noted(&self) -> usize {
        self.queue().len()
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<UnknownId>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
