//! Events under all schedules: nobody who waits for one sleeps through it, and none stays unrecorded.

use std::sync::Arc;

use shuttle_tokio::task::spawn;

use super::{Silent, Still, Story, explore, id, iterations, token};
use crate::{
    ApiKeyStore, BackendError, CacheConfig, Event, EventRecorder, Pepper, Peppers,
    sync::{Mutex, all_tasks_have_ended},
};

async fn a_reader_against_two_who_write_and_the_end_of_the_store() {
    let story = Story::new(CacheConfig::new()).await;
    let mut events = story.store.events();
    let reader = spawn(async move {
        let mut told = Vec::new();
        while let Some(event) = events.next().await {
            told.push((event.number, event.name()));
        }
        told
    });
    let revoking = {
        let story = story.clone();
        spawn(async move { story.store.revoke(&id(&story.one)).await })
    };
    let suspending = {
        let story = story.clone();
        spawn(async move { story.store.disable(&id(&story.other)).await })
    };
    assert!(revoking.await.unwrap().unwrap());
    assert!(suspending.await.unwrap().unwrap());
    drop(story);
    let told = reader.await.unwrap();
    let numbers: Vec<_> = told.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2], "{told:?}");
    for name in ["key.revoked", "key.disabled"] {
        assert!(told.iter().any(|(_, told)| *told == name), "{told:?}");
    }
}

#[derive(Clone, Default)]
struct Keeps(Arc<Mutex<Vec<u64>>>);

impl EventRecorder for Keeps {
    async fn record(&self, events: &[Event]) -> Result<(), BackendError> {
        let numbers = events.iter().map(|event| event.number);
        self.0.lock().unwrap().extend(numbers);
        Ok(())
    }
}

async fn a_recorder_whose_task_ends_while_events_come() {
    let keeps = Keeps::default();
    let peppers = Peppers::new(Pepper::new("v1", [7; 32]).unwrap());
    let store = ApiKeyStore::builder(Silent::default())
        .peppers(peppers)
        .clock(Still)
        .record_events(keeps.clone());
    let store = store.build().await.unwrap();
    let strangers = [token('a'), token('b')].map(|token| {
        let store = store.clone();
        spawn(async move { store.verify(token.expose()).await })
    });
    for stranger in strangers {
        assert!(stranger.await.unwrap().is_err());
    }
    // Nothing wakes the recorder's task any more than these two events have.
    all_tasks_have_ended().await;
    assert_eq!(*keeps.0.lock().unwrap(), [1, 2]);
}

#[test]
fn no_schedule_lets_a_reader_sleep_through_an_event() {
    explore(
        iterations(),
        a_reader_against_two_who_write_and_the_end_of_the_store,
    );
}

#[test]
fn no_schedule_leaves_an_event_unrecorded() {
    explore(iterations(), a_recorder_whose_task_ends_while_events_come);
}
