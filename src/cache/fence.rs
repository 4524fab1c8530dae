//! Whether a load may still be remembered: the rule that keeps revoked keys out of the cache.

use std::sync::Arc;

use super::{flight::Flight, table::Slot};

/// A load may be remembered where it is still registered, or one that has overtaken it is, and nothing
/// has invalidated everything since it was.
///
/// Both are looked at under the lock that the insertion is made under. An invalidation of the key
/// takes the registration away under the same lock: so it either comes before the insertion, which
/// then isn't made, or after it, and removes what was inserted. One of everything goes from shard to
/// shard; it counts up the epoch first, so that what lands meanwhile isn't remembered for as long as that
/// takes.
pub(super) fn may_insert(slot: Option<&Slot>, flight: &Arc<Flight>, epoch: u64) -> bool {
    #[cfg(all(test, shuttle))]
    if taken_out::is_taken_out() {
        return true;
    }
    let is_expected =
        |slot: &Slot| matches!(slot, Slot::Loading(next) if next.is_of_one_chain(flight));
    slot.is_some_and(is_expected) && flight.epoch == epoch
}

pub(super) fn is_registered(slot: &Slot, flight: &Arc<Flight>) -> bool {
    matches!(slot, Slot::Loading(registered) if Arc::ptr_eq(registered, flight))
}

/// For the test that looks whether the lack of a fence would be noticed.
#[cfg(all(test, shuttle))]
pub(crate) mod taken_out {
    use std::cell::Cell;

    thread_local! {
        static TAKEN_OUT: Cell<bool> = const { Cell::new(false) };
    }

    /// On this thread, on which shuttle runs all of a test.
    pub(crate) fn take_out() {
        TAKEN_OUT.set(true);
    }

    pub(in crate::cache) fn is_taken_out() -> bool {
        TAKEN_OUT.get()
    }
}
