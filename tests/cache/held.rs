//! Contexts that are held on to: they end with their key, whatever becomes of the source, and cost nothing
//! until then.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use tokio::{
    runtime::Builder,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tower_api_key::{
    ApiKeyStore, AuthContext, BackendError, CacheConfig, CachedResolver, ChangeSink, KeyId,
    KeyResolver, KeySource, KeyUpdate, ManualClock, MemoryBackend, NewApiKey, Pepper, Peppers,
    Scopes, Subscription, VerifyError, forward_to_backend,
};

use crate::{
    HEARTBEAT, MAX_STALENESS, MOMENT, SECOND,
    node::{Node, new_key, store_on},
    support::{
        PEPPER, USER,
        feed::{Feed, Reading, Subscribing},
        id_of, start,
    },
};

/// Waits for the end in a task of its own, which returns when that came.
fn watch(auth: &AuthContext) -> JoinHandle<Instant> {
    let revoked = auth.revoked();
    tokio::spawn(async move {
        revoked.await;
        Instant::now()
    })
}

async fn held(node: &Node, token: &str) -> (AuthContext, JoinHandle<Instant>) {
    let auth = node.store.verify(token).await.unwrap();
    let watch = watch(&auth);
    sleep(MOMENT).await;
    assert!(!watch.is_finished() && auth.is_active().await.unwrap());
    (auth, watch)
}

async fn ended_after(since: Instant, watch: JoinHandle<Instant>) -> Duration {
    let end = timeout(3 * MAX_STALENESS, watch).await;
    end.expect("it goes on").unwrap() - since
}

