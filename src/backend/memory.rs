//! Keys in memory: for tests, and for a process that doesn't have to remember.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt, mem,
    ops::Bound,
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{
    ApiKeyBackend, Change, ChangeSink, Cursor, KeySource, PageRequest, PepperUsage, Subscription,
    Touch,
};
use crate::{
    error::BackendError,
    key::ApiKey,
    sync::{DashMap, Entry, Mutex, MutexGuard},
    token::{KeyId, LookupKey},
};

/// Keys in memory. Clones are one backend, which several stores can share: each of them notices at
/// once what another writes.
#[derive(Clone, Default)]
pub struct MemoryBackend(Arc<Shared>);

#[derive(Default)]
struct Shared {
    records: DashMap<LookupKey, ApiKey>,
    /// Held while a record comes or goes, so that the index has every record and no other.
    by_user: Mutex<Index>,
    /// The caches of the stores that share this.
    sinks: Mutex<Vec<ChangeSink>>,
}

/// What each user has.
type Index = BTreeMap<String, BTreeMap<Place, LookupKey>>;

/// Orders from the newest to the oldest.
type Place = Reverse<(SystemTime, KeyId)>;

impl MemoryBackend {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0
            .by_user
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn sinks(&self) -> MutexGuard<'_, Vec<ChangeSink>> {
        self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called after the change, and after the locks on the records are gone.
    fn tell(&self, key: LookupKey) {
        for sink in &*self.sinks() {
            sink.changed(Change::Key(key));
        }
    }
}

/// What is written, without a word to anybody.
impl MemoryBackend {
    fn add(&self, index: &mut Index, key: &ApiKey) -> bool {
        let Entry::Vacant(vacant) = self.0.records.entry(key.lookup_key()) else {
            return false;
        };
        vacant.insert(key.clone());
        index
            .entry(key.user_id.clone())
            .or_default()
            .insert(place(&Cursor::of(key)), key.lookup_key());
        true
    }

    fn replace(&self, key: &ApiKey, expected: u64) -> bool {
        match self.0.records.get_mut(&key.lookup_key()) {
            Some(mut record) if record.version == expected => {
                // The index, too, has the owner and the time of creation, which never change.
                let (revoked_at, revocation_reason) = match record.revoked_at {
                    Some(at) => (Some(at), record.revocation_reason.take()),
                    None => (key.revoked_at, key.revocation_reason.clone()),
                };
                *record = ApiKey {
                    user_id: mem::take(&mut record.user_id),
                    created_at: record.created_at,
                    last_used_at: record.last_used_at.max(key.last_used_at),
                    revoked_at,
                    revocation_reason,
                    predecessor: record.predecessor,
                    made_by: record.made_by,
                    ..key.clone()
                };
                true
            }
            _ => false,
        }
    }

    fn remove(&self, index: &mut Index, key: &LookupKey) -> bool {
        let Some((_, removed)) = self.0.records.remove(key) else {
            return false;
        };
        if let Some(places) = index.get_mut(&removed.user_id) {
            places.remove(&place(&Cursor::of(&removed)));
            if places.is_empty() {
                index.remove(&removed.user_id);
            }
        }
        true
    }
}

fn place(at: &Cursor) -> Place {
    Reverse((at.created_at(), *at.id()))
}

impl KeySource for MemoryBackend {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let record = |key| self.0.records.get(key).map(|record| record.clone());
        Ok(keys.iter().filter_map(record).collect())
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        let mut sinks = self.sinks();
        sinks.retain(|sink| !sink.is_closed());
        sinks.push(sink);
        Ok(Subscription::direct())
    }
}

impl ApiKeyBackend for MemoryBackend {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        if !self.add(&mut self.index(), key) {
            return Ok(false);
        }
        self.tell(key.lookup_key());
        Ok(true)
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        if !self.replace(key, expected) {
            return Ok(false);
        }
        self.tell(key.lookup_key());
        Ok(true)
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        if !self.remove(&mut self.index(), &id.lookup_key()) {
            return Ok(false);
        }
        self.tell(id.lookup_key());
        Ok(true)
    }

    /// Under the lock that everything comes and goes under: what is added and has to go again is on no list.
    async fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: u64,
    ) -> Result<bool, BackendError> {
        {
            let mut index = self.index();
            if !self.add(&mut index, successor) {
                return Ok(false);
            }
            if !self.replace(old, expected) {
                self.remove(&mut index, &successor.lookup_key());
                return Ok(false);
            }
        }
        self.tell(successor.lookup_key());
        self.tell(old.lookup_key());
        Ok(true)
    }

    async fn pepper_usage(&self, now: SystemTime) -> Result<Vec<PepperUsage>, BackendError> {
        let mut usage = HashMap::new();
        for record in &self.0.records {
            let pepper = Some(*record.secret_hash.pepper());
            let counted = usage
                .entry(pepper)
                .or_insert_with(|| PepperUsage::new(pepper, 0, 0));
            counted.keys += 1;
            counted.working += u64::from(record.may_work(now));
        }
        Ok(usage.into_values().collect())
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let index = self.index();
        let Some(places) = index.get(user_id) else {
            return Ok(Vec::new());
        };
        let after = page
            .cursor()
            .map_or(Bound::Unbounded, |cursor| Bound::Excluded(place(cursor)));
        let keys = places
            .range((after, Bound::Unbounded))
            .take(page.max_keys());
        let record = |(_, key)| self.0.records.get(key).map(|record| record.clone());
        Ok(keys.filter_map(record).collect())
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        for touch in touches {
            if let Some(mut record) = self.0.records.get_mut(&touch.id.lookup_key()) {
                record.last_used_at = record.last_used_at.max(Some(touch.used_at));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("keys", &self.0.records.len())
            .finish_non_exhaustive()
    }
}
