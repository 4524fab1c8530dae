//! Records as SQLite's rows.

use sqlx::{
    Row as _, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{
    backend::sql::{Row, failed, millis, scopes_text},
    error::BackendError,
    key::ApiKey,
};

/// # Errors
///
/// [`BackendError::corrupt`] where one of them isn't a record.
pub(super) fn read_keys(rows: &[SqliteRow]) -> Result<Vec<ApiKey>, BackendError> {
    rows.iter()
        .map(|row| read_row(row).map_err(failed)?.into_key())
        .collect()
}

fn read_row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        id: row.try_get(0)?,
        user_id: row.try_get(1)?,
        name: row.try_get(2)?,
        scopes: row.try_get(3)?,
        unrestricted: row.try_get(4)?,
        display_prefix: row.try_get(5)?,
        pepper: row.try_get(6)?,
        secret_hash: row.try_get(7)?,
        created_at: row.try_get(8)?,
        expires_at: row.try_get(9)?,
        last_used_at: row.try_get(10)?,
        revoked_at: row.try_get(11)?,
        disabled_at: row.try_get(12)?,
        version: row.try_get(13)?,
    })
}

/// Binds all columns in their order.
pub(super) fn write_key<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    key: &ApiKey,
) -> Query<'q, Sqlite, SqliteArguments> {
    let (scopes, unrestricted) = scopes_text(&key.scopes);
    query
        .bind(key.id.as_bytes().to_vec())
        .bind(key.user_id.clone())
        .bind(key.name.clone())
        .bind(scopes)
        .bind(unrestricted)
        .bind(key.display_prefix.as_str().to_owned())
        .bind(key.secret_hash.pepper().map(ToString::to_string))
        .bind(key.secret_hash.to_hex())
        .bind(millis(key.created_at))
        .bind(key.expires_at.map(millis))
        .bind(key.last_used_at.map(millis))
        .bind(key.revoked_at.map(millis))
        .bind(key.disabled_at.map(millis))
        .bind(i64::try_from(key.version).unwrap_or(i64::MAX))
}
