//! How `max_staleness` is spent: on a change that arrives, or on reading keys where none does.

use std::time::Duration;

/// All times in tenths of `max_staleness`.
const WHOLE: u32 = 10;
const HEARTBEAT: u32 = 2;
const FEED_TIMEOUT: u32 = 4;
const READ_AFTER: u32 = 5;
const READ_FOR: u32 = 3;
const LOOK_EVERY: u32 = 1;

// A change that is made right after one read of the feed arrives with the next one. Then the key
// is read once, at least.
const _: () = assert!(HEARTBEAT + FEED_TIMEOUT + READ_FOR <= WHOLE);
// Where no change arrives, somebody notices, and the key is read once, at least.
const _: () = assert!(READ_AFTER + LOOK_EVERY + READ_FOR <= WHOLE);

/// The times that add up to no more than `max_staleness`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StalenessSchedule {
    pub(crate) max_staleness: Duration,
    /// How often the feed of changes is read, at least.
    pub(crate) heartbeat: Duration,
    /// How long one read of the feed may take. After it the feed is lost.
    pub(crate) feed_timeout: Duration,
    /// After how long without proof of the feed a watched key is read.
    pub(crate) read_after: Duration,
    /// How long one such read may take.
    pub(crate) read_for: Duration,
    /// How often somebody looks whether changes arrive, and after how long a failed read is
    /// repeated.
    pub(crate) look_every: Duration,
}

impl StalenessSchedule {
    pub(super) fn new(max_staleness: Duration) -> Self {
        let tenths = |count: u32| max_staleness * count / WHOLE;
        Self {
            max_staleness,
            heartbeat: tenths(HEARTBEAT),
            feed_timeout: tenths(FEED_TIMEOUT),
            read_after: tenths(READ_AFTER),
            read_for: tenths(READ_FOR),
            look_every: tenths(LOOK_EVERY),
        }
    }
}
