//! Keys in memory: for tests, and for a process that doesn't have to remember.

mod grants;
mod records;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use self::grants::Grants;
use super::{
    ApiKeyBackend, Change, ChangeSink, Cursor, GrantInsertion, GrantLimits, GrantPageRequest,
    KeyFilter, KeySource, PageRequest, PepperUsage, RevokedKey, Subscription, Touch,
};
use crate::{
    error::BackendError,
    key::{ApiKey, ClaimHash, GrantId, KeyGrant, RevocationReason},
    sync::{DashMap, Mutex, MutexGuard},
    token::{KeyId, LookupKey, PepperCheck},
};

/// Keys in memory. Clones are one backend, which several stores can share: each of them notices at
/// once what another writes.
#[derive(Clone, Default)]
pub struct MemoryBackend(Arc<Shared>);

#[derive(Default)]
struct Shared {
    records: DashMap<LookupKey, ApiKey>,
    /// What is looked up by something else than its id. Its lock is taken after all others.
    opaque: DashMap<KeyId, LookupKey>,
    /// Held while a record comes, changes or goes, so that the index has every record and no other, and what
    /// depends on a record that was looked at happens before it changes. Being used is no change.
    by_user: Mutex<Index>,
    /// Locked before the index.
    grants: Mutex<Grants>,
    pepper_checks: Mutex<Vec<PepperCheck>>,
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

    fn checks(&self) -> MutexGuard<'_, Vec<PepperCheck>> {
        let checks = self.0.pepper_checks.lock();
        checks.unwrap_or_else(PoisonError::into_inner)
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.0.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the key has this version and isn't revoked. The largest version doesn't change when
    /// it is.
    fn may_create(&self, id: &KeyId, version: u64) -> bool {
        self.is_there(id, |record| {
            record.version == version && record.revoked_at.is_none()
        })
    }

    fn is_there(&self, id: &KeyId, and: impl FnOnce(&ApiKey) -> bool) -> bool {
        let record = self.0.records.get(&self.place_of(id));
        record.is_some_and(|record| record.id == *id && and(&record))
    }

    fn sinks(&self) -> MutexGuard<'_, Vec<ChangeSink>> {
        self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the key `id` is looked up by.
    fn place_of(&self, id: &KeyId) -> LookupKey {
        let place = self.0.opaque.get(id).map(|place| *place);
        place.unwrap_or_else(|| id.lookup_key())
    }

    /// Called after the change, and after the locks on the records are gone.
    fn tell(&self, key: LookupKey) {
        for sink in &*self.sinks() {
            sink.changed(Change::Key(key));
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
        let is_stored = self.add(&mut self.index(), key);
        if is_stored {
            self.tell(key.lookup_key());
        }
        Ok(is_stored)
    }

    async fn insert_made_by(
        &self,
        key: &ApiKey,
        maker: (KeyId, u64),
    ) -> Result<bool, BackendError> {
        let is_stored = {
            let mut index = self.index();
            self.may_create(&maker.0, maker.1) && self.add(&mut index, key)
        };
        if is_stored {
            self.tell(key.lookup_key());
        }
        Ok(is_stored)
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        let index = self.index();
        if !self.replace(key, expected) {
            return Ok(false);
        }
        drop(index);
        self.tell(key.lookup_key());
        Ok(true)
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        let Some(looked_up_by) = self.remove(&mut self.index(), id) else {
            return Ok(false);
        };
        self.tell(looked_up_by);
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
            if !self.may_create(&old.id, expected) || !self.add(&mut index, successor) {
                return Ok(false);
            }
            if !self.replace(old, expected) {
                self.remove(&mut index, &successor.id);
                return Ok(false);
            }
        }
        self.tell(successor.lookup_key());
        self.tell(old.lookup_key());
        Ok(true)
    }

