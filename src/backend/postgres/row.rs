//! Records as this database gives them.

use sqlx::{Row as _, postgres::PgRow};

use super::{
    super::sql::{Row, failed},
    time::Timestamp,
};
use crate::{error::BackendError, key::ApiKey};

/// After `in_recovery`, and before the columns of a record. Columns are asked for by their place: to look
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
    })
}
