//! A connection, for one statement, in a limited time.

use std::time::Duration;

use sqlx::{
    Executor, PgConnection, PgPool, Postgres, Row,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{
    super::sql::{end_stray, failed},
    connections::{Connections, Lent},
    row::in_recovery,
};
use crate::{error::BackendError, sync::timeout};

/// Where connections come from, and how long a statement may take with all that it waits for.
pub(super) struct Sessions {
    pub(super) from: Source,
    pub(super) limit: Duration,
}

pub(super) enum Source {
    /// The service's.
    Pool(PgPool),
    Own(Box<Connections>),
}

/// A connection that is closed, and not used again, unless its statement was carried through: one that
/// was given up waits for an answer that may never come, and a server that refused may no longer be
/// the one that is written to.
pub(super) enum Session<'a> {
    Pooled(Pooled),
    Own(Lent<'a>),
}

pub(super) struct Pooled {
    connection: PoolConnection<Postgres>,
    is_clean: bool,
}

impl Session<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Pooled(pooled) => &mut pooled.connection,
            Self::Own(lent) => &mut lent.connection,
        }
    }

    /// Ends a transaction that the service has left open; nobody else has connections of our own.
    async fn end_stray(&mut self) -> Result<bool, BackendError> {
        match self {
            Self::Pooled(pooled) => end_stray(&mut *pooled.connection).await.map_err(failed),
            Self::Own(_) => Ok(false),
        }
    }

    pub(super) fn give_back(self) {
        match self {
            Self::Pooled(mut pooled) => pooled.is_clean = true,
            Self::Own(lent) => lent.give_back(),
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if !self.is_clean {
            self.connection.close_on_drop();
        }
    }
}

impl Sessions {
    /// The rows of an answer that says from what kind of server it comes: there is one at least.
    ///
    /// # Errors
    ///
    /// Where it is a server that only follows another, too: what it says may be old.
    pub(super) async fn rows(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, BackendError> {
        self.in_time(async {
            let mut session = self.session().await?;
            let rows = query
                .fetch_all(session.connection())
                .await
                .map_err(failed)?;
            not_in_recovery(&rows)?;
            session.give_back();
            Ok(rows)
        })
        .await
    }

    /// The same for a look-up, which requests wait for: that the connection is in no transaction isn't asked
    /// before, but only where the answer has doubts.
    pub(super) async fn looked_up<'q>(
        &self,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, BackendError> {
        self.in_time(async {
            let mut session = self.any_session().await?;
            let mut rows = query()
                .fetch_all(session.connection())
                .await
                .map_err(failed)?;
            if is_in_doubt(&rows)? && session.end_stray().await? {
                rows = query()
                    .fetch_all(session.connection())
                    .await
                    .map_err(failed)?;
            }
            not_in_recovery(&rows)?;
            session.give_back();
            Ok(rows)
        })
        .await
    }

    /// How many rows `query` has changed.
    pub(super) async fn changed(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, BackendError> {
        self.in_time(async {
            let mut session = self.session().await?;
            let done = session.connection().execute(query).await.map_err(failed)?;
            session.give_back();
            Ok(done.rows_affected())
        })
        .await
    }

    /// In no transaction, and to be [given back](Session::give_back) when what it was taken for is carried through.
    pub(super) async fn session(&self) -> Result<Session<'_>, BackendError> {
        let mut session = self.any_session().await?;
        session.end_stray().await?;
        Ok(session)
    }

    async fn any_session(&self) -> Result<Session<'_>, BackendError> {
        Ok(match &self.from {
            Source::Pool(pool) => Session::Pooled(Pooled {
                connection: pool.acquire().await.map_err(failed)?,
                is_clean: false,
            }),
            Source::Own(connections) => Session::Own(connections.lend().await?),
        })
    }

    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let too_slow = || BackendError::unavailable("PostgreSQL took too long to answer");
        timeout(self.limit, answer)
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }
}

/// Whether it may be from a transaction that began before.
fn is_in_doubt(rows: &[PgRow]) -> Result<bool, BackendError> {
    rows.first()
        .map_or(Ok(false), |row| row.try_get("in_doubt").map_err(failed))
}

/// Every answer of several rows says it in each of them, and has one where nothing was found, too.
pub(super) fn not_in_recovery(rows: &[PgRow]) -> Result<&PgRow, BackendError> {
    let row = rows.first();
    let row = row.ok_or_else(|| BackendError::unavailable("the answer has no rows"))?;
    if row.try_get("in_recovery").map_err(failed)? {
        return Err(in_recovery());
    }
    Ok(row)
}
