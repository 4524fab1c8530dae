//! Records as they come, change and go, without a word to anybody.

use std::{mem, time::SystemTime};

use super::{Index, MemoryBackend, place};
use crate::{
    backend::Cursor,
    key::{ApiKey, RevocationReason},
    sync::Entry,
    token::{KeyId, LookupKey},
};

impl MemoryBackend {
    /// Where its id is free, and what it is looked up by.
    pub(super) fn add(&self, index: &mut Index, key: &ApiKey) -> bool {
        let is_taken = self.0.records.contains_key(&self.place_of(&key.id));
        let Entry::Vacant(vacant) = self.0.records.entry(key.lookup_key()) else {
            return false;
        };
        if is_taken {
            return false;
        }
        if key.lookup_key() != key.id.lookup_key() {
            self.0.opaque.insert(key.id, key.lookup_key());
        }
        vacant.insert(key.clone());
        index
            .entry(key.user_id.clone())
            .or_default()
            .insert(place(&Cursor::of(key)), key.lookup_key());
        true
    }

    pub(super) fn replace(&self, key: &ApiKey, expected: u64) -> bool {
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

    /// Whether it is there, is the one that is meant, and wasn't revoked before.
    pub(super) fn end(
        &self,
        place: &LookupKey,
        is_it: impl Fn(&ApiKey) -> bool,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> bool {
        let Some(mut record) = self.0.records.get_mut(place) else {
            return false;
        };
        let ends = is_it(&record) && record.revoke(at, reason);
        if ends {
            record.version = record.version.saturating_add(1);
        }
        ends
    }

    /// Gives what it was looked up by.
    pub(super) fn remove(&self, index: &mut Index, id: &KeyId) -> Option<LookupKey> {
        let looked_up_by = self.place_of(id);
        let is_it = |_: &LookupKey, record: &ApiKey| record.id == *id;
        let (_, removed) = self.0.records.remove_if(&looked_up_by, is_it)?;
        self.0.opaque.remove(id);
        if let Some(places) = index.get_mut(&removed.user_id) {
            places.remove(&place(&Cursor::of(&removed)));
            if places.is_empty() {
                index.remove(&removed.user_id);
            }
        }
        Some(looked_up_by)
    }
}
