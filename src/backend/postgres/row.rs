//! Records as this database gives them.

use std::time::SystemTime;

use sqlx::{
    Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{
    super::{
        PepperUsage,
        sql::{Row, failed, read_pepper_check, read_pepper_usage},
    },
    time::Timestamp,
};
use crate::{error::BackendError, key::ApiKey, token::PepperCheck};

/// After `distrust`, and before the columns of a record. Columns are asked for by their place: to look
/// for a name costs as much as the value.
const IS_THERE: usize = 1;
const RECORD: usize = 2;

/// The records in the rows. One row says that there are none.
pub(super) fn keys(rows: &[PgRow]) -> Result<Vec<ApiKey>, BackendError> {
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get(IS_THERE).map_err(failed)? {
            keys.push(record(row).map_err(failed)?.into_key()?);
        }
    }
    Ok(keys)
}

/// The same, of counts by pepper.
pub(super) fn pepper_usage(rows: &[PgRow]) -> Result<Vec<PepperUsage>, BackendError> {
    let mut usage = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get(IS_THERE).map_err(failed)? {
            let count = |column| row.try_get(RECORD + column).map_err(failed);
            let pepper = row.try_get(RECORD).map_err(failed)?;
            usage.push(read_pepper_usage(pepper, count(1)?, count(2)?)?);
        }
    }
    Ok(usage)
}

pub(super) fn pepper_checks(rows: &[PgRow]) -> Result<Vec<PepperCheck>, BackendError> {
    let mut checks = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get(IS_THERE).map_err(failed)? {
            let text = |column| row.try_get::<&str, _>(RECORD + column).map_err(failed);
            checks.push(read_pepper_check(text(0)?, text(1)?)?);
        }
    }
    Ok(checks)
}

pub(super) fn hidden_rows() -> BackendError {
    BackendError::unavailable(
        "row-level security hides rows from this role: run ALTER TABLE … DISABLE ROW LEVEL SECURITY \
         on the tables, or ALTER ROLE … BYPASSRLS",
    )
}

pub(super) fn in_recovery() -> BackendError {
    BackendError::unavailable("the server is in recovery: it is a standby, and what it says is old")
}

fn record(row: &PgRow) -> Result<Row, sqlx::Error> {
    let time = |column: usize| {
        let time: Option<Timestamp> = row.try_get(RECORD + column)?;
        Ok::<_, sqlx::Error>(time.map(Timestamp::unix_millis))
    };
    let created_at: Timestamp = row.try_get(RECORD + 8)?;
    let expires_at: Option<Timestamp> = row.try_get(RECORD + 9)?;
    Ok(Row {
        id: row.try_get(RECORD)?,
        user_id: row.try_get(RECORD + 1)?,
        name: row.try_get(RECORD + 2)?,
        scopes: row.try_get(RECORD + 3)?,
        unrestricted: row.try_get(RECORD + 4)?,
        display_prefix: row.try_get(RECORD + 5)?,
        pepper: row.try_get(RECORD + 6)?,
        secret_hash: row.try_get(RECORD + 7)?,
        created_at: created_at.unix_millis(),
        // An operator's way to say that it has no end.
        expires_at: expires_at
            .filter(|&end| end != Timestamp::INFINITY)
            .map(Timestamp::unix_millis),
        last_used_at: time(10)?,
        revoked_at: time(11)?,
        disabled_at: time(12)?,
        version: row.try_get(RECORD + 13)?,
        retires_at: time(14)?,
        revocation_reason: row.try_get(RECORD + 15)?,
        metadata: row.try_get(RECORD + 16)?,
        predecessor: row.try_get(RECORD + 17)?,
        successor: row.try_get(RECORD + 18)?,
        made_by: row.try_get(RECORD + 19)?,
    })
}

/// Binds all columns in their order, and then the key's `digest_key`.
pub(super) fn write<'q>(
    query: Query<'q, Postgres, PgArguments>,
    key: &ApiKey,
) -> Query<'q, Postgres, PgArguments> {
    let row = Row::of(key);
    let time = |time: Option<SystemTime>| time.map(Timestamp::new);
    query
        .bind(row.id)
        .bind(row.user_id)
        .bind(row.name)
        .bind(row.scopes)
        .bind(row.unrestricted)
        .bind(row.display_prefix)
        .bind(row.pepper)
        .bind(row.secret_hash)
        .bind(Timestamp::new(key.created_at))
        .bind(time(key.expires_at))
        .bind(time(key.last_used_at))
        .bind(time(key.revoked_at))
        .bind(time(key.disabled_at))
        .bind(row.version)
        .bind(time(key.retires_at))
        .bind(row.revocation_reason)
        .bind(row.metadata)
        .bind(row.predecessor)
        .bind(row.successor)
        .bind(row.made_by)
        .bind(Row::digest_key(key))
}
