//! Look-ups by several at a time, and how long each of them takes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tower_api_key::KeyId;

use crate::{
    databases::{Database, Reader},
    support::{Outcome, random::Random, rounds::Spread, sized},
};

/// So many ask at a time.
pub(crate) struct Level {
    concurrent: usize,
    look_ups: usize,
}

impl Level {
    pub(crate) const fn new(concurrent: usize, look_ups: usize) -> Self {
        Self {
            concurrent,
            look_ups,
        }
    }

    pub(crate) fn sized(&self) -> Self {
        Self {
            look_ups: sized(self.look_ups, 2 * self.concurrent),
            ..*self
        }
    }
}

/// What one reader did in one turn.
struct Turn {
    per_second: f64,
    latencies: Vec<Duration>,
}

pub(crate) struct Turns<'a> {
    database: &'a Database,
    /// Per round, per reader.
    rounds: Vec<Vec<Turn>>,
}

/// Every reader in every round, in a new order each time, so that what slows the machine down slows all
/// of them.
pub(crate) async fn in_turns<'a>(
    database: &'a Database,
    level: &Level,
    rounds: usize,
) -> Outcome<Turns<'a>> {
    let mut random = Random::from_seed(1);
    let mut order: Vec<usize> = (0..database.readers.len()).collect();
    let mut all = Vec::new();
    // The first one makes connections and prepares statements.
    for round in 0..=rounds {
        random.shuffle(&mut order);
        let mut turns: Vec<_> = order.iter().map(|_| None).collect();
        for &at in &order {
            let (_, reader) = &database.readers[at];
            turns[at] = Some(turn(reader, &database.ids, level, &mut random).await?);
        }
        if round > 0 {
            all.push(turns.into_iter().flatten().collect());
        }
    }
    Ok(Turns {
        database,
        rounds: all,
    })
}

async fn turn(
    reader: &Reader,
    ids: &Arc<[KeyId]>,
    level: &Level,
    random: &mut Random,
) -> Outcome<Turn> {
    let each = level.look_ups / level.concurrent;
    let start = Instant::now();
    let tasks: Vec<_> = (0..level.concurrent)
        .map(|_| {
            let (reader, ids) = (reader.clone(), ids.clone());
            let mut random = Random::from_seed(random.next());
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(each);
                for _ in 0..each {
                    let id = ids[random.below(ids.len())];
                    let asked_at = Instant::now();
                    reader.look_up(id).await?;
                    latencies.push(asked_at.elapsed());
                }
                Ok::<_, String>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::with_capacity(level.look_ups);
    for task in tasks {
        latencies.extend(task.await??);
    }
    let took = start.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let count = latencies.len() as f64;
    latencies.sort_unstable();
    Ok(Turn {
        per_second: count / took.as_secs_f64(),
        latencies,
    })
}

impl Turn {
    fn percentile(&self, percent: usize) -> f64 {
        let at = self.latencies.len() * percent / 100;
        self.latencies[at.min(self.latencies.len() - 1)].as_secs_f64() * 1e6
    }
}

pub(crate) fn print_header() {
    println!(
        "{:>10}  {:<16} {:>10} {:>8} {:>8} {:>25} {:>25}",
        "concurrent",
        "",
        "look-ups/s",
        "p50 µs",
        "p99 µs",
        "rate, against the first",
        "p50, against the first"
    );
}

impl Turns<'_> {
    /// Medians over the turns. Ratios are to the first reader, within a round.
    pub(crate) fn print(&self, level: &Level) {
        for (at, (name, _)) in self.database.readers.iter().enumerate() {
            let median = |value: &dyn Fn(&Turn) -> f64| {
                Spread::of(self.rounds.iter().map(|round| value(&round[at]))).median
            };
            let against_first = |value: &dyn Fn(&Turn) -> f64| {
                let ratios = self
                    .rounds
                    .iter()
                    .map(|round| value(&round[at]) / value(&round[0]));
                Spread::of(ratios).to_string()
            };
            println!(
                "{:>10}  {name:<16} {:>10.0} {:>8.1} {:>8.1} {:>25} {:>25}",
                level.concurrent,
                median(&|turn| turn.per_second),
                median(&|turn| turn.percentile(50)),
                median(&|turn| turn.percentile(99)),
                against_first(&|turn| turn.per_second),
                against_first(&|turn| turn.percentile(50)),
            );
        }
    }
}
