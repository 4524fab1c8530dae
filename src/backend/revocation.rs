//! Ending all keys of a user.

use std::time::SystemTime;

use super::{ApiKeyBackend, KeyFilter, PageRequest, check_list};
use crate::{
    error::BackendError,
    key::{ApiKey, RevocationReason},
    token::{KeyId, LookupKey},
};

/// A key of a user whose keys were all revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyOfUser {
    /// Its id.
    pub id: KeyId,
    /// What its record is found under.
    pub lookup_key: LookupKey,
    /// Whether it was revoked now, and not before.
    pub is_newly_revoked: bool,
}

impl KeyOfUser {
    /// The key `id`, whose record is found under `lookup_key`.
    #[must_use]
    pub const fn new(id: KeyId, lookup_key: LookupKey, is_newly_revoked: bool) -> Self {
        Self {
            id,
            lookup_key,
            is_newly_revoked,
        }
    }
}

/// How often a key is tried again that others change at the same time.
const ATTEMPTS: usize = 16;

/// One after the other, for backends that have no better way. Where one can't be revoked, the others are
/// tried all the same.
pub(super) async fn by_list<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    user_id: &str,
    at: SystemTime,
    reason: Option<&RevocationReason>,
) -> Result<Vec<KeyOfUser>, BackendError> {
    let everything = KeyFilter::new().user(user_id).with_revoked();
    let mut page = PageRequest::new().limit(PageRequest::MAX_LIMIT);
    let mut found = Vec::new();
    let mut failed = None;
    loop {
        let keys = match backend.list_for_user(user_id, &page).await {
            Ok(keys) => keys,
            Err(error) => return Err(failed.unwrap_or(error)),
        };
        if let Err(error) = check_list(&keys, &everything, &page) {
            return Err(failed.unwrap_or(error));
        }
        let Some(last) = keys.last().map(super::Cursor::of) else {
            return failed.map_or(Ok(found), Err);
        };
        for key in keys {
            let (id, lookup_key) = (key.id, key.lookup_key());
            match revoke(backend, key, at, reason).await {
                Ok(revoked) => found.push(KeyOfUser::new(id, lookup_key, revoked)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        page = page.after(last);
    }
}

async fn revoke<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    mut key: ApiKey,
    at: SystemTime,
    reason: Option<&RevocationReason>,
) -> Result<bool, BackendError> {
    for _ in 0..ATTEMPTS {
        if key.revoked_at.is_some() {
            return Ok(false);
        }
        let expected = key.version;
        key.revoked_at = Some(at);
        key.revocation_reason = reason.cloned();
        key.version = key.next_version()?;
        if backend.update(&key, expected).await? {
            return Ok(true);
        }
        let mut newer = backend.get_by_id(&[key.id]).await?;
        newer.retain(|newer| newer.id == key.id);
        match newer.pop() {
            Some(newer) => key = newer,
            None => return Ok(false),
        }
    }
    Err(BackendError::unavailable(
        "others change the key again and again",
    ))
}
