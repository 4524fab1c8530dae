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

/// When a lease ends, on both clocks: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseEnd {
    wall: u64,
    monotonic: u64,
}

impl LeaseEnd {
    /// `limit` milliseconds after `moment`.
    pub(super) fn after(moment: Moment, limit: u64) -> Self {
        Self {
            wall: moment.wall.saturating_add(limit),
            monotonic: moment.monotonic.saturating_add(limit),
        }
    }

    pub(super) fn min(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            monotonic: self.monotonic.min(other.monotonic),
        }
    }

    /// Returns how many milliseconds are left at `now`; less than 0 once it has ended.
    pub(super) fn millis_left(self, now: &Now<'_>) -> i64 {
        let left = |end: u64, now: u64| match end {
            FOR_GOOD => i64::MAX,
            end => signed_difference(end, now),
        };
        left(self.wall, now.wall()).min(left(self.monotonic, now.monotonic()))
    }
}

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

    pub(super) fn end(&self) -> LeaseEnd {
        LeaseEnd {
            wall: self.wall_end.load(Ordering::Acquire),
            monotonic: self.monotonic_end.load(Ordering::Acquire),
        }
    }

    fn set(&self, wall_end: u64, monotonic_end: u64) {
        self.wall_end.store(wall_end, Ordering::Release);
        self.monotonic_end.store(monotonic_end, Ordering::Release);
    }
}
