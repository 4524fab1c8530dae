//! A source that fails, hangs, or panics, for every key or for one: what can't be told is a 503, what
//! is cached goes on working, and nothing of it is remembered.

use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_api_key::VerifyError;

use crate::{
    LOAD_TIMEOUT, MOMENT, SECOND,
    node::{Node, outcome},
    support::{feed::Reading, id_of, unknown_token},
};

const OUTAGES: [Reading; 4] = [
    Reading::Fails,
    Reading::Corrupt,
    Reading::Hangs,
    Reading::Panics,
];

#[tokio::test(start_paused = true)]
async fn g3_what_is_not_cached_is_unavailable_and_what_is_cached_goes_on() {
    for outage in OUTAGES {
        let node = Node::new().await;
        let (cached, cold) = (node.cached_token().await, node.token().await);
        sleep(2 * SECOND).await;
        node.remote.set_reading(outage);
        for token in [&cold, &unknown_token()] {
            let asked_at = Instant::now();
            assert_eq!(node.verify(token).await, "unavailable", "{outage:?}");
            let limit = if outage == Reading::Hangs {
                LOAD_TIMEOUT
            } else {
                Duration::ZERO
            };
            assert_eq!(asked_at.elapsed(), limit, "{outage:?}");
            assert_eq!(node.verify_fresh(token).await, "unavailable", "{outage:?}");
            assert_eq!(node.cached(token), None, "{outage:?}");
        }
        assert_eq!(node.cached(&cached), Some("good"), "{outage:?}");
        assert_eq!(
            node.verify_fresh(&cached).await,
            "unavailable",
            "{outage:?}"
        );
        assert_eq!(node.cached(&cached), Some("good"), "{outage:?}");
        // The last read ends at the same moment as the request that waited for it.
        sleep(MOMENT).await;
        let stats = node.store.cache_stats();
        assert_eq!((stats.entries, stats.unknown_entries), (1, 0), "{outage:?}");
        assert_eq!(stats.failed_loads, 5, "{outage:?}");

        node.remote.set_reading(Reading::Answers);
        let recovered_at = Instant::now();
        assert_eq!(node.verify(&cold).await, "good", "{outage:?}");
        assert_eq!(node.verify(&unknown_token()).await, "unknown", "{outage:?}");
        assert_eq!(recovered_at.elapsed(), Duration::ZERO, "{outage:?}");
    }
}

/// Each question that is asked meanwhile gets an answer in the end, and none of them twice the wait.
#[tokio::test(start_paused = true)]
async fn g3_requests_that_wait_when_the_source_answers_again_get_its_answer() {
    let node = Node::new().await;
    let cold = node.token().await;
    node.remote.set_reading(Reading::Hangs);
    let recovery = async {
        sleep(LOAD_TIMEOUT / 2).await;
        node.remote.set_reading(Reading::Answers);
    };
    let (answer, ()) = tokio::join!(node.verify(&cold), recovery);
    assert_eq!(answer, "good");
}

/// One connection is dead, and the others aren't.
#[tokio::test(start_paused = true)]
async fn g3_a_read_that_hangs_holds_up_no_other_key_and_its_own_for_no_longer_than_its_limit() {
    let node = Node::new().await;
    let (unlucky, other) = (node.token().await, node.token().await);
    let is_first = AtomicBool::new(true);
    node.remote.read_as(move |_| {
        if is_first.swap(false, Ordering::SeqCst) {
            Reading::Hangs
        } else {
            Reading::Answers
        }
    });
    let began = Instant::now();
    let others = async {
        sleep(SECOND).await;
        assert_eq!(node.verify(&other).await, "good");
        assert_eq!(began.elapsed(), SECOND);
    };
    let (answer, ()) = tokio::join!(node.verify(&unlucky), others);
    assert_eq!(answer, "unavailable");
    assert_eq!(began.elapsed(), LOAD_TIMEOUT);
    // The read ends at the same moment as the request that waited for it.
    sleep(MOMENT).await;
    assert_eq!(node.verify(&unlucky).await, "good");
    assert_eq!(began.elapsed(), LOAD_TIMEOUT + MOMENT);
}

