//! Limits how many calls of each kind are in progress.

use std::{sync::Arc, time::Duration};

use crate::{
    ask::ask_in_time,
    error::{BackendError, StoreError, Unavailable},
    sync::{OwnedSemaphorePermit, Semaphore, timeout},
};

/// Limits concurrent management calls, so that a burst of them cannot take the connections that
/// lookups and revocations need. Permits are granted in FIFO order. A caller who leaves while
/// waiting leaves nothing behind; a call in progress keeps its permit until it ends.
#[derive(Clone)]
pub(super) struct ConcurrencyLimits {
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    claims: Arc<Semaphore>,
    grants: Arc<Semaphore>,
    revocations: Arc<Semaphore>,
    bulk_revocations: Arc<Semaphore>,
}

/// Held by a call in progress. A revocation that has waited long enough goes on without one.
pub(super) struct Permit(#[allow(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>);

/// Lists, and single records.
const READS: usize = 4;
/// Calls that create, change or claim keys.
const CHANGES: usize = 4;
/// Lookups of claim tokens: strangers can ask any number of times.
const CLAIMS: usize = 2;
/// Backends store grants one after the other, since they count them.
const GRANTS: usize = 1;
/// Calls that revoke, disable or delete.
const REVOCATIONS: usize = 4;
/// Revocations of all keys of a user. Each takes a permit of a revocation for each batch.
const BULK_REVOCATIONS: usize = 2;
/// How long a call waits for its permit before it is refused.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How long a revocation waits before it goes on without a permit: none is refused because others
/// take long.
const MAX_WAIT_TO_REVOKE: Duration = Duration::from_secs(1);
/// How long a read may take. A backend that never answers must not keep permits for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

impl ConcurrencyLimits {
    pub(super) fn new() -> Self {
        let limit = |permits| Arc::new(Semaphore::new(permits));
        Self {
            reads: limit(READS),
            changes: limit(CHANGES),
            claims: limit(CLAIMS),
            grants: limit(GRANTS),
            revocations: limit(REVOCATIONS),
            bulk_revocations: limit(BULK_REVOCATIONS),
        }
    }

    /// For a list, or a single record.
    pub(super) async fn read(&self) -> Result<Permit, StoreError> {
        permit(&self.reads).await
    }

    /// For creating or changing a key.
    pub(super) async fn change(&self) -> Result<Permit, StoreError> {
        permit(&self.changes).await
    }

    /// For looking up what a token claims.
    pub(super) async fn look_up_claim(&self) -> Result<Permit, StoreError> {
        permit(&self.claims).await
    }

    /// For creating a grant.
    pub(super) async fn grant(&self) -> Result<Permit, StoreError> {
        permit(&self.grants).await
    }

    /// For making a key or a grant inactive.
    pub(super) async fn revoke(&self) -> Permit {
        Permit(acquire(&self.revocations, MAX_WAIT_TO_REVOKE).await)
    }

    /// For revoking all keys of a user.
    pub(super) async fn revoke_in_bulk(&self) -> Permit {
        Permit(acquire(&self.bulk_revocations, MAX_WAIT_TO_REVOKE).await)
    }
}

async fn permit(limit: &Arc<Semaphore>) -> Result<Permit, StoreError> {
    match acquire(limit, MAX_WAIT).await {
        Some(permit) => Ok(Permit(Some(permit))),
        None => Err(StoreError::Unavailable(Unavailable::load_failed(
            "limit reached: too many other calls are in progress",
        ))),
    }
}

async fn acquire(limit: &Arc<Semaphore>, wait: Duration) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = limit.clone().try_acquire_owned() {
        return Some(permit);
    }
    let permit = timeout(wait, limit.clone().acquire_owned()).await;
    permit.ok()?.ok()
}

/// Runs `call`, and holds `permit` until it ends or is dropped. Run it detached, so that a caller
/// who leaves drops neither.
pub(super) async fn with_permit<T>(permit: Permit, call: impl Future<Output = T>) -> T {
    let answer = call.await;
    drop(permit);
    answer
}

/// Reads from the backend within a time limit. Call it in a task of its own: a caller who leaves
/// would break off a statement, and so close its connection.
pub(super) async fn read_in_time<T>(
    read: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    ask_in_time(READ_TIMEOUT, read).await
}
