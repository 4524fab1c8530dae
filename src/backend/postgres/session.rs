//! A connection, for one statement.

use std::time::Duration;

use sqlx::{
    PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::super::sql::failed;
use crate::{error::BackendError, sync::timeout};

/// A connection that is closed, and not used again, where its statement isn't carried through: the
/// pool would wait for the answer, which may never come from a socket whose other end is gone.
struct Session {
    connection: PoolConnection<Postgres>,
    is_clean: bool,
}

impl Session {
    async fn new(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connection: pool.acquire().await?,
            is_clean: true,
        })
    }

    fn begin(&mut self) -> &mut PgConnection {
        self.is_clean = false;
        &mut self.connection
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_clean {
            self.connection.close_on_drop();
        }
    }
}

/// A pool, and how long a statement may take with all that it waits for.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    pub(super) pool: PgPool,
    pub(super) limit: Duration,
}

impl Sessions {
    /// The rows that `query` gives.
    pub(super) async fn rows(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, BackendError> {
        self.in_time(async {
            let mut session = Session::new(&self.pool).await?;
            let answer = query.fetch_all(session.begin()).await;
            session.is_clean = true;
            answer
        })
        .await
    }

    /// How many rows `query` has changed.
    pub(super) async fn changed(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, BackendError> {
        self.in_time(async {
            let mut session = Session::new(&self.pool).await?;
            let answer = query.execute(session.begin()).await;
            session.is_clean = true;
            answer.map(|done| done.rows_affected())
        })
        .await
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, BackendError> {
        match timeout(self.limit, answer).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(BackendError::unavailable(
                "PostgreSQL took too long to answer",
            )),
        }
    }
}
