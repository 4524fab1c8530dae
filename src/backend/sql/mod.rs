//! What the SQL backends share: names of tables, rows, and what can go wrong.

mod filter;
mod grant;
mod lanes;
mod open;
mod prefix;
mod row;
mod stray;

pub use self::open::OpenError;
pub(super) use self::{
    filter::{Argument, Dialect, listing},
    grant::{GRANT_COLUMNS, GrantRow},
    lanes::{Lane, LanePermit, Lanes},
    prefix::TablePrefix,
    row::{Row, millis, read_id, read_pepper_usage},
    stray::end_stray,
};
use crate::error::BackendError;

/// The columns of a record, in the order of [`Row`]'s fields.
pub(super) const COLUMNS: &str = "id, user_id, name, scopes, unrestricted, display_prefix, pepper, \
     secret_hash, created_at, expires_at, last_used_at, revoked_at, disabled_at, version, retires_at, \
     revocation_reason, metadata, predecessor, successor, made_by";

/// A value that isn't of its column's type is a record that can't be read; everything else may be
/// different next time.
pub(super) fn failed(error: sqlx::Error) -> BackendError {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => BackendError::corrupt(error),
        sqlx::Error::Database(error) => BackendError::unavailable(Said {
            message: error.message().to_owned(),
            code: error.code().map(String::from),
        }),
        error => BackendError::unavailable(error),
    }
}

/// What a database has said, without the details: those of a row that it refuses are the whole row, the
/// hash of the secret with it.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({})", code.as_deref().unwrap_or("no code"))]
struct Said {
    message: String,
    code: Option<String>,
}
