//! How long calls took, and how they ended.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused,
    Unavailable,
}

/// The calls of one name.
#[derive(Default)]
struct Calls {
    times: Vec<Duration>,
    refused: usize,
    unavailable: usize,
}

/// All calls of a test, by their names.
#[derive(Default)]
pub(crate) struct Times(Mutex<BTreeMap<String, Calls>>);

impl Times {
    pub(crate) fn add(&self, name: &str, time: Duration, outcome: Outcome) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = all.entry(name.to_owned()).or_default();
        calls.times.push(time);
        calls.refused += usize::from(outcome == Outcome::Refused);
        calls.unavailable += usize::from(outcome == Outcome::Unavailable);
    }

    pub(crate) fn print(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        println!(
            "{:<28} {:>6} {:>8} {:>11} {:>9} {:>9} {:>9}",
            "times in ms", "calls", "refused", "unavailable", "p50", "p99", "max"
        );
        for (name, calls) in &mut *all {
            calls.times.sort_unstable();
            println!(
                "{name:<28} {:>6} {:>8} {:>11} {:>9.1} {:>9.1} {:>9.1}",
                calls.times.len(),
                calls.refused,
                calls.unavailable,
                calls.permille(500),
                calls.permille(990),
                calls.permille(1000),
            );
        }
    }
}

impl Calls {
    /// Returns the milliseconds that this many of a thousand calls don't exceed.
    fn permille(&self, part: usize) -> f64 {
        let at = (self.times.len() * part).div_ceil(1000).saturating_sub(1);
        self.times[at].as_secs_f64() * 1000.0
    }
}
