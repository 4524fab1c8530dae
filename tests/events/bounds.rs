//! Who floods, who is slow, and what they are told.

use proptest::prelude::*;
use tokio::runtime::Builder;
use tower_api_key::{
    ConfigError, Event, EventKind, LeakReport, MemoryBackend, MissedEvents, NewApiKey, Scopes,
};

use super::{builder, heard, names, new_key, store_with_room_for};
use crate::support::{unknown_token, with_wrong_secret};

fn missed(event: &Event) -> Option<&MissedEvents> {
    match &event.kind {
        EventKind::Missed(missed) => Some(missed),
        _ => None,
    }
}

#[tokio::test]
async fn whoever_floods_the_service_with_wrong_tokens_pushes_no_revocation_out() {
    let store = store_with_room_for(16).await;
    let (token, id) = new_key(&store).await;
    let mut events = store.events();
    assert!(store.revoke(&id).await.unwrap());
    let wrong = [with_wrong_secret(&token), unknown_token(), token];
    for number in 0..10_000 {
        store.verify(&wrong[number % 3]).await.unwrap_err();
    }
    let told = heard(&mut events);
    assert_eq!((told[0].name(), told[0].key_id), ("key.revoked", Some(id)));
    let missed = missed(&told[1]).unwrap();
    assert_eq!((missed.changes, missed.rejections), (0, 10_000 - 16));
    assert_eq!(names(&told[2..]), ["key.rejected"; 16]);
}

/// The recorder is busy meanwhile, and has the same buffers.
#[tokio::test]
async fn creations_evict_no_revocation_of_another_user() {
    let store = store_with_room_for(16).await;
    let (_, other) = new_key(&store).await;
    let mut events = store.events();
    assert!(store.disable(&other).await.unwrap());
    assert!(store.revoke(&other).await.unwrap());
    for _ in 0..1_100 {
        let new = NewApiKey::for_user("mallory", Scopes::none());
        drop(store.create(new).await.unwrap());
    }
    let told = heard(&mut events);
    assert_eq!(names(&told[..2]), ["key.disabled", "key.revoked"]);
    let missed = missed(&told[2]).unwrap();
    assert_eq!((missed.inactive, missed.changes), (0, 1_100 - 16));
    assert_eq!(names(&told[3..]), ["key.created"; 16]);
}

#[tokio::test]
async fn whoever_reports_a_revoked_token_again_and_again_pushes_no_revocation_out() {
    let store = store_with_room_for(16).await;
    let ((token, leaked), (_, other)) = (new_key(&store).await, new_key(&store).await);
    assert!(store.report_leaked([&token]).await.unwrap()[0].is_true_positive());
    let mut events = store.events();
    assert!(store.revoke(&other).await.unwrap());
    for _ in 0..2 {
        let reported = store.report_leaked(vec![&token; 1_000]).await.unwrap();
        assert!(reported.iter().all(LeakReport::is_true_positive));
    }
    let told = heard(&mut events);
    assert_eq!(
        (told[0].name(), told[0].key_id),
        ("key.revoked", Some(other))
    );
    let missed = missed(&told[1]).unwrap();
    let of_each = (missed.changes, missed.repeatable, missed.rejections);
    assert_eq!(of_each, (0, 2_000 - 16, 0));
    assert_eq!(names(&told[2..]), ["key.leak_reported"; 16]);
    assert!(told[2..].iter().all(|event| event.key_id == Some(leaked)));
}

#[tokio::test]
async fn who_ends_all_of_many_keys_pushes_no_other_revocation_out() {
    let store = store_with_room_for(16).await;
    let (_, other) = new_key(&store).await;
    for _ in 0..2_345 {
        let new = NewApiKey::for_user("mallory", Scopes::none());
        drop(store.create(new).await.unwrap());
    }
    let mut events = store.events();
    assert!(store.revoke(&other).await.unwrap());
    assert_eq!(store.revoke_all_for_user("mallory").await.unwrap(), 2_345);
    let told = heard(&mut events);
    assert_eq!(told[0].key_id, Some(other));
    assert_eq!(names(&told[1..]), ["keys.revoked"; 3]);
    let count = |event: &Event| event.kind.records().unwrap();
    assert_eq!(told[1..].iter().map(count).sum::<u64>(), 2_345);
    let of_user = |event: &Event| event.user_id.as_deref() == Some("mallory");
    assert!(told[1..].iter().all(of_user));
}

#[tokio::test]
async fn who_is_too_slow_is_told_how_much_is_missing_in_its_place() {
    let store = store_with_room_for(2).await;
    let (mut slow, mut other) = (store.events(), store.events());
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(new_key(&store).await.1);
        assert_eq!(names(&heard(&mut other)), ["key.created"]);
    }
    let told = heard(&mut slow);
    assert_eq!(
        names(&told),
        ["events.missed", "key.created", "key.created"]
    );
    assert_eq!((missed(&told[0]).unwrap().changes, told[0].number), (3, 3));
    assert_eq!(told[1].key_id, Some(ids[3]));
    // It has caught up.
    new_key(&store).await;
    assert_eq!(names(&heard(&mut slow)), ["key.created"]);
}

#[tokio::test]
async fn a_buffer_without_room_is_refused() {
    let refused = builder(MemoryBackend::new()).event_buffer(0).build().await;
    assert!(matches!(refused.unwrap_err(), ConfigError::EventBuffer));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Reject,
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Create),
        5 => Just(Step::Reject),
        2 => (0_usize..6).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens between two reads: the numbers rise, each event is told or counted as missed, and no
    /// more come at once than there is room for.
    #[test]
    fn nothing_is_lost_in_silence(steps in steps(), room in 1_usize..5) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = store_with_room_for(room).await;
            let mut events = store.events();
            let (mut created, mut rejected, mut told) = (0_u64, 0_u64, Vec::new());
            for step in steps {
                match step {
                    Step::Create => {
                        new_key(&store).await;
                        created += 1;
                    }
                    Step::Reject => {
                        store.verify(unknown_token()).await.unwrap_err();
                        rejected += 1;
                    }
                    Step::Read(most) => {
                        for _ in 0..most.min(usize::try_from(created + rejected).unwrap()) {
                            told.extend(next_now(&mut events));
                        }
                    }
                }
            }
            let rest = heard(&mut events);
            assert!(rest.len() <= 2 * (room + 1), "{rest:?}");
            told.extend(rest);
            assert!(told.is_sorted_by(|one, other| one.number < other.number), "{told:?}");
            let sum = |of: fn(&MissedEvents) -> u64| told.iter().filter_map(missed).map(of).sum::<u64>();
            let count = |name| told.iter().filter(|event| event.name() == name).count() as u64;
            assert_eq!(count("key.created") + sum(|missed| missed.changes), created);
            assert_eq!(count("key.rejected") + sum(|missed| missed.rejections), rejected);
            assert_eq!(sum(|missed| missed.repeatable), 0);
        });
    }
}

fn next_now(events: &mut tower_api_key::Events) -> Option<Event> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(events.next()).poll(&mut cx) {
        std::task::Poll::Ready(event) => event,
        std::task::Poll::Pending => None,
    }
}
