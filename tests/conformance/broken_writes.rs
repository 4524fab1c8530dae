//! How a broken backend writes, lists and tells.

use std::{
    cmp::Reverse,
    collections::HashMap,
    mem,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    task::{spawn, yield_now},
    time::sleep,
};
use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, Change, ChangeFeed, ClaimHash, Cursor, GrantId,
    GrantInsertion, GrantLimits, GrantPageRequest, KeyFilter, KeyGrant, KeyId, PageRequest,
    PepperCheck, PepperUsage, RevocationReason, RevokedKey, SecretHash, Touch,
};

use super::broken::{Broken, Fault};

impl ApiKeyBackend for Broken {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        let place = key.lookup_key();
        let has_digests = [Fault::DigestsHaveNoId, Fault::PurgesDigests].contains(&self.fault);
        if place != key.id.lookup_key() && !has_digests {
            return Err(BackendError::unsupported("keep keys by a digest"));
        }
        let mut is_new = self.stored(&place).is_none();
        if self.is(Fault::InsertChecksFirst) {
            yield_now().await;
        } else {
            let mut records = self.records();
            is_new = !records.contains_key(&place);
            if is_new || self.is(Fault::InsertOverwrites) {
                records.insert(place, self.kept(key));
            }
        }
        if is_new && self.is(Fault::InsertChecksFirst) {
            self.records().insert(place, self.kept(key));
        }
        if is_new {
            self.tell(place).await;
        }
        Ok(is_new || self.is(Fault::InsertDoesNotSay))
    }

    async fn insert_made_by(
        &self,
        key: &ApiKey,
        maker: (KeyId, u64),
    ) -> Result<bool, BackendError> {
        let is_as_it_was = || {
            let found = self.stored(&maker.0.lookup_key());
            found.is_some_and(|it| it.version == maker.1 && it.revoked_at.is_none())
        };
        if !is_as_it_was() && !self.is(Fault::InsertIgnoresTheMaker) {
            return Ok(false);
        }
        if self.is(Fault::InsertLooksAtTheMakerFirst) {
            sleep(Duration::from_millis(1)).await;
        }
        if !self.insert(key).await? {
            return Ok(false);
        }
        let is_good = is_as_it_was()
            || self.is(Fault::InsertIgnoresTheMaker)
            || self.is(Fault::InsertLooksAtTheMakerFirst);
        if !is_good {
            self.delete(&key.id).await?;
        }
        Ok(is_good)
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        if self.ignores(&key.id)? {
            return Ok(false);
        }
        let place = key.lookup_key();
        if self.is(Fault::UpdateChecksFirst) {
            if self
                .stored(&place)
                .is_none_or(|stored| stored.version != expected)
            {
                return Ok(false);
            }
            yield_now().await;
        }
        if self.is(Fault::TellsFirst) {
            self.announce(place);
            sleep(Duration::from_millis(1)).await;
        }
        let torn = {
            let mut records = self.records();
            if self.is(Fault::UpdateInserts) {
                records.entry(place).or_insert_with(|| key.clone());
            }
            let ignores =
                [Fault::UpdateIgnoresVersion, Fault::UpdateChecksFirst].contains(&self.fault);
            let Some(record) = records.get_mut(&place) else {
                return Ok(false);
            };
            if record.version != expected && !ignores {
                return Ok(false);
            }
            let mut new = self.kept(key);
            if !self.is(Fault::UpdateForgetsUse) {
                new.last_used_at = record.last_used_at.max(key.last_used_at);
            }
            if !self.is(Fault::UpdateTakesRevocationBack) {
                new.revoked_at = record.revoked_at.or(key.revoked_at);
            }
            if !self.is(Fault::UpdateTakesOwner) {
                new.user_id.clone_from(&record.user_id);
                new.created_at = record.created_at;
            }
            if self.is(Fault::UpdateLeavesName) {
                new.name.clone_from(&record.name);
            }
            let old = mem::replace(record, new);
            if [Fault::UpdateIsTorn, Fault::DroppedUpdateIsTorn].contains(&self.fault) {
                Some(mem::replace(&mut record.scopes, old.scopes))
            } else {
                None
            }
        };
        if let Some(scopes) = torn {
            let this = self.clone();
            let rest = async move {
                // It isn't done at once, however late the timer is looked at.
                yield_now().await;
                sleep(Duration::from_millis(1)).await;
                if let Some(record) = this.records().get_mut(&place) {
                    record.scopes = scopes;
                }
            };
            if self.is(Fault::UpdateIsTorn) {
                spawn(rest).await.unwrap();
            } else {
                rest.await;
            }
        }
        if !self.is(Fault::TellsFirst) {
            self.tell(place).await;
        }
        Ok(true)
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        if self.ignores(id)? {
            return Ok(false);
        }
        let place = id.lookup_key();
        if self.is(Fault::DeleteOnlyMarks) {
            let mut records = self.records();
            return Ok(records.get_mut(&place).is_some_and(|record| {
                record.revoked_at = Some(record.created_at);
                true
            }));
        }
        let was_there = self.records().remove(&place).is_some();
        if was_there && !self.is(Fault::DropsDeletions) {
            self.tell(place).await;
        }
        Ok(was_there || self.is(Fault::DeleteAlwaysTrue))
    }

    async fn revoke(
        &self,
        id: &KeyId,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> Result<bool, BackendError> {
        if self.ignores(id)? {
            return Ok(false);
        }
        let place = id.lookup_key();
        {
            let mut records = self.records();
            let Some(key) = records.get_mut(&place) else {
                return Ok(false);
            };
            if key.revoked_at.is_some() && !self.is(Fault::RevokesAgain) {
                return Ok(false);
            }
            key.revoked_at = Some(at);
            key.revocation_reason = reason
                .cloned()
                .filter(|_| !self.is(Fault::RevokesForgetsReason));
            key.version += 1;
        }
        if !self.is(Fault::RevokesSilently) {
            self.tell(place).await;
        }
        Ok(true)
    }

    async fn revoke_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
        at_most: usize,
    ) -> Result<Vec<RevokedKey>, BackendError> {
        let mut named = Vec::new();
        for key in self.records().values_mut() {
            if !(key.user_id == user_id
                || self.is(Fault::RevokesAllOfOthers) && key.user_id.eq_ignore_ascii_case(user_id))
            {
                continue;
            }
            let is_full = named.len() == at_most && !self.is(Fault::RevokesAllAtOnce);
            let is_new = key.revoked_at.is_none();
            if is_full || !is_new && !self.is(Fault::RevokesAllAgain) {
                continue;
            }
            key.revoked_at = Some(at);
            key.revocation_reason = reason
                .cloned()
                .filter(|_| !self.is(Fault::RevokesAllForgetsReason));
            key.version += 1;
            named.push(RevokedKey::new(key.id, key.lookup_key()));
        }
        for key in &named {
            if !self.is(Fault::RevokesAllSilently) {
                self.tell(key.lookup_key).await;
            }
        }
        Ok(named)
    }

    async fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let mut keys: Vec<_> = self.records().values().cloned().collect();
        keys.retain(|key| {
            // As the fault sees it.
            let mut seen = key.clone();
            let mut filter = filter.clone();
            match self.fault {
                Fault::FilterTakesRevoked => filter = filter.with_revoked(),
                Fault::FilterIgnoresOverlap => seen.retires_at = None,
                Fault::FilterTakesEndless if key.ends_at().is_none() => {
                    seen.expires_at = filter
                        .wanted_ends_before()
                        .map(|end| end - Duration::from_millis(1));
                }
                Fault::FilterCountsEndItself => {
                    if let Some(end) = filter.wanted_ends_before() {
                        filter = filter.ends_before(end + Duration::from_millis(1));
                    }
                }
                Fault::FilterForgetsCreation => seen.created_at = UNIX_EPOCH,
                Fault::FilterIgnoresTheMaker => seen.made_by = filter.wanted_made_by().copied(),
                Fault::FilterIgnoresThePepper => {
                    if let Some(pepper) = filter.wanted_pepper() {
                        let hash = seen.secret_hash.to_hex();
                        seen.secret_hash = SecretHash::from_hex(*pepper, &hash).unwrap();
                    }
                }
                Fault::FilterIgnoresUser => {
                    if let Some(user) = filter.wanted_user()
                        && user.eq_ignore_ascii_case(&seen.user_id)
                    {
                        user.clone_into(&mut seen.user_id);
                    }
                }
                _ => {}
            }
            let place = Cursor::of(key);
            filter.fits(&seen)
                && page.cursor().is_none_or(|after| {
                    (place.created_at(), place.id()) < (after.created_at(), after.id())
                })
        });
        keys.sort_by_key(|key| Reverse((key.created_at, key.id)));
        keys.truncate(page.max_keys());
        Ok(keys)
    }

    async fn purge(&self, before: SystemTime, at_most: usize) -> Result<usize, BackendError> {
        let is_over = |time: Option<SystemTime>| {
            time.is_some_and(|time| {
                time < before || time == before && self.is(Fault::PurgesAtTheDate)
            })
        };
        let may_go = |key: &ApiKey| {
            let retires_at = key.retires_at.filter(|_| !self.is(Fault::PurgesNoRetired));
            is_over(key.revoked_at)
                || is_over(key.expires_at)
                || is_over(retires_at)
                || is_over(key.disabled_at) && self.is(Fault::PurgesSuspended)
        };
        let all = self.is(Fault::PurgesTooMany);
        let found: Vec<_> = {
            let records = self.records();
            let over = records.iter().filter(|(_, key)| may_go(key));
            let places = over.map(|(place, _)| *place);
            places
                .take(if all { usize::MAX } else { at_most })
                .collect()
        };
        let mut gone = Vec::new();
        let checks_first = self.is(Fault::PurgeChecksFirst);
        if checks_first {
            yield_now().await;
        }
        {
            let mut records = self.records();
            for place in found {
                if checks_first || records.get(&place).is_some_and(&may_go) {
                    gone.extend(records.remove(&place).map(|_| place));
                }
            }
        }
        for place in &gone {
            if !self.is(Fault::PurgesSilently) {
                self.tell(*place).await;
            }
        }
        Ok(gone.len())
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let is_of_user = |key: &&ApiKey| match self.fault {
            Fault::ListLeaks => {
                key.user_id.split('-').next_back() == user_id.split('-').next_back()
            }
            Fault::ListIgnoresCase => key.user_id.eq_ignore_ascii_case(user_id),
            _ => key.user_id == user_id,
        };
        let mut keys: Vec<ApiKey> = {
            let records = super::broken::lock(&self.shared.records);
            records.values().filter(is_of_user).cloned().collect()
        };
        let corrupt = super::broken::lock(&self.shared.corrupt).clone();
        if keys
            .iter()
            .any(|key| key.user_id == user_id && corrupt.contains(&key.id))
            && !self.is(Fault::SkipsCorrupt)
        {
            return Err(BackendError::corrupt("a bad hash"));
        }
        keys.retain(|key| !corrupt.contains(&key.id));
        keys.sort_by_key(|key| {
            let id = *key.id.as_bytes();
            if self.is(Fault::ListComparesSigned) {
                Reverse((key.created_at, id.map(|byte| byte ^ 0x80)))
            } else {
                Reverse((key.created_at, id))
            }
        });
        if self.is(Fault::ListIsOldestFirst) {
            keys.reverse();
        }
        if let Some(cursor) = page.cursor() {
            let place = |key: &ApiKey| (key.created_at, key.id);
            let end = (cursor.created_at(), *cursor.id());
            match self.fault {
                Fault::ListIgnoresCursor => {}
                // The key is gone, and with it the place.
                Fault::ListLooksForCursor => {
                    let at = keys.iter().position(|key| Cursor::of(key) == *cursor);
                    keys.drain(..at.map_or(keys.len(), |at| at + 1));
                }
                Fault::ListComparesTime => keys.retain(|key| key.created_at < end.0),
                Fault::ListRepeats => keys.retain(|key| place(key) <= end),
                _ => keys.retain(|key| place(key) < end),
            }
        }
        let limit = match self.fault {
            Fault::ListIgnoresLimit => usize::MAX,
            Fault::ListEndsAt1000 => page.max_keys().min(1_000),
            _ => page.max_keys(),
        };
        keys.truncate(limit);
        Ok(keys)
    }

    async fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: u64,
    ) -> Result<bool, BackendError> {
        if self.ignores(&old.id)? {
            return Ok(false);
        }
        if self.is(Fault::RotateIsSilent) {
            let mut records = self.records();
            let place = old.lookup_key();
            let is_expected = records.get(&place).is_some_and(|it| it.version == expected);
            let done = is_expected && !records.contains_key(&successor.lookup_key());
            if done {
                records.insert(place, old.clone());
                records.insert(successor.lookup_key(), successor.clone());
            }
            return Ok(done);
        }
        if !self.is(Fault::RotateForgetsTheSuccessor) && !self.insert(successor).await? {
            return Ok(false);
        }
        let is_replaced = self.update(old, expected).await?;
        if !is_replaced && !self.is(Fault::RotateLeavesOrphans) {
            self.delete(&successor.id).await?;
        }
        Ok(is_replaced)
    }

    async fn pepper_usage(&self, now: SystemTime) -> Result<Vec<PepperUsage>, BackendError> {
        let mut usage: HashMap<_, PepperUsage> = HashMap::new();
        for key in super::broken::lock(&self.shared.records).values() {
            let pepper = key.secret_hash.pepper().copied();
            let counted = usage.entry(pepper);
            let counted = counted.or_insert(PepperUsage::new(pepper, 0, 0));
            counted.keys += 1;
            let end = match self.fault {
                Fault::PepperUsageCountsEnded => None,
                Fault::PepperUsageForgetsOverlaps => key.expires_at,
                _ => key.ends_at(),
            };
            let works = key.revoked_at.is_none() && end.is_none_or(|end| now < end);
            counted.working += u64::from(works);
        }
        Ok(usage.into_values().collect())
    }

    async fn pepper_checks(&self) -> Result<Vec<PepperCheck>, BackendError> {
        Ok(super::broken::lock(&self.shared.checks).clone())
    }

    async fn insert_pepper_check(&self, check: &PepperCheck) -> Result<bool, BackendError> {
        let mut checks = super::broken::lock(&self.shared.checks);
        let before = checks.len();
        if self.is(Fault::PepperChecksAreReplaced) {
            checks.retain(|other| other.pepper() != check.pepper());
        }
        let is_new = checks.iter().all(|other| other.pepper() != check.pepper());
        if is_new {
            checks.push(*check);
        }
        Ok(checks.len() > before)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        self.connection().await?;
        for (number, touch) in touches.iter().enumerate() {
            let place = touch.id.lookup_key();
            if self.ignores(&touch.id)? {
                continue;
            }
            {
                let mut records = self.records();
                let Some(record) = records.get_mut(&place) else {
                    if self.is(Fault::TouchFailsOnUnknown) {
                        return Err(BackendError::unavailable("no such row"));
                    }
                    continue;
                };
                let used_at = Some(touch.used_at);
                match self.fault {
                    Fault::TouchGoesBack => record.last_used_at = used_at,
                    Fault::TouchTakesTheFirst
                        if touches[..number].iter().any(|other| other.id == touch.id) => {}
                    Fault::TouchesAtMost500 if number >= 500 => {}
                    _ => record.last_used_at = record.last_used_at.max(used_at),
                }
                if self.is(Fault::TouchCountsVersion) {
                    record.version += 1;
                }
            }
            if self.is(Fault::TouchAnnounces) {
                self.tell(place).await;
            }
        }
        Ok(())
    }

    async fn insert_grant(
        &self,
        grant: &KeyGrant,
        limits: &GrantLimits,
    ) -> Result<GrantInsertion, BackendError> {
        Ok(self.put_grant(grant, limits).await)
    }

    async fn get_grant(&self, hash: &ClaimHash) -> Result<Option<KeyGrant>, BackendError> {
        Ok(self.find_grant(|grant| grant.claim_hash == *hash))
    }

    async fn get_grant_by_id(&self, id: &GrantId) -> Result<Option<KeyGrant>, BackendError> {
        Ok(self.find_grant(|grant| grant.id == *id))
    }

    async fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Result<bool, BackendError> {
        Ok(self.take_grant(grant, key, maker).await)
    }

    async fn revoke_grant(&self, grant: &GrantId, at: SystemTime) -> Result<bool, BackendError> {
        Ok(self.take_back(|it| it.id == *grant, at) > 0)
    }

    async fn revoke_grants_of_user(
        &self,
        user_id: &str,
        at: SystemTime,
    ) -> Result<usize, BackendError> {
        let of_user = |grant: &KeyGrant| match self.fault {
            Fault::GrantsOfOthersAreRevoked => grant.user_id.eq_ignore_ascii_case(user_id),
            _ => grant.user_id == user_id,
        };
        Ok(self.take_back(of_user, at))
    }

    async fn list_grants(&self, page: &GrantPageRequest) -> Result<Vec<KeyGrant>, BackendError> {
        Ok(self.page_of_grants(page))
    }
}

