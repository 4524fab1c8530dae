//! Keys in memory: for tests, and for a process that doesn't have to remember.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt, mem,
    ops::Bound,
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{
    ApiKeyBackend, Change, ChangeSink, Cursor, KeyFilter, KeyOfUser, KeySource, PageRequest,
    Subscription, Touch,
};
use crate::{
    error::BackendError,
    key::{ApiKey, RevocationReason},
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
    by_user: Mutex<BTreeMap<String, BTreeMap<Place, LookupKey>>>,
    /// The caches of the stores that share this.
    sinks: Mutex<Vec<ChangeSink>>,
}

/// Orders from the newest to the oldest.
type Place = Reverse<(SystemTime, KeyId)>;

impl MemoryBackend {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<Place, LookupKey>>> {
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

fn forget(index: &mut BTreeMap<String, BTreeMap<Place, LookupKey>>, removed: &ApiKey) {
    if let Some(places) = index.get_mut(&removed.user_id) {
        places.remove(&place(&Cursor::of(removed)));
        if places.is_empty() {
            index.remove(&removed.user_id);
        }
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
        {
            let mut index = self.index();
            let Entry::Vacant(vacant) = self.0.records.entry(key.lookup_key()) else {
                return Ok(false);
            };
            vacant.insert(key.clone());
            index
                .entry(key.user_id.clone())
                .or_default()
                .insert(place(&Cursor::of(key)), key.lookup_key());
        }
        self.tell(key.lookup_key());
        Ok(true)
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
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
            }
            _ => return Ok(false),
        }
        self.tell(key.lookup_key());
        Ok(true)
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        {
            let mut index = self.index();
            let Some((_, removed)) = self.0.records.remove(&id.lookup_key()) else {
                return Ok(false);
            };
            forget(&mut index, &removed);
        }
        self.tell(id.lookup_key());
        Ok(true)
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

    async fn revoke_all_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> Result<Vec<KeyOfUser>, BackendError> {
        let mut keys = Vec::new();
        {
            let index = self.index();
            for key in index.get(user_id).into_iter().flat_map(BTreeMap::values) {
                let Some(mut record) = self.0.records.get_mut(key) else {
                    continue;
                };
                let is_new = record.revoked_at.is_none();
                if is_new {
                    record.revoked_at = Some(at);
                    record.revocation_reason = reason.cloned();
                    record.version = record.version.saturating_add(1);
                }
                keys.push(KeyOfUser::new(record.id, *key, is_new));
            }
        }
        for key in keys.iter().filter(|key| key.is_newly_revoked) {
            self.tell(key.lookup_key);
        }
        Ok(keys)
    }

    async fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let after = page.cursor().map(place);
        let follows = |key: &ApiKey| after.is_none_or(|after| place(&Cursor::of(key)) > after);
        // Held, so that none comes or goes meanwhile.
        let _index = self.index();
        let records = self.0.records.iter();
        let mut keys: Vec<_> = records
            .filter(|record| follows(record) && filter.fits(record))
            .map(|record| record.clone())
            .collect();
        keys.sort_unstable_by_key(|key| place(&Cursor::of(key)));
        keys.truncate(page.max_keys());
        Ok(keys)
    }

    async fn purge(&self, before: SystemTime, at_most: usize) -> Result<usize, BackendError> {
        let is_over = |time: Option<SystemTime>| time.is_some_and(|time| time < before);
        let may_go = |key: &ApiKey| is_over(key.revoked_at) || is_over(key.ends_at());
        let mut gone = Vec::new();
        {
            let mut index = self.index();
            let records = self.0.records.iter().filter(|record| may_go(record));
            let found: Vec<_> = records.map(|record| *record.key()).take(at_most).collect();
            for key in found {
                // It may have been renewed since.
                let removed = self.0.records.remove_if(&key, |_, record| may_go(record));
                if let Some((_, removed)) = removed {
                    forget(&mut index, &removed);
                    gone.push(key);
                }
            }
        }
        for key in &gone {
            self.tell(*key);
        }
        Ok(gone.len())
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
