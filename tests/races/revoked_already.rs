//! A revocation against one that was made already.
//!
//! Somebody revokes a key that another node has ended a moment ago, or that another request here is
//! just about to have ended. The database says that there is nothing left to do, so nothing is
//! written, and the answer is "revoked already". But this node's cache hasn't heard of it: whoever was
//! told that the key is revoked sees it work.

use super::{Race, SECOND, until};
use crate::support::{USER, steps::Step, with_wrong_secret};

/// Each way to revoke a key. What comes back is whether this call ended it.
#[derive(Debug, Clone, Copy)]
enum Revoke {
    ById,
    ByToken,
    AllOfTheUser,
}

const WAYS: [Revoke; 3] = [Revoke::ById, Revoke::ByToken, Revoke::AllOfTheUser];

impl Revoke {
    async fn carry_out(self, race: &Race) -> bool {
        let store = &race.store;
        match self {
            Self::ById => store.revoke(&race.id).await.unwrap(),
            Self::ByToken => store.revoke_token(&race.token).await.unwrap(),
            Self::AllOfTheUser => store.revoke_all_for_user(USER).await.unwrap() == 1,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_key_that_was_revoked_elsewhere_is_refused_once_it_was_revoked_here_too() {
    for way in WAYS {
        let race = Race::new().await;
        assert_eq!(race.verified().await, "good");
        assert!(race.elsewhere().await.revoke(&race.id).await.unwrap());
        // Nobody has told this node.
        assert_eq!(race.verified().await, "good");

        assert!(!way.carry_out(&race).await, "{way:?}");
        assert_eq!(race.verified().await, "revoked", "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_key_that_was_deleted_elsewhere_is_refused_once_it_was_revoked_here() {
    for way in [Revoke::ById, Revoke::ByToken] {
        let race = Race::new().await;
        assert_eq!(race.verified().await, "good");
        assert!(race.elsewhere().await.delete(&race.id).await.unwrap());
        assert_eq!(race.verified().await, "good");

        assert!(!way.carry_out(&race).await, "{way:?}");
        assert_eq!(race.verified().await, "unknown", "{way:?}");
    }
}

/// The first of two is written, and hasn't returned; the second finds nothing left to do, and is the
/// first to return. The key was read between the first one's beginning and its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_that_overtakes_the_return_of_another_counts() {
    for way in WAYS {
        let race = Race::new().await;
        let asked = race.backend.stop_next(Step::WriteAsked);
        let done = race.backend.stop_next(Step::WriteDone);
        let first = race.revocation();
        let uncommitted = asked.await;
        assert_eq!(race.verified().await, "good");
        assert!(race.is_cached());
        uncommitted.go_on();
        let committed = done.await;

        assert!(!way.carry_out(&race).await, "{way:?}");
        assert_eq!(race.verified().await, "revoked", "{way:?}");
        committed.go_on();
        assert!(first.await.unwrap().unwrap());
        assert_eq!(race.verified().await, "revoked", "{way:?}");
    }
}

/// What a fresh check has read isn't remembered where another fresh check has begun since, and while
/// that is under way, others are answered with what was known before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_by_token_counts_while_somebody_else_checks_afresh() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    assert!(race.elsewhere().await.revoke(&race.id).await.unwrap());

    let stop = race.backend.stop_next(Step::ReadTaken);
    let revocation = tokio::spawn({
        let race = race.clone();
        async move { Revoke::ByToken.carry_out(&race).await }
    });
    let check = stop.await;
    let stop = race.backend.stop_next(Step::ReadAsked);
    let somebody = race.fresh_request();
    let other_check = stop.await;

    check.go_on();
    assert!(!revocation.await.unwrap());
    let afterwards = race.request();
    until("it is answered, or waits", || {
        afterwards.is_finished() || race.store.cache_stats().shared_loads > 0
    })
    .await;
    other_check.go_on();
    assert_eq!(afterwards.await.unwrap(), "revoked");
    assert_eq!(somebody.await.unwrap(), "revoked");
}

/// The id in a token is public: whoever makes up a secret for it must not be able to make this node
/// read a key that is in use, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_with_a_wrong_secret_takes_nothing_from_the_cache() {
    let race = Race::new().await;
    let wrong = with_wrong_secret(&race.token);
    assert_eq!(race.verified().await, "good");
    assert!(!race.store.revoke_token(&wrong).await.unwrap());
    assert!(race.is_cached());
    assert_eq!(race.verified().await, "good");
}

/// Whoever waits out the staleness is safe in any case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_key_that_was_revoked_elsewhere_is_refused_when_the_staleness_has_passed() {
    let race = Race::new().await;
    assert_eq!(race.verified().await, "good");
    assert!(race.elsewhere().await.revoke(&race.id).await.unwrap());
    race.clock.advance(5 * SECOND);
    assert_eq!(race.verified().await, "revoked");
}
