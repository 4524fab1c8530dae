//! One load of one key, and those who wait for it.

use std::sync::Arc;

use super::entry::{CachedKey, Found};
use crate::{
    error::Unavailable,
    sync::{AtomicBool, Ordering, watch},
    token::LookupKey,
};

/// A load that was asked for. It belongs to nobody who waits for it.
pub(crate) struct Flight {
    key: LookupKey,
    /// How often everything had been invalidated when it was asked for.
    pub(super) epoch: u64,
    /// What was cached before, too old to be believed.
    pub(super) previous: Option<Arc<CachedKey>>,
    began: AtomicBool,
    /// Shared with the flights that this one has overtaken: they are all on the way to one key.
    stale: Arc<AtomicBool>,
    refused: AtomicBool,
    outcome: watch::Sender<Option<Outcome>>,
}

pub(crate) type Outcome = Result<Found, Unavailable>;

impl Flight {
    pub(super) fn new(key: LookupKey, epoch: u64, previous: Option<Arc<CachedKey>>) -> Self {
        Self {
            key,
            epoch,
            previous,
            began: AtomicBool::new(false),
            stale: Arc::new(AtomicBool::new(false)),
            refused: AtomicBool::new(false),
            outcome: watch::channel(None).0,
        }
    }

    /// Another that takes the place of this one, since it has to be newer.
    pub(super) fn overtaken(&self) -> Self {
        Self {
            stale: self.stale.clone(),
            ..Self::new(self.key, self.epoch, self.previous.clone())
        }
    }

    pub(crate) fn key(&self) -> &LookupKey {
        &self.key
    }

    /// From now on the source is being read: who needs what is newer than this can't join.
    pub(crate) fn begin(&self) {
        self.began.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_begun(&self) -> bool {
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

    pub(super) fn is_awaited(&self) -> bool {
        self.outcome.receiver_count() > 0
    }

    pub(super) fn land(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// What the load brings. It is waited for from this call on, and may be dropped at any time: the
    /// load goes on.
    pub(crate) fn outcome(&self) -> impl Future<Output = Outcome> + use<> {
        let mut outcome = self.outcome.subscribe();
        async move {
            let landed = outcome.wait_for(Option::is_some).await;
            match landed.as_deref() {
                Ok(Some(outcome)) => outcome.clone(),
                _ => Err(Unavailable::load_failed("the load was given up")),
            }
        }
    }
}
