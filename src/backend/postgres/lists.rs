//! Keys that fit a filter, those of a user that are to end, and those that ended long ago.

use std::{sync::Arc, time::SystemTime};

use sqlx::{
    AssertSqlSafe, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{
    super::{
        KeyFilter, PageRequest, RevokedKey,
        sql::{Argument, Dialect, Lane, failed, listing, read_id},
    },
    Shared, row,
    statements::query,
    time::Timestamp,
};
use crate::{
    error::BackendError,
    key::{ApiKey, RevocationReason},
};

/// How often one looks for what is to be removed, or revoked, while others do it first. Each time, they have done
/// something.
pub(super) const MAX_LOOKS: usize = 100;

/// An operator's `infinity` is no end.
const DIALECT: Dialect = Dialect {
    and_columns: "",
    argument: '$',
    end: "LEAST(expires_at, retires_at)",
    is_an_end: Some("LEAST(expires_at, retires_at) < 'infinity'"),
};

impl Shared {
    pub(super) async fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        // Text with NUL can't be stored, so nobody has this name.
        if filter.wanted_user().is_some_and(|user| user.contains('\0')) {
            return Ok(Vec::new());
        }
        let listing = listing(&DIALECT, &self.names.table("keys"), filter, page);
        let text = super::statements::list_of(&self.names, &listing.text);
        // Too many different ones to keep them all prepared, and too seldom asked for. The server plans it
        // for these very arguments.
        let mut query = sqlx::query(AssertSqlSafe(text)).persistent(false);
        for argument in listing.arguments {
            query = bind(query, argument);
        }
        row::keys(&self.sessions.rows(Lane::Ordinary, query).await?)
    }

    pub(super) async fn revoke_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
        at_most: usize,
    ) -> Result<Vec<RevokedKey>, BackendError> {
        if user_id.contains('\0') {
            return Ok(Vec::new());
        }
        for _ in 0..MAX_LOOKS {
            let revoke = || {
                query(&self.statements.revoke_of_user)
                    .bind(user_id)
                    .bind(Timestamp::new(at))
                    .bind(reason.map(RevocationReason::as_str))
                    .bind(i64::try_from(at_most).unwrap_or(i64::MAX))
            };
            let rows = self.sessions.revoke(revoke).await?;
            let revoked = revoked_keys(&rows)?;
            let found: i64 = rows[0].try_get("found").map_err(failed)?;
            if !revoked.is_empty() || found == 0 {
                return Ok(revoked);
            }
        }
        Err(BackendError::kept())
    }

    pub(super) async fn purge(
        &self,
        before: SystemTime,
        at_most: usize,
    ) -> Result<usize, BackendError> {
        for statement in [&self.statements.purge, &self.statements.purge_grants] {
            let removed = self.purge_by(statement, before, at_most).await?;
            // What one statement has removed is told before another can fail.
            if removed > 0 {
                return Ok(removed);
            }
        }
        Ok(0)
    }

    /// Looks again where others have removed or renewed all that was found: there may be more.
    async fn purge_by(
        &self,
        statement: &Arc<str>,
        before: SystemTime,
        at_most: usize,
    ) -> Result<usize, BackendError> {
        for _ in 0..MAX_LOOKS {
            let query = query(statement)
                .bind(Timestamp::new(before))
                .bind(i64::try_from(at_most).unwrap_or(i64::MAX));
            let rows = self.sessions.rows(Lane::Ordinary, query).await?;
            let count = |column| {
                let count: i64 = rows[0].try_get(column).map_err(failed)?;
                Ok::<_, BackendError>(usize::try_from(count).unwrap_or(usize::MAX))
            };
            let removed = count("removed")?;
            if removed > 0 || count("found")? == 0 {
                return Ok(removed);
            }
        }
        Err(BackendError::kept())
    }
}

fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    argument: Argument<'q>,
) -> Query<'q, Postgres, PgArguments> {
    match argument {
        Argument::Text(text) => query.bind(text),
        Argument::Time(time) => query.bind(Timestamp::new(time)),
        Argument::Id(id) => query.bind(id),
        Argument::Number(number) => query.bind(number),
    }
}

/// Those that a statement has revoked.
fn revoked_keys(rows: &[PgRow]) -> Result<Vec<RevokedKey>, BackendError> {
    let mut revoked = Vec::new();
    for row in rows {
        let is_there: bool = row.try_get("is_there").map_err(failed)?;
        if is_there {
            let id = |column| {
                let bytes: Vec<u8> = row.try_get(column).map_err(failed)?;
                read_id(bytes)
            };
            revoked.push(RevokedKey::new(id("id")?, id("lookup_key")?.lookup_key()));
        }
    }
    Ok(revoked)
}
