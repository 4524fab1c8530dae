//! Keys that fit a filter, those of a user that are to end, and those that ended long ago.

use std::time::SystemTime;

use sqlx::{AssertSqlSafe, Row as _, Sqlite, query::Query, sqlite::SqliteArguments};

use super::{
    Shared,
    records::{IS_DIGEST, read_keys},
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
        let query = sqlx::query(self.statements.revoke_of_user.sql())
            .bind(user_id)
            .bind(millis(at))
            .bind(reason.map(RevocationReason::as_str))
            .bind(i64::try_from(at_most).unwrap_or(i64::MAX));
        let write = async {
            let mut connection = self.pools.writer(Lane::Revocation).await?;
            query.fetch_all(&mut *connection).await
        };
        let rows = self.write(write).await?;
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
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        for statement in [&self.statements.purge, &self.statements.purge_grants] {
            let query = sqlx::query(statement.sql())
                .bind(millis(before))
                .bind(at_most);
            let removed = self.changed(Lane::Ordinary, query).await?;
            // What one statement has removed is told before another can fail.
            if removed > 0 {
                return Ok(usize::try_from(removed).unwrap_or(usize::MAX));
            }
        }
        Ok(0)
    }
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
