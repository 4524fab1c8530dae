//! For how long the source is known to tell of changes.

use crate::{
    clock::{Moment, Now, signed_difference},
    sync::{AtomicU64, Ordering},
};

/// Every change that was made before a proof was asked for had arrived when the proof did: so what is
/// cached can be believed for `max_staleness` after it was asked for.
///
/// The two halves aren't written at once. Each of them comes from a proof that was given, so any mix
/// is at most as long as one of them.
pub(super) struct Lease {
    wall_end: AtomicU64,
    monotonic_end: AtomicU64,
}

/// No time comes after it.
const FOR_GOOD: u64 = u64::MAX;

impl Lease {
    pub(super) fn none() -> Self {
        Self {
            wall_end: AtomicU64::new(0),
            monotonic_end: AtomicU64::new(0),
        }
    }

    /// `millis` from the moment at which the proof was asked for.
    pub(super) fn extend(&self, asked_at: Moment, millis: u64) {
        self.set(
            asked_at.wall.saturating_add(millis),
            asked_at.monotonic.saturating_add(millis),
        );
    }

    /// For a source that tells of its changes before it makes them known.
    pub(super) fn extend_for_good(&self) {
        self.set(FOR_GOOD, FOR_GOOD);
    }

    pub(super) fn holds(&self, now: &Now<'_>) -> bool {
        let wall_end = self.wall_end.load(Ordering::Acquire);
        now.monotonic() < self.monotonic_end.load(Ordering::Acquire)
            && (wall_end == FOR_GOOD || now.wall() < wall_end)
    }

    /// For how many milliseconds it holds, should no proof come; less than none where it has ended.
    pub(super) fn millis_left(&self, now: &Now<'_>) -> i64 {
        let left = |end: &AtomicU64, now: u64| match end.load(Ordering::Acquire) {
            FOR_GOOD => i64::MAX,
            end => signed_difference(end, now),
        };
        left(&self.wall_end, now.wall()).min(left(&self.monotonic_end, now.monotonic()))
    }

    fn set(&self, wall_end: u64, monotonic_end: u64) {
        self.wall_end.store(wall_end, Ordering::Release);
        self.monotonic_end.store(monotonic_end, Ordering::Release);
    }
}
