//! Where connections come from.

use sqlx::{Sqlite, SqlitePool, pool::PoolConnection};

use crate::{
    backend::sql::{end_stray, failed},
    error::BackendError,
};

pub(super) struct Pools {
    pub(super) readers: SqlitePool,
    /// One connection, where the pool is ours: writers wait for it in turn, and not for SQLite's lock.
    pub(super) writer: SqlitePool,
    /// Whether both are the service's, which may leave what it likes on its connections.
    pub(super) are_shared: bool,
}

impl Pools {
    /// A connection to read on.
    pub(super) async fn reader(&self) -> Result<PoolConnection<Sqlite>, BackendError> {
        self.idle(&self.readers).await.map_err(failed)
    }

    /// A connection to write on.
    pub(super) async fn writer(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.idle(&self.writer).await
    }

    /// One that is in no transaction.
    async fn idle(&self, pool: &SqlitePool) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        let mut connection = pool.acquire().await?;
        if self.are_shared {
            end_stray(&mut *connection).await?;
        }
        Ok(connection)
    }
}
