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
    support::{feed::Remote, start},
};

/// So long that the timers of these tests, which are real ones, never come into it.
const MAX_STALENESS: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A cache that nothing is believed of when more than a minute has passed, until there is a proof.
struct Observed {
    store: ApiKeyStore,
    remote: Remote,
    clock: ManualClock,
    /// These are revoked, one after the other. So many of them are told of already.
    tokens: Vec<ApiKeyToken>,
    told_of: AtomicUsize,
    untouched: ApiKeyToken,
}

impl Observed {
    async fn new(keys: usize) -> Self {
        let (remote, clock) = (Remote::default(), ManualClock::new(start()));
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
            told_of: AtomicUsize::new(0),
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

    /// Ends the time in which anything is believed, and then tells of the next key and of others.
    async fn revoke_next(&self, others: u64) {
        self.clock.advance(MAX_STALENESS + Duration::from_secs(1));
        assert_eq!(self.cached(&self.untouched), None);
        let next = self.told_of.fetch_add(1, Ordering::SeqCst);
        let others = (0..others).map(some_key);
        let told = others.chain([self.tokens[next].key_id()]);
        self.remote
            .announce(told.map(|id| Change::Key(id.lookup_key())));
        let proof = async {
            // Leaves the processors to the other two.
            while self.cached(&self.untouched).is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(MAX_STALENESS, proof).await.unwrap();
    }

    /// Whether any of them is accepted while `revocations` go on.
    fn is_any_accepted_during(&self, revocations: impl Future<Output = ()>) -> bool {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let observer = scope.spawn(|| {
                let mut is_any_accepted = false;
                while !is_over.load(Ordering::SeqCst) {
                    let observed = self.told_of.load(Ordering::SeqCst);
                    if let Some(token) = self.tokens[..observed].last() {
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
    const ROUNDS: usize = 1_000;

    let observed = Observed::new(ROUNDS).await;
    let is_any_accepted = observed.is_any_accepted_during(async {
        for _ in 0..ROUNDS {
            observed.revoke_next(100).await;
        }
    });
    assert!(!is_any_accepted);
}
