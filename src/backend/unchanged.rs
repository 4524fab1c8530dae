//! Looks why a write changed nothing: there was nothing to change, or the database kept the row.
//!
//! A trigger that returns NULL, a rule or a policy turns a write into one of no rows. A caller must
//! not take that for "not there", so each function reads what the write compared. Versions only
//! rise, so a change by others in between is no false alarm.

use super::{ApiKeyBackend, Touch};
use crate::{
    error::BackendError,
    key::{ApiKey, GrantId, GrantStatus},
    token::{KeyId, LookupKey},
};

type Done = Result<bool, BackendError>;

/// Returns whether a key was inserted, whose parent has that version, if it has one.
pub(super) async fn inserted<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    key: &ApiKey,
    parent: Option<(KeyId, u64)>,
    is_done: bool,
) -> Done {
    if is_done || has_changed(backend, parent).await? || is_taken(backend, key).await? {
        return Ok(is_done);
    }
    Err(BackendError::kept())
}

/// Returns whether a record was replaced that had the version `expected`.
pub(super) async fn updated<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    id: &KeyId,
    expected: u64,
    is_done: bool,
) -> Done {
    let was_there = |key: &ApiKey| key.version == expected;
    unless_there(backend, id, was_there, is_done).await
}

/// Returns whether a record was deleted.
pub(super) async fn deleted<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    id: &KeyId,
    is_done: bool,
) -> Done {
    unless_there(backend, id, |_| true, is_done).await
}

/// Returns whether a key was revoked.
pub(super) async fn revoked<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    id: &KeyId,
    is_done: bool,
) -> Done {
    let is_unrevoked = |key: &ApiKey| key.revoked_at.is_none();
    unless_there(backend, id, is_unrevoked, is_done).await
}

/// Returns whether a key with the version `expected` was rotated.
pub(super) async fn rotated<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    successor: &ApiKey,
    old: &ApiKey,
    expected: u64,
    is_done: bool,
) -> Done {
    inserted(backend, successor, Some((old.id, expected)), is_done).await
}

/// Returns whether a grant was claimed as `key`, whose parent has that version, if it has one.
pub(super) async fn claimed<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    grant: &GrantId,
    key: &ApiKey,
    parent: Option<(KeyId, u64)>,
    is_done: bool,
) -> Done {
    if is_done {
        return Ok(true);
    }
    let found = backend.get_grant_by_id(grant).await?;
    let is_pending = |status| status == GrantStatus::Pending;
    if !found.is_some_and(|grant| is_pending(grant.status(key.created_at))) {
        return Ok(false);
    }
    inserted(backend, key, parent, false).await
}

/// Returns whether a grant was revoked.
pub(super) async fn grant_revoked<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    id: &GrantId,
    is_done: bool,
) -> Done {
    if is_done {
        return Ok(true);
    }
    match backend.get_grant_by_id(id).await? {
        Some(grant) if grant.claimed_at.is_none() && grant.revoked_at.is_none() => {
            Err(BackendError::kept())
        }
        _ => Ok(false),
    }
}

/// Checks, if not every use was written, that the key is gone or was used later.
pub(super) async fn touched<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    touches: &[Touch],
    changed: u64,
) -> Result<(), BackendError> {
    if usize::try_from(changed).is_ok_and(|changed| changed >= touches.len()) {
        return Ok(());
    }
    let ids: Vec<_> = touches.iter().map(|touch| touch.id).collect();
    let found = backend.get_by_id(&ids).await?;
    let is_missing = |touch: &Touch| {
        let key = found.iter().find(|key| key.id == touch.id);
        key.is_some_and(|key| key.last_used_at < Some(touch.used_at))
    };
    if touches.iter().any(is_missing) {
        return Err(BackendError::kept());
    }
    Ok(())
}

async fn unless_there<B: ApiKeyBackend + ?Sized>(
    backend: &B,
    id: &KeyId,
    was_to_change: impl Fn(&ApiKey) -> bool,
    is_done: bool,
) -> Done {
    if is_done {
        return Ok(true);
    }
    let found = backend.get_by_id(std::slice::from_ref(id)).await?;
    if found.iter().any(|key| key.id == *id && was_to_change(key)) {
        return Err(BackendError::kept());
    }
    Ok(false)
}

/// Whether the parent is gone or revoked, or has another version.
async fn has_changed<B: ApiKeyBackend + ?Sized>(backend: &B, parent: Option<(KeyId, u64)>) -> Done {
    let Some((id, version)) = parent else {
        return Ok(false);
    };
    let found = backend.get_by_id(&[id]).await?;
    let is_as_it_was =
        |key: &ApiKey| key.id == id && key.version == version && key.revoked_at.is_none();
    Ok(!found.iter().any(is_as_it_was))
}

/// Whether another record has the id or the lookup key of `key`. One that can't be read is there.
async fn is_taken<B: ApiKeyBackend + ?Sized>(backend: &B, key: &ApiKey) -> Done {
    let lookup_key = key.lookup_key();
    let ids = [key.id, KeyId::from_bytes(*lookup_key.as_bytes())];
    let lookup_keys: [LookupKey; 2] = [lookup_key, key.id.lookup_key()];
    let is_there = |found: Result<Vec<ApiKey>, BackendError>| match found {
        Ok(found) => Ok(!found.is_empty()),
        Err(error) if error.is_corrupt() => Ok(true),
        Err(error) => Err(error),
    };
    Ok(is_there(backend.get_by_id(&ids).await)? || is_there(backend.get_many(&lookup_keys).await)?)
}
