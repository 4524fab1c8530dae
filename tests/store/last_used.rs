//! When keys were last used: written behind the requests, together, and seldom.

#[path = "last_used/noting.rs"]
mod noting;
#[path = "last_used/tasks.rs"]
mod tasks;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep};
use tower_api_key::{Clock, ManualClock, PageRequest, Peppers, Touch};

use self::noting::Node;
use super::{SECOND, verified};
use crate::support::{USER, unknown_token, with_wrong_secret};

/// How often a store writes when it isn't told otherwise.
const EVERY: Duration = Duration::from_secs(5);

const NO_CALL: [usize; 0] = [];

/// By how much a coarse clock is late.
const LATE: Duration = Duration::from_millis(4);

/// Lets a store write what waits to be written.
async fn flushed() {
    sleep(EVERY + Duration::from_millis(2)).await;
}

fn at(seconds: u64) -> SystemTime {
    crate::support::start() + Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn the_last_use_is_noted_when_the_one_before_is_over_a_minute_old() {
    let node = Node::new().await;
    let (token, id) = node.key().await;
    // Seconds since the line before, the last use afterwards, writes so far.
    let cases = [
        (0, 0, 1),
        (1, 0, 1),
        (59, 0, 1),
        (1, 61, 2),
        (60, 61, 2),
        (1, 122, 3),
    ];
    let mut writes = 0;
    for (passed, noted, expected) in cases {
        node.clock.advance(passed * SECOND);
        let wrong = with_wrong_secret(&token);
        assert_eq!(verified(&node.store, &wrong).await, "wrong secret");
        assert_eq!(verified(&node.store, &token).await, "good");
        // At once through the store, and in the backend when it was written.
        assert_eq!(node.shown(&id).await, Some(at(noted)));
        flushed().await;
        let key = node.store.get(&id).await.unwrap().unwrap();
        assert_eq!((key.last_used_at, key.version), (Some(at(noted)), 1));
        assert_eq!(node.backend.written(&id).await, Some(at(noted)));
        writes += node.backend.calls().len();
        assert_eq!(writes, expected, "{noted}");
    }
}

/// As those of an operating system: requests go by clocks that are a few milliseconds late.
#[derive(Debug)]
struct Late(ManualClock);

impl Clock for Late {
    fn now(&self) -> SystemTime {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn coarse_unix_time(&self) -> Duration {
        self.0.coarse_unix_time().saturating_sub(LATE)
    }

    fn coarse_monotonic(&self) -> Duration {
        self.0.monotonic().saturating_sub(LATE)
    }
}

/// Of a job that makes one request a day, each is a read of the key.
#[tokio::test(start_paused = true)]
async fn the_only_use_of_a_key_that_was_not_cached_is_noted() {
    let clock = ManualClock::new(at(0));
    let node = Node::with(|builder| builder.clock(Late(clock.clone()))).await;
    let (token, id) = node.key().await;
    for day in 0..3 {
        assert_eq!(verified(&node.store, &token).await, "good");
        let used = at(day * 86_400) - LATE;
        assert_eq!(node.shown(&id).await, Some(used));
        // Else the record that is read next has no last use.
        flushed().await;
        clock.advance(86_400 * SECOND);
        node.store.invalidate_all();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_in_steady_use_costs_one_write_a_minute() {
    let node = Node::new().await;
    let (token, id) = node.key().await;
    for second in 0..600 {
        for _ in 0..3 {
            assert_eq!(verified(&node.store, &token).await, "good");
        }
        // Whatever is read anew: the record doesn't show yet what waits to be written.
        if second % 2 == 0 {
            node.store.invalidate_all();
        }
        assert!(node.store.is_active(&token).await.unwrap());
        assert!(!node.store.is_active(unknown_token()).await.unwrap());
        node.clock.advance(SECOND);
        sleep(SECOND).await;
    }
    let noted = [0, 61, 122, 183, 244, 305, 366, 427, 488, 549];
    let noted = noted.map(|second| vec![Touch::new(id, at(second))]);
    assert_eq!(node.backend.calls(), noted);
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_no_uses_write_nothing() {
    let node = Node::new().await;
    let (token, id) = node.key().await;
    assert!(node.store.is_active(&token).await.unwrap());
    assert!(!node.store.has_scope(&token, "notes:read").await.unwrap());
    for bad in [with_wrong_secret(&token), unknown_token()] {
        assert_ne!(verified(&node.store, &bad).await, "good");
    }
    assert!(node.store.revoke_token(&token).await.unwrap());
    assert_eq!(verified(&node.store, &token).await, "revoked");
    flushed().await;
    assert_eq!(node.backend.sizes(), NO_CALL);
    assert_eq!(node.shown(&id).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_uses_of_many_keys_are_written_a_thousand_at_once() {
    let node = Node::new().await;
    let mut ids = HashSet::new();
    for _ in 0..2_500 {
        let (token, id) = node.key().await;
        assert_eq!(verified(&node.store, &token).await, "good");
        ids.insert(id);
    }
    flushed().await;
    let calls = node.backend.calls();
    let sizes: Vec<_> = calls.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    let touched: HashSet<_> = calls.iter().flatten().map(|touch| touch.id).collect();
    assert_eq!(touched, ids);
    for id in ids {
        assert_eq!(node.backend.written(&id).await, Some(at(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn uses_are_written_every_five_seconds_or_as_often_as_one_says() {
    for every in [None, Some(SECOND / 5), Some(90 * SECOND)] {
        let node = Node::with(|builder| match every {
            Some(every) => builder.note_use_every(every),
            None => builder,
        });
        let node = node.await;
        let every = every.unwrap_or(EVERY);
        for key in 0..3 {
            let (token, _) = node.key().await;
            assert_eq!(verified(&node.store, &token).await, "good");
            sleep(every / 100 * 99).await;
            assert_eq!(node.backend.sizes(), NO_CALL, "{every:?}, key {key}");
            sleep(every / 50).await;
            assert_eq!(node.backend.sizes(), [1], "{every:?}, key {key}");
            sleep(10 * every).await;
            assert_eq!(node.backend.sizes(), NO_CALL, "{every:?}, key {key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_uses_to_be_written() {
    let node = Node::new().await;
    let (first, id_of_first) = node.key().await;
    let (second, id_of_second) = node.key().await;
    node.backend.set_hanging(true);
    assert_eq!(verified(&node.store, &first).await, "good");
    flushed().await;
    assert_eq!(node.backend.sizes(), [1], "it is being written");

    // Whoever waits lets the time pass.
    let before = Instant::now();
    node.clock.advance(61 * SECOND);
    for token in [&first, &second, &first] {
        assert_eq!(verified(&node.store, token).await, "good");
        assert!(node.store.verify_fresh(token).await.is_ok());
        assert!(node.store.is_active(token).await.unwrap());
    }
    for id in [&id_of_first, &id_of_second] {
        assert_eq!(node.shown(id).await, Some(at(61)));
    }
    assert_eq!(before.elapsed(), Duration::ZERO);

    // What was used again while it was written is written again.
    node.backend.set_hanging(false);
    sleep(SECOND).await;
    assert_eq!(node.backend.written(&id_of_first).await, Some(at(0)));
    assert_eq!(node.shown(&id_of_first).await, Some(at(61)));
    flushed().await;
    assert_eq!(node.backend.sizes(), [2]);
    for id in [&id_of_first, &id_of_second] {
        assert_eq!(node.backend.written(id).await, Some(at(61)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_use_that_waits_shows_in_what_the_store_reads() {
    let node = Node::new().await;
    let (token, id) = node.key().await;
    let (_, unused) = node.key().await;
    let listed = async || {
        let page = node.store.list_for_user(USER, PageRequest::new()).await;
        let keys = page.unwrap().keys.into_iter();
        keys.map(|key| (key.id, key.last_used_at))
            .collect::<HashSet<_>>()
    };
    assert_eq!(verified(&node.store, &token).await, "good");
    // It waits, then it is being written, then it can't be, and then it has been.
    for stage in ["gathered", "hanging", "failed", "written"] {
        assert_eq!(node.shown(&id).await, Some(at(0)), "{stage}");
        assert_eq!(node.shown(&unused).await, None, "{stage}");
        let expected = [(id, Some(at(0))), (unused, None)];
        assert_eq!(listed().await, expected.into(), "{stage}");
        let written = (stage == "written").then(|| at(0));
        assert_eq!(node.backend.written(&id).await, written, "{stage}");
        node.backend.set_hanging(stage == "gathered");
        let fails = stage == "hanging";
        node.backend.set_failing(fails);
        flushed().await;
    }
    assert_eq!(node.backend.sizes(), [1; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_last_use_never_goes_back() {
    let peppers = Peppers::ephemeral();
    let ahead = Node::on(Arc::default(), peppers.clone(), |builder| builder).await;
    let behind = Node::on(ahead.backend.clone(), peppers, |builder| builder).await;
    let (token, id) = ahead.key().await;
    ahead.clock.set(at(100));
    assert_eq!(verified(&behind.store, &token).await, "good");
    assert_eq!(verified(&ahead.store, &token).await, "good");
    ahead.store.shutdown().await.unwrap();
    assert_eq!(behind.shown(&id).await, Some(at(100)));
    behind.store.shutdown().await.unwrap();
    assert_eq!(
        ahead.backend.calls(),
        [100, 0].map(|second| vec![Touch::new(id, at(second))])
    );
    assert_eq!(ahead.backend.written(&id).await, Some(at(100)));

    // The clock of one store is set back, before and after what it knew was written and read anew.
    let node = Node::new().await;
    let (token, id) = node.key().await;
    node.clock.set(at(100));
    assert_eq!(verified(&node.store, &token).await, "good");
    for stage in ["gathered", "written"] {
        for now in [at(99), at(0), UNIX_EPOCH, UNIX_EPOCH - SECOND] {
            node.clock.set(now);
            node.store.invalidate_all();
            assert_eq!(verified(&node.store, &token).await, "good");
            assert_eq!(node.shown(&id).await, Some(at(100)), "{stage} {now:?}");
        }
        flushed().await;
        assert_eq!(node.backend.written(&id).await, Some(at(100)), "{stage}");
    }
    assert_eq!(node.backend.sizes(), [1]);
    // However long it stays behind.
    for _ in 0..3 {
        node.clock.set(at(0));
        node.clock.advance(61 * SECOND);
        assert_eq!(verified(&node.store, &token).await, "good");
        flushed().await;
        assert_eq!(node.shown(&id).await, Some(at(100)));
        assert_eq!(node.backend.written(&id).await, Some(at(100)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_use_that_cannot_be_noted_does_not_fail_the_request() {
    let node = Node::new().await;
    let mut keys = Vec::new();
    for _ in 0..1_001 {
        keys.push(node.key().await);
    }
    node.backend.set_failing(true);
    for second in 0..=20 {
        let used = if second < 12 { 1 } else { keys.len() };
        for (token, _) in &keys[..used] {
            assert_eq!(verified(&node.store, token).await, "good");
        }
        node.clock.advance(SECOND);
        sleep(SECOND).await;
    }
    // One try every five seconds: what fails for a thousand isn't tried for the rest.
    assert_eq!(node.backend.sizes(), [1, 1, 1_000, 1_000]);
    let failed = || node.store.cache_stats().failed_touches;
    assert_eq!(failed(), 4);

    node.backend.set_failing(false);
    flushed().await;
    assert_eq!(node.backend.sizes(), [1_000, 1]);
    assert_eq!(failed(), 4);
    assert_eq!(node.backend.written(&keys[0].1).await, Some(at(0)));
    for (_, id) in &keys[1..] {
        assert_eq!(node.backend.written(id).await, Some(at(12)));
    }
    sleep(10 * EVERY).await;
    assert_eq!(node.backend.sizes(), NO_CALL, "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_is_given_up_and_tried_again() {
    let node = Node::new().await;
    let (token, id) = node.key().await;
    node.backend.set_hanging(true);
    assert_eq!(verified(&node.store, &token).await, "good");
    sleep(61 * SECOND).await;
    // Five seconds to wait, and ten to be patient.
    assert_eq!(node.backend.sizes(), [1; 4]);
    assert_eq!(node.store.cache_stats().failed_touches, 4);
    node.backend.set_hanging(false);
    flushed().await;
    assert_eq!(node.backend.written(&id).await, Some(at(0)));
}