/// One subscription to the log.
pub struct Feed {
    pub fault: Fault,
    pub log: watch::Receiver<Vec<Change>>,
    /// How much was read. None where that is found out by the first read.
    pub seen: Option<usize>,
    pub reads: usize,
}

impl ChangeFeed for Feed {
    async fn read(&mut self) -> Result<Vec<Change>, BackendError> {
        self.reads += 1;
        if self.fault == Fault::FeedBreaksOff && self.reads > 2 {
            return Err(BackendError::unavailable("the connection is gone"));
        }
        let log = self.log.borrow_and_update();
        let seen = self.seen.unwrap_or(log.len());
        let end = match self.fault {
            // The last change is seen when another one has come.
            Fault::FeedLags => log.len().saturating_sub(1).max(seen),
            _ => log.len(),
        };
        let from = if self.fault == Fault::FeedRepeats {
            0
        } else {
            seen
        };
        let changes = log[from..end].to_vec();
        self.seen = Some(end);
        Ok(changes)
    }

    async fn wait(&mut self) {
        match self.fault {
            Fault::FeedNeverWakes => std::future::pending().await,
            Fault::FeedWakesAllTheTime => {}
            Fault::FeedWaitTakesAlong => {
                // The news are taken first, and lost when this is dropped meanwhile.
                self.log.changed().await.unwrap();
                yield_now().await;
            }
            _ => {
                let seen = self.seen.unwrap_or_default();
                self.log.wait_for(|log| log.len() > seen).await.unwrap();
            }
        }
    }
}
