//! Whether two threads do twice the work of one: `cargo bench --bench threads`.
//!
//! In each round, in a new order: the bare router, all requests with one key, requests with keys
//! drawn from many, each on one thread and on two. Shown is the best of the rates, since other
//! programs take processors away, and the quartiles of the ratios within rounds. The bare router shows what two threads can do
//! at best here: its own counters are shared, and so may the processor be.

mod support;

use axum::Router;
use http::StatusCode;
use support::{
    Outcome, is_asked,
    random::Random,
    rounds::Spread,
    routers::{bare, checked, new_key},
    sized, threads,
};
use tokio::runtime;
use tower_api_key::{ApiKeyLayer, ApiKeyStore, ApiKeyToken};

fn main() -> Outcome {
    if !is_asked() {
        return Ok(());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let cases = runtime.block_on(cases(sized(10_000, 100)))?;
    let runs: Vec<_> = (0..cases.len())
        .flat_map(|case| [(case, 1), (case, 2)])
        .collect();
    let (rounds, each) = sized((300, 10_000), (5, 200));
    let mut random = Random::from_seed(2);
    let mut order: Vec<_> = (0..runs.len()).collect();
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        random.shuffle(&mut order);
        let mut rates = vec![0.0; runs.len()];
        for &at in &order {
            let (case, threads) = runs[at];
            let Case { app, tokens, .. } = &cases[case];
            rates[at] = threads::rate(app, tokens, threads, each, &mut random)?;
        }
        all.push(rates);
    }

    println!("\n{rounds} rounds of {each} requests on each thread, in shuffled order");
    println!(
        "{:<16} {:>9} {:>9} {:>10}   {:>16}",
        "requests/second", "1 thread", "2 threads", "two to one", "quartiles"
    );
    for (case, Case { name, .. }) in cases.iter().enumerate() {
        let best = |at: usize| best(all.iter().map(|rates| rates[2 * case + at]));
        let ratios = Spread::of(
            all.iter()
                .map(|rates| rates[2 * case + 1] / rates[2 * case]),
        );
        let [one, two] = [best(0), best(1)];
        let [low, high] = ratios.quartiles;
        println!(
            "{name:<16} {one:>9.0} {two:>9.0} {:>10.2}   {low:>7.2} to {high:.2}",
            two / one
        );
    }
    Ok(())
}

/// What 5 of 100 were better than. Whatever else runs only ever takes away from a rate, and two
/// threads have two processors only while nothing else needs one.
fn best(rates: impl Iterator<Item = f64>) -> f64 {
    let mut rates: Vec<_> = rates.collect();
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len().saturating_sub(1) * 95 / 100]
}

struct Case {
    name: &'static str,
    app: Router,
    tokens: Vec<ApiKeyToken>,
}

async fn cases(keys: usize) -> Outcome<[Case; 3]> {
    let store = ApiKeyStore::in_memory();
    let mut many = Vec::with_capacity(keys);
    for _ in 0..keys {
        many.push(store.create(new_key()?).await?.token().clone());
    }
    for token in &many {
        store.verify(token.expose()).await?;
    }
    let one = vec![many[0].clone()];
    let guarded = bare().route_layer(ApiKeyLayer::new(store));
    let guarded = checked("the layer", guarded, &one[0], StatusCode::UNAUTHORIZED).await?;
    Ok([
        Case {
            name: "bare router",
            app: checked("the bare router", bare(), &one[0], StatusCode::OK).await?,
            tokens: one.clone(),
        },
        Case {
            name: "one key",
            app: guarded.clone(),
            tokens: one,
        },
        Case {
            name: "a key of many",
            app: guarded,
            tokens: many,
        },
    ])
}
