//! How many calls of each sort are under way at once.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{StoreError, Unavailable},
    sync::{OwnedSemaphorePermit, Semaphore, timeout},
};

/// Calls wait here for their turn, in their order, before they ask the backend for anything: so that those who make,
/// claim or hand off more than it can do leave connections to requests, and to those who end keys. A caller who goes
/// away while it waits leaves nothing behind; a write that has begun keeps its turn until it is done.
#[derive(Clone)]
pub(super) struct Turns {
    changes: Arc<Semaphore>,
    claims: Arc<Semaphore>,
    handoffs: Arc<Semaphore>,
    ends: Arc<Semaphore>,
    ends_of_users: Arc<Semaphore>,
}

/// It is over when it is dropped. Who ends keys has waited long enough at some time, and goes on without one.
pub(super) struct Turn(#[allow(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>);

/// How many make, change or claim keys, of connections to a database that are ten or so.
const CHANGES: usize = 4;
/// How many look for what a claim token claims: strangers can ask any number of times.
const CLAIMS: usize = 2;
/// Backends store grants one after the other, since they count them.
const HANDOFFS: usize = 1;
/// How many revoke, suspend or delete.
const ENDS: usize = 4;
/// How many end all keys of a user, and take a turn of those for each batch.
const ENDS_OF_USERS: usize = 2;
/// How long one waits for its turn, and is refused then.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How long who ends keys waits, and goes on then: no revocation is refused because others take long.
const MAX_WAIT_TO_END: Duration = Duration::from_secs(1);

impl Turns {
    pub(super) fn new() -> Self {
        let turns = |permits| Arc::new(Semaphore::new(permits));
        Self {
            changes: turns(CHANGES),
            claims: turns(CLAIMS),
            handoffs: turns(HANDOFFS),
            ends: turns(ENDS),
            ends_of_users: turns(ENDS_OF_USERS),
        }
    }

    /// To make or change a key.
    pub(super) async fn change(&self) -> Result<Turn, StoreError> {
        turn(&self.changes).await
    }

    /// To look for what a token claims.
    pub(super) async fn look_up_claim(&self) -> Result<Turn, StoreError> {
        turn(&self.claims).await
    }

    /// To hand a key off.
    pub(super) async fn hand_off(&self) -> Result<Turn, StoreError> {
        turn(&self.handoffs).await
    }

    /// To end a key, or a grant.
    pub(super) async fn end(&self) -> Turn {
        Turn(permit(&self.ends, MAX_WAIT_TO_END).await)
    }

    /// To end all keys of a user.
    pub(super) async fn end_user(&self) -> Turn {
        Turn(permit(&self.ends_of_users, MAX_WAIT_TO_END).await)
    }
}

async fn turn(turns: &Arc<Semaphore>) -> Result<Turn, StoreError> {
    match permit(turns, MAX_WAIT).await {
        Some(permit) => Ok(Turn(Some(permit))),
        None => Err(StoreError::Unavailable(Unavailable::load_failed(
            "too many other changes are under way",
        ))),
    }
}

async fn permit(turns: &Arc<Semaphore>, wait: Duration) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = turns.clone().try_acquire_owned() {
        return Some(permit);
    }
    let permit = timeout(wait, turns.clone().acquire_owned()).await;
    permit.ok()?.ok()
}

/// `write`, which keeps its turn until it is done, also where its caller goes away.
pub(super) async fn in_turn<T>(turn: Turn, write: impl Future<Output = T>) -> T {
    let written = write.await;
    drop(turn);
    written
}
