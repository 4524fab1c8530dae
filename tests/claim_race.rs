//! Of all who claim one handed-off key at once, in several processes, one gets it, also where processes
//! are killed meanwhile.
//!
//! `CLAIM_ROUNDS` makes it longer (`.ci/test` takes 1,000), and `CLAIM_SEED` repeats one.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

#[path = "claim_race/claimers.rs"]
mod claimers;
mod support;

use std::{
    env,
    time::{Duration, Instant},
};

use claimers::{Claimers, PLACE, Place, stores};
use support::{folder::Folder, postgres::Server};
use tower_api_key::{ApiKeyStore, HandoffToken, NewApiKey, PageRequest, Scopes};

const PROCESSES: usize = 4;
/// How many tasks claim in each process.
const TASKS: usize = 64;
/// One process is killed in one round of so many.
const KILL_ONE_IN: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests start it, as a process"]
async fn a_process_that_claims() {
    match env::var(PLACE) {
        Ok(place) => claimers::claim_what_it_is_told(&place, TASKS).await,
        Err(_) => println!("nobody asks for a claimer"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_on_sqlite_one_claim_succeeds_of_those_of_four_processes() {
    let folder = Folder::new("claim-race");
    race(&Place::Sqlite(folder.join("keys.db"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_on_postgres_one_claim_succeeds_of_those_of_four_processes() {
    let Some(server) = Server::start() else {
        return;
    };
    race(&Place::Postgres(server.url())).await;
}

/// What came of all rounds.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    kills: u64,
    /// Rounds in which no claim was answered with a key: its process was killed before.
    unanswered: u64,
    /// Those of them in which the key was made all the same.
    made_for_nobody: u64,
}

async fn race(place: &Place) {
    let rounds = number("CLAIM_ROUNDS").unwrap_or(100);
    let mut dice = Dice(number("CLAIM_SEED").unwrap_or_else(seed));
    println!("CLAIM_SEED={}", dice.0);
    let [store, _] = stores(place).await;
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| Claimers::start(place)).collect();
    let mut tally = Tally::default();
    let start = Instant::now();
    for round in 0..rounds {
        let user = format!("user_{round}");
        let new = NewApiKey::for_user(&user, Scopes::of(["notes:read"]).unwrap()).name("CI");
        let handed_off = store.hand_off(new, Duration::from_secs(600)).await.unwrap();
        let token = handed_off.token();
        for process in &mut processes {
            process.tell(token);
        }
        let mut won = Vec::new();
        let victim = dice
            .one_in(KILL_ONE_IN)
            .then(|| dice.below(PROCESSES as u64));
        if let Some(victim) = victim {
            let victim = usize::try_from(victim).unwrap();
            // A moment in which something else may happen each time, and not a wait for anything.
            tokio::time::sleep(Duration::from_micros(dice.below(30_000))).await;
            won.extend(processes[victim].kill());
            processes[victim] = Claimers::start(place);
            tally.kills += 1;
        }
        for (at, process) in processes.iter_mut().enumerate() {
            if victim != Some(at as u64) {
                won.extend(process.round_of(TASKS));
            }
        }
        check(&store, &user, token, &won, victim.is_some(), &mut tally).await;
        tally.rounds += 1;
    }
    println!("{tally:?} in {:?}", start.elapsed());
    assert_eq!(tally.rounds, rounds);
}

/// `won` are the tokens of the keys that claims were answered with.
async fn check(
    store: &ApiKeyStore,
    user: &str,
    token: &HandoffToken,
    won: &[String],
    was_killed: bool,
    tally: &mut Tally,
) {
    assert!(won.len() <= 1, "{} claims succeeded", won.len());
    let keys = store.list_for_user(user, PageRequest::new()).await.unwrap();
    let made = keys.keys.len();
    if let [won] = won {
        let auth = store.verify_fresh(won).await.unwrap();
        assert_eq!((auth.user_id(), auth.name()), (user, Some("CI")));
        assert_eq!(auth.key_id(), &keys.keys[0].id);
        assert_eq!(made, 1);
    } else {
        assert!(was_killed, "nobody was killed, and no claim succeeded");
        assert!(made <= 1, "{made} keys of one grant");
        tally.unanswered += 1;
        tally.made_for_nobody += made as u64;
    }
    // Who comes later finds it claimed, unless whoever was killed had not begun.
    let later = store.claim(token).await;
    assert_eq!(later.is_ok(), made == 0, "{later:?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(since.subsec_nanos()) ^ since.as_secs() << 20
}

/// Numbers that come again with the same seed: splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}
