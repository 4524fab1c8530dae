//! A load against the end of the key's time.
//!
//! A request comes in the last second of a key, and waits for a slow database. Where the time is read
//! when the request began, or whether the key has expired is decided where the record is read and
//! only the decision is remembered, the request is let in after the end, and so is everyone who is
//! answered from the cache.

use super::{MILLISECOND, Race, SECOND, until};
use crate::support::{USER, start, steps::Step};
use tower_api_key::{NewApiKey, Scopes};

async fn expiring() -> Race {
    let race = Race::new().await;
    let new = NewApiKey::for_user(USER, Scopes::none()).expires_at(start() + SECOND);
    let issued = race.store.create(new).await.unwrap();
    Race {
        token: issued.token().expose().to_owned(),
        id: issued.key().id,
        ..race
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_expires_while_it_is_read_is_refused_when_it_lands() {
    for step in [Step::ReadAsked, Step::ReadTaken] {
        let race = expiring().await;
        let stop = race.backend.stop_next(step);
        let waiting = race.request();
        let load = stop.await;
        race.clock.advance(SECOND);
        load.go_on();
        assert_eq!(waiting.await.unwrap(), "expired");
        assert_eq!(race.verified().await, "expired");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_lands_in_its_last_millisecond_works_until_that_is_over() {
    let race = expiring().await;
    let stop = race.backend.stop_next(Step::ReadTaken);
    let waiting = race.request();
    let load = stop.await;
    race.clock.advance(999 * MILLISECOND);
    load.go_on();
    assert_eq!(waiting.await.unwrap(), "good");

    let reads = race.backend.reads();
    race.clock.advance(MILLISECOND);
    assert_eq!(race.verified().await, "expired");
    assert_eq!(race.backend.reads(), reads);
}

/// Those who wait are judged each at their own time, by what one read has brought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_waited_beyond_the_end_are_refused() {
    let race = expiring().await;
    let reads = race.backend.reads();
    let stop = race.backend.stop_next(Step::ReadTaken);
    let first = race.request();
    let load = stop.await;
    let others: Vec<_> = (0..20).map(|_| race.request()).collect();
    until("they wait", || race.store.cache_stats().shared_loads == 20).await;
    race.clock.advance(SECOND);
    load.go_on();
    assert_eq!(first.await.unwrap(), "expired");
    for other in others {
        assert_eq!(other.await.unwrap(), "expired");
    }
    assert_eq!(race.verified().await, "expired");
    assert_eq!(race.backend.reads(), reads + 1);
}
