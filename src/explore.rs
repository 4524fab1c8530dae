//! The cache's own code under schedules that a machine seldom comes upon.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --lib explore` runs the store, the cache, its flights and its
//! writes on shuttle's locks, maps and tasks. Each story is told under random schedules, and under
//! those of PCT, which find what needs a few switches at just the wrong places. `EXPLORE_ITERATIONS`
//! says how many there are of each kind.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod events;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use shuttle::{
    Config, Runner,
    future::block_on,
    scheduler::{PctScheduler, RandomScheduler},
};
use shuttle_tokio::task::{JoinHandle, spawn, yield_now};

use crate::{
    ApiKey, ApiKeyBackend, ApiKeyStore, ApiKeyToken, CacheConfig, Clock, KeyId, KeySource,
    MemoryBackend, Pepper, Peppers, Scopes, TokenFormat, VerifyError,
    cache::take_out,
    forward_to_backend,
    sync::{all_tasks_have_ended, forget_tasks},
};

/// Schedules of each kind for each story, unless told otherwise.
const ITERATIONS: usize = 2_000;
/// How many switches a schedule of PCT makes on purpose.
const PCT_DEPTH: usize = 3;

fn iterations() -> usize {
    let given = env::var("EXPLORE_ITERATIONS").ok();
    given.map_or(ITERATIONS, |given| given.parse().unwrap())
}

/// Tells a story under so many random schedules, and as many of PCT.
fn explore<F>(iterations: usize, story: fn() -> F)
where
    F: Future<Output = ()> + 'static,
{
    let random = RandomScheduler::new(iterations);
    explore_with(random, PctScheduler::new(PCT_DEPTH, iterations), story);
}

fn explore_with<F>(random: RandomScheduler, pct: PctScheduler, story: fn() -> F)
where
    F: Future<Output = ()> + 'static,
{
    let mut config = Config::new();
    // Frames of unoptimized builds are large.
    config.stack_size = 0x10_0000;
    Runner::new(random, config.clone()).run(move || block_on(tell(story)));
    Runner::new(pct, config).run(move || block_on(tell(story)));
}

async fn tell<F: Future<Output = ()>>(story: fn() -> F) {
    forget_tasks();
    story().await;
    // Shuttle takes it ill when an execution ends before its tasks do.
    all_tasks_have_ended().await;
}

/// Stands still, so that a schedule can be repeated.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(3_600)
    }
}

/// Keys in memory that tell nothing, so that the store's own invalidations are all there is.
#[derive(Clone, Default)]
struct Silent(MemoryBackend);

impl KeySource for Silent {
    forward_to_backend!(self => self.0; get_many);
}

impl ApiKeyBackend for Silent {
    forward_to_backend!(self => self.0; insert, update, delete, list_for_user, touch);
}

/// A store over a backend that tells nothing, and two keys in it that nobody has read.
struct Story {
    store: ApiKeyStore,
    backend: Silent,
    one: ApiKeyToken,
    other: ApiKeyToken,
}

impl Story {
    async fn new(cache: CacheConfig) -> Arc<Self> {
        let backend = Silent::default();
        let peppers = Peppers::new(Pepper::new("v1", [7; 32]).unwrap());
        let (one, other) = (token('a'), token('b'));
        for token in [&one, &other] {
            let hash = peppers.hash(token).unwrap();
            let key = ApiKey::new(id(token), "user_1", Scopes::none(), hash);
            assert!(backend.insert(&key).await.unwrap());
        }
        let store = ApiKeyStore::builder(backend.clone())
            .peppers(peppers)
            .clock(Still)
            .cache(cache);
        Arc::new(Self {
            store: store.build().await.unwrap(),
            backend,
            one,
            other,
        })
    }

