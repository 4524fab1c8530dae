//! Requests on several threads at once.

use std::{hint::black_box, sync::Barrier, thread, time::Instant};

use axum::Router;
use http::{HeaderValue, StatusCode};
use tokio::runtime::{self, Runtime};
use tower::ServiceExt;
use tower_api_key::ApiKeyToken;

use super::{
    Outcome,
    random::Random,
    routers::{credentials, request_with},
};

/// Has `count` requests answered on each of so many threads; returns how many a second that were.
///
/// Each thread has its own copies of the credentials, from which it draws, and a runtime of its own.
/// Requests are built while the clock runs: a pile of them would be larger than a processor's cache.
pub fn rate(
    app: &Router,
    tokens: &[ApiKeyToken],
    threads: u32,
    count: u32,
    random: &mut Random,
) -> Outcome<f64> {
    let barrier = Barrier::new(usize::try_from(threads)?);
    let seeds: Vec<_> = (0..threads).map(|_| random.next()).collect();
    let spans: Result<Vec<_>, String> = thread::scope(|scope| {
        let work = |seed| one_thread(app, tokens, count, seed, &barrier);
        let running: Vec<_> = seeds
            .into_iter()
            // What goes wrong goes to the other thread as text.
            .map(|seed| scope.spawn(move || work(seed).map_err(|error| error.to_string())))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a panic".to_owned())))
            .collect()
    });
    let spans = spans?;
    let first = spans.iter().map(|span| span.0).min();
    let last = spans.iter().map(|span| span.1).max();
    let (Some(first), Some(last)) = (first, last) else {
        return Err("no thread has run".into());
    };
    Ok(f64::from(threads) * f64::from(count) / last.duration_since(first).as_secs_f64())
}

/// From the first request to the last.
fn one_thread(
    app: &Router,
    tokens: &[ApiKeyToken],
    count: u32,
    seed: u64,
    barrier: &Barrier,
) -> Outcome<(Instant, Instant)> {
    let prepared = prepared(tokens);
    // Before anything is returned, or the others would wait for ever.
    barrier.wait();
    let (runtime, credentials) = prepared?;
    let mut random = Random::from_seed(seed);
    let start = Instant::now();
    let all_ok = runtime.block_on(async {
        let mut all_ok = true;
        for _ in 0..count {
            let request = request_with(credentials[random.below(credentials.len())].clone());
            let response = black_box(app.clone().oneshot(request).await?);
            all_ok &= response.status() == StatusCode::OK;
        }
        Outcome::Ok(all_ok)
    })?;
    let end = Instant::now();
    if all_ok {
        Ok((start, end))
    } else {
        Err("a request was not answered 200".into())
    }
}

fn prepared(tokens: &[ApiKeyToken]) -> Outcome<(Runtime, Vec<HeaderValue>)> {
    let credentials: Outcome<Vec<_>> = tokens.iter().map(credentials).collect();
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    Ok((runtime, credentials?))
}
