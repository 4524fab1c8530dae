//! What keeps events: in order, again where it fails, and in nobody's way.

use std::{
    collections::VecDeque,
    future, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    time::{Instant, timeout},
};
use tower_api_key::{
    ApiKeyStore, BackendError, Event, EventKind, EventRecorder, LeakReport, MemoryBackend,
    StoreError,
};

use super::{PATIENCE, SECOND, builder, names, new_key};
use crate::support::{outcome, unknown_token};

/// What becomes of a call. Calls that nobody has said anything about are kept.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Fail,
    KeepAndFail,
    Panic,
    Hang,
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    plans: VecDeque<Plan>,
    calls: Vec<(Instant, Vec<Event>)>,
    kept: Vec<Event>,
}

impl Recorder {
    fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        self.recorded().plans.extend(plans);
    }

    fn kept(&self) -> Vec<Event> {
        self.recorded().kept.clone()
    }

    fn calls(&self) -> Vec<(Instant, Vec<Event>)> {
        self.recorded().calls.clone()
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Recorded) -> bool) {
        let wait = async {
            while !is_so(&self.recorded()) {
                // On paused time, the next timer is all there is to wait for.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(20 * PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("{what} in time"));
    }
}

impl EventRecorder for Recorder {
    async fn record(&self, events: &[Event]) -> Result<(), BackendError> {
        let plan = {
            let mut recorded = self.recorded();
            recorded.calls.push((Instant::now(), events.to_vec()));
            let plan = recorded.plans.pop_front();
            if let None | Some(Plan::KeepAndFail) = plan {
                recorded.kept.extend_from_slice(events);
            }
            plan
        };
        match plan {
            None => Ok(()),
            Some(Plan::Panic) => panic!("the recorder was told to panic"),
            Some(Plan::Hang) => future::pending().await,
            Some(_) => Err(BackendError::unavailable(io::Error::other(
                "the disk is full",
            ))),
        }
    }
}

async fn recorded(room: usize) -> (ApiKeyStore, Recorder) {
    let recorder = Recorder::default();
    let builder = builder(MemoryBackend::new()).event_buffer(room);
    let store = builder.record_events(recorder.clone()).build().await;
    (store.unwrap(), recorder)
}

async fn reject(store: &ApiKeyStore, times: usize) {
    for _ in 0..times {
        store.verify(unknown_token()).await.unwrap_err();
    }
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.number).collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_recorded_in_their_order_in_batches_and_as_readers_hear_them() {
    let (store, recorder) = recorded(1_000).await;
    let mut events = store.events();
    for _ in 0..25 {
        new_key(&store).await;
        reject(&store, 9).await;
    }
    recorder
        .until("all are recorded", |it| it.kept.len() >= 250)
        .await;
    let kept = recorder.kept();
    assert!(numbers(&kept).into_iter().eq(1..=250));
    assert_eq!(kept, super::heard(&mut events));
    let sizes: Vec<_> = recorder
        .calls()
        .iter()
        .map(|(_, call)| call.len())
        .collect();
    assert!(
        sizes.iter().all(|size| (1..=100).contains(size)),
        "{sizes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_fails_comes_again_unchanged_after_pauses_that_grow_to_a_minute() {
    let (store, recorder) = recorded(1_000).await;
    recorder.plan([Plan::Fail; 8]);
    new_key(&store).await;
    recorder
        .until("the first call", |it| it.calls.len() == 1)
        .await;
    // They have to wait.
    reject(&store, 3).await;
    recorder
        .until("all are recorded", |it| it.kept.len() == 4)
        .await;
    let calls = recorder.calls();
    assert_eq!(calls.len(), 10);
    let pauses = calls.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let seconds: Vec<_> = pauses.map(|pause| pause.as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 0]);
    assert!(calls[..9].iter().all(|(_, call)| call == &calls[0].1));
    assert_eq!(numbers(&recorder.kept()), [1, 2, 3, 4]);

    // Once it has worked again, the pauses begin anew; what was kept and failed comes twice.
    recorder.plan([Plan::KeepAndFail]);
    new_key(&store).await;
    recorder
        .until("it is recorded", |it| it.kept.len() == 6)
        .await;
    assert_eq!(numbers(&recorder.kept()), [1, 2, 3, 4, 5, 5]);
    let calls = recorder.calls();
    assert_eq!((calls[11].0 - calls[10].0).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_or_hangs_harms_no_request_and_no_change() {
    let (store, recorder) = recorded(1_000).await;
    recorder.plan([Plan::Panic, Plan::Hang, Plan::Panic]);
    let began = Instant::now();
    for calls in 1..=3 {
        let (token, id) = new_key(&store).await;
        recorder
            .until("it is called", |it| it.calls.len() == calls)
            .await;
        let before = Instant::now();
        reject(&store, 5).await;
        assert_eq!(outcome(&store.verify(&token).await), "good");
        assert!(store.revoke(&id).await.unwrap());
        assert_eq!(outcome(&store.verify(&token).await), "revoked");
        assert_eq!(before.elapsed(), Duration::ZERO, "nobody has waited");
    }
    recorder
        .until("all are recorded", |it| it.kept.len() == 24)
        .await;
    assert!(numbers(&recorder.kept()).into_iter().eq(1..=24));
    // A second after the panic, two after it was given up, four after the panic.
    let waited = (SECOND + (10 + 2) * SECOND + 4 * SECOND).as_secs();
    assert!((waited..=waited + 1).contains(&began.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_fast_to_be_recorded_is_counted_and_takes_no_change_along() {
    let (store, recorder) = recorded(8).await;
    recorder.plan([Plan::Hang]);
    reject(&store, 1).await;
    recorder
        .until("it is called", |it| it.calls.len() == 1)
        .await;
    let (_, id) = new_key(&store).await;
    reject(&store, 1_000).await;
    assert!(store.revoke(&id).await.unwrap());
    recorder
        .until("all are recorded", |it| it.kept.len() == 12)
        .await;
    let kept = recorder.kept();
    assert_eq!(
        names(&kept[..3]),
        ["key.rejected", "key.created", "events.missed"]
    );
    let EventKind::Missed(missed) = &kept[2].kind else {
        unreachable!("its name says so");
    };
    assert_eq!((missed.changes, missed.rejections), (0, 1_000 - 8));
    assert_eq!(names(&kept[3..11]), ["key.rejected"; 8]);
    assert_eq!(
        (kept[11].name(), kept[11].key_id),
        ("key.revoked", Some(id))
    );
}

#[tokio::test(start_paused = true)]
async fn leak_reports_that_come_too_fast_to_be_recorded_take_no_revocation_along() {
    let (store, recorder) = recorded(8).await;
    let ((token, _), (_, other)) = (new_key(&store).await, new_key(&store).await);
    assert!(store.report_leaked([&token]).await.unwrap()[0].is_true_positive());
    recorder
        .until("all are recorded", |it| it.kept.len() == 4)
        .await;
    recorder.plan([Plan::Hang]);
    reject(&store, 1).await;
    recorder
        .until("it is called", |it| {
            it.calls
                .last()
                .is_some_and(|(_, call)| names(call) == ["key.rejected"])
        })
        .await;
    assert!(store.revoke(&other).await.unwrap());
    for _ in 0..2 {
        let reported = store.report_leaked(vec![&token; 1_000]).await.unwrap();
        assert!(reported.iter().all(LeakReport::is_true_positive));
    }
    recorder
        .until("all are recorded", |it| it.kept.len() == 4 + 1 + 1 + 1 + 8)
        .await;
    let kept = recorder.kept();
    assert_eq!(
        (kept[5].name(), kept[5].key_id),
        ("key.revoked", Some(other))
    );
    let EventKind::Missed(missed) = &kept[6].kind else {
        panic!("{kept:?}");
    };
    let of_each = (missed.changes, missed.repeatable, missed.rejections);
    assert_eq!(of_each, (0, 2_000 - 8, 0));
    assert_eq!(names(&kept[7..]), ["key.leak_reported"; 8]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_hands_over_what_is_queued() {
    let (store, recorder) = recorded(1_000).await;
    // It waits to try again.
    recorder.plan([Plan::Fail; 7]);
    reject(&store, 1).await;
    recorder
        .until("it pauses for a minute", |it| it.calls.len() == 7)
        .await;
    for _ in 0..149 {
        new_key(&store).await;
    }
    let before = Instant::now();
    store.shutdown().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(numbers(&recorder.kept()).into_iter().eq(1..=150));
    let calls = recorder.calls();
    let sizes: Vec<_> = calls.iter().skip(7).map(|(_, call)| call.len()).collect();
    assert_eq!(sizes, [1, 100, 49], "what had failed, and full batches");

    // The store still answers, and another call hands over what has come since.
    new_key(&store).await;
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(recorder.kept().len(), 150);
    store.shutdown().await.unwrap();
    assert_eq!(recorder.kept().len(), 151);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_says_what_could_not_be_recorded_and_can_be_tried_again() {
    for (plan, takes) in [(Plan::Fail, 0), (Plan::Panic, 0), (Plan::Hang, 10)] {
        let (store, recorder) = recorded(1_000).await;
        recorder.plan([plan; 2]);
        new_key(&store).await;
        recorder
            .until("it is called", |it| it.calls.len() == 1)
            .await;
        let before = Instant::now();
        let error = store.shutdown().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert_eq!(before.elapsed().as_secs(), takes, "{plan:?}");
        assert!(recorder.kept().is_empty());
        recorder.recorded().plans.clear();
        store.shutdown().await.unwrap();
        assert_eq!(numbers(&recorder.kept()), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_without_events_to_record_costs_no_task() {
    let (store, recorder) = recorded(1_000).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 0);
    for recorded in 1..=3 {
        new_key(&store).await;
        recorder
            .until("it is recorded", |it| it.kept.len() == recorded)
            .await;
        recorder.until("the task ends", |_| tasks() == 0).await;
    }
    // Nor does it outlive the store.
    recorder.plan([Plan::Hang]);
    new_key(&store).await;
    recorder
        .until("it is called", |it| it.calls.len() == 4)
        .await;
    let before = Instant::now();
    drop(store);
    recorder.until("the task ends", |_| tasks() == 0).await;
    assert!(before.elapsed() < SECOND, "it hangs no longer");
    assert_eq!(Arc::strong_count(&recorder.0), 1);
}

#[test]
fn what_a_runtime_left_when_it_ended_is_recorded_on_the_next_one() {
    let run = || Builder::new_current_thread().enable_all().build().unwrap();
    let (store, recorder) = run().block_on(async {
        let (store, recorder) = recorded(1_000).await;
        recorder.plan([Plan::Hang]);
        new_key(&store).await;
        recorder
            .until("it is called", |it| it.calls.len() == 1)
            .await;
        new_key(&store).await;
        (store, recorder)
    });
    run().block_on(async {
        new_key(&store).await;
        recorder
            .until("all are recorded", |it| it.kept.len() == 3)
            .await;
    });
    assert_eq!(numbers(&recorder.kept()), [1, 2, 3]);
}

/// Events come from all sides while the task ends and begins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_is_left_behind_when_the_task_ends_while_it_comes() {
    for _ in 0..100 {
        let (store, recorder) = recorded(1_000).await;
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = store.clone();
            writers.spawn(async move {
                for _ in 0..10 {
                    reject(&store, 1).await;
                    tokio::task::yield_now().await;
                }
            });
        }
        writers.join_all().await;
        recorder
            .until("all are recorded", |it| it.kept.len() == 40)
            .await;
        assert!(numbers(&recorder.kept()).into_iter().eq(1..=40));
    }
}
