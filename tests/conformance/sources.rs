//! Sources that something else writes.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
    sync::{Arc, Mutex},
};

use tokio::sync::watch;
use tower_api_key::{
    ApiKey, BackendError, Change, ChangeFeed, ChangeSink, KeySource, LookupKey, Subscription,
    conformance::{Checks, Edit, check_source},
};

/// A table that another program writes, and a counter that says that it did.
#[derive(Clone)]
struct Watched {
    rows: Arc<Mutex<BTreeMap<LookupKey, ApiKey>>>,
    edits: watch::Sender<u64>,
    telling: Telling,
}

#[derive(Clone, Copy, PartialEq)]
enum Telling {
    Nothing,
    Edits,
    /// The counter is looked at only when something asks.
    WhenAsked,
    /// Every second edit.
    Half,
}

impl Watched {
    fn new(telling: Telling) -> Self {
        Self {
            rows: Arc::default(),
            edits: watch::Sender::new(0),
            telling,
        }
    }

    fn edit(&self, edit: Edit) -> Ready<Result<(), BackendError>> {
        {
            let mut rows = self.rows.lock().unwrap();
            match edit {
                Edit::Put(key) => drop(rows.insert(key.lookup_key(), key)),
                Edit::Remove(id) => drop(rows.remove(&id.lookup_key())),
                other => panic!("an edit that is new: {other:?}"),
            }
        }
        self.edits.send_modify(|edits| *edits += 1);
        ready(Ok(()))
    }
}

impl KeySource for Watched {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let rows = self.rows.lock().unwrap();
        Ok(keys
            .iter()
            .filter_map(|key| rows.get(key).cloned())
            .collect())
    }

    async fn subscribe(&self, _: ChangeSink) -> Result<Subscription, BackendError> {
        if self.telling == Telling::Nothing {
            return Ok(Subscription::none());
        }
        let log = self.edits.subscribe();
        let seen = *log.borrow();
        let telling = self.telling;
        Ok(Subscription::feed(Edits { log, seen, telling }))
    }
}

struct Edits {
    log: watch::Receiver<u64>,
    seen: u64,
    telling: Telling,
}

impl ChangeFeed for Edits {
    async fn read(&mut self) -> Result<Vec<Change>, BackendError> {
        let edits = *self.log.borrow();
        let mut has_changed = edits != self.seen;
        if self.telling == Telling::Half {
            has_changed &= edits.is_multiple_of(2);
        }
        self.seen = edits;
        Ok(Vec::from_iter(has_changed.then_some(Change::Everything)))
    }

    async fn wait(&mut self) {
        if self.telling == Telling::WhenAsked {
            std::future::pending::<()>().await;
        }
        let seen = self.seen;
        let _ = self.log.wait_for(|edits| *edits != seen).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sources_that_keep_the_rules_pass() {
    for telling in [Telling::Nothing, Telling::Edits] {
        let source = Watched::new(telling);
        let edited = source.clone();
        let edit = move |edit| edited.edit(edit);
        check_source(async || Ok(source.clone()), edit).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_feed_without_wait_passes_where_that_is_said_and_one_that_skips_changes_never_does() {
    let rules = async |telling, without_wait: bool| {
        let source = Watched::new(telling);
        let edited = source.clone();
        let edit = move |edit| edited.edit(edit);
        let mut checks = Checks::of_source(async || Ok(source.clone()), edit)
            .patience(std::time::Duration::from_millis(300));
        if without_wait {
            checks = checks.without_wait();
        }
        match checks.run().await {
            Ok(()) => Vec::new(),
            Err(violations) => violations.rules().map(ToOwned::to_owned).collect(),
        }
    };
    assert_eq!(rules(Telling::WhenAsked, true).await, [""; 0]);
    let wake = "a change wakes those who wait".to_owned();
    assert_eq!(rules(Telling::WhenAsked, false).await, [wake]);
    let told = "every change is told in time".to_owned();
    assert!(rules(Telling::Half, true).await.contains(&told));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[should_panic(expected = "two handles on one database can be had")]
async fn a_database_that_is_not_there_is_reported() {
    let nowhere: fn() -> Result<Watched, _> = || Err("connection refused".into());
    let edit = move |_| async { Ok(()) };
    check_source(async || nowhere(), edit).await;
}
