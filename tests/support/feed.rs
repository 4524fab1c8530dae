//! A backend as at the far end of a network: other nodes change its keys, and a test stalls, slows,
//! cuts and garbles what it tells of that, and what it answers.

use std::{
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::sleep};
use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, Change, ChangeFeed, ChangeSink, KeyId, KeySource,
    LookupKey, MemoryBackend, RevocationReason, Subscription, forward_to_backend,
};

use super::{id_of, outage, start};

/// What becomes of a question for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Feed {
    #[default]
    Live,
    /// It answers when it is asked, and says nothing by itself.
    Silent,
    /// The same, and the answer is under way for so long: it says what was true when it left.
    Slow(Duration),
    /// Neither an answer nor an error, as on a half-open connection, until this is changed.
    Stalled,
    /// An error.
    Cut,
    /// Live, but the last change comes first, and each of them comes twice.
    Garbled,
    /// It says all the time that there may be something.
    Restless,
    Panics,
}

/// What becomes of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subscribing {
    /// It can be asked for changes from then on.
    #[default]
    Feed,
    /// It takes so long until it can.
    SlowFeed(Duration),
    /// Nothing will be told.
    Nothing,
    /// Every change will be told by itself, and before it counts.
    Directly,
    /// The same, from so much later on.
    SlowDirectly(Duration),
    Refused,
    /// Neither, until this is changed.
    Hangs,
    Panics,
}

/// What becomes of a read of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    #[default]
    Answers,
    /// The answer is under way for so long: it says what was true when it left.
    Slow(Duration),
    Fails,
    /// There is a row that can't be understood.
    Corrupt,
    /// No answer until this is changed.
    Hangs,
    Panics,
}

/// Which of them, by the keys that are asked for.
type Rule = Arc<dyn Fn(&[LookupKey]) -> Reading + Send + Sync>;

/// Keys at the far end. Clones are one backend.
#[derive(Clone, Default)]
pub struct Remote(Arc<Far>);

#[derive(Default)]
struct Far {
    records: MemoryBackend,
    /// Every change, in the order in which they were made.
    log: watch::Sender<Vec<Change>>,
    feed: watch::Sender<Feed>,
    subscribing: watch::Sender<Subscribing>,
    reading: watch::Sender<Option<Rule>>,
    subscriptions: AtomicUsize,
    feed_reads: AtomicUsize,
    reads: AtomicUsize,
    keys_read: AtomicUsize,
    reads_now: AtomicUsize,
    most_reads_at_once: AtomicUsize,
}

impl Remote {
    pub fn set_feed(&self, feed: Feed) {
        self.0.feed.send_replace(feed);
    }

    pub fn set_subscribing(&self, subscribing: Subscribing) {
        self.0.subscribing.send_replace(subscribing);
    }

    /// What becomes of every read of keys, those that hang among them.
    pub fn set_reading(&self, reading: Reading) {
        self.read_as(move |_| reading);
    }

    pub fn read_as(&self, rule: impl Fn(&[LookupKey]) -> Reading + Send + Sync + 'static) {
        self.0.reading.send_replace(Some(Arc::new(rule)));
    }

    /// Ends a key as another node would, which tells this one nothing but through the feed.
    pub async fn revoke_elsewhere(&self, token: &str) {
        self.change_elsewhere(token, |key| key.revoked_at = Some(start()))
            .await;
    }

    pub async fn change_elsewhere(&self, token: &str, change: impl FnOnce(&mut ApiKey)) {
        let wanted = [id_of(token).lookup_key()];
        let mut key = self.0.records.get_many(&wanted).await.unwrap().remove(0);
        change(&mut key);
        let version = key.version;
        key.version += 1;
        assert!(self.update(&key, version).await.unwrap());
    }

    /// Tells of changes, whether there were any or not, all at once.
    pub fn announce(&self, changes: impl IntoIterator<Item = Change>) {
        self.0.log.send_modify(|log| log.extend(changes));
    }

    /// How often it was subscribed to, or tried to be.
    pub fn subscriptions(&self) -> usize {
        self.0.subscriptions.load(Ordering::SeqCst)
    }

    /// How often it was asked for changes.
    pub fn feed_reads(&self) -> usize {
        self.0.feed_reads.load(Ordering::SeqCst)
    }

    /// How often it was asked for keys.
    pub fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    /// For how many keys in all.
    pub fn keys_read(&self) -> usize {
        self.0.keys_read.load(Ordering::SeqCst)
    }

    pub fn most_reads_at_once(&self) -> usize {
        self.0.most_reads_at_once.load(Ordering::SeqCst)
    }
}

