//! A connection, for one statement, in a limited time.

use std::{sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Executor, PgConnection, PgPool, Postgres, Row,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    query::Query,
};

use super::{
    super::sql::{Lane, LanePermit, Lanes, end_stray, failed},
    connections::{Connections, Lent},
    names::Names,
    row::{hidden_rows, in_recovery},
    statements::IS_HALF_DONE,
};
use crate::{
    error::BackendError,
    sync::{HeldClock, hold_paused_clock, timeout},
};

/// The shortest time limit of a revocation on the server. A revocation waits for the locks of
/// others, and is worth a longer wait than other writes.
const MIN_REVOCATION_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client waits for beyond the server's limit: the round trips around the statement.
const ROUND_TRIPS: Duration = Duration::from_secs(1);
/// How often a revocation is tried that the server gives up for a reason that passes.
const MAX_REVOCATION_ATTEMPTS: usize = 3;

/// Where connections come from, and how long a statement may take with all that it waits for.
pub(super) struct Sessions {
    pub(super) from: Source,
    lanes: Lanes,
    acquire_timeout: Duration,
    limit: Duration,
    revocation_limit: Duration,
    begin_revocation: Arc<str>,
    distrust: Arc<str>,
    unique_indexes: [String; 5],
}

pub(super) enum Source {
    /// The service's.
    Pool(PgPool),
    Own(Box<Connections>),
}

impl Source {
    /// A pool of one connection, made as the others are: with the same address, the same password,
    /// and what the service's pool does to each new connection.
    pub(super) async fn listening_pool(&self) -> Result<PgPool, BackendError> {
        Ok(match self {
            Self::Pool(pool) => listening_pool(
                pool.options().clone(),
                pool.connect_options().as_ref().clone(),
            ),
            Self::Own(connections) => {
                let options = connections.credentials.current().await?;
                listening_pool(PgPoolOptions::new(), options)
            }
        })
    }

    /// Sets the options of new connections.
    pub(super) fn set_connect_options(&self, options: PgConnectOptions) {
        match self {
            Self::Pool(pool) => pool.set_connect_options(options),
            Self::Own(connections) => connections.credentials.set(options),
        }
    }
}

pub(super) fn listening_pool(pool: PgPoolOptions, options: PgConnectOptions) -> PgPool {
    pool.min_connections(0)
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options.application_name("tower-api-key-listen"))
}

/// A connection that is closed, and not used again, unless its statement was carried through: one that
/// was given up waits for an answer that may never come, and a server that refused may no longer be
/// the one that is written to.
pub(super) struct Session<'a> {
    // Dropped in this order.
    connection: Taken<'a>,
    _permit: LanePermit<'a>,
    _clock: Option<HeldClock>,
}

enum Taken<'a> {
    Pooled(Pooled),
    Own(Lent<'a>),
}

struct Pooled {
    connection: PoolConnection<Postgres>,
    is_clean: bool,
}