    async fn lets_in(&self, token: &ApiKeyToken) -> bool {
        match self.store.verify(token.expose()).await {
            Ok(_) => true,
            Err(VerifyError::Revoked | VerifyError::Unknown) => false,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Somebody who uses a key, so often.
    fn user(self: &Arc<Self>, token: &ApiKeyToken, times: usize) -> JoinHandle<()> {
        let (story, token) = (self.clone(), token.clone());
        spawn(async move {
            for _ in 0..times {
                story.lets_in(&token).await;
            }
        })
    }

    /// The record is revoked in the database, by somebody who tells nobody.
    async fn revoke_elsewhere(&self, token: &ApiKeyToken) {
        let mut key = self.stored(token).await;
        key.revoked_at = Some(Still.now());
        key.version += 1;
        assert!(self.backend.update(&key, key.version - 1).await.unwrap());
    }

    async fn stored(&self, token: &ApiKeyToken) -> ApiKey {
        let found = self.backend.get_many(&[token.lookup_key()]).await.unwrap();
        found.into_iter().next().unwrap()
    }
}

fn id(token: &ApiKeyToken) -> KeyId {
    token.key_id().unwrap()
}

fn token(letter: char) -> ApiKeyToken {
    let letter = letter.to_string();
    let text = format!("pk.key_{}.{}", letter.repeat(32), letter.repeat(43));
    TokenFormat::default().parse(text).unwrap()
}

async fn a_load_against_a_revocation() {
    let story = Story::new(CacheConfig::new()).await;
    let users = [story.user(&story.one, 2), story.user(&story.one, 1)];
    assert!(story.store.revoke(&id(&story.one)).await.unwrap());
    assert!(
        !story.lets_in(&story.one).await,
        "right after the revocation"
    );
    for user in users {
        user.await.unwrap();
    }
    assert!(!story.lets_in(&story.one).await, "brought back by a load");
}

async fn a_load_against_an_invalidation_of_everything() {
    let story = Story::new(CacheConfig::new()).await;
    let users = [story.user(&story.one, 2), story.user(&story.other, 1)];
    story.revoke_elsewhere(&story.one).await;
    story.store.invalidate_all();
    assert!(!story.lets_in(&story.one).await, "right after");
    for user in users {
        user.await.unwrap();
    }
    assert!(!story.lets_in(&story.one).await, "brought back by a load");
    assert!(story.lets_in(&story.other).await);
}

async fn a_first_load_against_a_bulk_revocation() {
    let story = Story::new(CacheConfig::new()).await;
    let users = [story.user(&story.one, 2), story.user(&story.one, 1)];
    story.revoke_elsewhere(&story.one).await;
    // It finds the other key alone, and does not know which keys were revoked before.
    let revoked = story.store.revoke_all_for_user("user_1").await;
    assert_eq!(revoked.unwrap(), 1);
    assert!(!story.lets_in(&story.one).await, "right after");
    for user in users {
        user.await.unwrap();
    }
    assert!(!story.lets_in(&story.one).await, "brought back by a load");
    assert!(!story.lets_in(&story.other).await);
}

async fn a_revocation_whose_caller_goes_away() {
    let story = Story::new(CacheConfig::new()).await;
    let user = story.user(&story.one, 2);
    let revoking = {
        let story = story.clone();
        spawn(async move { story.store.revoke(&id(&story.one)).await })
    };
    yield_now().await;
    revoking.abort();
    let told = revoking.await;
    if let Ok(revoked) = &told {
        assert!(matches!(revoked, Ok(true)));
        assert!(!story.lets_in(&story.one).await, "revoked, and told so");
    }
    user.await.unwrap();
    // What was begun is carried out without its caller.
    all_tasks_have_ended().await;
    let is_revoked = story.stored(&story.one).await.revoked_at.is_some();
    assert!(is_revoked || told.is_err());
    assert_ne!(story.lets_in(&story.one).await, is_revoked);
}

async fn a_fresh_check_against_an_older_load() {
    let story = Story::new(CacheConfig::new()).await;
    let users = [story.user(&story.one, 1), story.user(&story.one, 1)];
    story.revoke_elsewhere(&story.one).await;
    let fresh = story.store.verify_fresh(story.one.expose()).await;
    assert!(matches!(fresh, Err(VerifyError::Revoked)), "{fresh:?}");
    for user in users {
        user.await.unwrap();
    }
    assert!(!story.lets_in(&story.one).await, "an older load came later");
}

async fn loads_against_evictions_and_a_revocation() {
    let story = Story::new(CacheConfig::new().capacity(1)).await;
    let users = [story.user(&story.one, 2), story.user(&story.other, 2)];
    assert!(story.store.revoke(&id(&story.one)).await.unwrap());
    assert!(
        !story.lets_in(&story.one).await,
        "right after the revocation"
    );
    for user in users {
        user.await.unwrap();
    }
    assert!(!story.lets_in(&story.one).await, "brought back by a load");
    assert!(story.lets_in(&story.other).await);
    let stats = story.store.cache_stats();
    assert!(stats.entries <= 1, "{stats:?}");
}

async fn a_deletion_and_a_key_that_comes_after_it() {
    let story = Story::new(CacheConfig::new()).await;
    let user = story.user(&story.one, 2);
    let key = story.stored(&story.one).await;
    assert!(story.store.delete(&key.id).await.unwrap());
    assert!(!story.lets_in(&story.one).await, "right after the deletion");
    assert!(story.backend.insert(&key).await.unwrap());
    story.store.invalidate_all();
    assert!(
        story.lets_in(&story.one).await,
        "hidden by what was not there"
    );
    user.await.unwrap();
    assert!(story.lets_in(&story.one).await, "hidden by an older load");
}

async fn many_requests_for_one_cold_key() {
    let story = Story::new(CacheConfig::new()).await;
    let users = [0; 4].map(|_| story.user(&story.one, 1));
    // Whoever began the load may go away.
    users[0].abort();
    for user in users.into_iter().skip(1) {
        user.await.unwrap();
    }
    assert!(story.lets_in(&story.one).await);
    let stats = story.store.cache_stats();
    assert_eq!((stats.loads, stats.reads), (1, 1), "{stats:?}");
}

#[test]
fn g1_no_schedule_lets_a_load_bring_back_a_revoked_key() {
    explore(iterations(), a_load_against_a_revocation);
}

#[test]
fn g1_no_schedule_lets_a_load_survive_an_invalidation_of_everything() {
    explore(iterations(), a_load_against_an_invalidation_of_everything);
}

#[test]
fn g1_no_schedule_lets_a_first_load_survive_a_bulk_revocation() {
    explore(iterations(), a_first_load_against_a_bulk_revocation);
}

#[test]
fn g1_no_schedule_undoes_a_revocation_whose_caller_went_away() {
    explore(iterations(), a_revocation_whose_caller_goes_away);
}

#[test]
fn no_schedule_lets_an_older_load_answer_a_fresh_check() {
    explore(iterations(), a_fresh_check_against_an_older_load);
}

#[test]
fn g8_no_schedule_caches_more_than_there_is_room_for() {
    explore(iterations(), loads_against_evictions_and_a_revocation);
}

#[test]
fn g1_no_schedule_brings_back_a_deleted_key_or_hides_a_new_one() {
    explore(iterations(), a_deletion_and_a_key_that_comes_after_it);
}

#[test]
fn g9_no_schedule_reads_a_cold_key_twice() {
    explore(iterations(), many_requests_for_one_cold_key);
}

/// Whether 1,000 schedules are enough to tell that something is missing: the same ones each time, since
/// a thousand others might by chance be harmless.
fn is_found_out<F>(story: fn() -> F) -> bool
where
    F: Future<Output = ()> + 'static,
{
    const SEED: u64 = 1;
    let random = RandomScheduler::new_from_seed(SEED, 500);
    let pct = PctScheduler::new_from_seed(SEED, PCT_DEPTH, 500);
    catch_unwind(AssertUnwindSafe(|| explore_with(random, pct, story))).is_err()
}

#[test]
fn a_cache_without_its_fence_is_found_out_within_a_thousand_schedules() {
    take_out();
    assert!(is_found_out(a_load_against_a_revocation));
    assert!(is_found_out(a_load_against_an_invalidation_of_everything));
    assert!(is_found_out(a_first_load_against_a_bulk_revocation));
}
