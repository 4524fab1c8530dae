//! Rounds in which everyone runs, in a new order each time, so that what slows the machine down
//! slows all of them. Ratios are taken within a round.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use axum::{Router, extract::Request};
use http::StatusCode;
use tower::ServiceExt;

use super::{Outcome, random::Random};

/// How many requests are made at a time. They are built before the clock runs, and so few that they are
/// in the processor's first cache, as a request is that a server has just read.
pub const BATCH: u32 = 20;

/// A router as `routers::checked` returns it, and the requests that it is to answer.
pub struct Runner {
    name: &'static str,
    app: Router,
    next: Box<dyn FnMut() -> Outcome<Request>>,
    expected: StatusCode,
}

impl Runner {
    pub fn new(
        name: &'static str,
        app: Router,
        next: impl FnMut() -> Outcome<Request> + 'static,
    ) -> Self {
        Self {
            name,
            app,
            next: Box::new(next),
            expected: StatusCode::OK,
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn expecting(mut self, status: StatusCode) -> Self {
        self.expected = status;
        self
    }

    /// How long so many requests take.
    pub async fn time(&mut self, mut count: u64) -> Outcome<Duration> {
        let mut took = Duration::ZERO;
        while count > 0 {
            let batch = count.min(u64::from(BATCH));
            count -= batch;
            let requests: Outcome<Vec<_>> = (0..batch).map(|_| (self.next)()).collect();
            let requests = requests?;
            let mut as_expected = true;
            let start = Instant::now();
            for request in requests {
                let response = black_box(self.app.clone().oneshot(request).await?);
                as_expected &= response.status() == self.expected;
            }
            took += start.elapsed();
            if !as_expected {
                return Err(format!("{}: an answer was not {}", self.name, self.expected).into());
            }
        }
        Ok(took)
    }
}

/// How long a batch took: per round, per runner.
pub async fn run(runners: &mut [Runner], rounds: usize) -> Outcome<Vec<Vec<Duration>>> {
    let mut random = Random::from_seed(1);
    let mut order: Vec<usize> = (0..runners.len()).collect();
    let mut all = Vec::with_capacity(rounds);
    // The first ones fill caches and wake the processor up.
    let warm_up = rounds / 20 + 1;
    for round in 0..warm_up + rounds {
        random.shuffle(&mut order);
        let mut took = vec![Duration::ZERO; runners.len()];
        for &at in &order {
            took[at] = runners[at].time(u64::from(BATCH)).await?;
        }
        if round >= warm_up {
            all.push(took);
        }
    }
    Ok(all)
}

/// Ratios are to the runner at `base`.
pub fn print_table(runners: &[Runner], rounds: &[Vec<Duration>], base: usize) {
    println!(
        "\n{} rounds of {BATCH} requests each, in shuffled order; medians, and the ratios' quartiles",
        rounds.len()
    );
    println!("{:<34} {:>10} {:>7}", "", "ns/request", "ratio");
    for (at, runner) in runners.iter().enumerate() {
        let nanos = rounds.iter().map(|took| took[at].as_secs_f64() * 1e9);
        let nanos = Spread::of(nanos).median / f64::from(BATCH);
        let ratios = rounds
            .iter()
            .map(|took| took[at].div_duration_f64(took[base]));
        println!("{:<34} {nanos:>10.0} {}", runner.name, Spread::of(ratios));
    }
}

/// The middle of some numbers, and the middle half of them.
#[derive(Clone, Copy)]
pub struct Spread {
    pub quartiles: [f64; 2],
    pub median: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |part: usize| {
            let place = values.len().saturating_sub(1) * part / 4;
            values.get(place).copied().unwrap_or(f64::NAN)
        };
        Self {
            quartiles: [at(1), at(3)],
            median: at(2),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.quartiles;
        write!(f, "{:>7.2}   ({low:.2} to {high:.2})", self.median)
    }
}
