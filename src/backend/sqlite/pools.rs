//! Where connections come from.

use std::ops::{Deref, DerefMut};

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};

use crate::{
    backend::sql::{Lane, LanePermit, Lanes, end_stray, failed},
    error::BackendError,
    sync::{HeldClock, hold_paused_clock, timeout},
};

pub(super) struct Pools {
    pub(super) readers: SqlitePool,
    /// One connection, where the pool is ours: writers wait for it in turn, and not for SQLite's lock.
    pub(super) writer: SqlitePool,
    /// Whether both are the service's, which may leave what it likes on its connections.
    are_shared: bool,
    /// How many of the readers each kind of call takes.
    lanes: Lanes,
}

/// A connection that goes back to its pool when it is dropped.
pub(super) struct Pooled<'a> {
    // Dropped in this order.
    connection: PoolConnection<Sqlite>,
    _permit: Option<LanePermit<'a>>,
    _clock: Option<HeldClock>,
}

impl Pools {
    /// Pools of our own.
    pub(super) fn new(readers: SqlitePool, writer: SqlitePool) -> Self {
        Self {
            lanes: Lanes::new(readers.options().get_max_connections()),
            readers,
            writer,
            are_shared: false,
        }
    }

    /// The service's pool, to read and to write.
    pub(super) fn shared(pool: SqlitePool) -> Self {
        Self {
            are_shared: true,
            ..Self::new(pool.clone(), pool)
        }
    }

    /// A connection to read on.
    pub(super) async fn reader(&self, lane: Lane) -> Result<Pooled<'_>, BackendError> {
        let reader = self.idle(&self.readers, Some(lane)).await;
        reader.map_err(failed)
    }

    /// A connection to write on.
    pub(super) async fn writer(&self, lane: Lane) -> Result<Pooled<'_>, sqlx::Error> {
        let lane = self.are_shared.then_some(lane);
        self.idle(&self.writer, lane).await
    }

    /// One that is in no transaction. The wait for a permit counts as a wait for the pool.
    async fn idle(&self, pool: &SqlitePool, lane: Option<Lane>) -> Result<Pooled<'_>, sqlx::Error> {
        let clock = hold_paused_clock();
        let acquire = async {
            let permit = match lane {
                Some(lane) => Some(self.lanes.acquire(lane).await),
                None => None,
            };
            Ok(Pooled {
                connection: pool.acquire().await?,
                _permit: permit,
                _clock: clock,
            })
        };
        let acquired = timeout(pool.options().get_acquire_timeout(), acquire).await;
        let mut pooled = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        if self.are_shared {
            end_stray(&mut *pooled.connection).await?;
        }
        Ok(pooled)
    }
}

impl Deref for Pooled<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Pooled<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}
