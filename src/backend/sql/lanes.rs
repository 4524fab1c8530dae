//! Limits on concurrent connections by purpose.

use crate::sync::{Semaphore, SemaphorePermit};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) enum Lane {
    /// Keys that requests wait for.
    Lookup,
    /// Writes that make keys inactive, and every read of a record by its id, since these begin with
    /// one.
    Revocation,
    /// Everything else: lists, creations, claims, updates.
    Ordinary,
}

/// Limits how many connections each lane takes, so that a flood of management calls leaves some for
/// lookups and revocations. Within a lane, permits are granted in FIFO order.
///
/// Of 8 connections, lookups always have 2, revocations have 1, and ordinary calls take at most 5.
/// A single connection is shared by all.
pub(in crate::backend) struct Lanes {
    ordinary: Semaphore,
    /// All but what is reserved for lookups.
    management: Semaphore,
    /// All but what is reserved for revocations.
    lookups_and_ordinary: Semaphore,
    total: Semaphore,
}

/// Permits for one connection. It is free when they are dropped.
#[derive(Default)]
pub(in crate::backend) struct LanePermit<'a> {
    #[allow(dead_code, reason = "they are held")]
    held: [Option<SemaphorePermit<'a>>; 4],
}

#[derive(Debug, PartialEq, Eq)]
struct Sizes {
    total: usize,
    management: usize,
    lookups_and_ordinary: usize,
    ordinary: usize,
}

impl Sizes {
    fn new(total: usize) -> Self {
        // A quarter for lookups, and an eighth of the rest for revocations: at least one each, as
        // long as one is left for the others.
        let for_lookups = (total / 4).max(1).min(total.saturating_sub(1));
        let management = total - for_lookups;
        let for_revocations = (management / 8).max(1).min(management.saturating_sub(1));
        Self {
            total,
            management,
            lookups_and_ordinary: total - for_revocations,
            ordinary: management - for_revocations,
        }
    }
}

impl Lanes {
    /// Lanes of `total` connections, of which there is at least one.
    pub(in crate::backend) fn new(total: u32) -> Self {
        let sizes = Sizes::new(usize::try_from(total).unwrap_or(usize::MAX).max(1));
        Self {
            ordinary: Semaphore::new(sizes.ordinary),
            management: Semaphore::new(sizes.management),
            lookups_and_ordinary: Semaphore::new(sizes.lookups_and_ordinary),
            total: Semaphore::new(sizes.total),
        }
    }

    /// Waits until `lane` may take a connection. Put a time limit around it.
    pub(in crate::backend) async fn acquire(&self, lane: Lane) -> LanePermit<'_> {
        // The same order for everybody, from the smallest limit to the largest: nobody holds a
        // permit that another waits for while it waits for that other.
        let limits = [
            (&self.ordinary, lane == Lane::Ordinary),
            (&self.management, lane != Lane::Lookup),
            (&self.lookups_and_ordinary, lane != Lane::Revocation),
            (&self.total, true),
        ];
        let mut permit = LanePermit::default();
        for (held, (limit, applies)) in permit.held.iter_mut().zip(limits) {
            if applies {
                // An error would say that it was closed, which never happens.
                *held = limit.acquire().await.ok();
            }
        }
        permit
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::{Lane::*, *};

    const LANES: [Lane; 3] = [Lookup, Revocation, Ordinary];

    /// Takes all that `lane` gives at once.
    fn take_all(lanes: &Lanes, lane: Lane) -> Vec<LanePermit<'_>> {
        let take = || lanes.acquire(lane).now_or_never();
        std::iter::from_fn(take).collect()
    }

    #[test]
    fn a_few_connections_are_divided_sensibly() {
        let sizes = |total| {
            let sizes = Sizes::new(total);
            let for_lookups = sizes.total - sizes.management;
            let for_revocations = sizes.total - sizes.lookups_and_ordinary;
            (for_lookups, for_revocations, sizes.ordinary)
        };
        assert_eq!(sizes(1), (0, 0, 1));
        assert_eq!(sizes(2), (1, 0, 1));
        assert_eq!(sizes(3), (1, 1, 1));
        assert_eq!(sizes(4), (1, 1, 2));
        assert_eq!(sizes(8), (2, 1, 5));
        assert_eq!(sizes(100), (25, 9, 66));
    }

    #[test]
    fn no_lane_keeps_another_without_connections() {
        for total in 1..=64 {
            for lane in LANES {
                let lanes = Lanes::new(total);
                let taken = take_all(&lanes, lane);
                assert!((1..=64).contains(&taken.len()));
                for other in LANES.into_iter().filter(|other| *other != lane) {
                    let is_reserved = match (lane, other) {
                        (_, Ordinary) => false,
                        (_, Revocation) => total >= 3,
                        _ => total >= 2,
                    };
                    let left = take_all(&lanes, other);
                    assert!(
                        !left.is_empty() || !is_reserved,
                        "{total} {lane:?} {other:?}"
                    );
                    assert!(taken.len() + left.len() <= total as usize);
                }
                drop(taken);
                assert!(!take_all(&lanes, Ordinary).is_empty());
            }
            let lanes = Lanes::new(total);
            // Both others together.
            let _ordinary = take_all(&lanes, Ordinary);
            let _lookups = take_all(&lanes, Lookup);
            assert_eq!(take_all(&lanes, Revocation).is_empty(), total < 3);
        }
    }

    #[test]
    fn permits_are_granted_in_order_and_a_waiter_that_goes_away_holds_none() {
        let lanes = Lanes::new(3);
        let held = lanes.acquire(Ordinary).now_or_never().unwrap();
        let (mut first, mut second) = (
            Box::pin(lanes.acquire(Ordinary)),
            pin!(lanes.acquire(Ordinary)),
        );
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(held);
        assert!(second.as_mut().now_or_never().is_none(), "it isn't first");
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
        assert_eq!(take_all(&lanes, Ordinary).len(), 1);
    }
}
