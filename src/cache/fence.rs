//! Whether a load may still be remembered: the rule that keeps revoked keys out of the cache.

use std::sync::Arc;

use super::{flight::Flight, table::Slot};

/// A load may be remembered where it is still the one that is registered, and nothing has
/// invalidated everything since it was.
///
/// Both are looked at under the lock that the insertion is made under. An invalidation of the key
/// takes the registration away under the same lock: so it either comes before the insertion, which
/// then isn't made, or after it, and removes what was inserted. One of everything goes from shard to
/// shard, and a load could land behind its back in a shard that it has left: so it counts up the
/// epoch first.
pub(super) fn may_insert(slot: &Slot, flight: &Arc<Flight>, epoch: u64) -> bool {
    is_registered(slot, flight) && flight.epoch == epoch
}

pub(super) fn is_registered(slot: &Slot, flight: &Arc<Flight>) -> bool {
    matches!(slot, Slot::Loading(registered) if Arc::ptr_eq(registered, flight))
}
