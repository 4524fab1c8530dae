//! What a cache has done, counted.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// What a cache has done since it was made, and what it holds: `entries` and `unknown_entries` rise and
/// fall, the others only rise.
///
/// The numbers are read one after the other while others count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Tokens that were answered from memory, those with a wrong secret and unknown ids among them.
    pub hits: u64,
    /// Tokens whose key had to be read, or was being read. Behind a layer that is
    /// [`fresh`](crate::ApiKeyLayer::fresh), every request is one.
    pub misses: u64,
    /// Keys that were asked of the source.
    pub loads: u64,
    /// Reads of the source: each asks for one key or several.
    pub reads: u64,
    /// Misses that waited for a load that another had begun.
    pub shared_loads: u64,
    /// Loads that brought nothing: the source failed, took too long, or had too many waiting.
    pub failed_loads: u64,
    /// Keys that made room for others.
    pub evictions: u64,
    /// Loaded records that weren't remembered: their key changed while they were read, or a newer load has
    /// landed before.
    pub stale_refused: u64,
    /// Tokens that were answered with what
    /// [`serve_stale`](crate::CacheConfig::serve_stale) allows.
    pub stale_served: u64,
    /// How often the source could not be subscribed to, or a feed of changes failed. Where it goes on
    /// rising, changes that are made elsewhere don't arrive, and keys are read every few seconds.
    pub lost_feeds: u64,
    /// How often it couldn't be written when keys were last used. It is tried again.
    pub failed_touches: u64,
    /// Keys that are remembered now.
    pub entries: u64,
    /// Ids that are remembered now and that no key has, at most.
    pub unknown_entries: u64,
}

/// Counts what is counted on every hit, without two threads writing to one place.
///
/// The first threads that count have a stripe each, and add to it without a locked instruction, which
/// would cost as much as comparing the secret. Those that come later share the last one.
pub(super) struct Striped(Box<[Stripe]>);

const STRIPES: usize = 64;

/// Of its own cache line, and of the one that is fetched along with it.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Default for Striped {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| Stripe::default()).collect())
    }
}

impl Striped {
    pub(super) fn count(&self) {
        let own = own_stripe();
        match self.0.get(own) {
            Some(Stripe(count)) if own < STRIPES - 1 => {
                let before = count.load(Ordering::Relaxed);
                count.store(before.wrapping_add(1), Ordering::Relaxed);
            }
            Some(Stripe(count)) => drop(count.fetch_add(1, Ordering::Relaxed)),
            None => {}
        }
    }

    pub(super) fn sum(&self) -> u64 {
        let counts = self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

/// This thread's alone, unless it is the last.
fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let own = OWN.get();
    if own < STRIPES {
        return own;
    }
    let own = NEXT.fetch_add(1, Ordering::Relaxed).min(STRIPES - 1);
    OWN.set(own);
    own
}

/// Counts what costs a read of the source anyway.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
