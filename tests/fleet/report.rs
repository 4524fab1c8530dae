//! What a run has shown.

use std::{collections::BTreeMap, time::Duration};

use super::faults::Kind;

/// All of it.
#[derive(Default)]
pub struct Report {
    pub faults: usize,
    pub rounds: usize,
    pub revocations: usize,
    pub by_hand: usize,
    pub kinds: BTreeMap<Kind, PerKind>,
}

#[derive(Default)]
pub struct PerKind {
    pub times: usize,
    /// How often there was nothing to break.
    pub idle: usize,
    /// The longest time after a fault until a valid key was accepted on each node again.
    pub recovery: Duration,
    pub seen: Seen,
}

/// The longest times after a revocation, on other nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Until the last request began that was accepted.
    pub accepted: Duration,
    /// Until the first answer came that rejected the key.
    pub rejected: Duration,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        self.accepted = self.accepted.max(other.accepted);
        self.rejected = self.rejected.max(other.rejected);
    }
}

impl Report {
    pub fn print(&self) {
        let Self {
            faults,
            rounds,
            revocations,
            by_hand,
            ..
        } = self;
        println!(
            "{faults} faults in {rounds} rounds, {revocations} revocations ({by_hand} by hand first)"
        );
        println!(
            "{:<20} {:>5} {:>5} {:>9} {:>14} {:>14}",
            "longest, in ms", "times", "idle", "recovery", "accepted until", "rejected after"
        );
        for (kind, per_kind) in &self.kinds {
            println!(
                "{:<20} {:>5} {:>5} {:>9} {:>14} {:>14}",
                format!("{kind:?}"),
                per_kind.times,
                per_kind.idle,
                per_kind.recovery.as_millis(),
                per_kind.seen.accepted.as_millis(),
                per_kind.seen.rejected.as_millis()
            );
        }
    }
}