    async fn pepper_usage(&self, now: SystemTime) -> Result<Vec<PepperUsage>, BackendError> {
        let mut usage = HashMap::new();
        let records = self.0.records.iter();
        for record in records {
            let pepper = record.secret_hash.pepper().copied();
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

    async fn get_by_id(&self, ids: &[KeyId]) -> Result<Vec<ApiKey>, BackendError> {
        let record = |id: &KeyId| {
            let record = self.0.records.get(&self.place_of(id))?;
            (record.id == *id).then(|| record.clone())
        };
        Ok(ids.iter().filter_map(record).collect())
    }

    async fn revoke(
        &self,
        id: &KeyId,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> Result<bool, BackendError> {
        let place = self.place_of(id);
        let is_revoked = {
            let _index = self.index();
            self.end(&place, |record| record.id == *id, at, reason)
        };
        if is_revoked {
            self.tell(place);
        }
        Ok(is_revoked)
    }

    async fn revoke_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
        at_most: usize,
    ) -> Result<Vec<RevokedKey>, BackendError> {
        let revoked: Vec<_> = {
            let index = self.index();
            let oldest_first = index.get(user_id).into_iter().flatten().rev();
            let revoked = oldest_first.filter(|(_, key)| self.end(key, |_| true, at, reason));
            let named = revoked.map(|(Reverse((_, id)), key)| RevokedKey::new(*id, *key));
            named.take(at_most).collect()
        };
        for key in &revoked {
            self.tell(key.lookup_key);
        }
        Ok(revoked)
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
        let may_go = |key: &ApiKey| {
            let is_digest = key.secret_hash.pepper().is_none();
            !is_digest && (is_over(key.revoked_at) || is_over(key.ends_at()))
        };
        let mut gone = Vec::new();
        {
            // Nothing is renewed while it is held.
            let mut index = self.index();
            let records = self.0.records.iter().filter(|record| may_go(record));
            let found: Vec<_> = records.map(|record| record.id).take(at_most).collect();
            gone.extend(found.iter().filter_map(|id| self.remove(&mut index, id)));
        }
        for key in &gone {
            self.tell(*key);
        }
        if gone.is_empty() {
            return Ok(self.grants().purge(before, at_most));
        }
        Ok(gone.len())
    }

    async fn pepper_checks(&self) -> Result<Vec<PepperCheck>, BackendError> {
        Ok(self.checks().clone())
    }

    async fn insert_pepper_check(&self, check: &PepperCheck) -> Result<bool, BackendError> {
        let mut checks = self.checks();
        let is_new = checks.iter().all(|other| other.pepper() != check.pepper());
        if is_new {
            checks.push(*check);
        }
        Ok(is_new)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        for touch in touches {
            if let Some(mut record) = self.0.records.get_mut(&self.place_of(&touch.id))
                && record.id == touch.id
            {
                record.last_used_at = record.last_used_at.max(Some(touch.used_at));
            }
        }
        Ok(())
    }

    async fn insert_grant(
        &self,
        grant: &KeyGrant,
        limits: &GrantLimits,
    ) -> Result<GrantInsertion, BackendError> {
        Ok(self.grants().insert(grant, limits, |maker| {
            self.is_there(maker, |record| record.revoked_at.is_none())
        }))
    }

    async fn get_grant(&self, hash: &ClaimHash) -> Result<Option<KeyGrant>, BackendError> {
        Ok(self.grants().by_hash(hash).cloned())
    }

    async fn get_grant_by_id(&self, id: &GrantId) -> Result<Option<KeyGrant>, BackendError> {
        Ok(self.grants().by_id(id).cloned())
    }

    async fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Result<bool, BackendError> {
        let is_claimed = self.grants().claim(grant, key, || {
            let mut index = self.index();
            maker.is_none_or(|(id, version)| self.may_create(&id, version))
                && self.add(&mut index, key)
        });
        if is_claimed {
            self.tell(key.lookup_key());
        }
        Ok(is_claimed)
    }

    async fn revoke_grant(&self, grant: &GrantId, at: SystemTime) -> Result<bool, BackendError> {
        Ok(self.grants().revoke(grant, at))
    }

    async fn revoke_grants_of_user(
        &self,
        user_id: &str,
        at: SystemTime,
    ) -> Result<usize, BackendError> {
        Ok(self.grants().revoke_of_user(user_id, at))
    }

    async fn list_grants(&self, page: &GrantPageRequest) -> Result<Vec<KeyGrant>, BackendError> {
        Ok(self.grants().list(page))
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("keys", &self.0.records.len())
            .finish_non_exhaustive()
    }
}
