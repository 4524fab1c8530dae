//! A backend that breaks one rule: which one, a test says.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{spawn, yield_now},
    time::sleep,
};
use tower_api_key::{
    ApiKey, BackendError, Change, ChangeSink, KeyGrant, KeyId, KeySource, LookupKey, Metadata,
    PepperCheck, Scopes, Subscription,
};

use super::broken_writes::Feed;

/// What is wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    InsertOverwrites,
    InsertChecksFirst,
    InsertDoesNotSay,
    DigestsHaveNoId,
    InsertIgnoresTheMaker,
    InsertLooksAtTheMakerFirst,
    ReplicaLags,
    UpdateIgnoresVersion,
    UpdateChecksFirst,
    UpdateInserts,
    UpdateForgetsUse,
    UpdateTakesOwner,
    UpdateTakesRevocationBack,
    UpdateLeavesName,
    UpdateIsTorn,
    RevokesAllForgetsReason,
    RevokesAllAgain,
    RevokesAllAtOnce,
    RevokesAgain,
    RevokesForgetsReason,
    RevokesSilently,
    RevokesAllOfOthers,
    RevokesAllSilently,
    FilterTakesRevoked,
    FilterIgnoresOverlap,
    FilterTakesEndless,
    FilterCountsEndItself,
    FilterForgetsCreation,
    FilterIgnoresUser,
    FilterIgnoresTheMaker,
    FilterIgnoresThePepper,
    PurgesDigests,
    PurgesAtTheDate,
    PurgesSuspended,
    PurgesNoRetired,
    PurgesTooMany,
    PurgesSilently,
    PurgeChecksFirst,
    DeleteAlwaysTrue,
    DeleteOnlyMarks,
    RotateLeavesOrphans,
    RotateForgetsTheSuccessor,
    RotateIsSilent,
    PepperUsageCountsEnded,
    PepperChecksAreReplaced,
    PepperUsageForgetsOverlaps,
    TouchGoesBack,
    TouchTakesTheFirst,
    TouchCountsVersion,
    TouchFailsOnUnknown,
    TouchAnnounces,
    TouchesAtMost500,
    ListIsOldestFirst,
    ListComparesTime,
    ListRepeats,
    ListLooksForCursor,
    ListComparesSigned,
    ListIgnoresLimit,
    ListIgnoresCursor,
    ListLeaks,
    ListIgnoresCase,
    ListEndsAt1000,
    LosesUnrestricted,
    EmptyIsUnrestricted,
    LosesMillis,
    EmptyNameIsNone,
    TrimsNames,
    RewritesMetadata,
    ReadsAtMost999,
    FailsOnNothing,
    SkipsCorrupt,
    CorruptIsOutage,
    DropsChanges,
    DropsDeletions,
    DropsSome,
    TellsLater,
    TellsFirst,
    TellsOneSubscriber,
    TellsTheWriterAlone,
    ForgetsToTellWhenDropped,
    DroppedUpdateIsTorn,
    DroppedCallsUseUp,
    FrozenIsNotThere,
    Panics,
    // Those of grants.
    GrantLosesLifetime,
    GrantLosesUnrestricted,
    GrantInsertOverwrites,
    GrantHashesMayRepeat,
    GrantsAreCountedFirst,
    GrantsAreCountedWithExpired,
    GrantsAreUnbounded,
    GrantsOfAllAreUnbounded,
    GrantsOfEndedMakersCount,
    GrantsOfSuspendedMakersDoNot,
    GrantListIsOldestFirst,
    GrantListLeaks,
    GrantListRepeats,
    GrantListIgnoresLimit,
    GrantListIgnoresPending,
    GrantListTakesTheExpired,
    GrantListTakesTheRevoked,
    GrantListTakesWhatEndsNow,
    GrantSparesTheExpired,
    GrantRevokesTheClaimed,
    GrantRevocationMoves,
    GrantsOfOthersAreRevoked,
    ClaimChecksFirst,
    ClaimAndRevocationMiss,
    ClaimIgnoresTheEnd,
    ClaimIsGoodAtTheEnd,
    ClaimIgnoresRevocation,
    ClaimMarksThoughTaken,
    ClaimOverwrites,
    DroppedClaimIsTorn,
    ClaimIgnoresTheMaker,
    ClaimIgnoresAMakerThatIsGone,
    ClaimLooksAtTheMakerFirst,
    ClaimIsNotTold,
    // Those of a feed.
    FeedNeverWakes,
    FeedWakesAllTheTime,
    FeedWaitTakesAlong,
    FeedRepeats,
    FeedLags,
    FeedBreaksOff,
    FeedStartsLate,
}

/// Clones are handles on one table.
#[derive(Clone)]
pub struct Broken {
    pub fault: Fault,
    is_feed: bool,
    handle: usize,
    pub shared: Arc<Shared>,
}

