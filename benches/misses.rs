//! What it costs when the cache can't answer, against when it can: `cargo bench --bench misses`.
//!
//! The source answers at once, from no memory and without waiting, so this is what the crate itself
//! does. A real source adds its own time to a miss.

mod support;

use http::StatusCode;
use support::{
    Outcome, cache, is_asked,
    made_up::{MadeUp, known_id, token, unknown_id},
    random::Random,
    rounds::{self, Runner},
    routers::{bare, checked, request},
    sized,
};
use tokio::runtime;
use tower_api_key::ApiKeyLayer;

/// Far fewer than there are keys: what comes in has to push something out.
const CAPACITY: usize = 10_000;

fn main() -> Outcome {
    if !is_asked() {
        return Ok(());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let mut runners = runners().await?;
        let full = u64::try_from(sized(2 * CAPACITY, 100))?;
        for runner in &mut runners {
            runner.time(full).await?;
        }
        let rounds = rounds::run(&mut runners, sized(2_000, 10)).await?;
        rounds::print_table(&runners, &rounds, 1);
        Ok(())
    })
}

/// Each has a resolver of its own, so that none fills another's cache.
async fn runners() -> Outcome<Vec<Runner>> {
    let known = token(known_id(0))?;
    let mut apps = Vec::new();
    for _ in 0..5 {
        let builder = cache::with_capacity(MadeUp::resolver(u64::MAX)?, CAPACITY);
        let layer = ApiKeyLayer::new(builder.build().await?);
        let app = bare().route_layer(layer);
        apps.push(checked("the layer", app, &known, StatusCode::UNAUTHORIZED).await?);
    }
    let [hits, misses, new, again, wrong] = apps.try_into().map_err(|_| "five of them")?;
    let open = checked("the bare router", bare(), &known, StatusCode::OK).await?;

    let mut number = 0;
    let mut random = Random::from_seed(3);
    let unknown = token(unknown_id(&mut random))?;
    let other_secret = known.expose().replace("AAAA", "BBBB").parse()?;
    let same = move |token| move || request(&token);
    Ok(vec![
        Runner::new("bare router", open, same(known.clone())),
        Runner::new("hit", hits, same(known)),
        Runner::new("miss: a key not asked for before", misses, move || {
            number += 1;
            request(&token(known_id(number))?)
        }),
        Runner::new("unknown id, a new one", new, move || {
            request(&token(unknown_id(&mut random))?)
        })
        .expecting(StatusCode::UNAUTHORIZED),
        Runner::new("unknown id, the same again", again, same(unknown))
            .expecting(StatusCode::UNAUTHORIZED),
        Runner::new("wrong secret of a known key", wrong, same(other_secret))
            .expecting(StatusCode::UNAUTHORIZED),
    ])
}