impl Session<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        match &mut self.connection {
            Taken::Pooled(pooled) => &mut pooled.connection,
            Taken::Own(lent) => &mut lent.connection,
        }
    }

    /// Ends a transaction that the service has left open; nobody else has connections of our own.
    async fn end_stray(&mut self) -> Result<bool, BackendError> {
        match &mut self.connection {
            Taken::Pooled(pooled) => end_stray(&mut *pooled.connection).await.map_err(failed),
            Taken::Own(_) => Ok(false),
        }
    }

    /// Gives the connection back after a single statement, also if the database refused the data:
    /// nobody is to have connections closed by what they send.
    fn give_back_after<T>(self, answer: Result<T, sqlx::Error>) -> Result<T, BackendError> {
        let answer = answer.map_err(failed);
        if answer.as_ref().err().is_none_or(BackendError::is_refusal) {
            self.give_back();
        }
        answer
    }

    pub(super) fn give_back(self) {
        match self.connection {
            Taken::Pooled(mut pooled) => pooled.is_clean = true,
            Taken::Own(lent) => lent.give_back(),
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
    pub(super) fn new(
        from: Source,
        names: &Names,
        acquire_timeout: Duration,
        statement_timeout: Duration,
    ) -> Self {
        let revocation_timeout = statement_timeout.max(MIN_REVOCATION_TIMEOUT);
        // Locks of others are waited for until the statement's own limit. The server ends the
        // transaction of a client that is gone.
        let begin_revocation = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
            SET LOCAL statement_timeout = {};
            SET LOCAL lock_timeout = 0;
            SET LOCAL idle_in_transaction_session_timeout = '5s'",
            revocation_timeout.as_millis()
        );
        let connections = match &from {
            Source::Pool(pool) => pool.options().get_max_connections(),
            Source::Own(connections) => connections.max(),
        };
        Self {
            from,
            lanes: Lanes::new(connections),
            acquire_timeout,
            limit: acquire_timeout + statement_timeout,
            revocation_limit: acquire_timeout + revocation_timeout + ROUND_TRIPS,
            begin_revocation: begin_revocation.into(),
            distrust: names.fill("SELECT {grants_distrust} AS distrust").into(),
            unique_indexes: names.unique_indexes(),
        }
    }

    /// The rows of an answer that says from what kind of server it comes: there is one at least.
    ///
    /// # Errors
    ///
    /// Also where the server only follows another, since what it says may be old, and where
    /// row-level security hides rows.
    pub(super) async fn rows(
        &self,
        lane: Lane,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, BackendError> {
        let permit = self.permit_to_revoke(lane).await?;
        self.in_time(async {
            let mut session = self.session_with(lane, permit).await?;
            let rows = query
                .fetch_all(session.connection())
                .await
                .map_err(failed)?;
            trusted(&rows)?;
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
            let mut session = self.any_session(Lane::Lookup, None).await?;
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
            trusted(&rows)?;
            session.give_back();
            Ok(rows)
        })
        .await
    }

    /// How many rows `query` has changed.
    pub(super) async fn changed(
        &self,
        lane: Lane,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, BackendError> {
        let permit = self.permit_to_revoke(lane).await?;
        self.in_time(async {
            let mut session = self.session_with(lane, permit).await?;
            let done = session.connection().execute(query).await;
            Ok(session.give_back_after(done)?.rows_affected())
        })
        .await
    }

    /// Whether `query`, which inserts a key, was carried through; not if its id or lookup key is
    /// taken.
    pub(super) async fn inserted(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<bool, BackendError> {
        self.in_time(async {
            let mut session = self.session(Lane::Ordinary).await?;
            match session.connection().execute(query).await {
                Err(error) if self.is_taken(&error) => {
                    session.give_back();
                    Ok(false)
                }
                Err(sqlx::Error::Database(error)) if error.message().contains(IS_HALF_DONE) => {
                    session.give_back();
                    Err(BackendError::kept())
                }
                done => Ok(session.give_back_after(done)?.rows_affected() == 1),
            }
        })
        .await
    }

    /// Whether an index of ours, and not an operator's, refused a row.
    pub(super) fn is_taken(&self, error: &sqlx::Error) -> bool {
        let refused = error
            .as_database_error()
            .filter(|error| error.is_unique_violation());
        let index = refused.and_then(sqlx::error::DatabaseError::constraint);
        index.is_some_and(|index| self.unique_indexes.iter().any(|own| own == index))
    }

    /// Carries out a revocation, and returns the rows that it gives. It has a longer time limit
    /// than other writes, and is tried again where the server gives up because of other
    /// transactions.
    ///
    /// # Errors
    ///
    /// Also where the commit fails: then it isn't known whether it was carried out.
    pub(super) async fn revoke<'q>(
        &self,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, BackendError> {
        let mut attempts = 1;
        loop {
            let permit = self.permit_to_revoke(Lane::Revocation).await?;
            let attempt = Box::pin(self.try_to_revoke(permit, query()));
            match within(self.revocation_limit, attempt).await? {
                Err(error) if attempts == MAX_REVOCATION_ATTEMPTS => return Err(failed(error)),
                Err(_) => attempts += 1,
                Ok(rows) => return Ok(rows),
            }
        }
    }

    /// The inner error is one that passes, after which the transaction was rolled back.
    async fn try_to_revoke(
        &self,
        permit: Option<LanePermit<'_>>,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Result<Vec<PgRow>, sqlx::Error>, BackendError> {
        let mut session = self.session_with(Lane::Revocation, permit).await?;
        let connection = session.connection();
        let begin = sqlx::raw_sql(AssertSqlSafe(self.begin_revocation.clone()));
        begin.execute(&mut *connection).await.map_err(failed)?;
        let (end, answer) = match query.fetch_all(&mut *connection).await {
            Ok(rows) => ("COMMIT", Ok(rows)),
            Err(error) if passes(&error) => ("ROLLBACK", Err(error)),
            Err(error) => return Err(failed(error)),
        };
        let ended = sqlx::raw_sql(end).execute(&mut *connection).await;
        ended.map_err(failed)?;
        session.give_back();
        Ok(answer)
    }

    /// In no transaction, and one that sees all rows: connections of our own raise an error where
    /// row-level security would hide some. To be [given back](Session::give_back) when what it was taken for is carried through.
    pub(super) async fn session(&self, lane: Lane) -> Result<Session<'_>, BackendError> {
        self.session_with(lane, None).await
    }

    async fn session_with<'a>(
        &'a self,
        lane: Lane,
        permit: Option<LanePermit<'a>>,
    ) -> Result<Session<'a>, BackendError> {
        let mut session = self.any_session(lane, permit).await?;
        session.end_stray().await?;
        if let Taken::Pooled(pooled) = &mut session.connection {
            let distrust = sqlx::query(AssertSqlSafe(self.distrust.clone()));
            let rows = distrust.fetch_all(&mut *pooled.connection).await;
            trusted(&rows.map_err(failed)?)?;
        }
        Ok(session)
    }

    /// Waits longer for a permit to revoke than others wait: a burst of revocations refuses none.
    async fn permit_to_revoke(&self, lane: Lane) -> Result<Option<LanePermit<'_>>, BackendError> {
        if lane != Lane::Revocation {
            return Ok(None);
        }
        let limit = self.acquire_timeout.max(MIN_REVOCATION_TIMEOUT);
        let permit = timeout(limit, self.lanes.acquire(lane)).await;
        permit.map(Some).map_err(|_| no_connection())
    }

    /// Waits for a permit and a connection together no longer than for a connection alone.
    async fn any_session<'a>(
        &'a self,
        lane: Lane,
        permit: Option<LanePermit<'a>>,
    ) -> Result<Session<'a>, BackendError> {
        let clock = hold_paused_clock();
        let acquire = async {
            let permit = match permit {
                Some(permit) => permit,
                None => self.lanes.acquire(lane).await,
            };
            let connection = match &self.from {
                Source::Pool(pool) => Taken::Pooled(Pooled {
                    connection: pool.acquire().await.map_err(failed)?,
                    is_clean: false,
                }),
                Source::Own(connections) => Taken::Own(connections.lend().await?),
            };
            Ok(Session {
                connection,
                _permit: permit,
                _clock: clock,
            })
        };
        timeout(self.acquire_timeout, acquire)
            .await
            .unwrap_or_else(|_| Err(no_connection()))
    }

    /// Boxes `answer`, which is large: it is part of the future of every call.
    pub(super) fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, BackendError>>,
    ) -> impl Future<Output = Result<T, BackendError>> {
        within(self.limit, Box::pin(answer))
    }
}

