//! Three nodes on one PostgreSQL: revocations reach all of them in time, whatever breaks in between.
//!
//! `FLEET_SEED` repeats a run, and `FLEET_FAULTS` makes it longer. `FLEET_COMMIT_MS=20` delays each
//! commit by 20 ms. `cargo bench --bench fleet` runs all of it and prints what it has measured.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

#[path = "fleet/mod.rs"]
mod harness;

use std::time::Duration;

use harness::{Fleet, Setup, faults::Kind, healthy, load::Load, node, number, rounds};

/// `max_staleness` where things break.
const BOUND: Duration = Duration::from_millis(500);

#[test]
#[ignore = "the other tests start it, as a process"]
fn a_node_of_the_fleet() {
    if !node::serve_if_asked() {
        println!("nobody asks for a node");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_other_nodes_hear_of_a_revocation_at_once() {
    let Some(fleet) = Fleet::start(Setup::honest(Duration::from_secs(5))).await else {
        return;
    };
    let load = Load::start(&fleet);
    let latencies = healthy::run(&fleet, 40).await;
    load.end().await;
    latencies.print();
    println!("{:?}", fleet.tally());
    // By the change channel, and not by a heartbeat, which comes every second.
    assert!(latencies.permille(900) < Duration::from_millis(500));
    assert_eq!(fleet.end(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_g2_g3_hold_while_network_and_database_fail() {
    let setup = Setup::honest(BOUND);
    println!("FLEET_SEED={}", setup.seed);
    let Some(fleet) = Fleet::start(setup).await else {
        return;
    };
    let load = Load::start(&fleet);
    let faults = number("FLEET_FAULTS").unwrap_or(60).try_into().unwrap();
    let report = rounds::run(&fleet, faults, &Kind::ALL).await;
    load.end().await;
    report.print();
    println!("{:?}", fleet.tally());
    assert_eq!(fleet.end(), Vec::<String>::new());
    assert_eq!(report.faults, faults);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_believe_for_longer_than_they_should_are_found_out() {
    let setup = Setup {
        believed: Duration::from_secs(3_600),
        ..Setup::honest(BOUND)
    };
    let Some(fleet) = Fleet::start(setup).await else {
        return;
    };
    let load = Load::start(&fleet);
    let kinds = [Kind::NotificationsLost, Kind::ListenerHalfOpen];
    rounds::run(&fleet, 20, &kinds).await;
    load.end().await;
    let wrong = fleet.end();
    let is_late = |problem: &String| problem.starts_with("G2");
    assert!(wrong.iter().any(is_late), "{wrong:?}");
}
