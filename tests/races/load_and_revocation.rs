//! A load against a revocation.
//!
//! A request misses the cache and reads the record. Before it has put into the cache what it read,
//! the key is revoked: the database is written, and the key removed from the cache, in which it isn't
//! yet. Then the load lands, and puts the key back as it was before. Nobody will remove it again, so
//! the revoked key works until its time to live is over; where every use prolongs it, it works for
//! good. Caches that read through have had this race again and again, since each of the two sides
//! looks right alone.

use super::{Race, until};
use crate::support::{USER, steps::Step};

/// Each way to end a key.
#[derive(Debug, Clone, Copy)]
enum End {
    Revoke,
    RevokeToken,
    RevokeAll,
    Delete,
}

const ENDS: [End; 4] = [End::Revoke, End::RevokeToken, End::RevokeAll, End::Delete];

impl End {
    /// Whether it ended the key.
    async fn carry_out(self, race: &Race) -> bool {
        let store = &race.store;
        match self {
            Self::Revoke => store.revoke(&race.id).await.unwrap(),
            Self::RevokeToken => store.revoke_token(&race.token).await.unwrap(),
            Self::RevokeAll => store.revoke_all_for_user(USER).await.unwrap() == 1,
            Self::Delete => store.delete(&race.id).await.unwrap(),
        }
    }

    /// What requests come to afterwards.
    fn refusal(self) -> &'static str {
        match self {
            Self::Delete => "unknown",
            _ => "revoked",
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_load_begun_before_a_revocation_does_not_resurrect_the_key() {
    for end in ENDS {
        for another_request_before_it_lands in [false, true] {
            let race = Race::new().await;
            let stop = race.backend.stop_next(Step::ReadTaken);
            let waiting = race.request();
            let load = stop.await;

            assert!(end.carry_out(&race).await, "{end:?}");
            if another_request_before_it_lands {
                assert_eq!(race.verified().await, end.refusal(), "{end:?}");
            }
            load.go_on();

            waiting.await.unwrap();
            assert_eq!(race.verified().await, end.refusal(), "{end:?}");
        }
    }
}

/// It began before, and could have been accepted; but it waited, and looks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_for_its_key_while_it_is_revoked_is_refused() {
    for end in ENDS {
        let race = Race::new().await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = race.request();
        let load = stop.await;
        assert!(end.carry_out(&race).await, "{end:?}");
        load.go_on();
        assert_eq!(waiting.await.unwrap(), end.refusal(), "{end:?}");
    }
}

/// A fresh check that comes in between takes the place of the load that is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_is_refused_also_where_a_fresh_check_overtakes_its_load() {
    for request in [Race::request, Race::fresh_request] {
        let race = Race::new().await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = request(&race);
        let load = stop.await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let fresh = race.fresh_request();
        let fresh_load = stop.await;
        assert!(race.store.revoke(&race.id).await.unwrap());
        fresh_load.go_on();
        assert_eq!(fresh.await.unwrap(), "revoked");
        load.go_on();
        assert_eq!(waiting.await.unwrap(), "revoked");
    }
}

