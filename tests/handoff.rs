//! One-time tickets of one process.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tower_api_key::{HandoffError, HandoffToken, HandoffTokenConfig, HandoffTokenStore};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Dry;

impl fmt::Display for Dry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no randomness today")
    }
}

impl std::error::Error for Dry {}

fn copy(token: &HandoffToken) -> HandoffToken {
    HandoffToken::from_bytes(*token.expose())
}

fn never() -> Result<[u8; 16], Dry> {
    Err(Dry)
}

#[test]
fn a_ticket_is_taken_once() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    let expected = tickets.issue(now).unwrap();
    assert_eq!(tickets.pending_len(), 1);
    let presented = copy(&expected);
    tickets
        .consume_matching(&expected, &presented, now)
        .unwrap();
    assert_eq!(tickets.pending_len(), 0);
    let again = tickets.consume_matching(&expected, &presented, now);
    assert!(matches!(again, Err(HandoffError::NotPending)));
}

#[test]
fn one_that_was_never_issued_is_not_pending() {
    let tickets = HandoffTokenStore::new();
    let unknown = HandoffToken::from_bytes([7; 16]);
    let taken = tickets.consume_matching(&unknown, &copy(&unknown), Instant::now());
    assert!(matches!(taken, Err(HandoffError::NotPending)));
    assert!(!tickets.revoke(&unknown));
}

#[test]
fn a_mismatch_uses_up_neither_ticket_wherever_they_differ() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    let expected = tickets.issue(now).unwrap();
    let other = tickets.issue(now).unwrap();
    let taken = tickets.consume_matching(&expected, &other, now);
    assert!(matches!(taken, Err(HandoffError::Mismatch)));
    for byte in 0..16 {
        let mut bytes = *expected.expose();
        bytes[byte] ^= 1;
        let taken = tickets.consume_matching(&expected, &HandoffToken::from_bytes(bytes), now);
        assert!(matches!(taken, Err(HandoffError::Mismatch)), "byte {byte}");
    }
    assert_eq!(tickets.pending_len(), 2);
    tickets
        .consume_matching(&expected, &copy(&expected), now)
        .unwrap();
    tickets
        .consume_matching(&other, &copy(&other), now)
        .unwrap();
}

#[test]
fn a_ticket_ends_at_its_moment_and_that_is_told_before_a_mismatch() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    let just_in_time = tickets.issue(now).unwrap();
    let too_late = tickets.issue(now).unwrap();
    let end = now + 30 * SECOND;
    let before = end.checked_sub(Duration::from_nanos(1)).unwrap();
    tickets
        .consume_matching(&just_in_time, &copy(&just_in_time), before)
        .unwrap();

    let other = HandoffToken::from_bytes([0; 16]);
    let taken = tickets.consume_matching(&too_late, &other, end);
    assert!(matches!(taken, Err(HandoffError::Expired)));
    assert_eq!(tickets.pending_len(), 0, "it is gone");
    let taken = tickets.consume_matching(&too_late, &copy(&too_late), before);
    assert!(matches!(taken, Err(HandoffError::NotPending)));
}

#[test]
fn a_ticket_that_would_outlive_the_clock_has_expired_at_once() {
    let config = HandoffTokenConfig::new().time_to_live(Duration::MAX);
    let tickets = HandoffTokenStore::with_config(config);
    let now = Instant::now();
    let expected = tickets.issue(now).unwrap();
    let taken = tickets.consume_matching(&expected, &copy(&expected), now);
    assert!(matches!(taken, Err(HandoffError::Expired)));
}

#[test]
fn no_more_are_pending_than_may_be_and_expired_ones_make_room() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    let first = tickets.issue(now).unwrap();
    for _ in 1..1_024 {
        tickets.issue(now + SECOND).unwrap();
    }
    let full = tickets.issue(now + SECOND).unwrap_err();
    assert!(matches!(
        full,
        HandoffError::Full {
            max_pending: 1_024,
            ..
        }
    ));
    assert!(full.to_string().contains("1024"), "{full}");
    assert_eq!(tickets.pending_len(), 1_024);

    tickets.issue(now + 30 * SECOND).unwrap();
    let taken = tickets.consume_matching(&first, &copy(&first), now);
    assert!(matches!(taken, Err(HandoffError::NotPending)));
    assert!(tickets.revoke(&tickets.issue(now + 31 * SECOND).unwrap()));
}

#[test]
fn a_revoked_ticket_is_gone_and_says_whether_it_was_there() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    let expected = tickets.issue(now).unwrap();
    assert!(tickets.revoke(&expected));
    assert!(!tickets.revoke(&expected));
    let taken = tickets.consume_matching(&expected, &copy(&expected), now);
    assert!(matches!(taken, Err(HandoffError::NotPending)));
}