#[tokio::test(start_paused = true)]
async fn a_context_ends_at_once_with_what_ends_its_key_through_the_store() {
    let node = Node::new().await;
    let store = &node.store;
    for way in 0..5 {
        let token = node.token().await;
        let id = id_of(&token);
        let (auth, watch) = held(&node, &token).await;
        sleep(100 * SECOND).await;
        let (ended_at, done) = (
            Instant::now(),
            match way {
                0 => store.revoke(&id).await.unwrap(),
                1 => store.disable(&id).await.unwrap(),
                2 => store.delete(&id).await.unwrap(),
                3 => store.revoke_token(&token).await.unwrap(),
                _ => {
                    let update = KeyUpdate::new().expires_at(start());
                    store.update(&id, update).await.unwrap().is_some()
                }
            },
        );
        assert!(done);
        assert!(ended_after(ended_at, watch).await <= MOMENT, "way {way}");
        assert!(!auth.is_active().await.unwrap());
        auth.revoked().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_leaves_the_key_good_ends_nothing() {
    let node = Node::new().await;
    let token = node.token().await;
    let (auth, watch) = held(&node, &token).await;
    for name in ["a", "b", "c"] {
        node.store
            .update(&id_of(&token), KeyUpdate::new().name(name))
            .await
            .unwrap();
        sleep(SECOND).await;
    }
    node.store.invalidate_all();
    sleep(1_000 * SECOND).await;
    assert!(!watch.is_finished() && auth.is_active().await.unwrap());
    node.remote.revoke_elsewhere(&token).await;
    assert!(ended_after(Instant::now(), watch).await < HEARTBEAT);
}

#[tokio::test(start_paused = true)]
async fn a_context_ends_when_its_key_expires_and_not_before() {
    let node = Node::new().await;
    let long = 3 * 60 * 60 * SECOND + SECOND / 3;
    for after in [SECOND / 4, 90 * SECOND, long] {
        let token = node.issue(new_key().expires_in(after)).await;
        let (created, (auth, watch)) = (Instant::now(), held(&node, &token).await);
        sleep_until(created + after - SECOND / 10).await;
        assert!(!watch.is_finished());
        let took = watch.await.unwrap() - created;
        assert!((after..after + SECOND / 50).contains(&took), "{took:?}");
        assert!(!auth.is_active().await.unwrap());
    }
    // The end is moved while it is waited for.
    let token = node.issue(new_key().expires_in(10 * SECOND)).await;
    let (_, watch) = held(&node, &token).await;
    let created = Instant::now();
    node.store
        .update(&id_of(&token), KeyUpdate::new().expires_in(100 * SECOND))
        .await
        .unwrap();
    let took = watch.await.unwrap() - created;
    assert!((99 * SECOND..102 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_context_outlives_its_place_in_the_cache_and_hears_of_its_key_all_the_same() {
    let node = Node::with(CacheConfig::new().capacity(1)).await;
    let token = node.token().await;
    let (auth, watch) = held(&node, &token).await;
    for other in node.tokens(10).await {
        assert_eq!(node.verify(&other).await, "good");
    }
    sleep(1_000 * SECOND).await;
    assert!(!watch.is_finished() && auth.is_active().await.unwrap());
    assert_eq!(node.verify(&node.token().await).await, "good");
    let revoked_at = Instant::now();
    node.remote.revoke_elsewhere(&token).await;
    assert!(ended_after(revoked_at, watch).await < HEARTBEAT);
}

/// In the worst case: the feed dies right after the answer that would not yet have told of it.
#[tokio::test(start_paused = true)]
async fn g2_a_context_ends_in_time_whatever_becomes_of_the_feed_and_the_source() {
    let feeds = [
        Feed::Live,
        Feed::Silent,
        Feed::Stalled,
        Feed::Cut,
        Feed::Panics,
    ];
    let again = [
        Subscribing::Hangs,
        Subscribing::Refused,
        Subscribing::Feed,
        Subscribing::Nothing,
    ];
    let readings = [
        Reading::Answers,
        Reading::Slow(SECOND),
        Reading::Fails,
        Reading::Hangs,
        Reading::Panics,
    ];
    for feed in feeds {
        for subscribing in again {
            for reading in readings {
                for delay in [-900_i64, -1, 0, 1, 700, 2_400, 2_600, 4_900, 7_000] {
                    let took = ended_after_fault(feed, subscribing, reading, delay).await;
                    assert!(
                        took <= MAX_STALENESS,
                        "{feed:?}, {subscribing:?}, {reading:?}, revoked {delay} ms after: {took:?}"
                    );
                }
            }
        }
    }
}

/// The change arrives in time, and the key can no longer be read. What was read last before it
/// must not count twice.
#[tokio::test(start_paused = true)]
async fn g2_a_context_ends_in_time_after_a_change_whatever_was_read_before() {
    let readings = [
        Reading::Fails,
        Reading::Hangs,
        Reading::Slow(MAX_STALENESS),
        Reading::Panics,
    ];
    for reading in readings {
        for age in [0, 500, 1_000, 2_000, 3_000, 4_000, 4_900, 60_000] {
            // A second change comes so long after the first.
            for again in [None, Some(100), Some(1_000), Some(1_600), Some(2_900)] {
                let took = ended_after_change(reading, age, again).await;
                assert!(
                    took <= MAX_STALENESS,
                    "{reading:?}, read {age} ms before, again {again:?}: {took:?}"
                );
            }
        }
    }
}

async fn ended_after_change(reading: Reading, age: u64, again: Option<u64>) -> Duration {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let (_, watch) = held(&node, &token).await;
    sleep(Duration::from_millis(age)).await;
    node.remote.set_reading(reading);
    node.remote.revoke_elsewhere(&token).await;
    let revoked_at = Instant::now();
    if let Some(again) = again {
        sleep(Duration::from_millis(again)).await;
        rename_elsewhere(&node, &token).await;
    }
    ended_after(revoked_at, watch).await
}

async fn rename_elsewhere(node: &Node, token: &str) {
    let rename = |key: &mut tower_api_key::ApiKey| key.name = Some("renamed".to_owned());
    node.remote.change_elsewhere(token, rename).await;
}

/// Each change has the key read again, which must not put off the end.
#[tokio::test(start_paused = true)]
async fn g2_a_context_of_a_key_that_is_renamed_all_the_time_ends_in_time() {
    for reading in [Reading::Fails, Reading::Hangs, Reading::Slow(2 * SECOND)] {
        let node = Node::new().await;
        let token = node.cached_token().await;
        let (_, watch) = held(&node, &token).await;
        sleep(SECOND).await;
        node.remote.set_reading(reading);
        node.remote.revoke_elsewhere(&token).await;
        let revoked_at = Instant::now();
        let renames = async {
            loop {
                sleep(SECOND).await;
                rename_elsewhere(&node, &token).await;
            }
        };
        let took = tokio::select! {
            took = ended_after(revoked_at, watch) => took,
            () = renames => unreachable!(),
        };
        assert!(took <= MAX_STALENESS, "{reading:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_context_stays_open_while_its_key_is_renamed_and_can_be_read() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let (auth, watch) = held(&node, &token).await;
    node.remote.set_reading(Reading::Slow(SECOND / 2));
    for _ in 0..100 {
        sleep(SECOND).await;
        rename_elsewhere(&node, &token).await;
    }
    assert!(!watch.is_finished() && auth.is_active().await.unwrap());
}

/// How long after its revocation a context has ended.
async fn ended_after_fault(
    feed: Feed,
    subscribing: Subscribing,
    reading: Reading,
    delay: i64,
) -> Duration {
    let node = Node::new().await;
    node.remote.set_feed(Feed::Silent);
    let token = node.cached_token().await;
    let (_, watch) = held(&node, &token).await;
    let fault_at = Instant::now() + 20 * HEARTBEAT + SECOND / 3;
    let by = Duration::from_millis(delay.unsigned_abs());
    let revoked_at = if delay < 0 {
        fault_at - by
    } else {
        fault_at + by
    };
    let fault = async {
        sleep_until(fault_at).await;
        node.remote.set_subscribing(subscribing);
        node.remote.set_feed(feed);
        node.remote.set_reading(reading);
    };
    let revocation = async {
        sleep_until(revoked_at).await;
        node.remote.revoke_elsewhere(&token).await;
    };
    tokio::join!(fault, revocation);
    let end = timeout(3 * MAX_STALENESS, watch)
        .await
        .expect("it goes on")
        .unwrap();
    if end < revoked_at {
        // Nobody could say any more, before it was revoked.
        assert!(
            reading != Reading::Answers,
            "{feed:?}, {subscribing:?}, {delay}"
        );
        assert!(end >= fault_at);
    }
    end.saturating_duration_since(revoked_at)
}

#[tokio::test(start_paused = true)]
async fn while_the_key_can_be_read_a_dead_feed_ends_nothing() {
    for feed in [Feed::Stalled, Feed::Cut] {
        let node = Node::new().await;
        let token = node.cached_token().await;
        let (auth, watch) = held(&node, &token).await;
        node.remote.set_subscribing(Subscribing::Hangs);
        node.remote.set_feed(feed);
        let reads = node.remote.reads();
        sleep(1_000 * SECOND).await;
        assert!(!watch.is_finished() && auth.is_active().await.unwrap());
        let reads = node.remote.reads() - reads;
        assert!(
            (100..1_000).contains(&reads),
            "{reads} reads in a thousand seconds"
        );

        // It is back: nothing is read any more, and it is told.
        node.remote.set_subscribing(Subscribing::Feed);
        node.remote.set_feed(Feed::Live);
        sleep(100 * SECOND).await;
        let reads = node.remote.reads();
        sleep(1_000 * SECOND).await;
        assert!(node.remote.reads() <= reads + 1, "what is told isn't read");
        node.remote.revoke_elsewhere(&token).await;
        assert!(ended_after(Instant::now(), watch).await < HEARTBEAT);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_is_over_in_time_ends_nothing() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let (_, watch) = held(&node, &token).await;
    sleep(100 * SECOND).await;
    node.remote.set_subscribing(Subscribing::Refused);
    node.remote.set_feed(Feed::Cut);
    node.remote.set_reading(Reading::Fails);
    sleep(MAX_STALENESS - 2 * HEARTBEAT).await;
    node.remote.set_subscribing(Subscribing::Feed);
    node.remote.set_feed(Feed::Live);
    node.remote.set_reading(Reading::Answers);
    sleep(100 * SECOND).await;
    assert!(!watch.is_finished());
}

#[tokio::test(start_paused = true)]
async fn what_may_be_served_stale_may_be_held_as_long() {
    let cache = CacheConfig::new().serve_stale(60 * SECOND);
    let node = Node::with(cache).await;
    let token = node.cached_token().await;
    let (_, watch) = held(&node, &token).await;
    sleep(100 * SECOND).await;
    let fault_at = Instant::now();
    node.remote.set_subscribing(Subscribing::Refused);
    node.remote.set_feed(Feed::Cut);
    node.remote.set_reading(Reading::Fails);
    let took = watch.await.unwrap() - fault_at;
    let least = 60 * SECOND + MAX_STALENESS - 2 * HEARTBEAT;
    assert!(
        (least..=60 * SECOND + MAX_STALENESS).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_source_that_tells_nothing_the_key_is_read_again_in_time() {
    let node = Node::new().await;
    node.remote.set_subscribing(Subscribing::Nothing);
    let token = node.cached_token().await;
    let (auth, watch) = held(&node, &token).await;
    sleep(100 * SECOND + SECOND / 7).await;
    assert!(!watch.is_finished() && auth.is_active().await.unwrap());
    node.remote.revoke_elsewhere(&token).await;
    assert!(ended_after(Instant::now(), watch).await <= MAX_STALENESS);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_contexts_that_are_held_cost_no_polling() {
    let node = Node::new().await;
    let polls = Arc::new(AtomicUsize::new(0));
    let mut watches = Vec::new();
    let mut tokens = node.tokens(50).await;
    for days in 1..=50 {
        let new = new_key().expires_in(days * 24 * 3_600 * SECOND);
        tokens.push(node.issue(new).await);
    }
    for token in &tokens {
        let auth = node.store.verify(token).await.unwrap();
        for _ in 0..100 {
            let (mut revoked, polls) = (Box::pin(auth.revoked()), polls.clone());
            watches.push(tokio::spawn(poll_fn(move |cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                revoked.as_mut().poll(cx)
            })));
        }
    }
    sleep(SECOND).await;
    let (reads, polled) = (node.remote.reads(), polls.load(Ordering::Relaxed));
    assert!(polled >= 10_000);
    // Less than the hour after which each looks again in any case.
    sleep(3_000 * SECOND).await;
    assert_eq!(polls.load(Ordering::Relaxed), polled);
    assert_eq!(node.remote.reads(), reads);

    for token in [&tokens[7], &tokens[77]] {
        node.remote.revoke_elsewhere(token).await;
    }
    sleep(2 * HEARTBEAT).await;
    let ended = watches.iter().filter(|watch| watch.is_finished()).count();
    assert_eq!(ended, 200);
    let told = polls.load(Ordering::Relaxed) - polled;
    assert!(told <= 600, "{told} polls for two hundred ends");
}

/// Polls of a context that is held for so long while its source tells nothing of changes.
async fn polls_in(time: Duration, subscribing: Subscribing) -> usize {
    let node = Node::new().await;
    node.remote.set_subscribing(subscribing);
    let token = node.token().await;
    let auth = node.store.verify(&token).await.unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let (mut revoked, counted) = (Box::pin(auth.revoked()), polls.clone());
    let held = tokio::spawn(poll_fn(move |cx| {
        counted.fetch_add(1, Ordering::Relaxed);
        revoked.as_mut().poll(cx)
    }));
    sleep(time).await;
    assert!(!held.is_finished());
    polls.load(Ordering::Relaxed)
}

/// Each read may take two polls, and the key is read every half of the bound.
#[tokio::test(start_paused = true)]
async fn a_held_context_without_changes_is_polled_only_for_its_reads() {
    for subscribing in [Subscribing::Nothing, Subscribing::Refused] {
        let polls = polls_in(1_000 * SECOND, subscribing).await;
        let reads = 2 * 1_000 / 5;
        assert!(
            (reads..4 * reads).contains(&polls),
            "{subscribing:?}: {polls} polls"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn g2_a_context_that_shows_another_name_or_end_ends_with_its_key() {
    let node = Node::new().await;
    let token = node.token().await;
    let (auth, _) = held(&node, &token).await;
    // The end of a context is told by the system's time.
    let tomorrow = SystemTime::now() + 24 * 3_600 * SECOND;
    let shown = [
        auth.clone().with_name("shown"),
        auth.clone().with_expiry(tomorrow).with_name("shown"),
    ];
    let watches = shown.each_ref().map(watch);
    sleep(100 * SECOND).await;
    assert!(watches.iter().all(|watch| !watch.is_finished()));
    node.remote.revoke_elsewhere(&token).await;
    let revoked_at = Instant::now();
    for (shown, watch) in shown.iter().zip(watches) {
        assert_eq!(shown.name(), Some("shown"));
        assert!(ended_after(revoked_at, watch).await <= MAX_STALENESS);
        assert!(!shown.is_active().await.unwrap());
    }
    let ends_before = node.store.verify(&node.token().await).await.unwrap();
    let ends_before = ends_before.with_expiry(SystemTime::now());
    ends_before.revoked().await;
    assert!(!ends_before.is_active().await.unwrap());
}

/// The context was to end after its key. Then the key's expiry was moved beyond that.
#[tokio::test(start_paused = true)]
async fn g6_an_expiry_of_a_context_applies_after_its_key_was_extended() {
    let clock = ManualClock::new(start() - 365 * 24 * 3_600 * SECOND);
    let store = ApiKeyStore::builder(MemoryBackend::new())
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .clock(clock);
    let store = store.build().await.unwrap();
    let issued = store
        .create(new_key().expires_in(10 * SECOND))
        .await
        .unwrap();
    let auth = store.verify(issued.token().expose()).await.unwrap();
    // By the system's time, which is later than that of the store.
    let ended = auth.clone().with_expiry(SystemTime::now());
    assert!(ended.expires_at() > auth.expires_at());
    let later = KeyUpdate::new().expires_in(1_000 * 24 * 3_600 * SECOND);
    store.update(auth.key_id(), later).await.unwrap();

    assert!(auth.is_active().await.unwrap());
    assert!(!ended.is_active().await.unwrap());
    timeout(SECOND, ended.revoked()).await.expect("it goes on");
    // Another name alone is no expiry.
    let renamed = auth.with_name("renamed");
    assert!(timeout(100 * SECOND, renamed.revoked()).await.is_err());
    assert!(renamed.is_active().await.unwrap());
}

/// As the waker of a runtime that drops a task while it is woken.
struct DropsOnWake(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for DropsOnWake {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn a_waker_that_drops_a_watched_context_locks_nobody_out() {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = ApiKeyStore::in_memory();
            let issued = store.create(new_key()).await.unwrap();
            let token = issued.token().expose();
            let auth = store.verify(token).await.unwrap();
            let other = Box::pin(auth.revoked());
            let waker = Arc::new(DropsOnWake(Mutex::new(None)));
            let mut watched = Box::pin(auth.revoked());
            let task_waker = Waker::from(waker.clone());
            let mut cx = Context::from_waker(&task_waker);
            assert!(watched.as_mut().poll(&mut cx).is_pending());
            *waker.0.lock().unwrap() = Some(watched);
            store.revoke(auth.key_id()).await.unwrap();
            assert!(waker.0.lock().unwrap().is_none(), "it was not woken");
            other.await;
        });
        done.send(()).unwrap();
    });
    let ended = is_done.recv_timeout(20 * SECOND);
    assert!(ended.is_ok(), "it waits for itself");
}

/// A timer knows nothing of it: the machine was suspended, or somebody has set the time of day.
#[tokio::test(start_paused = true)]
async fn g6_a_context_ends_when_the_time_of_day_is_set_beyond_the_end_of_its_key() {
    // At once, or by less than would put the proofs of the feed in doubt.
    for (sets, by) in [(1, 24 * 3_600 * SECOND), (1_000, SECOND / 2)] {
        let node = Node::new().await;
        let new = new_key().expires_in(sets * (by + HEARTBEAT));
        let (_, ends) = held(&node, &node.issue(new).await).await;
        let (_, goes_on) = held(&node, &node.token().await).await;
        for set in 1..=sets {
            sleep(HEARTBEAT).await;
            assert!(!ends.is_finished(), "after {set} of {sets}");
            node.clock.set_forwards(by);
        }
        assert!(ended_after(Instant::now(), ends).await <= 2 * HEARTBEAT);
        // Nobody can say of a day that was slept through that the key wasn't revoked meanwhile.
        assert_eq!(goes_on.is_finished(), by > MAX_STALENESS);
    }
}

/// After a feed was lost and found, any key may have changed.
#[tokio::test(start_paused = true)]
async fn more_contexts_than_reads_may_wait_are_read_again_together_and_requests_come_through() {
    let node = Node::with(CacheConfig::new().max_waiting_loads(500)).await;
    let mut watches = Vec::new();
    for token in node.tokens(3_000).await {
        watches.push(watch(&node.store.verify(&token).await.unwrap()));
    }
    let other = node.token().await;
    sleep(10 * SECOND).await;
    let reads = node.remote.reads();
    node.remote.set_reading(Reading::Slow(SECOND / 100));
    node.store.invalidate_all();
    assert_eq!(node.verify(&other).await, "good");
    sleep(100 * SECOND).await;
    assert!(watches.iter().all(|watch| !watch.is_finished()));
    let reads = node.remote.reads() - reads;
    assert!(reads < 300, "{reads} reads for three thousand keys");
}

/// Says that it tells of changes, and doesn't.
struct Untold(MemoryBackend);

impl KeySource for Untold {
    async fn subscribe(&self, _: ChangeSink) -> Result<Subscription, BackendError> {
        Ok(Subscription::direct())
    }

    forward_to_backend!(self => self.0; all of source but subscribe);
}

#[tokio::test(start_paused = true)]
async fn a_context_ends_when_a_request_has_found_its_key_ended_though_nobody_has_told() {
    let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    let backend = MemoryBackend::new();
    let elsewhere = ApiKeyStore::builder(backend.clone()).peppers(peppers.clone());
    let elsewhere = elsewhere.build().await.unwrap();
    let here = CachedResolver::builder(Untold(backend)).peppers(peppers);
    let here = here.build().await.unwrap();
    for way in 0..3 {
        let issued = elsewhere.create(new_key()).await.unwrap();
        let (token, id) = (issued.token(), issued.key().id);
        let watch = watch(&here.resolve(token).await.unwrap());
        match way {
            0 => assert!(elsewhere.revoke(&id).await.unwrap()),
            1 => assert!(elsewhere.disable(&id).await.unwrap()),
            _ => assert!(elsewhere.delete(&id).await.unwrap()),
        }
        sleep(SECOND).await;
        assert!(!watch.is_finished(), "somebody has told");
        here.resolve_fresh(token).await.unwrap_err();
        assert!(ended_after(Instant::now(), watch).await <= MOMENT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_context_keeps_no_store_alive_and_ends_with_it() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let (auth, watch) = held(&node, &token).await;
    let Node { store, remote, .. } = node;
    drop(store);
    assert!(ended_after(Instant::now(), watch).await <= MAX_STALENESS);
    auth.revoked().await;
    assert!(auth.is_active().await.is_err(), "nobody can say");
    sleep(10 * SECOND).await;
    let (reads, feed_reads) = (remote.reads(), remote.feed_reads());
    sleep(1_000 * SECOND).await;
    assert_eq!((remote.reads(), remote.feed_reads()), (reads, feed_reads));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_waited_for_is_forgotten() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    for _ in 0..3 {
        let (_, watch) = held(&node, &token).await;
        watch.abort();
        sleep(10 * SECOND).await;
    }
    let (_, watch) = held(&node, &token).await;
    node.store.revoke_token(&token).await.unwrap();
    assert!(ended_after(Instant::now(), watch).await <= MOMENT);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_share_a_backend_end_each_others_contexts() {
    let node = Node::new().await;
    let other = store_on(&node.remote, node.clock.clone(), CacheConfig::new()).await;
    let token = node.cached_token().await;
    let (_, watch) = held(&node, &token).await;
    let revoked_at = Instant::now();
    assert!(other.revoke_token(&token).await.unwrap());
    assert!(ended_after(revoked_at, watch).await < HEARTBEAT);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_key_also_one_that_always_has_something_to_say() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let (auth, _) = held(&node, &token).await;
    let ticks = stream::unfold(0, async |count| {
        sleep(SECOND).await;
        Some((count, count + 1))
    });
    let mut ticks = pin!(auth.until_revoked(ticks));
    assert_eq!((ticks.next().await, ticks.next().await), (Some(0), Some(1)));
    let mut busy = pin!(auth.until_revoked(stream::repeat(1)));
    assert_eq!(busy.next().await, Some(1));
    node.store.revoke_token(&token).await.unwrap();
    sleep(MOMENT).await;
    let revoked_at = Instant::now();
    assert_eq!((ticks.next().await, busy.next().await), (None, None));
    assert_eq!((ticks.next().await, busy.next().await), (None, None));
    assert!(revoked_at.elapsed() <= MOMENT);

    // One that ends by itself is let go.
    let token = node.cached_token().await;
    let auth = node.store.verify(&token).await.unwrap();
    let all: Vec<_> = auth.until_revoked(stream::iter([1, 2, 3])).collect().await;
    assert_eq!(all, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_lets_go_of_what_it_wraps_when_it_ends() {
    let node = Node::new().await;
    let token = node.cached_token().await;
    let auth = node.store.verify(&token).await.unwrap();
    let kept = Arc::new(());
    let inner = {
        let kept = kept.clone();
        stream::poll_fn(move |_| {
            let _ = &kept;
            Poll::<Option<()>>::Pending
        })
    };
    let mut ended: Pin<Box<_>> = Box::pin(auth.until_revoked(inner));
    let next = tokio::join!(ended.next(), async {
        sleep(SECOND).await;
        node.store.revoke_token(&token).await.unwrap();
    });
    assert_eq!(next.0, None);
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[tokio::test(start_paused = true)]
async fn a_context_made_by_hand_ends_with_its_expiry_alone() {
    let auth = AuthContext::new(KeyId::from_bytes([7; 24]), USER, Scopes::none());
    assert!(auth.is_active().await.unwrap());
    assert!(timeout(100_000 * SECOND, auth.revoked()).await.is_err());
    let ended = auth.with_expiry(start() - 1_000_000_000 * SECOND);
    assert!(!ended.is_active().await.unwrap());
    ended.revoked().await;
}

/// By the time of day, which no runtime pauses.
#[tokio::test]
async fn a_context_made_by_hand_ends_when_its_expiry_comes_and_not_before() {
    let end = SystemTime::now() + SECOND / 5;
    let auth = AuthContext::new(KeyId::from_bytes([7; 24]), USER, Scopes::none()).with_expiry(end);
    let ends_at = auth.expires_at().unwrap();
    let is_active = auth.is_active().await.unwrap();
    assert!(is_active || SystemTime::now() >= ends_at);
    let mut stream = pin!(auth.until_revoked(stream::pending::<()>()));
    let ended = async { tokio::join!(auth.revoked(), stream.next()) };
    let ((), last) = timeout(30 * SECOND, ended).await.expect("it goes on");
    assert!(SystemTime::now() >= ends_at, "it has ended early");
    assert_eq!((last, auth.is_active().await.unwrap()), (None, false));
}

/// Timers pass at once here, and the time of day stays.
#[tokio::test(start_paused = true)]
async fn a_context_made_by_hand_ends_by_the_time_of_day_and_by_no_timer() {
    let end = SystemTime::now() + 24 * 3_600 * SECOND;
    let auth = AuthContext::new(KeyId::from_bytes([7; 24]), USER, Scopes::none()).with_expiry(end);
    assert!(
        timeout(30 * 24 * 3_600 * SECOND, auth.revoked())
            .await
            .is_err()
    );
    assert!(auth.is_active().await.unwrap());
}

#[tokio::test]
async fn a_store_in_memory_ends_its_contexts_too() {
    let store = ApiKeyStore::in_memory();
    let issued = store
        .create(NewApiKey::for_user(USER, Scopes::none()))
        .await
        .unwrap();
    let auth = store.verify(issued.token().expose()).await.unwrap();
    let watch = watch(&auth);
    store.revoke(auth.key_id()).await.unwrap();
    timeout(10 * SECOND, watch).await.unwrap().unwrap();
    let error = store.verify(issued.token().expose()).await.unwrap_err();
    assert!(matches!(error, VerifyError::Revoked));
}
