//! Whether each answer is one that may be given.
//!
//! All times are read in this process, before a request is sent and after its answer has come. A
//! node decides in between, and a revocation counts before its caller hears of it: what is found
//! wrong here is wrong by the node's clock, too, and nothing has to be allowed for.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Setup, keys::Key, process::Answer, timeline::Timeline};

pub struct Judge {
    setup: Setup,
    pub timeline: Timeline,
    violations: Mutex<Vec<String>>,
    accepted: AtomicU64,
    revoked: AtomicU64,
    unavailable: AtomicU64,
}

/// How many answers there were of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    pub accepted: u64,
    pub revoked: u64,
    pub unavailable: u64,
}

/// Those that come after say nothing new.
const MAX_VIOLATIONS: usize = 20;

impl Judge {
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            timeline: Timeline::new(),
            violations: Mutex::default(),
            accepted: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
        }
    }

    /// An answer of `node` to a request that began at `start`, just when it has come.
    pub fn answered(&self, node: usize, key: &Key, start: Instant, answer: &Answer) {
        let end = Instant::now();
        let problem = match answer {
            Answer::Accepted => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                self.accepted_wrongly(node, key, start)
            }
            Answer::Revoked => {
                self.revoked.fetch_add(1, Ordering::Relaxed);
                self.rejected(node, key, start, end)
            }
            Answer::Unavailable => {
                self.unavailable.fetch_add(1, Ordering::Relaxed);
                None
            }
            Answer::Other(what) => Some(format!("G3: an answer that nobody may give: {what}")),
        };
        if let Some(problem) = problem {
            let took = end - start;
            self.violated(&format!(
                "{problem} (node {node}, key {}, answered after {took:?})",
                key.name()
            ));
        }
    }

    fn accepted_wrongly(&self, node: usize, key: &Key, start: Instant) -> Option<String> {
        let mut state = key.state();
        state.accepted[node] = state.accepted[node].max(Some(start));
        if let Some(rejected) = state.rejected[node]
            && start > rejected
        {
            return Some(format!(
                "accepted {:?} after the node had rejected it",
                start - rejected
            ));
        }
        let revoked = state.revoked?;
        let after = start.checked_duration_since(revoked.at)?;
        if revoked.by == Some(node) && after > Duration::ZERO {
            return Some(format!(
                "G1: accepted {after:?} after `revoke` returned here"
            ));
        }
        let is_late = after > self.setup.bound;
        is_late.then(|| format!("G2: accepted {after:?} after the revocation"))
    }

    fn rejected(&self, node: usize, key: &Key, start: Instant, end: Instant) -> Option<String> {
        let mut state = key.state();
        if state.begun.is_none() {
            return Some("G3: a valid key was rejected".to_owned());
        }
        if state.rejected[node].is_none() {
            state.rejected[node] = Some(end);
            let name = key.name();
            self.timeline
                .note(format_args!("node {node} rejects {name}"));
        }
        let bound = self.setup.bound;
        let was_late = |at: Instant| start > at + bound;
        state.settled[node] |= state.revoked.is_some_and(|revoked| was_late(revoked.at));
        None
    }

    pub fn violated(&self, problem: &str) {
        let mut violations = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.timeline.note(format_args!("WRONG: {problem}"));
        if violations.is_empty() {
            let seed = self.setup.seed;
            let before = self.timeline.text();
            println!("WRONG, with FLEET_SEED={seed}: {problem}\n{before}");
        }
        if violations.len() < MAX_VIOLATIONS {
            violations.push(problem.to_owned());
        }
    }

    pub fn violations(&self) -> Vec<String> {
        let violations = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violations.clone()
    }

    pub fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            accepted: read(&self.accepted),
            revoked: read(&self.revoked),
            unavailable: read(&self.unavailable),
        }
    }
}