#[test]
fn pruning_removes_the_expired_and_says_how_many() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    for age in 0..10 {
        tickets.issue(now + age * SECOND).unwrap();
    }
    assert_eq!(tickets.prune_expired(now + 29 * SECOND), 0);
    assert_eq!(tickets.prune_expired(now + 33 * SECOND), 4);
    assert_eq!(tickets.prune_expired(now + 33 * SECOND), 0);
    assert_eq!(tickets.pending_len(), 6);
    assert_eq!(tickets.prune_expired(now + 60 * SECOND), 6);
}

#[test]
fn a_ticket_that_is_pending_already_is_drawn_again_sixteen_times() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    tickets.issue_with(now, || Ok::<_, Dry>([1; 16])).unwrap();
    let mut count = 0;
    let drawn = tickets.issue_with(now, || {
        count += 1;
        Ok::<_, Dry>([if count < 16 { 1 } else { 2 }; 16])
    });
    assert_eq!(drawn.unwrap().expose(), &[2; 16]);

    let mut count = 0;
    let drawn = tickets.issue_with(now, || {
        count += 1;
        Ok::<_, Dry>([1; 16])
    });
    let error = drawn.unwrap_err();
    assert!(matches!(
        error,
        HandoffError::Collisions { attempts: 16, .. }
    ));
    assert!(error.to_string().contains("16"), "{error}");
    assert_eq!((count, tickets.pending_len()), (16, 2));
}

#[test]
fn a_source_of_randomness_that_fails_is_an_error_with_its_cause() {
    let tickets = HandoffTokenStore::new();
    let error = tickets.issue_with(Instant::now(), never).unwrap_err();
    let HandoffError::Random(error) = error else {
        panic!("{error}")
    };
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "no randomness today");
    assert_eq!(tickets.pending_len(), 0);
}

#[test]
fn settings_of_zero_are_raised_to_the_least_that_works() {
    let now = Instant::now();
    let config = HandoffTokenConfig::new().max_pending(0);
    let tickets = HandoffTokenStore::with_config(config);
    let first = tickets.issue(now).unwrap();
    let full = tickets.issue(now).unwrap_err();
    assert!(matches!(full, HandoffError::Full { max_pending: 1, .. }));
    assert_eq!(tickets.pending_len(), 1);
    assert!(tickets.revoke(&first));
    tickets.issue(now).unwrap();

    let config = HandoffTokenConfig::new().time_to_live(Duration::ZERO);
    let tickets = HandoffTokenStore::with_config(config);
    let end = now + Duration::from_millis(1);
    let before = end.checked_sub(Duration::from_nanos(1)).unwrap();
    let [in_time, late] = [tickets.issue(now).unwrap(), tickets.issue(now).unwrap()];
    tickets
        .consume_matching(&in_time, &copy(&in_time), before)
        .unwrap();
    let taken = tickets.consume_matching(&late, &copy(&late), end);
    assert!(matches!(taken, Err(HandoffError::Expired)));

    let config = HandoffTokenConfig::new().collision_attempts(0);
    let tickets = HandoffTokenStore::with_config(config);
    let drawn = AtomicUsize::new(0);
    let issue = || {
        tickets.issue_with(now, || {
            drawn.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Dry>([1; 16])
        })
    };
    issue().unwrap();
    assert_eq!(drawn.load(Ordering::SeqCst), 1);
    let collided = issue().unwrap_err();
    assert!(matches!(
        collided,
        HandoffError::Collisions { attempts: 1, .. }
    ));
    assert_eq!(drawn.load(Ordering::SeqCst), 2);
}

#[test]
fn nothing_of_a_ticket_is_shown() {
    let tickets = HandoffTokenStore::new();
    let token = tickets
        .issue_with(Instant::now(), || Ok::<_, Dry>([0xab; 16]))
        .unwrap();
    for shown in [format!("{token:?}"), format!("{tickets:?}")] {
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }
}

#[test]
fn tickets_are_all_different() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    let mut drawn: Vec<_> = (0..1_000)
        .map(|_| *tickets.issue(now).unwrap().expose())
        .collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 1_000);
}

#[test]
fn g10_of_many_threads_one_takes_a_ticket() {
    let tickets = HandoffTokenStore::new();
    let now = Instant::now();
    for _ in 0..200 {
        let expected = tickets.issue(now).unwrap();
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let presented = copy(&expected);
                    if tickets.consume_matching(&expected, &presented, now).is_ok() {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1);
    }
}

/// The time for one ticket that is issued and taken: the least of many rounds, which nobody else's work has
/// lengthened.
fn time_of_one(
    tickets: &HandoffTokenStore,
    numbers: &mut impl Iterator<Item = u128>,
    now: Instant,
) -> Duration {
    const IN_ONE_ROUND: u32 = 20;
    let round = |_| {
        let began = Instant::now();
        for number in numbers.by_ref().take(IN_ONE_ROUND as usize) {
            let token = numbered(tickets, number, now);
            tickets
                .consume_matching(&token, &copy(&token), now)
                .unwrap();
        }
        began.elapsed() / IN_ONE_ROUND
    };
    (0..50).map(round).min().unwrap()
}

