//! Ending keys, for backends that have no better way.

use std::time::SystemTime;

use super::{ApiKeyBackend, KeyFilter, PageRequest, check_list};
use crate::{
    error::BackendError,
    key::{ApiKey, RevocationReason},
    token::{KeyId, LookupKey},
};

/// A key that was revoked with others of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevokedKey {
    /// Its id.
    pub id: KeyId,
    /// What its record is found under.
    pub lookup_key: LookupKey,
}

impl RevokedKey {
    /// The key `id`, whose record is found under `lookup_key`.
    #[must_use]
    pub const fn new(id: KeyId, lookup_key: LookupKey) -> Self {
        Self { id, lookup_key }
    }
}

/// How often a key is tried again that others change at the same time.
const ATTEMPTS: usize = 16;

/// By comparing versions: whoever changes the key all the time may be in the way.
pub(super) async fn by_update<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    id: &KeyId,
    at: SystemTime,
    reason: Option<&RevocationReason>,
) -> Result<bool, BackendError> {
    match read(backend, id).await? {
        Some(key) => revoke(backend, key, at, reason).await,
        None => Ok(false),
    }
}

/// One after the other, the oldest first: it has made the others. Where one can't be revoked, the others are tried
/// all the same.
pub(super) async fn by_list<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    user_id: &str,
    at: SystemTime,
    reason: Option<&RevocationReason>,
    at_most: usize,
) -> Result<Vec<RevokedKey>, BackendError> {
    let everything = KeyFilter::new().user(user_id).with_revoked();
    let mut page = PageRequest::new().limit(PageRequest::MAX_LIMIT);
    let mut failed = None;
    let mut left = Vec::new();
    loop {
        let listed = backend.list_for_user(user_id, &page).await;
        let checked = listed.and_then(|keys| check_list(&keys, &everything, &page).map(|()| keys));
        let keys = match checked {
            Ok(keys) => keys,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        let Some(last) = keys.last().map(super::Cursor::of) else {
            break;
        };
        let unrevoked = keys.iter().filter(|key| key.revoked_at.is_none());
        left.extend(unrevoked.map(|key| RevokedKey::new(key.id, key.lookup_key())));
        page = page.after(last);
    }
    let mut revoked = Vec::new();
    for key in left.into_iter().rev() {
        if revoked.len() == at_most {
            break;
        }
        match by_update(backend, &key.id, at, reason).await {
            Ok(true) => revoked.push(key),
            Ok(false) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        // What was done is said first; the next call comes upon the same.
        Some(error) if revoked.is_empty() => Err(error),
        _ => Ok(revoked),
    }
}

async fn revoke<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    mut key: ApiKey,
    at: SystemTime,
    reason: Option<&RevocationReason>,
) -> Result<bool, BackendError> {
    for _ in 0..ATTEMPTS {
        let expected = key.version;
        if !key.revoke(at, reason) {
            return Ok(false);
        }
        key.version = following(key.version);
        if backend.update(&key, expected).await? {
            return Ok(true);
        }
        match read(backend, &key.id).await? {
            Some(newer) if newer.version == expected && newer.revoked_at.is_none() => {
                return Err(BackendError::kept());
            }
            Some(newer) => key = newer,
            None => return Ok(false),
        }
    }
    Err(BackendError::unavailable(
        "others change the key again and again",
    ))
}

/// The largest version stays where it is, that of a signed number in a database also: no key is
/// kept from being revoked because of its version.
fn following(version: u64) -> u64 {
    let largest = i64::MAX.cast_unsigned();
    version.saturating_add(1).min(largest.max(version))
}

async fn read<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    id: &KeyId,
) -> Result<Option<ApiKey>, BackendError> {
    let mut found = backend.get_by_id(std::slice::from_ref(id)).await?;
    found.retain(|key| key.id == *id);
    Ok(found.pop())
}
