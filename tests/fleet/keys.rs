//! The keys that are asked for, and what has become of each.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::NODES;

pub struct Key {
    pub token: String,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    /// Since when it may be revoked.
    pub begun: Option<Instant>,
    /// Since when it is.
    pub revoked: Option<Revoked>,
    /// When the last request began that each node accepted.
    pub accepted: [Option<Instant>; NODES],
    /// When each node's first rejection had come.
    pub rejected: [Option<Instant>; NODES],
    /// The nodes that have rejected it when they had to.
    pub settled: [bool; NODES],
}

#[derive(Debug, Clone, Copy)]
pub struct Revoked {
    /// When `revoke` had answered.
    pub at: Instant,
    /// The node that answered; none if it was done in the database.
    pub by: Option<usize>,
}

impl Key {
    pub fn new(token: String) -> Self {
        Self {
            token,
            state: Mutex::default(),
        }
    }

    /// The public half.
    pub fn id(&self) -> &str {
        self.token.split('.').nth(1).unwrap()
    }

    /// Its first characters, which are enough here.
    pub fn name(&self) -> &str {
        &self.id()[..12]
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin_revocation(&self) {
        self.state().begun.get_or_insert_with(Instant::now);
    }

    pub fn end_revocation(&self, by: Option<usize>) {
        let at = Instant::now();
        self.state().revoked = Some(Revoked { at, by });
    }

    pub fn is_settled(&self) -> bool {
        self.state().settled == [true; NODES]
    }
}

/// What the load asks for.
#[derive(Default)]
pub struct Rotation(Mutex<Vec<Arc<Key>>>);

impl Rotation {
    pub fn add(&self, key: &Arc<Key>) {
        self.keys().push(key.clone());
    }

    /// Drops those that every node has rejected in time.
    pub fn drop_settled(&self) {
        self.keys().retain(|key| !key.is_settled());
    }

    pub fn unsettled(&self) -> Vec<Arc<Key>> {
        let keys = self.keys();
        let is_revoked = |key: &&Arc<Key>| key.state().revoked.is_some() && !key.is_settled();
        keys.iter().filter(is_revoked).cloned().collect()
    }

    pub fn at(&self, draw: usize) -> Option<Arc<Key>> {
        let keys = self.keys();
        let count = keys.len().max(1);
        keys.get(draw % count).cloned()
    }

    fn keys(&self) -> MutexGuard<'_, Vec<Arc<Key>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
