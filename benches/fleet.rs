//! How soon a revocation reaches the other nodes of a fleet, and whether it always does:
//! `cargo bench --bench fleet --all-features`. It needs PostgreSQL.
//!
//! Three servers as processes, on one PostgreSQL of this program's own, are sent requests all the
//! time. First 1,000 keys are revoked while nothing is wrong. Then 240 faults of network and
//! database come by chance, and keys are revoked before, during and after each.
//!
//! `FLEET_REVOCATIONS` and `FLEET_FAULTS` say how many; `FLEET_SEED` repeats a run. It takes five
//! minutes; `BENCH_QUICK=1` makes a few seconds of it.

#[path = "../tests/fleet/mod.rs"]
mod harness;
mod support;

use std::{fs, thread, time::Duration};

use harness::{Fleet, Setup, faults::Kind, healthy, load::Load, node, number, rounds};
use support::{Outcome, is_asked, sized};

fn main() -> Outcome {
    if node::serve_if_asked() || !is_asked() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("{}", machine()?);
    runtime.block_on(async {
        when_all_is_well().await?;
        when_things_break().await
    })
}

async fn when_all_is_well() -> Outcome {
    let revocations = number("FLEET_REVOCATIONS").unwrap_or(sized(1_000, 20));
    let setup = Setup::honest(Duration::from_secs(5));
    let Some(fleet) = Fleet::start(setup).await else {
        return Ok(());
    };
    let load = Load::start(&fleet);
    let latencies = healthy::run(&fleet, revocations.try_into()?).await;
    load.end().await;
    println!(
        "\n{revocations} revocations, max_staleness {:?}",
        setup.bound
    );
    latencies.print();
    finish(fleet)
}

async fn when_things_break() -> Outcome {
    let faults = number("FLEET_FAULTS").unwrap_or(sized(240, 10));
    let setup = Setup::honest(Duration::from_millis(500));
    let Some(fleet) = Fleet::start(setup).await else {
        return Ok(());
    };
    println!(
        "\nFLEET_SEED={}, max_staleness {:?}",
        setup.seed, setup.bound
    );
    let load = Load::start(&fleet);
    let report = rounds::run(&fleet, faults.try_into()?, &Kind::ALL).await;
    load.end().await;
    report.print();
    finish(fleet)
}

fn finish(fleet: std::sync::Arc<Fleet>) -> Outcome {
    let tally = fleet.tally();
    println!(
        "requests: {} accepted, {} revoked, {} unavailable",
        tally.accepted, tally.revoked, tally.unavailable
    );
    let wrong = fleet.end();
    if wrong.is_empty() {
        println!("nothing was wrong, and no process is left");
        return Ok(());
    }
    Err(wrong.join("\n").into())
}

fn machine() -> Outcome<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or_default().trim_matches(['\t', ':', ' ']);
    let count = thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(format!("{count} of {model}; load before: {}", load.trim()))
}