impl KeySource for Remote {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let _read = Read::begun(&self.0, keys);
        let mut rules = self.0.reading.subscribe();
        loop {
            let rule = rules.borrow_and_update().clone();
            match rule.map_or_else(Reading::default, |rule| rule(keys)) {
                Reading::Answers => break,
                Reading::Slow(by) => {
                    let found = self.0.records.get_many(keys).await;
                    sleep(by).await;
                    return found;
                }
                Reading::Fails => return Err(outage()),
                Reading::Corrupt => return Err(BackendError::corrupt("half a row")),
                Reading::Hangs => rules.changed().await.unwrap(),
                Reading::Panics => panic_any("the driver panics"),
            }
        }
        self.0.records.get_many(keys).await
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        self.0.subscriptions.fetch_add(1, Ordering::SeqCst);
        let mut subscribing = self.0.subscribing.subscribe();
        let does_answer = |how: &Subscribing| *how != Subscribing::Hangs;
        let how = *subscribing.wait_for(does_answer).await.unwrap();
        match how {
            Subscribing::SlowFeed(by) => sleep(by).await,
            Subscribing::Feed | Subscribing::Hangs => {}
            Subscribing::Nothing => return Ok(Subscription::none()),
            Subscribing::Directly => return self.0.records.subscribe(sink).await,
            Subscribing::SlowDirectly(by) => {
                sleep(by).await;
                return self.0.records.subscribe(sink).await;
            }
            Subscribing::Refused => return Err(outage()),
            Subscribing::Panics => panic_any("the driver panics"),
        }
        let log = self.0.log.subscribe();
        let told = log.borrow().len();
        Ok(Subscription::feed(Following {
            far: self.0.clone(),
            log,
            told,
        }))
    }
}

/// Counts a read for as long as it is under way.
struct Read<'a>(&'a Far);

impl<'a> Read<'a> {
    fn begun(far: &'a Far, keys: &[LookupKey]) -> Self {
        far.reads.fetch_add(1, Ordering::SeqCst);
        far.keys_read.fetch_add(keys.len(), Ordering::SeqCst);
        let now = far.reads_now.fetch_add(1, Ordering::SeqCst) + 1;
        far.most_reads_at_once.fetch_max(now, Ordering::SeqCst);
        Self(far)
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.0.reads_now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One subscription.
struct Following {
    far: Arc<Far>,
    log: watch::Receiver<Vec<Change>>,
    told: usize,
}

impl ChangeFeed for Following {
    async fn read(&mut self) -> Result<Vec<Change>, BackendError> {
        let mut changes = self.log.borrow()[self.told..].to_vec();
        // What is announced from now on is for the next question.
        self.far.feed_reads.fetch_add(1, Ordering::SeqCst);
        let mut feed = self.far.feed.subscribe();
        let how = *feed.borrow_and_update();
        if let Feed::Slow(by) = how {
            sleep(by).await;
        }
        let does_answer = |feed: &Feed| *feed != Feed::Stalled;
        let how = *feed.wait_for(does_answer).await.unwrap();
        self.told += changes.len();
        match how {
            Feed::Cut => return Err(outage()),
            Feed::Panics => panic_any("the driver panics"),
            Feed::Garbled => changes = changes.iter().rev().flat_map(|&told| [told; 2]).collect(),
            Feed::Live | Feed::Restless | Feed::Silent | Feed::Slow(_) | Feed::Stalled => {}
        }
        Ok(changes)
    }

    async fn wait(&mut self) {
        let mut feed = self.far.feed.subscribe();
        let speaks = |feed: &Feed| matches!(feed, Feed::Live | Feed::Garbled | Feed::Restless);
        if *feed.wait_for(speaks).await.unwrap() == Feed::Restless {
            return;
        }
        let told = self.told;
        self.log.wait_for(|log| log.len() > told).await.unwrap();
    }
}

impl ApiKeyBackend for Remote {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        let inserted = self.0.records.insert(key).await?;
        self.announce([Change::Key(key.lookup_key())]);
        Ok(inserted)
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        let updated = self.0.records.update(key, expected).await?;
        self.announce([Change::Key(key.lookup_key())]);
        Ok(updated)
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        let deleted = self.0.records.delete(id).await?;
        self.announce([Change::Key(id.lookup_key())]);
        Ok(deleted)
    }

    async fn revoke(
        &self,
        id: &KeyId,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> Result<bool, BackendError> {
        let revoked = self.0.records.revoke(id, at, reason).await?;
        self.announce([Change::Key(id.lookup_key())]);
        Ok(revoked)
    }

    forward_to_backend!(self => self.0.records; list_for_user, touch);
}