fn numbered(tickets: &HandoffTokenStore, number: u128, now: Instant) -> HandoffToken {
    let bytes = || Ok::<_, Dry>(number.to_be_bytes());
    tickets.issue_with(now, bytes).unwrap()
}

/// A call goes down a tree, which a million make some levels deeper. What looked at all of them would take more than
/// a thousand times as long as it does among ten.
#[test]
fn a_million_pending_tickets_make_no_call_slow() {
    const MORE_THAN_A_TREE_NEEDS: u32 = 100;
    let config = HandoffTokenConfig::new().max_pending(2_000_000);
    let [few, many] = [config; 2].map(HandoffTokenStore::with_config);
    let mut numbers = 0..;
    let now = Instant::now();
    for number in numbers.by_ref().take(10) {
        numbered(&few, number, now);
    }
    for pending in [10_000, 100_000, 1_000_000] {
        for number in numbers.by_ref().take(pending - many.pending_len()) {
            numbered(&many, number, now);
        }
        let among_few = time_of_one(&few, &mut numbers, now).max(Duration::from_nanos(100));
        let among_many = time_of_one(&many, &mut numbers, now);
        assert!(
            among_many < MORE_THAN_A_TREE_NEEDS * among_few,
            "{among_few:?} among ten, {among_many:?} among {pending}"
        );
        assert_eq!((few.pending_len(), many.pending_len()), (10, pending));
    }
    // All of them have expired, and one call pays for two of them alone.
    let late = now + 60 * SECOND;
    for issued in 1..=1_000 {
        let number = numbers.next().unwrap();
        assert!(many.revoke(&numbered(&many, number, late)));
        assert_eq!(many.pending_len(), 1_000_000 - 2 * issued);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Issue(u8),
    Take(u8, u8),
    Revoke(u8),
    Prune,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0..6_u8;
    let step = prop_oneof![
        id.clone().prop_map(Step::Issue),
        (id.clone(), id.clone()).prop_map(|(expected, presented)| Step::Take(expected, presented)),
        id.prop_map(Step::Revoke),
        Just(Step::Prune),
        (0..20_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn it_behaves_like_a_list_that_is_searched_from_end_to_end(steps in steps()) {
        let config = HandoffTokenConfig::new().max_pending(4).time_to_live(10 * SECOND).collision_attempts(1);
        let tickets = HandoffTokenStore::with_config(config);
        let mut now = Instant::now();
        let mut model: Vec<(u8, Instant)> = Vec::new();
        let token = |id: u8| HandoffToken::from_bytes([id; 16]);
        for step in steps {
            match step {
                Step::Issue(id) => {
                    let issued = tickets.issue_with(now, || Ok::<_, Dry>([id; 16]));
                    // It may remove expired ones first, two at the most, those that ended first.
                    model.sort_by_key(|(id, end)| (*end, *id));
                    for _ in 0..2 {
                        if model.first().is_some_and(|(_, end)| now >= *end) {
                            model.remove(0);
                        }
                    }
                    if model.len() >= 4 {
                        let is_full = matches!(issued, Err(HandoffError::Full { .. }));
                        prop_assert!(is_full);
                    } else if model.iter().any(|(other, _)| *other == id) {
                        let collided = matches!(issued, Err(HandoffError::Collisions { .. }));
                        prop_assert!(collided);
                    } else {
                        prop_assert!(issued.is_ok());
                        model.push((id, now + 10 * SECOND));
                    }
                }
                Step::Take(expected, presented) => {
                    let taken = tickets.consume_matching(&token(expected), &token(presented), now);
                    let found = model.iter().position(|(id, _)| *id == expected);
                    match (found, taken) {
                        (None, Err(HandoffError::NotPending)) => {}
                        (Some(at), Err(HandoffError::Expired)) if now >= model[at].1 => drop(model.remove(at)),
                        (Some(at), Err(HandoffError::Mismatch)) if now < model[at].1 && expected != presented => {}
                        (Some(at), Ok(())) if now < model[at].1 && expected == presented => drop(model.remove(at)),
                        (found, taken) => prop_assert!(false, "{found:?} {taken:?}"),
                    }
                }
                Step::Revoke(id) => {
                    let found = model.iter().position(|(other, _)| *other == id);
                    prop_assert_eq!(tickets.revoke(&token(id)), found.is_some());
                    found.map(|at| model.remove(at));
                }
                Step::Prune => {
                    let before = model.len();
                    model.retain(|(_, end)| now < *end);
                    prop_assert_eq!(tickets.prune_expired(now), before - model.len());
                }
                Step::Wait(seconds) => now += u32::try_from(seconds).unwrap() * SECOND,
            }
            prop_assert_eq!(tickets.pending_len(), model.len());
        }
    }
}
