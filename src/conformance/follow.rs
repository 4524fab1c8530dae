//! What a cache does to stay up to date, without the cache.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use super::{
    bench::same,
    report::{Broken, Outcome},
    steps::{dropped_after, lock, step_aside},
};
use crate::{
    backend::{ApiKeyBackend, Change, ChangeSink, DynFeed, KeySource, TakesChanges, Told},
    key::ApiKey,
    sync::{Mutex, timeout},
    token::{KeyId, LookupKey},
};

/// How often a feed may break off within one check. A cache outlives that, but nothing breaks it here.
const MAX_LOSSES: usize = 2;

/// Follows the changes of a source.
pub(super) struct Follower<B> {
    node: Arc<B>,
    sunk: Arc<Sunk>,
    /// None where the source calls by itself.
    feed: Option<Box<dyn DynFeed>>,
    losses: usize,
}

#[derive(Default)]
struct Sunk(Mutex<Vec<Change>>);

impl TakesChanges for Sunk {
    fn changed(&self, change: Change) {
        lock(&self.0).push(change);
    }
}

impl<B: ApiKeyBackend> Follower<B> {
    /// None where the source tells nothing, as it may.
    pub(super) async fn subscribe(node: &Arc<B>) -> Outcome<Option<Self>> {
        let sunk = Arc::new(Sunk::default());
        let feed = match node.subscribe(ChangeSink::to(&sunk)).await?.0 {
            Told::Nothing => return Ok(None),
            Told::Directly => None,
            Told::By(feed) => Some(feed),
        };
        Ok(Some(Self {
            node: node.clone(),
            sunk,
            feed,
            losses: 0,
        }))
    }

    pub(super) fn has_feed(&self) -> bool {
        self.feed.is_some()
    }

    /// What was told since this was last asked. A feed that breaks off has told that anything may
    /// have changed.
    pub(super) async fn told(&mut self) -> Outcome<Vec<Change>> {
        let mut told = Vec::new();
        if let Some(feed) = &mut self.feed {
            match feed.read().await {
                Ok(changes) => told = changes,
                Err(error) if self.losses == MAX_LOSSES => return Err(error.into()),
                Err(_) => {
                    let losses = self.losses + 1;
                    let Some(again) = Self::subscribe(&self.node).await? else {
                        return Err(Broken("a feed broke off, and there is no other".to_owned()));
                    };
                    *self = Self { losses, ..again };
                    told.push(Change::Everything);
                }
            }
        }
        told.append(&mut mem::take(&mut *lock(&self.sunk.0)));
        Ok(told)
    }

    /// Whether the feed says within `limit` that there may be something.
    pub(super) async fn wakes_within(&mut self, limit: Duration) -> bool {
        match &mut self.feed {
            Some(feed) => timeout(limit, feed.wait()).await.is_ok(),
            None => true,
        }
    }

    /// Begins to wait and gives up; whether there was something already.
    pub(super) async fn begins_to_wait(&mut self) -> bool {
        match &mut self.feed {
            Some(feed) => dropped_after(1, feed.wait()).await.is_some(),
            None => true,
        }
    }

    /// Reads until nothing of what is to be quiet is told any more: a feed may say the same more
    /// than once.
    pub(super) async fn quiet(&mut self, keys: &[KeyId], patience: Duration) -> Outcome {
        let reading = async {
            while concerns(&self.told().await?, keys) {
                step_aside().await;
            }
            Ok(())
        };
        timeout(patience, reading).await.unwrap_or_else(|_| {
            Err(Broken(
                "what was told once is told again and again".to_owned(),
            ))
        })
    }
}

/// Whether `changes` say that one of `keys` may have changed.
pub(super) fn concerns(changes: &[Change], keys: &[KeyId]) -> bool {
    changes.iter().any(|change| match change {
        Change::Everything => true,
        Change::Key(told) => keys.iter().any(|id| id.lookup_key() == *told),
    })
}

/// What a cache would know of some keys that lives by what it is told.
pub(super) struct Mirror<B> {
    follower: Follower<B>,
    known: HashMap<LookupKey, Option<ApiKey>>,
}

impl<B: ApiKeyBackend> Mirror<B> {
    pub(super) async fn new(mut follower: Follower<B>, keys: &[KeyId]) -> Outcome<Self> {
        follower.told().await?;
        let known = keys.iter().map(|id| (id.lookup_key(), None)).collect();
        let mut mirror = Self { follower, known };
        mirror.read(mirror.known.keys().copied().collect()).await?;
        Ok(mirror)
    }

    async fn read(&mut self, keys: Vec<LookupKey>) -> Outcome {
        for key in &keys {
            self.known.insert(*key, None);
        }
        for found in self.follower.node.get_many(&keys).await? {
            self.known.insert(found.lookup_key(), Some(found));
        }
        Ok(())
    }

    /// Reads anew what was told to have changed.
    pub(super) async fn follow(&mut self) -> Outcome {
        let told = self.follower.told().await?;
        let mut changed: Vec<LookupKey> = if told.contains(&Change::Everything) {
            self.known.keys().copied().collect()
        } else {
            let keys = told.iter().filter_map(|change| match change {
                Change::Key(key) if self.known.contains_key(key) => Some(*key),
                _ => None,
            });
            keys.collect()
        };
        changed.sort_unstable();
        changed.dedup();
        if changed.is_empty() {
            return Ok(());
        }
        self.read(changed).await
    }

    /// Lets others write, until there may be something to read.
    pub(super) async fn wait_a_moment(&mut self) {
        self.follower.wakes_within(Duration::from_millis(5)).await;
        step_aside().await;
    }

    /// Whether it knows what is stored.
    pub(super) async fn is_true(&self) -> Outcome {
        let keys: Vec<_> = self.known.keys().copied().collect();
        let mut stored: HashMap<_, _> = HashMap::new();
        for key in self.follower.node.get_many(&keys).await? {
            stored.insert(key.lookup_key(), key);
        }
        for (key, known) in &self.known {
            match (known, stored.get(key)) {
                (None, None) => {}
                (Some(known), Some(stored)) => {
                    let when = "where all that was told has been read again";
                    same(stored, known, when)?;
                }
                (known, _) => {
                    let wrong = ["unknown that is stored", "known that is gone"];
                    return Err(Broken(format!(
                        "where all that was told has been read again, a key is {}",
                        wrong[usize::from(known.is_some())]
                    )));
                }
            }
        }
        Ok(())
    }
}
