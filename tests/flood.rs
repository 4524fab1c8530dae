//! The holder of one key floods the store, while an operator revokes that key.
//!
//! Each revocation has to succeed at its first call, within [`round::BOUND`]. Then its instance
//! refuses the key at once (G1), and the others refuse it within `max_staleness` (G2). Lookups of
//! strangers keep working meanwhile.
//!
//! On PostgreSQL a commit takes 20 ms, as it does where a synchronous standby is far away.
//! `FLOOD_ROUNDS=10` repeats each round, and `--no-capture` shows the measured times:
//!
//! ```sh
//! FLOOD_ROUNDS=10 cargo nextest run --profile long --all-features --test flood --no-capture
//! ```
//!
//! An ignored test runs the same floods on a server whose commits wait for a real synchronous
//! receiver (`pg_receivewal`), behind a proxy that delays each way by 1 ms:
//!
//! ```sh
//! cargo nextest run --all-features --test flood --no-capture --run-ignored only
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

#[allow(unreachable_pub, reason = "the fleet's tests have it")]
#[path = "support/slow_commits.rs"]
mod slow_commits;
mod support;

mod flood {
    pub(crate) mod database;
    pub(crate) mod holder;
    pub(crate) mod operator;
    pub(crate) mod round;
    pub(crate) mod standby;
    pub(crate) mod times;
}

/// The proxy of the fleet's tests, and what it knows of the protocol.
#[allow(dead_code, unreachable_pub, reason = "the fleet's tests use all of it")]
#[path = "fleet"]
mod network {
    pub mod proxy;
    pub mod wire;
}

use std::{env, time::Duration};

use flood::{
    database::{COMMIT_TIME, Instances},
    holder::{CHANGES, CREATIONS, EVERYTHING, Operation},
    operator::Revocation,
    round::Round,
    standby,
    times::Times,
};
use support::{folder::Folder, postgres::Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_revoke_succeeds_while_the_holder_creates_and_claims() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut problems = Problems::default();
    for count in [1, 3] {
        let instances = Instances::postgres(&server, count, COMMIT_TIME).await;
        problems
            .flood(&instances, CREATIONS, &[Revocation::Revoke; 3])
            .await;
    }
    problems.assert_none();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_revoke_succeeds_while_the_holder_floods_every_operation() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut problems = Problems::default();
    for count in [1, 3] {
        let instances = Instances::postgres(&server, count, COMMIT_TIME).await;
        problems
            .flood(&instances, EVERYTHING, &Revocation::ALL)
            .await;
    }
    problems.assert_none();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_disable_succeeds_while_the_holder_changes_the_key() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut problems = Problems::default();
    let instances = Instances::postgres(&server, 3, COMMIT_TIME).await;
    problems.flood(&instances, CHANGES, &Revocation::ALL).await;
    problems.assert_none();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_revoke_succeeds_while_the_holder_floods_sqlite() {
    let folder = Folder::new("flood");
    let instances = Instances::sqlite(&folder, 2).await;
    let mut problems = Problems::default();
    problems
        .flood(&instances, EVERYTHING, &Revocation::ALL)
        .await;
    problems.assert_none();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, and needs `pg_receivewal`"]
async fn g1_revoke_succeeds_while_commits_wait_for_a_synchronous_receiver() {
    let Some(server) = Server::start() else {
        return;
    };
    let instances = Instances::postgres(&server, 1, Duration::ZERO).await;
    let _receiver = standby::Receiver::start(&server).await;
    let mut problems = Problems::default();
    problems
        .flood(&instances, CREATIONS, &[Revocation::Revoke; 3])
        .await;
    problems
        .flood(&instances, EVERYTHING, &Revocation::ALL)
        .await;
    problems.assert_none();
}

/// What went wrong: a test fails after all its floods were measured.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    /// Runs a round for each revocation, and prints the times.
    async fn flood(
        &mut self,
        instances: &Instances,
        operations: &'static [Operation],
        revocations: &[Revocation],
    ) {
        let times = Times::default();
        for _ in 0..rounds() {
            for &revocation in revocations {
                let round = Round {
                    instances,
                    operations,
                    revocation,
                    times: &times,
                };
                self.0.extend(round.run().await);
            }
        }
        println!("{instances}");
        times.print();
    }

    fn assert_none(&self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// `FLOOD_ROUNDS`, or one.
fn rounds() -> usize {
    env::var("FLOOD_ROUNDS").map_or(1, |text| text.parse().unwrap())
}
