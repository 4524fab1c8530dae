//! What a round is to do, drawn from a seed.

use std::time::Duration;

use super::{
    NODES,
    faults::{Fault, Kind},
    random::Random,
};

/// How many keys are revoked in a round.
const VICTIMS: usize = 3;

/// What a round is to do. Times are from its start.
pub struct Plan {
    pub faults: Vec<(Fault, Duration, Duration)>,
    /// When each key is revoked, and by which node; by hand where there is none.
    pub revocations: Vec<(Duration, Option<usize>)>,
}

/// Draws kinds in turns, so that all of them come.
pub struct Deck {
    random: Random,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self {
            random: Random::from_seed(seed),
            kinds: kinds.to_vec(),
            left: Vec::new(),
        }
    }

    /// A round of one or two faults, and no more than are wanted.
    pub fn plan(&mut self, wanted: usize) -> Plan {
        let mut faults: Vec<(Fault, Duration, Duration)> = Vec::new();
        let count = wanted.min(if self.random.below(5) < 2 { 2 } else { 1 });
        while faults.len() < count {
            let kind = self.draw();
            let node = self.random.below(NODES);
            let fault = match faults.first() {
                // Each its own node, and the server one fault.
                Some((first, ..)) if first.kind.is_of_server() && kind.is_of_server() => {
                    self.left.insert(0, kind);
                    break;
                }
                Some((first, ..)) if first.node == node => Fault {
                    kind,
                    node: (node + 1) % NODES,
                },
                _ => Fault { kind, node },
            };
            faults.push((fault, self.millis(0, 200), self.millis(100, 900)));
        }
        let end = faults
            .iter()
            .map(|(_, at, time)| *at + *time)
            .max()
            .unwrap();
        let end = usize::try_from(end.as_millis()).unwrap();
        let revocation = |_| {
            let by = self.random.below(NODES + 1);
            (self.millis(0, end + 150), (by < NODES).then_some(by))
        };
        Plan {
            faults,
            revocations: (0..VICTIMS).map(revocation).collect(),
        }
    }

    fn draw(&mut self) -> Kind {
        if self.left.is_empty() {
            self.left.extend(&self.kinds);
            self.random.shuffle(&mut self.left);
        }
        self.left.pop().unwrap()
    }

    fn millis(&mut self, least: usize, most: usize) -> Duration {
        let drawn = least + self.random.below(most - least);
        Duration::from_millis(drawn.try_into().unwrap())
    }
}