pub(super) fn no_connection() -> BackendError {
    BackendError::unavailable(
        "limit reached: no connection to PostgreSQL was free within `acquire_timeout`",
    )
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let too_slow = || BackendError::unavailable("PostgreSQL took too long to answer");
    timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(too_slow()))
}

/// Whether the same statement may succeed when it is tried again: it waited too long for a lock, or
/// another transaction was in the way.
fn passes(error: &sqlx::Error) -> bool {
    /// `query_canceled`, `lock_not_available`, `deadlock_detected`, `serialization_failure`.
    const PASSING: [&str; 4] = ["57014", "55P03", "40P01", "40001"];
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| PASSING.contains(&&*code))
}

/// Whether it may be from a transaction that began before.
fn is_in_doubt(rows: &[PgRow]) -> Result<bool, BackendError> {
    rows.first()
        .map_or(Ok(false), |row| row.try_get("in_doubt").map_err(failed))
}

/// Returns the first row, where the answer can be trusted. Every answer of several rows says that
/// in each of them, and has one row where nothing was found, too.
pub(super) fn trusted(rows: &[PgRow]) -> Result<&PgRow, BackendError> {
    let row = rows.first();
    let row = row.ok_or_else(|| BackendError::unavailable("the answer has no rows"))?;
    match row.try_get::<i32, _>("distrust").map_err(failed)? {
        0 => Ok(row),
        1 => Err(in_recovery()),
        _ => Err(hidden_rows()),
    }
}