#[derive(Default)]
pub struct Shared {
    pub records: Mutex<HashMap<LookupKey, ApiKey>>,
    /// What a replica has that lags by one write.
    before: Mutex<HashMap<LookupKey, ApiKey>>,
    pub corrupt: Mutex<Vec<KeyId>>,
    frozen: Mutex<Vec<KeyId>>,
    pub checks: Mutex<Vec<PepperCheck>>,
    pub grants: Mutex<Vec<KeyGrant>>,
    sinks: Mutex<Vec<(usize, ChangeSink)>>,
    log: watch::Sender<Vec<Change>>,
    told: AtomicUsize,
    dropped: AtomicUsize,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Broken {
    pub fn new(fault: Fault, is_feed: bool) -> Self {
        Self {
            fault,
            is_feed,
            handle: 0,
            shared: Arc::default(),
        }
    }

    /// Another handle on the same table.
    pub fn another(&mut self) -> Self {
        self.handle += 1;
        self.clone()
    }

    pub fn corrupt(&self, id: KeyId) {
        lock(&self.shared.corrupt).push(id);
    }

    pub fn freeze(&self, id: KeyId) {
        lock(&self.shared.frozen).push(id);
    }

    /// Whether a change of the record isn't made, and nothing is said of it.
    pub fn ignores(&self, id: &KeyId) -> Result<bool, BackendError> {
        match lock(&self.shared.frozen).contains(id) {
            true if !self.is(Fault::FrozenIsNotThere) => {
                Err(BackendError::unavailable("a trigger returned NULL"))
            }
            is_frozen => Ok(is_frozen),
        }
    }

    pub fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The table, to be written.
    pub fn records(&self) -> MutexGuard<'_, HashMap<LookupKey, ApiKey>> {
        let records = lock(&self.shared.records);
        if self.is(Fault::ReplicaLags) {
            lock(&self.shared.before).clone_from(&records);
        }
        records
    }

    pub fn stored(&self, key: &LookupKey) -> Option<ApiKey> {
        lock(&self.shared.records).get(key).cloned()
    }

    /// What becomes of a record on its way into the table.
    pub fn kept(&self, key: &ApiKey) -> ApiKey {
        let mut key = key.clone();
        match self.fault {
            Fault::LosesUnrestricted if key.scopes.is_unrestricted() => key.scopes = Scopes::none(),
            Fault::EmptyIsUnrestricted if key.scopes == Scopes::none() => {
                key.scopes = Scopes::unrestricted();
            }
            Fault::LosesMillis => {
                let since = key
                    .created_at
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap();
                key.created_at = std::time::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            }
            Fault::EmptyNameIsNone => key.name = key.name.filter(|name| !name.is_empty()),
            Fault::TrimsNames => key.name = key.name.map(|name| name.trim().to_owned()),
            Fault::RewritesMetadata => {
                let text = |metadata: Metadata| metadata.as_str().trim().to_owned();
                let rewritten = key
                    .metadata
                    .map(|it| Metadata::from_json(text(it)).unwrap());
                key.metadata = rewritten;
            }
            _ => {}
        }
        key
    }

    pub async fn tell(&self, key: LookupKey) {
        let told = self.shared.told.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::DropsChanges => return,
            Fault::DropsSome if told % 10 == 9 => return,
            Fault::ForgetsToTellWhenDropped => yield_now().await,
            Fault::TellsLater => {
                let this = self.clone();
                spawn(async move {
                    sleep(Duration::from_millis(5)).await;
                    this.announce(key);
                });
                return;
            }
            _ => {}
        }
        self.announce(key);
    }

    pub fn announce(&self, key: LookupKey) {
        let change = Change::Key(key);
        for (handle, sink) in &*lock(&self.shared.sinks) {
            if !self.is(Fault::TellsTheWriterAlone) || *handle == self.handle {
                sink.changed(change);
            }
        }
        self.shared.log.send_modify(|log| log.push(change));
    }

    /// A connection from a pool that is given back unless the call is dropped.
    pub async fn connection(&self) -> Result<(), BackendError> {
        struct Lost<'a>(&'a AtomicUsize);
        impl Drop for Lost<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        if self.is(Fault::DroppedCallsUseUp) {
            let lost = Lost(&self.shared.dropped);
            yield_now().await;
            std::mem::forget(lost);
            if self.shared.dropped.load(Ordering::SeqCst) > 10 {
                return Err(BackendError::unavailable("the pool is empty"));
            }
        }
        Ok(())
    }
}

impl KeySource for Broken {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.connection().await?;
        match self.fault {
            Fault::FailsOnNothing if keys.is_empty() => {
                return Err(BackendError::unavailable("near \")\": syntax error"));
            }
            Fault::Panics if keys.len() > 1 => panic!("one key at a time"),
            _ => {}
        }
        let corrupt = lock(&self.shared.corrupt);
        let records = lock(&self.shared.records);
        let before = lock(&self.shared.before);
        let mut found = Vec::new();
        for key in keys {
            let lags = self.is(Fault::ReplicaLags) && self.handle == 2;
            let Some(record) = (if lags {
                before.get(key)
            } else {
                records.get(key)
            }) else {
                continue;
            };
            if corrupt.contains(&record.id) {
                match self.fault {
                    Fault::SkipsCorrupt => continue,
                    Fault::CorruptIsOutage => return Err(BackendError::unavailable("a bad hash")),
                    _ => return Err(BackendError::corrupt("a bad hash")),
                }
            }
            found.push(record.clone());
        }
        if self.is(Fault::ReadsAtMost999) {
            found.truncate(999);
        }
        Ok(found)
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        self.connection().await?;
        if self.is_feed {
            let mut log = self.shared.log.subscribe();
            log.mark_unchanged();
            let seen = log.borrow().len();
            let late = self.is(Fault::FeedStartsLate);
            return Ok(Subscription::feed(Feed {
                fault: self.fault,
                log,
                seen: (!late).then_some(seen),
                reads: 0,
            }));
        }
        let mut sinks = lock(&self.shared.sinks);
        sinks.retain(|(_, sink)| !sink.is_closed());
        if self.is(Fault::TellsOneSubscriber) {
            sinks.clear();
        }
        sinks.push((self.handle, sink));
        Ok(Subscription::direct())
    }
}