/// Nobody waits any more who would read again and put right what the load has brought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nor_does_a_load_that_nobody_waits_for_any_more() {
    for end in ENDS {
        let race = Race::new().await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = race.request();
        let load = stop.await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());

        assert!(end.carry_out(&race).await, "{end:?}");
        let refused = race.store.cache_stats().stale_refused;
        load.go_on();
        let has_landed = || race.store.cache_stats().stale_refused > refused || race.is_cached();
        until("the load has landed", has_landed).await;
        assert_eq!(race.verified().await, end.refusal(), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nor_does_one_that_lands_between_the_commit_and_the_return() {
    for end in [End::Revoke, End::Delete] {
        let race = Race::new().await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let waiting = race.request();
        let load = stop.await;
        let stop = race.backend.stop_next(Step::WriteDone);
        let ending = tokio::spawn({
            let race = race.clone();
            async move { end.carry_out(&race).await }
        });
        let committed = stop.await;

        load.go_on();
        assert_eq!(waiting.await.unwrap(), end.refusal(), "{end:?}");
        committed.go_on();
        assert!(ending.await.unwrap());
        assert_eq!(race.verified().await, end.refusal(), "{end:?}");
    }
}

/// Whoever comes after the revocation waits for a load of their own, and not for what is there when
/// the old one has landed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nor_does_one_that_lands_while_the_key_is_read_anew() {
    // What revoking by token has read is remembered, and nothing is read anew.
    for end in [End::Revoke, End::RevokeAll, End::Delete] {
        let race = Race::new().await;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let before = race.request();
        let load = stop.await;
        assert!(end.carry_out(&race).await, "{end:?}");
        let refused = race.store.cache_stats().stale_refused;
        let stop = race.backend.stop_next(Step::ReadTaken);
        let after = race.request();
        let new_load = stop.await;

        load.go_on();
        let has_landed = || race.store.cache_stats().stale_refused > refused || race.is_cached();
        until("the old load has landed", has_landed).await;
        assert!(!race.is_cached(), "{end:?}");
        new_load.go_on();
        assert_eq!(after.await.unwrap(), end.refusal(), "{end:?}");
        before.await.unwrap();
        assert_eq!(race.verified().await, end.refusal(), "{end:?}");
    }
}

/// The cache is cleared before the write; what is read between that and the commit is the key as it
/// was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nor_does_one_that_began_while_the_revocation_was_being_written() {
    for end in [End::Revoke, End::Delete] {
        for lands_before_the_return in [false, true] {
            let race = Race::new().await;
            let stop = race.backend.stop_next(Step::WriteAsked);
            let ending = tokio::spawn({
                let race = race.clone();
                async move { end.carry_out(&race).await }
            });
            let uncommitted = stop.await;
            let stop = race.backend.stop_next(Step::ReadTaken);
            let waiting = race.request();
            let load = stop.await;

            if lands_before_the_return {
                load.go_on();
                assert_eq!(waiting.await.unwrap(), "good");
                assert!(race.is_cached());
                uncommitted.go_on();
                assert!(ending.await.unwrap());
            } else {
                uncommitted.go_on();
                assert!(ending.await.unwrap());
                load.go_on();
                assert_eq!(waiting.await.unwrap(), end.refusal(), "{end:?}");
            }
            assert_eq!(race.verified().await, end.refusal(), "{end:?}");
        }
    }
}

/// What is cached isn't believed while the database may say otherwise already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_committed_revocation_counts_before_it_has_returned() {
    for end in [End::Revoke, End::Delete] {
        let race = Race::new().await;
        assert_eq!(race.verified().await, "good");
        assert!(race.is_cached());
        let stop = race.backend.stop_next(Step::WriteDone);
        let ending = tokio::spawn({
            let race = race.clone();
            async move { end.carry_out(&race).await }
        });
        let committed = stop.await;
        assert_eq!(race.verified().await, end.refusal(), "{end:?}");
        committed.go_on();
        assert!(ending.await.unwrap());
    }
}

/// Without stops, and with everything at once that makes loads: no order was thought of here.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_nor_does_any_of_the_loads_that_a_busy_node_makes() {
    for round in 0..100 {
        let race = Race::new().await;
        let busy: Vec<_> = (0..4)
            .map(|kind| {
                let race = race.clone();
                tokio::spawn(async move {
                    loop {
                        match kind {
                            0 => race.store.invalidate_all(),
                            1 => drop(race.verified_fresh().await),
                            _ => drop(race.verified().await),
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..round {
            race.verified().await;
        }
        let end = ENDS[round % ENDS.len()];
        assert!(end.carry_out(&race).await, "{end:?}");
        for _ in 0..50 {
            assert_eq!(race.verified().await, end.refusal(), "{end:?}");
        }
        busy.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
