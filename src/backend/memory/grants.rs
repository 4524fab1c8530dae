//! Grants in memory.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::SystemTime,
};

use crate::{
    backend::{GrantInsertion, GrantLimits, GrantPageRequest},
    key::{ApiKey, ClaimHash, GrantId, GrantStatus, KeyGrant},
    token::KeyId,
};

#[derive(Default)]
pub(super) struct Grants {
    records: BTreeMap<GrantId, KeyGrant>,
    by_hash: BTreeMap<ClaimHash, GrantId>,
    places: BTreeSet<Place>,
    /// Those that were neither claimed nor revoked, by when they end.
    open: BTreeSet<(SystemTime, GrantId)>,
}

/// Orders from the newest to the oldest.
type Place = Reverse<(SystemTime, GrantId)>;

impl Grants {
    /// Where there is no room, what was made with a key that `may_make` nothing any more is revoked first.
    pub(super) fn insert(
        &mut self,
        grant: &KeyGrant,
        limits: &GrantLimits,
        may_make: impl Fn(&KeyId) -> bool,
    ) -> GrantInsertion {
        if self.records.contains_key(&grant.id) || self.by_hash.contains_key(&grant.claim_hash) {
            return GrantInsertion::Taken;
        }
        if let Err(full) = self.room(grant, limits) {
            let of_user = full == GrantInsertion::UserIsFull;
            let has_ended = |it: &&KeyGrant| {
                it.made_by.as_ref().is_some_and(|it| !may_make(it))
                    && (!of_user || it.user_id == grant.user_id)
            };
            let ended = self.pending(grant.made_at).filter(has_ended);
            let ended: Vec<_> = ended.map(|it| it.id).collect();
            for id in ended {
                self.revoke(&id, grant.made_at);
            }
        }
        if let Err(full) = self.room(grant, limits) {
            return full;
        }
        self.by_hash.insert(grant.claim_hash, grant.id);
        self.places.insert(Reverse((grant.made_at, grant.id)));
        if grant.claimed_at.is_none() && grant.revoked_at.is_none() {
            self.open.insert((grant.expires_at, grant.id));
        }
        self.records.insert(grant.id, grant.clone());
        GrantInsertion::Stored
    }

    fn room(&self, grant: &KeyGrant, limits: &GrantLimits) -> Result<(), GrantInsertion> {
        let (mut of_user, mut in_all) = (0, 0);
        for pending in self.pending(grant.made_at) {
            in_all += 1;
            of_user += usize::from(pending.user_id == grant.user_id);
        }
        if of_user >= limits.max_per_user() {
            Err(GrantInsertion::UserIsFull)
        } else if in_all >= limits.max_in_all() {
            Err(GrantInsertion::Full)
        } else {
            Ok(())
        }
    }

    pub(super) fn by_hash(&self, hash: &ClaimHash) -> Option<&KeyGrant> {
        self.by_id(self.by_hash.get(hash)?)
    }

    pub(super) fn by_id(&self, id: &GrantId) -> Option<&KeyGrant> {
        self.records.get(id)
    }

    /// Marks a grant as claimed, where it is pending when `key` is made and `store` has stored that key.
    pub(super) fn claim(
        &mut self,
        id: &GrantId,
        key: &ApiKey,
        store: impl FnOnce() -> bool,
    ) -> bool {
        let now = key.created_at;
        match self.records.get_mut(id) {
            Some(grant) if grant.status(now) == GrantStatus::Pending && store() => {
                (grant.claimed_at, grant.key_id) = (Some(now), Some(key.id));
                self.open.remove(&(grant.expires_at, *id));
                true
            }
            _ => false,
        }
    }

    pub(super) fn revoke(&mut self, id: &GrantId, at: SystemTime) -> bool {
        match self.records.get_mut(id) {
            Some(grant) if grant.claimed_at.is_none() && grant.revoked_at.is_none() => {
                grant.revoked_at = Some(at);
                self.open.remove(&(grant.expires_at, *id));
                true
            }
            _ => false,
        }
    }

    pub(super) fn revoke_of_user(&mut self, user_id: &str, at: SystemTime) -> usize {
        let open = self.open.iter().filter_map(|(_, id)| self.records.get(id));
        let of_user = open.filter(|grant| grant.user_id == user_id);
        let ids: Vec<_> = of_user.map(|grant| grant.id).collect();
        ids.iter().filter(|id| self.revoke(id, at)).count()
    }

    pub(super) fn list(&self, page: &GrantPageRequest) -> Vec<KeyGrant> {
        let after = page.cursor().map_or(Bound::Unbounded, |cursor| {
            Bound::Excluded(Reverse((cursor.made_at(), *cursor.id())))
        });
        let places = self.places.range((after, Bound::Unbounded));
        let grants = places.filter_map(|Reverse((_, id))| self.records.get(id));
        let wanted = grants.filter(|grant| page.fits(grant));
        wanted.take(page.max_grants()).cloned().collect()
    }

    /// Removes at most `at_most` that had come to their end before `before`; returns how many.
    pub(super) fn purge(&mut self, before: SystemTime, at_most: usize) -> usize {
        let has_ended = |grant: &&KeyGrant| {
            let end = grant.claimed_at.or(grant.revoked_at);
            end.unwrap_or(grant.expires_at) < before
        };
        let ended = self.records.values().filter(has_ended).take(at_most);
        let ended: Vec<_> = ended.cloned().collect();
        for grant in &ended {
            self.records.remove(&grant.id);
            self.by_hash.remove(&grant.claim_hash);
            self.places.remove(&Reverse((grant.made_at, grant.id)));
            self.open.remove(&(grant.expires_at, grant.id));
        }
        ended.len()
    }

    fn pending(&self, now: SystemTime) -> impl Iterator<Item = &KeyGrant> {
        let latest_id = GrantId::from_bytes([0xff; GrantId::LEN]);
        let after = Bound::Excluded((now, latest_id));
        let open = self.open.range((after, Bound::Unbounded));
        open.filter_map(|(_, id)| self.records.get(id))
    }
}