/// It belongs to one of those that are read together.
#[tokio::test(start_paused = true)]
async fn g3_one_key_that_cannot_be_read_takes_none_of_three_hundred_along() {
    for outage in [Reading::Fails, Reading::Corrupt, Reading::Panics] {
        for bad_at in [0, 150, 255, 256, 299] {
            let node = Node::new().await;
            let tokens = node.tokens(300).await;
            let bad = id_of(&tokens[bad_at]).lookup_key();
            node.remote.read_as(move |keys| {
                if keys.contains(&bad) {
                    outage
                } else {
                    Reading::Answers
                }
            });
            let answers = verify_all(&node, &tokens).await;
            for (at, answer) in answers.into_iter().enumerate() {
                let right = if at == bad_at { "unavailable" } else { "good" };
                assert_eq!(answer, right, "{outage:?} at {bad_at}: {at}");
            }
            assert_eq!(node.store.cache_stats().entries, 299);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g3_rows_that_cannot_be_read_take_none_of_the_others_along_however_many_they_are() {
    let node = Node::new().await;
    let tokens = node.tokens(300).await;
    let is_bad = |at: usize| (100..200).contains(&at);
    let at = |at: &usize| is_bad(*at);
    let bad: Vec<_> = (0..300)
        .filter(at)
        .map(|at| id_of(&tokens[at]).lookup_key())
        .collect();
    node.remote.read_as(move |keys| {
        let is_corrupt = keys.iter().any(|key| bad.contains(key));
        if is_corrupt {
            Reading::Corrupt
        } else {
            Reading::Answers
        }
    });
    let answers = verify_all(&node, &tokens).await;
    for (at, answer) in answers.into_iter().enumerate() {
        assert_eq!(
            answer,
            if is_bad(at) { "unavailable" } else { "good" },
            "{at}"
        );
    }
}

/// Whoever waits behind a read that has to be done in parts waits no longer than for two or three.
#[tokio::test(start_paused = true)]
async fn g3_one_key_that_cannot_be_read_takes_none_along_where_each_read_takes_a_while() {
    for outage in [Reading::Fails, Reading::Corrupt] {
        let node = Node::new().await;
        let tokens = node.tokens(300).await;
        let bad = id_of(&tokens[100]).lookup_key();
        node.remote.read_as(move |keys| {
            if keys.contains(&bad) {
                outage
            } else {
                Reading::Slow(20 * MOMENT)
            }
        });
        let answers = verify_all(&node, &tokens).await;
        let good = answers.iter().filter(|answer| **answer == "good");
        assert_eq!(good.count(), 299, "{outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g3_after_an_outage_one_key_that_cannot_be_read_takes_none_along() {
    let node = Node::new().await;
    let tokens = node.tokens(300).await;
    node.remote.set_reading(Reading::Fails);
    let answers = verify_all(&node, &tokens).await;
    assert!(answers.iter().all(|answer| *answer == "unavailable"));

    let bad = id_of(&tokens[100]).lookup_key();
    node.remote.read_as(move |keys| {
        if keys.contains(&bad) {
            Reading::Fails
        } else {
            Reading::Answers
        }
    });
    let answers = verify_all(&node, &tokens).await;
    let good = answers.iter().filter(|answer| **answer == "good");
    assert_eq!(good.count(), 299);
}

/// Those that it was read together with can't be told at first, and can when they ask again.
#[tokio::test(start_paused = true)]
async fn g3_one_key_whose_read_hangs_holds_the_others_up_once() {
    let node = Node::new().await;
    let tokens = node.tokens(300).await;
    let bad = id_of(&tokens[100]).lookup_key();
    node.remote.read_as(move |keys| {
        if keys.contains(&bad) {
            Reading::Hangs
        } else {
            Reading::Answers
        }
    });
    verify_all(&node, &tokens).await;
    let again_at = Instant::now();
    let (others, bad) = ([&tokens[..100], &tokens[101..]].concat(), &tokens[100]);
    let answers = verify_all(&node, &others).await;
    assert!(answers.iter().all(|answer| *answer == "good"));
    assert!(again_at.elapsed() <= LOAD_TIMEOUT + MOMENT);
    assert_eq!(node.verify(bad).await, "unavailable");
}

/// A source that is down isn't asked for each of the keys one after the other.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_asked_a_few_times_for_a_thousand_keys() {
    let node = Node::new().await;
    let tokens = node.tokens(1_000).await;
    node.remote.set_reading(Reading::Fails);
    let answers = verify_all(&node, &tokens).await;
    assert!(answers.iter().all(|answer| *answer == "unavailable"));
    assert!(node.remote.reads() <= 20, "{}", node.remote.reads());
}

async fn verify_all(node: &Node, tokens: &[String]) -> Vec<&'static str> {
    let mut requests = JoinSet::new();
    for (at, token) in tokens.iter().cloned().enumerate() {
        let store = node.store.clone();
        requests.spawn(async move { (at, outcome(&store.verify(token).await)) });
    }
    let mut answers = requests.join_all().await;
    answers.sort_unstable();
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[tokio::test(start_paused = true)]
async fn g3_the_cause_is_kept() {
    let node = Node::new().await;
    let cold = node.token().await;
    node.remote.set_reading(Reading::Corrupt);
    let Err(VerifyError::Unavailable(why)) = node.store.verify(&cold).await else {
        panic!("it can't be told")
    };
    let cause = why.backend().unwrap();
    assert!(cause.is_corrupt());
    assert_eq!(cause.source().unwrap().to_string(), "half a row");

    node.remote.set_reading(Reading::Hangs);
    let Err(VerifyError::Unavailable(why)) = node.store.verify(&cold).await else {
        panic!("it can't be told")
    };
    assert!(
        why.to_string().contains("in time") || why.backend().is_some(),
        "{why:?}"
    );
}
