//! What was told is applied before the answer that told it counts as a proof. It takes two threads to
//! see that: on one, nothing comes in between.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::block_in_place,
    time::{sleep, timeout},
};
use tower_api_key::{
    ApiKeyStore, ApiKeyToken, CacheConfig, Change, KeyId, KeyResolver, ManualClock,
};

use crate::{
    node::{new_key, outcome, store_on},
    support::{
        feed::{Feed, Remote},
        start,
    },
};

/// The shortest, so that a source is asked a hundred times a second: the timers of these tests are
/// real ones.
const MAX_STALENESS: Duration = Duration::from_millis(50);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const PATIENCE: Duration = Duration::from_secs(60);

/// A cache that believes nothing between two proofs, and keys that are revoked one after the other.
struct Observed {
    store: ApiKeyStore,
    remote: Remote,
    clock: ManualClock,
    tokens: Vec<ApiKeyToken>,
    /// How many of them were revoked before the time was that the clock shows.
    revoked: AtomicUsize,
    untouched: ApiKeyToken,
}

impl Observed {
    async fn new(keys: usize) -> Self {
        let (remote, clock) = (Remote::default(), ManualClock::new(start()));
        remote.set_feed(Feed::Silent);
        let cache = CacheConfig::new()
            .max_staleness(MAX_STALENESS)
            .time_to_live(DAY);
        let store = store_on(&remote, clock.clone(), cache).await;
        let mut tokens = Vec::new();
        for _ in 0..=keys {
            let issued = store.create(new_key()).await.unwrap();
            tokens.push(issued.token().clone());
        }
        for token in &tokens {
            assert_eq!(outcome(&store.resolve(token).await), "good");
        }
        Self {
            untouched: tokens.remove(0),
            revoked: AtomicUsize::new(0),
            store,
            remote,
            clock,
            tokens,
        }
    }

    fn cached(&self, token: &ApiKeyToken) -> Option<&'static str> {
        let answer = self.store.resolve_now(token)?;
        Some(outcome(&answer))
    }

    /// Revokes the next key, and some others. Then so much time passes that nothing is believed before
    /// there is a proof, and every proof that is asked for from then on tells of them.
    async fn revoke_next(&self, others: u64) {
        let next = self.revoked.load(Ordering::SeqCst);
        let others = (0..others).map(some_key);
        let told = others.chain([self.tokens[next].key_id().unwrap()]);
        self.remote
            .announce(told.map(|id| Change::Key(id.lookup_key())));
        self.clock.advance(2 * MAX_STALENESS);
        self.revoked.store(next + 1, Ordering::SeqCst);
        let proof = async {
            // Leaves the processors to the other two.
            while self.cached(&self.untouched).is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, proof).await.unwrap();
    }

    /// Whether any of them is accepted while `revocations` go on.
    fn is_any_accepted_during(&self, revocations: impl Future<Output = ()>) -> bool {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let observer = scope.spawn(|| {
                let mut is_any_accepted = false;
                while !is_over.load(Ordering::SeqCst) {
                    let revoked = self.revoked.load(Ordering::SeqCst);
                    if let Some(token) = self.tokens[..revoked].last() {
                        is_any_accepted |= self.cached(token).is_some();
                    }
                }
                is_any_accepted
            });
            block_in_place(|| Handle::current().block_on(revocations));
            is_over.store(true, Ordering::SeqCst);
            observer.join().unwrap()
        })
    }
}

fn some_key(number: u64) -> KeyId {
    let mut bytes = [0; KeyId::LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    KeyId::from_bytes(bytes)
}

/// So many that they take a while to apply.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_what_was_told_counts_before_the_proof_does() {
    let observed = Observed::new(1).await;
    let is_any_accepted = observed.is_any_accepted_during(observed.revoke_next(200_000));
    assert!(!is_any_accepted);
}

/// A request may look the key up just before it is forgotten, and be held up until the proof counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_request_that_overlaps_with_a_proof_is_not_given_what_the_proof_ends() {
    const ROUNDS: usize = 300;

    let observed = Observed::new(ROUNDS).await;
    let is_any_accepted = observed.is_any_accepted_during(async {
        for _ in 0..ROUNDS {
            observed.revoke_next(0).await;
        }
    });
    assert!(!is_any_accepted);
}
