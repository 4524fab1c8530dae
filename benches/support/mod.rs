//! What the bench programs share.
#![allow(dead_code, unreachable_pub, reason = "no program needs all of it")]

pub mod by_hand;
pub mod cache;
pub mod made_up;
pub mod random;
pub mod rounds;
pub mod routers;
pub mod threads;

use std::{env, error::Error};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Whether to measure: `cargo bench` passes `--bench`. Test runners, which only ask what there is,
/// don't.
pub fn is_asked() -> bool {
    has_argument("--bench") && !has_argument("--list") && !has_argument("--test")
}

fn has_argument(wanted: &str) -> bool {
    env::args().skip(1).any(|argument| argument == wanted)
}

/// `quick` where `BENCH_QUICK` is set, which shows that a program works and measures nothing.
pub fn sized<T>(full: T, quick: T) -> T {
    if env::var_os("BENCH_QUICK").is_some() {
        quick
    } else {
        full
    }
}
