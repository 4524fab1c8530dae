//! Records as SQLite's rows.

use sqlx::{
    Row as _, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{
    backend::sql::{Row, failed},
    error::BackendError,
    key::ApiKey,
};

/// Read behind the columns: a pepper that is empty is none where a digest is kept, and nonsense elsewhere.
pub(super) const IS_DIGEST: &str = ", digest_key IS NOT NULL";

/// # Errors
///
/// [`BackendError::corrupt`] where one of them isn't a record.
pub(super) fn read_keys(rows: &[SqliteRow]) -> Result<Vec<ApiKey>, BackendError> {
    rows.iter()
        .map(|row| read_row(row).map_err(failed)?.into_key())
        .collect()
}

fn read_row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let pepper: String = row.try_get(6)?;
    let is_digest: bool = row.try_get(20)?;
    Ok(Row {
        id: row.try_get(0)?,
        user_id: row.try_get(1)?,
        name: row.try_get(2)?,
        scopes: row.try_get(3)?,
        unrestricted: row.try_get(4)?,
        display_prefix: row.try_get(5)?,
        pepper: Some(pepper).filter(|pepper| !(is_digest && pepper.is_empty())),
        secret_hash: row.try_get(7)?,
        created_at: row.try_get(8)?,
        expires_at: row.try_get(9)?,
        last_used_at: row.try_get(10)?,
        revoked_at: row.try_get(11)?,
        disabled_at: row.try_get(12)?,
        version: row.try_get(13)?,
        retires_at: row.try_get(14)?,
        revocation_reason: row.try_get(15)?,
        metadata: row.try_get(16)?,
        predecessor: row.try_get(17)?,
        successor: row.try_get(18)?,
        made_by: row.try_get(19)?,
    })
}

/// Binds all columns in their order, and then the key's `digest_key`.
pub(super) fn write_key<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    key: &ApiKey,
) -> Query<'q, Sqlite, SqliteArguments> {
    let row = Row::of(key);
    query
        .bind(row.id)
        .bind(row.user_id)
        .bind(row.name)
        .bind(row.scopes)
        .bind(row.unrestricted)
        .bind(row.display_prefix)
        .bind(row.pepper.unwrap_or_default())
        .bind(row.secret_hash)
        .bind(row.created_at)
        .bind(row.expires_at)
        .bind(row.last_used_at)
        .bind(row.revoked_at)
        .bind(row.disabled_at)
        .bind(row.version)
        .bind(row.retires_at)
        .bind(row.revocation_reason)
        .bind(row.metadata)
        .bind(row.predecessor)
        .bind(row.successor)
        .bind(row.made_by)
        .bind(Row::digest_key(key))
}
