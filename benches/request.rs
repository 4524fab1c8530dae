//! What the layer adds to one request, against an axum router without it: `cargo bench --bench request`.
//!
//! There is no socket: the router is called in the process, on one thread. Criterion measures one
//! variant after the other, which tells nanoseconds, and on a busy machine says little about ratios.
//! So a table of ratios comes after it, from rounds in which all variants take turns.

mod support;

use std::{error::Error, time::Duration};

use criterion::Criterion;
use support::{
    Outcome, is_asked,
    rounds::{self, Runner},
    routers::{self, Variant},
    sized,
};
use tokio::runtime::{self, Runtime};
use tower_api_key::ApiKeyToken;

fn main() -> Outcome {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let (variants, token) = runtime.block_on(routers::variants())?;
    let mut runners: Vec<_> = variants
        .into_iter()
        .map(|variant| runner(variant, &token))
        .collect();
    each_alone(&runtime, &mut runners);
    if is_asked() {
        let rounds = runtime.block_on(rounds::run(&mut runners, sized(20_000, 20)))?;
        rounds::print_table(&runners, &rounds, 0);
    }
    Ok(())
}

fn runner(variant: Variant, token: &ApiKeyToken) -> Runner {
    let token = token.clone();
    Runner::new(variant.name, variant.app, move || routers::request(&token))
}

/// Without `--bench` criterion runs each once, and measures nothing.
fn each_alone(runtime: &Runtime, runners: &mut [Runner]) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(sized(1_000, 10)))
        .measurement_time(Duration::from_millis(sized(4_000, 100)))
        .sample_size(sized(100, 10))
        .configure_from_args();
    let mut group = criterion.benchmark_group("request");
    for runner in runners {
        group.bench_function(runner.name(), |bencher| {
            bencher.iter_custom(|count| must(runtime.block_on(runner.time(count))));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Criterion's closures can't fail.
fn must<T>(outcome: Result<T, Box<dyn Error>>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}
