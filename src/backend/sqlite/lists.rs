//! Keys that fit a filter, those of a user that are to end, and those that ended long ago.

use std::time::SystemTime;

use sqlx::{
    AssertSqlSafe, Connection as _, Row as _, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    Shared,
    records::{IS_DIGEST, read_keys},
    statements::ChangeAll,
};
use crate::{
    backend::{
        KeyFilter, PageRequest, RevokedKey,
        sql::{Argument, Dialect, Lane, failed, listing, millis, read_id},
    },
    error::BackendError,
    key::{ApiKey, RevocationReason},
};

/// When a key ends. Its index, `keys_by_end`, has the same words.
pub(super) const END: &str = "min(ifnull(expires_at, retires_at), ifnull(retires_at, expires_at))";

pub(super) const DIALECT: Dialect = Dialect {
    and_columns: IS_DIGEST,
    argument: '?',
    end: END,
    is_an_end: None,
};

type SqliteQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

impl Shared {
    pub(super) async fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let listing = listing(&DIALECT, &self.statements.keys, filter, page);
        // Too many different ones to keep them all prepared, and too seldom asked for.
        let mut query = sqlx::query(AssertSqlSafe(listing.text)).persistent(false);
        for argument in listing.arguments {
            query = bind(query, argument);
        }
        let read = async {
            let mut reader = self.pools.reader(Lane::Ordinary).await?;
            let rows = query.fetch_all(&mut *reader).await.map_err(failed)?;
            read_keys(&rows)
        };
        self.read(read).await
    }

    pub(super) async fn revoke_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
        at_most: usize,
    ) -> Result<Vec<RevokedKey>, BackendError> {
        let reason = reason.map(RevocationReason::as_str);
        let revoked = self.change_all(
            Lane::Revocation,
            &self.statements.revoke_of_user,
            |query| query.bind(user_id.to_owned()).bind(limit(at_most)),
            |query| query.bind(millis(at)).bind(reason.map(str::to_owned)),
        );
        let rows = revoked.await?;
        let revoked = rows.iter().map(|row| {
            let id = |column| read_id(row.try_get(column).map_err(failed)?);
            Ok(RevokedKey::new(id(0)?, id(1)?.lookup_key()))
        });
        revoked.collect()
    }

    pub(super) async fn purge(
        &self,
        before: SystemTime,
        at_most: usize,
    ) -> Result<usize, BackendError> {
        for statement in [&self.statements.purge, &self.statements.purge_grants] {
            let removed = self.change_all(
                Lane::Ordinary,
                statement,
                |query| query.bind(millis(before)).bind(limit(at_most)),
                |query| query,
            );
            let removed = removed.await?;
            // What one statement has removed is told before another can fail.
            if !removed.is_empty() {
                return Ok(removed.len());
            }
        }
        Ok(0)
    }

    /// Changes what is found, and returns the rows of the answer.
    ///
    /// # Errors
    ///
    /// Also where some is found, and a trigger kept all of it from being changed. Nobody else writes
    /// between the two statements.
    pub(super) async fn change_all(
        &self,
        lane: Lane,
        statement: &ChangeAll,
        search: impl Fn(SqliteQuery<'_>) -> SqliteQuery<'_>,
        change: impl Fn(SqliteQuery<'_>) -> SqliteQuery<'_>,
    ) -> Result<Vec<SqliteRow>, BackendError> {
        let write = async {
            let mut connection = self.pools.writer(lane).await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let query = change(search(sqlx::query(statement.change.sql())));
            let changed = query.fetch_all(&mut *transaction).await?;
            let mut is_left = false;
            if changed.is_empty() {
                let found = search(sqlx::query(statement.find.sql()));
                is_left = found.fetch_one(&mut *transaction).await?.try_get(0)?;
            }
            transaction.commit().await?;
            Ok((changed, is_left))
        };
        let (changed, is_left) = self.write(write).await?;
        if is_left {
            return Err(BackendError::kept());
        }
        Ok(changed)
    }
}

fn limit(at_most: usize) -> i64 {
    i64::try_from(at_most).unwrap_or(i64::MAX)
}

fn bind<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    argument: Argument<'q>,
) -> Query<'q, Sqlite, SqliteArguments> {
    match argument {
        Argument::Text(text) => query.bind(text),
        Argument::Time(time) => query.bind(millis(time)),
        Argument::Id(id) => query.bind(id),
        Argument::Number(number) => query.bind(number),
    }
}
