//! One load of one key, and those who wait for it.

use std::sync::{Arc, PoisonError};

use super::entry::{CachedKey, Found};
use crate::{
    error::Unavailable,
    sync::{AtomicBool, Mutex, MutexGuard, Ordering, watch},
    token::LookupKey,
};

/// A load that was asked for. It belongs to nobody who waits for it.
pub(crate) struct Flight {
    key: LookupKey,
    /// How often everything had been invalidated when it was asked for.
    pub(super) epoch: u64,
    /// How many users and keys had been invalidated then.
    pub(super) generation: u64,
    /// How many flights it has overtaken.
    number: u64,
    /// Its lock is taken under that of the shard.
    previous: Mutex<Previous>,
    began: AtomicBool,
    /// Shared with the flights that this one has overtaken: they are all on the way to one key.
    stale: Arc<AtomicBool>,
    refused: AtomicBool,
    given_up: AtomicBool,
    outcome: watch::Sender<Option<Outcome>>,
}

/// What was cached before. A load that was overtaken may bring something newer, but not one that had been
/// overtaken by the one that has brought it.
#[derive(Clone)]
struct Previous {
    key: Option<Arc<CachedKey>>,
    brought_by: Option<u64>,
}

pub(crate) type Outcome = Result<Found, Unavailable>;

impl Flight {
    pub(super) fn new(
        key: LookupKey,
        epoch: u64,
        generation: u64,
        previous: Option<Arc<CachedKey>>,
    ) -> Self {
        Self {
            key,
            epoch,
            generation,
            number: 0,
            previous: Mutex::new(Previous {
                key: previous,
                brought_by: None,
            }),
            began: AtomicBool::new(false),
            stale: Arc::new(AtomicBool::new(false)),
            refused: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            outcome: watch::channel(None).0,
        }
    }

    /// Another that takes the place of this one, since it has to be newer.
    pub(super) fn overtaken(&self) -> Self {
        Self {
            stale: self.stale.clone(),
            number: self.number + 1,
            previous: Mutex::new(self.lock_previous().clone()),
            ..Self::new(self.key, self.epoch, self.generation, None)
        }
    }

    /// Whether both are on the way to one key, and the one has overtaken the other.
    pub(super) fn is_of_one_chain(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stale, &other.stale)
    }

    pub(super) fn previous(&self) -> Option<Arc<CachedKey>> {
        self.lock_previous().key.clone()
    }

    /// Whether `overtaken` may bring what was cached before.
    pub(super) fn takes_from(&self, overtaken: &Self) -> bool {
        let brought_by = self.lock_previous().brought_by;
        brought_by.is_none_or(|newest| newest < overtaken.number)
    }

    pub(super) fn take_from(&self, overtaken: &Self, key: Arc<CachedKey>) {
        *self.lock_previous() = Previous {
            key: Some(key),
            brought_by: Some(overtaken.number),
        };
    }

    fn lock_previous(&self) -> MutexGuard<'_, Previous> {
        self.previous.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key(&self) -> &LookupKey {
        &self.key
    }

    /// From now on the source is being read: who needs what is newer than this can't join.
    pub(crate) fn begin(&self) {
        self.began.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.began.load(Ordering::SeqCst)
    }

    /// The key changed after the load was asked for: what it brings is news of yesterday, and so is
    /// what the flights bring that it has overtaken.
    pub(super) fn mark_stale(&self) {
        self.stale.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::SeqCst)
    }

    /// What it brings isn't remembered: whoever is content with what is cached looks there again.
    pub(super) fn mark_refused(&self) {
        self.refused.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    /// Somebody has waited for it for too long: the next one needn't wait for the same load.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.outcome.receiver_count() > 0
    }

    pub(super) fn land(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Waits from this call on. To be called where the flight is known to be registered.
    pub(super) fn wait(self: &Arc<Self>) -> Waiter {
        Waiter {
            flight: self.clone(),
            outcome: self.outcome.subscribe(),
        }
    }
}

/// Somebody who waits for a flight. They may go away at any time: the load goes on.
pub(crate) struct Waiter {
    flight: Arc<Flight>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Waiter {
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// What the load brings.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        let landed = self.outcome.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(Unavailable::load_failed("the load was given up")),
        }
    }
}
