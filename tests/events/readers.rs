//! Those who read: several, from different moments on, on several threads.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{PATIENCE, heard, names, new_key, store_with_room_for};
use crate::support::unknown_token;

#[tokio::test]
async fn each_reader_hears_of_all_that_happens_from_its_beginning_on() {
    let store = store_with_room_for(100).await;
    let mut first = store.events();
    new_key(&store).await;
    let mut second = store.events();
    let (_, id) = new_key(&store).await;
    drop(first.next().await);
    assert!(store.revoke(&id).await.unwrap());
    let (first, second) = (heard(&mut first), heard(&mut second));
    assert_eq!(names(&second), ["key.created", "key.revoked"]);
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_and_who_stops_waiting_misses_nothing() {
    let store = store_with_room_for(100).await;
    let mut events = store.events();
    let began = Instant::now();
    for _ in 0..3 {
        let nothing = timeout(Duration::from_secs(1), events.next()).await;
        assert!(nothing.is_err());
    }
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    let waiting = tokio::spawn(async move {
        let event = StreamExt::next(&mut events).await;
        (event.unwrap().name(), events)
    });
    tokio::task::yield_now().await;
    new_key(&store).await;
    let (name, mut events) = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(name, "key.created");
    new_key(&store).await;
    assert_eq!(names(&heard(&mut events)), ["key.created"]);
}

#[tokio::test]
async fn it_ends_with_the_last_clone_of_the_store_and_not_before_the_last_event() {
    let store = store_with_room_for(100).await;
    let clone = store.clone();
    let mut events = store.events();
    drop(store);
    new_key(&clone).await;
    let waiting = tokio::spawn(async move { (&mut events).collect::<Vec<_>>().await });
    tokio::task::yield_now().await;
    clone.verify(unknown_token()).await.unwrap_err();
    clone.shutdown().await.unwrap();
    new_key(&clone).await;
    drop(clone);
    let told = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(names(&told), ["key.created", "key.rejected", "key.created"]);
}

#[tokio::test]
async fn what_happens_while_nobody_reads_is_told_to_nobody() {
    let store = store_with_room_for(100).await;
    let events = store.events();
    new_key(&store).await;
    drop(events);
    store.verify(unknown_token()).await.unwrap_err();
    let mut events = store.events();
    new_key(&store).await;
    let told = heard(&mut events);
    assert_eq!(names(&told), ["key.created"]);
    assert_eq!(told[0].number, 2);
}

/// Four who write and four who read, as fast as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_hear_the_same_in_the_same_order_whoever_writes_meanwhile() {
    const EACH: usize = 50;
    for _ in 0..20 {
        let store = store_with_room_for(1_000).await;
        let mut readers = JoinSet::new();
        for _ in 0..4 {
            let events = store.events();
            readers.spawn(events.collect::<Vec<_>>());
        }
        let mut writers = JoinSet::new();
        for _ in 0..4 {
            let store = store.clone();
            writers.spawn(async move {
                for _ in 0..EACH {
                    new_key(&store).await;
                    store.verify(unknown_token()).await.unwrap_err();
                }
            });
        }
        writers.join_all().await;
        drop(store);
        let told = timeout(PATIENCE, readers.join_all()).await.unwrap();
        for other in &told {
            assert_eq!(other.len(), 4 * EACH * 2);
            assert!(other.iter().map(|event| event.number).eq(1..=400));
            assert_eq!(other, &told[0]);
        }
    }
}
