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
    handoffs: Arc<Semaphore>,
    ends: Arc<Semaphore>,
}

/// Clones are one turn, which is over when the last of them is dropped.
pub(super) type Turn = Arc<OwnedSemaphorePermit>;

/// How many make, change or claim keys, of connections to a database that are ten or so.
const CHANGES: usize = 4;
/// Backends store grants one after the other, since they count them.
const HANDOFFS: usize = 1;
/// How many revoke, suspend or delete.
const ENDS: usize = 4;
/// How long one waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(10);

impl Turns {
    pub(super) fn new() -> Self {
        let [changes, handoffs, ends] =
            [CHANGES, HANDOFFS, ENDS].map(|permits| Arc::new(Semaphore::new(permits)));
        Self {
            changes,
            handoffs,
            ends,
        }
    }

    /// To make, change or claim a key.
    pub(super) async fn change(&self) -> Result<Turn, StoreError> {
        turn(&self.changes).await
    }

    /// To hand a key off.
    pub(super) async fn hand_off(&self) -> Result<Turn, StoreError> {
        turn(&self.handoffs).await
    }

    /// To end a key, or a grant.
    pub(super) async fn end(&self) -> Result<Turn, StoreError> {
        turn(&self.ends).await
    }
}

async fn turn(turns: &Arc<Semaphore>) -> Result<Turn, StoreError> {
    if let Ok(turn) = turns.clone().try_acquire_owned() {
        return Ok(Arc::new(turn));
    }
    let turn = timeout(MAX_WAIT, turns.clone().acquire_owned()).await;
    match turn {
        Ok(Ok(turn)) => Ok(Arc::new(turn)),
        _ => Err(StoreError::Unavailable(Unavailable::load_failed(
            "too many other changes are under way",
        ))),
    }
}

/// `write`, which keeps its turn until it is done, also where its caller goes away.
pub(super) async fn in_turn<T>(turn: Turn, write: impl Future<Output = T>) -> T {
    let written = write.await;
    drop(turn);
    written
}
