//! Records as this database gives them.

use sqlx::{Row as _, postgres::PgRow};

use super::{
    super::sql::{Row, failed},
    time::Timestamp,
};
use crate::{error::BackendError, key::ApiKey};

/// The records in the rows. One row says that there are none.
pub(super) fn keys(rows: &[PgRow]) -> Result<Vec<ApiKey>, BackendError> {
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get("is_there").map_err(failed)? {
            keys.push(record(row).map_err(failed)?.into_key()?);
        }
    }
    Ok(keys)
}

pub(super) fn in_recovery() -> BackendError {
    BackendError::unavailable("the server is in recovery: it is a standby, and what it says is old")
}

fn record(row: &PgRow) -> Result<Row, sqlx::Error> {
    let time = |name| {
        let time: Option<Timestamp> = row.try_get(name)?;
        Ok::<_, sqlx::Error>(time.map(Timestamp::unix_millis))
    };
    let created_at: Timestamp = row.try_get("created_at")?;
    let expires_at: Option<Timestamp> = row.try_get("expires_at")?;
    Ok(Row {
        id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        name: row.try_get("name")?,
        scopes: row.try_get("scopes")?,
        unrestricted: row.try_get("unrestricted")?,
        display_prefix: row.try_get("display_prefix")?,
        pepper: row.try_get("pepper")?,
        secret_hash: row.try_get("secret_hash")?,
        created_at: created_at.unix_millis(),
        // An operator's way to say that it has no end.
        expires_at: expires_at
            .filter(|&end| end != Timestamp::INFINITY)
            .map(Timestamp::unix_millis),
        last_used_at: time("last_used_at")?,
        revoked_at: time("revoked_at")?,
        disabled_at: time("disabled_at")?,
        version: row.try_get("version")?,
    })
}
