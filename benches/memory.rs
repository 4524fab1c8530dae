//! What the cache takes, and whether a flood of unknown ids gets anything out of it:
//! `cargo bench --bench memory`.
//!
//! Fails where less than 99 of 100 requests with good keys are answered from memory during the flood,
//! and where a cached key takes more than 420 bytes. Memory is what the system counts as resident:
//! tables that grow, and what the allocator keeps, are in it. It takes half a minute.

mod support;

use std::{env, fs, process::Command};

use support::{
    Outcome, cache, is_asked,
    made_up::{MadeUp, known_id, token, unknown_id},
    random::Random,
    sized,
};
use tokio::runtime;
use tower_api_key::{ApiKeyToken, AuthContext, CachedResolver, KeyResolver, VerifyError};

const LEAST_HIT_RATE: f64 = 0.99;
const MOST_BYTES_PER_KEY: f64 = 420.0;
/// So many random ids come between two requests with good keys.
const RANDOM_PER_HOT: u32 = 4;

fn main() -> Outcome {
    let part = env::args().nth(1).unwrap_or_default();
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    match part.as_str() {
        "keys" => runtime.block_on(keys(sized(1_000_000, 20_000))),
        "flood" => runtime.block_on(flood(sized(10_000_000, 100_000), sized(10_000, 1_000))),
        _ if is_asked() => {
            // Each in a process of its own: memory that one frees, the other would use again.
            let failed: Vec<_> = ["keys", "flood"]
                .into_iter()
                .filter_map(|part| alone(part).err())
                .map(|error| error.to_string())
                .collect();
            match failed[..] {
                [] => Ok(()),
                _ => Err(failed.join("; ").into()),
            }
        }
        _ => Ok(()),
    }
}

fn alone(part: &str) -> Outcome {
    let status = Command::new(env::current_exe()?).arg(part).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{part}: {status}").into())
    }
}

/// A cache that is filled with so many keys.
async fn keys(keys: u32) -> Outcome {
    let before = resident()?;
    // With room to spare: a shard may get more than its part.
    let capacity = usize::try_from(keys)? * 5 / 4;
    let builder = cache::with_capacity(MadeUp::resolver(u64::from(keys))?, capacity);
    let resolver = builder.build().await?;
    for number in 0..keys {
        ask(&resolver, &token(known_id(u64::from(number)))?)
            .await
            .1?;
    }
    let growth = resident()?.saturating_sub(before);
    let mut held = 0;
    for number in 0..keys {
        let known = token(known_id(u64::from(number)))?;
        held += u32::from(resolver.resolve_now(&known).is_some());
    }
    cache::print_stats(&resolver);
    println!(
        "{held} of {keys} keys are held, in {} MB",
        megabytes(growth)
    );
    if held < keys / 100 * 99 {
        return Err("the cache doesn't hold what it has room for".into());
    }
    let bytes = f64::from(u32::try_from(growth / 1024)?) * 1024.0 / f64::from(held);
    println!("{bytes:.0} bytes per cached key");
    if bytes > MOST_BYTES_PER_KEY {
        return Err(format!("more than {MOST_BYTES_PER_KEY} bytes per key").into());
    }
    Ok(())
}

/// A flood of random ids over a source with `hot` keys, which are all in use meanwhile.
async fn flood(random_ids: u32, hot: u32) -> Outcome {
    let capacity = usize::try_from(hot)? * 2;
    let builder = cache::with_capacity(MadeUp::resolver(u64::from(hot))?, capacity);
    let resolver = builder.build().await?;
    let hot: Outcome<Vec<_>> = (0..u64::from(hot)).map(|n| token(known_id(n))).collect();
    let hot = hot?;
    for token in &hot {
        ask(&resolver, token).await.1?;
    }
    println!(
        "\n{random_ids} random ids, {} keys in use, room for {capacity}",
        hot.len()
    );
    println!("resident before: {} MB", megabytes(resident()?));

    let mut random = Random::from_seed(4);
    let (mut hits, mut asked) = (0, 0);
    let mut keys_in_use = hot.iter().cycle();
    for sent in 1..=random_ids {
        let unknown = token(unknown_id(&mut random))?;
        match ask(&resolver, &unknown).await.1 {
            Err(VerifyError::Unknown) => {}
            other => return Err(format!("an unknown id was answered {other:?}").into()),
        }
        if sent % RANDOM_PER_HOT == 0 {
            let key = keys_in_use.next().ok_or("no key is in use")?;
            let (from_memory, answer) = ask(&resolver, key).await;
            answer?;
            asked += 1;
            hits += u32::from(from_memory);
        }
        if sent % (random_ids / 5) == 0 && sent < random_ids {
            println!("after {sent}: {} MB", megabytes(resident()?));
        }
    }
    println!("after all: {} MB", megabytes(resident()?));
    let rate = f64::from(hits) / f64::from(asked);
    println!(
        "{:.3} % of {asked} requests with keys in use were hits",
        rate * 100.0
    );
    cache::print_stats(&resolver);
    drop(resolver);
    println!("without the cache: {} MB", megabytes(resident()?));
    if rate < LEAST_HIT_RATE {
        return Err(format!("a hit rate below {LEAST_HIT_RATE}").into());
    }
    Ok(())
}

/// As the layer asks: whether the answer came from memory, and the answer.
async fn ask(
    resolver: &CachedResolver,
    token: &ApiKeyToken,
) -> (bool, Result<AuthContext, VerifyError>) {
    match resolver.resolve_now(token) {
        Some(answer) => (true, answer),
        None => (false, resolver.resolve(token).await),
    }
}

/// Resident memory in bytes.
fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kibibytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))
        .ok_or("no VmRSS in /proc/self/status")?
        .trim()
        .parse()?;
    Ok(kibibytes * 1024)
}

fn megabytes(bytes: u64) -> u64 {
    bytes / 1_000_000
}
